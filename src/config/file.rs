//! `launch-config.yaml`: the keys of W&B's own agent (REFERENCE: its documentation and its checks), and ours.
//! An unknown key is an error, as it is there, but one that names the line and the closest key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::OnSignal;
use super::policy::PolicyKeys;
use crate::failure::{Error, Kind, Result};
use crate::launch::docker::Engine;
use crate::launch::transfer::PullPolicy;

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub queue: Option<String>,
    pub queues: Option<Vec<String>>,
    pub entity: Option<String>,
    pub max_jobs: Option<i64>,
    pub max_schedulers: Option<i64>,
    pub secure_mode: Option<bool>,
    pub stopped_run_timeout: Option<u64>,
    pub verbosity: Option<u8>,
    pub builder: Option<Builder>,
    pub registry: Option<Value>,
    pub environment: Option<Value>,
    pub base_url: Option<String>,
    pub backend: Option<String>,
    pub stop_grace: Option<u64>,
    pub timeout: Option<u64>,
    pub max_retries: Option<u32>,
    pub on_signal: Option<String>,
    pub log_max_bytes: Option<u64>,
    pub min_free_disk: Option<u64>,
    pub engine: Option<String>,
    pub network: Option<NetworkKeys>,
    pub pull_policy: Option<String>,
    pub transfer_timeout: Option<u64>,
    pub policy: Option<PolicyKeys>,
}

/// How images are built, in the keys of W&B's own agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Builder {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub destination: Option<String>,
    pub platform: Option<String>,
    pub build_context_store: Option<String>,
    pub build_job_name: Option<String>,
    pub secret_name: Option<String>,
    pub secret_key: Option<String>,
    pub kaniko_image: Option<String>,
    pub kaniko_config: Option<String>,
    #[serde(rename = "base_image")]
    pub base_image: Option<String>,
    /// Build arguments; a value may be written as a number or as true.
    #[serde(rename = "build_args")]
    pub build_args: Option<BTreeMap<String, Value>>,
    /// The seconds that a build may take.
    pub timeout: Option<u64>,
    /// Files for builds to read, by their id.
    pub secrets: Option<BTreeMap<String, PathBuf>>,
}

/// How the agent, builds and jobs reach the world.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkKeys {
    pub ca_bundle: Option<PathBuf>,
    pub proxy: Option<String>,
}

impl Builder {
    /// For `config show`; keys that were not written are left out.
    pub fn to_json(&self) -> Value {
        let Ok(Value::Object(mut all)) = serde_json::to_value(self) else {
            return Value::Null;
        };
        all.retain(|_, value| !value.is_null());
        Value::Object(all)
    }
}

/// The smallest log that can still hold a head, a mark and a tail.
const LEAST_LOG_BYTES: u64 = 10_000;

/// A hundred years. Longer is for ever, and more than clocks, and docker, can count.
const LONGEST: u64 = 3_153_600_000;

/// A time as the file has it.
pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count.min(LONGEST))
}

