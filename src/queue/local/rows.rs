//! Rows of the database as the words of the queue, and back. Reads; changes nothing.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction};
use serde_json::Value;

use super::trouble::Trouble;
use crate::failure::{Error, Kind, Stage};
use crate::launch::spec::Object;
use crate::queue::{AgentId, Exit, Item, ItemId, ItemState, Priority, QueueDefinition};

/// The items that an agent may take at the time `:now`. The first term is that of the index `items_by_turn`. A lease
/// that ends in more than ten minutes was made while the clock was wrong: without that bound, an agent that then was
/// killed would keep its item for as long as the clock had gone astray. No lease is that long.
pub const WAITING: &str = "state IN ('PENDING', 'LEASED') \
     AND (leased_until IS NULL OR leased_until NOT BETWEEN :now + 1 AND :now + 600000)";

/// The items that an agent has in hand at the time `:now`.
pub const IN_HAND: &str = "(state = 'CLAIMED' \
     OR (state = 'LEASED' AND leased_until BETWEEN :now + 1 AND :now + 600000))";

const ITEM: &str = "SELECT items.*, (SELECT json_group_array(text) FROM warnings WHERE item = items.id) AS warnings \
     FROM items";

/// The row number of an item, if its name can be one. Only the spelling that we print is a name.
pub fn row_number(item: &ItemId) -> Option<i64> {
    let number: i64 = item.0.parse().ok()?;
    (number.to_string() == item.0).then_some(number)
}

/// The item of that name.
pub fn item(db: &Transaction<'_>, id: &ItemId, now: i64) -> Result<Item, Trouble> {
    let found = match row_number(id) {
        None => None,
        Some(number) => db
            .query_row(&format!("{ITEM} WHERE id = ?1"), [number], |row| {
                Ok(read_item(row, now))
            })
            .optional()?,
    };
    found.unwrap_or_else(|| Err(no_item(id).into()))
}

/// All items, or those of one queue, in the order in which they were first pushed.
pub fn items(db: &Transaction<'_>, queue: Option<&str>, now: i64) -> Result<Vec<Item>, Trouble> {
    let mut statement = db.prepare_cached(&format!(
        "{ITEM} WHERE ?1 IS NULL OR queue = ?1 ORDER BY id"
    ))?;
    let mut rows = statement.query([queue])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(read_item(row, now)?);
    }
    Ok(items)
}

/// The items of a queue behind one of them, at most so many.
pub fn items_after(
    db: &Transaction<'_>,
    queue: &str,
    after: i64,
    most: usize,
    now: i64,
) -> Result<Vec<Item>, Trouble> {
    let mut statement = db.prepare_cached(&format!(
        "{ITEM} WHERE queue = ?1 AND id > ?2 ORDER BY id LIMIT ?3"
    ))?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut rows = statement.query(rusqlite::params![queue, after, most])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(read_item(row, now)?);
    }
    Ok(items)
}

fn no_item(id: &ItemId) -> Error {
    Error::new(Kind::NotFound, format!("no item `{id}`"))
        .hint("`launch-agent items` lists the items")
}

fn read_item(row: &Row<'_>, now: i64) -> Result<Item, Trouble> {
    let id: i64 = row.get("id")?;
    let place = format!("item {id}");
    let leased_until: Option<i64> = row.get("leased_until")?;
    // A lease that ran out needs no one to write that down.
    let lapsed = leased_until.is_some_and(|until| until <= now || until > now + 600_000);
    let agent = row.get::<_, Option<String>>("agent")?;
    Ok(Item {
        id: ItemId(id.to_string()),
        queue: row.get("queue")?,
        state: if lapsed {
            ItemState::Pending
        } else {
            read_state(row, &place)?
        },
        priority: Some(priority(row.get("priority")?)),
        spec: json(&row.get::<_, String>("spec")?, &place)?,
        attempt: row.get("attempt")?,
        run_id: row.get("run_id")?,
        agent: agent.filter(|_| !lapsed).map(AgentId),
        pushed_at: Some(time(row.get("pushed_at")?, &place)?),
        claimed_at: optional_time(row.get("claimed_at")?, &place)?,
        ended_at: optional_time(row.get("ended_at")?, &place)?,
        duration: row
            .get::<_, Option<i64>>("duration")?
            .and_then(|duration| u64::try_from(duration).ok())
            .map(Duration::from_millis),
        command: row.get("command")?,
        log: row.get::<_, Option<String>>("log")?.map(PathBuf::from),
        warnings: texts(&row.get::<_, String>("warnings")?, &place)?,
        details: row.get("details")?,
        stop_requested: row.get("stop_requested")?,
    })
}

