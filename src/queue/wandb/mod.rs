//! W&B's queues, over W&B's own protocol (PROTOCOL sections 1 to 7). This folder is the only code that speaks HTTP as
//! a client; it neither builds an argv nor spawns.
//!
//! # What the server does, and why we are right under each answer
//!
//! PROTOCOL section 3 is partly guesswork about the hosted service, so nothing here leans on one reading of it:
//!
//! - **A pop whose answer is lost** leased an item that nobody hears of. The lease ends by itself after about a
//!   minute and the item comes again, so a lost pop is no error that loses anything, and is not repeated at once.
//! - **An ack whose answer is lost** may have claimed the item or not. It is repeated, with the same run. `true` to
//!   the repetition is ours under both kinds of server. `false` means either that our first ack counted (a server
//!   that is not idempotent) or that somebody else has the item; the item is read back, and it is ours when it
//!   carries our run, whose name we made up and nobody else has. When that cannot be read it is not ours: a job that
//!   runs twice does more harm than one that a person must push again.
//! - **An ack that was answered `false` the first time** means that somebody else has the item. It is neither run nor
//!   failed: failing it would end the other agent's job.
//! - **A failure report before the ack** is for as long as the lease lasts. When it can only be delivered later, the
//!   item has gone back by itself and may be running elsewhere; so it is looked at first (see `report.rs`).
//! - **Success is never reported**: what people see of a job comes from the run that its program opens. Only when no
//!   such run appears is the item failed.

mod ack;
mod admin;
mod artifacts;
mod client;
mod files;
mod link;
mod outbox;
mod people;
mod polling;
pub mod proxy;
mod register;
mod report;
pub mod transport;
mod trouble;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::failure::{Error, Result, Stage};
use crate::launch::spec::LaunchSpec;
use crate::queue::artifacts::Artifacts;
use crate::queue::{
    AgentId, AgentInfo, AgentStatus, Ended, Former, ItemId, Queue, RunQueueItem, Signals, Started,
};
pub use admin::{RemoteItem, RemoteQueue};
pub use client::{Client, Connection, ListedQueue, QUEUES_PROJECT, Viewer};
pub use register::{agent_config, agent_version};

use outbox::Outbox;
use polling::Pace;
use report::{Report, Work};

/// How often an agent says that it lives and hears what people want, as W&B's own does.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// W&B's queues for one agent.
pub struct WandbQueue {
    client: Arc<Client>,
    outbox: Outbox,
    agent_config: Value,
    version: String,
    entity: OnceLock<String>,
    held: Mutex<HashMap<ItemId, Held>>,
    pace: Mutex<Pace>,
}

/// What is remembered of an item from its pop to its end.
#[derive(Debug, Clone)]
struct Held {
    queue: String,
    /// Where its run will be: the job's own entity and project, not the queue's.
    entity: String,
    project: String,
    taken_at: Timestamp,
    /// The run that an ack named.
    run_id: Option<String>,
    ack: Ack,
    warnings: Vec<String>,
}

/// How far an item's ack came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ack {
    /// Nobody has acknowledged it here.
    None,
    /// An ack was sent, and its answer is lost.
    Uncertain,
    /// The item is ours.
    Claimed,
}

impl WandbQueue {
    /// Opens the queues of a connection, and begins to deliver what is left in the folder `outbox` from earlier.
    /// `agent_config` is shown in W&B and must hold no secret; `version` names this program there.
    pub fn open(
        connection: Connection,
        outbox: &Path,
        agent_config: Value,
        version: String,
    ) -> Result<WandbQueue> {
        let client = Arc::new(Client::new(connection)?);
        Ok(WandbQueue {
            outbox: Outbox::open(outbox, Arc::clone(&client))?,
            client,
            agent_config,
            version,
            entity: OnceLock::new(),
            held: Mutex::default(),
            pace: Mutex::default(),
        })
    }

    /// The same server, for everything that is not an agent's.
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn report(&self, agent: &AgentId, item: &ItemId, work: Work) -> Result<()> {
        self.outbox.put(&Report {
            version: report::VERSION,
            server: self.client.base_url().to_owned(),
            entity: self.entity()?,
            agent: agent.0.clone(),
            item: item.0.clone(),
            work,
        })
    }

    /// The entity of the queues, asked for once.
    fn entity(&self) -> Result<String> {
        if let Some(entity) = self.entity.get() {
            return Ok(entity.clone());
        }
        let entity = self.client.entity()?;
        Ok(self.entity.get_or_init(|| entity).clone())
    }

