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

/// What this process knows of registries, for all jobs.
#[derive(Debug, Default)]
struct Memory {
    /// When a registry could last not be reached, by its host.
    away: BTreeMap<String, Instant>,
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
        if let Some(refused) = carry_out(pull, Trials::One, log, stop)? {
            if refused.trouble == Trouble::Unreachable {
                leave_alone(&host);
            }
            warning = say_once(&pull.image, &refused.error.message);
        }
        Ok(())
    })?;
    Ok(warning.into_iter().collect())
}

/// What is the same work: the same image for the same platform.
fn key(pull: &Transfer) -> String {
    pull.command.to_string()
}

fn is_left_alone(host: &str) -> bool {
    let since = memory().away.get(host).map(Instant::elapsed);
    since.is_some_and(|since| since < LEFT_ALONE)
}

fn leave_alone(host: &str) {
    memory().away.insert(host.to_owned(), Instant::now());
    log::warn!(
        "the registry `{host}` cannot be reached: images of it that are on this machine are used as they are for the next {} minutes",
        LEFT_ALONE.as_secs() / 60
    );
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
