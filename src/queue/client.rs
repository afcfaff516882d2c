//! The side of a queue that people see: those who define queues, push jobs and look at what became of them.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::{AgentId, Exit, ItemId, local};
use crate::failure::{Error, Result, Stage};
use crate::launch::resource_args::Ask;
use crate::launch::spec::Object;

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
    /// Which user of the server made it; empty without one.
    pub created_by: String,
    /// Links beside it, in W&B's form: `{"links": [{"label": .., "url": ..}]}`; `null` where there are none.
    pub external_links: Value,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// When its owner changed it last.
    pub updated_at: Option<Timestamp>,
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

#[cfg(test)]
mod tests {
    use super::*;

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
