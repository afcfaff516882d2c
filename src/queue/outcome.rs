//! How a job starts and ends, in the words that every queue stores or sends.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// What is known of a job once its command is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The exact `docker run` line.
    pub command: String,
    /// The job's log on the agent's machine.
    pub log: PathBuf,
}

/// How an item ended, and when it ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The end itself.
    pub outcome: Outcome,
    /// From the start of the container to its end; `None` when none started.
    pub duration: Option<Duration>,
    /// More about it for its owner, such as the last lines of the log; may be empty.
    pub details: String,
}

/// The three ways in which a job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The job ran and ended by itself.
    Exited(Exit),
    /// Somebody stopped it.
    Stopped(StopReason),
    /// It could not be run.
    Failed(Failure),
}

impl Outcome {
    /// Did the job do what it was asked to?
    pub fn is_success(&self) -> bool {
        matches!(self, Outcome::Exited(Exit { code: 0, .. }))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Exited(exit) => write!(f, "{exit}"),
            Outcome::Stopped(reason) => write!(f, "stopped: {reason}"),
            Outcome::Failed(failure) => write!(f, "{failure}"),
        }
    }
}

/// The end of a container that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, as docker gives it: 128 + N for a process that signal N ended.
    pub code: i32,
    /// The kernel ended it for want of memory.
    pub oom_killed: bool,
}

/// `exit code 0`, or the code with what it means in words.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}", self.code)?;
        if self.oom_killed {
            return f.write_str(" (out of memory: the kernel killed it at its memory limit)");
        }
        match self
            .code
            .checked_sub(128)
            .and_then(|number| nix::sys::signal::Signal::try_from(number).ok())
        {
            Some(signal) => write!(f, " (ended by {})", signal.as_str()),
            None => Ok(()),
        }
    }
}

/// Who stopped a job, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// A person asked for this item to stop.
    Requested,
    /// The agent was told to stop.
    AgentStopped,
    /// It ran for longer than it may.
    TimeLimit {
        /// The limit.
        seconds: u64,
        /// Who set it.
        set_by: SetBy,
    },
}

/// Who set a time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetBy {
    /// Whoever sent the job.
    Job,
    /// The agent's owner.
    Owner,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Requested => f.write_str("a person asked for it"),
            StopReason::AgentStopped => f.write_str("the agent was stopped"),
            StopReason::TimeLimit { seconds, set_by } => {
                let whose = match set_by {
                    SetBy::Job => "the job's own `timeout`",
                    SetBy::Owner => "the agent's `timeout`",
                };
                write!(f, "it ran longer than {whose} of {seconds} s")
            }
        }
    }
}

/// A duration as precise as anyone wants it: `40ms`, `2.5s`, `12s`, `1m 30s`, `2h 5m`.
pub fn spell_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_says_in_words_what_ended_the_job() {
        for (code, oom_killed, text) in [
            (0, false, "exit code 0"),
            (3, false, "exit code 3"),
            (137, false, "exit code 137 (ended by SIGKILL)"),
            (
                137,
                true,
                "exit code 137 (out of memory: the kernel killed it at its memory limit)",
            ),
            (143, false, "exit code 143 (ended by SIGTERM)"),
            (255, false, "exit code 255"),
        ] {
            assert_eq!(Exit { code, oom_killed }.to_string(), text);
        }
    }
}
