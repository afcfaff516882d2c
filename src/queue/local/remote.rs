//! What agents and pushers on other machines do with the queue. They are known by a key, not by a process, and an
//! answer may be lost on its way to them: each call can be repeated.

use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::{Value, json};

use super::agents::{self, Agent};
use super::definition::split_name;
use super::rows::{item, row_number};
use super::trouble::Trouble;
use super::{LocalQueue, lease, now, runs};
use crate::failure::{Error, Kind, Result, Stage};
use crate::launch::spec::Object;
use crate::queue::{AgentId, AgentInfo, AgentStatus, Item, ItemId, ItemState, RunQueueItem};

/// A remote agent that was told to stop and one that is unseen for this long say nothing new, in milliseconds.
const SEEN_NOTED_EVERY: i64 = 5_000;

/// What a remote agent says of itself beside what every agent says.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteAgent {
    /// The entity whose queues it polls.
    pub entity: String,
    /// Whose key it uses.
    pub user: String,
    /// Its settings, as it sent them.
    pub config: Value,
    /// Its version, as it calls itself.
    pub version: String,
}

/// Why an item failed, as its agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFailure {
    /// Where in its life.
    pub stage: Stage,
    /// In words.
    pub message: String,
    /// Files that say more: paths in the run of the agent.
    pub files: Vec<String>,
}

impl LocalQueue {
    /// Makes an agent on another machine known.
    pub fn register_remote(&self, agent: &AgentInfo, remote: &RemoteAgent) -> Result<AgentId> {
        self.write(|db| {
            let id = agents::register(db, agent, now())?;
            db.execute(
                "UPDATE agents SET entity = ?2, user = ?3, config = ?4, version = ?5 WHERE id = ?1",
                params![
                    id.0,
                    remote.entity,
                    remote.user,
                    remote.config.to_string(),
                    remote.version
                ],
            )?;
            Ok(id)
        })
    }

    /// Notes that an agent on another machine lives, and gives what is known of it.
    pub fn agent_asks(&self, id: &AgentId) -> Result<Option<Agent>> {
        let Some(agent) = self.agent(id)? else {
            return Ok(None);
        };
        if now().saturating_sub(agent.seen_at.as_millisecond()) >= SEEN_NOTED_EVERY {
            self.write(|db| {
                db.prepare_cached("UPDATE agents SET heartbeat_at = ?2 WHERE id = ?1")?
                    .execute(params![id.0, now()])?;
                Ok(())
            })?;
        }
        Ok(Some(agent))
    }

    /// Notes what an agent on another machine says of itself. That it has ended is its last word: W&B's own agent may
    /// still say from another thread that it polls.
    pub fn agent_says(&self, id: &AgentId, status: AgentStatus) -> Result<()> {
        self.write(|db| {
            let has_ended = db
                .prepare_cached("SELECT status = ?2 FROM agents WHERE id = ?1")?
                .query_row(params![id.0, AgentStatus::Killed.as_str()], |row| {
                    row.get(0)
                })
                .optional()?;
            if has_ended == Some(true) {
                return Ok(());
            }
            agents::heartbeat(db, id, status, 0, now())
        })
    }

    /// Takes the next item of a queue for an agent on another machine.
    pub fn pop_remote(&self, agent: &AgentId, queue: &str) -> Result<Option<RunQueueItem>> {
        self.pop(agent, queue)
    }

    /// Turns a lease into a claim, and makes the run that the item will be. The wire does not say who asks, so the
    /// first run's name wins. `false`: the item is another run's, or nobody has leased it.
    pub fn ack_remote(&self, id: &ItemId, run_id: &str) -> Result<bool> {
        self.write(|db| ack(db, id, run_id, now()))
    }

    /// Writes down that an item failed. `false`: it had ended already, in another way.
    pub fn fail_remote(&self, id: &ItemId, failure: &RemoteFailure) -> Result<bool> {
        self.write(|db| fail(db, id, failure, now()))
    }

    /// Adds a warning to an item, once.
    pub fn warn_remote(&self, id: &ItemId, warning: &str) -> Result<()> {
        self.write(|db| {
            if item(db, id, now())?
                .warnings
                .iter()
                .any(|known| known == warning)
            {
                return Ok(());
            }
            lease::warn(db, id, warning)
        })
    }
}

fn ack(db: &Transaction<'_>, id: &ItemId, run_id: &str, now: i64) -> Result<bool, Trouble> {
    let item = item(db, id, now)?;
    match item.state {
        ItemState::Claimed => return Ok(item.run_id.as_deref() == Some(run_id)),
        ItemState::Leased => {}
        _ => return Ok(false),
    }
    let run = make_run(db, &item, run_id, now)?;
    db.prepare_cached(
        "UPDATE items SET state = 'CLAIMED', leased_until = NULL, run_id = ?2, run = ?3, claimed_at = ?4 \
         WHERE id = ?1",
    )?
    .execute(params![row_number(id), run_id, run, now])?;
    Ok(true)
}

/// Where a spec's run belongs: its entity and its project, which agents write in small letters. `None` when the spec
/// names no project: then the program decides.
pub fn place_of(spec: &Value, queue: &str) -> Option<(String, String)> {
    let text = |key: &str| spec[key].as_str().filter(|text| !text.is_empty());
    let entity = text("entity").unwrap_or(split_name(queue).0);
    Some((entity.to_owned(), text("project")?.to_lowercase()))
}

