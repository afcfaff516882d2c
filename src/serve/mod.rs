//! The embedded queue over W&B's protocol, for agents on other machines and for the `wandb` client.
//!
//! - `http.rs` holds the connections and is the only async code; `exchange.rs` is one exchange in plain words.
//! - `routes.rs` says which path is whose, and who gets in.
//! - `graphql.rs` carries out a GraphQL request; `root.rs` are the root objects, and each topic has its own file with
//!   its types and resolvers: `entities.rs`, `queues.rs`, `items.rs`, `agents.rs`, `runs.rs`, ...
//! - Resolvers call the functions of [`crate::queue::local`]. There is no SQL here and no docker, and every resolver
//!   asks `access.rs` whether the caller may.

#![expect(
    clippy::needless_pass_by_value,
    reason = "juniper hands arguments and inputs over by value, and a resolver passes on what it was given"
)]

mod access;
mod agents;
mod artifacts;
mod budget;
mod configs;
mod entities;
pub mod exchange;
mod file_stream;
mod files;
mod graphql;
mod housekeeping;
mod http;
mod ids;
mod items;
mod pages;
mod projects;
mod queues;
mod root;
mod routes;
mod runs;
mod scalars;
mod signed;
mod store;

pub use housekeeping::Housekeeping;
pub use http::{Server, Stopper};
pub use routes::Launch;
