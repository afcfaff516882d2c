//! From the `job` of a launch spec to the job itself with its code on this machine. Joins the queue, which has the
//! artifacts, and the host, which has the folders. For the agent, and for commands that show what it would do.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::failure::{Error, Result};
use crate::host::source::{Cache, Order, Progress, Scratch};
use crate::host::stop::Stop;
use crate::launch::job::{ArtifactName, Code, Job, JobSource};
use crate::launch::network::Network;
use crate::launch::spec::LaunchSpec;
use crate::queue::artifacts::Artifacts;

/// The file that describes a job (PROTOCOL section 5).
const JOB: &str = "wandb-job.json";

/// Every package of the author's machine.
const FROZEN: &str = "requirements.frozen.txt";

/// What the author had not committed.
const PATCH: &str = "diff.patch";

/// Where a job's code comes from and goes to.
pub struct Fetch<'a> {
    /// The artifacts, as whoever pushed the job may see them.
    pub artifacts: &'a dyn Artifacts,
    /// The agent's folder for what may be fetched again.
    pub cache: &'a Path,
    /// The folder of this job; it has to stay until the job has ended.
    pub scratch: &'a Scratch,
    /// The agent's environment.
    pub environment: &'a BTreeMap<String, String>,
    /// How this machine reaches the world.
    pub network: &'a Network,
    /// Whether the job shall stop.
    pub stop: &'a Stop,
}

/// Fetches what the `job` of a spec names, and tells `log` what is done for it.
pub fn fetch(spec: &LaunchSpec, from: &Fetch<'_>, log: &mut dyn Progress) -> Result<Code> {
    let name = spec.job.as_deref().unwrap_or_default();
    let artifact = from.artifacts.artifact(&ArtifactName::parse(name)?)?;
    let full_name = artifact.name();
    let folder = from.scratch.folder().join("job");
    fs::create_dir_all(&folder)
        .map_err(|cause| Error::system(format_args!("cannot make {}", folder.display()), cause))?;
    let cache = Cache::new(from.cache);
    cache.provide(&artifact, from.artifacts, &folder, from.stop)?;
    let text = read(&folder, JOB)?.ok_or_else(|| {
        Error::input(format!(
            "the artifact `{full_name}` is no job: it has no `{JOB}`"
        ))
        .hint("name a job, as `wandb job list` and `push --code` print it")
    })?;
    let (mut job, mut warnings) = Job::parse(&full_name, &text)?;
    log.note(&format_args!("[launch-agent: job {full_name}]"));

    let order = Order {
        scratch: from.scratch,
        environment: from.environment,
        network: from.network,
        stop: from.stop,
    };
    let identity = match &job.source {
        JobSource::Image(image) => {
            log.note(&format_args!("[launch-agent: source image:{image}]"));
            return Ok(Code {
                job,
                source: None,
                warnings,
            });
        }
        JobSource::Artifact(name) => {
            let code = from
                .artifacts
                .artifact(name)
                .map_err(|error| error.within(format_args!("the code of job `{full_name}`")))?;
            cache.provide(&code, from.artifacts, &from.scratch.code(), from.stop)?;
            format!("artifact:{}", code.digest())
        }
        JobSource::Git { remote, commit } => {
            let patch = folder.join(PATCH);
            let patch = patch.is_file().then_some(patch.as_path());
            order.git(remote, commit, patch, log)?
        }
    };
    log.note(&format_args!("[launch-agent: source {identity}]"));
    if !spec.overrides.entry_point.is_empty() {
        job.entry_point.clone_from(&spec.overrides.entry_point);
    }
    let frozen = read(&folder, FROZEN)?;
    let dockerfile = spec.overrides.dockerfile.as_deref();
    let source = order.settle(&mut job, identity, frozen, dockerfile, &mut warnings)?;
    Ok(Code {
        job,
        source: Some(source),
        warnings,
    })
}

/// A file of the job artifact, whose files are plain ones of the cache's making.
fn read(folder: &Path, name: &str) -> Result<Option<String>> {
    match fs::read_to_string(folder.join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::input(format!(
            "the job's file `{name}` cannot be read: {cause}"
        ))),
    }
}
