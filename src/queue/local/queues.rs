//! What the owner of queues does with them: define, look, change, pause, delete. The rows of `queues`.

use std::path::PathBuf;

use rusqlite::{OptionalExtension, Row, Transaction, named_params, params};
use serde_json::Value;

use super::agents::{self, Agent};
use super::definition::{check_definition, check_new, split_name};
use super::rows::{
    IN_HAND, WAITING, definition, json, need_queue, no_queue, read_definition, time,
};
use super::trouble::Trouble;
use super::{LocalQueue, now};
use crate::failure::{Error, Kind, Result};
use crate::launch::resource_args::Ask;
use crate::launch::spec::Object;
use crate::queue::{QueueDefinition, QueueStatus};

/// What `queue update` changes; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueueChange {
    /// The docker options.
    pub config: Option<Object>,
    /// The schemas of the template variables.
    pub template_variables: Option<Object>,
    /// May pushers give a priority?
    pub prioritization: Option<bool>,
}

impl LocalQueue {
    /// Defines a new queue. Its config is checked first; `ask` is told of options that we do not know.
    pub fn create_queue(
        &self,
        definition: &QueueDefinition,
        resource: &str,
        ask: Ask<'_>,
    ) -> Result<()> {
        let resource = check_new(definition, resource, ask)?;
        self.write(|db| create(db, definition, resource, now()))
    }

    /// [`LocalQueue::create_queue`] for a user of the server.
    pub fn create_queue_by(
        &self,
        user: &str,
        definition: &QueueDefinition,
        resource: &str,
        ask: Ask<'_>,
    ) -> Result<()> {
        let resource = check_new(definition, resource, ask)?;
        self.write(|db| {
            create(db, definition, resource, now())?;
            db.execute(
                "UPDATE queues SET created_by = ?2 WHERE name = ?1",
                [definition.name.as_str(), user],
            )?;
            Ok(())
        })
    }

    /// Puts links beside a queue, in W&B's form.
    pub fn set_links(&self, name: &str, links: &Value) -> Result<()> {
        self.write(|db| {
            need_queue(db, name)?;
            db.execute(
                "UPDATE queues SET external_links = ?2 WHERE name = ?1",
                [name, &links.to_string()],
            )?;
            Ok(())
        })
    }

    /// The queues of an entity, sorted by name.
    pub fn queues_of(&self, entity: &str) -> Result<Vec<QueueStatus>> {
        let mut queues = self.queues()?;
        queues.retain(|status| split_name(&status.definition.name).0 == entity);
        Ok(queues)
    }

    /// Changes a queue. Items that are in it already keep the options that they were pushed with.
    pub fn update_queue(&self, name: &str, change: &QueueChange, ask: Ask<'_>) -> Result<()> {
        // Docker may be asked here, which takes too long to keep others from writing. Two owners who change one
        // queue in the same instant: the later one wins with a definition that was checked as a whole.
        let mut changed = self.queue(name)?.definition;
        if let Some(config) = &change.config {
            changed.config.clone_from(config);
        }
        if let Some(variables) = &change.template_variables {
            changed.template_variables.clone_from(variables);
        }
        if let Some(prioritization) = change.prioritization {
            changed.prioritization = prioritization;
        }
        check_definition(&changed.config, &changed.template_variables, ask)?;
        self.write_and_ring(|db| {
            need_queue(db, name)?;
            update(db, &changed, now())
        })
    }

    /// Pauses a queue, or ends the pause.
    pub fn set_paused(&self, name: &str, paused: bool) -> Result<()> {
        self.write_and_ring(|db| {
            need_queue(db, name)?;
            db.execute(
                "UPDATE queues SET paused = ?2, updated_at = ?3 WHERE name = ?1",
                params![name, paused, now()],
            )?;
            Ok(())
        })
    }

    /// Deletes a queue with its items and their logs; gives how many items those were. Items that wait are in
    /// the way unless it is `force`d; items in an agent's hands always are.
    pub fn delete_queue(&self, name: &str, force: bool) -> Result<usize> {
        let (items, logs) = self.write(|db| delete(db, name, force, now()))?;
        self.remove_logs(&logs)?;
        Ok(items)
    }

    /// The queue of that name.
    pub fn queue(&self, name: &str) -> Result<QueueStatus> {
        self.read(|db| {
            let found = self.statuses(db, Some(name))?.pop();
            match found {
                Some(status) => Ok(status),
                None => Err(no_queue(db, name)?.into()),
            }
        })
    }

    /// All queues, sorted by name.
    pub fn queues(&self) -> Result<Vec<QueueStatus>> {
        self.read(|db| self.statuses(db, None))
    }

