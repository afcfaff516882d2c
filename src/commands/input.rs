//! What people give to a command: files, standard input, or JSON on the command line itself; and the embedded
//! queue that the command is about.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::cli::BackendArgs;
use crate::config::{AgentConfig, Backend, Environment};
use crate::failure::{Error, Result};
use crate::launch::docker;
use crate::launch::document;
use crate::launch::spec::Object;
use crate::launch::template::{self, Schemas};
use crate::queue::QueueClient;
use crate::queue::local::LocalQueue;
use crate::queue::wandb::{Client, Connection};

/// The name of standard input on the command line.
const STANDARD_INPUT: &str = "-";

/// The embedded queue that the flags name, for what only it can do. It must be there.
pub fn local_queue(backend: &BackendArgs, environment: &Environment) -> Result<LocalQueue> {
    let config = AgentConfig::for_command(backend, environment)?;
    LocalQueue::open_existing(&config.local_database()?)
}

/// The queues that the flags name, wherever they are. `entity` is a flag of the command's own.
pub fn queue_client(
    backend: &BackendArgs,
    entity: Option<&str>,
    environment: &Environment,
) -> Result<Box<dyn QueueClient>> {
    let config = AgentConfig::for_command(backend, environment)?;
    docker::choose(config.engine.value);
    if config.backend.value != Backend::Wandb {
        return Ok(Box::new(LocalQueue::open_existing(
            &config.local_database()?,
        )?));
    }
    super::warn(&config.identity_warnings);
    Ok(Box::new(wandb_client(&config, entity, environment)?))
}

/// W&B for a command: a person sees that nobody answers, and can ask again. What there is to warn about in key and
/// address is left to the caller, so that a command that asks in several places says it once.
pub fn wandb_client(
    config: &AgentConfig,
    entity: Option<&str>,
    environment: &Environment,
) -> Result<Client> {
    let mut connection = Connection::of(config, environment)?;
    connection.timing.retries = Duration::ZERO;
    if let Some(entity) = entity {
        connection.entity = Some(entity.to_owned());
    }
    Client::new(connection)
}

/// An object from a JSON or YAML file; `-` is standard input.
pub fn object_in(path: &Path) -> Result<Object> {
    let (text, name) = text_in(path)?;
    document::parse_object(&text, &name)
}

/// Any value from a JSON or YAML file; `-` is standard input.
pub fn value_in(path: &Path) -> Result<Value> {
    let (text, name) = text_in(path)?;
    document::parse(&text, &name)
}

/// What to call a file in messages.
pub fn place(path: &Path) -> String {
    if path == Path::new(STANDARD_INPUT) {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    }
}

/// The text of a file, and what to call it in messages.
fn text_in(path: &Path) -> Result<(String, String)> {
    let mut text = String::new();
    let name = place(path);
    let read = if path == Path::new(STANDARD_INPUT) {
        let read = std::io::stdin().lock().read_to_string(&mut text);
        read.map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    match read {
        Ok(text) => Ok((text, name)),
        Err(cause) => Err(Error::input(format!("cannot read {name}: {cause}"))),
    }
}

/// An object from a file, or from the argument itself when it looks like JSON. `flag` is what it was given with.
pub fn object_or_file(argument: &str, flag: &str) -> Result<Object> {
    if argument.trim_start().starts_with(['{', '[']) {
        return document::parse_object(argument, flag);
    }
    object_in(Path::new(argument)).map_err(|error| {
        let error = error.within(flag);
        if error.hint.is_some() || Path::new(argument).exists() {
            return error;
        }
        error.hint("give a file, or JSON such as `{\"..\": ..}` in quotes")
    })
}

/// The values of `--set-var`, read as the queue's schemas say. Of two for one variable the later counts.
pub fn template_values(assignments: &[String], schemas: &Schemas) -> Result<Object> {
    assignments
        .iter()
        .map(|assignment| template::parse_assignment(assignment, schemas))
        .collect()
}
