//! What can go wrong, in two forms: [`Error`] for the person at the terminal, with the exit code that its
//! [`Kind`] means, and [`Failure`] for a job, which says at which [`Stage`] it failed.
//!
//! A `Failure` is made by [`AtStage::at`] alone: there is no `From`, so that a bare `?` in the one function that
//! tells a job's story does not compile, and no stage can be forgotten.

use std::fmt;

/// The result of everything that can go wrong outside a job's own story.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error is about. Each kind is one exit code of the program; the table is in the README and in `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A wrong flag, spec, queue config, template value or other input.
    Input,
    /// The agent's own configuration: `launch-config.yaml`, the environment, no queue backend chosen.
    Config,
    /// Docker is not installed, does not answer, or refuses this user.
    Docker,
    /// The queue cannot be read or written: database locked, damaged or newer, disk full.
    Queue,
    /// A queue or an item that does not exist.
    NotFound,
    /// Anything else that the machine refused: a file that cannot be written, a thread that cannot start.
    System,
}

impl Kind {
    /// The exit code of the program when it ends with an error of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::System => 1,
            Kind::Input => 2,
            Kind::Config => 3,
            Kind::Docker => 4,
            Kind::Queue => 5,
            Kind::NotFound => 6,
        }
    }
}

/// One error, as a person reads it: a lower-case fragment that names the thing and the place, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What the error is about, and so the exit code.
    pub kind: Kind,
    /// What is wrong and where. No period at the end; backquotes round what a person typed or could type.
    pub message: String,
    /// What to do about it, where there is something to do. Printed on a line of its own after `hint: `.
    pub hint: Option<String>,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    /// A wrong flag, file or value that a person gave.
    pub fn input(message: impl Into<String>) -> Self {
        Error::new(Kind::Input, message)
    }

    /// The machine refused something: `what` was attempted, `cause` came back.
    pub fn system(what: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Error::new(Kind::System, format!("{what}: {cause}"))
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts the place in front: `place: message`.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Adds ``the closest known name`` as the hint, when one of `known` resembles `wrong`.
    #[must_use]
    pub fn closest<'a>(self, wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match closest(wrong, known).as_slice() {
            [] => self,
            [one] => self.hint(format!("did you mean `{one}`?")),
            several => self.hint(format!("did you mean one of `{}`?", several.join("`, `"))),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Up to three of `known` that resemble `wrong`, the most alike first.
fn closest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut near: Vec<(f64, &str)> = known
        .into_iter()
        .map(|name| {
            (
                strsim::jaro_winkler(&wrong.to_lowercase(), &name.to_lowercase()),
                name,
            )
        })
        .filter(|(likeness, _)| *likeness > 0.8)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Where in a job's life it failed, in the words of W&B's `failRunQueueItem`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading the spec, the policy, fetching the source: before anything was run for the job.
    Agent,
    /// Providing the image: a pull or a build.
    Build,
    /// Docker refused to run the container, or it ended in a way that is not the job's own exit.
    Run,
}

impl Stage {
    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Agent => "agent",
            Stage::Build => "build",
            Stage::Run => "run",
        }
    }

    /// The stage of that word.
    pub fn named(word: &str) -> Option<Stage> {
        [Stage::Agent, Stage::Build, Stage::Run]
            .into_iter()
            .find(|stage| stage.as_str() == word)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A job that could not be run: the stage, and the cause for its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Where it failed.
    pub stage: Stage,
    /// Why, and what its owner can do.
    pub cause: Error,
}

impl Failure {
    /// The same in other words.
    #[must_use]
    pub fn map_text(self, change: impl Fn(&str) -> String) -> Failure {
        let cause = Error {
            message: change(&self.cause.message),
            hint: self.cause.hint.as_deref().map(change),
            ..self.cause
        };
        Failure { cause, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed at stage {}: {}", self.stage, self.cause)
    }
}

/// The one way to make a [`Failure`].
pub trait AtStage<T> {
    /// Names the stage that an error belongs to.
    fn at(self, stage: Stage) -> std::result::Result<T, Failure>;
}

impl<T> AtStage<T> for Result<T> {
    fn at(self, stage: Stage) -> std::result::Result<T, Failure> {
        self.map_err(|cause| Failure { stage, cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_names_come_most_alike_first() {
        let known = [
            "memory",
            "memory-swap",
            "memory-reservation",
            "gpus",
            "shm-size",
        ];
        assert_eq!(
            closest("memoryswap", known),
            ["memory-swap", "memory", "memory-reservation"]
        );
        assert_eq!(closest("gpu", known), ["gpus"]);
        assert_eq!(closest("GPUS", known), ["gpus"]);
        assert!(closest("zzz", known).is_empty());
    }

    #[test]
    fn each_kind_has_an_exit_code_of_its_own() {
        let kinds = [
            Kind::System,
            Kind::Input,
            Kind::Config,
            Kind::Docker,
            Kind::Queue,
            Kind::NotFound,
        ];
        let codes: std::collections::BTreeSet<u8> =
            kinds.iter().map(|kind| kind.exit_code()).collect();
        assert_eq!(codes.len(), kinds.len());
        assert!(!codes.contains(&0));
    }
}
