//! The queue: what every implementation must do (`contract`), and what the embedded one promises beyond that.

pub mod contract;
mod local;
mod many_processes;
mod store;
mod wake;
