//! Where items come from and where their state goes: the one trait of the house, [`Queue`], and the words that
//! its implementations share. A queue talks; it neither builds an argv nor runs anything.

pub mod artifacts;
mod client;
pub mod local;
mod outcome;
pub mod wandb;

use std::fmt;
use std::time::Duration;

use serde_json::Value;

pub use client::{
    Item, ItemState, Priority, Push, Pushed, QueueClient, QueueDefinition, QueueStatus,
};
pub use outcome::{Ended, Exit, Outcome, SetBy, Started, StopReason, spell_duration};

use crate::failure::Result;
use crate::launch::spec::LaunchSpec;
use artifacts::Artifacts;

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

    /// Takes an item over from an earlier process of the same agent. `false`: the item is no longer that process's, or
    /// has ended; it must not be run. Repeating the call is harmless.
    fn adopt(&self, agent: &AgentId, item: &RunQueueItem, former: &Former) -> Result<bool>;

    /// Says that a popped item is not run after all: its lease ends by itself, and it may come again.
    fn leave(&self, item: &ItemId);

    /// Tells what the agent does with an item in hand: the exact command and where its log is.
    fn started(&self, item: &ItemId, started: &Started) -> Result<()>;

    /// The artifacts that the job of an item may be made of: those that whoever pushed it may read.
    fn artifacts(&self, item: &ItemId) -> Result<Box<dyn Artifacts + '_>>;

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

/// What an earlier process of an agent did with an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// The name that it had. Several, where an earlier attempt to take the item over was interrupted.
    pub agents: Vec<AgentId>,
    /// The run that it named, or was about to name, in its ack.
    pub run_id: String,
    /// Was the ack answered with yes?
    pub claimed: bool,
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
