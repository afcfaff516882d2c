//! An item's way through an agent's hands: popped, acknowledged, started, ended. The rows of `items` and
//! `warnings`, and nothing else.

use std::time::Duration;

use rusqlite::{OptionalExtension, Transaction, named_params, params};

use super::millis;
use super::rows::{IN_HAND, WAITING, json, need_queue, row_number};
use super::trouble::Trouble;
use crate::failure::Failure;
use crate::queue::{AgentId, Ended, Former, ItemId, Outcome, RunQueueItem, Started};

/// The item whose turn it is, unless the queue is paused.
pub fn peek(db: &Transaction<'_>, queue: &str, now: i64) -> Result<Option<RunQueueItem>, Trouble> {
    need_queue(db, queue)?;
    let next = db
        .prepare_cached(&format!(
            "SELECT id, spec FROM items WHERE queue = :queue AND {WAITING} \
             AND NOT (SELECT paused FROM queues WHERE name = :queue) \
             ORDER BY priority, position LIMIT 1"
        ))?
        .query_row(named_params! {":queue": queue, ":now": now}, |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })
        .optional()?;
    let Some((id, spec)) = next else {
        return Ok(None);
    };
    Ok(Some(RunQueueItem {
        id: ItemId(id.to_string()),
        queue: queue.to_owned(),
        spec: json(&spec, &format!("item {id}"))?,
    }))
}

/// Takes the item whose turn it is.
pub fn pop(
    db: &Transaction<'_>,
    agent: &AgentId,
    queue: &str,
    now: i64,
    lease: Duration,
) -> Result<Option<RunQueueItem>, Trouble> {
    let next = peek(db, queue, now)?;
    if let Some(item) = &next {
        db.prepare_cached(
            "UPDATE items SET state = 'LEASED', agent = ?2, leased_until = ?3, stop_requested = 0 WHERE id = ?1",
        )?
        .execute(params![
            row_number(&item.id),
            agent.0,
            now.saturating_add(millis(lease))
        ])?;
    }
    Ok(next)
}

/// Makes the lease a claim. True again when it has been made one for the same run.
pub fn ack(
    db: &Transaction<'_>,
    agent: &AgentId,
    item: &ItemId,
    run_id: &str,
    now: i64,
) -> Result<bool, Trouble> {
    let Some(id) = row_number(item) else {
        return Ok(false);
    };
    let claimed = db
        .prepare_cached(
            "UPDATE items SET state = 'CLAIMED', leased_until = NULL, run_id = ?3, claimed_at = ?4 \
             WHERE id = ?1 AND agent = ?2 AND state = 'LEASED' AND leased_until > ?4",
        )?
        .execute(params![id, agent.0, run_id, now])?;
    if claimed == 1 {
        return Ok(true);
    }
    Ok(db
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM items \
             WHERE id = ?1 AND agent = ?2 AND run_id = ?3 AND state = 'CLAIMED')",
        )?
        .query_row(params![id, agent.0, run_id], |row| row.get(0))?)
}

/// Gives an item to `agent` that its former self has in hand, or had popped: nobody took it since, or it would be that
/// one's. True again when it has been given already.
pub fn adopt(
    db: &Transaction<'_>,
    agent: &AgentId,
    item: &ItemId,
    former: &Former,
    now: i64,
) -> Result<bool, Trouble> {
    let mut agents: Vec<&str> = former.agents.iter().map(|agent| agent.0.as_str()).collect();
    agents.push(&agent.0);
    let changed = db
        .prepare_cached(
            "UPDATE items SET state = 'CLAIMED', leased_until = NULL, agent = ?2, run_id = ?4, \
             claimed_at = CASE state WHEN 'CLAIMED' THEN claimed_at ELSE ?5 END \
             WHERE id = ?1 AND agent IN (SELECT value FROM json_each(?3)) \
             AND ((state = 'CLAIMED' AND run_id = ?4) OR (state = 'LEASED' AND NOT ?6))",
        )?
        .execute(params![
            row_number(item),
            agent.0,
            serde_json::Value::from(agents).to_string(),
            former.run_id,
            now,
            former.claimed
        ])?;
    Ok(changed == 1)
}

/// Notes the command and the log of an item in hand.
pub fn started(db: &Transaction<'_>, item: &ItemId, started: &Started) -> Result<(), Trouble> {
    db.execute(
        "UPDATE items SET command = ?2, log = ?3 WHERE id = ?1 AND state IN ('LEASED', 'CLAIMED')",
        params![
            row_number(item),
            started.command,
            started.log.to_string_lossy()
        ],
    )?;
    Ok(())
}

/// Adds a warning; of an item that is gone there is nobody left to warn.
pub fn warn(db: &Transaction<'_>, item: &ItemId, warning: &str) -> Result<(), Trouble> {
    db.execute(
        "INSERT INTO warnings (item, text) SELECT id, ?2 FROM items WHERE id = ?1",
        params![row_number(item), warning],
    )?;
    Ok(())
}

