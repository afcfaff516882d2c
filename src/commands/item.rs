//! `launch-agent item ..`: looks at one item, or changes it.

use std::process::ExitCode;

use jiff::Timestamp;

use super::follow::{Form, follow, print_all};
use super::table::{self, line};
use super::{input, items, print, say};
use crate::cli::{ItemArgs, ItemCommand, ItemIdArgs, ItemLogsArgs};
use crate::config::Environment;
use crate::failure::{Error, Kind, Result};
use crate::queue::local::{Cancelled, LocalQueue};
use crate::queue::{Item, ItemId, ItemState, QueueClient, spell_duration};

pub fn run(args: &ItemArgs, environment: &Environment) -> Result<ExitCode> {
    match &args.command {
        ItemCommand::Logs(args) => logs(args, environment)?,
        ItemCommand::Show(args) => show(args, environment)?,
        ItemCommand::Cancel(args) => with_item(args, environment, cancel)?,
        ItemCommand::Retry(args) => with_item(args, environment, retry)?,
        ItemCommand::Delete(args) => with_item(args, environment, delete)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn with_item(
    args: &ItemIdArgs,
    environment: &Environment,
    act: impl FnOnce(&LocalQueue, &ItemId, bool) -> Result<()>,
) -> Result<()> {
    let queue = input::local_queue(&args.backend, environment)?;
    act(&queue, &ItemId(args.id.clone()), args.json)
}

fn print_json(queue: &dyn QueueClient, item: &Item) -> Result<()> {
    print(format_args!("{:#}", items::to_json(queue, item)?))
}

fn cancel(queue: &LocalQueue, id: &ItemId, json: bool) -> Result<()> {
    match queue.cancel(id)? {
        Cancelled::Stopped => say(format_args!("item {id} is stopped")),
        Cancelled::GivenUp { run_id } => {
            say(format_args!("item {id} is stopped; its agent is lost"));
            if let Some(run_id) = run_id {
                say(format_args!(
                    "note: its container may still run on the agent's machine: look with `docker ps --filter label=launch-agent.run={run_id}`"
                ));
            }
        }
        Cancelled::Asked { alive: true, .. } => {
            say(format_args!("asked the agent to stop item {id}"));
        }
        Cancelled::Asked { agent, .. } => {
            let place = agent.map_or_else(String::new, |agent| format!(" on {}", agent.hostname));
            say(format_args!(
                "asked for item {id} to be stopped, but nothing is heard of its agent{place}: it is stopped when the agent comes back"
            ));
        }
    }
    after(queue, id, json)
}

fn retry(queue: &LocalQueue, id: &ItemId, json: bool) -> Result<()> {
    let attempt = queue.retry(id)?;
    say(format_args!("item {id} waits again (attempt {attempt})"));
    after(queue, id, json)
}

fn after(queue: &LocalQueue, id: &ItemId, json: bool) -> Result<()> {
    if json {
        return print_json(queue, &queue.item(id)?);
    }
    Ok(())
}

fn delete(queue: &LocalQueue, id: &ItemId, json: bool) -> Result<()> {
    let item = queue.item(id)?;
    queue.delete_item(id)?;
    say(format_args!("deleted item {id}"));
    if json {
        return print_json(queue, &item);
    }
    Ok(())
}

fn logs(args: &ItemLogsArgs, environment: &Environment) -> Result<()> {
    let queue = input::local_queue(&args.backend, environment)?;
    let id = ItemId(args.id.clone());
    let mut form = Form::new(&id, args.json);
    let item = if args.follow {
        follow(&queue, &id, &mut form)?
    } else {
        queue.item(&id)?
    };
    let Some(log) = &item.log else {
        let why = queue.why_waiting(&item)?;
        say(match why {
            Some(why) => format!("item {id} has no log yet ({}): {why}", item.state.word()),
            None => format!("item {id} has no log ({})", item.state.word()),
        });
        return Ok(());
    };
    if item.state.is_ended() && !log.exists() {
        return Err(Error::new(
            Kind::NotFound,
            format!("the log of item {id} is not there: {}", log.display()),
        )
        .hint("it is on the machine of the agent that ran the job"));
    }
    if args.follow {
        return Ok(());
    }
    print_all(log, &mut form)
}

fn show(args: &ItemIdArgs, environment: &Environment) -> Result<()> {
    let queue = input::queue_client(&args.backend, None, environment)?;
    let queue = queue.as_ref();
    let item = queue.item(&ItemId(args.id.clone()))?;
    if args.json {
        return print_json(queue, &item);
    }
    show_state(queue, &item)?;
    show_spec(&item)?;
    show_way(queue, &item)?;
    for warning in &item.warnings {
        line("warning", warning)?;
    }
    if !item.details.is_empty() {
        print("details:")?;
        for text in item.details.lines() {
            print(format_args!("  {}", table::escaped(text)))?;
        }
    }
    Ok(())
}

fn show_state(queue: &dyn QueueClient, item: &Item) -> Result<()> {
    line("item", &item.id)?;
    line("queue", &item.queue)?;
    let word = item.state.word();
    table::lines(
        "state",
        &match &item.state {
            ItemState::Leased => format!("{word}: an agent has taken it and prepares it"),
            ItemState::Claimed if item.stop_requested => {
                format!("{word}: in an agent's hands, asked to stop")
            }
            ItemState::Claimed => format!("{word}: in an agent's hands"),
            ItemState::Finished(exit) => format!("{word}: {exit}"),
            ItemState::Failed {
                stage: Some(stage),
                message,
            } => {
                format!("{word} at stage {stage}: {message}")
            }
            ItemState::Pending | ItemState::Failed { .. } | ItemState::Other(_) => word.to_owned(),
            ItemState::Stopped { message } => format!("{word}: {message}"),
        },
    )?;
    match queue.why_waiting(item)? {
        Some(why) if item.state == ItemState::Pending => line("waits", why),
        Some(why) => line("note", why),
        None => Ok(()),
    }
}

fn show_spec(item: &Item) -> Result<()> {
    let project = items::text(item, "project").map(|project| match items::text(item, "entity") {
        Some(entity) => format!("{entity}/{project}"),
        None => project,
    });
    let optional = [
        ("project", project),
        ("name", items::text(item, "name")),
        ("author", items::text(item, "author")),
        ("image", items::image(item)),
        ("entry point", words(item, "/overrides/entry_point")),
        ("arguments", words(item, "/overrides/args")),
        ("options", options(item)),
    ];
    for (label, value) in optional {
        if let Some(value) = value {
            line(label, value)?;
        }
    }
    match item.priority {
        Some(priority) => line("priority", priority.as_str()),
        None => Ok(()),
    }
}

/// A list of words of the spec as a shell would take it.
fn words(item: &Item, pointer: &str) -> Option<String> {
    let list = item.spec.pointer(pointer)?.as_array()?;
    let words: Vec<String> = list
        .iter()
        .map(|word| {
            word.as_str()
                .map_or_else(|| word.to_string(), str::to_owned)
        })
        .collect();
    let words = shlex::try_join(words.iter().map(String::as_str)).ok()?;
    (!words.is_empty()).then_some(words)
}

fn options(item: &Item) -> Option<String> {
    let options = item.spec.pointer("/resource_args/local-container")?;
    let some = options
        .as_object()
        .is_some_and(|options| !options.is_empty());
    some.then(|| options.to_string())
}

/// How it came to where it is.
fn show_way(queue: &dyn QueueClient, item: &Item) -> Result<()> {
    let now = Timestamp::now();
    let time = |time: Option<Timestamp>| time.map(|time| table::clock(time, now));
    let agent = match &item.agent {
        Some(id) => Some(match queue.agent(id)? {
            Some(agent) => format!("{id} on {}", agent.place()),
            None => id.to_string(),
        }),
        None => None,
    };
    let optional = [
        ("attempt", Some(item.attempt.to_string())),
        ("run", item.run_id.clone()),
        ("agent", agent),
        ("pushed", time(item.pushed_at)),
        ("claimed", time(item.claimed_at)),
        ("ended", time(item.ended_at)),
        ("duration", item.duration.map(spell_duration)),
        ("command", item.command.clone()),
        (
            "log",
            item.log.as_ref().map(|log| log.display().to_string()),
        ),
    ];
    for (label, value) in optional {
        if let Some(value) = value {
            table::lines(label, &value)?;
        }
    }
    Ok(())
}
