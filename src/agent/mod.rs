//! Joins the rooms: takes items while there are free slots, runs each in a thread of its own, stops what shall stop.
//!
//! The loop waits on one channel with a timeout. It holds no lock across a wait, builds no argv, and knows neither
//! SQL nor HTTP.

pub mod code;
mod decide;
mod dry_run;
mod job;
pub mod once;
mod resuming;
mod signals;
mod stopping;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::{AgentConfig, Backend};
use crate::failure::{Error, Kind, Result};
use crate::host::disk::Disks;
use crate::host::engine;
use crate::host::journal::{Entry, Journal};
use crate::host::logs::Terminal;
use crate::host::stop::Stop;
use crate::launch::spec::LaunchSpec;
use crate::queue::{AgentId, AgentInfo, AgentStatus, ItemId, Queue, RunQueueItem, StopReason};

pub use decide::{needs_code, transfers};
pub use dry_run::next_plan;

/// The pause before a server is asked again that could not be reached when the agent was started.
const REGISTER_AGAIN: Duration = Duration::from_secs(2);

/// What the loop waits for.
enum Event {
    /// There may be something new in the queue.
    Woken,
    /// The process got a signal to end.
    Signal,
    /// A job is waiting for docker, which has gone away.
    DockerInDoubt,
    /// A job has a time limit from now on.
    LimitSet,
    /// A job's thread is about to end.
    JobEnded(ItemId, job::Verdict),
    /// These were in hand when the agent's earlier process ended, and docker was asked about them.
    InHand(Vec<Entry>),
    /// What the earlier process left and nobody has in hand is ended.
    Resumed,
}

/// How far the agent is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It takes work.
    Working,
    /// It takes nothing new, and lets what runs end.
    Draining,
    /// It stops what runs.
    Stopping,
}

/// What every job's thread needs.
struct Shared {
    config: AgentConfig,
    environment: BTreeMap<String, String>,
    queue: Arc<dyn Queue>,
    agent: AgentId,
    journal: Journal,
    terminal: Terminal,
    logs_folder: PathBuf,
    /// What has to have room before an image is built.
    disks: Disks,
}

struct Running {
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
    /// A sweep scheduler has a limit of its own and takes no job's slot.
    is_scheduler: bool,
    /// When a job that was asked to end by itself has had its time.
    stop_due: Option<Instant>,
    /// The thread that stops it, once that has begun.
    stopper: Option<JoinHandle<()>>,
}

impl Running {
    fn new(stop: Arc<Stop>, thread: JoinHandle<()>, is_scheduler: bool) -> Running {
        Running {
            stop,
            thread,
            is_scheduler,
            stop_due: None,
            stopper: None,
        }
    }

    /// When and why this job is to be stopped, unless that has begun. One that has ended, and is only being cleared up,
    /// has nothing left to stop.
    fn stop_to_come(&self) -> Option<(Instant, StopReason)> {
        if self.stopper.is_some() || self.stop.has_ended() {
            return None;
        }
        let asked = self.stop_due.map(|due| (due, StopReason::Requested));
        let both = asked.into_iter().chain(self.stop.time_limit());
        both.min_by_key(|(due, _)| *due)
    }
}

/// What came of an agent's work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Jobs that ended with exit code 0.
    pub succeeded: usize,
    /// All others that ended.
    pub failed: usize,
}

/// The agent.
pub struct Agent {
    shared: Arc<Shared>,
    queues: VecDeque<String>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    running: HashMap<ItemId, Running>,
    phase: Phase,
    once: bool,
    tally: Tally,
    poll_due: Instant,
    signals_due: Instant,
    last_work: Instant,
    disks: Disks,
    /// What an earlier process left is being looked at, until [`Event::Resumed`]: nothing new is taken.
    is_resuming: bool,
    /// Asks that look not to wait for docker any longer.
    resuming: Arc<Stop>,
    /// A job failed because docker did: nothing is taken before docker answers again.
    docker_in_doubt: bool,
    /// The last trouble with the queue or docker that was said, so that it is said once.
    said: Option<String>,
}

