//! Joins the rooms: takes items while there are free slots, runs each in a thread of its own, stops what shall stop.
//!
//! The loop waits on one channel with a timeout. It holds no lock across a wait, builds no argv, and knows neither
//! SQL nor HTTP.

mod job;
pub mod once;
mod signals;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::{AgentConfig, OnSignal};
use crate::failure::{Error, Kind, Result};
use crate::host::engine;
use crate::host::logs::Terminal;
use crate::host::stop::{self, Stop};
use crate::launch::plan::Plan;
use crate::queue::{AgentId, AgentInfo, AgentStatus, ItemId, Queue, RunQueueItem, StopReason};

/// How long the loop sleeps when nothing wakes it. A queue that can, wakes it at once.
const TICK: Duration = Duration::from_secs(2);

/// How often the agent says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What the loop waits for.
enum Event {
    /// There may be something new in the queue.
    Woken,
    /// The process got a signal to end.
    Signal,
    /// A job's thread is about to end.
    JobEnded(ItemId, job::Verdict),
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
    terminal: Terminal,
    logs_folder: PathBuf,
}

struct Running {
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
    stopper: Option<JoinHandle<()>>,
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
    heartbeat_due: Instant,
    /// A job failed because docker did: nothing is taken before docker answers again.
    docker_in_doubt: bool,
    /// The last trouble with the queue or docker that was said, so that it is said once.
    said: Option<String>,
}

impl Agent {
    /// Registers the agent with its queues. `once`: end when there is no more work.
    pub fn new(
        config: AgentConfig,
        environment: &BTreeMap<String, String>,
        queue: Arc<dyn Queue>,
        terminal: Terminal,
        logs_folder: PathBuf,
        once: bool,
    ) -> Result<Agent> {
        let info = agent_info(&config)?;
        let agent = queue.register(&info)?;
        let (sender, events) = channel();
        let shared = Arc::new(Shared {
            config,
            environment: environment.clone(),
            queue,
            agent,
            terminal,
            logs_folder,
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
            heartbeat_due: Instant::now(),
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
        let worked = self.work();
        let _ = self
            .shared
            .queue
            .heartbeat(&self.shared.agent, AgentStatus::Killed, 0);
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
                Ok(()) => self.said = None,
                Err(error) if self.once && self.running.is_empty() => return Err(error),
                Err(error) => self.say_once(&error),
            }
            if self.running.is_empty()
                && (self.phase > Phase::Working || (self.once && self.said.is_none()))
            {
                return Ok(());
            }
            self.wait();
        }
    }

    /// Everything there is to do now.
    fn turn(&mut self) -> Result<()> {
        if Instant::now() >= self.heartbeat_due {
            self.heartbeat_due = Instant::now() + HEARTBEAT;
            self.heartbeat()?;
        }
        self.stop_what_was_asked_for()?;
        self.take_work()
    }

    fn heartbeat(&self) -> Result<()> {
        let status = if self.running.is_empty() {
            AgentStatus::Polling
        } else {
            AgentStatus::Running
        };
        self.shared
            .queue
            .heartbeat(&self.shared.agent, status, self.running.len())
    }

    fn stop_what_was_asked_for(&mut self) -> Result<()> {
        if self.running.is_empty() {
            return Ok(());
        }
        let items: Vec<ItemId> = self.running.keys().cloned().collect();
        for item in self.shared.queue.stop_requests(&items)? {
            self.stop(&item, StopReason::Requested);
        }
        Ok(())
    }

    fn take_work(&mut self) -> Result<()> {
        while self.phase == Phase::Working && self.has_free_slot() {
            if self.docker_in_doubt {
                engine::version()?;
                self.docker_in_doubt = false;
            }
            let Some(item) = self.pop()? else {
                return Ok(());
            };
            self.start(item)?;
        }
        Ok(())
    }

    fn has_free_slot(&self) -> bool {
        self.shared
            .config
            .max_jobs
            .value
            .is_none_or(|limit| self.running.len() < limit)
    }

