//! Where items come from and where their state goes: the one trait of the house, [`Queue`], and the words that
//! its implementations share. A queue talks; it neither builds an argv nor runs anything.

pub mod local;
pub mod wandb;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::failure::{Error, Failure, Result, Stage};
use crate::launch::resource_args::Ask;
use crate::launch::spec::{LaunchSpec, Object};

/// The name of an item in its queue. Opaque: a number in the embedded queue, something longer elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemId(pub String);

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a registered agent. Opaque.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AgentId(pub String);

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An item as an agent takes it: the spec is not yet read, because a bad one must be failed, not lost.
#[derive(Debug, Clone, PartialEq)]
pub struct RunQueueItem {
    /// The item's name.
    pub id: ItemId,
    /// The queue that it was taken from.
    pub queue: String,
    /// The launch spec, with the queue's config and its template values already merged in.
    pub spec: Value,
}

/// What an agent says of itself when it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentInfo {
    /// The machine's name.
    pub hostname: String,
    /// The agent's process on that machine.
    pub pid: u32,
    /// The queues that it polls.
    pub queues: Vec<String>,
    /// How many jobs it runs at once; `None` is no limit.
    pub max_jobs: Option<usize>,
}

/// A queue's place for one agent, and for the people who look at it.
///
/// Every call is one short exchange; none waits for work. Implementations are shared by the threads of an agent.
pub trait Queue: Send + Sync {
    /// Makes the agent known. Refuses a queue that does not exist, naming the closest one.
    fn register(&self, agent: &AgentInfo) -> Result<AgentId>;

    /// One exchange: says what the agent does, and takes the next item of each of `queues` that has one. The caller
    /// names no more queues than it has free slots. A lease ends by itself when it is not acknowledged.
    fn poll(
        &self,
        agent: &AgentId,
        status: AgentStatus,
        running: usize,
        queues: &[String],
    ) -> Result<Vec<RunQueueItem>>;

    /// How long to wait before the next poll, when the last work came `idle` ago and nothing wakes the agent.
    fn poll_every(&self, idle: Duration) -> Duration;

    /// What people have asked for meanwhile. `items` are those in hand.
    fn signals(&self, agent: &AgentId, items: &[ItemId]) -> Result<Signals>;

    /// How long to wait before the signals are looked at again, when nothing wakes the agent.
    fn signals_every(&self) -> Duration;

    /// The entity that the queues belong to, for the job's environment; `None` where there are no entities.
    fn entity(&self) -> Option<String>;

    /// Does the queue itself say, once, that it cannot be reached and that it is back?
    fn tells_of_outages(&self) -> bool;

    /// An error when the job may not run now, for a reason that its queue knows: a sweep that has ended.
    fn may_run(&self, spec: &LaunchSpec) -> Result<()>;

    /// Turns the lease into a claim. `false`: the item is no longer this agent's, and it must not run it.
    /// Repeating the call with the same agent and run is harmless.
    fn ack(&self, agent: &AgentId, item: &ItemId, run_id: &str) -> Result<bool>;

    /// Says that a popped item is not run after all: its lease ends by itself, and it may come again.
    fn leave(&self, item: &ItemId);

    /// Tells what the agent does with an item in hand: the exact command and where its log is.
    fn started(&self, item: &ItemId, started: &Started) -> Result<()>;

    /// Adds a warning to an item, for its owner.
    fn warn(&self, item: &ItemId, warning: &str) -> Result<()>;

    /// Reports how an item ended. `false`: the item is no longer this agent's, and nothing was changed.
    fn finish(&self, agent: &AgentId, item: &ItemId, ended: &Ended) -> Result<bool>;

    /// Calls `wake` whenever there may be something new, from a thread of its own, until the queue is dropped. Waking
    /// too often is harmless. A queue that hears of nothing returns at once, and is polled.
    fn watch(&self, agent: &AgentId, wake: Box<dyn Fn() + Send>) -> Result<()>;

