//! Brings an image from this machine to a registry.

use super::transfer::{Trials, carry_out};
use super::turns;
use crate::failure::Result;
use crate::host::logs::JobLog;
use crate::host::stop::Stop;
use crate::launch::transfer::Transfer;

/// Pushes an image that is on this machine; once for all jobs that want it pushed at the same time.
pub fn push(push: &Transfer, log: &mut JobLog, stop: &Stop) -> Result<()> {
    turns::once(&push.command.to_string(), stop, || {
        match carry_out(push, Trials::Several, log, stop)? {
            None => Ok(()),
            Some(refused) => Err(refused.error.within(format_args!(
                "the image `{}` could not be pushed",
                push.image
            ))),
        }
    })
}
