//! The embedded queue: one SQLite file that many agents and pushers, in many processes, share. With the files
//! of `local/` the only code that says SQL. It builds no argv, spawns nothing, and never prints.
//!
//! Every change is one `BEGIN IMMEDIATE` transaction, written through to the disk before the call returns: what
//! was acknowledged survives a power cut, and no item is ever handed to two.

mod agents;
mod artifacts;
mod bell;
mod definition;
mod files;
mod items;
mod lease;
mod push;
mod queues;
mod reasons;
mod remote;
mod rows;
mod runs;
mod schema;
mod trouble;
mod users;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::artifacts::Artifacts;
use super::{
    AgentId, AgentInfo, AgentStatus, Ended, Former, Item, ItemId, Push, Pushed, Queue, QueueClient,
    QueueDefinition, QueueStatus, RunQueueItem, Signals, Started, StopRequest, Told,
};
use crate::failure::{Error, Kind, Result};
use crate::launch::resource_args::Ask;
use crate::launch::spec::LaunchSpec;
use bell::Bell;
use trouble::Trouble;

pub use agents::Agent;
pub use artifacts::{
    Artifact, ArtifactFile, Collection, LocalArtifacts, Manifest, NewArtifact, NewFile, artifact_id,
};
pub use definition::{check_definition, check_new, fill_config, full_name, split_name};
pub use files::{Blob, Complete, Incoming, Kept, StoredFile, check_file_name};
pub use items::Cancelled;
pub use push::check_push;
pub use queues::QueueChange;
pub use remote::{RemoteAgent, RemoteFailure, SavedConfig};
pub use runs::{Chunk, Line, Post, Posted, Project, Run, RunChange, Stream};
pub use users::{Caller, Key, LOCAL_ENTITY, NewKey};

/// The times that the queue works with. The defaults are the product's; tests shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long a popped item stays with an agent that does not acknowledge it.
    pub lease: Duration,
    /// How long a call waits for another process that writes.
    pub busy: Duration,
    /// An agent whose last heartbeat is older than this does not count as polling.
    pub quiet: Duration,
    /// An agent whose last heartbeat is older than this will not come back for its items, when a person says so.
    pub lost: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Times {
            lease: Duration::from_secs(60),
            busy: Duration::from_secs(10),
            quiet: Duration::from_secs(60),
            lost: Duration::from_secs(3_600),
        }
    }
}

/// The embedded queue of one file. Shared by the threads of a process; one connection serves them all, because
/// SQLite lets one writer in at a time anyway and every call is short.
pub struct LocalQueue {
    path: PathBuf,
    times: Times,
    connection: Mutex<Connection>,
    bells: Mutex<Vec<Bell>>,
    /// What each agent of this process last said of itself, and when.
    told: Mutex<HashMap<AgentId, Word>>,
}

/// What an agent last said of itself.
#[derive(Debug, Clone, Copy)]
struct Word {
    when: Instant,
    status: AgentStatus,
    running: usize,
}

impl Word {
    fn is_old(&self) -> bool {
        self.when.elapsed() >= HEARTBEAT
    }
}

/// How often an agent looks when nothing wakes it: the bells and the watch of the file's version come first.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How often an agent that has no news says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

impl LocalQueue {
    /// Opens the queue at `path`, making the file and its folders when they are missing.
    pub fn open(path: &Path) -> Result<LocalQueue> {
        LocalQueue::open_with(path, Times::default())
    }

    /// Opens the queue at `path`, which must exist: for commands that look, and should not leave a file behind.
    pub fn open_existing(path: &Path) -> Result<LocalQueue> {
        match path.try_exists() {
            Ok(true) => LocalQueue::open(path),
            Ok(false) => Err(Error::new(
                Kind::NotFound,
                format!("no queues yet in {}", path.display()),
            )
            .hint("make one with `launch-agent queue create NAME`, or name another file with `--local PATH`")),
            Err(cause) => Err(Error::new(
                Kind::Queue,
                format!("cannot look at {}: {cause}", path.display()),
            )
            .hint("name another file with `--local PATH`")),
        }
    }