impl Agent {
    /// Registers the agent with its queues. `once`: end when there is no more work.
    pub fn new(
        mut config: AgentConfig,
        environment: &BTreeMap<String, String>,
        queue: Arc<dyn Queue>,
        terminal: Terminal,
        logs_folder: PathBuf,
        once: bool,
    ) -> Result<Agent> {
        let info = agent_info(&config)?;
        let agent = register(queue.as_ref(), &info, once)?;
        if let Some(entity) = queue.entity() {
            config.entity.value = Some(entity);
        }
        let folders = [config.state_folder.clone(), logs_folder.clone()];
        let disks = Disks::new(
            folders.into_iter().chain(engine::data_root()),
            config.min_free_disk.value,
        );
        let journal = Journal::open(&config.state_folder, &backend_name(&config), &info.queues)?;
        let (sender, events) = channel();
        let now = Instant::now();
        let shared = Arc::new(Shared {
            config,
            environment: environment.clone(),
            queue,
            agent,
            journal,
            terminal,
            logs_folder,
            disks: disks.clone(),
        });
        Ok(Agent {
            queues: info.queues.into(),
            shared,
            events,
            sender,
            running: HashMap::new(),
            phase: Phase::Working,
            once,
            tally: Tally::default(),
            poll_due: now,
            signals_due: now,
            last_work: now,
            disks,
            is_resuming: false,
            resuming: Arc::default(),
            docker_in_doubt: false,
            said: None,
        })
    }

    /// Works until it is told to end, or, with `once`, until there is no more work.
    pub fn run(mut self) -> Result<Tally> {
        signals::listen(self.shared.config.on_signal.value, self.sender.clone())?;
        let sender = self.sender.clone();
        self.shared.queue.watch(
            &self.shared.agent,
            Box::new(move || drop(sender.send(Event::Woken))),
        )?;
        let level = if self.once {
            log::Level::Debug
        } else {
            log::Level::Info
        };
        log::log!(
            level,
            "polling {} as {}",
            list(&self.queues),
            self.shared.agent
        );
        let worked = self.resume().and_then(|()| self.work());
        if let Err(error) = self.shared.queue.close(&self.shared.agent) {
            log::warn!("the queue was not told that the agent has ended: {error}");
        }
        log::log!(
            level,
            "ended: {} succeeded, {} did not",
            self.tally.succeeded,
            self.tally.failed
        );
        worked.map(|()| self.tally)
    }

    fn work(&mut self) -> Result<()> {
        loop {
            match self.turn() {
                Ok(true) => self.said = None,
                // A turn without a poll shows nothing: the trouble may still be there.
                Ok(false) => {}
                Err(error) if self.once && self.is_idle() => return Err(error),
                Err(error) => self.say_once(&error),
            }
            if self.is_idle() && (self.phase > Phase::Working || (self.once && self.said.is_none()))
            {
                return Ok(());
            }
            self.wait();
        }
    }

    /// Has it nothing in hand?
    fn is_idle(&self) -> bool {
        self.running.is_empty() && !self.is_resuming
    }

    /// Everything there is to do now. `false` when the next poll is not due yet.
    fn turn(&mut self) -> Result<bool> {
        if Instant::now() >= self.signals_due {
            self.signals_due = Instant::now() + self.shared.queue.signals_every();
            self.look_at_signals()?;
            if self.said.is_some() {
                // The queue answers again: work that came meanwhile has waited long enough.
                self.poll_due = Instant::now();
            }
        }
        self.stop_what_is_due();
        let polls = Instant::now() >= self.poll_due && !(self.once && self.is_resuming);
        if polls {
            self.take_work()?;
        }
        Ok(polls)
    }

