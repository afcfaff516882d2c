//! All tests that use the program from outside, in one binary: a module each.

#![expect(
    clippy::disallowed_methods,
    reason = "the rule is about the agent; a test starts what it tests"
)]

mod agent;
mod agent_on_wandb;
mod architecture;
mod cli;
mod clouds;
mod common;
mod docker;
mod faults;
mod fuzz;
mod golden;
mod golden_builds;
mod hangup;
mod images;
mod policy;
mod properties;
mod pulls;
mod queue;
mod registries;
mod restart;
mod restart_docker;
mod restart_steps;
mod secrets;
#[cfg(feature = "serve")]
mod serve;
mod sources;
mod wandb;
