//! What the signals to the agent do: the first ones are passed on to the loop, the last one ends the process.

use std::sync::mpsc::Sender;

use super::Event;
use crate::config::OnSignal;
use crate::failure::Result;
use crate::host::signals;

/// What a shell shows for a program that Ctrl-C ended.
const LEFT_AT_ONCE: i32 = 130;

/// Passes signals on to the loop. The last one of the escalation does not wait for the loop: it ends the process,
/// and containers stay.
pub fn listen(on_signal: OnSignal, events: Sender<Event>) -> Result<()> {
    let mut left = match on_signal {
        OnSignal::Drain => 3,
        OnSignal::Stop => 2,
        OnSignal::Detach => 1,
    };
    signals::listen(move || {
        left -= 1;
        if left == 0 {
            log::warn!("leaving at once: containers that run are left running");
            std::process::exit(LEFT_AT_ONCE);
        }
        let _ = events.send(Event::Signal);
    })
}
