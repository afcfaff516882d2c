//! Settles the configuration: reads the file, and takes each value from the last place that names it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::environment::Environment;
use super::file::{self, File};
use super::identity::{Identity, Said};
use super::policy::{OwnFiles, PolicySettings};
use super::registry::Registries;
use super::setting::{Origin, Setting};
use super::{AgentConfig, Backend, OnSignal, images};
use crate::failure::{Error, Kind, Result};
use crate::launch::command::Secret;
use crate::launch::docker::Engine;
use crate::launch::network::Network;
use crate::launch::transfer::PullPolicy;

/// 20 GB, which images for GPUs have, take three quarters of an hour at 60 Mbit/s. A registry that does not answer
/// docker gives up by itself; this ends a download that stands still.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3600);

/// What flags can say. Both the agent and the other commands reduce their flags to this.
#[derive(Debug, Default)]
pub struct Flags<'a> {
    pub config: Option<(&'static str, &'a Path)>,
    pub local: Option<&'a Path>,
    pub base_url: Option<&'a str>,
    pub entity: Option<&'a str>,
    pub queues: &'a [String],
    pub max_jobs: Option<i64>,
    pub log_file: Option<&'a Path>,
    pub verbosity: u8,
}

/// Where the embedded queue is when nobody says.
pub fn default_database(state_folder: &Path) -> PathBuf {
    state_folder.join("queue.db")
}

/// Settles every value from defaults, file, environment and flags; the later wins.
pub fn resolve(flags: &Flags<'_>, environment: &Environment) -> Result<AgentConfig> {
    let state_folder = environment
        .folder("XDG_STATE_HOME", ".local/state")?
        .join("launch-agent");
    // A service may have a place for its state alone.
    let cache_folder = environment
        .folder("XDG_CACHE_HOME", ".cache")
        .map_or_else(|_| state_folder.join("cache"), |it| it.join("launch-agent"));
    let (file, path) = read_file(flags, environment)?;
    let from_file = || Origin::File(path.clone());
    let in_file = |key: &str| format!("{}: `{key}`", path.display());

    let identity = Identity::find(
        &Said {
            base_url_flag: flags.base_url.map(str::to_owned),
            base_url_file: file.base_url.clone(),
            entity_flag: flags.entity.map(str::to_owned),
            entity_file: file.entity.clone(),
        },
        environment,
        &path,
    )?;
    let registries = Registries::read(&file, &path)?;
    let destination = registries.destination;
    let image_builder = images::builder(&file, &path, destination.as_ref())?;
    let verbosity = (flags.verbosity > 0).then_some(flags.verbosity);
    let backend = backend(
        flags,
        &file,
        &path,
        &state_folder,
        identity.api_key.as_ref(),
    )?;
    let own_files = OwnFiles {
        config: &path,
        state_folder: &state_folder,
        backend: &backend.value,
        log_file: flags.log_file,
    };
    let keys = file.policy.clone().unwrap_or_default();
    Ok(AgentConfig {
        policy: PolicySettings::settle(&keys, &own_files, environment)?,
        backend,
        entity: identity.entity,
        queues: Setting::default(Vec::new())
            .or(file.queues(), from_file())
            .or(
                (!flags.queues.is_empty()).then(|| flags.queues.to_vec()),
                Origin::Flag("--queue"),
            ),
        max_jobs: max_jobs(flags, &file, &path, environment)?,
        max_schedulers: Setting::default(Some(1)).or(
            limit(file.max_schedulers, &in_file("max_schedulers"))?,
            from_file(),
        ),
        stopped_run_timeout: Setting::default(Duration::from_secs(60))
            .or(file.stopped_run_timeout.map(file::seconds), from_file()),
        stop_grace: Setting::default(Duration::from_secs(10))
            .or(file.stop_grace.map(file::seconds), from_file()),
        timeout: Setting::default(None).or(file.timeout(&path)?.map(Some), from_file()),
        max_retries: Setting::default(5).or(file.max_retries, from_file()),
        on_signal: Setting::default(OnSignal::Drain).or(file.on_signal(&path)?, from_file()),
        log_max_bytes: Setting::default(100_000_000).or(file.log_max_bytes(&path)?, from_file()),
        min_free_disk: Setting::default(1_000_000_000).or(file.min_free_disk, from_file()),
        engine: Setting::default(Engine::Docker).or(file.engine(&path)?, from_file()),
        log_file: Setting::default(None).or(
            flags
                .log_file
                .filter(|path| *path != Path::new("-"))
                .map(|path| Some(path.to_owned())),
            Origin::Flag("--log-file"),
        ),
        verbosity: Setting::default(0)
            .or(file.verbosity(&path)?, from_file())
            .or(verbosity, Origin::Flag("-v")),
        secure_mode: Setting::default(false).or(file.secure_mode, from_file()),
        env_macros: Setting::default(Vec::new()).or(keys.env_macros, from_file()),
        base_url: identity.base_url,
        destination,
        pull_policy: Setting::default(PullPolicy::default())
            .or(file.pull_policy(&path)?, from_file()),
        transfer_timeout: Setting::default(TRANSFER_TIMEOUT)
            .or(file.transfer_timeout(&path)?, from_file()),
        builder: Setting::default(None).or(file.builder(&path)?.map(Some), from_file()),
        image_builder,
        network: Setting::default(Network::default())
            .or(images::network(&file, &path, environment)?, from_file()),
        registry: Setting::default(Value::Null).or(file.registry.clone(), from_file()),
        environment: Setting::default(Value::Null).or(file.environment.clone(), from_file()),
        api_key: identity.api_key,
        key_looked_for: identity.looked,
        identity_warnings: identity.warnings,
        warnings: registries.warnings,
        state_folder,
        cache_folder,
    })
}

