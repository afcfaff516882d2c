//! One job's whole story, in the order in which it happens, and the only place where stages are named.
//!
//! Each step is in the journal before it is taken, so the story can be taken up in its middle by the agent's next
//! process: `take_and_run` is a new item's story, `take_up` that of one which was in hand when an earlier process ended.

mod claim;
mod ending;
mod limits;
mod log;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;

use super::code::{self, Fetch};
use super::decide::{Identity, needs_code, new_run_id, plan_of};
use super::{Event, Shared};
use crate::config::AgentConfig;
use crate::failure::{AtStage, Error, Failure, Kind, Result, Stage};
use crate::host::engine::{self, End};
use crate::host::journal::{self, Entry, Step};
use crate::host::logs::JobLog;
use crate::host::runner::{self, Labels};
use crate::host::source::Scratch;
use crate::host::stop::{Activity, Stop};
use crate::host::{files, images};
use crate::launch::job::Code;
use crate::launch::plan::{ImagePlan, Place, Plan};
use crate::launch::spec::LaunchSpec;
use crate::queue::{ItemId, RunQueueItem};
use ending::failed;

/// How long apart a queue is asked again that does not answer.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// The pause before an interrupted job begins again, doubled each time, and its most.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const AGAIN_AT_MOST: Duration = Duration::from_secs(300);

/// What the loop needs to know of a job that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Exit code 0.
    Succeeded,
    /// Anything else. `docker_in_doubt`: it failed because docker does not answer.
    Failed { docker_in_doubt: bool },
    /// Somebody else has the item; nothing was run.
    NotOurs,
    /// It ended, and the queue could not be told.
    Unrecorded,
}

/// Starts the thread of a job that was just popped.
pub fn start(
    shared: &Arc<Shared>,
    item: RunQueueItem,
    stop: &Arc<Stop>,
    events: &Sender<Event>,
) -> Result<JoinHandle<()>> {
    let entry = Entry {
        item: item.id.0,
        queue: item.queue,
        spec: item.spec,
        agents: vec![shared.agent.0.clone()],
        run_id: new_run_id(),
        attempt: 1,
        step: Step::Taken,
        started: None,
    };
    spawn(shared, entry, stop, events, Job::take_and_run)
}

/// Starts the thread of a job that an earlier process of this agent had in hand.
pub fn take_up(
    shared: &Arc<Shared>,
    entry: Entry,
    stop: &Arc<Stop>,
    events: &Sender<Event>,
) -> Result<JoinHandle<()>> {
    spawn(shared, entry, stop, events, Job::take_up)
}

fn spawn(
    shared: &Arc<Shared>,
    entry: Entry,
    stop: &Arc<Stop>,
    events: &Sender<Event>,
    story: fn(&mut Job) -> Verdict,
) -> Result<JoinHandle<()>> {
    let mut job = Job {
        shared: Arc::clone(shared),
        item: ItemId(entry.item.clone()),
        entry,
        plan: None,
        scratch: None,
        stop: Arc::clone(stop),
        events: events.clone(),
    };
    std::thread::Builder::new()
        .name(format!("item-{}", job.item))
        .spawn(move || {
            let verdict = job.run(story);
            job.stop.now(Activity::Done);
            let _ = job.events.send(Event::JobEnded(job.item.clone(), verdict));
        })
        .map_err(|cause| Error::system("cannot start a job's thread", cause))
}

struct Job {
    shared: Arc<Shared>,
    item: ItemId,
    /// What the journal knows of the item.
    entry: Entry,
    /// What is to run, once that is decided for this try.
    plan: Option<Plan>,
    /// The folder of its code.
    scratch: Option<Scratch>,
    stop: Arc<Stop>,
    events: Sender<Event>,
}

impl Job {
    /// The job from its lease to its report. A panic is this job's failure and nobody else's.
    fn run(&mut self, story: fn(&mut Job) -> Verdict) -> Verdict {
        catch_unwind(AssertUnwindSafe(|| story(self))).unwrap_or_else(|panic| {
            let text = panic_text(panic.as_ref());
            self.close(
                &failed(Failure {
                    stage: Stage::Agent,
                    cause: Error::new(Kind::System, format!("internal error: {text}")),
                }),
                false,
            )
        })
    }

    fn take_and_run(&mut self) -> Verdict {
        match self.take() {
            Ok(Some(true)) => self.run_item(),
            Ok(Some(false)) => {
                self.forget();
                Verdict::NotOurs
            }
            Ok(None) => self.leave_to_the_next_start(),
            Err(failure) => self.close(&failed(failure), false),
        }
    }

