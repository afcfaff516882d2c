//! Every docker command that is ever run beside a job's own, as functions that give a [`CommandLine`].
//!
//! Sources: the reference of the docker CLI. `stop -t` is written short, because its long name changed in docker 28.

use crate::launch::command::CommandLine;

/// The program. Found on the `PATH` of the agent.
pub const PROGRAM: &str = "docker";

/// The label that carries the item of a container.
pub const ITEM_LABEL: &str = "launch-agent.item";

fn docker<const N: usize>(arguments: [&str; N]) -> CommandLine {
    CommandLine::new(PROGRAM).args(arguments)
}

/// Prints the engine's version; fails when the engine does not answer.
pub fn version() -> CommandLine {
    docker(["version", "--format", "{{.Server.Version}}"])
}

/// Prints the options that the installed docker knows.
pub fn run_help() -> CommandLine {
    docker(["run", "--help"])
}

/// Fails when the image is not on this machine.
pub fn inspect_image(image: &str) -> CommandLine {
    docker(["image", "inspect", "--format", "{{.Id}}", image])
}

/// Prints the state of a container as JSON: the engine's `State` object.
pub fn inspect_container(container: &str) -> CommandLine {
    docker([
        "container",
        "inspect",
        "--format",
        "{{json .State}}",
        container,
    ])
}

/// Prints what happened to a container between two times (Unix seconds), a JSON object a line.
pub fn events(container: &str, since: &str, until: &str) -> CommandLine {
    let filter = format!("container={container}");
    docker([
        "events",
        "--format",
        "{{json .}}",
        "--since",
        since,
        "--until",
        until,
        "--filter",
        &filter,
    ])
}

/// Asks the container's first process to end, and kills it `grace_seconds` later.
pub fn stop(container: &str, grace_seconds: u64) -> CommandLine {
    docker(["stop", "-t", &grace_seconds.to_string(), container])
}

/// Kills a container.
pub fn kill(container: &str) -> CommandLine {
    docker(["kill", container])
}

/// Waits for a container's end and prints its exit code.
pub fn wait(container: &str) -> CommandLine {
    docker(["wait", container])
}

/// Prints the ids of the running containers that have a folder of this machine mounted.
pub fn mounted(folder: &str) -> CommandLine {
    docker(["ps", "--quiet", "--filter", &format!("volume={folder}")])
}

/// Removes a container, running or not, with its anonymous volumes, as `--rm` does.
pub fn remove(container: &str) -> CommandLine {
    docker(["rm", "--force", "--volumes", container])
}
