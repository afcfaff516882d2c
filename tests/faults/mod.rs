//! What a machine does to an agent: engines that hang or talk nonsense, full disks, busy databases, floods, clocks.

mod database;
mod disk;
mod engines;
mod flood;
mod hostile;
mod refusals;
mod rootless;
