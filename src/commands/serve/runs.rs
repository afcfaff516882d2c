//! `launch-agent serve run`: the runs that programs report to this server.

use std::process::ExitCode;

use super::super::say;
use super::queue;
use crate::cli::serve::RunCommand;
use crate::config::Environment;
use crate::failure::{Error, Kind, Result};

pub fn run(command: &RunCommand, environment: &Environment) -> Result<ExitCode> {
    let RunCommand::Stop(args) = command;
    let mut parts = args.run.split('/');
    let (Some(entity), Some(project), Some(name), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Error::input(format!("`{}` does not name a run", args.run))
            .hint("write `ENTITY/PROJECT/ID`, as `wandb` prints it"));
    };
    let queue = queue(&args.database, environment)?;
    let Some(run) = queue.run(entity, project, name)? else {
        return Err(Error::new(Kind::NotFound, format!("no run `{}`", args.run)));
    };
    queue.stop_run(run.id)?;
    match run.state.as_str() {
        "pending" | "running" => say(format_args!(
            "run {} is asked to stop; its program learns of it within half a minute",
            args.run
        )),
        state => say(format_args!("run {} is {state} already", args.run)),
    }
    Ok(ExitCode::SUCCESS)
}
