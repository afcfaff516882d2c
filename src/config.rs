//! The agent's configuration: defaults, then `launch-config.yaml`, then the environment, then flags; resolved once,
//! every value with its origin. After this no code asks whether a flag was given.

mod entries;
mod environment;
mod file;
pub mod identity;
mod images;
mod policy;
mod registry;
mod setting;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::cli::{AgentArgs, BackendArgs};
use crate::failure::{Error, Kind, Result};
use crate::launch::build::Settings;
use crate::launch::builder as image_builder;
use crate::launch::command::Secret;
use crate::launch::docker::Engine;
use crate::launch::network::Network;
use crate::launch::plan::Server;
use crate::launch::registry::{Destination, Login};
use crate::launch::transfer::{PullPolicy, Transfers};
pub use environment::Environment;
use file::{Builder, File};
use identity::{Identity, Said};
use policy::OwnFiles;
pub use policy::PolicySettings;
use registry::Registries;
pub use setting::{Origin, Setting};

/// Where the queues are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// The embedded queue: this SQLite file.
    Local(PathBuf),
    /// W&B's own queues.
    Wandb,
    /// Nobody said, and there is no W&B key.
    Unset,
}

/// What the first signal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSignal {
    /// Take nothing new, let running jobs end; the second signal stops them.
    Drain,
    /// Stop the running jobs at once.
    Stop,
    /// Leave at once; containers stay.
    Detach,
}

impl OnSignal {
    const WORDS: [(&'static str, OnSignal); 3] = [
        ("drain", OnSignal::Drain),
        ("stop", OnSignal::Stop),
        ("detach", OnSignal::Detach),
    ];

    fn word(self) -> &'static str {
        OnSignal::WORDS
            .iter()
            .find(|(_, value)| *value == self)
            .map_or("", |(word, _)| word)
    }
}

/// Everything that the agent's owner decides, settled.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Where the queues are.
    pub backend: Setting<Backend>,
    /// The entity that the queues belong to.
    pub entity: Setting<Option<String>>,
    /// The queues to poll.
    pub queues: Setting<Vec<String>>,
    /// How many jobs run at once; `None` is no limit.
    pub max_jobs: Setting<Option<usize>>,
    /// How many sweep schedulers run at once; `None` is no limit.
    pub max_schedulers: Setting<Option<usize>>,
    /// How long a job that was asked to stop in W&B is left to end by itself.
    pub stopped_run_timeout: Setting<Duration>,
    /// From `docker stop` to the kill.
    pub stop_grace: Setting<Duration>,
    /// How long a job may run, from the start of its container; `None` is no limit.
    pub timeout: Setting<Option<Duration>>,
    /// How often a job begins again that docker or the machine interrupted.
    pub max_retries: Setting<u32>,
    /// What the first signal does.
    pub on_signal: Setting<OnSignal>,
    /// How much of a job's output its log file keeps, in bytes.
    pub log_max_bytes: Setting<u64>,
    /// How much room the disks of jobs and of the agent's files must have for the agent to take jobs, in bytes.
    pub min_free_disk: Setting<u64>,
    /// What runs the containers.
    pub engine: Setting<Engine>,
    /// Where the agent's own log goes; `None` is the terminal.
    pub log_file: Setting<Option<PathBuf>>,
    /// 0, 1 or 2: how much the agent says.
    pub verbosity: Setting<u8>,
    /// Refuse `overrides.entry_point`, as the reference does.
    pub secure_mode: Setting<bool>,
    /// What jobs may ask of docker.
    pub policy: PolicySettings,
    /// Variables of the agent that look secret and that macros may read all the same.
    pub env_macros: Setting<Vec<String>>,
    /// W&B's address.
    pub base_url: Setting<String>,
    /// How images are built.
    pub builder: Setting<Option<Builder>>,
    /// The same, settled for a queue that says nothing about it.
    pub image_builder: image_builder::Builder,
    /// How the agent, builds and jobs reach the world.
    pub network: Setting<Network>,
    /// Where built images go, by either of the two keys.
    pub destination: Option<Destination>,
    /// When the image of a job is pulled.
    pub pull_policy: Setting<PullPolicy>,
    /// How long one pull or push of an image may take.
    pub transfer_timeout: Setting<Duration>,
    /// The older way to say where built images go.
    pub registry: Setting<Value>,
    /// The cloud that the agent runs in.
    pub environment: Setting<Value>,
    /// W&B's key, where there is one. Never printed.
    pub api_key: Option<Setting<Secret>>,
    /// Where the key was looked for, as far as none was found.
    pub key_looked_for: Vec<String>,
    /// What the owner should know about address and key, a sentence each. For whoever talks to W&B.
    pub identity_warnings: Vec<String>,
    /// What the owner should know about his file, a sentence each.
    pub warnings: Vec<String>,
    /// The folder for the agent's own files.
    pub state_folder: PathBuf,
    /// The folder for what can be fetched again, and for what a job needs while it runs.
    pub cache_folder: PathBuf,
}