    /// An item that was in hand when an earlier process ended: it is still ours, or nobody's of ours.
    fn take_up(&mut self) -> Verdict {
        ::log::info!("item {}: taken up where it was left", self.item);
        match self.adopt() {
            Some(true) => {}
            Some(false) => return self.abandon(),
            None => return self.leave_to_the_next_start(),
        }
        match &self.entry.step {
            Step::Ended(report) => {
                let (ended, by_itself) = (report.ended(), report.by_itself);
                self.close(&ended, by_itself)
            }
            _ => self.run_item(),
        }
    }

    /// Decides what to run and claims the item; `false` when it is not ours to run, `None` when that is not known.
    fn take(&mut self) -> Result<Option<bool>, Failure> {
        let (spec, warnings) = LaunchSpec::parse(&self.entry.spec).at(Stage::Agent)?;
        if let Some(run_id) = &spec.run_id {
            self.entry.run_id.clone_from(run_id);
        }
        // What needs no code is decided before the claim: an item that cannot run is told so sooner.
        if !needs_code(&spec) {
            let mut plan = self.decide(&spec, None)?;
            plan.warnings.splice(..0, warnings);
            self.plan = Some(plan);
        }
        // The claim is answered with yes or lost on the way, and the machine may go down meanwhile: what it is for
        // is known before it is made.
        if let Err(error) = self.keep() {
            ::log::error!("item {}: not taken: {error}", self.item);
            self.shared.queue.leave(&self.item);
            return Ok(Some(false));
        }
        let ours = self.claim();
        if ours == Some(true) {
            self.shared.queue.may_run(&spec).at(Stage::Agent)?;
        }
        Ok(ours)
    }

    fn run_item(&mut self) -> Verdict {
        ::log::info!(
            "item {}: run {} of queue `{}`",
            self.item,
            self.entry.run_id,
            self.entry.queue
        );
        let mut log = match self.open_log().at(Stage::Agent) {
            Ok(log) => log,
            Err(failure) => return self.close(&failed(failure), false),
        };
        let result = self.carry_out(&mut log);
        let by_itself = result.is_ok() && self.stop.reason().is_none();
        let ended = self.judge(result, &mut log);
        self.entry.step = Step::Ended(journal::Report::new(&ended, by_itself));
        self.keep_or_say();
        // The log is whole before the report says that the job has ended: whoever follows it stops reading then.
        if let Some(warning) = log.finish() {
            self.warn(&warning);
        }
        self.close(&ended, by_itself)
    }

    /// Tries until the job has ended. What the machine and docker do to it is not its end: then it begins again.
    fn carry_out(&mut self, log: &mut JobLog) -> Result<End, Failure> {
        loop {
            // It quotes what commands said, of which the log has hidden some.
            let result = self
                .try_once(log)
                .map_err(|failure| failure.map_text(|text| log.redacted(text)));
            self.limit(None);
            let most = self.shared.config.max_retries.value;
            match result {
                Err(failure)
                    if engine::may_pass(&failure.cause)
                        && self.stop.reason().is_none()
                        && self.entry.attempt <= most =>
                {
                    self.begin_again(&failure).at(Stage::Agent)?;
                }
                result => return result,
            }
        }
    }

    fn try_once(&mut self, log: &mut JobLog) -> Result<End, Failure> {
        self.clear_up(log).at(Stage::Agent)?;
        if let Some(started) = self.entry.started.clone() {
            self.limit(Some(&started));
            if let Some(end) =
                runner::find_again(&started, self.labels(), log, &self.stop).at(Stage::Run)?
            {
                return Ok(end);
            }
            ::log::info!("item {}: it was not started yet", self.item);
        }
        let plan = match self.plan.take() {
            Some(plan) => plan,
            None => self.prepare(log)?,
        };
        self.introduce(&plan, log).at(Stage::Agent)?;
        if let Place::Container(container) = &plan.place {
            if matches!(container.image, ImagePlan::Build { .. }) {
                self.wait_for_room(log).at(Stage::Build)?;
            }
            let warnings = images::provide(&container.image, log, &self.stop).at(Stage::Build)?;
            self.note_warnings(&warnings, log);
        }
        let started = self.about_to_run(&plan, log).at(Stage::Agent)?;
        self.limit(Some(&started));
        runner::run(&plan.run, &started, log, &self.stop).at(Stage::Run)
    }

    /// Decides what this try runs, with the job's code where it has some.
    fn prepare(&mut self, log: &mut JobLog) -> Result<Plan, Failure> {
        let (spec, warnings) = LaunchSpec::parse(&self.entry.spec).at(Stage::Agent)?;
        let code = if needs_code(&spec) {
            Some(self.fetch(&spec, log)?)
        } else {
            None
        };
        let mut plan = self.decide(&spec, code.as_ref())?;
        plan.warnings.splice(..0, warnings);
        Ok(plan)
    }

