//! `launch-agent` without a subcommand, and `launch-agent agent`: the agent, `--once` and `--dry-run`.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use super::{print, say};
use crate::agent::{self, Agent, once};
use crate::cli::AgentArgs;
use crate::config::{AgentConfig, Backend, Environment};
use crate::failure::{Error, Result};
use crate::host::{engine, files};
use crate::launch::docker;
use crate::queue::Queue;
use crate::queue::local::LocalQueue;
use crate::queue::wandb::{self, Connection, WandbQueue};

pub fn run(args: &AgentArgs, environment: &Environment) -> Result<ExitCode> {
    let config = AgentConfig::for_agent(args, environment)?;
    config.check_backend()?;
    docker::choose(config.engine.value);
    if args.dry_run {
        return dry_run(&config, environment);
    }
    start_logger(&config)?;
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    let _lock = if args.once {
        let Some(lock) = once::lock(&config)? else {
            say("another `launch-agent --once` is at work on these queues");
            return Ok(ExitCode::SUCCESS);
        };
        Some(lock)
    } else {
        None
    };
    let (queue, logs_folder) = open_queue(&config, environment)?;
    engine::version()?;
    let terminal = Arc::new(Mutex::new(std::io::stdout()));
    let agent = Agent::new(
        config,
        environment.all(),
        queue,
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

/// The queue of the chosen backend, and the folder for the logs of its jobs.
fn open_queue(
    config: &AgentConfig,
    environment: &Environment,
) -> Result<(Arc<dyn Queue>, PathBuf)> {
    if config.backend.value != Backend::Wandb {
        let queue = LocalQueue::open_existing(&config.local_database()?)?;
        let logs = queue.logs_folder()?;
        return Ok((Arc::new(queue), logs));
    }
    for warning in &config.identity_warnings {
        log::warn!("{warning}");
    }
    // Reports for one server say nothing to another, so each has a folder of its own.
    let server = config
        .base_url
        .value
        .replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let queue = WandbQueue::open(
        Connection::of(config, environment)?,
        &config.state_folder.join("outbox").join(server),
        wandb::agent_config(config),
        wandb::agent_version(environment),
    )?;
    let logs = config.state_folder.join("logs");
    files::make_folder(&logs)?;
    Ok((Arc::new(queue), logs))
}

fn dry_run(config: &AgentConfig, environment: &Environment) -> Result<ExitCode> {
    if config.backend.value == Backend::Wandb {
        return Err(Error::input("W&B shows a job's spec only to the agent that takes it, so there is no `--dry-run`")
            .hint("render the spec that was pushed: `launch-agent render --spec FILE --queue-config FILE`"));
    }
    let queue = LocalQueue::open_existing(&config.local_database()?)?;
    match agent::next_plan(config, environment.all(), &queue)? {
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
            .mode(0o600)
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
