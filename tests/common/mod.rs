//! Helpers that the tests share.

pub mod peer;
pub mod sandbox;
#[cfg(feature = "serve")]
pub mod server;
