//! One file a subcommand: call a room, print the answer. The only code that prints to stdout.

mod agent;
mod config;
mod follow;
mod input;
mod item;
mod items;
mod policy;
mod push;
mod queue;
mod queue_check;
mod render;
#[cfg(feature = "serve")]
mod serve;
mod table;
mod whoami;

pub use queue::queue_config;

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::config::Environment;
use crate::failure::{Error, Result};

/// Runs what the command line asks for. The code is 0 unless the command has one of its own to give.
pub fn run(cli: Cli, environment: &Environment) -> Result<ExitCode> {
    match cli.command.unwrap_or(Command::Agent(Box::new(cli.agent))) {
        Command::Agent(args) => agent::run(&args, environment),
        Command::Config(args) => config::run(&args, environment),
        Command::Policy(args) => policy::run(&args, environment),
        Command::Render(args) => render::run(&args, environment),
        Command::Push(args) => push::run(&args, environment),
        Command::Queue(args) => queue::run(&args, environment),
        Command::Items(args) => items::run(&args, environment),
        Command::Item(args) => item::run(&args, environment),
        Command::Whoami(args) => whoami::run(&args, environment),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args, environment),
    }
}

/// Prints a line of data. A reader that has gone away (`| head`) is no error and ends the program quietly.
fn print(line: impl Display) -> Result<()> {
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Error::system("cannot write to standard output", error)),
        Ok(()) => Ok(()),
    }
}

/// Says something that is not data. Nobody listening is no error.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// What the job's owner should know, a line each.
fn warn(warnings: &[String]) {
    for warning in warnings {
        say(format_args!("warning: {warning}"));
    }
}

/// A logger for what a program that stays has to say. `verbosity` is the number of `-v`.
fn logger(verbosity: u8) -> env_logger::Builder {
    let level = match verbosity {
        0 => log::LevelFilter::Info,
        1 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level).format(|out, record| {
        let level = record.level().as_str().to_lowercase();
        writeln!(
            out,
            "{:.0} {level}: {}",
            jiff::Timestamp::now(),
            record.args()
        )
    });
    builder
}

/// An error as the program's last words, the hint on a line of its own.
pub fn print_error(error: &Error) {
    say(format_args!("error: {error}"));
    if let Some(hint) = &error.hint {
        say(format_args!("hint: {hint}"));
    }
}
