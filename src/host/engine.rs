//! Asks the docker engine: is it there, how is a container, how did it end. Each question has a timeout.

mod events;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use crate::failure::{Error, Kind, Result};
use crate::host::process::{self, Output};
use crate::launch::docker;
use crate::queue::Exit;
pub use events::{
    Memory, end_from_events, may_have_ended_without_the_engine, seconds, was_restarted, was_sent,
};

/// An engine that answers does so in milliseconds; a busy disk may take a while.
const ANSWER: Duration = Duration::from_secs(30);

/// How long a killed process may take to be gone.
const DYING: Duration = Duration::from_millis(200);

/// To say that it is there, an engine needs no disk; and the agent's loop waits for it.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// The engine's version, or why it does not answer.
pub fn version() -> Result<String> {
    let program = docker::program();
    if which::which(program).is_err() {
        let install = match program {
            "docker" => {
                "install it: `apt-get install docker.io` on Debian and Ubuntu, or see https://docs.docker.com/engine/install"
            }
            _ => {
                "install it: `apt-get install podman`; or set `engine: docker` in launch-config.yaml"
            }
        };
        return Err(Error::new(
            Kind::Docker,
            format!("`{program}` is not installed, or not on the PATH"),
        )
        .hint(install));
    }
    let output = process::output(&docker::version(), SIGN_OF_LIFE)?;
    if !output.is_success() {
        return Err(refusal(&output));
    }
    Ok(output.stdout.trim().to_owned())
}

/// How docker's client reaches its engine; `None` where it does not say.
pub fn address() -> Option<String> {
    let output = process::output(&docker::engine_address(), ANSWER).ok()?;
    let address = output.stdout.trim();
    (output.is_success() && !address.is_empty()).then(|| address.to_owned())
}

/// The folder where an engine of this machine keeps images and containers; `None` where it does not say, or when it is
/// on another machine.
pub fn data_root() -> Option<PathBuf> {
    // Podman fails on docker's question, under whatever name it runs.
    [docker::data_root(), docker::data_root_of_podman()]
        .iter()
        .filter_map(|question| process::output(question, SIGN_OF_LIFE).ok())
        .find(Output::is_success)
        .map(|output| PathBuf::from(output.stdout.trim()))
        .filter(|folder| folder.is_absolute() && folder.exists())
}

/// What the installed docker prints for `docker run --help`; `None` where there is no docker.
pub fn run_help() -> Option<String> {
    let output = process::output(&docker::run_help(), ANSWER).ok()?;
    output.is_success().then_some(output.stdout)
}

/// Does the installed docker have the plugin that builds with `BuildKit`? Asked once: a plugin that is installed while
/// the agent runs is used from its next start on.
pub fn has_buildx() -> bool {
    static HAS_BUILDX: OnceLock<bool> = OnceLock::new();
    *HAS_BUILDX.get_or_init(|| {
        let answer = process::output(&docker::buildx_version(), ANSWER);
        let has_buildx = answer.is_ok_and(|output| output.is_success());
        if !has_buildx {
            log::info!(
                "docker has no buildx here, so images are built by its classic builder: the same images, slower, without caches for packages and without secrets"
            );
        }
        has_buildx
    })
}

/// What the engine knows of an image on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LocalImage {
    /// Its names by content in the registries that it came from or went to.
    #[serde(default)]
    digests: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl LocalImage {
    /// Did it come from a registry, or go to one?
    pub fn is_of_a_registry(&self) -> bool {
        self.digests
            .as_ref()
            .is_some_and(|digests| !digests.is_empty())
    }

    /// Was it made by the agent, which labels what it makes?
    pub fn is_of_the_agent(&self) -> bool {
        let mut names = self.labels.iter().flat_map(BTreeMap::keys);
        names.any(|name| name.starts_with("launch-agent."))
    }
}

/// The image on this machine, if it is here.
pub fn local_image(image: &str) -> Result<Option<LocalImage>> {
    let output = process::output(&docker::describe_image(image), ANSWER)?;
    if output.is_success() {
        return understood(&output, format_args!("the image `{image}`")).map(Some);
    }
    if is_missing(&output) {
        Ok(None)
    } else {
        Err(refusal(&output))
    }
}

