//! Pushing a job. What W&B's server does at this point is done here: the queue's template variables are filled and
//! the job's own options laid over the queue's, so that an item says all that its agent needs to know.

use rusqlite::{Transaction, params};
use serde_json::{Value, json};

use super::definition::fill_config;
use super::items::last_position;
use super::remote::check_run_id;
use super::rows::{definition, priority_number};
use super::trouble::Trouble;
use super::{LocalQueue, now};
use crate::failure::{Error, Result};
use crate::launch::image;
use crate::launch::resource_args;
use crate::launch::resource_args::{Ask, options_or_ask};
use crate::launch::spec::{DOCKER_RESOURCES, LaunchSpec, Object};
use crate::launch::template;
use crate::queue::{ItemId, Push, Pushed, QueueDefinition};

impl LocalQueue {
    /// Adds a job to a queue, paused or not. `ask` is told of docker options that we do not know.
    pub fn push(&self, push: &Push, ask: Ask<'_>) -> Result<Pushed> {
        self.push_by("", push, ask)
    }

    /// [`LocalQueue::push`] for a user of the server.
    pub fn push_by(&self, user: &str, push: &Push, ask: Ask<'_>) -> Result<Pushed> {
        let (spec, warnings) = check_push(push, ask)?;
        let id = self.write_and_ring(|db| {
            let definition = definition(db, &push.queue)?;
            check_priority(push, &definition)?;
            let options = settle(push, &spec, &definition)?;
            check_run_id(db, &push.spec, &push.queue)?;
            insert(db, user, push, &options, now())
        })?;
        Ok(Pushed { id, warnings })
    }
}

/// What can be said of a push before its queue is looked at. Gives the spec, and what of it will have no effect.
pub fn check_push(push: &Push, ask: Ask<'_>) -> Result<(LaunchSpec, Vec<String>)> {
    let (spec, warnings) = LaunchSpec::parse(&Value::Object(push.spec.clone()))?;
    if spec.is_scheduler {
        // It would be a process on the agent's machine, in no container and under no queue's config.
        return Err(Error::input(
            "a sweep scheduler needs W&B's server: the embedded queue has no sweeps",
        ));
    }
    need_source(&spec)?;
    options_or_ask(&spec.resource_args, ask)
        .map_err(|error| error.within("the job's `resource_args`"))?;
    Ok((spec, warnings))
}

fn need_source(spec: &LaunchSpec) -> Result<()> {
    match (&spec.image, spec.job.as_deref().unwrap_or_default()) {
        (None, "") => Err(
            Error::input("the launch spec names neither an image nor a job").hint(
                "name an image with `-d IMAGE`, a job with `-j JOB`, or code with `--code DIR`",
            ),
        ),
        // Whoever mistyped it is still there to be told.
        (Some(image), _) => image::check(image),
        (None, _) => Ok(()),
    }
}

fn check_priority(push: &Push, definition: &QueueDefinition) -> Result<()> {
    if push.priority.is_none() || definition.prioritization {
        return Ok(());
    }
    let name = &definition.name;
    Err(
        Error::input(format!("queue `{name}` takes no priorities")).hint(format!(
            "`launch-agent queue update {name} --prioritization` allows them"
        )),
    )
}

/// The docker options of the job: the queue's config, filled, with the job's own laid over it.
fn settle(push: &Push, spec: &LaunchSpec, definition: &QueueDefinition) -> Result<Object> {
    let filled = fill_config(definition, &push.template_values)
        .map_err(|error| error.within(format_args!("queue `{}`", definition.name)))?;
    if spec.resource_args.is_empty() {
        return Ok(filled);
    }
    // The owner has said with the templates what a job may choose; options of its own would get round that.
    let variables = template::variables(&definition.config);
    if !variables.is_empty() {
        return Err(Error::input(format!(
            "queue `{}` has template variables, so it takes no `resource_args` from a job",
            definition.name
        ))
        .hint(format!(
            "a job of this queue sets `{}` with `--set-var NAME=VALUE`",
            variables.join("`, `")
        )));
    }
    Ok(resource_args::merge(&filled, &spec.resource_args))
}

fn insert(
    db: &Transaction<'_>,
    user: &str,
    push: &Push,
    options: &Object,
    now: i64,
) -> Result<ItemId, Trouble> {
    let mut spec = push.spec.clone();
    let docker = DOCKER_RESOURCES[0];
    spec.insert("resource_args".to_owned(), json!({docker: options}));
    db.prepare_cached(
        "INSERT INTO items (queue, position, priority, state, spec, pushed_at, pushed_by) \
         VALUES (?1, ?2, ?3, 'PENDING', ?4, ?5, ?6)",
    )?
    .execute(params![
        push.queue,
        last_position(db)?,
        priority_number(push.priority.unwrap_or_default()),
        Value::Object(spec).to_string(),
        now,
        user
    ])?;
    Ok(ItemId(db.last_insert_rowid().to_string()))
}
