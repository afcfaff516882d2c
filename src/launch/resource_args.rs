//! The queue's config and a job's `resource_args`, made into docker's options. Pure.
//!
//! Each key is an option of `docker run`. What a value may be depends on what the option takes, and everything else
//! is refused here: a value that docker would read in another way than its author could move the image from its
//! place on the line.

mod merge;
mod reader;
mod refusal;

use serde_json::Value;

use crate::failure::{Error, Result};
use crate::launch::docker_options::{Kind, KnownOption, OptionTable, plain};
use crate::launch::spec::Object;
pub use merge::merge;
use reader::{Reader, nul};

/// One option as it stands on the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerOption {
    /// The one name for all spellings: `env` for `e`, `network` for `net`.
    pub name: String,
    /// As it is written on the line: `--env` or `-e`.
    pub spelling: String,
    /// What it is given.
    pub given: Given,
}

/// What an option is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// `true` for an option without value is the bare option, `false` is `--option=false`.
    Flag(bool),
    /// A value, as the next word of the line.
    Value(String),
}

impl DockerOption {
    /// An option by its long name, with a value.
    pub fn with_value(name: &str, value: &str) -> Self {
        DockerOption {
            name: name.to_owned(),
            spelling: format!("--{name}"),
            given: Given::Value(value.to_owned()),
        }
    }

    /// The words on the line.
    pub fn words(&self) -> Vec<String> {
        match &self.given {
            Given::Flag(true) => vec![self.spelling.clone()],
            Given::Flag(false) => vec![format!("{}=false", self.spelling)],
            Given::Value(value) => vec![self.spelling.clone(), value.clone()],
        }
    }

    /// The value, when it is given one.
    pub fn value(&self) -> Option<&str> {
        match &self.given {
            Given::Value(value) => Some(value),
            Given::Flag(_) => None,
        }
    }
}

/// Why a config cannot be made into options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionError {
    /// The table does not know this option. The installed docker may: ask its `docker run --help`, extend the table
    /// and try again; the error is for when it does not know it either.
    Unknown(Error),
    /// Anything else, which a larger table does not change.
    Wrong(Error),
}

impl From<Error> for OptionError {
    fn from(error: Error) -> Self {
        OptionError::Wrong(error)
    }
}

impl From<OptionError> for Error {
    fn from(error: OptionError) -> Self {
        match error {
            OptionError::Unknown(error) | OptionError::Wrong(error) => error,
        }
    }
}

/// Gives the text of the installed docker's `docker run --help`; `None` when there is no docker to ask.
pub type Ask<'a> = &'a dyn Fn() -> Option<String>;

/// [`options`] of docker 28, and of the installed docker: it is asked before an option is refused, because it may be
/// newer, and only then, because the question costs a process.
pub fn options_or_ask(config: &Object, ask: Ask<'_>) -> Result<Vec<DockerOption>> {
    let table = OptionTable::docker_28();
    match options(config, &table) {
        Err(OptionError::Unknown(error)) => {
            let help = ask().ok_or(error)?;
            Ok(options(config, &table.with_help(&help))?)
        }
        answer => Ok(answer?),
    }
}

/// Makes a config into options, in its order.
///
/// An option with a one-letter name keeps the letter when that is how it is written. The key `builder` is about
/// building images and no option of docker: it is passed over.
pub fn options(config: &Object, table: &OptionTable) -> Result<Vec<DockerOption>, OptionError> {
    let mut options: Vec<DockerOption> = Vec::new();
    let mut once: Vec<(String, &str)> = Vec::new();
    for (key, value) in config {
        if value.is_null() || key == "builder" {
            continue;
        }
        let known = known(key, value, table)?;
        let name = table.canonical(key);
        if let Some(reason) = refusal::owned_by_agent(&name) {
            return Err(agents_own(key, reason));
        }
        if matches!(known.kind, Kind::Flag | Kind::Value) {
            if let Some((_, other)) = once.iter().find(|(seen, _)| *seen == name) {
                return Err(Error::input(format!(
                    "`{other}` and `{key}` are the same option, which docker takes once"
                ))
                .hint("keep one of them")
                .into());
            }
            once.push((name.clone(), key));
        }
        let written = plain(key);
        let dashes = if written.chars().count() == 1 {
            "-"
        } else {
            "--"
        };
        let reader = Reader { key, known };
        for given in reader.read(value)? {
            let option = DockerOption {
                name: name.clone(),
                spelling: format!("{dashes}{written}"),
                given,
            };
            let value = option.value().unwrap_or_default();
            if let Some(reason) = refusal::value_owned_by_agent(&name, value) {
                return Err(agents_own(key, reason));
            }
            options.push(option);
        }
    }
    Ok(options)
}

