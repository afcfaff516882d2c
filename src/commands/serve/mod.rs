//! `launch-agent serve`: the embedded queue for other machines.

mod agents;
mod keys;
mod runs;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::say;
use crate::cli::BackendArgs;
use crate::cli::serve::{DatabaseArgs, ListenArgs, ServeArgs, ServeCommand};
use crate::config::{AgentConfig, Environment};
use crate::failure::Result;
use crate::host::signals;
use crate::queue::local::LocalQueue;
use crate::serve::exchange::Limits;
use crate::serve::{Housekeeping, Launch, Server};

/// Bytes of a GiB, in which people give a quota.
const GIB: u64 = 1 << 30;

pub fn run(args: &ServeArgs, environment: &Environment) -> Result<ExitCode> {
    match &args.command {
        Some(ServeCommand::Key(args)) => keys::run(&args.command, environment),
        Some(ServeCommand::Agent(args)) => agents::run(&args.command, environment),
        Some(ServeCommand::Run(args)) => runs::run(&args.command, environment),
        None => serve(&args.listen, environment),
    }
}

/// The queue that is served. It is made when it is missing: whoever sets a server up begins here.
fn queue(args: &DatabaseArgs, environment: &Environment) -> Result<LocalQueue> {
    let backend = BackendArgs {
        // With a W&B key in the environment the embedded queue has to be named; here it is the only one.
        local: Some(args.local.clone().unwrap_or_default()),
        agent_config: None,
        base_url: None,
    };
    let config = AgentConfig::for_command(&backend, environment)?;
    LocalQueue::open(&config.local_database()?)
}

fn serve(args: &ListenArgs, environment: &Environment) -> Result<ExitCode> {
    super::logger(args.verbose).init();
    let queue = Arc::new(queue(&args.database, environment)?);
    let keys = queue.keys()?;
    if keys.iter().all(|key| key.revoked_at.is_some()) {
        say(format_args!(
            "there is no key {}, so nobody can get in; `launch-agent serve key create USER` makes one",
            if keys.is_empty() {
                "yet"
            } else {
                "that is not revoked"
            }
        ));
    }
    let server = Server::bind(args.listen, Limits::default())?;
    let address = server.address()?;
    let stopper = server.stopper();
    signals::listen(move || stopper.stop())?;
    say(format_args!(
        "serving {} at http://{address}",
        queue.path().display()
    ));
    if let Some(warning) = warning(address) {
        say(warning);
    }
    let _housekeeping =
        Housekeeping::start(Arc::clone(&queue), Duration::from_secs(args.lost_after))?;
    server.run(Arc::new(Launch::new(
        Arc::clone(&queue),
        args.public_url.clone(),
        args.disk_quota.saturating_mul(GIB),
    )?))?;
    say("stopped");
    Ok(ExitCode::SUCCESS)
}

/// What it means to listen at an address that other machines reach; nothing for one that they do not.
fn warning(address: SocketAddr) -> Option<String> {
    let port = address.port();
    (!address.ip().is_loopback()).then(|| {
        format!(
            "whoever can reach {address} can try keys, and reads those of others on the way: this is HTTP without TLS. \
             Let a proxy with a certificate listen instead (`caddy reverse-proxy --from launch.example.org --to \
             127.0.0.1:{port}`), and start this with `--listen 127.0.0.1:{port} --public-url \
             https://launch.example.org`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_others_reach_comes_with_a_warning() {
        for (address, warns) in [
            ("127.0.0.1:8080", false),
            ("127.0.0.2:1", false),
            ("[::1]:8080", false),
            ("0.0.0.0:8080", true),
            ("[::]:8080", true),
            ("10.0.0.1:80", true),
        ] {
            let said = warning(address.parse().expect("an address"));
            assert_eq!(said.is_some(), warns, "{address}");
        }
    }
}