    fn statuses(
        &self,
        db: &Transaction<'_>,
        name: Option<&str>,
    ) -> Result<Vec<QueueStatus>, Trouble> {
        let now = now();
        let mut alive = agents::all(db, now)?;
        alive.retain(|agent| agent.is_alive(now, self.times.quiet));
        let mut statement = db.prepare_cached(&format!(
            "SELECT queues.*, \
             (SELECT count(*) FROM items WHERE queue = name AND {WAITING}) AS pending, \
             (SELECT count(*) FROM items WHERE queue = name AND {IN_HAND}) AS running, \
             (SELECT count(*) FROM items WHERE queue = name AND state IN ('FINISHED', 'FAILED', 'STOPPED')) AS ended \
             FROM queues WHERE :name IS NULL OR name = :name ORDER BY name"
        ))?;
        let mut rows = statement.query(named_params! {":now": now, ":name": name})?;
        let mut statuses = Vec::new();
        while let Some(row) = rows.next()? {
            statuses.push(read_status(row, &alive)?);
        }
        Ok(statuses)
    }
}

fn read_status(row: &Row<'_>, alive: &[Agent]) -> Result<QueueStatus, Trouble> {
    let definition = read_definition(row)?;
    let place = format!("queue `{}`", definition.name);
    let count = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
    Ok(QueueStatus {
        resource: Some(row.get("resource")?),
        pending: count("pending")?,
        running: count("running")?,
        ended: count("ended")?,
        agents: Some(
            alive
                .iter()
                .filter(|agent| agent.polls(&definition.name))
                .cloned()
                .collect(),
        ),
        created_by: row.get("created_by")?,
        external_links: json(&row.get::<_, String>("external_links")?, &place)?,
        created_at: Some(time(row.get("created_at")?, &place)?),
        updated_at: Some(time(row.get("updated_at")?, &place)?),
        definition,
    })
}

fn create(
    db: &Transaction<'_>,
    definition: &QueueDefinition,
    resource: &str,
    now: i64,
) -> Result<(), Trouble> {
    let name = &definition.name;
    let known = db
        .query_row("SELECT 1 FROM queues WHERE name = ?1", [name], |_| Ok(()))
        .optional()?;
    if known.is_some() {
        return Err(Error::input(format!("there is a queue `{name}` already"))
            .hint(format!("`launch-agent queue update {name}` changes it"))
            .into());
    }
    let (entity, _) = split_name(name);
    let is_known: bool = db.query_row(
        "SELECT EXISTS (SELECT 1 FROM entities WHERE name = ?1)",
        [entity],
        |row| row.get(0),
    )?;
    if !is_known {
        return Err(
            Error::new(Kind::NotFound, format!("no entity `{entity}`"))
                .hint(format!(
                    "make it with its first member: `launch-agent serve key create USER --entity {entity}`"
                ))
                .into(),
        );
    }
    db.execute(
        "INSERT INTO queues (name, resource, config, template_variables, prioritization, paused, created_at, \
         updated_at, entity) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8)",
        params![
            name,
            resource,
            text(&definition.config),
            text(&definition.template_variables),
            definition.prioritization,
            definition.paused,
            now,
            entity
        ],
    )?;
    Ok(())
}

fn update(db: &Transaction<'_>, changed: &QueueDefinition, now: i64) -> Result<(), Trouble> {
    db.execute(
        "UPDATE queues SET config = ?2, template_variables = ?3, prioritization = ?4, updated_at = ?5 WHERE name = ?1",
        params![
            changed.name,
            text(&changed.config),
            text(&changed.template_variables),
            changed.prioritization,
            now
        ],
    )?;
    Ok(())
}

fn text(object: &Object) -> String {
    Value::Object(object.clone()).to_string()
}

fn delete(
    db: &Transaction<'_>,
    name: &str,
    force: bool,
    now: i64,
) -> Result<(usize, Vec<PathBuf>), Trouble> {
    definition(db, name)?;
    let count = |condition: &str| {
        db.query_row(
            &format!("SELECT count(*) FROM items WHERE queue = :name AND {condition}"),
            named_params! {":name": name, ":now": now},
            |row| row.get::<_, i64>(0),
        )
    };
    let items = |count: i64| {
        if count == 1 {
            "1 item".to_owned()
        } else {
            format!("{count} items")
        }
    };
    let (running, waiting) = (count(IN_HAND)?, count(WAITING)?);
    if running > 0 {
        return Err(Error::input(format!(
            "queue `{name}` has {} in the hands of an agent",
            items(running)
        ))
        .hint("stop them first with `launch-agent item cancel ID`, or wait until they have ended")
        .into());
    }
    if waiting > 0 && !force {
        return Err(
            Error::input(format!("queue `{name}` has {} waiting", items(waiting)))
                .hint("`--force` deletes them with it")
                .into(),
        );
    }
    let mut statement = db.prepare("SELECT log FROM items WHERE queue = ?1 AND log IS NOT NULL")?;
    let logs = statement
        .query_map([name], |row| row.get::<_, String>(0).map(PathBuf::from))?
        .collect::<rusqlite::Result<_>>()?;
    let gone = db.execute("DELETE FROM items WHERE queue = ?1", [name])?;
    db.execute("DELETE FROM queues WHERE name = ?1", [name])?;
    Ok((gone, logs))
}