    /// Says that the agent has ended. Returns within seconds, whatever is still to be delivered.
    fn close(&self, agent: &AgentId) -> Result<()>;
}

/// A queue's place for people: those who define queues, push jobs and look at what became of them. Apart from
/// [`Queue`], because a command that looks needs none of what an agent keeps running.
pub trait QueueClient {
    /// Where the queues are, for a sentence: the file, or the entity and the server's address.
    fn place(&self) -> String;

    /// The entity that a job belongs to when nobody names one.
    fn default_entity(&self) -> Result<String>;

    /// Defines a new queue. Its config is checked first; `ask` is called for options that are not known here.
    fn create_queue(
        &self,
        definition: &QueueDefinition,
        resource: &str,
        ask: Ask<'_>,
    ) -> Result<()>;

    /// All queues, by name.
    fn queues(&self) -> Result<Vec<QueueStatus>>;

    /// One queue. An unknown name is an error that names the closest.
    fn queue(&self, name: &str) -> Result<QueueStatus>;

    /// Adds a job to a queue. `ask` is called for options that are not known here.
    fn push(&self, push: &Push, ask: Ask<'_>) -> Result<Pushed>;

    /// The items of one queue, or of all.
    fn items(&self, queue: Option<&str>) -> Result<Vec<Item>>;

    /// One item.
    fn item(&self, id: &ItemId) -> Result<Item>;

    /// An agent by its name; `None` when it is not known any more, or where the backend does not tell.
    fn agent(&self, id: &AgentId) -> Result<Option<local::Agent>>;

    /// Why an item waits, or what is odd about it, where that can be told.
    fn why_waiting(&self, item: &Item) -> Result<Option<String>>;
}

/// A job that is in its queue now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The item that it became.
    pub id: ItemId,
    /// What of the spec will have no effect.
    pub warnings: Vec<String>,
}

/// A queue as people see it. What a backend does not tell is `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueStatus {
    /// As its owner defined it.
    pub definition: QueueDefinition,
    /// The kind of its jobs, in W&B's word.
    pub resource: Option<String>,
    /// How many items wait.
    pub pending: u64,
    /// How many items an agent has in hand.
    pub running: u64,
    /// How many items have ended.
    pub ended: u64,
    /// The agents that poll it now.
    pub agents: Option<Vec<local::Agent>>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// When its owner changed it last.
    pub updated_at: Option<Timestamp>,
}

/// What people have asked an agent for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signals {
    /// The items in hand that shall stop.
    pub stop: Vec<StopRequest>,
    /// The agent itself shall take nothing new, and end when its jobs have ended.
    pub stop_polling: bool,
}

/// Who knows that an item shall stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Nobody but the agent knows of the request: it acts at once.
    AgentAlone,
    /// The job knows of the request too, and is first left the time to end by itself.
    JobToo,
}

/// A request to stop one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopRequest {
    /// The item.
    pub item: ItemId,
    /// Who knows of it.
    pub told: Told,
}

/// What an agent says it is doing, in W&B's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentStatus {
    /// It runs nothing and looks for work.
    Polling,
    /// It runs jobs.
    Running,
    /// It has ended.
    Killed,
}

impl AgentStatus {
    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            AgentStatus::Polling => "POLLING",
            AgentStatus::Running => "RUNNING",
            AgentStatus::Killed => "KILLED",
        }
    }
}

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

/// Who stopped a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// A person asked for this item to stop.
    Requested,
    /// The agent was told to stop.
    AgentStopped,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StopReason::Requested => "a person asked for it",
            StopReason::AgentStopped => "the agent was stopped",
        })
    }
}

/// Which item goes first, in W&B's words and numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// 0
    Critical,
    /// 1
    High,
    /// 2, and what an item has that names none.
    #[default]
    Medium,
    /// 3
    Low,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Priority; 4] = [
        Priority::Critical,
        Priority::High,
        Priority::Medium,
        Priority::Low,
    ];

    /// The word on the command line and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Critical => "critical",
            Priority::High => "high",
            Priority::Medium => "medium",
            Priority::Low => "low",
        }
    }
}

