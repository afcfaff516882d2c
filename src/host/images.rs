//! Brings the image of a job to this machine, as its plan says.

pub mod pull;
pub mod push;
mod transfer;
mod trouble;
pub mod turns;

pub use trouble::Trouble;

use crate::failure::Result;
use crate::host::logs::JobLog;
use crate::host::stop::Stop;
use crate::launch::plan::ImagePlan;

/// Makes sure that the image of the job is on this machine. Gives what the job's owner should know, a sentence each.
pub fn provide(plan: &ImagePlan, log: &mut JobLog, stop: &Stop) -> Result<Vec<String>> {
    match plan {
        ImagePlan::Pull { policy, transfer } => pull::provide(*policy, transfer, log, stop),
        ImagePlan::LeftToDocker => Ok(Vec::new()),
    }
}
