//! The key `policy` of `launch-config.yaml`: what it may say, and the policy that it settles. Touches no disk: the
//! places of the agent's own files are put together here, and looked at when a job asks for one.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::file::wrong;
use super::{Backend, Environment, Origin, Setting};
use crate::failure::{Error, Result};
use crate::launch::docker_options::OptionTable;
use crate::launch::policy::{Entry, Limits, Mount, Place, Policy, Preset, size};

/// The key as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyKeys {
    pub preset: Option<String>,
    pub allow: Option<Vec<String>>,
    pub deny: Option<Vec<String>>,
    pub mounts: Option<Vec<String>>,
    pub images: Option<Vec<String>>,
    pub env_macros: Option<Vec<String>>,
    pub max_memory: Option<Value>,
    pub max_cpus: Option<f64>,
    pub max_gpus: Option<u64>,
    pub max_shm_size: Option<Value>,
}

/// Where the agent's own files are.
pub struct OwnFiles<'a> {
    /// `launch-config.yaml`.
    pub config: &'a Path,
    /// The folder of what it keeps.
    pub state_folder: &'a Path,
    /// The queue, which may be a file.
    pub backend: &'a Backend,
    /// Its log.
    pub log_file: Option<&'a Path>,
}

/// The policy, and each of its settings with its origin.
#[derive(Debug, Clone)]
pub struct PolicySettings {
    /// What judges a job.
    pub settled: Policy,
    entries: Vec<(&'static str, Setting<Value>)>,
}

/// Variables that name a file or folder with keys in it.
const KEY_VARIABLES: [&str; 14] = [
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_CONFIG_DIR",
    "CLOUDSDK_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "KUBECONFIG",
    "NETRC",
    "REGISTRY_AUTH_FILE",
    "SSH_AUTH_SOCK",
    "WANDB_API_KEY_FILE",
    "WANDB_CONFIG_DIR",
];

impl PolicySettings {
    /// Checks what is written, and settles it.
    pub fn settle(
        keys: &PolicyKeys,
        files: &OwnFiles<'_>,
        environment: &Environment,
    ) -> Result<PolicySettings> {
        let file = files.config;
        let home = environment.home().ok();
        let settled = Policy {
            preset: preset(keys, file)?,
            allow: entries(keys.allow.as_ref()),
            deny: entries(keys.deny.as_ref()),
            mounts: mounts(keys, home.as_deref(), file)?,
            images: keys.images.clone(),
            limits: limits(keys, file)?,
            own_places: own_places(files, environment),
            home,
            engine_elsewhere: engine_elsewhere(environment),
        };
        check_entries(&settled, file)?;
        Ok(PolicySettings {
            entries: shown(keys, &settled, file),
            settled,
        })
    }

    /// Each setting as `(key, value, origin)`.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, Value, String)> {
        self.entries
            .iter()
            .map(|(key, setting)| (*key, setting.value.clone(), setting.origin.to_string()))
    }
}

fn preset(keys: &PolicyKeys, file: &Path) -> Result<Preset> {
    let Some(word) = &keys.preset else {
        return Ok(Preset::default());
    };
    let known = Preset::WORDS.iter().find(|(known, _)| known == word);
    known.map(|(_, preset)| *preset).ok_or_else(|| {
        wrong(file, format!("`policy.preset` is `{word}`"))
            .hint("it is `standard`, `strict` or `open`")
    })
}

fn entries(texts: Option<&Vec<String>>) -> Vec<Entry> {
    texts
        .into_iter()
        .flatten()
        .map(|text| Entry::parse(text))
        .collect()
}

/// A word of `allow` that no option has only fails to allow it; one of `deny` would leave a door open.
fn check_entries(policy: &Policy, file: &Path) -> Result<()> {
    let table = OptionTable::docker_28();
    for entry in &policy.deny {
        if entry.option != "builder" && table.find(&entry.option).is_none() {
            return Err(wrong(
                file,
                format!(
                    "`policy.deny` lists `{}`, which is no option of docker 28",
                    entry.option
                ),
            )
            .closest(&entry.option, table.names()));
        }
    }
    for (key, entry) in policy
        .allow
        .iter()
        .map(|entry| ("allow", entry))
        .chain(policy.deny.iter().map(|entry| ("deny", entry)))
    {
        if entry.value.is_some() && ["volume", "mount"].contains(&entry.option.as_str()) {
            return Err(mount_by_text(file, key, entry));
        }
    }
    Ok(())
}

fn mount_by_text(file: &Path, key: &str, entry: &Entry) -> Error {
    wrong(
        file,
        format!("`policy.{key}` lists `{entry}`, but one folder has many spellings"),
    )
    .hint("list the folders that may be mounted under `policy.mounts`, such as `mounts: [/mnt/datasets:ro, /scratch]`")
}

fn mounts(keys: &PolicyKeys, home: Option<&Path>, file: &Path) -> Result<Option<Vec<Mount>>> {
    let Some(texts) = &keys.mounts else {
        return Ok(None);
    };
    let read = |text: &String| {
        let whole = match (text.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => home.join(rest).display().to_string(),
            _ => text.clone(),
        };
        Mount::parse(&whole).ok_or_else(|| {
            wrong(file, format!("`policy.mounts` lists `{text}`"))
                .hint("an entry is a whole path or the name of a volume, with `:ro` where jobs may only read: `/mnt/datasets:ro`")
        })
    };
    texts.iter().map(read).collect::<Result<_>>().map(Some)
}

