//! One job's whole story, in the order in which it happens, and the only place where stages are named.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Event, Shared};
use crate::config::AgentConfig;
use crate::failure::{AtStage, Error, Failure, Kind, Result, Stage};
use crate::host::engine::{self, End};
use crate::host::logs::{JobLog, LogFile, Redactor, TerminalLines};
use crate::host::machine::machine;
use crate::host::stop::{Activity, Stop};
use crate::host::{images, registry, runner};
use crate::launch::build;
use crate::launch::job::Code;
use crate::launch::plan::{self, Context, Place, Plan};
use crate::launch::policy::Guard;
use crate::launch::spec::LaunchSpec;
use crate::launch::transfer::Transfers;
use crate::queue::{AgentId, Ended, Outcome, RunQueueItem, Started, spell_duration};

/// How many of a job's last lines go into the report of a job that did not succeed.
const QUOTED_LINES: usize = 20;

/// How often, and how long apart, the end of a job is reported to a queue that does not take it.
const REPORT_TRIES: u32 = 60;
const REPORT_EVERY: Duration = Duration::from_secs(2);

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

/// Starts the thread of a job.
pub fn start(
    shared: &Arc<Shared>,
    item: RunQueueItem,
    stop: &Arc<Stop>,
    events: &Sender<Event>,
) -> Result<JoinHandle<()>> {
    let name = format!("item-{}", item.id);
    let job = Job {
        shared: Arc::clone(shared),
        item,
        stop: Arc::clone(stop),
    };
    let events = events.clone();
    std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            let verdict = job.run();
            job.stop.now(Activity::Done);
            let _ = events.send(Event::JobEnded(job.item.id, verdict));
        })
        .map_err(|cause| Error::system("cannot start a job's thread", cause))
}

struct Job {
    shared: Arc<Shared>,
    item: RunQueueItem,
    stop: Arc<Stop>,
}

impl Job {
    /// The job from its lease to its report. A panic is this job's failure and nobody else's.
    fn run(&self) -> Verdict {
        catch_unwind(AssertUnwindSafe(|| self.take_and_run())).unwrap_or_else(|panic| {
            let text = panic_text(panic.as_ref());
            self.report(&failed(Failure {
                stage: Stage::Agent,
                cause: Error::new(Kind::System, format!("internal error: {text}")),
            }))
        })
    }

    fn take_and_run(&self) -> Verdict {
        match self.take() {
            Ok(Some(plan)) => self.run_plan(&plan),
            Ok(None) => {
                log::warn!("item {}: somebody else has taken it", self.item.id);
                Verdict::NotOurs
            }
            Err(failure) => self.report(&failed(failure)),
        }
    }

    /// Decides what to run and claims the item; `None` when it is not ours to run.
    fn take(&self) -> Result<Option<Plan>, Failure> {
        let shared = &self.shared;
        let (spec, warnings) = LaunchSpec::parse(&self.item.spec).at(Stage::Agent)?;
        let mut plan = plan_of(
            &shared.config,
            &shared.environment,
            &shared.agent,
            &self.item,
            &spec,
            None,
        )?;
        plan.warnings.splice(..0, warnings);
        if !self.claim(&plan.run_id) {
            return Ok(None);
        }
        shared.queue.may_run(&spec).at(Stage::Agent)?;
        Ok(Some(plan))
    }

    /// Makes the lease a claim. While the queue gives no answer it is asked again: the claim may have been made, and
    /// giving up would leave the item claimed by nobody.
    fn claim(&self, run_id: &str) -> bool {
        let mut said = false;
        while self.stop.reason().is_none() {
            match self
                .shared
                .queue
                .ack(&self.shared.agent, &self.item.id, run_id)
            {
                Ok(ours) => return ours,
                Err(error) if !said => {
                    log::error!("item {}: cannot be claimed yet: {error}", self.item.id);
                    said = true;
                }
                Err(_) => {}
            }
            std::thread::sleep(REPORT_EVERY);
        }
        self.shared.queue.leave(&self.item.id);
        false
    }

