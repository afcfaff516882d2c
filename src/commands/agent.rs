//! `launch-agent` without a subcommand, and `launch-agent agent`: the agent, `--once` and `--dry-run`.

use std::fs::OpenOptions;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use super::{print, say};
use crate::agent::{self, Agent, once};
use crate::cli::AgentArgs;
use crate::config::{AgentConfig, Environment};
use crate::failure::{Error, Result};
use crate::host::engine;
use crate::queue::local::LocalQueue;

pub fn run(args: &AgentArgs, environment: &Environment) -> Result<ExitCode> {
    let config = AgentConfig::for_agent(args, environment)?;
    let database = config.agent_database()?;
    if args.dry_run {
        return dry_run(&config, environment, &LocalQueue::open_existing(&database)?);
    }
    start_logger(&config)?;
    let _lock = if args.once {
        let Some(lock) = once::lock(&config, &database)? else {
            say("another `launch-agent --once` is at work on these queues");
            return Ok(ExitCode::SUCCESS);
        };
        Some(lock)
    } else {
        None
    };
    let queue = LocalQueue::open_existing(&database)?;
    engine::version()?;
    let logs_folder = queue.logs_folder()?;
    let terminal = Arc::new(Mutex::new(std::io::stdout()));
    let agent = Agent::new(
        config,
        environment.all(),
        Arc::new(queue),
        terminal,
        logs_folder,
        args.once,
    )?;
    let tally = agent.run()?;
    Ok(if args.once && tally.failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn dry_run(
    config: &AgentConfig,
    environment: &Environment,
    queue: &LocalQueue,
) -> Result<ExitCode> {
    match agent::next_plan(config, environment.all(), queue)? {
        None => say("nothing to take"),
        Some((item, plan)) => {
            say(format_args!(
                "next is item {} of queue `{}`",
                item.id, item.queue
            ));
            super::warn(&plan.warnings);
            print(plan)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The agent's own log: a line with time and level, to the terminal or into a file.
fn start_logger(config: &AgentConfig) -> Result<()> {
    let mut builder = super::logger(config.verbosity.value);
    if let Some(path) = &config.log_file.value {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|cause| {
                Error::system(
                    format_args!("cannot write the log {}", path.display()),
                    cause,
                )
            })?;
        builder.target(env_logger::Target::Pipe(Box::new(file)));
    }
    builder.init();
    Ok(())
}