/// Does a running container have this folder mounted? Yes, when docker does not say: whoever asks wants to remove it.
pub fn is_mounted(folder: &Path) -> bool {
    let asked = docker::mounted(&folder.to_string_lossy());
    let answer = process::output(&asked, ANSWER);
    !answer.is_ok_and(|output| output.is_success() && output.stdout.trim().is_empty())
}

/// Is the image on this machine?
pub fn has_image(image: &str) -> Result<bool> {
    Ok(local_image(image)?.is_some())
}

/// Does the engine take this registry without TLS, or with a certificate that it cannot check?
pub fn is_insecure_registry(host: &str) -> Result<bool> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Registries {
        #[serde(default)]
        index_configs: BTreeMap<String, Index>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Index {
        secure: bool,
    }
    let output = process::output(&docker::registry_config(), ANSWER)?;
    if !output.is_success() {
        return Err(refusal(&output));
    }
    let known: Registries = understood(&output, "registries")?;
    Ok(known
        .index_configs
        .get(host)
        .is_some_and(|index| !index.secure))
}

/// Docker's answer, as JSON about `what`.
fn understood<T: serde::de::DeserializeOwned>(
    output: &Output,
    what: impl std::fmt::Display,
) -> Result<T> {
    serde_json::from_str(&output.stdout).map_err(|cause| {
        Error::new(
            Kind::Docker,
            format!("docker's answer about {what} is not understood: {cause}"),
        )
    })
}

/// The engine's `State` of a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerState {
    #[serde(default)]
    status: String,
    running: bool,
    #[serde(default)]
    restarting: bool,
    /// Did the kernel kill it for want of memory?
    #[serde(rename = "OOMKilled", default)]
    oom_killed: bool,
    exit_code: i32,
    started_at: String,
    finished_at: String,
}

impl ContainerState {
    /// Does its first process live, paused or not, or will a restart policy start it again?
    pub fn is_alive(&self) -> bool {
        self.running || self.restarting
    }

    /// Is it made, and neither started nor given up?
    pub fn is_only_created(&self) -> bool {
        self.status == "created"
    }

    /// How it ended, when it ever started.
    pub fn end(&self) -> Option<End> {
        // The engine writes the year 1 for a time that has not come.
        let started: Timestamp = self
            .started_at
            .parse()
            .ok()
            .filter(|time| *time > Timestamp::UNIX_EPOCH)?;
        let finished: Timestamp = self.finished_at.parse().ok()?;
        Some(End {
            exit: Exit {
                code: self.exit_code,
                oom_killed: self.oom_killed,
            },
            // The end is taken from another clock than the start: a very short job may seem to end before it began.
            duration: Some(
                finished
                    .duration_since(started)
                    .try_into()
                    .unwrap_or_default(),
            ),
        })
    }
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Its exit code.
    pub exit: Exit,
    /// From start to end, by the engine's clock.
    pub duration: Option<Duration>,
}

/// The state of a container, by name or id; `None` when there is no such container.
pub fn container_state(container: &str) -> Result<Option<ContainerState>> {
    let output = process::output(&docker::inspect_container(container), ANSWER)?;
    if !output.is_success() {
        return if is_missing(&output) {
            Ok(None)
        } else {
            Err(refusal(&output))
        };
    }
    understood(&output, format_args!("the container {container}")).map(Some)
}

/// The agent whose job a container is, by name or id; `None` for other containers, and where that cannot be told.
pub fn agent_of(container: &str) -> Option<String> {
    let output = process::output(&docker::agent_of(container), ANSWER).ok()?;
    let agent = output.stdout.trim();
    (output.is_success() && !agent.is_empty()).then(|| agent.to_owned())
}

