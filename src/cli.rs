//! The words of the command line: clap structs, no decisions.

#[cfg(feature = "serve")]
pub mod serve;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Takes jobs from a Launch queue and runs them with docker.
///
/// Without a subcommand it is the agent: it polls its queues, runs each job with the `docker run` line that the
/// queue's config asks for, and reports how it ended.
#[derive(Debug, Parser)]
#[command(name = "launch-agent", version, args_conflicts_with_subcommands = true, after_long_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub agent: AgentArgs,
}

/// The published table of exit codes; the README has the same.
const EXIT_CODES: &str = "\
Exit codes:
  0  done, or nothing to do
  1  with --once: a job did not succeed; otherwise: the machine refused something (a file, a thread)
  2  wrong flag, spec, queue config or template value
  3  wrong configuration: launch-config.yaml, the environment, or no queue chosen
  4  docker is not installed, does not answer or refuses this user
  5  the queue cannot be read or written: locked, damaged, newer, disk full
  6  no such queue or item
  130  the third signal: left at once
`push --wait` exits with the job's own code; 1 when the job failed to run or was stopped.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Polls queues and runs their jobs (the same as no subcommand)
    Agent(Box<AgentArgs>),
    /// Prints the commands that a launch spec would run, without running anything
    Render(RenderArgs),
    /// Pushes a job to a queue
    Push(Box<PushArgs>),
    /// Defines and looks at queues
    Queue(QueueArgs),
    /// Lists the items of the queues
    Items(ItemsArgs),
    /// Looks at one item, or changes it
    Item(ItemArgs),
    /// Shows the agent's configuration
    Config(ConfigArgs),
    /// Says what this machine lets jobs ask of docker
    Policy(PolicyArgs),
    /// Says who you are for W&B, and where the key comes from
    Whoami(WhoamiArgs),
    /// Serves the embedded queue to other machines, over W&B's protocol
    #[cfg(feature = "serve")]
    Serve(serve::ServeArgs),
}

/// Which queue, and with which settings: the same for every command.
#[derive(Debug, Clone, Default, Args)]
pub struct BackendArgs {
    /// Use the embedded queue: a SQLite file, no server and no account. PATH is the file, or a folder that
    /// holds `queue.db`
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "", value_parser = local_path)]
    pub local: Option<PathBuf>,

    /// The agent's configuration file [default: ~/.config/wandb/launch-config.yaml, where it exists]
    #[arg(long = "agent-config", value_name = "FILE")]
    pub agent_config: Option<PathBuf>,

    /// The address of the W&B server [default: `WANDB_BASE_URL`, the configuration file, W&B's settings,
    /// then W&B's own]
    #[arg(long, alias = "url", value_name = "URL")]
    pub base_url: Option<String>,
}

/// `--local ITEM` is a likelier slip than a database with a bare name, so a bare name is refused.
fn local_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('/') || text.contains('.') {
        return Ok(PathBuf::from(text));
    }
    Err(format!(
        "`{text}` does not look like a path; write `./{text}` if it is one, or put --local last"
    ))
}

/// A whole number between two others, in words where it is none: clap's own are those of Rust's library.
fn whole<T: TryFrom<i128>, const LEAST: i128, const MOST: i128>(text: &str) -> Result<T, String> {
    let number = text.parse::<i128>().ok();
    let number = number.filter(|number| (LEAST..=MOST).contains(number));
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| match (LEAST, MOST) {
            (i128::MIN, _) => "not a whole number".to_owned(),
            (least, i128::MAX) => format!("not a whole number from {least} on"),
            (least, most) => format!("not a whole number from {least} to {most}"),
        })
}

#[derive(Debug, Args)]
pub struct AgentArgs {
    /// A queue to poll; repeat it for more
    #[arg(short, long = "queue", value_name = "NAME")]
    pub queue: Vec<String>,

    /// The entity that the queues belong to
    #[arg(short, long, value_name = "NAME")]
    pub entity: Option<String>,

    /// How many jobs run at once; -1 is no limit
    #[arg(short = 'j', long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<i64, { i128::MIN }, { i128::MAX }>)]
    pub max_jobs: Option<i64>,