impl File {
    /// Reads the file's text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<File> {
        // A file of comments alone is YAML's null: the same as an empty mapping.
        let file: Option<File> =
            serde_yaml::from_str(text).map_err(|cause| yaml_error(&cause, path))?;
        let file = file.unwrap_or_default();
        if file.queue.is_some() && file.queues.is_some() {
            return Err(wrong(path, "`queue` and `queues` are both given").hint("keep one of them"));
        }
        Ok(file)
    }

    /// The queues, by either of the two keys.
    pub fn queues(&self) -> Option<Vec<String>> {
        self.queues
            .clone()
            .or_else(|| self.queue.clone().map(|queue| vec![queue]))
    }

    pub fn on_signal(&self, path: &Path) -> Result<Option<OnSignal>> {
        let Some(word) = &self.on_signal else {
            return Ok(None);
        };
        let known = OnSignal::WORDS.iter().find(|(name, _)| name == word);
        known.map(|(_, action)| Some(*action)).ok_or_else(|| {
            wrong(path, format!("`on_signal` is `{word}`"))
                .hint("it is `drain`, `stop` or `detach`")
        })
    }

    pub fn timeout(&self, path: &Path) -> Result<Option<Duration>> {
        match self.timeout {
            Some(0) => Err(wrong(path, "`timeout` is 0")
                .hint("it is the seconds that a job may run; leave it out for no limit")),
            limit => Ok(limit.map(seconds)),
        }
    }

    pub fn pull_policy(&self, path: &Path) -> Result<Option<PullPolicy>> {
        let Some(word) = &self.pull_policy else {
            return Ok(None);
        };
        let known = PullPolicy::WORDS.iter().find(|(name, _)| name == word);
        known.map(|(_, policy)| Some(*policy)).ok_or_else(|| {
            wrong(path, format!("`pull_policy` is `{word}`"))
                .hint("it is `always`, `missing` or `never`; without it, an image is pulled where that is possible")
        })
    }

    pub fn transfer_timeout(&self, path: &Path) -> Result<Option<Duration>> {
        match self.transfer_timeout {
            Some(0) => Err(wrong(path, "`transfer_timeout` is 0")
                .hint("it is how many seconds a pull or a push of an image may take")),
            limit => Ok(limit.map(seconds)),
        }
    }

    pub fn engine(&self, path: &Path) -> Result<Option<Engine>> {
        let Some(word) = &self.engine else {
            return Ok(None);
        };
        let known = Engine::WORDS.iter().find(|(name, _)| name == word);
        known.map(|(_, engine)| Some(*engine)).ok_or_else(|| {
            wrong(path, format!("`engine` is `{word}`")).hint("it is `docker` or `podman`")
        })
    }

    pub fn log_max_bytes(&self, path: &Path) -> Result<Option<u64>> {
        match self.log_max_bytes {
            Some(bytes) if bytes < LEAST_LOG_BYTES => {
                Err(wrong(path, format!("`log_max_bytes` is {bytes}"))
                    .hint(format!("the least that makes sense is {LEAST_LOG_BYTES}")))
            }
            bytes => Ok(bytes),
        }
    }

    pub fn verbosity(&self, path: &Path) -> Result<Option<u8>> {
        match self.verbosity {
            Some(level) if level > 2 => {
                Err(wrong(path, format!("`verbosity` is {level}")).hint("it is 0, 1 or 2"))
            }
            level => Ok(level),
        }
    }

    pub fn builder(&self, path: &Path) -> Result<Option<Builder>> {
        match self
            .builder
            .as_ref()
            .and_then(|builder| builder.kind.as_deref())
        {
            None | Some("docker" | "noop") => Ok(self.builder.clone()),
            Some("kaniko") => Err(wrong(
                path,
                "`builder.type` is `kaniko`, which builds inside Kubernetes",
            )
            .hint("on this machine it is `docker` (build with docker) or `noop` (build nothing)")),
            Some(other) => Err(wrong(path, format!("`builder.type` is `{other}`"))
                .hint("it is `docker` (build with docker) or `noop` (build nothing)")),
        }
    }
}

pub(super) fn wrong(path: &Path, message: impl std::fmt::Display) -> Error {
    Error::new(Kind::Config, format!("{}: {message}", path.display()))
}

/// serde's text of an unknown key lists every key there is; a person wants the line and the one they meant.
fn yaml_error(cause: &serde_yaml::Error, path: &Path) -> Error {
    let text = cause.to_string();
    let place = match cause.location() {
        Some(location) => format!("{}:{}", path.display(), location.line()),
        None => path.display().to_string(),
    };
    let mut quoted = text.split('`').skip(1).step_by(2);
    if text.contains("duplicate field") {
        // serde knows where the mapping begins, not where the key is.
        let key = quoted.next().unwrap_or_default();
        return wrong(path, format_args!("the key `{key}` is there twice"))
            .hint("keep one of them");
    }
    if !text.contains("unknown field") {
        let error = Error::new(Kind::Config, format!("{place}: {}", in_words(&text)));
        // What a key should have had is said already; that the file is no YAML at all needs another kind of help.
        return if text.contains(", expected ") {
            error
        } else {
            error.hint("it is YAML: `key: value` on each line, and below a key its own keys, indented with blanks")
        };
    }
    let key = quoted.next().unwrap_or_default();
    let known: Vec<&str> = quoted.collect();
    let error = Error::new(Kind::Config, format!("{place}: unknown key `{key}`"))
        .hint(format!("the keys are {}", known.join(", ")));
    error.closest(key, known.iter().copied())
}

