//! All that a job prints, in one place: redacted first, then into its file, onto the terminal, and, for the report,
//! into a short memory of the last lines.

use std::collections::VecDeque;
use std::fmt::Display;

use super::{LogFile, Recorded, Redactor, TerminalLines};
use crate::failure::Result;
use crate::launch::command::Secret;

/// What a report can quote of a job's output.
const REMEMBERED: usize = 8 * 1024;

/// The log of one job.
pub struct JobLog {
    redactor: Redactor,
    file: LogFile,
    terminal: TerminalLines,
    last: VecDeque<u8>,
    at_line_start: bool,
}

impl JobLog {
    /// A log that writes into `file` and onto `terminal` what `redactor` lets through.
    pub fn new(redactor: Redactor, file: LogFile, terminal: TerminalLines) -> JobLog {
        JobLog {
            redactor,
            file,
            terminal,
            last: VecDeque::new(),
            at_line_start: true,
        }
    }

    /// Hides these values too from now on.
    pub fn hide(&mut self, secrets: &[Secret]) {
        self.redactor.add(secrets);
    }

    /// Goes on with a log in which the job's output begins at `from`, as if this process had written it.
    pub fn resume(
        redactor: Redactor,
        file: LogFile,
        terminal: TerminalLines,
        from: u64,
    ) -> Result<JobLog> {
        let mut log = JobLog::new(redactor, file, terminal);
        for piece in log.file.recorded(from)? {
            if let Recorded::Bytes(bytes) = piece {
                log.remember(&bytes);
            }
        }
        log.at_line_start = log.last.back().is_none_or(|byte| *byte == b'\n');
        Ok(log)
    }

    /// How much was written so far.
    pub fn position(&self) -> u64 {
        self.file.position()
    }

    /// The file that all of it goes into.
    pub fn file(&self) -> &LogFile {
        &self.file
    }

    /// A redactor for one stream of the job's output alone.
    pub fn redactor(&self) -> Redactor {
        self.redactor.anew()
    }

    /// Words about the job, such as what a failed command said, without what the log hides.
    pub fn redacted(&self, text: &str) -> String {
        let mut redactor = self.redactor.anew();
        let mut shown = redactor.push(text.as_bytes());
        shown.extend(redactor.finish());
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Takes output of the job, or of a command that is run for it.
    pub fn output(&mut self, bytes: &[u8]) {
        let shown = self.redactor.push(bytes);
        self.remember(&shown);
        self.show(&shown);
    }

    /// Adds a line of the agent's own, on a line of its own. Reports do not quote it: they have said it themselves.
    pub fn note(&mut self, line: impl Display) {
        let held = self.redactor.finish();
        self.remember(&held);
        self.show(&held);
        let newline = if self.at_line_start { "" } else { "\n" };
        let mut shown = self.redactor.push(format!("{newline}{line}\n").as_bytes());
        shown.extend(self.redactor.finish());
        self.file.write_note(&shown);
        self.present(&shown);
    }

    fn show(&mut self, bytes: &[u8]) {
        self.file.write(bytes);
        self.present(bytes);
    }

    fn present(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        self.at_line_start = *last == b'\n';
        self.terminal.push(bytes);
    }

    fn remember(&mut self, bytes: &[u8]) {
        self.last
            .extend(&bytes[bytes.len().saturating_sub(REMEMBERED)..]);
        let over = self.last.len().saturating_sub(REMEMBERED);
        self.last.drain(..over);
    }

    /// The last lines, at most `most` of them, as text.
    pub fn last_lines(&self, most: usize) -> String {
        let bytes: Vec<u8> = self.last.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(most)..].join("\n")
    }

    /// Ends the log. Gives a warning when some of it could not be written.
    pub fn finish(mut self) -> Option<String> {
        let held = self.redactor.finish();
        self.show(&held);
        self.terminal.finish();
        self.file.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::command::Secret;
    use std::sync::{Arc, Mutex};

    #[test]
    fn a_secret_is_in_neither_the_file_nor_the_terminal_nor_the_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1.log");
        let terminal: Arc<Mutex<Vec<u8>>> = Arc::default();
        let mut log = JobLog::new(
            Redactor::new(&[Secret::new("sesame-open")]),
            LogFile::create(&path, 1_000_000).expect("a log"),
            TerminalLines::new(terminal.clone(), "1"),
        );
        log.note("docker run image");
        log.output(b"key is sesame-");
        log.output(b"open\nand no newline");
        log.note("the end");
        let last = log.last_lines(2);
        assert_eq!(log.finish(), None);

        let file = std::fs::read_to_string(&path).expect("a log");
        assert_eq!(
            file,
            "docker run image\nkey is [redacted]\nand no newline\nthe end\n"
        );
        let shown = String::from_utf8(terminal.lock().expect("whole").clone()).expect("UTF-8");
        assert_eq!(
            shown,
            "[1] docker run image\n[1] key is [redacted]\n[1] and no newline\n[1] the end\n"
        );
        assert_eq!(last, "key is [redacted]\nand no newline");
    }

    #[test]
    fn remembers_a_bounded_end_of_a_flood() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = JobLog::new(
            Redactor::default(),
            LogFile::create(&folder.path().join("1.log"), 1_000_000).expect("a log"),
            TerminalLines::new(Arc::new(Mutex::new(std::io::sink())), "1"),
        );
        for n in 0..100_000 {
            log.output(format!("{n}\n").as_bytes());
        }
        assert!(log.last.len() <= REMEMBERED);
        assert_eq!(log.last_lines(2), "99998\n99999");
    }
}