    /// The configuration file [default: ~/.config/wandb/launch-config.yaml, where it exists]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Write the agent's own log to this file instead of the terminal; - is the terminal
    #[arg(short, long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// Say more; twice says most
    #[arg(short, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Use the embedded queue: a SQLite file, no server and no account. PATH is the file, or a folder that
    /// holds `queue.db`
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "", value_parser = local_path)]
    pub local: Option<PathBuf>,

    /// The address of the W&B server [default: `WANDB_BASE_URL`, the configuration file, W&B's settings,
    /// then W&B's own]
    #[arg(long, alias = "url", value_name = "URL")]
    pub base_url: Option<String>,

    /// Work until the queues are empty and the jobs have ended, then exit: 0 when all succeeded, 1 otherwise
    #[arg(long)]
    pub once: bool,

    /// Take nothing; print the commands of the job that would be taken next
    #[arg(long, conflicts_with = "once")]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct RenderArgs {
    /// The launch spec, JSON or YAML; - is standard input
    #[arg(long, value_name = "FILE|-")]
    pub spec: Option<PathBuf>,

    #[command(flatten)]
    pub launch: LaunchArgs,

    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Shell)]
    pub format: Format,
}

/// What a launch spec is put together with, for a command that looks at one.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// The queue's config, JSON or YAML
    #[arg(long, value_name = "FILE", conflicts_with = "queue")]
    pub queue_config: Option<PathBuf>,

    /// Take the config of this queue instead of a file
    #[arg(short, long = "queue", value_name = "NAME")]
    pub queue: Option<String>,

    /// The image, in place of the one that the spec names
    #[arg(long, value_name = "URI")]
    pub image: Option<String>,

    /// A value for a template variable of the queue named with --queue
    #[arg(
        short = 'v',
        long = "set-var",
        value_name = "NAME=VALUE",
        requires = "queue",
        conflicts_with = "queue_config"
    )]
    pub set_var: Vec<String>,

    #[command(flatten)]
    pub backend: BackendArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// What bash would run, one command a line
    Shell,
    /// One object: `run` is the argv
    Json,
}

#[derive(Debug, Args)]
pub struct PushArgs {
    /// The queue to push to
    #[arg(short, long = "queue", value_name = "NAME")]
    pub queue: String,

    /// The image to run
    #[arg(short, long, value_name = "IMAGE")]
    pub docker_image: Option<String>,

    /// The job to run: [[ENTITY/]PROJECT/]NAME[:ALIAS], as `wandb job create` and `push --code` make it
    #[arg(short, long, value_name = "JOB", conflicts_with_all = ["docker_image", "code", "git"])]
    pub job: Option<String>,

    /// The folder whose code to run with --entry-point; kept in the embedded queue
    #[arg(long, value_name = "DIR", conflicts_with_all = ["docker_image", "git"], requires = "entry_point")]
    pub code: Option<PathBuf>,

    /// The git repository whose code to run with --entry-point: https or ssh; pinned to the commit that REF, a
    /// branch, a tag or a commit, stands for now
    #[arg(
        long,
        value_name = "URL[@REF]",
        conflicts_with = "docker_image",
        requires = "entry_point"
    )]
    pub git: Option<String>,

    /// How much --code may be, in MB, with at most 100 files for each
    #[arg(long, value_name = "MB", default_value_t = 100, value_parser = whole::<u64, 1, 4000>)]
    pub code_limit: u64,

    /// Replaces the entry point of the image or the job; split as a shell would split it
    #[arg(short = 'E', long, value_name = "COMMAND")]
    pub entry_point: Option<String>,

    /// The display name of the run
    #[arg(long)]
    pub name: Option<String>,

    /// The entity that the run belongs to [default: `WANDB_ENTITY`, the configuration file]
    #[arg(short, long, value_name = "NAME")]
    pub entity: Option<String>,

    /// The project that the run belongs to [default: `WANDB_PROJECT`]
    #[arg(short, long, value_name = "NAME")]
    pub project: Option<String>,

    /// A launch spec to start from: a JSON or YAML file, or JSON itself
    #[arg(short, long, value_name = "FILE|JSON")]
    pub config: Option<String>,

    /// Docker options for this job, keyed by resource: a file, or JSON such as {"local-container": {"cpus": 2}}
    #[arg(short = 'R', long, value_name = "FILE|JSON")]
    pub resource_args: Option<String>,

    /// A value for a template variable of the queue
    #[arg(short = 'v', long = "set-var", value_name = "NAME=VALUE")]
    pub set_var: Vec<String>,

    /// How long the job may run, in seconds from the start of its container; the agent's own limit may be shorter
    #[arg(long, value_name = "SECONDS", value_parser = whole::<u64, 1, { i128::MAX }>)]
    pub timeout: Option<u64>,

    /// critical, high, medium or low
    #[arg(short = 'P', long, value_name = "PRIORITY")]
    pub priority: Option<String>,

    /// Follow the job's log, and exit with the job's exit code
    #[arg(long)]
    pub wait: bool,

    /// Print the item as JSON instead of its id
    #[arg(long, conflicts_with = "wait")]
    pub json: bool,

    #[command(flatten)]
    pub backend: BackendArgs,

    /// Arguments for the job; they come last, after --
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct QueueArgs {
    #[command(subcommand)]
    pub command: QueueCommand,
}

