//! The agents that are known: who polls which queue, and how lately. The rows of `agents`, and nothing else.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, named_params, params};
use serde_json::Value;

use super::rows::{IN_HAND, need_queue, texts, time};
use super::trouble::Trouble;
use super::{bell, millis};
use crate::failure::{Error, Kind};
use crate::queue::{AgentId, AgentInfo, AgentStatus};

/// An agent unseen for this long is forgotten when the next one registers.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(7 * 24 * 3_600);

/// An agent as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its name.
    pub id: AgentId,
    /// The machine's name.
    pub hostname: String,
    /// Its process on that machine; an agent of a served queue does not say it.
    pub pid: Option<u32>,
    /// The queues that it polls.
    pub queues: Vec<String>,
    /// How many jobs it runs at once; `None` is no limit.
    pub max_jobs: Option<usize>,
    /// How many jobs it runs now.
    pub running: usize,
    /// What it said last, one of [`AgentStatus`]'s words.
    pub status: String,
    /// When it said so.
    pub seen_at: Timestamp,
    /// It ran on this machine, and its process has ended without a word.
    pub is_gone: bool,
    /// The entity whose queues it polls.
    pub entity: String,
    /// Whose key it uses; empty without a server.
    pub user: String,
    /// A person told it to take nothing more.
    pub stop_polling: bool,
}

impl Agent {
    /// The machine, and the process there, for a person.
    pub fn place(&self) -> String {
        let process = self.pid.map(|pid| format!(" (process {pid})"));
        format!("{}{}", self.hostname, process.unwrap_or_default())
    }

    /// Does it still take jobs, as far as `now` can tell?
    pub fn is_alive(&self, now: i64, quiet: Duration) -> bool {
        !self.is_gone
            && self.status != AgentStatus::Killed.as_str()
            && self.seen_at.as_millisecond() > now.saturating_sub(millis(quiet))
    }

    /// Does it poll this queue?
    pub fn polls(&self, queue: &str) -> bool {
        self.queues.iter().any(|name| name == queue)
    }
}

