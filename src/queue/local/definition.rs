//! What a queue's config may be: checked when it is saved, so that no job meets a broken one. Touches no row;
//! the rules themselves are those of `launch`.

use super::users::LOCAL_ENTITY;
use crate::failure::{Error, Result};
use crate::launch::resource_args::{Ask, options_or_ask};
use crate::launch::spec::{DOCKER_RESOURCES, Object};
use crate::launch::template::{self, Schemas};
use crate::queue::QueueDefinition;

/// Checks a config with its template variables: each has a schema, each option exists and has a value of its
/// kind. Gives the schemas.
pub fn check_definition(config: &Object, variables: &Object, ask: Ask<'_>) -> Result<Schemas> {
    let schemas = Schemas::parse(variables)?;
    template::check(config, &schemas)?;
    options_or_ask(&template::fill(config, &schemas, &schemas.sample())?, ask)?;
    Ok(schemas)
}

/// Checks a queue that is to be made, before there is a file for it. Gives its resource in W&B's word.
pub fn check_new(
    definition: &QueueDefinition,
    resource: &str,
    ask: Ask<'_>,
) -> Result<&'static str> {
    check_name(&definition.name)?;
    let resource = check_resource(resource)?;
    check_definition(&definition.config, &definition.template_variables, ask)?;
    Ok(resource)
}

/// A queue's config with its template variables filled.
pub fn fill_config(definition: &QueueDefinition, values: &Object) -> Result<Object> {
    let schemas = Schemas::parse(&definition.template_variables)?;
    template::fill(&definition.config, &schemas, values)
}

/// A name that can stand in a command, a path and a label without quotes. The queues of an entity other than `local`
/// are called `ENTITY/NAME`.
fn check_name(name: &str) -> Result<()> {
    let plain = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
    let is_good = |part: &str| {
        part.starts_with(char::is_alphanumeric) && part.chars().all(plain) && part.len() <= 128
    };
    let (entity, own) = split_name(name);
    if is_good(entity) && is_good(own) && full_name(entity, own) == name {
        return Ok(());
    }
    Err(Error::input(format!("`{}` cannot be the name of a queue", name.escape_debug())).hint(
        "a name has up to 128 letters, digits, `-`, `_` and `.`, and begins with a letter or a digit",
    ))
}

/// The entity that a queue belongs to, and its name there.
pub fn split_name(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or((LOCAL_ENTITY, name))
}

/// The name by which a queue is known in its file: `NAME`, or `ENTITY/NAME` for an entity other than `local`.
pub fn full_name(entity: &str, name: &str) -> String {
    if entity == LOCAL_ENTITY {
        return name.to_owned();
    }
    format!("{entity}/{name}")
}

/// The kind of jobs of a queue, in W&B's word for it.
fn check_resource(resource: &str) -> Result<&'static str> {
    if DOCKER_RESOURCES.contains(&resource) {
        return Ok(DOCKER_RESOURCES[0]);
    }
    Err(Error::input(format!(
        "a queue of the resource `{resource}` is not possible: this agent runs docker jobs"
    ))
    .hint("leave `--resource` out, or write `--resource docker`"))
}
