//! Prints a job's log while it is written, until the job ends.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use crate::failure::{Error, Result};
use crate::host::logs::Reader;
use crate::queue::local::LocalQueue;
use crate::queue::{Item, ItemId};

/// How often the item and its log are looked at.
const PERIOD: Duration = Duration::from_millis(100);

/// Prints the log of `id` until the item has ended and all of it is printed. Gives the item as it ended.
pub fn follow(queue: &LocalQueue, id: &ItemId) -> Result<Item> {
    let mut open: Option<(PathBuf, Reader)> = None;
    loop {
        // The state first: what an ended job wrote is all in the log that is read after this.
        let item = queue.item(id)?;
        if let Some(path) = &item.log {
            // A retried item has a log of its own, if perhaps of the same name.
            if open.as_ref().is_none_or(|(known, _)| known != path) {
                open = Some((path.clone(), Reader::open(path)));
            }
        } else {
            open = None;
        }
        if let Some((_, reader)) = &mut open {
            print_rest(reader)?;
        }
        if item.state.is_ended() {
            return Ok(item);
        }
        std::thread::sleep(PERIOD);
    }
}

/// Prints all that a log holds by now, as the job wrote it.
pub fn print_rest(reader: &mut Reader) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    loop {
        let bytes = reader.read()?;
        if bytes.is_empty() {
            return Ok(());
        }
        match stdout.write_all(&bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => return Err(Error::system("cannot write to standard output", error)),
            Ok(()) => {}
        }
    }
}
