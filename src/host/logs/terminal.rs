//! A job's output on the agent's terminal: whole lines, each with the item in front.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where the lines of all jobs go. Shared by the job threads; one call writes whole lines.
pub type Terminal = Arc<Mutex<dyn Write + Send>>;

/// A line longer than this is shown in pieces, so that a job without newlines cannot fill the memory.
const LONGEST_LINE: usize = 16 * 1024;

/// How often a progress bar that redraws itself is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Cuts one job's output into lines. A carriage return redraws a line, as on a terminal: of a progress bar only the
/// state about each second, and the last one, is shown.
pub struct TerminalLines {
    terminal: Terminal,
    prefix: String,
    line: Vec<u8>,
    /// The line as it was before the last carriage return.
    redrawn: Vec<u8>,
    progress_shown: Option<Instant>,
}

impl TerminalLines {
    /// Lines for `terminal` that begin with `[item] `.
    pub fn new(terminal: Terminal, item: &str) -> TerminalLines {
        TerminalLines {
            terminal,
            prefix: format!("[{item}] "),
            line: Vec::new(),
            redrawn: Vec::new(),
            progress_shown: None,
        }
    }

    /// Shows the lines that `bytes` completes.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut shown = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(&mut shown),
                b'\r' => self.redraw(&mut shown),
                byte => {
                    self.line.push(byte);
                    if self.line.len() >= LONGEST_LINE {
                        self.end_line(&mut shown);
                    }
                }
            }
        }
        self.write(&shown);
    }

    /// Shows an unfinished last line.
    pub fn finish(&mut self) {
        let mut shown = Vec::new();
        if !self.line.is_empty() || !self.redrawn.is_empty() {
            self.end_line(&mut shown);
        }
        self.write(&shown);
    }

    fn end_line(&mut self, shown: &mut Vec<u8>) {
        // `100%\r\n` ends with nothing after the return: the line is what stood before it.
        let line = if self.line.is_empty() {
            &self.redrawn
        } else {
            &self.line
        };
        show(&self.prefix, line, shown);
        self.line.clear();
        self.redrawn.clear();
    }

    fn redraw(&mut self, shown: &mut Vec<u8>) {
        if self.line.is_empty() {
            return;
        }
        self.redrawn = std::mem::take(&mut self.line);
        if self
            .progress_shown
            .is_none_or(|last| last.elapsed() >= PROGRESS_EVERY)
        {
            // The first redraw of a line is not yet progress: `text\r\n` is how some programs end every line.
            if self.progress_shown.is_some() {
                show(&self.prefix, &self.redrawn, shown);
                self.redrawn.clear();
            }
            self.progress_shown = Some(Instant::now());
        }
    }

    fn write(&self, shown: &[u8]) {
        if !shown.is_empty() {
            // A terminal that has gone away must not end the jobs: their log files go on.
            let _ = self
                .terminal
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write_all(shown);
        }
    }
}

fn show(prefix: &str, line: &[u8], shown: &mut Vec<u8>) {
    shown.extend_from_slice(prefix.as_bytes());
    shown.extend_from_slice(String::from_utf8_lossy(line).as_bytes());
    shown.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(chunks: &[&[u8]]) -> String {
        let written: Arc<Mutex<Vec<u8>>> = Arc::default();
        let mut lines = TerminalLines::new(written.clone(), "7");
        for chunk in chunks {
            lines.push(chunk);
        }
        lines.finish();
        let bytes = written.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn each_line_names_its_item() {
        assert_eq!(
            shown(&[b"one\ntw", b"o\n\nthree"]),
            "[7] one\n[7] two\n[7] \n[7] three\n"
        );
    }

    #[test]
    fn lines_that_end_in_return_and_newline_are_lines() {
        assert_eq!(shown(&[b"one\r\ntwo\r\n"]), "[7] one\n[7] two\n");
    }

    #[test]
    fn a_progress_bar_shows_its_last_state() {
        assert_eq!(
            shown(&[b"\r 1%\r 2%\r 3%", b"\r100%\ndone\n"]),
            "[7] 100%\n[7] done\n"
        );
    }

    #[test]
    fn bytes_that_are_not_text_do_no_harm() {
        assert_eq!(shown(&[b"\xff\xfe\n"]), "[7] \u{fffd}\u{fffd}\n");
    }

    #[test]
    fn a_line_without_end_is_shown_in_pieces() {
        let text = shown(&[&vec![b'x'; 3 * LONGEST_LINE]]);
        assert_eq!(text.lines().count(), 3);
    }
}
