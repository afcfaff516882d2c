//! What a job may use: time from the start of its container, and the disk for its image.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Event, Job, REPORT_EVERY};
use crate::failure::Result;
use crate::host::journal;
use crate::host::logs::JobLog;
use crate::launch::spec::LaunchSpec;
use crate::queue::{SetBy, StopReason};

impl Job {
    /// The time that the job has from the start of its container, or `None` while nothing of it runs.
    pub(super) fn limit(&self, started: Option<&journal::Started>) {
        let limit = started.and_then(|started| {
            let (seconds, set_by) = self.time_limit()?;
            let ran = Timestamp::now().duration_since(started.at);
            let ran = Duration::try_from(ran).unwrap_or_default();
            let left = Duration::from_secs(seconds).saturating_sub(ran);
            Some((
                Instant::now().checked_add(left)?,
                StopReason::TimeLimit { seconds, set_by },
            ))
        });
        self.stop.limit(limit);
        if limit.is_some() {
            let _ = self.events.send(Event::LimitSet);
        }
    }

    /// What the job asked for, and at most what the agent's owner allows.
    fn time_limit(&self) -> Option<(u64, SetBy)> {
        let (spec, _) = LaunchSpec::parse(&self.entry.spec).ok()?;
        let own = spec.timeout.map(|seconds| (seconds, SetBy::Job));
        let owners = self.shared.config.timeout.value;
        let owners = owners.map(|limit| (limit.as_secs(), SetBy::Owner));
        own.into_iter()
            .chain(owners)
            .min_by_key(|(seconds, _)| *seconds)
    }

    /// There was room when the item was taken, and other jobs may have built and pulled since.
    pub(super) fn wait_for_room(&self, log: &mut JobLog) -> Result<()> {
        let mut said = false;
        while let Some(folder) = self.shared.disks.full() {
            if !std::mem::replace(&mut said, true) {
                let why = format!(
                    "the disk of {} has less free than `min_free_disk`: the image is built when it has more",
                    folder.display()
                );
                self.note_warnings(&[why], log);
            }
            self.stop.pause(REPORT_EVERY)?;
        }
        Ok(())
    }
}
