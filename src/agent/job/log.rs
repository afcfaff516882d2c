//! A job's log, new or left by an earlier process.

use std::path::PathBuf;
use std::sync::Arc;

use super::Job;
use crate::agent::decide::{file_name, needs_code};
use crate::failure::Result;
use crate::host::journal::Step;
use crate::host::logs::{JobLog, LogFile, Redactor, TerminalLines};
use crate::launch::command::Secret;
use crate::launch::policy::{Policy, Preset};
use crate::launch::spec::LaunchSpec;

impl Job {
    /// The log: a new one, or the one that an earlier process left.
    pub(super) fn open_log(&self) -> Result<JobLog> {
        let config = &self.shared.config;
        let (path, most) = (self.log_path(), config.log_max_bytes.value);
        let terminal = TerminalLines::new(Arc::clone(&self.shared.terminal), &self.item.0);
        let redactor = Redactor::new(&self.secrets());
        if self.entry.step == Step::Taken {
            return Ok(JobLog::new(
                redactor,
                LogFile::create(&path, most)?,
                terminal,
            ));
        }
        let file = LogFile::resume(&path, most)?;
        let from = self.entry.started.as_ref().map(|started| started.log_from);
        let from = from.unwrap_or(file.position());
        JobLog::resume(redactor, file, terminal, from)
    }

    /// What the log must not show. A plan that cannot be made any more does not end a job that runs: then at least the
    /// keys are known.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        if let Some(plan) = &self.plan {
            return plan.secrets.clone();
        }
        let Ok((mut spec, _)) = LaunchSpec::parse(&self.entry.spec) else {
            return self.keys(None);
        };
        if needs_code(&spec) {
            // What is secret does not depend on the image, which only the code can tell.
            spec.image = Some("code".to_owned());
        }
        // Nor on what the owner has refused since a job was started that still runs.
        let mut config = self.shared.config.clone();
        config.policy.settled = Policy::of(Preset::Open);
        config.secure_mode.value = false;
        match self.decide_by(&config, &spec, None) {
            Ok(plan) => plan.secrets,
            Err(_) => self.keys(spec.api_key),
        }
    }

    /// The keys that are known without a plan.
    fn keys(&self, submitters: Option<Secret>) -> Vec<Secret> {
        let own = self.shared.config.api_key.iter();
        own.map(|key| key.value.clone()).chain(submitters).collect()
    }

    pub(super) fn log_path(&self) -> PathBuf {
        let name = format!("{}.log", file_name(&self.entry.item));
        self.shared.logs_folder.join(name)
    }
}