    fn run_plan(&self, plan: &Plan) -> Verdict {
        log::info!(
            "item {}: run {} of queue `{}`",
            self.item.id,
            plan.run_id,
            self.item.queue
        );
        let mut log = match self.open_log(plan).at(Stage::Agent) {
            Ok(log) => log,
            Err(failure) => return self.report(&failed(failure)),
        };
        self.note_warnings(&plan.warnings, &mut log);
        let result = self.carry_out(plan, &mut log);
        let ended_by_itself = result.is_ok() && self.stop.reason().is_none();
        let ended = self.judge(result, &mut log);
        // The log is whole before the report says that the job has ended: whoever follows it stops reading then.
        if let Some(warning) = log.finish() {
            self.warn(&warning);
        }
        let verdict = self.report(&ended);
        if verdict == Verdict::Unrecorded {
            log::error!(
                "item {}: {} stays, as the only record of its end",
                self.item.id,
                plan.place
            );
        } else {
            runner::clean_up(plan, ended_by_itself);
        }
        verdict
    }

    /// The log, with the exact command as its first line.
    fn open_log(&self, plan: &Plan) -> Result<JobLog> {
        let folder = &self.shared.logs_folder;
        let path = folder.join(format!("{}.log", file_name(&self.item.id.0)));
        let file = LogFile::create(&path, self.shared.config.log_max_bytes.value)?;
        let terminal = TerminalLines::new(Arc::clone(&self.shared.terminal), &self.item.id.0);
        let mut log = JobLog::new(Redactor::new(&plan.secrets), file, terminal);
        log.note(&plan.run);
        self.shared.queue.started(
            &self.item.id,
            &Started {
                command: plan.run.to_string(),
                log: path,
            },
        )?;
        Ok(log)
    }

    fn carry_out(&self, plan: &Plan, log: &mut JobLog) -> Result<End, Failure> {
        if let Place::Container(container) = &plan.place {
            let warnings = images::provide(&container.image, log, &self.stop).at(Stage::Build)?;
            self.note_warnings(&warnings, log);
        }
        runner::run(plan, log, &self.stop).at(Stage::Run)
    }

    /// The outcome, and its last words in the log. Whoever asked for the stop has the last word over what docker
    /// made of it.
    fn judge(&self, result: Result<End, Failure>, log: &mut JobLog) -> Ended {
        let duration = result.as_ref().ok().and_then(|end| end.duration);
        let last_lines = log.last_lines(QUOTED_LINES);
        let outcome = match (self.stop.reason(), result) {
            (Some(reason), Ok(end)) => {
                log.note(format_args!("[launch-agent: {}]", end.exit));
                Outcome::Stopped(reason)
            }
            (Some(reason), Err(_)) => Outcome::Stopped(reason),
            (None, Ok(end)) => Outcome::Exited(end.exit),
            (None, Err(failure)) => Outcome::Failed(failure),
        };
        let after = duration
            .map(|duration| format!(" after {}", spell_duration(duration)))
            .unwrap_or_default();
        log.note(format_args!("[launch-agent: {outcome}{after}]"));
        let details = if outcome.is_success() {
            String::new()
        } else {
            last_lines
        };
        Ended {
            outcome,
            duration,
            details,
        }
    }

    /// Tells the queue how the item ended, and goes on trying while the queue does not take it.
    fn report(&self, ended: &Ended) -> Verdict {
        let item = &self.item.id;
        let after = ended
            .duration
            .map(|duration| format!(" after {}", spell_duration(duration)));
        let line = format!(
            "item {item}: {}{}",
            ended.outcome,
            after.unwrap_or_default()
        );
        if ended.outcome.is_success() {
            log::info!("{line}");
        } else {
            log::warn!("{line}");
        }
        if let Outcome::Failed(Failure {
            cause: Error {
                hint: Some(hint), ..
            },
            ..
        }) = &ended.outcome
        {
            log::warn!("item {item}: hint: {hint}");
        }
        for attempt in 1..=REPORT_TRIES {
            match self.shared.queue.finish(&self.shared.agent, item, ended) {
                Ok(true) => return verdict(&ended.outcome),
                Ok(false) => {
                    log::warn!(
                        "item {item}: its end was not recorded, because it is no longer this agent's"
                    );
                    return Verdict::NotOurs;
                }
                Err(error) if attempt == 1 => {
                    log::error!("item {item}: its end cannot be recorded yet: {error}");
                }
                Err(_) => {}
            }
            std::thread::sleep(REPORT_EVERY);
        }
        log::error!(
            "item {item}: its end could not be recorded: {}",
            ended.outcome
        );
        Verdict::Unrecorded
    }

