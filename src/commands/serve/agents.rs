//! `launch-agent serve agent`: the agents that poll the queues, and how to stop one.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::table::{Table, age};
use super::super::{print, say};
use super::queue;
use crate::cli::serve::{RemoteAgentCommand, ServeListArgs};
use crate::config::Environment;
use crate::failure::Result;
use crate::queue::AgentId;
use crate::queue::local::Agent;

pub fn run(command: &RemoteAgentCommand, environment: &Environment) -> Result<ExitCode> {
    match command {
        RemoteAgentCommand::List(args) => list(args, environment)?,
        RemoteAgentCommand::Stop(args) => {
            // W&B's own agent logs its name with a word before it.
            let id = AgentId(
                args.id
                    .strip_prefix("agent-")
                    .unwrap_or(&args.id)
                    .to_owned(),
            );
            queue(&args.database, environment)?.stop_agent(&id)?;
            say(format_args!(
                "agent {id} is told to take nothing more when it asks next"
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: &ServeListArgs, environment: &Environment) -> Result<()> {
    let agents = queue(&args.database, environment)?.agents()?;
    if args.json {
        let all: Value = agents.iter().map(to_json).collect();
        return print(format_args!("{all:#}"));
    }
    let now = Timestamp::now();
    let mut table = Table::new(&["ID", "HOST", "ENTITY", "QUEUES", "STATUS", "SEEN"]);
    for agent in &agents {
        table.row(&[
            agent.id.to_string(),
            agent.hostname.clone(),
            agent.entity.clone(),
            agent.queues.join(","),
            if agent.stop_polling {
                format!("{} (told to stop)", agent.status)
            } else {
                agent.status.clone()
            },
            age(agent.seen_at, now),
        ]);
    }
    table.print()
}

/// An agent as `--json` shows it. The shape is stable: keys are added, never changed.
fn to_json(agent: &Agent) -> Value {
    json!({
        "id": agent.id.0,
        "hostname": agent.hostname,
        "entity": agent.entity,
        "user": agent.user,
        "queues": agent.queues,
        "status": agent.status,
        "running": agent.running,
        "stop_polling": agent.stop_polling,
        "seen_at": agent.seen_at.to_string(),
    })
}