    /// What has to be remembered of an item. A spec that says nothing useful is failed later, by whoever reads it.
    fn hold(&self, item: &RunQueueItem) -> Result<Held> {
        let queue_entity = self.entity()?;
        let text = |key: &str| client::text(&item.spec, key);
        Ok(Held {
            queue: item.queue.clone(),
            entity: text("entity").unwrap_or(queue_entity),
            // W&B's own agent writes and asks for the project in small letters (PROTOCOL section 4).
            project: text("project").unwrap_or_default().to_lowercase(),
            taken_at: Timestamp::now(),
            run_id: None,
            ack: Ack::None,
            warnings: Vec::new(),
        })
    }

    /// A thread that panicked left whole entries: each is put in or taken out at once.
    fn held(&self) -> MutexGuard<'_, HashMap<ItemId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue for WandbQueue {
    fn register(&self, agent: &AgentInfo) -> Result<AgentId> {
        self.introduce(agent)
    }

    fn poll(
        &self,
        agent: &AgentId,
        status: AgentStatus,
        running: usize,
        queues: &[String],
    ) -> Result<Vec<RunQueueItem>> {
        self.ask_for_work(agent, status, running, queues)
    }

    fn poll_every(&self, idle: Duration) -> Duration {
        self.pause(idle)
    }

    fn signals(&self, agent: &AgentId, items: &[ItemId]) -> Result<Signals> {
        self.ask_for_signals(agent, items)
    }

    fn signals_every(&self) -> Duration {
        HEARTBEAT
    }

    fn entity(&self) -> Option<String> {
        WandbQueue::entity(self).ok()
    }

    fn tells_of_outages(&self) -> bool {
        true
    }

    // Runs of a sweep are for as long as the sweep goes on, as under W&B's own agent.
    fn may_run(&self, spec: &LaunchSpec) -> Result<()> {
        let Some(sweep) = spec.sweep_id.as_deref().filter(|sweep| !sweep.is_empty()) else {
            return Ok(());
        };
        let entity = match &spec.entity {
            Some(entity) => entity.clone(),
            None => WandbQueue::entity(self)?,
        };
        let state = self
            .client
            .sweep_state(&entity, &spec.project.to_lowercase(), sweep)?;
        match state.as_deref() {
            Some("RUNNING" | "PAUSED") => Ok(()),
            Some(state) => Err(Error::input(format!(
                "the sweep `{sweep}` is {state}, and a run of a sweep is started only while it is RUNNING or PAUSED"
            ))),
            None => Err(Error::input(format!(
                "there is no sweep `{sweep}` in {entity}/{}",
                spec.project
            ))),
        }
    }

    fn ack(&self, _agent: &AgentId, item: &ItemId, run_id: &str) -> Result<bool> {
        self.claim(item, run_id)
    }

    fn adopt(&self, _agent: &AgentId, item: &RunQueueItem, former: &Former) -> Result<bool> {
        self.take_over(item, former)
    }

    fn leave(&self, item: &ItemId) {
        self.held().remove(item);
    }

    // W&B has no place for the command and the log of a job; both are on the agent's machine.
    fn started(&self, item: &ItemId, started: &Started) -> Result<()> {
        log::debug!("item {item}: its log is {}", started.log.display());
        Ok(())
    }

    // Who may read what is the server's to say: it knows the agent by its key.
    fn artifacts(&self, _item: &ItemId) -> Result<Box<dyn Artifacts + '_>> {
        Ok(Box::new(self.client()))
    }

    // Shows a warning at the item (`updateRunQueueItemWarning`). An item has one text for warnings, so each
    // one is sent with those before it.
    fn warn(&self, item: &ItemId, warning: &str) -> Result<()> {
        let message = {
            let mut all = self.held();
            let Some(held) = all.get_mut(item) else {
                return Ok(());
            };
            held.warnings.push(warning.to_owned());
            held.warnings.join("\n")
        };
        self.report(
            // The agent is needed for attachments alone, and a warning has none.
            &AgentId(String::new()),
            item,
            Work::Warn {
                stage: Stage::Agent.as_str().to_owned(),
                message,
            },
        )
    }

    // Takes the end of an item over. Never waits for the network: what there is to report goes to the outbox, and
    // from there to W&B, however long that takes. An error: it could not be written to disk.
    fn finish(&self, agent: &AgentId, item: &ItemId, ended: &Ended) -> Result<bool> {
        let Some(held) = self.held().get(item).cloned() else {
            log::warn!("item {item}: it ended, and nothing is known of it here");
            return Ok(false);
        };
        if let Some(work) = report::of_end(item, &held, ended) {
            self.report(agent, item, work)?;
        }
        self.held().remove(item);
        Ok(true)
    }

    // W&B has no way to call an agent.
    fn watch(&self, _agent: &AgentId, _wake: Box<dyn Fn() + Send>) -> Result<()> {
        Ok(())
    }

    fn close(&self, agent: &AgentId) -> Result<()> {
        self.say_goodbye(agent)
    }
}
