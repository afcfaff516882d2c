//! Does. The only room that touches this machine: it spawns, streams, stops, and writes logs.

pub mod disk;
pub mod engine;
pub mod files;
pub mod images;
pub mod journal;
pub mod logs;
pub mod machine;
pub mod private;
pub mod process;
pub mod registry;
pub mod runner;
pub mod signals;
pub mod source;
pub mod stop;
pub mod strays;
