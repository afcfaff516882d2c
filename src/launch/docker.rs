//! Every docker command that is ever run beside a job's own, as functions that give a [`CommandLine`].
//!
//! Sources: the reference of the docker CLI. `stop -t` is written short, because its long name changed in docker 28.

use crate::launch::command::CommandLine;

/// The program. Found on the `PATH` of the agent.
pub const PROGRAM: &str = "docker";

/// The label that carries the item of a container.
pub const ITEM_LABEL: &str = "launch-agent.item";

/// The label that carries the run of a container.
pub const RUN_LABEL: &str = "launch-agent.run";

/// The label that carries the agent of a container, by the name that it has on its machine.
pub const AGENT_LABEL: &str = "launch-agent.agent";

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

/// Prints what happened to all containers between two times, the container's id and the event a line.
pub fn all_events(since: &str, until: &str) -> CommandLine {
    let format = "{{.Actor.ID}} {{.Action}}";
    docker([
        "events", "--format", format, "--since", since, "--until", until,
    ])
}

/// Prints id, name and item of each container, running or not, that has these labels (`NAME=VALUE`).
pub fn containers(labels: &[String]) -> CommandLine {
    let format =
        format!("{{{{.ID}}}}\t{{{{.Names}}}}\t{{{{.State}}}}\t{{{{.Label \"{ITEM_LABEL}\"}}}}");
    let mut command = docker(["ps", "--all", "--no-trunc", "--format", &format]);
    for label in labels {
        command = command.part(["--filter".to_owned(), format!("label={label}")]);
    }
    command
}

/// Prints what docker has kept of a container's output.
pub fn logs(container: &str) -> CommandLine {
    docker(["logs", container])
}

/// [`logs`], and then what comes, until the container ends.
pub fn follow_logs(container: &str) -> CommandLine {
    docker(["logs", "--follow", container])
}

/// [`follow_logs`], from a time on (Unix seconds).
pub fn follow_logs_since(container: &str, since: &str) -> CommandLine {
    docker(["logs", "--follow", "--since", since, container])
}

/// Prints what a container writes from now on, without anything of what it wrote before.
pub fn attach(container: &str) -> CommandLine {
    docker(["attach", "--no-stdin", "--sig-proxy=false", container])
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

/// Removes a container, running or not, with its anonymous volumes, as `--rm` does.
pub fn remove(container: &str) -> CommandLine {
    docker(["rm", "--force", "--volumes", container])
}
