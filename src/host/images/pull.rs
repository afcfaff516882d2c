//! Brings an image from a registry to this machine, as its policy says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::transfer::{Trials, carry_out};
use super::trouble::Trouble;
use super::turns;
use crate::failure::{Error, Kind, Result};
use crate::host::engine::{self, LocalImage};
use crate::host::logs::JobLog;
use crate::host::stop::Stop;
use crate::launch::registry::Registry;
use crate::launch::transfer::{PullPolicy, Transfer};

/// How long a registry that could not be reached is left alone where an image of it is here: on a machine without a
/// way to it, each job would wait for docker to give up.
const LEFT_ALONE: Duration = Duration::from_secs(300);

/// Each time in a row it is left alone twice as long, and at most this long.
const LEFT_ALONE_AT_MOST: Duration = Duration::from_secs(3600);

/// What this process knows of registries, for all jobs.
#[derive(Debug, Default)]
struct Memory {
    /// The registries that could not be reached, by their hosts: when that was, and how long each is left alone.
    away: BTreeMap<String, (Instant, Duration)>,
    /// The images for which it was said that the local one is used.
    said: BTreeSet<String>,
}

static MEMORY: LazyLock<Mutex<Memory>> = LazyLock::new(Mutex::default);

fn memory() -> MutexGuard<'static, Memory> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes sure that the image is on this machine. Gives what the job's owner should know, a sentence each.
pub fn provide(
    policy: PullPolicy,
    pull: &Transfer,
    log: &mut JobLog,
    stop: &Stop,
) -> Result<Vec<String>> {
    let local = engine::local_image(&pull.image)?;
    match (policy, local) {
        (PullPolicy::Never, None) => Err(Error::new(
            Kind::Input,
            format!(
                "the image `{}` is not on this machine, and `pull_policy` is `never`",
                pull.image
            ),
        )
        .hint(format!("bring it here: `{}`", pull.command))),
        (PullPolicy::Never | PullPolicy::Missing, Some(_)) => Ok(Vec::new()),
        (PullPolicy::IfPossible, Some(local)) if is_final(&pull.image, &local) => Ok(Vec::new()),
        (PullPolicy::IfPossible, Some(_)) => pull_or_use_local(pull, log, stop),
        (PullPolicy::Always, local) => must_pull(pull, local.is_some(), log, stop),
        (PullPolicy::Missing | PullPolicy::IfPossible, None) => must_pull(pull, false, log, stop),
    }
}

/// Can no registry have another one under this name? A digest names one content. And a name with neither registry nor
/// user is one of Docker's official images, which an image that was never in a registry is not: it was made or loaded
/// here.
fn is_final(image: &str, local: &LocalImage) -> bool {
    image.contains('@')
        || (!local.is_of_a_registry() && (!image.contains('/') || local.is_of_the_agent()))
}

fn must_pull(pull: &Transfer, is_here: bool, log: &mut JobLog, stop: &Stop) -> Result<Vec<String>> {
    turns::once(&key(pull), stop, || {
        let Some(refused) = carry_out(pull, Trials::Several, log, stop)? else {
            return Ok(());
        };
        let what = if is_here {
            "could not be pulled, and `pull_policy` is `always`"
        } else {
            "is not on this machine and could not be pulled"
        };
        let place = format!("the image `{}` {what}", pull.image);
        Err(refused.error.within(place))
    })?;
    Ok(Vec::new())
}

fn pull_or_use_local(pull: &Transfer, log: &mut JobLog, stop: &Stop) -> Result<Vec<String>> {
    let host = Registry::of_image(&pull.image).host;
    let mut warning = None;
    turns::once(&key(pull), stop, || {
        if is_left_alone(&host) {
            warning = say_once(
                &pull.image,
                "its registry could not be reached a moment ago",
            );
            return Ok(());
        }
        let refused = carry_out(pull, Trials::One, log, stop)?;
        let is_away = refused.as_ref().map(|refused| refused.trouble) == Some(Trouble::Unreachable);
        if is_away {
            leave_alone(&host);
        } else {
            memory().away.remove(&host);
        }
        warning = refused.and_then(|refused| say_once(&pull.image, &refused.error.message));
        Ok(())
    })?;
    Ok(warning.into_iter().collect())
}

/// What is the same work: the same image for the same platform.
fn key(pull: &Transfer) -> String {
    pull.command.to_string()
}

fn is_left_alone(host: &str) -> bool {
    let memory = memory();
    let away = memory.away.get(host);
    away.is_some_and(|(since, length)| since.elapsed() < *length)
}

/// Said the first time alone: a machine without a network has it every time.
fn leave_alone(host: &str) {
    let mut memory = memory();
    let before = memory.away.get(host).map(|(_, length)| *length);
    let length = before.map_or(LEFT_ALONE, |length| (length * 2).min(LEFT_ALONE_AT_MOST));
    memory
        .away
        .insert(host.to_owned(), (Instant::now(), length));
    if before.is_none() {
        log::warn!(
            "the registry `{host}` cannot be reached: images of it that are on this machine are used as they are, and it is asked again in {} minutes",
            length.as_secs() / 60
        );
    }
}

/// That the local image is used; `None` when it was said before.
fn say_once(image: &str, why: &str) -> Option<String> {
    let is_new = memory().said.insert(image.to_owned());
    is_new.then(|| {
        format!(
            "the image `{image}` could not be pulled, so the one on this machine is used: {why}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_stays_away_is_left_alone_longer_and_longer() {
        let host = "registry.invalid";
        assert!(!is_left_alone(host));
        let minutes: Vec<u64> = (0..6)
            .map(|_| {
                leave_alone(host);
                assert!(is_left_alone(host));
                memory().away[host].1.as_secs() / 60
            })
            .collect();
        assert_eq!(minutes, [5, 10, 20, 40, 60, 60]);
        memory()
            .away
            .insert(host.to_owned(), (Instant::now(), Duration::ZERO));
        assert!(!is_left_alone(host), "its time is over");
    }

    #[test]
    fn an_image_that_was_made_here_is_final_unless_its_name_is_somebodys() {
        let local = |digests: &str, labels: &str| {
            let text = format!(r#"{{"digests":{digests},"labels":{labels}}}"#);
            serde_json::from_str::<LocalImage>(&text).expect("an image")
        };
        let made = local("[]", "null");
        let labelled = local("null", r#"{"launch-agent.example": "job"}"#);
        let pulled = local(
            r#"["train@sha256:aa"]"#,
            r#"{"launch-agent.example": "job"}"#,
        );
        for (image, local, expected) in [
            ("train:1", &made, true),
            ("me/train:1", &made, false),
            ("localhost:5000/train:1", &made, false),
            ("me/train:1", &labelled, true),
            ("train:1", &pulled, false),
            ("me/train@sha256:aa", &pulled, true),
        ] {
            assert_eq!(is_final(image, local), expected, "{image}");
        }
    }
}