    /// Tells the job's owner, in the job's log and on its item.
    fn note_warnings(&self, warnings: &[String], log: &mut JobLog) {
        for warning in warnings {
            log.note(format_args!("[launch-agent: warning: {warning}]"));
            self.warn(warning);
        }
    }

    fn warn(&self, warning: &str) {
        log::warn!("item {}: {warning}", self.item.id);
        if let Err(error) = self.shared.queue.warn(&self.item.id, warning) {
            log::warn!(
                "item {}: the warning could not be recorded: {error}",
                self.item.id
            );
        }
    }
}

/// Everything that is decided about an item, with nothing done. `code` is what was fetched for its job.
pub fn plan_of(
    config: &AgentConfig,
    environment: &BTreeMap<String, String>,
    agent: &AgentId,
    item: &RunQueueItem,
    spec: &LaunchSpec,
    code: Option<&Code>,
) -> Result<Plan, Failure> {
    let run_id = new_run_id();
    let cidfile = cidfile(config, item).at(Stage::Agent)?;
    let server = config.server();
    let context = Context {
        item: &item.id.0,
        queue: &item.queue,
        agent: &agent.0,
        queue_entity: config.entity.value.as_deref(),
        generated_run_id: &run_id,
        server: server.as_ref(),
        environment,
        env_macros: &config.env_macros.value,
        secure_mode: config.secure_mode.value,
        guard: Guard {
            policy: &config.policy.settled,
            machine: machine(),
        },
        cidfile: &cidfile,
        network: &config.network.value,
        transfers: &transfers(config, environment),
    };
    if spec.is_scheduler {
        return plan::scheduler(spec, &context).at(Stage::Agent);
    }
    let folder = config.builds_folder();
    let settings = config.build_settings(&engine::has_buildx, &folder);
    // What is wrong with a spec is the agent's to say; what is wrong with code is about its image.
    let stage = code.map_or(Stage::Agent, |_| Stage::Build);
    let program = build::decide(spec, code, &settings).at(stage)?;
    let launch = plan::resolve(spec, &program, &context, &engine::run_help).at(Stage::Agent)?;
    Ok(plan::plan(&launch, &context))
}

/// How images come to this machine and leave it.
pub fn transfers(config: &AgentConfig, environment: &BTreeMap<String, String>) -> Transfers {
    let destination = config.destination.as_ref();
    config.transfers(
        destination.and_then(|to| registry::login(to, &config.state_folder, environment)),
    )
}

/// Where docker writes the container's id: one file for each process and item, so that two never share one.
fn cidfile(config: &AgentConfig, item: &RunQueueItem) -> Result<PathBuf> {
    let folder = config.state_folder.join("run");
    std::fs::create_dir_all(&folder).map_err(|cause| {
        Error::system(
            format_args!("cannot make the folder {}", folder.display()),
            cause,
        )
    })?;
    Ok(folder.join(format!(
        "{}-{}.cid",
        std::process::id(),
        file_name(&item.id.0)
    )))
}

/// An item's id as part of a file's name: ids are opaque, and may hold `/`.
fn file_name(id: &str) -> String {
    id.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '=' {
                c
            } else {
                '_'
            }
        })
        .collect()
}

/// A name for a run as W&B makes them: eight of `[a-z0-9]`.
fn new_run_id() -> String {
    let alphabet = b"abcdefghijklmnopqrstuvwxyz0123456789";
    (0..8)
        .map(|_| char::from(alphabet[fastrand::usize(..alphabet.len())]))
        .collect()
}

fn failed(failure: Failure) -> Ended {
    Ended {
        outcome: Outcome::Failed(failure),
        duration: None,
        details: String::new(),
    }
}

fn verdict(outcome: &Outcome) -> Verdict {
    match outcome {
        outcome if outcome.is_success() => Verdict::Succeeded,
        Outcome::Failed(failure) => Verdict::Failed {
            docker_in_doubt: matches!(failure.cause.kind, Kind::Docker | Kind::System),
        },
        _ => Verdict::Failed {
            docker_in_doubt: false,
        },
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}
