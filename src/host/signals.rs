//! Signals that ask this process to end: Ctrl-C, SIGTERM, and SIGHUP of a closed terminal.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{Error, Result};

/// Calls `asked` for each signal that asks the process to end, on a thread of its own.
///
/// A terminal that closes is heard once. Its shell passes on the SIGHUP that it got, and the kernel sends another when
/// the shell has ended: a connection that breaks must not look like a person who asks twice. What `nohup` started does
/// not hear it at all. `ctrlc` does not tell which signal came, so it is left Ctrl-C alone.
pub fn listen(asked: impl FnMut() + Send + 'static) -> Result<()> {
    let asked = Arc::new(Mutex::new(asked));
    let of_keyboard = Arc::clone(&asked);
    ctrlc::set_handler(move || call(&of_keyboard))
        .map_err(|cause| Error::system("cannot listen to Ctrl-C", cause))?;
    let refused = |cause| Error::system("cannot listen to signals", cause);
    let mut heard = vec![SIGTERM];
    if !is_hangup_ignored() {
        heard.push(SIGHUP);
    }
    let mut signals = Signals::new(heard).map_err(refused)?;
    let listener = thread::Builder::new().name("signals".to_owned());
    let listens = listener.spawn(move || {
        let mut has_hung_up = false;
        for signal in signals.forever() {
            if signal != SIGHUP || !std::mem::replace(&mut has_hung_up, true) {
                call(&asked);
            }
        }
    });
    listens.map(drop).map_err(refused)
}

fn call(asked: &Mutex<impl FnMut()>) {
    asked.lock().unwrap_or_else(PoisonError::into_inner)();
}

/// Was this process started with SIGHUP ignored? The kernel shows it as the lowest bit of a number.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.is_some_and(|digits| {
        u64::from_str_radix(digits.trim(), 16).is_ok_and(|signals| signals & 1 == 1)
    })
}
