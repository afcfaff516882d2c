//! Signals that ask this process to end: Ctrl-C, SIGTERM, and SIGHUP of a closed terminal.

use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{Error, Result};

/// Calls `asked` for each signal that asks the process to end, on a thread of its own.
///
/// A terminal that closes is heard once. Its shell passes on the SIGHUP that it got, and the kernel sends another when
/// the shell has ended: a connection that breaks must not look like a person who asks twice. What `nohup` started does
/// not hear it at all.
pub fn listen(mut asked: impl FnMut() + Send + 'static) -> Result<()> {
    let refused = |cause| Error::system("cannot listen to signals", cause);
    let mut heard = vec![SIGINT, SIGTERM];
    if !is_hangup_ignored() {
        heard.push(SIGHUP);
    }
    let mut signals = Signals::new(heard).map_err(refused)?;
    let listener = thread::Builder::new().name("signals".to_owned());
    let listens = listener.spawn(move || {
        let mut has_hung_up = false;
        for signal in signals.forever() {
            if signal != SIGHUP || !std::mem::replace(&mut has_hung_up, true) {
                asked();
            }
        }
    });
    listens.map(drop).map_err(refused)
}

/// Was this process started with SIGHUP ignored? The kernel shows it as the lowest bit of a number.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.is_some_and(|digits| {
        u64::from_str_radix(digits.trim(), 16).is_ok_and(|signals| signals & 1 == 1)
    })
}
