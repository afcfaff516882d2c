//! `launch-agent items`: the items of the queues, one a line; and an item as JSON, for every command that shows one.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::table::{self, Table};
use super::{input, print, say};
use crate::cli::ItemsArgs;
use crate::config::Environment;
use crate::failure::{Result, Stage};
use crate::queue::{Item, ItemState, Priority, QueueClient, spell_duration};

pub fn run(args: &ItemsArgs, environment: &Environment) -> Result<ExitCode> {
    let queue = input::queue_client(&args.backend, None, environment)?;
    let items = queue.items(args.queue.as_deref())?;
    if args.json {
        let all = items
            .iter()
            .map(|item| to_json(queue.as_ref(), item))
            .collect::<Result<Value>>()?;
        print(format_args!("{all:#}"))?;
    } else if items.is_empty() {
        say(match &args.queue {
            Some(name) => format!("no items in queue {name}"),
            None => format!("no items in {}", queue.place()),
        });
    } else {
        print_table(queue.as_ref(), &items)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_table(queue: &dyn QueueClient, items: &[Item]) -> Result<()> {
    let now = Timestamp::now();
    let with_priority = queue
        .queues()?
        .iter()
        .any(|status| status.definition.prioritization);
    let mut headers = vec![
        "ID", "QUEUE", "STATE", "PRIORITY", "NAME", "IMAGE", "AGE", "DURATION",
    ];
    headers.retain(|header| with_priority || *header != "PRIORITY");
    let mut table = Table::new(&headers);
    for item in items {
        let mut cells = vec![item.id.to_string(), item.queue.clone(), state(item)];
        if with_priority {
            cells.push(item.priority.map_or("-", Priority::as_str).to_owned());
        }
        let name = text(item, "name").or_else(|| item.run_id.clone());
        cells.extend([
            name.unwrap_or_else(|| "-".to_owned()),
            image(item).unwrap_or_else(|| "-".to_owned()),
            item.pushed_at
                .map_or_else(|| "-".to_owned(), |since| table::age(since, now)),
            duration(item, now),
        ]);
        table.row(&cells);
    }
    table.print()
}

/// The state's word, with what one wants to know next.
fn state(item: &Item) -> String {
    let word = item.state.word();
    match &item.state {
        ItemState::Finished(exit) if exit.oom_killed => {
            format!("{word} ({}, out of memory)", exit.code)
        }
        ItemState::Finished(exit) => format!("{word} ({})", exit.code),
        ItemState::Failed {
            stage: Some(stage), ..
        } => format!("{word} ({stage})"),
        _ if item.stop_requested => format!("{word} (asked to stop)"),
        _ => word.to_owned(),
    }
}

fn duration(item: &Item, now: Timestamp) -> String {
    let running = || match item.state {
        ItemState::Claimed => item.claimed_at.map(|since| table::between(since, now)),
        _ => None,
    };
    item.duration
        .or_else(running)
        .map_or_else(|| "-".to_owned(), spell_duration)
}

/// The text under a key of an item's spec; an empty one is as good as none.
pub fn text(item: &Item, key: &str) -> Option<String> {
    let text = item.spec.get(key)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// The image that an item runs, or the job that it is.
pub fn image(item: &Item) -> Option<String> {
    item.spec
        .pointer("/docker/docker_image")
        .and_then(Value::as_str)
        .filter(|image| !image.is_empty())
        .map(str::to_owned)
        .or_else(|| text(item, "image_uri"))
        .or_else(|| text(item, "job"))
}

/// An item as `--json` shows it. The shape is stable: keys are added, never changed.
pub fn to_json(queue: &dyn QueueClient, item: &Item) -> Result<Value> {
    let (exit, stage, message) = match &item.state {
        ItemState::Finished(exit) => (Some(*exit), None, None),
        ItemState::Failed { stage, message } => (None, stage.map(Stage::as_str), Some(message)),
        ItemState::Stopped { message } => (None, None, Some(message)),
        _ => (None, None, None),
    };
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    Ok(json!({
        "id": item.id.0,
        "queue": item.queue,
        "state": item.state.word(),
        "waiting": queue.why_waiting(item)?,
        "exit_code": exit.map(|exit| exit.code),
        "oom_killed": exit.map(|exit| exit.oom_killed),
        "stage": stage,
        "message": message,
        "details": item.details,
        "stop_requested": item.stop_requested,
        "priority": item.priority.map(Priority::as_str),
        "attempt": item.attempt,
        "run_id": item.run_id,
        "agent": item.agent.as_ref().map(|agent| &agent.0),
        "pushed_at": time(item.pushed_at),
        "claimed_at": time(item.claimed_at),
        "ended_at": time(item.ended_at),
        "duration_seconds": item.duration.map(|duration| duration.as_secs_f64()),
        "command": item.command,
        "log": item.log.as_ref().map(|log| log.to_string_lossy()),
        "warnings": item.warnings,
        "spec": without_key(&item.spec),
    }))
}

/// The spec without the submitter's own key, which is for the job alone.
fn without_key(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(key) = spec.get_mut("_wandb_api_key")
        && !key.is_null()
    {
        *key = Value::from("[redacted]");
    }
    spec
}