/// serde's text without the place, which stands before it, and with words for the names of Rust's types.
fn in_words(text: &str) -> String {
    let text = match text.rsplit_once(" at line ") {
        Some((text, place)) if place.contains("column") => text,
        _ => text,
    };
    let Some((found, expected)) = text.rsplit_once(", expected ") else {
        return text.to_owned();
    };
    let expected = match expected {
        "i64" => "a whole number",
        "u64" | "u32" | "u8" => "a whole number that is not negative",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        expected if expected.starts_with("struct ") => "a mapping, `key: value` on each line",
        expected => expected,
    };
    let found = found
        .replace("invalid type: sequence", "invalid type: a list")
        .replace("invalid type: map", "invalid type: a mapping");
    format!("{found}, expected {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let error = File::parse(text, Path::new("c.yaml"))
            .and_then(|file| {
                file.on_signal(Path::new("c.yaml"))?;
                file.builder(Path::new("c.yaml"))?;
                file.pull_policy(Path::new("c.yaml"))?;
                file.transfer_timeout(Path::new("c.yaml"))?;
                file.engine(Path::new("c.yaml"))?;
                file.log_max_bytes(Path::new("c.yaml"))
            })
            .expect_err("a bad file");
        format!("{error} / {}", error.hint.as_deref().unwrap_or_default())
    }

    #[test]
    fn reads_every_key_of_the_reference() {
        let file = File::parse(
            "entity: me\nqueues: [a]\nmax_jobs: -1\nmax_schedulers: 2\nsecure_mode: true\nstopped_run_timeout: 30\n\
             verbosity: 1\nregistry: {type: ecr, uri: x}\nenvironment: {type: aws, region: r}\n\
             builder: {type: docker, destination: d, platform: linux/amd64, build-context-store: s, \
             build-job-name: n, secret-name: a, secret-key: b, kaniko-image: k, kaniko-config: c}\n",
            Path::new("c.yaml"),
        )
        .expect("a good file");
        assert_eq!(file.queues(), Some(vec!["a".to_owned()]));
        assert_eq!(file.max_jobs, Some(-1));
        assert_eq!(
            file.builder
                .and_then(|builder| builder.kaniko_config)
                .as_deref(),
            Some("c")
        );
    }

    #[test]
    fn an_empty_file_is_a_good_file() {
        for text in ["", "# nothing\n", "{}"] {
            assert_eq!(
                File::parse(text, Path::new("c.yaml"))
                    .expect("good")
                    .queues(),
                None,
                "{text:?}"
            );
        }
    }

    #[test]
    fn errors_name_file_line_and_the_closest_key() {
        for (text, message) in [
            (
                "queues: [a]\nmax_job: 2\n",
                "c.yaml:2: unknown key `max_job` / did you mean `max_jobs`?",
            ),
            (
                "builder:\n  typ: docker\n",
                "c.yaml:2: unknown key `typ` / did you mean `type`?",
            ),
            (
                "queues: [a]\nmax_jobs: 1\nmax_jobs: 2\n",
                "c.yaml: the key `max_jobs` is there twice / keep one of them",
            ),
            (
                "[1, 2]",
                "c.yaml:1: invalid type: a list, expected a mapping, `key: value` on each line / ",
            ),
            (
                "entity: x\nmax_jobs: lots\n",
                "c.yaml:2: max_jobs: invalid type: string \"lots\", expected a whole number / ",
            ),
            (
                "stop_grace: -1\n",
                "c.yaml:1: stop_grace: invalid type: integer `-1`, expected a whole number that is not negative / ",
            ),
            (
                "policy: [a]\n",
                "c.yaml:1: policy: invalid type: a list, expected a mapping, `key: value` on each line / ",
            ),
            (
                "secure_mode: 1\n",
                "c.yaml:1: secure_mode: invalid type: integer `1`, expected true or false / ",
            ),
            (
                "entity: x\n  bad: [1,\n",
                "c.yaml:2: mapping values are not allowed in this context / it is YAML: `key: value` on each line, and below a key its own keys, indented with blanks",
            ),
            (
                "queue: a\nqueues: [b]\n",
                "c.yaml: `queue` and `queues` are both given / keep one of them",
            ),
            (
                "on_signal: die\n",
                "c.yaml: `on_signal` is `die` / it is `drain`, `stop` or `detach`",
            ),
            (
                "engine: runc\n",
                "c.yaml: `engine` is `runc` / it is `docker` or `podman`",
            ),
            (
                "pull_policy: sometimes\n",
                "c.yaml: `pull_policy` is `sometimes` / it is `always`, `missing` or `never`; without it, an image is pulled where that is possible",
            ),
            (
                "transfer_timeout: 0\n",
                "c.yaml: `transfer_timeout` is 0 / it is how many seconds a pull or a push of an image may take",
            ),
            (
                "log_max_bytes: 5\n",
                "c.yaml: `log_max_bytes` is 5 / the least that makes sense is 10000",
            ),
        ] {
            assert_eq!(error(text), message);
        }
        assert!(
            error("max_jobs: [\n").starts_with("c.yaml:"),
            "{}",
            error("max_jobs: [\n")
        );
        assert!(
            error("max_jobs: many\n").starts_with("c.yaml:1: max_jobs: invalid type"),
            "{}",
            error("max_jobs: many\n")
        );
        assert!(error("builder: {type: kaniko}\n").contains("Kubernetes"));
    }
}
