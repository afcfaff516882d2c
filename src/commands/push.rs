//! `launch-agent push`: makes a launch spec as `wandb launch` does and adds it to a queue.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::follow::{Form, follow};
use super::{input, items, print, push_code, say};
use crate::cli::PushArgs;
use crate::config::{AgentConfig, Backend, Environment};
use crate::failure::{Error, Result, Stage};
use crate::host::engine;
use crate::launch::docker_options::OptionTable;
use crate::launch::spec::{DOCKER_RESOURCES, OWN_KEY, Object, kind_of};
use crate::launch::template::Schemas;
use crate::queue::artifacts::Artifacts;
use crate::queue::local::LocalQueue;
use crate::queue::wandb::Client;
use crate::queue::wandb::transport::is_unreachable;
use crate::queue::{Item, ItemId, ItemState, Priority, Push, QueueClient};

/// How often W&B is asked how a run is doing.
const RUN_CHECK: Duration = Duration::from_secs(2);

pub fn run(args: &PushArgs, environment: &Environment) -> Result<ExitCode> {
    let backend = AgentConfig::for_command(&args.backend, environment)?.backend;
    if backend.value == Backend::Wandb && (args.code.is_some() || args.git.is_some()) {
        return Err(push_code::over_wandb(args));
    }
    let client = input::queue_client(&args.backend, args.entity.as_deref(), environment)?;
    // Nothing is kept for a queue that does not exist.
    let variables = client.queue(&args.queue)?.definition.template_variables;
    let spec = spec(args, client.as_ref(), environment)?;
    let priority = args.priority.as_deref().map(str::parse::<Priority>);
    let priority = priority.transpose()?;
    let push = Push {
        queue: args.queue.clone(),
        spec,
        template_values: input::template_values(&args.set_var, &Schemas::parse(&variables)?)?,
        priority,
    };
    let pushed = client.push(&push, &engine::run_help)?;
    super::warn(&pushed.warnings);
    say(format_args!(
        "pushed item {} to queue {} ({})",
        pushed.id,
        args.queue,
        client.place()
    ));
    if args.wait {
        return wait(args, &push, &pushed.id, environment);
    }
    if args.json {
        let item = items::to_json(client.as_ref(), &client.item(&pushed.id)?)?;
        print(format_args!("{item:#}"))?;
    } else {
        print(&pushed.id)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn wait(args: &PushArgs, push: &Push, id: &ItemId, environment: &Environment) -> Result<ExitCode> {
    let config = AgentConfig::for_command(&args.backend, environment)?;
    if config.backend.value == Backend::Wandb {
        let client = input::wandb_client(&config, args.entity.as_deref(), environment)?;
        return wait_for_run(&client, push, id);
    }
    wait_for_item(&input::local_queue(&args.backend, environment)?, id)
}

/// Waits for the end of the run that an item of W&B becomes. Its log and its exit code are in W&B, so all that is
/// told here is whether it succeeded. A server that does not answer for a while is waited for too.
fn wait_for_run(client: &Client, push: &Push, id: &ItemId) -> Result<ExitCode> {
    let text = |key: &str| {
        push.spec
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (entity, project) = (text("entity"), text("project").to_lowercase());
    let mut said = false;
    loop {
        let item = match client.item(id) {
            Err(error) if !is_unreachable(&error) => return Err(error),
            other => other.ok(),
        };
        if item.as_ref().is_some_and(|item| item.state == "FAILED") {
            say(format_args!("item {id} failed; W&B shows why at the queue"));
            return Ok(ExitCode::FAILURE);
        }
        if let Some(run) = item.and_then(|item| item.run_id) {
            if !std::mem::replace(&mut said, true) {
                say(format_args!("item {id} is run {entity}/{project}/{run}"));
            }
            match client
                .run_state(entity, &project, &run)
                .ok()
                .flatten()
                .as_deref()
            {
                Some("finished") => return Ok(ExitCode::SUCCESS),
                Some(state @ ("failed" | "crashed" | "killed")) => {
                    say(format_args!("run {run} {state}"));
                    return Ok(ExitCode::FAILURE);
                }
                _ => {}
            }
        }
        std::thread::sleep(RUN_CHECK);
    }
}

/// Prints the job's log until it ends. Whoever stops waiting stops nothing else.
fn wait_for_item(queue: &LocalQueue, id: &ItemId) -> Result<ExitCode> {
    let item = queue.item(id)?;
    let nobody = queue
        .queue(&item.queue)?
        .agents
        .is_none_or(|agents| agents.is_empty());
    if let Some(why) = queue.why_waiting(&item)?
        && nobody
    {
        say(format_args!("item {id} waits: {why}"));
    }
    Ok(exit_code(&follow(queue, id, &mut Form::Raw)?))
}

/// The job's own code; 1 when it has none, and why.
fn exit_code(item: &Item) -> ExitCode {
    let id = &item.id;
    match &item.state {
        ItemState::Finished(exit) => {
            if exit.code != 0 {
                say(format_args!("item {id} ended with {exit}"));
            }
            return ExitCode::from(u8::try_from(exit.code).unwrap_or(1));
        }
        ItemState::Failed { stage, message } => {
            let stage = stage.map_or("", Stage::as_str);
            say(format_args!("item {id} failed at stage {stage}: {message}"));
        }
        ItemState::Stopped { message } => say(format_args!("item {id} was stopped: {message}")),
        // `follow` comes back with an item that has ended.
        _ => {}
    }
    ExitCode::FAILURE
}

/// The spec: the base of `--config`, the flags over it, and what is known of who pushes.
fn spec(args: &PushArgs, client: &dyn QueueClient, environment: &Environment) -> Result<Object> {
    let config = AgentConfig::for_command(&args.backend, environment)?;
    let mut spec = match &args.config {
        Some(config) => input::object_or_file(config, "--config")?,
        None => Object::new(),
    };
    let entity = match config.entity.value.clone() {
        Some(entity) => entity,
        None => client.default_entity()?,
    };
    settle(&mut spec, "entity", args.entity.as_deref(), Some(&entity));
    settle(
        &mut spec,
        "project",
        args.project.as_deref(),
        environment.get("WANDB_PROJECT"),
    );
    if spec
        .get("project")
        .is_none_or(|project| project.is_null() || project == "")
    {
        return Err(
            Error::input("no project is named, which every run belongs to")
                .hint("add `-p NAME`, or set `WANDB_PROJECT`"),
        );
    }
    settle(&mut spec, "name", args.name.as_deref(), None);
    // W&B knows from the key who pushes.
    let user = environment.get("USER").or(environment.get("LOGNAME"));
    let user = user.filter(|_| config.backend.value != Backend::Wandb);
    settle(&mut spec, "author", None, user);
    if let Some(job) = &args.job {
        let job = job_name(args, job, &spec, &config, environment)?;
        spec.insert("job".to_owned(), job.into());
    }
    if let Some(image) = &args.docker_image {
        let image = Value::from(image.as_str());
        child(&mut spec, "docker")?.insert("docker_image".to_owned(), image);
    }
    let entry_point = args.entry_point.as_deref().map(split).transpose()?;
    if args.code.is_some() || args.git.is_some() {
        let words = entry_point.unwrap_or_default();
        let project = spec["project"].as_str().unwrap_or_default();
        let queue = input::local_queue(&args.backend, environment)?;
        let job = push_code::make(args, &queue, project, &words, &config, environment)?;
        spec.insert("job".to_owned(), job.into());
    } else if let Some(words) = entry_point {
        child(&mut spec, "overrides")?.insert("entry_point".to_owned(), words.into());
    }
    if !args.args.is_empty() {
        let words = args.args.clone();
        child(&mut spec, "overrides")?.insert("args".to_owned(), words.into());
    }
    if let Some(seconds) = args.timeout {
        child(&mut spec, OWN_KEY)?.insert("timeout".to_owned(), seconds.into());
    }
    if let Some(text) = &args.resource_args {
        spec.insert("resource_args".to_owned(), resource_args(text)?.into());
    }
    Ok(spec)
}

/// The full name of an existing job: whoever mistyped it is still there to be told.
fn job_name(
    args: &PushArgs,
    job: &str,
    spec: &Object,
    config: &AgentConfig,
    environment: &Environment,
) -> Result<String> {
    let text = |key: &str| spec.get(key).and_then(Value::as_str).unwrap_or_default();
    let (entity, project) = (text("entity"), text("project"));
    if config.backend.value == Backend::Wandb {
        let name = push_code::full_name(job, entity, project)?;
        input::wandb_client(config, args.entity.as_deref(), environment)?.artifact(&name)?;
        return Ok(name.to_string());
    }
    let entity = push_code::entity_of_queue(&args.queue);
    let name = push_code::full_name(job, entity, project)?;
    let queue = input::local_queue(&args.backend, environment)?;
    queue.artifacts_for_owner().artifact(&name)?;
    Ok(name.to_string())
}

/// The flag wins over the spec, the spec over the fallback. Nothing written is as good as absent.
fn settle(spec: &mut Object, key: &str, flag: Option<&str>, fallback: Option<&str>) {
    let said = match spec.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    };
    if let Some(value) = flag.or(fallback.filter(|_| !said)) {
        spec.insert(key.to_owned(), Value::from(value));
    }
}

/// The object under a key of the spec, made when there is none.
fn child<'a>(spec: &'a mut Object, key: &str) -> Result<&'a mut Object> {
    let value = spec.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Object::new());
    }
    let kind = kind_of(value);
    value.as_object_mut().ok_or_else(|| {
        Error::input(format!("`{key}` must be an object, not {kind}")).within("--config")
    })
}

