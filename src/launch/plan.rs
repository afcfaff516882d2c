//! From a launch spec to the commands that run it. [`resolve`] settles what will run, as values; [`plan`] writes the
//! commands. Pure: whatever a decision needs comes in through [`Context`].
//!
//! Printing is running: a [`Plan`] prints the very [`CommandLine`]s that the runner spawns.

mod container_name;
mod place;
mod scheduler;
mod settle;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::launch::build::Build;
use crate::launch::command::{CommandLine, Secret};
use crate::launch::docker;
use crate::launch::job_env::Variable;
use crate::launch::network::Network;
use crate::launch::policy::Guard;
use crate::launch::resource_args::{DockerOption, Given};
use crate::launch::transfer::{PullPolicy, Transfers};
pub use place::{Container, ImagePlan, Place, Remote, Removal};
pub use scheduler::scheduler;
pub use settle::{redacted, resolve};

/// Where W&B is, for the job's environment.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its address, as it was configured.
    pub base_url: String,
    /// The agent's key.
    pub api_key: Secret,
}

/// What a decision needs beside the spec.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The item's id: a label, and `WANDB_LAUNCH_TRACE_ID`.
    pub item: &'a str,
    /// The queue's name.
    pub queue: &'a str,
    /// The agent's name: a label.
    pub agent: &'a str,
    /// The entity that the queue belongs to.
    pub queue_entity: Option<&'a str>,
    /// The run's name when the spec has none.
    pub generated_run_id: &'a str,
    /// `None` is the embedded queue without a server.
    pub server: Option<&'a Server>,
    /// The agent's environment, for macros and for variables passed by name.
    pub environment: &'a BTreeMap<String, String>,
    /// Variables that look secret and that macros may read all the same.
    pub env_macros: &'a [String],
    /// Refuse `overrides.entry_point`.
    pub secure_mode: bool,
    /// What the machine's owner lets a job ask of docker.
    pub guard: Guard<'a>,
    /// Where docker writes the container's id.
    pub cidfile: &'a Path,
    /// How the job reaches the world.
    pub network: &'a Network,
    /// How images come to this machine and leave it.
    pub transfers: &'a Transfers,
}

/// Everything settled: what will run, as values.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The run's name.
    pub run_id: String,
    /// The image that will run.
    pub image: String,
    /// What the job's owner should know. One sentence each.
    pub warnings: Vec<String>,
    /// The job's variables, in their order.
    variables: Vec<Variable>,
    /// How the image is built, when it is.
    build: Option<Build>,
    /// What the agent adds, then the queue's and the job's options.
    options: Vec<DockerOption>,
    /// Replaces the image's entry point when it is not empty.
    entry_point: Vec<String>,
    /// Words for the job.
    args: Vec<String>,
    /// Values that no log may show.
    secrets: Vec<Secret>,
    /// Values of `env` options that hold a secret: the options have the name alone.
    hidden_env: BTreeMap<String, Secret>,
}

/// Everything decided, nothing done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The command of the job.
    pub run: CommandLine,
    /// What it runs in.
    pub place: Place,
    /// Values to keep out of logs, each at least 6 bytes: shorter ones would redact half the language.
    pub secrets: Vec<Secret>,
    /// The variables that the container gets by name, in their order.
    pub env_from_agent: Vec<String>,
    /// What the job's owner should know. One sentence each.
    pub warnings: Vec<String>,
    /// The run's name.
    pub run_id: String,
}

impl Launch {
    /// The options of the job, in the order of the line.
    pub fn options(&self) -> &[DockerOption] {
        &self.options
    }

    /// Values that no message may show.
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// The value of an option that docker takes once.
    fn option(&self, name: &str) -> Option<&DockerOption> {
        self.options.iter().rev().find(|option| option.name == name)
    }

    /// The variables that are given by name alone, the job's own first.
    fn env_by_name(&self) -> Vec<String> {
        let own = self.variables.iter().filter_map(|variable| match variable {
            Variable::ByName(name, _) => Some(name.as_str()),
            Variable::Plain(..) => None,
        });
        let mut names: Vec<String> = Vec::new();
        for name in own.chain(by_name(&self.options)) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        names
    }
}

/// The variables among `options` that docker takes from the environment of its client.
fn by_name(options: &[DockerOption]) -> impl Iterator<Item = &str> {
    options
        .iter()
        .filter(|option| option.name == "env")
        .filter_map(DockerOption::value)
        .filter(|value| !value.contains('='))
}

