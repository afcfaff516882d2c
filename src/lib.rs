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
//! `queue.poll` → [`launch::spec`] reads the spec → [`launch::build`] decides which image runs, [`launch::plan`] settles
//! options, macros and environment, [`launch::policy`] judges them, and the commands are made → `queue.ack` →
//! [`host::images`] pulls or builds the image → [`host::runner`] runs the container and finds out how it ended →
//! `queue.finish`. A job that names an artifact is claimed first, and [`agent::code`] fetches its code before the
//! decision. Each step is in [`host::journal`] before it is taken, so that a restarted agent goes on where it was.
//! Everything that a job runs is a [`launch::command::CommandLine`], which prints as exactly what it runs.

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
