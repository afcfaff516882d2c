//! Every docker command that is ever run beside a job's own, as functions that give a [`CommandLine`].
//!
//! Sources: the reference of the docker CLI. `stop -t` is written short, because its long name changed in docker 28.

use std::path::Path;
use std::sync::OnceLock;

use crate::launch::build::CA_IMAGE;
use crate::launch::command::{CommandLine, Secret};
use crate::launch::dockerfile::NOT_INSTALLED;

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

/// The label that carries the run of a container.
pub const RUN_LABEL: &str = "launch-agent.run";

/// The label that carries the agent of a container, by the name that it has on its machine.
pub const AGENT_LABEL: &str = "launch-agent.agent";

fn docker<const N: usize>(arguments: [&str; N]) -> CommandLine {
    CommandLine::new(program()).args(arguments)
}

/// Docker with the configuration in `config` in place of the user's.
fn docker_with(config: Option<&Path>) -> CommandLine {
    let docker = CommandLine::new(program());
    match config {
        Some(folder) => docker.args(["--config".into(), folder.to_string_lossy()]),
        None => docker,
    }
}

/// Prints the engine's version; fails when the engine does not answer.
pub fn version() -> CommandLine {
    docker(["version", "--format", "{{.Server.Version}}"])
}

/// Prints how docker's client reaches its engine. Podman has no such command.
pub fn engine_address() -> CommandLine {
    docker([
        "context",
        "inspect",
        "--format",
        "{{.Endpoints.docker.Host}}",
    ])
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

/// Prints the version of the plugin that builds with `BuildKit`; fails without it.
pub fn buildx_version() -> CommandLine {
    docker(["buildx", "version"])
}

/// Builds the image that holds the certificates for the classic builder; they and the Dockerfile are in `folder`.
pub fn build_ca_image(folder: &str) -> CommandLine {
    let mut command = docker(["build", "--quiet", "--tag", CA_IMAGE, folder]);
    command
        .env
        .insert("DOCKER_BUILDKIT".to_owned(), Secret::new("0"));
    command
}

/// Prints the names of packages that an image was built without; fails when it has all of them. In a container of this
/// name, with the base image's own `cat`: one that came with a package would run there past everything that the owner
/// wants of jobs.
pub fn packages_left_out(image: &str, container: &str) -> CommandLine {
    let path = "PATH=/usr/local/bin:/usr/bin:/bin";
    docker(["run", "--rm", "--name", container])
        .args(["--network", "none", "--env", path])
        .args(["--entrypoint", "cat", image, NOT_INSTALLED])
}

/// Prints where an image on this machine comes from, as JSON: its digests in registries, and its labels. Fails when it
/// is not here.
pub fn describe_image(image: &str) -> CommandLine {
    let format = r#"{"digests":{{json .RepoDigests}},"labels":{{with .Config}}{{json .Labels}}{{else}}null{{end}}}"#;
    docker(["image", "inspect", "--format", format, image])
}

/// Pulls an image, for `platform` where one is named.
pub fn pull(config: Option<&Path>, platform: Option<&str>, image: &str) -> CommandLine {
    let mut command = docker_with(config).arg("pull");
    if let Some(platform) = platform {
        command = command.part(["--platform", platform]);
    }
    command.part([image])
}

/// Pushes an image to the registry that its name says.
pub fn push(config: Option<&Path>, image: &str) -> CommandLine {
    docker_with(config).args(["push", image])
}

/// Prints what a registry has under an image's name; fails when it has nothing. The client asks the registry itself,
/// without the engine: `insecure` tells it what the engine knows, that this registry may be without TLS.
pub fn inspect_manifest(config: Option<&Path>, insecure: bool, image: &str) -> CommandLine {
    let command = docker_with(config).args(["manifest", "inspect"]);
    let flag = insecure.then_some("--insecure");
    command.args(flag).arg(image)
}

/// Prints what the engine knows of registries, as JSON.
pub fn registry_config() -> CommandLine {
    docker(["info", "--format", "{{json .RegistryConfig}}"])
}

/// Logs in to a registry, with the password on standard input, and keeps it in `config`.
pub fn login(config: &Path, user: &str, host: &str) -> CommandLine {
    docker_with(Some(config)).args(["login", "--username", user, "--password-stdin", host])
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

/// Prints the agent whose job a container is, by name or id; an empty line when it is no job.
pub fn agent_of(container: &str) -> CommandLine {
    let label = format!("{{{{index .Config.Labels {AGENT_LABEL:?}}}}}");
    docker(["container", "inspect", "--format", &label, "--", container])
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

/// Prints `true` when the engine leaves containers running while it is started anew.
pub fn live_restore() -> CommandLine {
    docker(["info", "--format", "{{.LiveRestoreEnabled}}"])
}

/// Prints what happened to all containers between two times: the time in nanoseconds, the container's id and the event
/// a line.
pub fn all_events(since: &str, until: &str) -> CommandLine {
    let format = "{{.TimeNano}} {{.Actor.ID}} {{.Action}}";
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

/// Prints the ids of the running containers that have a folder of this machine mounted.
pub fn mounted(folder: &str) -> CommandLine {
    docker(["ps", "--quiet", "--filter", &format!("volume={folder}")])
}

/// Removes a container, running or not, with its anonymous volumes, as `--rm` does.
pub fn remove(container: &str) -> CommandLine {
    docker(["rm", "--force", "--volumes", container])
}