/// Writes the commands of a launch.
pub fn plan(launch: &Launch, context: &Context<'_>) -> Plan {
    let given_name = launch.option("name").and_then(DockerOption::value);
    let container = given_name.map_or_else(
        || container_name::container_name(&launch.run_id, context.item),
        str::to_owned,
    );
    let removal = match launch.option("rm").map(|option| &option.given) {
        Some(Given::Flag(true)) => Removal::ByDocker,
        Some(_) => Removal::Kept,
        None => Removal::ByAgent,
    };
    let new_name = given_name.is_none().then_some(container.as_str());
    Plan {
        run: run_command(launch, context, new_name),
        place: Place::Container(Container {
            name: container,
            image: image_plan(launch, context),
            cidfile: context.cidfile.to_owned(),
            removal,
        }),
        secrets: launch.secrets.clone(),
        env_from_agent: launch.env_by_name(),
        warnings: launch.warnings.clone(),
        run_id: launch.run_id.clone(),
    }
}

fn image_plan(launch: &Launch, context: &Context<'_>) -> ImagePlan {
    let platform = launch.option("platform").and_then(DockerOption::value);
    let pull = || context.transfers.pull(&launch.image, platform);
    if let Some(build) = &launch.build {
        let remote = || {
            Box::new(Remote {
                pull: pull(),
                push: context.transfers.push(&build.image),
                network: context.network.clone(),
            })
        };
        return ImagePlan::Build {
            build: Box::new(build.clone()),
            remote: build.is_pushed.then(remote),
        };
    }
    if launch.option("pull").is_some() {
        return ImagePlan::LeftToDocker;
    }
    ImagePlan::Pull {
        policy: context.transfers.pull_policy,
        transfer: Box::new(pull()),
    }
}

/// The container's command, from left to right.
fn run_command(launch: &Launch, context: &Context<'_>, name: Option<&str>) -> CommandLine {
    let mut run = CommandLine::new(docker::program()).arg("run");
    if let Some(name) = name {
        run = run.part(["--name", name]);
    }
    for (key, value) in [
        ("item", context.item),
        ("queue", context.queue),
        ("run", &launch.run_id),
        ("agent", context.agent),
    ] {
        run = run.part(["--label".to_owned(), format!("launch-agent.{key}={value}")]);
    }
    run = run.part(["--cidfile".into(), context.cidfile.to_string_lossy()]);
    for variable in &launch.variables {
        run = match variable {
            Variable::Plain(name, value) => run.part(["--env".into(), format!("{name}={value}")]),
            Variable::ByName(name, value) => run.pass_env(name, value.clone()),
        };
    }
    for option in &launch.options {
        run = run.part(option.words());
    }
    run.env.extend(launch.hidden_env.clone());
    let mut words = vec![launch.image.as_str()];
    if let Some((program, arguments)) = launch.entry_point.split_first() {
        run = run.part(["--entrypoint", program]);
        words.extend(arguments.iter().map(String::as_str));
    }
    words.extend(launch.args.iter().map(String::as_str));
    run.part(words)
}

/// One line a command, as bash would run it: those that will surely run. Whether an image that may be here is pulled is
/// decided when it is looked for.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for command in self.before() {
            writeln!(f, "{command}")?;
        }
        write!(f, "{}", self.shown())
    }
}

impl Plan {
    /// The job's command for people, without the secrets that somebody wrote into it.
    pub fn shown(&self) -> CommandLine {
        self.run.hiding(&self.secrets)
    }

    /// The same for a terminal, each option on a line of its own.
    pub fn wrapped(&self) -> String {
        let shown = self.shown();
        let before = self.before().into_iter().chain([&shown]);
        let commands: Vec<String> = before.map(CommandLine::wrapped).collect();
        commands.join("\n")
    }

    /// The commands that come before the run: those that will surely run, or will when the image is not there yet.
    fn before(&self) -> Vec<&CommandLine> {
        let build = self.build().map(|build| &build.command);
        let commands = self.sure_pull().into_iter().chain(build);
        commands.chain(self.push()).collect()
    }

    /// How its image is built, when it is.
    pub fn build(&self) -> Option<&Build> {
        match &self.place {
            Place::Container(Container {
                image: ImagePlan::Build { build, .. },
                ..
            }) => Some(build),
            _ => None,
        }
    }

    /// The push of an image that is built, where it goes to a registry.
    pub fn push(&self) -> Option<&CommandLine> {
        match &self.place {
            Place::Container(Container {
                image:
                    ImagePlan::Build {
                        remote: Some(remote),
                        ..
                    },
                ..
            }) => Some(&remote.push.command),
            _ => None,
        }
    }