impl FromStr for Priority {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Priority::ALL
            .into_iter()
            .find(|priority| priority.as_str() == word)
            .ok_or_else(|| {
                Error::input(format!("`{word}` is not a priority"))
                    .hint("the priorities are critical, high, medium and low")
            })
    }
}

/// A queue as its owner defined it.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueDefinition {
    /// Its name.
    pub name: String,
    /// Docker options, possibly with `{{templates}}`, in the order written.
    pub config: Object,
    /// `{"name": {"schema": {..}}}`, a schema for each template variable.
    pub template_variables: Object,
    /// May pushers give a priority?
    pub prioritization: bool,
    /// A paused queue hands out nothing.
    pub paused: bool,
}

/// A job as it is pushed.
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    /// The queue to push to.
    pub queue: String,
    /// The launch spec.
    pub spec: Object,
    /// Values for the queue's template variables.
    pub template_values: Object,
    /// `None`: as if it were [`Priority::Medium`].
    pub priority: Option<Priority>,
}

/// An item as people see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its name.
    pub id: ItemId,
    /// The queue that it was pushed to.
    pub queue: String,
    /// Where it is in its life.
    pub state: ItemState,
    /// Its place among the others; `None` where the backend does not tell.
    pub priority: Option<Priority>,
    /// The launch spec with everything merged in; `null` where the backend does not tell.
    pub spec: Value,
    /// 1 for the first try; one more for each `item retry`.
    pub attempt: u32,
    /// The run that it became, once taken.
    pub run_id: Option<String>,
    /// The agent that took it.
    pub agent: Option<AgentId>,
    /// When it was pushed, or put back by `item retry`; `None` where the backend does not tell.
    pub pushed_at: Option<Timestamp>,
    /// When the agent acknowledged it.
    pub claimed_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// From the start of the container to its end.
    pub duration: Option<Duration>,
    /// The exact `docker run` line, once decided.
    pub command: Option<String>,
    /// The job's log on the agent's machine, once there is one.
    pub log: Option<PathBuf>,
    /// Warnings for its owner.
    pub warnings: Vec<String>,
    /// More about how it ended.
    pub details: String,
    /// Someone has asked for it to stop, and it has not ended yet.
    pub stop_requested: bool,
}

/// The states of an item; those that ended carry how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemState {
    /// It waits to be taken.
    Pending,
    /// An agent has taken it and not yet acknowledged it; at this time it goes back.
    Leased,
    /// An agent has it in hand.
    Claimed,
    /// It ran and ended by itself.
    Finished(Exit),
    /// It could not be run.
    Failed {
        /// Where in its life; `None` where the backend does not tell.
        stage: Option<Stage>,
        /// Why; empty where the backend does not tell.
        message: String,
    },
    /// Somebody stopped it.
    Stopped {
        /// Who, in words.
        message: String,
    },
    /// A state that only a newer server knows, in its word.
    Other(String),
}

impl ItemState {
    /// The state's word, as in W&B's queue.
    pub fn word(&self) -> &str {
        match self {
            ItemState::Pending => "PENDING",
            ItemState::Leased => "LEASED",
            ItemState::Claimed => "CLAIMED",
            ItemState::Finished(_) => "FINISHED",
            ItemState::Failed { .. } => "FAILED",
            ItemState::Stopped { .. } => "STOPPED",
            ItemState::Other(word) => word,
        }
    }

    /// Has the item ended?
    pub fn is_ended(&self) -> bool {
        matches!(
            self,
            ItemState::Finished(_) | ItemState::Failed { .. } | ItemState::Stopped { .. }
        )
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

    #[test]
    fn priorities_order_as_their_numbers() {
        let mut sorted = Priority::ALL;
        sorted.sort();
        assert_eq!(sorted, Priority::ALL);
        assert_eq!(
            "high".parse::<Priority>().expect("a priority"),
            Priority::High
        );
        assert!("urgent".parse::<Priority>().is_err());
    }
}
