//! Prints a job's log while it is written, until the job ends.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::failure::{Error, Result};
use crate::host::logs::Reader;
use crate::queue::local::LocalQueue;
use crate::queue::{Item, ItemId};

/// How often the item and its log are looked at.
const PERIOD: Duration = Duration::from_millis(100);

/// In which form a log is printed.
pub enum Form {
    /// As the job wrote it.
    Raw,
    /// An object a line: `{"item": "3", "line": ".."}`.
    Json {
        /// The item.
        item: ItemId,
        /// The beginning of a line whose end has not come yet.
        begun: Vec<u8>,
    },
}

impl Form {
    /// Lines as JSON when that is asked for.
    pub fn new(item: &ItemId, json: bool) -> Form {
        if json {
            Form::Json {
                item: item.clone(),
                begun: Vec::new(),
            }
        } else {
            Form::Raw
        }
    }

    /// Output in this form: as much of it as is ready to be shown.
    fn shown(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let Form::Json { item, begun } = self else {
            return bytes;
        };
        begun.extend(bytes);
        let complete = begun
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let lines: Vec<u8> = begun.drain(..complete).collect();
        lines
            .split_inclusive(|byte| *byte == b'\n')
            .flat_map(|line| json_line(item, line))
            .collect()
    }

    /// A last line without an end.
    fn rest(&mut self) -> Vec<u8> {
        match self {
            Form::Json { item, begun } if !begun.is_empty() => {
                json_line(item, &std::mem::take(begun))
            }
            _ => Vec::new(),
        }
    }
}

fn json_line(item: &ItemId, line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(line);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    format!("{}\n", json!({"item": item.0, "line": text})).into_bytes()
}

/// Prints the log of `id` until the item has ended and all of it is printed. Gives the item as it ended.
pub fn follow(queue: &LocalQueue, id: &ItemId, form: &mut Form) -> Result<Item> {
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
            print_new(reader, form)?;
        }
        if item.state.is_ended() {
            write(&form.rest())?;
            return Ok(item);
        }
        std::thread::sleep(PERIOD);
    }
}

/// Prints all that a log holds by now.
pub fn print_all(path: &Path, form: &mut Form) -> Result<()> {
    print_new(&mut Reader::open(path), form)?;
    write(&form.rest())
}

fn print_new(reader: &mut Reader, form: &mut Form) -> Result<()> {
    loop {
        let bytes = reader.read()?;
        if bytes.is_empty() {
            return Ok(());
        }
        write(&form.shown(bytes))?;
    }
}

fn write(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Error::system("cannot write to standard output", error)),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_wait_for_their_end() {
        let mut form = Form::new(&ItemId("3".to_owned()), true);
        assert_eq!(
            form.shown(b"one\ntw".to_vec()),
            b"{\"item\":\"3\",\"line\":\"one\"}\n"
        );
        assert_eq!(
            form.shown(b"o\n\xff".to_vec()),
            b"{\"item\":\"3\",\"line\":\"two\"}\n"
        );
        assert_eq!(
            form.rest(),
            "{\"item\":\"3\",\"line\":\"\u{fffd}\"}\n".as_bytes()
        );
        assert!(form.rest().is_empty());
    }
}
