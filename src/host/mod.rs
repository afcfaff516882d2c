//! Does. The only room that touches this machine: it spawns, streams, stops, and writes logs.

pub mod logs;
