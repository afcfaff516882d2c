//! Brings the image of a job to this machine, as its plan says.

mod build;
mod context;
pub mod turns;

use crate::failure::{Error, Kind, Result};
use crate::host::engine;
use crate::host::logs::JobLog;
use crate::host::process::{self, Ending};
use crate::host::stop::{Activity, Stop};
use crate::launch::command::CommandLine;
use crate::launch::plan::ImagePlan;

/// Makes sure that the image of the job is on this machine. Gives what the job's owner should know, a sentence each.
pub fn provide(plan: &ImagePlan, log: &mut JobLog, stop: &Stop) -> Result<Vec<String>> {
    match plan {
        ImagePlan::PullIfMissing { image, command } => {
            pull(image, command, log, stop).map(|()| Vec::new())
        }
        ImagePlan::LeftToDocker => Ok(Vec::new()),
        ImagePlan::Build(plan) => build::provide(plan, log, stop),
    }
}

fn pull(image: &str, command: &CommandLine, log: &mut JobLog, stop: &Stop) -> Result<()> {
    if engine::has_image(image)? {
        return Ok(());
    }
    stop.check()?;
    log.note(command);
    let ending = process::stream(
        command,
        |group| stop.now(Activity::Command(group)),
        |bytes| log.output(bytes),
    );
    stop.now(Activity::Between);
    stop.check()?;
    if ending? == Ending::Code(0) {
        return Ok(());
    }
    let said = log.last_lines(10);
    let why = said
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("docker gave no reason");
    let why = engine::explain(why);
    if let Some(error) = engine::engine_trouble(&why) {
        return Err(error);
    }
    Err(Error::new(
        Kind::Input,
        format!("the image `{image}` is not on this machine and could not be pulled: {why}"),
    )
    .hint("check its name; for a private registry run `docker login` as the agent's user"))
}
