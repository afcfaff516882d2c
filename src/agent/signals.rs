//! Signals that ask the agent to end: Ctrl-C, SIGTERM, and SIGHUP of a closed terminal.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use super::Event;
use crate::config::OnSignal;
use crate::failure::{Error, Result};

/// What a shell shows for a program that Ctrl-C ended.
const LEFT_AT_ONCE: i32 = 130;

/// Passes signals on to the loop. The last one of the escalation does not wait for the loop: it ends the process,
/// and containers stay.
pub fn listen(on_signal: OnSignal, events: Sender<Event>) -> Result<()> {
    let leave_at = match on_signal {
        OnSignal::Drain => 3,
        OnSignal::Stop => 2,
        OnSignal::Detach => 1,
    };
    let count = AtomicUsize::new(0);
    ctrlc::set_handler(move || {
        if count.fetch_add(1, Ordering::Relaxed) + 1 >= leave_at {
            log::warn!("leaving at once: containers that run are left running");
            std::process::exit(LEFT_AT_ONCE);
        }
        let _ = events.send(Event::Signal);
    })
    .map_err(|cause| Error::system("cannot listen to signals", cause))
}