    /// Polls until there is no free slot or no more work. The next poll is due when the queue says, whatever
    /// becomes of this one.
    fn take_work(&mut self) -> Result<()> {
        self.poll_due = Instant::now() + self.shared.queue.poll_every(self.last_work.elapsed());
        let ready = self.check_docker().and_then(|()| self.disks.check());
        let takes = self.phase == Phase::Working && !self.is_resuming && ready.is_ok();
        // Each queue is asked once; one that had work goes to the back and is asked again.
        let mut asked = 0;
        loop {
            let left = self.queues.len() - asked;
            let room = if takes {
                self.free_slots().min(left)
            } else {
                0
            };
            let queues: Vec<String> = self.queues.iter().skip(asked).take(room).cloned().collect();
            let running = self.running.len();
            let status = if running == 0 {
                AgentStatus::Polling
            } else {
                AgentStatus::Running
            };
            let polled = self
                .shared
                .queue
                .poll(&self.shared.agent, status, running, &queues);
            let items = match (polled, &ready) {
                // A full disk is also why the queue cannot be told that the agent lives: the cause is what is said.
                (Err(_), Err(cause)) => return Err(cause.clone()),
                (polled, _) => polled?,
            };
            asked += room - items.len();
            for item in items {
                self.last_work = Instant::now();
                self.queues.retain(|queue| *queue != item.queue);
                self.queues.push_back(item.queue.clone());
                self.start(item)?;
            }
            if room == 0 || asked == self.queues.len() {
                return ready;
            }
        }
    }

    fn free_slots(&self) -> usize {
        let jobs = self
            .running
            .values()
            .filter(|running| !running.is_scheduler)
            .count();
        let limit = self.shared.config.max_jobs.value;
        limit.map_or(usize::MAX, |limit| limit.saturating_sub(jobs))
    }

    /// An engine that has gone away would turn every item into a failure.
    fn check_docker(&mut self) -> Result<()> {
        if self.docker_in_doubt && self.free_slots() > 0 {
            engine::version()?;
            self.docker_in_doubt = false;
        }
        Ok(())
    }

    fn start(&mut self, item: RunQueueItem) -> Result<()> {
        let id = item.id.clone();
        let is_scheduler = is_scheduler(&item.spec);
        let schedulers = self
            .running
            .values()
            .filter(|running| running.is_scheduler)
            .count();
        if is_scheduler
            && self
                .shared
                .config
                .max_schedulers
                .value
                .is_some_and(|limit| schedulers >= limit)
        {
            log::warn!(
                "item {id}: not taken, because {schedulers} sweep schedulers run (`max_schedulers`); it goes back to its queue"
            );
            self.shared.queue.leave(&id);
            return Ok(());
        }
        let stop = Arc::new(Stop::default());
        let thread = job::start(&self.shared, item, &stop, &self.sender)?;
        self.running
            .insert(id, Running::new(stop, thread, is_scheduler));
        Ok(())
    }

    fn wait(&mut self) {
        let stops = self.running.values().filter_map(Running::stop_to_come);
        let next = stops
            .map(|(due, _)| due)
            .chain([self.poll_due, self.signals_due])
            .min()
            .unwrap_or(self.poll_due);
        let mut event = self
            .events
            .recv_timeout(next.saturating_duration_since(Instant::now()));
        // All that has come is looked at before the next turn, so that a flood of nudges costs one turn.
        while let Ok(next) = event {
            self.handle(next);
            event = self
                .events
                .try_recv()
                .map_err(|_| RecvTimeoutError::Timeout);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Woken => self.look_at_once(),
            Event::Signal => self.signalled(),
            Event::DockerInDoubt => self.docker_in_doubt = true,
            // The loop has turned, and waits no longer than until then.
            Event::LimitSet => {}
            Event::JobEnded(item, verdict) => self.job_ended(&item, verdict),
            Event::InHand(entries) => self.take_up(entries),
            Event::Resumed => {
                self.is_resuming = false;
                self.look_at_once();
            }
        }
    }

