//! `launch-agent config show`: each setting with its value and where it comes from.

use std::process::ExitCode;

use serde_json::{Map, json};

use super::print;
use crate::cli::{ConfigArgs, ConfigCommand, ConfigShowArgs};
use crate::config::{AgentConfig, Environment};
use crate::failure::Result;

pub fn run(args: &ConfigArgs, environment: &Environment) -> Result<ExitCode> {
    let ConfigCommand::Show(args) = &args.command;
    show(args, environment)
}

fn show(args: &ConfigShowArgs, environment: &Environment) -> Result<ExitCode> {
    let config = AgentConfig::for_agent(&args.agent, environment)?;
    super::warn(&config.warnings);
    let entries = config.entries();
    if args.json {
        let all: Map<_, _> = entries
            .into_iter()
            .map(|(key, value, origin)| (key.to_owned(), json!({"value": value, "origin": origin})))
            .collect();
        print(serde_json::Value::Object(all))?;
        return Ok(ExitCode::SUCCESS);
    }
    for (key, value, origin) in entries {
        print(format_args!("{:<42} # {origin}", format!("{key}: {value}")))?;
    }
    Ok(ExitCode::SUCCESS)
}
