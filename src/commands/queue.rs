//! `launch-agent queue ..`: the owner's side of the embedded queue.

use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::queue_check;
use super::table::{self, Table};
use super::{input, print, say};
use crate::cli::{
    BackendArgs, ListArgs, QueueArgs, QueueCommand, QueueCreateArgs, QueueDeleteArgs,
    QueueNameArgs, QueueSettings, QueueUpdateArgs,
};
use crate::config::{AgentConfig, Backend, Environment};
use crate::failure::{Error, Result};
use crate::host::engine;
use crate::launch::docker;
use crate::launch::spec::Object;
use crate::launch::template::Schemas;
use crate::queue::local::{
    Agent, LocalQueue, QueueChange, check_definition, check_new, fill_config,
};
use crate::queue::{QueueClient, QueueDefinition, QueueStatus};

pub fn run(args: &QueueArgs, environment: &Environment) -> Result<ExitCode> {
    match &args.command {
        QueueCommand::Create(args) => create(args, environment)?,
        QueueCommand::List(args) => list(args, environment)?,
        QueueCommand::Show(args) => show(args, environment)?,
        QueueCommand::Update(args) => update(args, environment)?,
        QueueCommand::Delete(args) => delete(args, environment)?,
        QueueCommand::Check(args) => return queue_check::run(args),
        QueueCommand::Pause(args) => set_paused(args, true, environment)?,
        QueueCommand::Resume(args) => set_paused(args, false, environment)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The config of a queue, with its template variables filled from `--set-var` values: for a look at what a job of
/// that queue would run.
pub fn queue_config(
    name: &str,
    set_var: &[String],
    backend: &BackendArgs,
    environment: &Environment,
) -> Result<Object> {
    let client = input::queue_client(backend, None, environment)?;
    let definition = client.queue(name)?.definition;
    let schemas = Schemas::parse(&definition.template_variables)?;
    let values = input::template_values(set_var, &schemas)?;
    fill_config(&definition, &values).map_err(|error| error.within(format_args!("queue `{name}`")))
}

fn create(args: &QueueCreateArgs, environment: &Environment) -> Result<()> {
    let config = AgentConfig::for_command(&args.backend, environment)?;
    let settings = read(&args.settings)?;
    let definition = QueueDefinition {
        name: args.name.clone(),
        config: settings.config.unwrap_or_default(),
        template_variables: settings.template_variables.unwrap_or_default(),
        prioritization: settings.prioritization.unwrap_or(false),
        paused: false,
    };
    docker::choose(config.engine.value);
    check_files(&definition, &args.settings)?;
    // A queue that cannot be made leaves no file behind.
    check_new(&definition, &args.resource, &engine::run_help)?;
    let client: Box<dyn QueueClient> = if config.backend.value == Backend::Wandb {
        super::warn(&config.identity_warnings);
        Box::new(input::wandb_client(&config, None, environment)?)
    } else {
        Box::new(LocalQueue::open(&config.local_database()?)?)
    };
    client.create_queue(&definition, &args.resource, &engine::run_help)?;
    say(format_args!(
        "created queue {} in {}",
        args.name,
        client.place()
    ));
    Ok(())
}

fn read(settings: &QueueSettings) -> Result<QueueChange> {
    let stdin = Some(Path::new("-"));
    if settings.config.as_deref() == stdin && settings.template_variables.as_deref() == stdin {
        return Err(Error::input(
            "`--config` and `--template-variables` cannot both be standard input",
        ));
    }
    let object = |path: &Option<std::path::PathBuf>| path.as_deref().map(input::object_in);
    Ok(QueueChange {
        config: object(&settings.config).transpose()?,
        template_variables: object(&settings.template_variables).transpose()?,
        prioritization: settings.prioritization,
    })
}

/// Checks what came out of files, so that what is wrong with one names it.
fn check_files(definition: &QueueDefinition, settings: &QueueSettings) -> Result<()> {
    let (config, variables) = (&definition.config, &definition.template_variables);
    if let Some(path) = &settings.template_variables {
        Schemas::parse(variables).map_err(|error| error.within(input::place(path)))?;
    }
    let checked = check_definition(config, variables, &engine::run_help).map(drop);
    match settings
        .config
        .as_deref()
        .or(settings.template_variables.as_deref())
    {
        Some(path) => checked.map_err(|error| error.within(input::place(path))),
        None => checked,
    }
}

fn update(args: &QueueUpdateArgs, environment: &Environment) -> Result<()> {
    let change = read(&args.settings)?;
    if change == QueueChange::default() {
        return Err(Error::input("nothing to change").hint(
            "name what: `--config FILE`, `--template-variables FILE` or `--prioritization`",
        ));
    }
    let queue = input::local_queue(&args.backend, environment)?;
    let mut definition = queue.queue(&args.name)?.definition;
    definition.config = change.config.clone().unwrap_or(definition.config);
    let variables = change.template_variables.clone();
    definition.template_variables = variables.unwrap_or(definition.template_variables);
    check_files(&definition, &args.settings)?;
    queue.update_queue(&args.name, &change, &engine::run_help)?;
    say(format_args!("updated queue {}", args.name));
    let waiting = queue.queue(&args.name)?.pending;
    if waiting > 0 && change.config.is_some() {
        say(format_args!(
            "note: what waits in it already ({waiting}) keeps the options that it was pushed with"
        ));
    }
    Ok(())
}

fn delete(args: &QueueDeleteArgs, environment: &Environment) -> Result<()> {
    let items =
        input::local_queue(&args.backend, environment)?.delete_queue(&args.name, args.force)?;
    say(format_args!(
        "deleted queue {} and its items ({items})",
        args.name
    ));
    Ok(())
}

fn set_paused(args: &QueueNameArgs, paused: bool, environment: &Environment) -> Result<()> {
    let queue = input::local_queue(&args.backend, environment)?;
    queue.set_paused(&args.name, paused)?;
    if args.json {
        return print_json(&to_json(&queue.queue(&args.name)?));
    }
    let done = if paused { "paused" } else { "resumed" };
    say(format_args!("{done} queue {}", args.name));
    Ok(())
}

fn list(args: &ListArgs, environment: &Environment) -> Result<()> {
    let queue = input::queue_client(&args.backend, None, environment)?;
    let queues = queue.queues()?;
    if args.json {
        return print_json(&queues.iter().map(to_json).collect());
    }
    if queues.is_empty() {
        say(format_args!("no queues in {}", queue.place()));
        return Ok(());
    }
    let mut table = Table::new(&[
        "NAME",
        "PENDING",
        "RUNNING",
        "PAUSED",
        "PRIORITIZATION",
        "AGENTS",
    ]);
    for status in &queues {
        table.row(&[
            status.definition.name.clone(),
            status.pending.to_string(),
            status.running.to_string(),
            yes_or_no(status.definition.paused),
            yes_or_no(status.definition.prioritization),
            agents(status),
        ]);
    }
    table.print()
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

fn agents(status: &QueueStatus) -> String {
    let Some(agents) = &status.agents else {
        return "-".to_owned();
    };
    if agents.is_empty() {
        return "none".to_owned();
    }
    let names = agents.iter().map(|agent| {
        let slots = agent
            .max_jobs
            .map_or_else(String::new, |slots| format!(" of {slots}"));
        format!(
            "{} on {} ({}{slots} running)",
            agent.id, agent.hostname, agent.running
        )
    });
    names.collect::<Vec<_>>().join(", ")
}

fn show(args: &QueueNameArgs, environment: &Environment) -> Result<()> {
    let status = input::queue_client(&args.backend, None, environment)?.queue(&args.name)?;
    if args.json {
        return print_json(&to_json(&status));
    }
    let now = Timestamp::now();
    table::line("queue", &status.definition.name)?;
    if let Some(resource) = &status.resource {
        table::line("resource", resource)?;
    }
    table::line("paused", yes_or_no(status.definition.paused))?;
    table::line(
        "prioritization",
        yes_or_no(status.definition.prioritization),
    )?;
    table::line(
        "items",
        format_args!(
            "{} pending, {} running, {} ended",
            status.pending, status.running, status.ended
        ),
    )?;
    table::line("agents", agents(&status))?;
    for (label, time) in [
        ("created", status.created_at),
        ("updated", status.updated_at),
    ] {
        if let Some(time) = time {
            table::line(label, table::clock(time, now))?;
        }
    }
    for (name, schema) in Schemas::parse(&status.definition.template_variables)?.iter() {
        table::line("variable", format_args!("{name}: {schema}"))?;
    }
    let config = Value::Object(status.definition.config);
    print(format_args!("config: {config:#}"))
}

/// A queue as `--json` shows it. The shape is stable: keys are added, never changed.
fn to_json(status: &QueueStatus) -> Value {
    let definition = &status.definition;
    json!({
        "name": definition.name,
        "resource": status.resource,
        "config": definition.config,
        "template_variables": definition.template_variables,
        "prioritization": definition.prioritization,
        "paused": definition.paused,
        "pending": status.pending,
        "running": status.running,
        "ended": status.ended,
        "agents": status.agents.as_ref().map(|agents| agents.iter().map(agent_json).collect::<Vec<_>>()),
        "created_at": status.created_at.map(|time| time.to_string()),
        "updated_at": status.updated_at.map(|time| time.to_string()),
    })
}

fn agent_json(agent: &Agent) -> Value {
    json!({
        "id": agent.id.0,
        "hostname": agent.hostname,
        "pid": agent.pid,
        "queues": agent.queues,
        "max_jobs": agent.max_jobs,
        "running": agent.running,
        "status": agent.status,
        "seen_at": agent.seen_at.to_string(),
    })
}

fn print_json(value: &Value) -> Result<()> {
    print(format_args!("{value:#}"))
}
