//! `launch-agent render`: the commands that a launch spec would run, without running anything.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{input, print};
use crate::agent;
use crate::cli::{Format, LaunchArgs, RenderArgs};
use crate::config::{AgentConfig, Environment};
use crate::failure::{Error, Result};
use crate::host::engine;
use crate::host::machine::machine;
use crate::launch::plan::{Context, Place, Plan, plan, resolve};
use crate::launch::policy::Guard;
use crate::launch::resource_args::{merge, options_or_ask};
use crate::launch::spec::{LaunchSpec, Object};

pub fn run(args: &RenderArgs, environment: &Environment) -> Result<ExitCode> {
    let config = AgentConfig::for_command(&args.launch.backend, environment)?;
    let (value, spec, mut warnings) = launch_spec(args.spec.as_deref(), &args.launch, environment)?;
    let server = config.server();
    let run_id = run_id(&value);
    let context = Context {
        item: "render",
        queue: args.launch.queue.as_deref().unwrap_or("render"),
        agent: "render",
        queue_entity: config.entity.value.as_deref(),
        generated_run_id: &run_id,
        server: server.as_ref(),
        environment: environment.all(),
        env_macros: &config.env_macros.value,
        secure_mode: config.secure_mode.value,
        guard: Guard {
            policy: &config.policy.settled,
            machine: machine(),
        },
        cidfile: &config.state_folder.join("render.cid"),
        transfers: &agent::transfers(&config, environment.all()),
    };
    let launch = resolve(&spec, &context, &engine::run_help)?;
    let plan = plan(&launch, &context);
    warnings.extend(plan.warnings.iter().cloned());
    match args.format {
        Format::Json => print(as_json(&plan, &launch.image, &warnings))?,
        Format::Shell if std::io::stdout().is_terminal() => print(plan.wrapped())?,
        Format::Shell => print(&plan)?,
    }
    if args.format == Format::Shell {
        super::warn(&warnings);
    }
    Ok(ExitCode::SUCCESS)
}

/// The launch spec that the arguments name, as it was written and as it was read, with its queue's config merged
/// into it; and what its author should know.
pub(super) fn launch_spec(
    path: Option<&Path>,
    args: &LaunchArgs,
    environment: &Environment,
) -> Result<(Value, LaunchSpec, Vec<String>)> {
    let queue_config = queue_config(args, environment)?;
    let value = spec_value(path, args.image.as_deref(), queue_config.is_some())?;
    let (mut spec, warnings) = LaunchSpec::parse(&value)?;
    if let Some(queue_config) = &queue_config {
        spec.resource_args = merge(queue_config, &spec.resource_args);
    }
    if spec.image.is_none() && spec.job.is_none() {
        return Err(Error::input("no image to run is named")
            .hint("name it with `--image URI`, or in `docker.docker_image` of the launch spec"));
    }
    Ok((value, spec, warnings))
}

/// The queue's config: a file's, or that of a queue of the embedded database. Checked by itself, so that an error
/// names the place where it is.
fn queue_config(args: &LaunchArgs, environment: &Environment) -> Result<Option<Object>> {
    let (config, place) = match (&args.queue_config, &args.queue) {
        (Some(path), _) => (input::object_in(path)?, path.display().to_string()),
        (None, Some(queue)) => {
            let config = super::queue_config(queue, &args.set_var, &args.backend, environment)?;
            (config, format!("queue `{queue}`"))
        }
        (None, None) => return Ok(None),
    };
    options_or_ask(&config, &engine::run_help).map_err(|error| error.within(place))?;
    Ok(Some(config))
}

/// The spec to render: the file's, or the least there is for a queue config by itself; `--image` over what it names.
fn spec_value(path: Option<&Path>, image: Option<&str>, has_queue_config: bool) -> Result<Value> {
    let mut value = match path {
        Some(path) => input::value_in(path)?,
        None if has_queue_config => json!({"project": "example"}),
        None => {
            return Err(Error::input("nothing to render").hint(
                "name a launch spec with `--spec FILE`, or a queue's config with `--queue-config FILE --image URI`",
            ));
        }
    };
    if let (Some(image), Some(spec)) = (image, value.as_object_mut()) {
        let docker = spec.entry("docker").or_insert_with(|| json!({}));
        if docker.is_null() {
            *docker = json!({});
        }
        if let Some(docker) = docker.as_object_mut() {
            docker.insert("docker_image".to_owned(), json!(image));
        }
    }
    Ok(value)
}

/// Eight characters of `a-z0-9`, as the agent makes them, but out of the spec: two renders print the same.
pub(super) fn run_id(spec: &Value) -> String {
    const CHARACTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    Sha256::digest(spec.to_string().as_bytes())
        .iter()
        .take(8)
        .map(|byte| char::from(CHARACTERS[usize::from(*byte) % CHARACTERS.len()]))
        .collect()
}

fn as_json(plan: &Plan, image: &str, warnings: &[String]) -> Value {
    let container = match &plan.place {
        Place::Container(container) => Some(&container.name),
        Place::Process => None,
    };
    json!({
        "pull": plan.sure_pull().map(|pull| &pull.argv),
        "run": plan.run.argv,
        "env_from_agent": plan.env_from_agent,
        "warnings": warnings,
        "image": image,
        "container": container,
        "run_id": plan.run_id,
    })
}