fn read_state(row: &Row<'_>, place: &str) -> Result<ItemState, Trouble> {
    let message = || Ok::<_, Trouble>(row.get::<_, Option<String>>("message")?.unwrap_or_default());
    Ok(match row.get::<_, String>("state")?.as_str() {
        "PENDING" => ItemState::Pending,
        "LEASED" => ItemState::Leased,
        "CLAIMED" => ItemState::Claimed,
        "FINISHED" => ItemState::Finished(Exit {
            code: row.get("exit_code")?,
            oom_killed: row.get("oom_killed")?,
        }),
        "FAILED" => ItemState::Failed {
            stage: Some(stage(&row.get::<_, String>("stage")?, place)?),
            message: message()?,
        },
        "STOPPED" => ItemState::Stopped {
            message: message()?,
        },
        other => return Err(unreadable(place, &format!("a state `{other}`"))),
    })
}

/// The definition of the queue of that name; an unknown one is an error that names the closest.
pub fn definition(db: &Transaction<'_>, name: &str) -> Result<QueueDefinition, Trouble> {
    let found = db
        .query_row("SELECT * FROM queues WHERE name = ?1", [name], |row| {
            Ok(read_definition(row))
        })
        .optional()?;
    match found {
        Some(definition) => definition,
        None => Err(no_queue(db, name)?.into()),
    }
}

/// A row of `queues`.
pub fn read_definition(row: &Row<'_>) -> Result<QueueDefinition, Trouble> {
    let name: String = row.get("name")?;
    let place = format!("queue `{name}`");
    Ok(QueueDefinition {
        config: object(&row.get::<_, String>("config")?, &place)?,
        template_variables: object(&row.get::<_, String>("template_variables")?, &place)?,
        prioritization: row.get("prioritization")?,
        paused: row.get("paused")?,
        name,
    })
}

/// Fails when there is no queue of that name.
pub fn need_queue(db: &Transaction<'_>, name: &str) -> Result<(), Trouble> {
    let known: bool = db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM queues WHERE name = ?1)")?
        .query_row([name], |row| row.get(0))?;
    if known {
        return Ok(());
    }
    Err(no_queue(db, name)?.into())
}

/// The error for a queue that does not exist: the closest ones, or how to make the first.
pub fn no_queue(db: &Transaction<'_>, name: &str) -> rusqlite::Result<Error> {
    let error = Error::new(Kind::NotFound, format!("no queue `{name}`"));
    let mut statement = db.prepare("SELECT name FROM queues ORDER BY name")?;
    let names: Vec<String> = statement
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    if names.is_empty() {
        return Ok(error.hint(format!(
            "there are no queues yet: make it with `launch-agent queue create {name}`"
        )));
    }
    let error = error.closest(name, names.iter().map(String::as_str));
    if error.hint.is_some() {
        return Ok(error);
    }
    Ok(error.hint(format!("the queues are `{}`", names.join("`, `"))))
}

fn priority(number: i64) -> Priority {
    usize::try_from(number)
        .ok()
        .and_then(|number| Priority::ALL.get(number).copied())
        .unwrap_or_default()
}

/// The number of a priority, as W&B's: 0 is the most urgent.
pub fn priority_number(priority: Priority) -> i64 {
    match priority {
        Priority::Critical => 0,
        Priority::High => 1,
        Priority::Medium => 2,
        Priority::Low => 3,
    }
}

fn stage(word: &str, place: &str) -> Result<Stage, Trouble> {
    Stage::named(word).ok_or_else(|| unreadable(place, &format!("a stage `{word}`")))
}

/// A stored time.
pub fn time(millis: i64, place: &str) -> Result<Timestamp, Trouble> {
    Timestamp::from_millisecond(millis).map_err(|_| unreadable(place, &format!("a time {millis}")))
}

fn optional_time(millis: Option<i64>, place: &str) -> Result<Option<Timestamp>, Trouble> {
    millis.map(|millis| time(millis, place)).transpose()
}

/// Stored JSON.
pub fn json(text: &str, place: &str) -> Result<Value, Trouble> {
    serde_json::from_str(text).map_err(|error| unreadable(place, &format!("broken JSON: {error}")))
}

/// A stored JSON object.
pub fn object(text: &str, place: &str) -> Result<Object, Trouble> {
    match json(text, place)? {
        Value::Object(object) => Ok(object),
        _ => Err(unreadable(place, "JSON that is not an object")),
    }
}

/// A stored list of texts.
pub fn texts(text: &str, place: &str) -> Result<Vec<String>, Trouble> {
    serde_json::from_str(text)
        .map_err(|error| unreadable(place, &format!("a broken list: {error}")))
}

/// We wrote it, so somebody else has changed it since, or the disk has.
fn unreadable(place: &str, what: &str) -> Trouble {
    Error::new(
        Kind::Queue,
        format!("the queue database is damaged: {place} holds {what}"),
    )
    .into()
}