    /// The pull that comes before the run whatever is on this machine.
    pub fn sure_pull(&self) -> Option<&CommandLine> {
        match &self.place {
            Place::Container(Container {
                image:
                    ImagePlan::Pull {
                        policy: PullPolicy::Always,
                        transfer,
                    },
                ..
            }) => Some(&transfer.command),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Error;
    use crate::host::machine::machine;
    use crate::launch::build::{Settings, decide};
    use crate::launch::builder::Builder;
    use crate::launch::policy::{Limits, Policy, Preset};
    use crate::launch::spec::LaunchSpec;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn planned(spec: &Value, server: Option<&Server>) -> Result<Plan, Error> {
        planned_with(spec, server, PullPolicy::default())
    }

    fn planned_with(
        spec: &Value,
        server: Option<&Server>,
        pull_policy: PullPolicy,
    ) -> Result<Plan, Error> {
        let environment = [
            ("DB_PASSWORD", "correct horse"),
            ("PIN_TOKEN", "1234"),
            ("A", "plain-value"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let context = Context {
            item: "i1",
            queue: "q",
            agent: "a",
            queue_entity: None,
            generated_run_id: "generated",
            server,
            environment: &environment,
            env_macros: &["DB_PASSWORD".to_owned()],
            secure_mode: true,
            guard: Guard {
                policy: &Policy::of(Preset::Open),
                machine: machine(),
            },
            cidfile: Path::new("/state/i1.cid"),
            network: &Network::default(),
            transfers: &Transfers {
                pull_policy,
                limit: Duration::from_secs(1),
                login: None,
            },
        };
        let (spec, _) = LaunchSpec::parse(spec)?;
        let settings = Settings {
            builder: &Builder::default(),
            network: &Network::default(),
            has_buildx: &|| false,
            folder: Path::new("/state"),
            limits: &Limits::default(),
        };
        let program = decide(&spec, None, &settings)?;
        Ok(plan(
            &resolve(&spec, &program, &context, &|| None)?,
            &context,
        ))
    }

    fn container(plan: &Plan) -> Container {
        match &plan.place {
            Place::Container(container) => container.clone(),
            Place::Process => panic!("no container: {plan:?}"),
        }
    }

    fn with_options(options: &Value) -> Plan {
        let spec =
            json!({"project": "p", "image_uri": "img:1", "resource_args": {"docker": options}});
        planned(&spec, None).expect("a good spec")
    }

    #[test]
    fn who_removes_the_container_is_what_the_options_say() {
        for (options, removal) in [
            (json!({}), Removal::ByAgent),
            (json!({"rm": true}), Removal::ByDocker),
            (json!({"rm": false}), Removal::Kept),
        ] {
            assert_eq!(
                container(&with_options(&options)).removal,
                removal,
                "{options}"
            );
        }
    }

    #[test]
    fn the_image_is_pulled_for_the_platform_that_will_run() {
        let pull = |options| match container(&with_options(&options)).image {
            ImagePlan::Pull { transfer, .. } => format!("{}: {}", transfer.image, transfer.command),
            ImagePlan::LeftToDocker => "left".to_owned(),
            ImagePlan::Build { build, .. } => build.image,
        };
        assert_eq!(pull(json!({})), "img:1: docker pull img:1");
        assert_eq!(
            pull(json!({"platform": "linux/arm64"})),
            "img:1: docker pull --platform linux/arm64 img:1"
        );
        assert_eq!(pull(json!({"pull": "never"})), "left");
    }

    #[test]
    fn a_pull_that_will_surely_run_is_printed_before_the_run() {
        let lines = |policy, options| {
            let spec =
                json!({"project": "p", "image_uri": "img:1", "resource_args": {"docker": options}});
            let plan = planned_with(&spec, None, policy).expect("a good spec");
            assert_eq!(
                plan.wrapped().matches("docker pull").count(),
                plan.to_string().matches("docker pull").count()
            );
            plan.to_string()
                .lines()
                .map(|line| line[..11].to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            lines(PullPolicy::Always, json!({})),
            ["docker pull", "docker run "]
        );
        for policy in [
            PullPolicy::IfPossible,
            PullPolicy::Missing,
            PullPolicy::Never,
        ] {
            assert_eq!(lines(policy, json!({})), ["docker run "], "{policy:?}");
        }
        assert_eq!(
            lines(PullPolicy::Always, json!({"pull": "missing"})),
            ["docker run "]
        );
    }

    #[test]
    fn the_containers_name_is_the_queues_or_one_of_its_own() {
        let plan = with_options(&json!({}));
        assert_eq!(container(&plan).name, "launch-generated-i1");
        assert!(plan.to_string().contains("--name launch-generated-i1 "));
        let plan = with_options(&json!({"name": "mine"}));
        assert_eq!(container(&plan).name, "mine");
        assert_eq!(plan.to_string().matches("--name").count(), 1);
    }

    #[test]
    fn secrets_are_on_no_line_and_known_to_the_redactor() {
        let server = Server {
            base_url: "https://api.wandb.ai".to_owned(),
            api_key: Secret::new("agent-key"),
        };
        let spec = json!({
            "project": "p", "image_uri": "img:1", "_wandb_api_key": "submitters-key",
            "resource_args": {"docker": {"env": ["DB_PASSWORD", "PIN_TOKEN", "A", "NOWHERE", "WANDB_API_KEY"]}}
        });
        let plan = planned(&spec, Some(&server)).expect("a good spec");
        let seen = format!("{plan} {plan:?}");
        for secret in ["agent-key", "submitters-key", "correct horse"] {
            assert!(!seen.contains(secret), "{secret}");
        }
        let known: Vec<&str> = plan.secrets.iter().map(Secret::expose).collect();
        assert_eq!(known, ["submitters-key", "agent-key", "correct horse"]);
        assert_eq!(plan.run.env["WANDB_API_KEY"].expose(), "submitters-key");
        assert_eq!(
            plan.env_from_agent,
            ["WANDB_API_KEY", "DB_PASSWORD", "PIN_TOKEN", "A", "NOWHERE"]
        );
        assert_eq!(
            plan.warnings,
            [
                "`NOWHERE` is to come from the agent's environment, but it is not set there: the container does not get it"
            ]
        );
    }

    #[test]
    fn a_macro_with_a_secret_name_is_handed_over_by_name() {
        let plan = with_options(
            &json!({"env": {"URL": "db://me:${DB_PASSWORD}@host", "A": "1", "HOME": "/${A}"}}),
        );
        let line = plan.run.to_string();
        assert!(
            line.ends_with("--env URL --env A=1 --env HOME=/plain-value img:1"),
            "{line}"
        );
        assert_eq!(plan.run.env["URL"].expose(), "db://me:correct horse@host");
        assert_eq!(plan.env_from_agent, ["URL"]);
        assert_eq!(plan.secrets, [Secret::new("correct horse")]);
        assert_eq!(plan.warnings, [""; 0]);
    }

    #[test]
    fn a_secret_does_not_get_into_the_variables_of_dockers_own_client() {
        for name in [
            "DOCKER_HOST",
            "PATH",
            "LD_PRELOAD",
            "https_proxy",
            "PYTHONPATH",
            "BASH_ENV",
            "AWS_CONFIG_FILE",
        ] {
            let options = json!({"env": [format!("{name}=${{DB_PASSWORD}}")]});
            let spec =
                json!({"project": "p", "image_uri": "img:1", "resource_args": {"docker": options}});
            let error = planned(&spec, None).expect_err("refused");
            assert!(
                error.message.contains(&format!("`{name}`")) && !error.message.contains("horse"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_secret_that_must_be_on_the_line_is_warned_about_and_not_shown() {
        let plan = with_options(&json!({"label": "x=${DB_PASSWORD}"}));
        assert_eq!(plan.secrets, [Secret::new("correct horse")]);
        assert!(plan.run.argv.contains(&"x=correct horse".to_owned()));
        assert!(
            plan.to_string().contains("--label 'x=[redacted]' img:1"),
            "{plan}"
        );
        assert_eq!(
            plan.warnings,
            [
                "`--label` holds a variable with a secret name: every user of this machine can read it there with `ps`; in `env` it is out of sight"
            ]
        );
    }

    #[test]
    fn secure_mode_refuses_an_entry_point() {
        let spec =
            json!({"project": "p", "image_uri": "img:1", "overrides": {"entry_point": ["sh"]}});
        let error = planned(&spec, None).expect_err("refused");
        assert!(error.message.contains("secure mode"));
    }

    #[test]
    fn a_spec_without_an_image_says_how_to_name_one() {
        for (spec, message) in [
            (json!({"project": "p"}), "the launch spec names no image"),
            (
                json!({"project": "p", "job": "e/p/j:v0"}),
                "the job `e/p/j:v0` was not fetched",
            ),
        ] {
            assert_eq!(planned(&spec, None).expect_err("no image").message, message);
        }
    }
}