/// Stops a container: asks, kills after `grace`, and returns once it is seen not to run. `Ok(false)`: there is no
/// such container.
pub fn stop_container(container: &str, grace: Duration) -> Result<bool> {
    let output = process::output(&docker::stop(container, grace.as_secs()), grace + ANSWER);
    if let Ok(output) = &output
        && is_missing(output)
    {
        return Ok(false);
    }
    for _ in 0..5 {
        match container_state(container)? {
            None => return Ok(true),
            Some(state) if !state.is_alive() => return Ok(true),
            Some(_) => {}
        }
        log::warn!("the container {container} did not stop; killing it");
        let _ = process::output(&docker::kill(container), ANSWER);
        // Docker returns when the signal is sent, and hears of the end a moment later.
        std::thread::sleep(DYING);
    }
    Err(Error::new(
        Kind::Docker,
        format!("the container {container} could not be stopped: it still runs"),
    )
    .hint(format!("look at it with `docker inspect {container}`")))
}

/// A container with the agent's labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Docker's word for how it is: `created`, `running`, `paused`, `exited` ..
    pub state: String,
    /// The item that it is of.
    pub item: String,
}

impl Labelled {
    /// Does its first process live?
    pub fn is_alive(&self) -> bool {
        !matches!(
            self.state.as_str(),
            "created" | "exited" | "dead" | "removing"
        )
    }
}

/// The containers that have these labels (`NAME=VALUE`), running or not.
pub fn containers(labels: &[String]) -> Result<Vec<Labelled>> {
    let output = process::output(&docker::containers(labels), ANSWER)?;
    if !output.is_success() {
        return Err(refusal(&output));
    }
    let lines = output.stdout.lines();
    let parts = lines.filter_map(|line| {
        let mut parts = line.splitn(4, '\t').map(str::to_owned);
        Some(Labelled {
            id: parts.next()?,
            name: parts.next()?,
            state: parts.next()?,
            item: parts.next()?,
        })
    });
    Ok(parts.collect())
}

/// Is this trouble of the machine or of docker, which may have passed when the same is tried again? What docker makes
/// of the job is not.
pub fn may_pass(error: &Error) -> bool {
    error.kind == Kind::Docker || says(&error.message, &["no space left on device"])
}

/// Removes a container. One that is not there is no error.
pub fn remove_container(container: &str) -> Result<()> {
    let output = process::output(&docker::remove(container), ANSWER)?;
    if output.is_success() || is_missing(&output) {
        return Ok(());
    }
    Err(refusal(&output).within(format_args!("`{}`", docker::remove(container))))
}

fn is_missing(output: &Output) -> bool {
    !output.is_success()
        && says(
            &output.stderr,
            &[
                "no such container",
                "no such object",
                "no such image",
                "image not known",
            ],
        )
}

fn says(text: &str, needles: &[&str]) -> bool {
    let text = text.to_lowercase();
    needles.iter().any(|needle| text.contains(needle))
}

fn refusal(output: &Output) -> Error {
    let said = match explain(&output.stderr) {
        said if said.is_empty() => output.ending.to_string(),
        said => said,
    };
    match engine_trouble(&said) {
        Some(error) => error,
        None => Error::new(Kind::Docker, format!("docker refused: {said}")),
    }
}

/// Docker's own words, without its advice to read its help.
pub fn explain(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(|line| {
            line.trim()
                .trim_start_matches("docker: ")
                .trim_start_matches("Error response from daemon: ")
                .trim_start_matches("Error: ")
        })
        .filter(|line| {
            let advice = ["Run 'docker ", "See 'docker ", "See 'podman ", "time=\""];
            !line.is_empty() && !advice.iter().any(|start| line.starts_with(start))
        })
        .collect();
    // Docker's complaint about a flag is followed by its whole usage.
    let usage = lines
        .iter()
        .position(|line| line.starts_with("Usage:"))
        .unwrap_or(lines.len());
    lines[..usage].join("; ")
}

/// The two troubles with an engine that have a well-known remedy.
pub fn engine_trouble(said: &str) -> Option<Error> {
    if says(
        said,
        &[
            "permission denied while trying to connect",
            "dial unix /var/run/docker.sock: connect: permission denied",
        ],
    ) {
        return Some(
            Error::new(
                Kind::Docker,
                "this user may not talk to the docker engine: permission denied on its socket",
            )
            .hint("`sudo usermod -aG docker $USER`, then log in again"),
        );
    }
    if says(
        said,
        &[
            "cannot connect to the docker daemon",
            "is the docker daemon running",
            "error during connect",
        ],
    ) {
        return Some(
            Error::new(
                Kind::Docker,
                format!("the docker engine does not answer: {said}"),
            )
            .hint(how_to_start(said)),
        );
    }
    if says(said, &["unable to connect to podman"]) {
        return Some(
            Error::new(Kind::Docker, format!("podman does not answer: {said}"))
                .hint("start it: `systemctl --user start podman.socket`; if it runs elsewhere, set CONTAINER_HOST"),
        );
    }
    None
}

