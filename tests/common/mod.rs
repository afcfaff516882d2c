//! Helpers that the tests share.

pub mod sandbox;
#[cfg(feature = "serve")]
pub mod server;
