//! The words of `launch-agent serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{local_path, whole};

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
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080", value_parser = listen_address)]
    pub listen: SocketAddr,

    /// The address that clients use, when a proxy is in front [default: what their requests name]
    #[arg(long, value_name = "URL", value_parser = public_url)]
    pub public_url: Option<String>,

    /// What the files, console logs and histories of runs and artifacts may take on the disk
    #[arg(long, value_name = "GIB", default_value_t = 50, value_parser = whole::<u64, 0, { i128::MAX }>)]
    pub disk_quota: u64,

    /// A run that gave no sign of life for so many seconds has crashed
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = whole::<u64, 1, { i128::MAX }>)]
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
    #[arg(value_parser = whole::<i64, 1, { i128::MAX }>)]
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

/// An address of this machine with a port. No name of a machine: it may stand for several addresses, and who else can
/// reach them should be seen in what is typed. `localhost` is the one that everybody means alike.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let text = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    text.parse().map_err(|_| {
        "an address and a port are wanted, such as 127.0.0.1:8080 for this machine alone, or 0.0.0.0:8080 for \
         everybody who can reach it"
            .to_owned()
    })
}

/// The beginning of each address of a file that clients are given.
fn public_url(text: &str) -> Result<String, String> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let is_good = |rest: &str| {
        rest.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '[')
            && !rest.contains(|letter: char| letter.is_whitespace() || "?#@".contains(letter))
    };
    if rest.is_some_and(is_good) {
        return Ok(text.to_owned());
    }
    Err("a URL is wanted, such as https://launch.example.org".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_listen_at_has_a_port_and_no_name() {
        for (text, address) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::1]:80", "[::1]:80"),
        ] {
            let read = listen_address(text).expect(text);
            assert_eq!(read.to_string(), address);
        }
        for text in [
            "",
            "8080",
            ":8080",
            "127.0.0.1",
            "localhost",
            "localhost:x",
            "host:80",
            "1.2.3.4:80000",
        ] {
            assert!(listen_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_public_url_is_one_that_a_client_can_ask() {
        for text in [
            "https://launch.example.org",
            "http://10.0.0.1:8080",
            "https://[::1]:1/launch/",
        ] {
            assert_eq!(public_url(text).as_deref(), Ok(text));
        }
        for text in [
            "",
            "launch.example.org",
            "ftp://x",
            "https://",
            "https:///x",
            "https://a b",
            "https://a?b",
            "https://u@h",
        ] {
            assert!(public_url(text).is_err(), "{text}");
        }
    }
}
