//! Decides. Pure: values in, values out. Nothing in this folder reads the clock, the environment, the disk or the
//! network, or starts anything; `tests/architecture.rs` holds it to that.

pub mod command;
pub mod docker;
pub mod docker_options;
pub mod document;
pub mod image;
pub mod job;
pub mod job_env;
pub mod macros;
pub mod plan;
pub mod policy;
pub mod python_json;
pub mod registry;
pub mod resource_args;
pub mod spec;
pub mod template;
pub mod transfer;
