//! What a queue's config may be: checked when it is saved, so that no job meets a broken one. Touches no row;
//! the rules themselves are those of `launch`.

use crate::failure::{Error, Result};
use crate::launch::docker_options::OptionTable;
use crate::launch::spec::{DOCKER_RESOURCES, Object};
use crate::launch::template::{self, Schemas};
use crate::queue::QueueDefinition;

/// Asks the installed docker for the text of `docker run --help`; `None` when there is none to ask.
pub type Ask<'a> = &'a dyn Fn() -> Option<String>;

/// Checks a config with its template variables: each has a schema, each option exists and has a value of its
/// kind. Gives the schemas.
pub fn check_definition(config: &Object, variables: &Object, ask: Ask<'_>) -> Result<Schemas> {
    let schemas = Schemas::parse(variables)?;
    template::check(config, &schemas)?;
    check_options(&template::fill(config, &schemas, &schemas.sample())?, ask)?;
    Ok(schemas)
}

/// Checks docker options. The installed docker is asked only about what we do not know ourselves.
pub fn check_options(options: &Object, ask: Ask<'_>) -> Result<()> {
    let known = OptionTable::docker_28();
    let Err(error) = check_names(options, &known) else {
        return Ok(());
    };
    match ask() {
        Some(help) => check_names(options, &known.with_help(&help)),
        None => Err(error),
    }
}

fn check_names(options: &Object, known: &OptionTable) -> Result<()> {
    match options.keys().find(|key| known.find(key).is_none()) {
        None => Ok(()),
        Some(key) => {
            Err(Error::input(format!("docker has no option `{key}`")).closest(key, known.names()))
        }
    }
}

/// A queue's config with its template variables filled.
pub fn fill_config(definition: &QueueDefinition, values: &Object) -> Result<Object> {
    let schemas = Schemas::parse(&definition.template_variables)?;
    template::fill(&definition.config, &schemas, values)
}

/// A name that can stand in a command, a path and a label without quotes.
pub fn check_name(name: &str) -> Result<()> {
    let plain = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
    if name.starts_with(char::is_alphanumeric) && name.chars().all(plain) && name.len() <= 128 {
        return Ok(());
    }
    Err(Error::input(format!("`{}` cannot be the name of a queue", name.escape_debug())).hint(
        "a name has up to 128 letters, digits, `-`, `_` and `.`, and begins with a letter or a digit",
    ))
}

/// The kind of jobs of a queue, in W&B's word for it.
pub fn check_resource(resource: &str) -> Result<&'static str> {
    if DOCKER_RESOURCES.contains(&resource) {
        return Ok(DOCKER_RESOURCES[0]);
    }
    Err(Error::input(format!(
        "a queue of the resource `{resource}` is not possible: this agent runs docker jobs"
    ))
    .hint("leave `--resource` out, or write `--resource docker`"))
}
