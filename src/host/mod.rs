//! Does. The only room that touches this machine: it spawns, streams, stops, and writes logs.

pub mod engine;
pub mod files;
pub mod images;
pub mod journal;
pub mod logs;
pub mod machine;
pub mod process;
pub mod registry;
pub mod runner;
pub mod stop;
pub mod strays;