fn max_jobs(
    flags: &Flags<'_>,
    file: &File,
    path: &Path,
    environment: &Environment,
) -> Result<Setting<Option<usize>>> {
    let in_file = format!("{}: `max_jobs`", path.display());
    Ok(Setting::default(Some(1))
        .or(
            limit(file.max_jobs, &in_file)?,
            Origin::File(path.to_owned()),
        )
        .or(
            limit(variable_limit(environment)?, "`WANDB_LAUNCH_MAX_JOBS`")?,
            Origin::Variable("WANDB_LAUNCH_MAX_JOBS"),
        )
        .or(
            limit(flags.max_jobs, "--max-jobs")?,
            Origin::Flag("--max-jobs"),
        ))
}

fn read_file(flags: &Flags<'_>, environment: &Environment) -> Result<(File, PathBuf)> {
    if let Some((flag, path)) = flags.config {
        let text = std::fs::read_to_string(path).map_err(|cause| {
            Error::new(
                Kind::Config,
                format!("cannot read {} ({flag}): {cause}", path.display()),
            )
        })?;
        return Ok((File::parse(&text, path)?, path.to_owned()));
    }
    let path = environment
        .folder("XDG_CONFIG_HOME", ".config")?
        .join("wandb/launch-config.yaml");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((File::parse(&text, &path)?, path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((File::default(), path)),
        Err(cause) => Err(Error::new(
            Kind::Config,
            format!("cannot read {}: {cause}", path.display()),
        )),
    }
}

fn backend(
    flags: &Flags<'_>,
    file: &File,
    path: &Path,
    state_folder: &Path,
    api_key: Option<&Setting<Secret>>,
) -> Result<Setting<Backend>> {
    if let Some(local) = flags.local {
        return Ok(Setting {
            value: Backend::Local(database(local, state_folder)),
            origin: Origin::Flag("--local"),
        });
    }
    let origin = Origin::File(path.to_owned());
    match file.backend.as_deref() {
        Some("local") => Ok(Setting {
            value: Backend::Local(default_database(state_folder)),
            origin,
        }),
        Some("wandb") => Ok(Setting {
            value: Backend::Wandb,
            origin,
        }),
        Some(other) => Err(Error::new(
            Kind::Config,
            format!("{}: `backend` is `{other}`", path.display()),
        )
        .hint("it is `local` (the embedded queue) or `wandb`")),
        None => Ok(match api_key {
            Some(key) => Setting {
                value: Backend::Wandb,
                origin: key.origin.clone(),
            },
            None => Setting::default(Backend::Unset),
        }),
    }
}

/// The database that `--local PATH` means: the file itself, or `queue.db` in a folder.
fn database(local: &Path, state_folder: &Path) -> PathBuf {
    if local.as_os_str().is_empty() {
        return default_database(state_folder);
    }
    if local.is_dir() || local.as_os_str().to_string_lossy().ends_with('/') {
        return local.join("queue.db");
    }
    local.to_owned()
}

/// W&B's way to write a limit: -1 is none (an inner `None`), every other negative number is an error, and nothing
/// written is nothing said (an outer `None`).
#[expect(
    clippy::option_option,
    reason = "the outer option is whether anything was said, the inner one is the limit"
)]
fn limit(value: Option<i64>, place: &str) -> Result<Option<Option<usize>>> {
    match value {
        None => Ok(None),
        Some(-1) => Ok(Some(None)),
        Some(value) => usize::try_from(value)
            .map(|jobs| Some(Some(jobs)))
            .map_err(|_| {
                Error::new(
                    Kind::Config,
                    format!("{place}: {value} is not a number of jobs"),
                )
                .hint("-1 is no limit")
            }),
    }
}

/// The limit that `WANDB_LAUNCH_MAX_JOBS` sets, if it is set.
fn variable_limit(environment: &Environment) -> Result<Option<i64>> {
    let Some(text) = environment.get("WANDB_LAUNCH_MAX_JOBS") else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        Error::new(
            Kind::Config,
            format!("`WANDB_LAUNCH_MAX_JOBS` is `{text}`, which is not a whole number"),
        )
    })
}