/// Makes an agent known. Its name is drawn by lot, so that the journal of an agent that knew another database
/// under the same path never fits an item of this one.
pub fn register(db: &Transaction<'_>, agent: &AgentInfo, now: i64) -> Result<AgentId, Trouble> {
    for queue in &agent.queues {
        need_queue(db, queue)?;
    }
    db.execute(
        "DELETE FROM agents WHERE heartbeat_at < ?1",
        [now.saturating_sub(millis(FORGOTTEN_AFTER))],
    )?;
    let id: String = std::iter::repeat_with(fastrand::alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .take(10)
        .collect();
    db.execute(
        "INSERT INTO agents (id, hostname, pid, queues, max_jobs, running, status, heartbeat_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7)",
        params![
            id,
            agent.hostname,
            agent.pid,
            Value::from(agent.queues.clone()).to_string(),
            agent.max_jobs.map(stored),
            AgentStatus::Polling.as_str(),
            now
        ],
    )?;
    Ok(AgentId(id))
}

fn stored(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Has a person told the agent to take nothing more?
pub fn is_told_to_stop(db: &Transaction<'_>, agent: &AgentId) -> Result<bool, Trouble> {
    let found = db
        .prepare_cached("SELECT stop_polling FROM agents WHERE id = ?1")?
        .query_row([&agent.0], |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(false))
}

/// Tells an agent to take nothing more.
pub fn tell_to_stop(db: &Transaction<'_>, agent: &AgentId) -> Result<(), Trouble> {
    let changed = db.execute(
        "UPDATE agents SET stop_polling = 1 WHERE id = ?1",
        [&agent.0],
    )?;
    if changed == 0 {
        return Err(Error::new(Kind::NotFound, format!("no agent `{agent}`"))
            .hint("`launch-agent serve agent list` lists the agents")
            .into());
    }
    Ok(())
}

/// Notes that an agent lives.
pub fn heartbeat(
    db: &Transaction<'_>,
    agent: &AgentId,
    status: AgentStatus,
    running: usize,
    now: i64,
) -> Result<(), Trouble> {
    db.prepare_cached(
        "UPDATE agents SET status = ?2, running = ?3, heartbeat_at = ?4 WHERE id = ?1",
    )?
    .execute(params![agent.0, status.as_str(), stored(running), now])?;
    Ok(())
}

/// Notes where an agent listens for a nudge.
pub fn set_socket(
    db: &Transaction<'_>,
    agent: &AgentId,
    socket: Option<&str>,
) -> Result<(), Trouble> {
    db.execute(
        "UPDATE agents SET socket = ?2 WHERE id = ?1",
        params![agent.0, socket],
    )?;
    Ok(())
}

/// Where the agents that live listen.
pub fn sockets(db: &Transaction<'_>, now: i64, quiet: Duration) -> Result<Vec<PathBuf>, Trouble> {
    let mut statement = db.prepare_cached(
        "SELECT socket FROM agents WHERE socket IS NOT NULL AND status <> ?1 AND heartbeat_at > ?2",
    )?;
    let found = statement.query_map(
        params![
            AgentStatus::Killed.as_str(),
            now.saturating_sub(millis(quiet))
        ],
        |row| Ok(PathBuf::from(row.get::<_, String>(0)?)),
    )?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// All agents, the one seen last first. What an agent has in hand is known here sooner than it says so itself; what
/// it took over from its own life before a restart only it knows.
pub fn all(db: &Transaction<'_>, now: i64) -> Result<Vec<Agent>, Trouble> {
    some(db, None, now)
}

/// The agent of that name.
pub fn one(db: &Transaction<'_>, id: &AgentId, now: i64) -> Result<Option<Agent>, Trouble> {
    Ok(some(db, Some(&id.0), now)?.pop())
}

fn some(db: &Transaction<'_>, id: Option<&str>, now: i64) -> Result<Vec<Agent>, Trouble> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT id, hostname, pid, queues, max_jobs, status, heartbeat_at, socket, entity, user, stop_polling, \
         max(running, (SELECT count(*) FROM items WHERE agent = agents.id AND {IN_HAND})) AS running \
         FROM agents WHERE :id IS NULL OR id = :id ORDER BY heartbeat_at DESC, id"
    ))?;
    let mut rows = statement.query(named_params! {":now": now, ":id": id})?;
    let here = nix::unistd::gethostname().ok();
    let mut agents = Vec::new();
    while let Some(row) = rows.next()? {
        agents.push(read(row, here.as_deref())?);
    }
    Ok(agents)
}

/// `here` is this machine's name: of an agent on another one the socket says nothing.
fn read(row: &Row<'_>, here: Option<&OsStr>) -> Result<Agent, Trouble> {
    let id: String = row.get("id")?;
    let place = format!("agent {id}");
    let number = |number: i64| usize::try_from(number).unwrap_or(0);
    let hostname: String = row.get("hostname")?;
    let status: String = row.get("status")?;
    let socket: Option<String> = row.get("socket")?;
    let is_gone = status != AgentStatus::Killed.as_str()
        && here == Some(OsStr::new(&hostname))
        && socket.is_some_and(|socket| bell::is_deserted(Path::new(&socket)));
    Ok(Agent {
        hostname,
        pid: Some(row.get("pid")?).filter(|pid| *pid != 0),
        queues: texts(&row.get::<_, String>("queues")?, &place)?,
        max_jobs: row.get::<_, Option<i64>>("max_jobs")?.map(number),
        running: number(row.get("running")?),
        status,
        seen_at: time(row.get("heartbeat_at")?, &place)?,
        is_gone,
        entity: row.get("entity")?,
        user: row.get("user")?,
        stop_polling: row.get("stop_polling")?,
        id: AgentId(id),
    })
}