#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// Defines a new queue
    Create(QueueCreateArgs),
    /// Lists the queues
    List(ListArgs),
    /// Shows a queue's config and what is in it
    Show(QueueNameArgs),
    /// Changes a queue; what is not named stays
    Update(QueueUpdateArgs),
    /// Deletes a queue and its items
    Delete(QueueDeleteArgs),
    /// Checks a queue config and lists its template variables, without saving anything
    Check(QueueCheckArgs),
    /// Hands out nothing until `resume`; jobs can still be pushed
    Pause(QueueNameArgs),
    /// Ends a pause
    Resume(QueueNameArgs),
}

#[derive(Debug, Args)]
pub struct QueueCreateArgs {
    /// The new queue's name
    pub name: String,

    /// The kind of jobs; this agent knows docker
    #[arg(long, default_value = "docker")]
    pub resource: String,

    #[command(flatten)]
    pub settings: QueueSettings,

    #[command(flatten)]
    pub backend: BackendArgs,
}

#[derive(Debug, Args)]
pub struct QueueUpdateArgs {
    /// The queue's name
    pub name: String,

    #[command(flatten)]
    pub settings: QueueSettings,

    #[command(flatten)]
    pub backend: BackendArgs,
}

#[derive(Debug, Args)]
pub struct QueueSettings {
    /// The options of `docker run` for the queue's jobs: a JSON or YAML file; - is standard input
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// A schema for each {{variable}} of the config: {"cpus": {"schema": {"type": "integer", "maximum": 4}}}
    #[arg(long, value_name = "FILE")]
    pub template_variables: Option<PathBuf>,

    /// Jobs may be pushed with a priority; --prioritization=false takes it back
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub prioritization: Option<bool>,
}

#[derive(Debug, Args)]
pub struct QueueCheckArgs {
    /// The config: a JSON or YAML file; - is standard input
    #[arg(value_name = "FILE")]
    pub config: PathBuf,

    /// The schemas of its template variables
    #[arg(long, value_name = "FILE")]
    pub template_variables: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct QueueNameArgs {
    /// The queue's name
    pub name: String,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub backend: BackendArgs,
}

#[derive(Debug, Args)]
pub struct QueueDeleteArgs {
    /// The queue's name
    pub name: String,

    /// Delete it although it holds items that have not ended
    #[arg(long)]
    pub force: bool,

    #[command(flatten)]
    pub backend: BackendArgs,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub backend: BackendArgs,
}

#[derive(Debug, Args)]
pub struct ItemsArgs {
    /// Only the items of this queue
    #[arg(short, long = "queue", value_name = "NAME")]
    pub queue: Option<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub backend: BackendArgs,
}

#[derive(Debug, Args)]
pub struct ItemArgs {
    #[command(subcommand)]
    pub command: ItemCommand,
}

#[derive(Debug, Subcommand)]
pub enum ItemCommand {
    /// Shows an item: its state, its command, why it waits or how it ended
    Show(ItemIdArgs),
    /// Prints the job's log
    Logs(ItemLogsArgs),
    /// Stops a job, or takes it out of the queue
    Cancel(ItemIdArgs),
    /// Puts an item that has ended back into its queue
    Retry(ItemIdArgs),
    /// Deletes an item and its log
    Delete(ItemIdArgs),
}

#[derive(Debug, Args)]
pub struct ItemIdArgs {
    /// The item, as `push` and `items` print it
    pub id: String,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub backend: BackendArgs,
}

#[derive(Debug, Args)]
pub struct ItemLogsArgs {
    /// The item, as `push` and `items` print it
    pub id: String,

    /// Go on printing until the job ends
    #[arg(short, long)]
    pub follow: bool,

    /// Print an object a line: {"item": .., "line": ..}
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub backend: BackendArgs,
}

#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Prints each setting of the agent with where it comes from
    Show(ConfigShowArgs),
}

/// The agent's flags, so that a command line can be tried; those that are no settings are not shown.
#[derive(Debug, Args)]
#[command(mut_arg("once", |arg| arg.hide(true)), mut_arg("dry_run", |arg| arg.hide(true)))]
pub struct ConfigShowArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub agent: AgentArgs,
}

#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    pub command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Says for each option of a launch spec whether the policy takes it, and by which rule
    Check(PolicyCheckArgs),
}

#[derive(Debug, Args)]
pub struct PolicyCheckArgs {
    /// The launch spec, JSON or YAML; - is standard input
    #[arg(value_name = "SPEC")]
    pub spec: Option<PathBuf>,

    #[command(flatten)]
    pub launch: LaunchArgs,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct WhoamiArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub backend: BackendArgs,
}
