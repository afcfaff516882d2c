//! Runs a pull or a push: logs in where that is ours to do, tries again what is worth it, and ends what takes too long.

use std::collections::VecDeque;

use super::trouble::Trouble;
use crate::failure::{Error, Kind, Result};
use crate::host::engine;
use crate::host::logs::JobLog;
use crate::host::process::{self, Ending};
use crate::host::registry;
use crate::host::stop::{Activity, Stop};
use crate::launch::transfer::Transfer;

/// How much of docker's words is looked at for the reason of a failure.
const REMEMBERED: usize = 4096;

/// A registry's refusal.
#[derive(Debug)]
pub struct Refused {
    /// What it means.
    pub trouble: Trouble,
    /// What a person reads: docker's words, and what to do.
    pub error: Error,
}

/// May a refusal that is worth it be tried again?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trials {
    /// There is another way, which is better than to wait.
    One,
    /// There is no other way.
    Several,
}

/// Carries out a transfer; `None` when it succeeded. An error is about this machine: the engine, or a stop.
pub fn carry_out(
    transfer: &Transfer,
    trials: Trials,
    log: &mut JobLog,
    stop: &Stop,
) -> Result<Option<Refused>> {
    let mut renew_login = false;
    for trial in 1.. {
        stop.check()?;
        let mut is_new = true;
        if let Some(login) = &transfer.login {
            match registry::ensure_login(login, renew_login, log, stop) {
                Ok(new) => is_new = new,
                Err(error) => {
                    stop.check()?;
                    let trouble = Trouble::Denied;
                    return Ok(Some(Refused { trouble, error }));
                }
            }
        }
        let Some(refused) = attempt(transfer, log, stop)? else {
            return Ok(None);
        };
        // A token can end before its time: somebody revoked it, or changed what its account may do.
        if refused.trouble == Trouble::Denied && !is_new && !renew_login {
            renew_login = true;
            continue;
        }
        let pause = match trials {
            Trials::One => None,
            Trials::Several => refused.trouble.pause_before(trial + 1),
        };
        let Some(pause) = pause else {
            return Ok(Some(refused));
        };
        log.note(format_args!(
            "[launch-agent: trying again in {} s]",
            pause.as_secs()
        ));
        stop.pause(pause)?;
    }
    Ok(None)
}

fn attempt(transfer: &Transfer, log: &mut JobLog, stop: &Stop) -> Result<Option<Refused>> {
    let command = &transfer.command;
    let mut said: VecDeque<u8> = VecDeque::new();
    log.note(command);
    let ending = process::stream_within(
        command,
        transfer.limit,
        |group| stop.now(Activity::Command(group)),
        |bytes| {
            said.extend(bytes);
            said.drain(..said.len().saturating_sub(REMEMBERED));
            log.output(bytes);
        },
    );
    stop.now(Activity::Between);
    stop.check()?;
    let Some(ending) = ending? else {
        let seconds = transfer.limit.as_secs();
        let error = Error::new(
            Kind::Input,
            format!("it was not done after {seconds} s and was ended"),
        );
        return Ok(Some(Refused {
            trouble: Trouble::Other,
            error: error.hint("`transfer_timeout` in launch-config.yaml sets how long it may take"),
        }));
    };
    if ending == Ending::Code(0) {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(said.make_contiguous()).into_owned();
    let why = match last_line(&said) {
        Some(line) => engine::explain(line),
        None => format!("docker gave no reason ({ending})"),
    };
    let trouble = Trouble::of(&why);
    let error = trouble.error(&transfer.image, transfer.login.as_ref(), &why);
    if trouble == Trouble::Engine {
        return Err(error);
    }
    Ok(Some(Refused { trouble, error }))
}

/// Docker's reason is its last line; what comes before is progress.
fn last_line(said: &str) -> Option<&str> {
    said.lines().rev().find(|line| !line.trim().is_empty())
}