/// How the engine that docker's client could not reach is started, by the address that it names.
fn how_to_start(said: &str) -> &'static str {
    let is_at = |place: &str| said.contains(place);
    if is_at(" at unix:///run/user/") {
        "start it, as a rootless engine is started: `systemctl --user start docker`"
    } else if is_at(" daemon at ") && !is_at(" at unix:///var/run/docker.sock") {
        "start the engine there; for the one of this machine `unset DOCKER_HOST` and `docker context use default`"
    } else {
        "start it: `sudo systemctl start docker`; if it runs elsewhere, set DOCKER_HOST"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> ContainerState {
        serde_json::from_str(text).expect("a state")
    }

    #[test]
    fn reads_how_a_container_ended() {
        let end = state(
            r#"{"Status":"exited","Running":false,"Paused":false,"Restarting":false,"OOMKilled":true,"Dead":false,
            "Pid":0,"ExitCode":137,"Error":"","StartedAt":"2026-11-22T01:52:26.500Z","FinishedAt":"2026-11-22T01:52:28Z"}"#,
        )
        .end()
        .expect("it started");
        assert_eq!(
            end.exit,
            Exit {
                code: 137,
                oom_killed: true
            }
        );
        assert_eq!(end.duration, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn a_job_that_seems_to_end_before_it_began_took_no_time() {
        let end = state(
            r#"{"Running":false,"ExitCode":3,"StartedAt":"2026-11-22T01:52:26.5Z","FinishedAt":"2026-11-22T01:52:26.4Z"}"#,
        )
        .end();
        assert_eq!(end.expect("it started").duration, Some(Duration::ZERO));
    }

    #[test]
    fn a_container_that_never_started_has_no_end() {
        let state = state(
            r#"{"Running":false,"ExitCode":127,"Error":"exec: \"nope\": not found",
            "StartedAt":"0001-01-01T00:00:00Z","FinishedAt":"0001-01-01T00:00:00Z"}"#,
        );
        assert_eq!(state.end(), None);
    }

    #[test]
    fn explains_in_dockers_words_without_its_advice() {
        assert_eq!(
            explain(
                "docker: Error response from daemon: no such thing\n\nRun 'docker run --help' for more information\n"
            ),
            "no such thing"
        );
        assert_eq!(
            explain(
                "time=\"..\" level=error msg=\"x\"\nError: runc: exec: \"x\": executable file not found\n"
            ),
            "runc: exec: \"x\": executable file not found"
        );
        assert_eq!(
            explain("unknown flag: --x\n\nUsage:  docker run [OPTIONS] IMAGE\n  more\n"),
            "unknown flag: --x"
        );
    }

    #[test]
    fn the_known_troubles_have_a_remedy() {
        for (said, remedy) in [
            (
                "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
                "`sudo systemctl start docker`",
            ),
            (
                "Cannot connect to the Docker daemon at unix:///run/user/1000/docker.sock. Is the docker daemon running?",
                "`systemctl --user start docker`",
            ),
            (
                "Cannot connect to the Docker daemon at tcp://10.0.0.7:2376. Is the docker daemon running?",
                "`unset DOCKER_HOST`",
            ),
            (
                "error during connect: Get \"http://docker.example.com/v1.41/version\": EOF",
                "set DOCKER_HOST",
            ),
            (
                "permission denied while trying to connect to the Docker daemon socket at unix:///x",
                "`sudo usermod -aG docker $USER`",
            ),
        ] {
            let hint = engine_trouble(said).expect("known").hint.expect("a hint");
            assert!(hint.contains(remedy), "{said}: {hint}");
        }
        assert_eq!(engine_trouble("something else"), None);
    }
}