/// 20 GB, which images for GPUs have, take three quarters of an hour at 60 Mbit/s. A registry that does not answer
/// docker gives up by itself; this ends a download that stands still.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3600);

/// What flags can say. Both the agent and the other commands reduce their flags to this.
#[derive(Debug, Default)]
struct Flags<'a> {
    config: Option<(&'static str, &'a Path)>,
    local: Option<&'a Path>,
    base_url: Option<&'a str>,
    entity: Option<&'a str>,
    queues: &'a [String],
    max_jobs: Option<i64>,
    log_file: Option<&'a Path>,
    verbosity: u8,
}

impl AgentConfig {
    /// The configuration of the agent itself.
    pub fn for_agent(args: &AgentArgs, environment: &Environment) -> Result<AgentConfig> {
        resolve(
            &Flags {
                config: args.config.as_deref().map(|path| ("--config", path)),
                local: args.local.as_deref(),
                base_url: args.base_url.as_deref(),
                entity: args.entity.as_deref(),
                queues: &args.queue,
                max_jobs: args.max_jobs,
                log_file: args.log_file.as_deref(),
                verbosity: args.verbose,
            },
            environment,
        )
    }

    /// The configuration as the commands beside the agent need it: which queue, and whose.
    pub fn for_command(args: &BackendArgs, environment: &Environment) -> Result<AgentConfig> {
        resolve(
            &Flags {
                config: args
                    .agent_config
                    .as_deref()
                    .map(|path| ("--agent-config", path)),
                local: args.local.as_deref(),
                base_url: args.base_url.as_deref(),
                ..Flags::default()
            },
            environment,
        )
    }

    /// The database of the embedded queue, for a command beside the agent. Where nobody chose and no key is there,
    /// the embedded queue is the only one that there can be.
    pub fn local_database(&self) -> Result<PathBuf> {
        match &self.backend.value {
            Backend::Local(path) => Ok(path.clone()),
            Backend::Unset => Ok(default_database(&self.state_folder)),
            Backend::Wandb => Err(not_over_wandb(self)),
        }
    }

    /// An error when nobody chose where the agent's work comes from: it runs what others push, so somebody must have.
    pub fn check_backend(&self) -> Result<()> {
        if self.backend.value != Backend::Unset {
            return Ok(());
        }
        Err(identity::no_key(&self.key_looked_for)
            .within("no queue to poll: the embedded queue was not chosen")
            .hint("for the embedded queue add `--local`, or write `backend: local` into launch-config.yaml; for W&B run `wandb login` or set `WANDB_API_KEY`"))
    }

    /// What decides about a build. `has_buildx` asks docker.
    pub fn build_settings<'a>(
        &'a self,
        has_buildx: &'a dyn Fn() -> bool,
        folder: &'a Path,
    ) -> Settings<'a> {
        Settings {
            builder: &self.image_builder,
            network: &self.network.value,
            has_buildx,
            folder,
        }
    }

    /// Where generated Dockerfiles are written.
    pub fn builds_folder(&self) -> PathBuf {
        self.state_folder.join("builds")
    }

    /// How images come to this machine and leave it. `login` is that of the destination's registry, where the agent
    /// does it.
    pub fn transfers(&self, login: Option<Login>) -> Transfers {
        Transfers {
            pull_policy: self.pull_policy.value,
            limit: self.transfer_timeout.value,
            login,
        }
    }

    /// W&B's server, when jobs are told about one: not with the embedded queue, where there is neither server nor key.
    pub fn server(&self) -> Option<Server> {
        let key = self
            .api_key
            .as_ref()
            .filter(|_| self.backend.value == Backend::Wandb)?;
        Some(Server {
            base_url: self.base_url.value.clone(),
            api_key: key.value.clone(),
        })
    }
}