    /// Brings the job's code to this machine. Whoever follows the log sees what is done for it.
    fn fetch(&mut self, spec: &LaunchSpec, log: &mut JobLog) -> Result<Code, Failure> {
        let shared = Arc::clone(&self.shared);
        self.note_start(String::new());
        let artifacts = shared.queue.artifacts(&self.item).at(Stage::Agent)?;
        // The folder stays for as long as the job may use it.
        let scratch = Scratch::make(&shared.config.cache_folder).at(Stage::Agent)?;
        let scratch = self.scratch.insert(scratch);
        let from = Fetch {
            artifacts: artifacts.as_ref(),
            cache: &shared.config.cache_folder,
            scratch,
            environment: &shared.environment,
            network: &shared.config.network.value,
            stop: &self.stop,
        };
        code::fetch(spec, &from, log).at(Stage::Build)
    }

    /// Everything that is decided about this try, with nothing done.
    fn decide(&self, spec: &LaunchSpec, code: Option<&Code>) -> Result<Plan, Failure> {
        self.decide_by(&self.shared.config, spec, code)
    }

    fn decide_by(
        &self,
        config: &AgentConfig,
        spec: &LaunchSpec,
        code: Option<&Code>,
    ) -> Result<Plan, Failure> {
        let mut spec = spec.clone();
        // As W&B counts: a run that begins again goes on under its name (`WANDB_RESUME=allow`).
        spec.resume_count += u64::from(self.entry.attempt - 1);
        let shared = &self.shared;
        let id = Identity {
            item: &self.entry.item,
            queue: &self.entry.queue,
            run_id: &self.entry.run_id,
            agent: shared.journal.name(),
        };
        plan_of(config, &shared.environment, id, &spec, code)
    }

    /// Says what will run: the command in the log and at the item, and what its owner should know.
    fn introduce(&mut self, plan: &Plan, log: &mut JobLog) -> Result<()> {
        log.hide(&plan.secrets);
        // What comes before it is in the log when it is done.
        log.note(plan.shown());
        self.note_start(plan.to_string());
        if self.entry.attempt == 1 {
            self.note_warnings(&plan.warnings, log);
        }
        self.entry.step = Step::Preparing;
        self.entry.started = None;
        self.keep()
    }

    /// Keeps what a restarted agent needs to find what is about to be started, and nobody can be sure was started.
    fn about_to_run(&mut self, plan: &Plan, log: &JobLog) -> Result<journal::Started> {
        let started = journal::Started {
            container: match &plan.place {
                Place::Container(container) => Some(journal::Container {
                    name: container.name.clone(),
                    cidfile: container.cidfile.clone(),
                    removal: container.removal,
                }),
                Place::Process => None,
            },
            at: Timestamp::now(),
            boot: runner::boot(),
            log_from: log.position(),
            engine_restarted: false,
        };
        if let Some(container) = &started.container {
            // What an earlier try left there is of a container that is gone.
            files::remove(&container.cidfile)?;
        }
        self.entry.step = Step::Running;
        self.entry.started = Some(started.clone());
        self.keep()?;
        Ok(started)
    }

    /// Decides that the job begins again, and keeps that first: with the container goes the only sign that its end was
    /// not the job's own.
    fn begin_again(&mut self, failure: &Failure) -> Result<()> {
        ::log::warn!("item {}: {failure}", self.item);
        if failure.cause.kind == Kind::Docker {
            let _ = self.events.send(Event::DockerInDoubt);
        }
        let tries = self.shared.config.max_retries.value.saturating_add(1);
        self.entry.attempt += 1;
        let said = format!("try {} of {tries}: {}", self.entry.attempt, failure.cause);
        self.entry.step = Step::Again(said);
        self.keep()
    }

    /// Clears up what is left of an interrupted try once docker is there, and says that the job begins again.
    fn clear_up(&mut self, log: &mut JobLog) -> Result<()> {
        let Step::Again(said) = &self.entry.step else {
            return Ok(());
        };
        let said = said.clone();
        runner::wait_for_engine(&self.stop)?;
        if let Some(started) = self.entry.started.take() {
            runner::clear(&started, self.labels());
        }
        let doubled = AGAIN_AFTER.saturating_mul(1 << self.entry.attempt.saturating_sub(2).min(10));
        self.stop.pause(doubled.min(AGAIN_AT_MOST))?;
        log.note(format_args!("[launch-agent: {said}]"));
        self.warn(&said);
        self.entry.step = Step::Preparing;
        self.keep()
    }

    fn labels(&self) -> Labels<'_> {
        Labels {
            agent: self.shared.journal.name(),
            item: &self.entry.item,
            run: &self.entry.run_id,
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}