    /// [`LocalQueue::open`] with other times.
    pub fn open_with(path: &Path, times: Times) -> Result<LocalQueue> {
        let path = std::path::absolute(path).map_err(|cause| {
            Error::system(format_args!("cannot find {}", path.display()), cause)
        })?;
        // Such as /dev/null, which SQLite takes for a database that is locked for ever.
        if path
            .metadata()
            .is_ok_and(|about| !about.is_file() && !about.is_dir())
        {
            return Err(Error::new(
                Kind::Queue,
                format!("{} is no file that can hold a queue", path.display()),
            )
            .hint("name another file with `--local PATH`"));
        }
        let connection = schema::open(&path, times.busy)?;
        Ok(LocalQueue {
            path,
            times,
            connection: Mutex::new(connection),
            bells: Mutex::new(Vec::new()),
            told: Mutex::new(HashMap::new()),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder for the logs of this queue's jobs, made if it is missing: `queue.logs` beside `queue.db`. The
    /// agent writes `ITEM.log` there.
    pub fn logs_folder(&self) -> Result<PathBuf> {
        let folder = self.logs_path();
        schema::make_folder(&folder).map_err(|cause| {
            Error::system(
                format_args!("cannot make the folder {}", folder.display()),
                cause,
            )
        })?;
        Ok(folder)
    }

    fn logs_path(&self) -> PathBuf {
        self.path.with_extension("logs")
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere leaves no half-done transaction behind: dropping one rolls it back.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// One look at a single state of the database.
    fn read<T>(&self, look: impl FnOnce(&Transaction<'_>) -> Result<T, Trouble>) -> Result<T> {
        self.exchange(TransactionBehavior::Deferred, look)
    }

    /// One change: all of it, or nothing.
    fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T, Trouble>) -> Result<T> {
        self.exchange(TransactionBehavior::Immediate, change)
    }

    fn exchange<T>(
        &self,
        behavior: TransactionBehavior,
        act: impl FnOnce(&Transaction<'_>) -> Result<T, Trouble>,
    ) -> Result<T> {
        transact(&mut self.connection(), behavior, act).map_err(|trouble| trouble.tell(&self.path))
    }

    /// [`LocalQueue::write`], and then wakes the agents: there is something new for them.
    fn write_and_ring<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, Trouble>,
    ) -> Result<T> {
        let answer = self.write(change)?;
        self.ring();
        Ok(answer)
    }

    /// The item that would be taken next from `queue`, without taking it.
    pub fn peek(&self, queue: &str) -> Result<Option<RunQueueItem>> {
        self.read(|db| lease::peek(db, queue, now()))
    }

    fn pop(&self, agent: &AgentId, queue: &str) -> Result<Option<RunQueueItem>> {
        // A look costs other processes nothing, a change makes them wait: most polls find nothing.
        if self.peek(queue)?.is_none() {
            return Ok(None);
        }
        self.write(|db| lease::pop(db, agent, queue, now(), self.times.lease))
    }

    /// Writes what an agent does, when that is news or its last word is getting old: every change makes others wait.
    fn heartbeat(&self, agent: &AgentId, status: AgentStatus, running: usize) -> Result<()> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let news = told
            .get(agent)
            .is_none_or(|word| word.is_old() || (word.status, word.running) != (status, running));
        if news {
            self.write(|db| agents::heartbeat(db, agent, status, running, now()))?;
            let word = Word {
                when: Instant::now(),
                status,
                running,
            };
            told.insert(agent.clone(), word);
        }
        Ok(())
    }

    /// Wakes the agents that live. That an agent cannot be reached is no error: it looks for itself soon enough.
    fn ring(&self) {
        if let Ok(sockets) = self.read(|db| agents::sockets(db, now(), self.times.quiet)) {
            bell::ring(&sockets);
        }
    }
}

fn transact<T>(
    connection: &mut Connection,
    behavior: TransactionBehavior,
    act: impl FnOnce(&Transaction<'_>) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let transaction = connection.transaction_with_behavior(behavior)?;
    let answer = act(&transaction)?;
    transaction.commit()?;
    Ok(answer)
}

/// Milliseconds since 1970, as times are stored.
fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A duration in the unit of stored times.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Queue for LocalQueue {
    fn register(&self, agent: &AgentInfo) -> Result<AgentId> {
        self.write(|db| agents::register(db, agent, now()))
    }

    fn poll(
        &self,
        agent: &AgentId,
        status: AgentStatus,
        running: usize,
        queues: &[String],
    ) -> Result<Vec<RunQueueItem>> {
        self.heartbeat(agent, status, running)?;
        let items = queues.iter().map(|queue| self.pop(agent, queue));
        items.filter_map(Result::transpose).collect()
    }

    fn poll_every(&self, _idle: Duration) -> Duration {
        LOOK_EVERY
    }

    fn signals(&self, agent: &AgentId, items: &[ItemId]) -> Result<Signals> {
        let (stop, stop_polling) = self.read(|db| {
            Ok((
                lease::stop_requests(db, items)?.into_iter(),
                agents::is_told_to_stop(db, agent)?,
            ))
        })?;
        let stop = stop
            .map(|item| StopRequest {
                item,
                told: Told::AgentAlone,
            })
            .collect();
        Ok(Signals { stop, stop_polling })
    }

    fn signals_every(&self) -> Duration {
        LOOK_EVERY
    }

    fn entity(&self) -> Option<String> {
        None
    }

    fn tells_of_outages(&self) -> bool {
        false
    }

    fn may_run(&self, _spec: &LaunchSpec) -> Result<()> {
        // The embedded queue knows of no sweeps: whoever pushed the run decides.
        Ok(())
    }

    fn ack(&self, agent: &AgentId, item: &ItemId, run_id: &str) -> Result<bool> {
        self.write(|db| lease::ack(db, agent, item, run_id, now()))
    }

    fn adopt(&self, agent: &AgentId, item: &RunQueueItem, former: &Former) -> Result<bool> {
        self.write(|db| lease::adopt(db, agent, &item.id, former, now()))
    }

    fn leave(&self, _item: &ItemId) {}

    fn started(&self, item: &ItemId, started: &Started) -> Result<()> {
        self.write(|db| lease::started(db, item, started))
    }

    fn artifacts(&self, item: &ItemId) -> Result<Box<dyn Artifacts + '_>> {
        Ok(Box::new(self.artifacts_for_item(item)?))
    }

    fn warn(&self, item: &ItemId, warning: &str) -> Result<()> {
        self.write(|db| lease::warn(db, item, warning))
    }

    fn finish(&self, agent: &AgentId, item: &ItemId, ended: &Ended) -> Result<bool> {
        self.write(|db| lease::finish(db, agent, item, ended, now()))
    }

    fn watch(&self, agent: &AgentId, wake: Box<dyn Fn() + Send>) -> Result<()> {
        let (bell, socket) = Bell::hang(&self.path, &self.bells_folder(), agent, wake)?;
        self.bells
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(bell);
        self.write(|db| agents::set_socket(db, agent, socket.as_deref()))
    }

    fn close(&self, agent: &AgentId) -> Result<()> {
        self.heartbeat(agent, AgentStatus::Killed, 0)
    }
}

impl QueueClient for LocalQueue {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn default_entity(&self) -> Result<String> {
        Ok("local".to_owned())
    }

    fn create_queue(
        &self,
        definition: &QueueDefinition,
        resource: &str,
        ask: Ask<'_>,
    ) -> Result<()> {
        LocalQueue::create_queue(self, definition, resource, ask)
    }

    fn queues(&self) -> Result<Vec<QueueStatus>> {
        LocalQueue::queues(self)
    }

    fn queue(&self, name: &str) -> Result<QueueStatus> {
        LocalQueue::queue(self, name)
    }

    fn push(&self, push: &Push, ask: Ask<'_>) -> Result<Pushed> {
        LocalQueue::push(self, push, ask)
    }

    fn items(&self, queue: Option<&str>) -> Result<Vec<Item>> {
        LocalQueue::items(self, queue)
    }

    fn item(&self, id: &ItemId) -> Result<Item> {
        LocalQueue::item(self, id)
    }

    fn agent(&self, id: &AgentId) -> Result<Option<Agent>> {
        LocalQueue::agent(self, id)
    }

    fn why_waiting(&self, item: &Item) -> Result<Option<String>> {
        LocalQueue::why_waiting(self, item)
    }
}