fn not_over_wandb(config: &AgentConfig) -> Error {
    Error::new(
        Kind::Config,
        format!(
            "this is for the embedded queue, and the queues of {} are chosen ({})",
            config.base_url.value, config.backend.origin
        ),
    )
    .hint("add `--local` for the embedded queue; W&B has it on its Launch page")
}

fn default_database(state_folder: &Path) -> PathBuf {
    state_folder.join("queue.db")
}

fn resolve(flags: &Flags<'_>, environment: &Environment) -> Result<AgentConfig> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(vars: &[(&str, &str)]) -> Environment {
        Environment(
            vars.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    fn args(text: &str) -> AgentArgs {
        AgentArgs {
            queue: Vec::new(),
            entity: None,
            max_jobs: None,
            config: Some(PathBuf::from(text)),
            log_file: None,
            verbose: 0,
            local: None,
            base_url: None,
            once: false,
            dry_run: false,
        }
    }

    #[test]
    fn defaults_lose_to_the_file_the_file_to_the_environment_the_environment_to_flags() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("launch-config.yaml");
        std::fs::write(&file, "max_jobs: 2\nentity: from-file\nqueues: [a, b]\n").expect("written");
        let mut args = args(file.to_str().expect("UTF-8"));
        args.max_jobs = Some(-1);
        let vars = environment(&[
            ("HOME", "/nowhere"),
            ("WANDB_ENTITY", "from-env"),
            ("WANDB_LAUNCH_MAX_JOBS", "3"),
        ]);

        let config = AgentConfig::for_agent(&args, &vars).expect("a good config");
        assert_eq!(
            config.max_jobs,
            Setting {
                value: None,
                origin: Origin::Flag("--max-jobs")
            }
        );
        assert_eq!(
            config.entity,
            Setting {
                value: Some("from-env".to_owned()),
                origin: Origin::Variable("WANDB_ENTITY")
            }
        );
        assert_eq!(
            config.queues,
            Setting {
                value: vec!["a".to_owned(), "b".to_owned()],
                origin: Origin::File(file)
            }
        );
        assert_eq!(config.stop_grace, Setting::default(Duration::from_secs(10)));
        assert_eq!(config.backend.value, Backend::Unset);

        args.max_jobs = None;
        let config = AgentConfig::for_agent(&args, &vars).expect("a good config");
        assert_eq!(config.max_jobs.value, Some(3));
        assert_eq!(
            config.max_jobs.origin,
            Origin::Variable("WANDB_LAUNCH_MAX_JOBS")
        );
    }

    #[test]
    fn a_key_of_the_netrc_chooses_wandb_and_the_owner_can_choose_otherwise() {
        let home = tempfile::tempdir().expect("a folder");
        std::fs::write(
            home.path().join(".netrc"),
            "machine api.wandb.ai login user password sesame-sesame\n",
        )
        .expect("written");
        let vars = environment(&[("HOME", home.path().to_str().expect("UTF-8"))]);
        let config =
            AgentConfig::for_command(&BackendArgs::default(), &vars).expect("a good config");
        assert_eq!(config.backend.value, Backend::Wandb);
        assert_eq!(
            config.backend.origin,
            Origin::File(home.path().join(".netrc"))
        );
        assert_eq!(config.identity_warnings.len(), 1, "the file is open to all");
        let local = BackendArgs {
            local: Some(PathBuf::from("./q.db")),
            ..BackendArgs::default()
        };
        let config = AgentConfig::for_command(&local, &vars).expect("a good config");
        assert_eq!(config.backend.value, Backend::Local("./q.db".into()));
    }

    #[test]
    fn the_key_is_in_no_entry() {
        let vars = environment(&[("HOME", "/nowhere"), ("WANDB_API_KEY", "sesame-sesame")]);
        let config =
            AgentConfig::for_command(&BackendArgs::default(), &vars).expect("a good config");
        assert_eq!(config.backend.value, Backend::Wandb);
        assert!(!format!("{:?}", config.entries()).contains("sesame"));
        assert!(!format!("{config:?}").contains("sesame"));
    }
}
