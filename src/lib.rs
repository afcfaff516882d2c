//! `launch-agent` takes jobs from a Launch queue, decides the exact `docker run` line of each from the queue's
//! config, runs it, streams its log and reports how it ended.
//!
//! # The rooms
//!
//! - [`launch`] **decides**. Pure: values in, values out; it touches neither disk nor clock nor environment.
//! - [`host`] **does**. The only place that spawns processes and writes a job's log.
//! - [`queue`] **talks**. Where items come from and where their state goes.
//! - [`agent`] **joins** them: the loop, one thread a job, slots, signals, reports.
//! - `serve` (a cargo feature) is the embedded queue's front door for other machines, over W&B's protocol.
//! - [`cli`], [`config`] and [`commands`] are the hallway: words, settings, and one file a subcommand.
//!
//! # One job's path
//!
//! `queue.poll` → [`launch::spec`] reads the spec → [`launch::plan`] settles options, macros and environment and
//! makes the command → `queue.ack` → [`host::runner`] provides the image, runs the container and finds out how it
//! ended → `queue.finish`. Everything that a job runs is a [`launch::command::CommandLine`], which prints as
//! exactly what it runs.

pub mod agent;
pub mod cli;
pub mod commands;
pub mod config;
pub mod failure;
pub mod host;
pub mod launch;
pub mod queue;
#[cfg(feature = "serve")]
pub mod serve;