    fn job_ended(&mut self, item: &ItemId, verdict: job::Verdict) {
        if let Some(running) = self.running.remove(item) {
            // A panic of the job itself was caught and reported by its thread. That of its stop may still wait for
            // docker's answer, and ends by itself.
            let _ = running.thread.join();
        }
        match verdict {
            job::Verdict::Succeeded => self.tally.succeeded += 1,
            job::Verdict::Failed { docker_in_doubt } => {
                self.tally.failed += 1;
                self.docker_in_doubt |= docker_in_doubt;
            }
            job::Verdict::Unrecorded => self.tally.failed += 1,
            job::Verdict::NotOurs => {}
        }
        self.look_at_once();
    }

    /// There may be news: nothing waits for its time.
    fn look_at_once(&mut self) {
        self.poll_due = Instant::now();
        self.signals_due = self.poll_due;
    }

    fn say_once(&mut self, error: &Error) {
        let text = error.to_string();
        let told = matches!(error.kind, Kind::Queue | Kind::Config)
            && self.shared.queue.tells_of_outages();
        if !told && self.said.as_ref() != Some(&text) {
            log::error!("{text}{}", in_brackets(error));
        }
        self.said = Some(text);
    }
}

/// Makes the agent known. A machine is often up before its network is: who waits for work waits for the server too. One
/// that is started by the clock will be started again.
fn register(queue: &dyn Queue, info: &AgentInfo, once: bool) -> Result<AgentId> {
    let mut said = false;
    loop {
        let error = match queue.register(info) {
            Err(error) if error.kind == Kind::Queue && queue.tells_of_outages() && !once => error,
            answer => return answer,
        };
        if !std::mem::replace(&mut said, true) {
            log::error!(
                "{error}; it is asked until it answers{}",
                in_brackets(&error)
            );
        }
        std::thread::sleep(REGISTER_AGAIN);
    }
}

/// The error's hint, for the end of a line.
fn in_brackets(error: &Error) -> String {
    let hint = error.hint.as_ref();
    hint.map(|hint| format!(" (hint: {hint})"))
        .unwrap_or_default()
}

/// What keeps journals apart whose items are of different queues.
fn backend_name(config: &AgentConfig) -> String {
    match &config.backend.value {
        Backend::Local(database) => format!("local {}", database.display()),
        Backend::Wandb | Backend::Unset => {
            let entity = config.entity.value.as_deref().unwrap_or_default();
            format!("wandb {} {entity}", config.base_url.value)
        }
    }
}

/// A spec that cannot be read is failed later, as a job.
fn is_scheduler(spec: &serde_json::Value) -> bool {
    LaunchSpec::parse(spec).is_ok_and(|(spec, _)| spec.is_scheduler)
}

fn agent_info(config: &AgentConfig) -> Result<AgentInfo> {
    if config.queues.value.is_empty() {
        return Err(Error::new(Kind::Config, "no queue to poll")
            .hint("name one with `-q NAME`, or under `queues:` in launch-config.yaml"));
    }
    if config.max_jobs.value == Some(0) {
        let origin = &config.max_jobs.origin;
        let message = format!("`max_jobs` is 0 ({origin}), so the agent would never take a job");
        return Err(Error::new(Kind::Config, message).hint("it is at least 1; -1 is no limit"));
    }
    let hostname = nix::unistd::gethostname()
        .map_err(|cause| Error::system("cannot read the host's name", cause))?;
    let mut queues = config.queues.value.clone();
    let mut seen = std::collections::BTreeSet::new();
    queues.retain(|queue| seen.insert(queue.clone()));
    Ok(AgentInfo {
        hostname: hostname.to_string_lossy().into_owned(),
        pid: std::process::id(),
        queues,
        max_jobs: config.max_jobs.value,
    })
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names
        .into_iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
