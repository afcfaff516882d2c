//! `launch-agent serve key`: who gets in.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::table::{Table, age};
use super::super::{print, say};
use super::queue;
use crate::cli::serve::{KeyCommand, KeyCreateArgs, ServeListArgs};
use crate::config::Environment;
use crate::failure::Result;
use crate::queue::local::Key;

pub fn run(command: &KeyCommand, environment: &Environment) -> Result<ExitCode> {
    match command {
        KeyCommand::Create(args) => create(args, environment)?,
        KeyCommand::List(args) => list(args, environment)?,
        KeyCommand::Revoke(args) => {
            queue(&args.database, environment)?.revoke_key(args.id)?;
            say(format_args!("key {} lets nobody in any more", args.id));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(args: &KeyCreateArgs, environment: &Environment) -> Result<()> {
    let new = queue(&args.database, environment)?.create_key(&args.user, &args.entity)?;
    if args.json {
        let value = json!({
            "id": new.id,
            "key": new.key,
            "user": new.caller.user,
            "entities": new.caller.entities,
        });
        return print(format_args!("{value:#}"));
    }
    say(format_args!(
        "key {} of user {}, a member of {}; it is not shown again",
        new.id,
        new.caller.user,
        new.caller.entities.join(", ")
    ));
    print(&new.key)
}

fn list(args: &ServeListArgs, environment: &Environment) -> Result<()> {
    let keys = queue(&args.database, environment)?.keys()?;
    if args.json {
        let all: Value = keys.iter().map(to_json).collect();
        return print(format_args!("{all:#}"));
    }
    let now = Timestamp::now();
    let mut table = Table::new(&["ID", "USER", "ENTITIES", "KEY", "AGE", "USED", "STATE"]);
    for key in &keys {
        table.row(&[
            key.id.to_string(),
            key.user.clone(),
            key.entities.join(","),
            format!("..{}", key.ending),
            age(key.created_at, now),
            key.used_at
                .map_or_else(|| "never".to_owned(), |at| age(at, now)),
            if key.revoked_at.is_some() {
                "revoked".to_owned()
            } else {
                "valid".to_owned()
            },
        ]);
    }
    table.print()
}

/// A key as `--json` shows it. The shape is stable: keys are added, never changed.
fn to_json(key: &Key) -> Value {
    json!({
        "id": key.id,
        "user": key.user,
        "entities": key.entities,
        "ending": key.ending,
        "created_at": key.created_at.to_string(),
        "used_at": key.used_at.map(|at| at.to_string()),
        "revoked_at": key.revoked_at.map(|at| at.to_string()),
    })
}