fn make_run(
    db: &Transaction<'_>,
    item: &Item,
    run_id: &str,
    now: i64,
) -> Result<Option<i64>, Trouble> {
    let Some((entity, project)) = place_of(&item.spec, &item.queue) else {
        return Ok(None);
    };
    let is_known: bool = db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM entities WHERE name = ?1)")?
        .query_row([&entity], |row| row.get(0))?;
    if !is_known {
        return Ok(None);
    }
    if let Some(known) = runs::run_number(db, &entity, &project, run_id)? {
        let goes_on = item.attempt > 1 || is_resumed(&item.spec);
        // Two programs that go on with one run would write over each other.
        let is_in_hand: bool = db
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM items WHERE run = ?1 AND state = 'CLAIMED' AND id <> ?2)",
            )?
            .query_row(params![known, row_number(&item.id)], |row| row.get(0))?;
        return if goes_on && !is_in_hand {
            Ok(Some(known))
        } else {
            Err(taken(&entity, &project, run_id).into())
        };
    }
    let user = item.spec["author"].as_str().unwrap_or_default();
    runs::make_pending(db, &entity, &project, run_id, user, now).map(Some)
}

fn taken(entity: &str, project: &str, run_id: &str) -> Error {
    Error::input(format!(
        "there is a run `{run_id}` in {entity}/{project} already"
    ))
    .hint("leave `run_id` out of the launch spec, and the agent makes a new name")
}

/// Refuses a spec that names a run which is there already, or which another item is going to be.
pub fn check_run_id(db: &Transaction<'_>, spec: &Object, queue: &str) -> Result<(), Trouble> {
    let spec = json!(spec);
    let Some(run_id) = spec["run_id"].as_str().filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let Some(place) = place_of(&spec, queue) else {
        return Ok(());
    };
    let (entity, project) = &place;
    let is_taken = is_coming(db, run_id, &place)?
        || (!is_resumed(&spec) && runs::run_number(db, entity, project, run_id)?.is_some());
    if is_taken {
        return Err(taken(entity, project, run_id).into());
    }
    Ok(())
}

/// The spec goes on with a run that is there already.
fn is_resumed(spec: &Value) -> bool {
    spec["_resume_count"].as_u64().unwrap_or(0) > 0
}

/// Is there an item that has not ended and is, or is going to be, the run of that name in that entity and project?
fn is_coming(
    db: &Transaction<'_>,
    run_id: &str,
    place: &(String, String),
) -> Result<bool, Trouble> {
    let mut statement = db.prepare_cached(
        "SELECT spec, queue FROM items WHERE state IN ('PENDING', 'LEASED', 'CLAIMED') \
         AND coalesce(run_id, spec ->> 'run_id') = ?1",
    )?;
    let mut rows = statement.query([run_id])?;
    while let Some(row) = rows.next()? {
        let (spec, queue): (String, String) = (row.get(0)?, row.get(1)?);
        let spec: Value = serde_json::from_str(&spec).unwrap_or_default();
        if place_of(&spec, &queue).as_ref() == Some(place) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn fail(
    db: &Transaction<'_>,
    id: &ItemId,
    failure: &RemoteFailure,
    now: i64,
) -> Result<bool, Trouble> {
    let found = item(db, id, now)?;
    if let ItemState::Failed { message, .. } = &found.state {
        return Ok(*message == failure.message);
    }
    if found.state.is_ended() {
        return Ok(false);
    }
    db.prepare_cached(
        "UPDATE items SET state = 'FAILED', stage = ?2, message = ?3, files = ?4, ended_at = ?5, leased_until = NULL, \
         stop_requested = 0 WHERE id = ?1",
    )?
    .execute(params![
        row_number(id),
        failure.stage.as_str(),
        failure.message,
        Value::from(failure.files.clone()).to_string(),
        now
    ])?;
    // Whoever waits for the run must not wait for ever: it will never begin.
    db.prepare_cached(
        "UPDATE runs SET state = 'failed' WHERE state = 'pending' AND id = (SELECT run FROM items WHERE id = ?1)",
    )?
    .execute(params![row_number(id)])?;
    Ok(true)
}

/// A config that a client saved, to make a queue of it in its next request.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedConfig {
    /// The kind of jobs.
    pub resource: String,
    /// The docker options.
    pub config: Object,
    /// The schemas of the template variables.
    pub template_variables: Object,
}

/// A saved config that no queue was made of within a day, in milliseconds, is forgotten.
const CONFIG_KEPT: i64 = 24 * 3_600 * 1_000;

impl LocalQueue {
    /// Keeps a config until a queue is made of it. Gives its number.
    pub fn save_config(&self, entity: &str, saved: &SavedConfig) -> Result<i64> {
        self.write(|db| {
            let now = now();
            db.execute(
                "DELETE FROM resource_configs WHERE created_at < ?1",
                [now.saturating_sub(CONFIG_KEPT)],
            )?;
            db.execute(
                "INSERT INTO resource_configs (entity, resource, config, template_variables, created_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    entity,
                    saved.resource,
                    json!(saved.config).to_string(),
                    json!(saved.template_variables).to_string(),
                    now
                ],
            )?;
            Ok(db.last_insert_rowid())
        })
    }

    /// The saved config of that number, if it is the entity's.
    pub fn saved_config(&self, entity: &str, id: i64) -> Result<SavedConfig> {
        self.read(|db| {
            let found = db
                .query_row(
                    "SELECT resource, config, template_variables FROM resource_configs WHERE id = ?1 AND entity = ?2",
                    params![id, entity],
                    |row| {
                        Ok((
                            row.get(0)?,
                            row.get::<_, String>(1)?,
                            row.get::<_, String>(2)?,
                        ))
                    },
                )
                .optional()?;
            let Some((resource, config, variables)) = found else {
                return Err(Error::new(Kind::NotFound, "no such resource config").into());
            };
            let place = format!("resource config {id}");
            Ok(SavedConfig {
                resource,
                config: super::rows::object(&config, &place)?,
                template_variables: super::rows::object(&variables, &place)?,
            })
        })
    }
}