    /// Asks the queues in turn; the one that had work goes to the back, so that none starves.
    fn pop(&mut self) -> Result<Option<RunQueueItem>> {
        for index in 0..self.queues.len() {
            if let Some(item) = self
                .shared
                .queue
                .pop(&self.shared.agent, &self.queues[index])?
            {
                if let Some(served) = self.queues.remove(index) {
                    self.queues.push_back(served);
                }
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    fn start(&mut self, item: RunQueueItem) -> Result<()> {
        let id = item.id.clone();
        let stop = Arc::new(Stop::default());
        let thread = job::start(&self.shared, item, &stop, &self.sender)?;
        self.running.insert(
            id,
            Running {
                stop,
                thread,
                stopper: None,
            },
        );
        self.heartbeat()
    }

    /// Asks a job to stop, and starts the thread that sees to it.
    fn stop(&mut self, item: &ItemId, reason: StopReason) {
        let Some(running) = self.running.get_mut(item) else {
            return;
        };
        if !running.stop.request(reason) {
            return;
        }
        log::info!("item {item}: stopping, because {reason}");
        let (stop, grace) = (
            Arc::clone(&running.stop),
            self.shared.config.stop_grace.value,
        );
        let stopper = std::thread::Builder::new().name(format!("stop-{item}"));
        match stopper.spawn(move || stop::carry_out(&stop, grace)) {
            Ok(thread) => running.stopper = Some(thread),
            Err(error) => {
                log::error!("item {item}: cannot start the thread that stops it: {error}");
            }
        }
    }

    fn wait(&mut self) {
        let mut event = self.events.recv_timeout(TICK);
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
            Event::Woken => {}
            Event::Signal => self.signalled(),
            Event::JobEnded(item, verdict) => self.job_ended(&item, verdict),
        }
    }

    fn job_ended(&mut self, item: &ItemId, verdict: job::Verdict) {
        if let Some(running) = self.running.remove(item) {
            for thread in [Some(running.thread), running.stopper]
                .into_iter()
                .flatten()
            {
                // A panic of the job itself was caught and reported by its thread.
                let _ = thread.join();
            }
        }
        match verdict {
            job::Verdict::Succeeded => self.tally.succeeded += 1,
            job::Verdict::Failed { docker_in_doubt } => {
                self.tally.failed += 1;
                self.docker_in_doubt |= docker_in_doubt;
            }
            job::Verdict::NotOurs => {}
        }
        self.heartbeat_due = Instant::now();
    }

    fn signalled(&mut self) {
        let on_signal = self.shared.config.on_signal.value;
        if self.phase == Phase::Working && on_signal == OnSignal::Drain && !self.running.is_empty()
        {
            self.phase = Phase::Draining;
            log::info!(
                "ending when {} running jobs have ended; a second signal stops them",
                self.running.len()
            );
            return;
        }
        self.phase = Phase::Stopping;
        let items: Vec<ItemId> = self.running.keys().cloned().collect();
        for item in items {
            self.stop(&item, StopReason::AgentStopped);
        }
    }

    fn say_once(&mut self, error: &Error) {
        let text = error.to_string();
        if self.said.as_ref() != Some(&text) {
            log::error!(
                "{text}{}",
                error
                    .hint
                    .as_ref()
                    .map(|hint| format!(" (hint: {hint})"))
                    .unwrap_or_default()
            );
            self.said = Some(text);
        }
    }
}

fn agent_info(config: &AgentConfig) -> Result<AgentInfo> {
    if config.queues.value.is_empty() {
        return Err(Error::new(Kind::Config, "no queue to poll")
            .hint("name one with `-q NAME`, or under `queues:` in launch-config.yaml"));
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

/// The plan of the item that the agent would take next; `None` when there is nothing to take.
pub fn next_plan(
    config: &AgentConfig,
    environment: &BTreeMap<String, String>,
    queue: &dyn Queue,
) -> Result<Option<(RunQueueItem, Plan)>> {
    for name in &agent_info(config)?.queues {
        if let Some(item) = queue.peek(name)? {
            let plan = job::plan_of(config, environment, &AgentId("dry-run".to_owned()), &item)?;
            return Ok(Some((item, plan)));
        }
    }
    Ok(None)
}
