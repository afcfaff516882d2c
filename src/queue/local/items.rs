//! What people do with items: look, cancel, retry, delete. The rows of `items`, and the logs of deleted ones.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Transaction, params};

use super::agents::{self, Agent};
use super::trouble::Trouble;
use super::{LocalQueue, millis, now, reasons, rows};
use crate::failure::{Error, Result};
use crate::host::logs;
use crate::queue::{AgentId, Item, ItemId, ItemState, StopReason};

/// What came of a cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// It had not begun: it has ended.
    Stopped,
    /// Whoever ran it is lost: it has ended in the queue, and what it runs may go on.
    GivenUp {
        /// The run that it became, where it came so far.
        run_id: Option<String>,
    },
    /// Its agent was asked to stop it.
    Asked {
        /// The agent, where it is still known.
        agent: Option<Agent>,
        /// Did it say lately that it lives?
        alive: bool,
    },
}

impl LocalQueue {
    /// The item of that name.
    pub fn item(&self, id: &ItemId) -> Result<Item> {
        self.read(|db| rows::item(db, id, now()))
    }

    /// All items, or those of one queue, sorted by their numbers.
    pub fn items(&self, queue: Option<&str>) -> Result<Vec<Item>> {
        self.read(|db| {
            if let Some(queue) = queue {
                rows::need_queue(db, queue)?;
            }
            rows::items(db, queue, now())
        })
    }

    /// The items of a queue whose numbers are greater than `after`, at most so many.
    pub fn items_after(&self, queue: &str, after: i64, most: usize) -> Result<Vec<Item>> {
        self.read(|db| rows::items_after(db, queue, after, most, now()))
    }

    /// The agent of that name, where it is still known.
    pub fn agent(&self, id: &AgentId) -> Result<Option<Agent>> {
        self.read(|db| find_agent(db, Some(id)))
    }

    /// All agents, the one seen last first.
    pub fn agents(&self) -> Result<Vec<Agent>> {
        self.read(|db| agents::all(db, now()))
    }

    /// Tells an agent to take nothing more, and to end when its jobs have ended.
    pub fn stop_agent(&self, id: &AgentId) -> Result<()> {
        self.write_and_ring(|db| agents::tell_to_stop(db, id))
    }

    /// Why an item does not move on: why it waits, or that nobody has heard of its agent lately.
    pub fn why_waiting(&self, item: &Item) -> Result<Option<String>> {
        if item.state.is_ended() {
            return Ok(None);
        }
        self.read(|db| reasons::why_waiting(db, item, &self.path, self.times.quiet, now()))
    }

    /// Stops an item that waits, or asks its agent to stop it.
    pub fn cancel(&self, id: &ItemId) -> Result<Cancelled> {
        self.write_and_ring(|db| cancel(db, id, self.times.quiet, self.times.lost))
    }

    /// Puts an item that has ended back into its queue, behind the others. Gives the number of the new attempt.
    pub fn retry(&self, id: &ItemId) -> Result<u32> {
        self.write_and_ring(|db| retry(db, id))
    }

    /// Deletes an item that no agent has in hand, and its log.
    pub fn delete_item(&self, id: &ItemId) -> Result<()> {
        let log = self.write(|db| delete(db, id))?;
        self.remove_logs(log.as_slice())
    }

    /// Removes logs of deleted items. Only what is in the logs' folder is surely a log.
    pub(super) fn remove_logs(&self, logs: &[PathBuf]) -> Result<()> {
        let folder = self.logs_path();
        for log in logs.iter().filter(|log| log.parent() == Some(&folder)) {
            logs::remove(log).map_err(|cause| {
                Error::system(
                    format_args!("the item is deleted, but not its log {}", log.display()),
                    cause,
                )
            })?;
        }
        Ok(())
    }
}

fn find_agent(db: &Transaction<'_>, id: Option<&AgentId>) -> Result<Option<Agent>, Trouble> {
    id.map_or(Ok(None), |id| agents::one(db, id, now()))
}

fn cancel(
    db: &Transaction<'_>,
    id: &ItemId,
    quiet: Duration,
    lost: Duration,
) -> Result<Cancelled, Trouble> {
    let now = now();
    let item = rows::item(db, id, now)?;
    if item.state.is_ended() {
        return Err(Error::input(format!(
            "item {id} has ended already ({})",
            item.state.word()
        ))
        .into());
    }
    if item.state == ItemState::Pending {
        stop(db, id, &StopReason::Requested.to_string(), now)?;
        return Ok(Cancelled::Stopped);
    }
    let agent = find_agent(db, item.agent.as_ref())?;
    let silence = |agent: &Agent| now.saturating_sub(agent.seen_at.as_millisecond());
    // Without this way out, an item of a machine that never comes back could not even be deleted.
    if agent
        .as_ref()
        .is_none_or(|agent| agent.is_gone || silence(agent) >= millis(lost))
    {
        let message = format!("{}; its agent is lost", StopReason::Requested);
        stop(db, id, &message, now)?;
        return Ok(Cancelled::GivenUp {
            run_id: item.run_id,
        });
    }
    db.execute(
        "UPDATE items SET stop_requested = 1 WHERE id = ?1",
        [rows::row_number(id)],
    )?;
    let alive = agent
        .as_ref()
        .is_some_and(|agent| agent.is_alive(now, quiet));
    Ok(Cancelled::Asked { agent, alive })
}

fn stop(db: &Transaction<'_>, id: &ItemId, message: &str, now: i64) -> Result<(), Trouble> {
    db.execute(
        "UPDATE items SET state = 'STOPPED', message = ?2, ended_at = ?3, leased_until = NULL, stop_requested = 0 \
         WHERE id = ?1",
        params![rows::row_number(id), message, now],
    )?;
    Ok(())
}

fn retry(db: &Transaction<'_>, id: &ItemId) -> Result<u32, Trouble> {
    let item = rows::item(db, id, now())?;
    if !item.state.is_ended() {
        return Err(Error::input(format!(
            "item {id} has not ended yet ({})",
            item.state.word()
        ))
        .hint("only an item that has ended can be retried")
        .into());
    }
    let number = rows::row_number(id);
    db.execute("DELETE FROM warnings WHERE item = ?1", [number])?;
    db.execute(
        "UPDATE items SET state = 'PENDING', attempt = attempt + 1, position = ?2, pushed_at = ?3, agent = NULL, \
         run_id = NULL, claimed_at = NULL, ended_at = NULL, duration = NULL, command = NULL, log = NULL, \
         exit_code = NULL, oom_killed = 0, stage = NULL, message = NULL, details = '', stop_requested = 0, \
         run = NULL, files = '[]' \
         WHERE id = ?1",
        params![number, last_position(db)?, now()],
    )?;
    Ok(item.attempt + 1)
}

/// The place behind all others.
pub(super) fn last_position(db: &Transaction<'_>) -> rusqlite::Result<i64> {
    db.prepare_cached("SELECT coalesce(max(position), 0) + 1 FROM items")?
        .query_row([], |row| row.get(0))
}

fn delete(db: &Transaction<'_>, id: &ItemId) -> Result<Option<PathBuf>, Trouble> {
    let item = rows::item(db, id, now())?;
    if matches!(item.state, ItemState::Leased | ItemState::Claimed) {
        return Err(Error::input(format!(
            "item {id} is in the hands of an agent ({})",
            item.state.word()
        ))
        .hint(format!(
            "stop it first with `launch-agent item cancel {id}`"
        ))
        .into());
    }
    db.execute("DELETE FROM items WHERE id = ?1", [rows::row_number(id)])?;
    Ok(item.log)
}
