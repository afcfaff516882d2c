//! The words of `launch-agent serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::local_path;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ServeArgs {
    #[command(subcommand)]
    pub command: Option<ServeCommand>,

    #[command(flatten)]
    pub listen: ListenArgs,
}

#[derive(Debug, Args)]
pub struct ListenArgs {
    /// Where to listen. Anything but this machine's own addresses sends keys in the clear: put TLS in front
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// The address that clients use, when a proxy is in front [default: what their requests name]
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,

    /// What the files, console logs and histories of runs and artifacts may take on the disk
    #[arg(long, value_name = "GIB", default_value_t = 50)]
    pub disk_quota: u64,

    /// A run that gave no sign of life for so many seconds has crashed
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub lost_after: u64,

    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Say more; twice says most
    #[arg(short, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The embedded queue that is served. Unlike elsewhere no other queue can be meant, so `--local` only names the file.
#[derive(Debug, Clone, Default, Args)]
pub struct DatabaseArgs {
    /// The embedded queue's file, or a folder that holds `queue.db` [default: the one of every other command]
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "", value_parser = local_path)]
    pub local: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum ServeCommand {
    /// Makes, lists and revokes the keys that let clients in
    Key(KeyArgs),
    /// Lists the agents that poll this server, and stops them
    Agent(RemoteAgentArgs),
    /// Stops the runs that programs report to this server
    Run(RunArgs),
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(subcommand)]
    pub command: RunCommand,
}

#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// Asks a run to stop: its program is interrupted, and so is the agent that runs it
    Stop(RunStopArgs),
}

#[derive(Debug, Args)]
pub struct RunStopArgs {
    /// The run, as `wandb` prints it
    #[arg(value_name = "ENTITY/PROJECT/ID")]
    pub run: String,

    #[command(flatten)]
    pub database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    pub command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Makes a key for a user, and the user and the entities where they are new. It is shown this once
    Create(KeyCreateArgs),
    /// Lists the keys: whose they are, not what they are
    List(ServeListArgs),
    /// Revokes a key at once
    Revoke(KeyRevokeArgs),
}

#[derive(Debug, Args)]
pub struct KeyCreateArgs {
    /// The user's name, which is also that of an entity of their own
    pub user: String,

    /// A team that the user belongs to; repeat it for more. `local` is the entity of the queues made without a server
    #[arg(short, long = "entity", value_name = "NAME")]
    pub entity: Vec<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub struct KeyRevokeArgs {
    /// The key's number, as `list` prints it
    pub id: i64,

    #[command(flatten)]
    pub database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub struct ServeListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub struct RemoteAgentArgs {
    #[command(subcommand)]
    pub command: RemoteAgentCommand,
}

#[derive(Debug, Subcommand)]
pub enum RemoteAgentCommand {
    /// Lists the agents
    List(ServeListArgs),
    /// Tells an agent to take nothing more, and to end
    Stop(AgentStopArgs),
}

#[derive(Debug, Args)]
pub struct AgentStopArgs {
    /// The agent, as `list` prints it and as the agent's own log names it
    pub id: String,

    #[command(flatten)]
    pub database: DatabaseArgs,
}
