//! How a job ends: what its end is called, and that the queue is told. And what the journal is told on the way there.

use std::time::Duration;

use super::{Job, REPORT_EVERY, Verdict};
use crate::failure::{Error, Failure, Kind, Result};
use crate::host::engine::End;
use crate::host::logs::JobLog;
use crate::host::runner;
use crate::host::stop::Activity;
use crate::queue::{Ended, Outcome, Started, spell_duration};

/// How many of a job's last lines go into the report of a job that did not succeed.
const QUOTED_LINES: usize = 20;

/// How often the end of a job is reported to a queue that does not take it.
const REPORT_TRIES: u32 = 60;

impl Job {
    /// The outcome, and its last words in the log. Whoever asked for the stop has the last word over what docker
    /// made of it.
    pub(super) fn judge(&self, result: Result<End, Failure>, log: &mut JobLog) -> Ended {
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
        let last = format!("[launch-agent: {}]", said(&outcome, duration));
        // An agent that was killed just here had said it already.
        if !log.last_lines(1).ends_with(&last) {
            log.note(last);
        }
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

    /// Reports the end; after that nothing of the job is needed any more.
    pub(super) fn close(&self, ended: &Ended, by_itself: bool) -> Verdict {
        let verdict = self.report(ended);
        if verdict == Verdict::Unrecorded {
            log::error!(
                "item {}: its end is kept, and reported when the agent starts again",
                self.item
            );
            return verdict;
        }
        self.stop.now(Activity::Done);
        if let Some(started) = &self.entry.started {
            runner::clean_up(started, self.labels(), by_itself);
        }
        self.forget();
        verdict
    }

    /// Tells the queue how the item ended, and goes on trying while the queue does not take it.
    pub(super) fn report(&self, ended: &Ended) -> Verdict {
        let item = &self.item;
        let line = format!("item {item}: {}", said(&ended.outcome, ended.duration));
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

    /// Tells the queue what runs, and goes on trying while the queue does not take it: a database that is busy for a
    /// while must cost no job.
    pub(super) fn note_start(&self, command: String) {
        let started = Started {
            command,
            log: self.log_path(),
        };
        for attempt in 1..=REPORT_TRIES {
            match self.shared.queue.started(&self.item, &started) {
                Ok(()) => return,
                Err(error) if attempt == 1 => {
                    log::error!("item {}: waits for its queue: {error}", self.item);
                }
                Err(_) => {}
            }
            if self.stop.reason().is_some() {
                return;
            }
            std::thread::sleep(REPORT_EVERY);
        }
    }

    /// Tells the job's owner, in the job's log and on its item.
    pub(super) fn note_warnings(&self, warnings: &[String], log: &mut JobLog) {
        for warning in warnings {
            log.note(format_args!("[launch-agent: warning: {warning}]"));
            self.warn(&log.redacted(warning));
        }
    }

    pub(super) fn warn(&self, warning: &str) {
        log::warn!("item {}: {warning}", self.item);
        if let Err(error) = self.shared.queue.warn(&self.item, warning) {
            log::warn!(
                "item {}: the warning could not be recorded: {error}",
                self.item
            );
        }
    }

    pub(super) fn keep(&self) -> Result<()> {
        self.shared.journal.keep(&self.entry)
    }

    /// Keeps what is known of the item, for a step that is taken whether or not the disk lets it.
    pub(super) fn keep_or_say(&self) {
        if let Err(error) = self.keep() {
            log::error!("item {}: {error}", self.item);
        }
    }

    pub(super) fn forget(&self) {
        if let Err(error) = self.shared.journal.forget(&self.entry.item) {
            log::error!("item {}: {error}", self.item);
        }
    }
}

pub fn failed(failure: Failure) -> Ended {
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

/// An end with the time that it took. The reason of a stop is a clause of its own: without brackets it would take the
/// time for its own.
fn said(outcome: &Outcome, duration: Option<Duration>) -> String {
    let after = duration.map(spell_duration);
    match (outcome, after) {
        (_, None) => outcome.to_string(),
        (Outcome::Stopped(_), Some(after)) => format!("{outcome} (after {after})"),
        (_, Some(after)) => format!("{outcome} after {after}"),
    }
}
