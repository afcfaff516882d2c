//! The agent's configuration: defaults, then `launch-config.yaml`, then the environment, then flags; resolved once,
//! every value with its origin. After this no code asks whether a flag was given.

mod entries;
mod environment;
mod file;
pub mod identity;
mod images;
mod policy;
mod registry;
mod resolve;
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
use file::Builder;
pub use policy::PolicySettings;
use resolve::{Flags, default_database, resolve};
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
            limits: &self.policy.settled.limits,
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
