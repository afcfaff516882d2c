//! Every docker command that is ever run beside a job's own, as functions that give a [`CommandLine`].
//!
//! Sources: the reference of the docker CLI. `stop -t` is written short, because its long name changed in docker 28.

use std::sync::OnceLock;

use crate::launch::command::CommandLine;

/// What runs the containers. Podman takes docker's own command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// docker, or podman under that name.
    Docker,
    /// podman.
    Podman,
}

impl Engine {
    /// Both, by the word for each in `launch-config.yaml`, which is also the program's name.
    pub const WORDS: [(&'static str, Engine); 2] =
        [("docker", Engine::Docker), ("podman", Engine::Podman)];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Engine::Docker => "docker",
            Engine::Podman => "podman",
        }
    }
}

/// Chosen once for the whole process, before the first command is made: handing it through every function that makes
/// one would say nothing more.
static ENGINE: OnceLock<Engine> = OnceLock::new();

/// Chooses the engine of this process. The first choice stays.
pub fn choose(engine: Engine) {
    ENGINE.get_or_init(|| engine);
}

/// The program of the engine. Found on the `PATH` of the agent.
pub fn program() -> &'static str {
    ENGINE.get().copied().unwrap_or(Engine::Docker).word()
}

/// The label that carries the item of a container.
pub const ITEM_LABEL: &str = "launch-agent.item";

fn docker<const N: usize>(arguments: [&str; N]) -> CommandLine {
    CommandLine::new(program()).args(arguments)
}

/// Prints the engine's version; fails when the engine does not answer.
pub fn version() -> CommandLine {
    docker(["version", "--format", "{{.Server.Version}}"])
}

/// Prints the folder where a docker engine keeps images and containers.
pub fn data_root() -> CommandLine {
    docker(["info", "--format", "{{.DockerRootDir}}"])
}

/// Prints the folder where podman keeps images and containers.
pub fn data_root_of_podman() -> CommandLine {
    docker(["info", "--format", "{{.Store.GraphRoot}}"])
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

/// The same up to now, as podman is asked: it takes `--until` for an answer that is still to come, and gives none.
pub fn events_of_podman(container: &str, since: &str) -> CommandLine {
    let filter = format!("container={container}");
    docker([
        "events",
        "--stream=false",
        "--format",
        "{{json .}}",
        "--since",
        since,
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

/// Removes a container, running or not, with its anonymous volumes, as `--rm` does.
pub fn remove(container: &str) -> CommandLine {
    docker(["rm", "--force", "--volumes", container])
}
