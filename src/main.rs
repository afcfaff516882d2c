//! The hallway: parse argv, read the environment once, dispatch, exit code.

use std::process::ExitCode;

use clap::Parser;
use launch_agent::cli::Cli;
use launch_agent::commands;
use launch_agent::config::Environment;
use launch_agent::host::private;

fn main() -> ExitCode {
    private::write_no_cores();
    let cli = Cli::parse();
    let environment = Environment::read();
    match commands::run(cli, &environment) {
        Ok(code) => code,
        Err(error) => {
            commands::print_error(&error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}
