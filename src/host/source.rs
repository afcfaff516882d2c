//! Brings the code of a job to this machine: into a scratch folder that is the job's alone. What the job is and where
//! it comes from is decided already.

mod cache;
mod files;
mod git;
mod notebook;
mod scratch;
pub mod snapshot;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

pub use cache::Cache;
pub use git::pin;
pub use scratch::{Scratch, sweep};

use crate::failure::{Error, Kind, Result};
use crate::host::files::spell_size;
use crate::host::logs::JobLog;
use crate::host::stop::Stop;
use crate::launch::job::{Job, Source, deciding_files};
use crate::launch::network::Network;

/// The most that the code of a job may be, in bytes and files: more is data that was left in the folder.
pub const MOST_BYTES: u64 = 4 << 30;
const MOST_FILES: usize = 100_000;

/// Who hears what is done for a job before it runs.
pub trait Progress {
    /// A line of the agent's own.
    fn note(&mut self, line: &dyn Display);
    /// What a command prints.
    fn output(&mut self, bytes: &[u8]);
}

impl Progress for JobLog {
    fn note(&mut self, line: &dyn Display) {
        JobLog::note(self, line);
    }

    fn output(&mut self, bytes: &[u8]) {
        JobLog::output(self, bytes);
    }
}

/// Nobody hears it.
pub struct Silence;

impl Progress for Silence {
    fn note(&mut self, _line: &dyn Display) {}

    fn output(&mut self, _bytes: &[u8]) {}
}

/// What is fetched for one job, and how.
pub struct Order<'a> {
    /// The folder of the job.
    pub scratch: &'a Scratch,
    /// The agent's environment.
    pub environment: &'a BTreeMap<String, String>,
    /// How this machine reaches the world.
    pub network: &'a Network,
    /// Whether the job shall stop.
    pub stop: &'a Stop,
}

impl Order<'_> {
    /// Fetches a commit and applies `patch` to it. Gives its identity.
    pub fn git(
        &self,
        remote: &str,
        commit: &str,
        patch: Option<&Path>,
        log: &mut dyn Progress,
    ) -> Result<String> {
        let fetching = git::Fetching {
            environment: self.environment,
            network: self.network,
            stop: self.stop,
        };
        fetching.fetch(remote, commit, patch, &self.scratch.code(), log)
    }

    /// Makes what was fetched the source of `job`: `dockerfile` is the one that the launch spec names. The entry point
    /// of the job may become another: a notebook's script.
    pub fn settle(
        &self,
        job: &mut Job,
        identity: String,
        frozen: Option<String>,
        dockerfile: Option<&str>,
        warnings: &mut Vec<String>,
    ) -> Result<Source> {
        let folder = self.scratch.code();
        let sum = files::settle(&folder)?;
        if sum.bytes > MOST_BYTES || sum.files > MOST_FILES {
            return Err(too_large(&job.name, sum.bytes, sum.files));
        }
        notebook::convert(job, &folder, warnings)?;
        // A Dockerfile that somebody names may make the script, or put it elsewhere.
        if dockerfile.or(job.dockerfile.as_deref()).is_none() {
            files::check_entry_point(job, &folder)?;
        }
        let mut decisive = BTreeMap::new();
        for path in deciding_files(job, dockerfile) {
            if let Some(text) = files::read_text(&folder, &path)? {
                decisive.insert(path, text);
            }
        }
        Ok(Source {
            folder,
            identity,
            files: decisive,
            frozen,
        })
    }
}

/// That a job's code is more than code.
fn too_large(job: &str, bytes: u64, files: usize) -> Error {
    Error::new(
        Kind::Input,
        format!(
            "the code of job `{job}` has {} in {files} files; at most {} and {MOST_FILES} files are fetched",
            spell_size(bytes),
            spell_size(MOST_BYTES)
        ),
    )
    .hint("leave data out of the code: `.wandbignore`, `.gitignore`, or another folder; mount it with the queue's `volume`")
}

/// An error of the file system about a path of ours, with a hint where there is one to give.
fn refused(what: &str, path: &Path, cause: &std::io::Error) -> Error {
    let error = Error::system(format_args!("cannot {what} {}", path.display()), cause);
    match cause.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => error.hint(
            "the agent's owner has to make room; the folder moves with `XDG_CACHE_HOME`, and may be emptied",
        ),
        _ => error,
    }
}