fn limits(keys: &PolicyKeys, file: &Path) -> Result<Limits> {
    if let Some(cpus) = keys
        .max_cpus
        .filter(|cpus| !cpus.is_finite() || *cpus <= 0.0)
    {
        return Err(wrong(file, format!("`policy.max_cpus` is {cpus}"))
            .hint("it is a number of processors, such as 8"));
    }
    Ok(Limits {
        memory: bytes("max_memory", keys.max_memory.as_ref(), file)?,
        cpus: keys.max_cpus,
        gpus: keys.max_gpus,
        shm_size: bytes("max_shm_size", keys.max_shm_size.as_ref(), file)?,
    })
}

fn bytes(key: &str, value: Option<&Value>, file: &Path) -> Result<Option<u64>> {
    let Some(value) = value else {
        return Ok(None);
    };
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match size(&text) {
        Some(bytes) if bytes > 0 => Ok(Some(bytes)),
        _ => Err(wrong(file, format!("`policy.{key}` is `{text}`"))
            .hint("it is a size in docker's units, such as `32g` or `512m`")),
    }
}

/// The agent's own files, and those of its owner that hold keys; what is hidden in a home folder is known without.
fn own_places(files: &OwnFiles<'_>, environment: &Environment) -> Vec<Place> {
    let folder = |variable: &str, fallback: &str| environment.folder(variable, fallback).ok();
    let mut places = vec![
        Place::tree(files.state_folder, "the agent's own folder"),
        Place::tree(files.config, "the agent's configuration"),
    ];
    places.extend(
        folder("XDG_CONFIG_HOME", ".config")
            .map(|config| Place::tree(config.join("wandb"), "where W&B's settings and keys are")),
    );
    places.extend(
        folder("XDG_CACHE_HOME", ".cache")
            .map(|cache| Place::tree(cache.join("launch-agent"), "the agent's own cache")),
    );
    if let Backend::Local(database) = files.backend {
        // Beside the database are its journal, the jobs' logs and their files, all under its name.
        let stem = database.with_extension("");
        let stem = PathBuf::from(format!("{}.", stem.display()));
        places.push(Place::tree(database.clone(), "the agent's queue"));
        places.push(Place::stem(stem, "the agent's queue"));
    }
    places.extend(
        files
            .log_file
            .map(|path| Place::tree(path, "the agent's own log")),
    );
    places.extend(KEY_VARIABLES.iter().filter_map(|name| {
        let path = environment.get(name)?;
        // As the agent itself reads those that it reads.
        let path = match (path.strip_prefix("~/"), environment.home()) {
            (Some(rest), Ok(home)) => home.join(rest),
            _ => PathBuf::from(path),
        };
        Some(Place::tree(path, "where the agent's owner keeps keys"))
    }));
    if let Some(socket) = environment
        .get("DOCKER_HOST")
        .and_then(|host| host.strip_prefix("unix://"))
    {
        places.push(Place::tree(socket, "docker's socket"));
    }
    if let Ok(program) = std::env::current_exe() {
        places.push(Place::tree(program, "the agent itself"));
    }
    places
}

/// Docker's engine, when `DOCKER_HOST` says that it is reached over a network.
fn engine_elsewhere(environment: &Environment) -> Option<String> {
    let host = environment.get("DOCKER_HOST")?;
    let (scheme, _) = host.split_once("://")?;
    (!["unix", "fd"].contains(&scheme)).then(|| format!("`DOCKER_HOST` is `{scheme}://..`"))
}

/// For `config show`: each key, as it is settled.
fn shown(keys: &PolicyKeys, policy: &Policy, file: &Path) -> Vec<(&'static str, Setting<Value>)> {
    let setting = |key, written: bool, value: Value| {
        let origin = if written {
            Origin::File(file.to_owned())
        } else {
            Origin::Default
        };
        (key, Setting { value, origin })
    };
    let list = |entries: &[Entry]| -> Value { entries.iter().map(Entry::to_string).collect() };
    let mounts = policy
        .mounts
        .as_ref()
        .map(|mounts| mounts.iter().map(Mount::to_string).collect::<Vec<_>>());
    let written = |value: &Option<Value>| value.clone().unwrap_or_default();
    vec![
        setting(
            "policy.preset",
            keys.preset.is_some(),
            policy.preset.word().into(),
        ),
        setting("policy.allow", keys.allow.is_some(), list(&policy.allow)),
        setting("policy.deny", keys.deny.is_some(), list(&policy.deny)),
        setting("policy.mounts", keys.mounts.is_some(), mounts.into()),
        setting(
            "policy.images",
            keys.images.is_some(),
            policy.images.clone().into(),
        ),
        setting(
            "policy.max_memory",
            keys.max_memory.is_some(),
            written(&keys.max_memory),
        ),
        setting(
            "policy.max_cpus",
            keys.max_cpus.is_some(),
            keys.max_cpus.into(),
        ),
        setting(
            "policy.max_gpus",
            keys.max_gpus.is_some(),
            keys.max_gpus.into(),
        ),
        setting(
            "policy.max_shm_size",
            keys.max_shm_size.is_some(),
            written(&keys.max_shm_size),
        ),
    ]
}