/// Writes down how an item in the hands of `agent` ended.
pub fn finish(
    db: &Transaction<'_>,
    agent: &AgentId,
    item: &ItemId,
    ended: &Ended,
    now: i64,
) -> Result<bool, Trouble> {
    let end = End::of(&ended.outcome);
    let changed = db.execute(
        &format!(
            "UPDATE items SET state = :state, exit_code = :exit_code, oom_killed = :oom_killed, stage = :stage, \
             message = :message, details = :details, duration = :duration, ended_at = :now, leased_until = NULL, \
             stop_requested = 0 WHERE id = :id AND agent = :agent AND {IN_HAND}"
        ),
        named_params! {
            ":id": row_number(item),
            ":agent": agent.0,
            ":now": now,
            ":state": end.state,
            ":exit_code": end.exit_code,
            ":oom_killed": end.oom_killed,
            ":stage": end.stage,
            ":message": end.message,
            ":details": ended.details,
            ":duration": ended.duration.map(millis),
        },
    )?;
    Ok(changed == 1)
}

/// An outcome as columns.
struct End {
    state: &'static str,
    exit_code: Option<i32>,
    oom_killed: bool,
    stage: Option<&'static str>,
    message: Option<String>,
}

impl End {
    fn of(outcome: &Outcome) -> End {
        let plain = End {
            state: "STOPPED",
            exit_code: None,
            oom_killed: false,
            stage: None,
            message: None,
        };
        match outcome {
            Outcome::Exited(exit) => End {
                state: "FINISHED",
                exit_code: Some(exit.code),
                oom_killed: exit.oom_killed,
                ..plain
            },
            Outcome::Stopped(reason) => End {
                message: Some(reason.to_string()),
                ..plain
            },
            Outcome::Failed(failure) => End {
                state: "FAILED",
                stage: Some(failure.stage.as_str()),
                message: Some(failure_text(failure)),
                ..plain
            },
        }
    }
}

/// A failure's message with its hint: whoever looks at the item later is told what to do as well.
fn failure_text(failure: &Failure) -> String {
    match &failure.cause.hint {
        Some(hint) => format!("{}\nhint: {hint}", failure.cause.message),
        None => failure.cause.message.clone(),
    }
}

/// Those of `items` that someone asked to stop, and those that have ended without their agent's doing: a person
/// gave up waiting for it.
pub fn stop_requests(db: &Transaction<'_>, items: &[ItemId]) -> Result<Vec<ItemId>, Trouble> {
    let mut statement = db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM items WHERE id = ?1 \
         AND (stop_requested OR state NOT IN ('LEASED', 'CLAIMED')))",
    )?;
    let mut asked = Vec::new();
    for item in items {
        if statement.query_row([row_number(item)], |row| row.get(0))? {
            asked.push(item.clone());
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::spec::Object;
    use crate::queue::local::LocalQueue;
    use crate::queue::{Push, QueueDefinition};

    const HOUR: i64 = 3_600_000;
    const LEASE: Duration = Duration::from_secs(60);

    struct World {
        queue: LocalQueue,
        item: ItemId,
        _folder: tempfile::TempDir,
    }

    impl World {
        fn new() -> World {
            let folder = tempfile::tempdir().expect("a folder");
            let queue = LocalQueue::open(&folder.path().join("queue.db")).expect("a queue");
            let definition = QueueDefinition {
                name: "q".to_owned(),
                config: Object::new(),
                template_variables: Object::new(),
                prioritization: false,
                paused: false,
            };
            queue
                .create_queue(&definition, "local-container", &|| None)
                .expect("made");
            let spec = serde_json::json!({"project": "p", "image_uri": "i:1"});
            let push = Push {
                queue: "q".to_owned(),
                spec: spec.as_object().expect("an object").clone(),
                template_values: Object::new(),
                priority: None,
            };
            let item = queue.push(&push, &|| None).expect("pushed").id;
            World {
                queue,
                item,
                _folder: folder,
            }
        }

        /// Does a poll at this time bring the item?
        fn pop(&self, agent: &str, now: i64) -> bool {
            let agent = AgentId(agent.to_owned());
            let item = self.queue.write(|db| pop(db, &agent, "q", now, LEASE));
            item.expect("an answer").is_some()
        }

        fn ack(&self, agent: &str, now: i64) -> bool {
            let agent = AgentId(agent.to_owned());
            let acked = self
                .queue
                .write(|db| ack(db, &agent, &self.item, agent.0.as_str(), now));
            acked.expect("an answer")
        }
    }

    #[test]
    fn a_clock_that_jumps_ahead_hands_an_item_to_one_agent_alone() {
        let world = World::new();
        assert!(world.pop("one", HOUR));
        assert!(!world.pop("two", HOUR + 1));
        // An hour is gone in an instant: the lease has ended, and the item is anybody's again, but only once.
        assert!(world.pop("two", 2 * HOUR));
        assert!(!world.ack("one", 2 * HOUR));
        assert!(world.ack("two", 2 * HOUR));
        assert!(!world.pop("one", 9 * HOUR), "a claim has no end");
    }

    #[test]
    fn a_clock_that_jumps_back_neither_doubles_nor_loses_an_item() {
        let world = World::new();
        assert!(world.pop("one", 9 * HOUR));
        // The lease would last for eight hours more. Its agent may still claim it ..
        assert!(world.ack("one", HOUR));
        assert!(!world.pop("two", HOUR));

        let world = World::new();
        assert!(world.pop("one", 9 * HOUR));
        // .. but not hold it back when it is gone, nor claim what another has taken by then.
        assert!(world.pop("two", HOUR));
        assert!(!world.ack("one", HOUR));
        assert!(world.ack("two", HOUR));
    }
}