fn split(entry_point: &str) -> Result<Vec<String>> {
    let words = shlex::split(entry_point).ok_or_else(|| {
        Error::input(format!(
            "--entry-point: `{entry_point}` ends inside a quote, or with a backslash"
        ))
    })?;
    if words.is_empty() {
        return Err(Error::input("--entry-point is empty").hint("leave it out to use the image's"));
    }
    Ok(words)
}

/// `--resource-args`: docker options keyed by resource. Whoever writes an option at the top means the key to be
/// there, which is told rather than guessed, as the same text is wrong for the `wandb` client.
fn resource_args(text: &str) -> Result<Object> {
    const FLAG: &str = "--resource-args";
    let given = input::object_or_file(text, FLAG)?;
    let known = OptionTable::docker_28();
    for key in given.keys() {
        if DOCKER_RESOURCES.contains(&key.as_str()) {
            continue;
        }
        if known.find(key).is_some() {
            let right = Value::Object(Object::from_iter([(
                DOCKER_RESOURCES[0].to_owned(),
                Value::Object(given.clone()),
            )]));
            return Err(Error::input(format!(
                "{FLAG}: `{key}` is a docker option where a resource is expected"
            ))
            .hint(format!("write it as `{right}`")));
        }
        return Err(Error::input(format!(
            "{FLAG}: the resource `{key}` is not known: this agent runs docker jobs"
        ))
        .hint(r#"write the options as `{"local-container": {..}}`"#));
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: &Value) -> Object {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn a_flag_wins_over_the_spec_and_the_spec_over_the_rest() {
        for (spec, flag, expected) in [
            (json!({}), None, json!("fallback")),
            (json!({"key": null}), None, json!("fallback")),
            (json!({"key": ""}), None, json!("fallback")),
            (json!({"key": "spec"}), None, json!("spec")),
            (json!({"key": 5}), None, json!(5)),
            (json!({"key": "spec"}), Some("flag"), json!("flag")),
            (json!({"key": 5}), Some("flag"), json!("flag")),
        ] {
            let mut settled = object(&spec);
            settle(&mut settled, "key", flag, Some("fallback"));
            assert_eq!(settled["key"], expected, "{spec} {flag:?}");
        }
    }

    #[test]
    fn an_entry_point_is_split_as_a_shell_splits() {
        assert_eq!(
            split("sh -c 'echo  hi'").expect("words"),
            ["sh", "-c", "echo  hi"]
        );
        assert!(split("sh -c 'echo").is_err());
        assert!(split("  ").is_err());
    }

    #[test]
    fn resource_args_are_keyed_by_resource() {
        let error = resource_args(r#"{"cpus": 2}"#).expect_err("an option at the top");
        assert_eq!(
            error.hint.as_deref(),
            Some(r#"write it as `{"local-container":{"cpus":2}}`"#)
        );
        let error = resource_args(r#"{"kubernetes": {}}"#).expect_err("another resource");
        assert!(error.message.contains("this agent runs docker jobs"));
        assert_eq!(
            resource_args(r#"{"docker": {"cpus": 2}}"#).expect("good"),
            object(&json!({"docker": {"cpus": 2}}))
        );
    }
}