fn agents_own(key: &str, reason: &str) -> OptionError {
    Error::input(format!(
        "the option `{key}` cannot be set by a queue: {reason}"
    ))
    .hint("take it out of the config")
    .into()
}

fn known<'a>(
    key: &str,
    value: &Value,
    table: &'a OptionTable,
) -> Result<&'a KnownOption, OptionError> {
    if plain(key).is_empty() {
        return Err(Error::input(format!("`{key}` is no option's name")).into());
    }
    if key.contains('\0') {
        return Err(nul(key).into());
    }
    if value.is_object() && refusal::is_wrapping(key) {
        return Err(Error::input(format!("`{key}` is not an option of `docker run`"))
            .hint(format!(
                r#"a queue config is the options themselves: write {{"rm": true}}, not {{"{key}": {{"rm": true}}}}"#
            ))
            .into());
    }
    table.find(key).ok_or_else(|| {
        let error = Error::input(format!("`{key}` is not an option of `docker run`"));
        OptionError::Unknown(error.closest(&plain(key).to_lowercase(), table.names()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(config: &Value) -> Result<String, OptionError> {
        let config = config.as_object().expect("an object");
        let words: Vec<String> = options(config, &OptionTable::docker_28())?
            .iter()
            .flat_map(DockerOption::words)
            .collect();
        Ok(words.join(" "))
    }

    #[test]
    fn options_are_written_as_the_config_has_them() {
        for (config, expected) in [
            (
                json!({"env": ["MY_ENV_VAR=value", "MY_EXISTING_ENV_VAR"], "volume": "/mnt/datasets:/mnt/datasets", "rm": true, "gpus": "all"}),
                "--env MY_ENV_VAR=value --env MY_EXISTING_ENV_VAR --volume /mnt/datasets:/mnt/datasets --rm --gpus all",
            ),
            (
                json!({"e": ["A=1"], "v": "/a:/a", "P": true, "m": "1g"}),
                "-e A=1 -v /a:/a -P -m 1g",
            ),
            (
                json!({"--shm_size": "1g", "-e": "A", " cpus ": 2}),
                "--shm-size 1g -e A --cpus 2",
            ),
            (
                json!({"init": false, "P": false, "rm": null}),
                "--init=false -P=false",
            ),
            (
                json!({"env": {"A": 1, "B": null, "C": true, "D": ""}}),
                "--env A=1 --env B --env C=true --env D=",
            ),
            (
                json!({"ulimit": {"nofile": 1024}, "label": {"a": null}}),
                "--ulimit nofile=1024 --label a",
            ),
            (
                json!({"env": [], "cpus": [2], "builder": {"type": "noop"}}),
                "--cpus 2",
            ),
            (
                json!({"net": "a", "network": ["b", "c"]}),
                "--net a --network b --network c",
            ),
            (json!({"e": "A", "env": "B"}), "-e A --env B"),
        ] {
            assert_eq!(line(&config).expect("good options"), expected, "{config}");
        }
    }

    #[test]
    fn refuses_what_docker_would_read_in_another_way() {
        for (config, message, hint) in [
            (
                json!({"rm": "someimage"}),
                "`rm` is true or false, not a string",
                "",
            ),
            (
                json!({"privileged": "true"}),
                "`privileged` is true or false, not a string",
                "write true without quotes",
            ),
            (
                json!({"init": 1}),
                "`init` is true or false, not a number",
                "",
            ),
            (
                json!({"init": [true]}),
                "`init` is true or false, not a list",
                "",
            ),
            (
                json!({"gpus": true}),
                "`gpus` takes a value, not true or false",
                r#"such as "gpus": "all""#,
            ),
            (
                json!({"env": [true]}),
                "`env` takes a value, not true or false",
                r#"such as "env": ["A=1", "B=2"] or "env": {"A": 1, "B": 2}"#,
            ),
            (
                json!({"cpus": [1, 2]}),
                "`cpus` takes one value, but the list has 2",
                "docker would take the last; keep one",
            ),
            (
                json!({"m": "1g", "memory": "2g"}),
                "`m` and `memory` are the same option, which docker takes once",
                "keep one of them",
            ),
            (
                json!({"env": [{"A": 1}]}),
                "`env` takes text or a number, not an object",
                r#"such as "env": ["A=1", "B=2"] or "env": {"A": 1, "B": 2}"#,
            ),
            (
                json!({"env": [["A=1"]]}),
                "`env` takes text or a number, not a list",
                r#"such as "env": ["A=1", "B=2"] or "env": {"A": 1, "B": 2}"#,
            ),
            (
                json!({"env": {"A": [1]}}),
                "`env.A` takes text, a number, true or false, not a list",
                "",
            ),
            (
                json!({"env": {"A=B": 1}}),
                "`env.A=B`: a name is not empty and has no `=`",
                "",
            ),
            (
                json!({"sysctl": {"a": null}}),
                "`sysctl.a` is null, but `sysctl` always takes a value",
                "",
            ),
            (
                json!({"mount": {"type": "bind"}}),
                "`mount` takes text or a number, not an object",
                r#"such as "mount": "type=bind,source=/host,target=/container""#,
            ),
            (
                json!({"hostname": {"a": "b"}}),
                "`hostname` takes text or a number, not an object",
                r#"write its value as text: "hostname": "..""#,
            ),
            (
                json!({"env": "a\u{0}b"}),
                "`env` holds a NUL character, which no program can be given",
                "",
            ),
            (
                json!({"a\u{0}b": 1}),
                "`a\\0b` holds a NUL character, which no program can be given",
                "",
            ),
            (json!({"": 1}), "`` is no option's name", ""),
            (json!({"--": 1}), "`--` is no option's name", ""),
            (
                json!({"local-container": {"rm": true}}),
                "`local-container` is not an option of `docker run`",
                r#"a queue config is the options themselves: write {"rm": true}, not {"local-container": {"rm": true}}"#,
            ),
        ] {
            let Err(OptionError::Wrong(error)) = line(&config) else {
                panic!("not refused: {config}");
            };
            assert_eq!(error.message, message);
            assert_eq!(error.hint.as_deref().unwrap_or(""), hint, "{config}");
        }
    }

    #[test]
    fn an_unknown_option_is_an_error_of_its_own() {
        let Err(OptionError::Unknown(error)) = line(&json!({"SHM_SIZ": "1g"})) else {
            panic!("not unknown");
        };
        assert_eq!(error.message, "`SHM_SIZ` is not an option of `docker run`");
        assert_eq!(error.hint.as_deref(), Some("did you mean `shm-size`?"));
    }

    #[test]
    fn docker_is_not_told_to_run_a_job_again() {
        for policy in ["always", "unless-stopped", "on-failure", "on-failure:3"] {
            let error = Error::from(line(&json!({"restart": policy})).expect_err(policy));
            let start =
                "the option `restart` cannot be set by a queue: docker would run a job again";
            assert!(error.message.starts_with(start), "{}", error.message);
        }
        let off = line(&json!({"restart": "no"}));
        assert_eq!(off.expect("a good option"), "--restart no");
    }

    #[test]
    fn the_agents_own_options_are_refused_with_a_reason() {
        for key in [
            "detach",
            "d",
            "cidfile",
            "interactive",
            "i",
            "tty",
            "t",
            "attach",
            "a",
            "sig-proxy",
            "help",
        ] {
            let error = Error::from(line(&json!({key: true})).expect_err("the agent's own"));
            let start = format!("the option `{key}` cannot be set by a queue: ");
            assert!(error.message.len() > start.len() + 20);
            assert!(error.message.starts_with(&start), "{}", error.message);
        }
    }
}
