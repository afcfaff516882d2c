//! A job's log: bytes in, redacted; one bounded file and the terminal out.
//!
//! The file keeps the head and the tail of the output. While the job runs, what comes after the head goes into
//! segment files beside it, of which the last two are kept; at the end they are joined to the head behind a mark
//! that says how much was left out. [`Reader`] follows all of it, before, during and after the join.

mod job_log;
mod reader;
mod recorded;
mod redact;
pub mod seam;
mod terminal;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sys::statvfs::fstatvfs;

pub use job_log::JobLog;
pub use reader::Reader;
pub use recorded::Recorded;
pub use redact::Redactor;
pub use terminal::{Terminal, TerminalLines};

use crate::failure::{Error, Result};

/// The log file of one job, while it is written.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    head: File,
    head_bytes: u64,
    head_limit: u64,
    tail: Option<Tail>,
    segment_limit: u64,
    /// What output leaves free on the disk, in bytes.
    reserve: u64,
    /// Bytes that the disk refused, and the first refusal.
    lost: Option<(u64, io::Error)>,
    /// Those of the lost bytes for which there is no mark in the log yet.
    unmarked: u64,
}

/// What comes after the head: one or two segment files, the older one first.
#[derive(Debug)]
struct Tail {
    kept: Vec<Segment>,
    file: File,
    left_out: u64,
}

#[derive(Debug, Clone)]
struct Segment {
    path: PathBuf,
    bytes: u64,
}

impl LogFile {
    /// Starts a log of at most about `max_bytes`, replacing one that is there. Readable by its owner only.
    pub fn create(path: &Path, max_bytes: u64) -> Result<LogFile> {
        for (segment, _) in segments(path) {
            let _ = std::fs::remove_file(segment);
        }
        let head = create_private(path).map_err(|cause| {
            Error::system(
                format_args!("cannot write the log {}", path.display()),
                cause,
            )
        })?;
        Ok(LogFile::new(path, head, max_bytes))
    }

    /// Goes on with a log that an earlier process left, wherever it was in it; one that is gone begins anew.
    pub fn resume(path: &Path, max_bytes: u64) -> Result<LogFile> {
        if !path.exists() {
            return LogFile::create(path, max_bytes);
        }
        recorded::resume(path, max_bytes).map_err(|cause| {
            Error::system(
                format_args!("cannot go on with the log {}", path.display()),
                cause,
            )
        })
    }

    fn new(path: &Path, head: File, max_bytes: u64) -> LogFile {
        LogFile {
            path: path.to_owned(),
            reserve: reserve(&head),
            head,
            head_bytes: 0,
            head_limit: max_bytes / 2,
            tail: None,
            segment_limit: max_bytes / 4,
            lost: None,
            unmarked: 0,
        }
    }

    /// How much was written so far, with what was left out since.
    pub fn position(&self) -> u64 {
        let tail = self.tail.as_ref().map_or(0, |tail| {
            let kept: u64 = tail.kept.iter().map(|segment| segment.bytes).sum();
            tail.left_out + kept
        });
        self.head_bytes + tail
    }

    /// What was written from a position on, as far as it is kept.
    pub fn recorded(&self, from: u64) -> Result<Vec<Recorded>> {
        recorded::read(&self.path, from).map_err(|cause| {
            Error::system(
                format_args!("cannot read the log {}", self.path.display()),
                cause,
            )
        })
    }

    /// When something was last written.
    pub fn written_at(&self) -> Option<SystemTime> {
        let tail = self.tail.as_ref().map(|tail| &tail.file);
        tail.unwrap_or(&self.head).metadata().ok()?.modified().ok()
    }

    /// Adds output. A full disk does not stop the job: what cannot be written is counted, marked where it is missing,
    /// and said at the end.
    pub fn write(&mut self, bytes: &[u8]) {
        if free_bytes(&self.head).is_some_and(|free| free < self.reserve) {
            let full = "the disk is full but for what the queue needs";
            self.lose(bytes, io::Error::new(io::ErrorKind::StorageFull, full));
            return;
        }
        self.put(bytes);
    }

    /// Adds a line of the agent's own, which may use the last of the disk.
    pub fn write_note(&mut self, bytes: &[u8]) {
        self.put(bytes);
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.unmarked > 0 {
            match self.write_all(mark(self.unmarked).as_bytes()) {
                Ok(()) => self.unmarked = 0,
                Err((_, cause)) => return self.lose(bytes, cause),
            }
        }
        if let Err((rest, cause)) = self.write_all(bytes) {
            self.lose(rest, cause);
        }
    }

    fn lose(&mut self, bytes: &[u8], cause: io::Error) {
        let lost = bytes.len() as u64;
        self.unmarked += lost;
        match &mut self.lost {
            Some((total, _)) => *total += lost,
            None => self.lost = Some((lost, cause)),
        }
    }

    /// An error comes with the bytes that could not be written.
    fn write_all<'a>(&mut self, mut bytes: &'a [u8]) -> Result<(), (&'a [u8], io::Error)> {
        while !bytes.is_empty() {
            match self.write_some(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(cause) => return Err((bytes, cause)),
            }
        }
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.head_limit.saturating_sub(self.head_bytes);
        if self.tail.is_none() && room > 0 {
            let written = self.head.write(prefix(bytes, room))?;
            self.head_bytes += written as u64;
            return Ok(written);
        }
        let tail = match &mut self.tail {
            Some(tail) => tail,
            None => self.tail.insert(Tail::start(&self.path, self.head_bytes)?),
        };
        tail.write_some(&self.path, self.head_bytes, self.segment_limit, bytes)
    }

    /// Ends the log: joins head and tail into one file. Gives a warning when something could not be written.
    pub fn finish(mut self) -> Option<String> {
        let joined = match self.tail.take() {
            None => Ok(()),
            Some(tail) => self.join(&tail).inspect_err(|_| {
                // Half of a tail helps nobody, and the disk may have no room for it: the files beside the log have it.
                let _ = self.head.set_len(self.head_bytes);
            }),
        };
        let name = self.path.display();
        match (self.lost, joined) {
            (Some((bytes, cause)), _) => Some(format!(
                "{bytes} bytes of the log {name} could not be written: {cause}"
            )),
            (None, Err(cause)) => Some(format!(
                "the end of the log {name} is still in files beside it: {cause}"
            )),
            (None, Ok(())) => None,
        }
    }

    fn join(&mut self, tail: &Tail) -> io::Result<()> {
        if tail.left_out > 0 {
            self.head.write_all(mark(tail.left_out).as_bytes())?;
        }
        for segment in &tail.kept {
            io::copy(&mut File::open(&segment.path)?, &mut self.head)?;
        }
        for segment in &tail.kept {
            std::fs::remove_file(&segment.path)?;
        }
        Ok(())
    }
}

impl Tail {
    fn start(log: &Path, head_bytes: u64) -> io::Result<Tail> {
        let path = segment_path(log, head_bytes, head_bytes);
        let file = create_private(&path)?;
        Ok(Tail {
            kept: vec![Segment { path, bytes: 0 }],
            file,
            left_out: 0,
        })
    }

    fn write_some(
        &mut self,
        log: &Path,
        head_bytes: u64,
        limit: u64,
        bytes: &[u8],
    ) -> io::Result<usize> {
        let newest = self.kept.last().map_or(0, |segment| segment.bytes);
        if newest >= limit {
            self.rotate(log, head_bytes)?;
        }
        let room = limit - self.kept.last().map_or(0, |segment| segment.bytes);
        let written = self.file.write(prefix(bytes, room))?;
        if let Some(segment) = self.kept.last_mut() {
            segment.bytes += written as u64;
        }
        Ok(written)
    }

    /// Begins a new segment, and drops the oldest when there would be three.
    fn rotate(&mut self, log: &Path, head_bytes: u64) -> io::Result<()> {
        if self.kept.len() == 2 {
            let oldest = self.kept.remove(0);
            self.left_out += oldest.bytes;
            std::fs::remove_file(&oldest.path)?;
        }
        let kept: u64 = self.kept.iter().map(|segment| segment.bytes).sum();
        let path = segment_path(log, head_bytes, head_bytes + self.left_out + kept);
        self.file = create_private(&path)?;
        self.kept.push(Segment { path, bytes: 0 });
        Ok(())
    }
}

/// What output leaves free: the queue's database is most often on the same disk, and must still be able to take down
/// how the job ended. Of a very small disk, a part.
fn reserve(file: &File) -> u64 {
    const RESERVE: u64 = 8 << 20;
    fstatvfs(file).map_or(0, |disk| {
        RESERVE.min(disk.blocks() * disk.fragment_size() / 8)
    })
}

/// How much room there is on the disk of a file, where the system says.
fn free_bytes(file: &File) -> Option<u64> {
    let disk = fstatvfs(file).ok()?;
    Some(disk.blocks_available() * disk.fragment_size())
}

fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn prefix(bytes: &[u8], room: u64) -> &[u8] {
    &bytes[..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX))]
}

const MARK_START: &str = "\n[launch-agent: ";
const MARK_END: &str = " bytes were left out here]\n";

/// The line that stands where output was left out.
fn mark(left_out: u64) -> String {
    format!("{MARK_START}{left_out}{MARK_END}")
}

/// A segment's name says where the head ends and where in the whole output the segment begins.
fn segment_path(log: &Path, head_bytes: u64, start: u64) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".tail-{head_bytes}-{start}"));
    PathBuf::from(name)
}

/// The segments of a log with their `(head bytes, start)`, in the order of the output.
fn segments(log: &Path) -> Vec<(PathBuf, (u64, u64))> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name()) else {
        return Vec::new();
    };
    let prefix = format!("{}.tail-", name.to_string_lossy());
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let numbers = path
                .file_name()?
                .to_str()?
                .strip_prefix(&prefix)?
                .to_owned();
            let (head, start) = numbers.split_once('-')?;
            Some((path, (head.parse().ok()?, start.parse().ok()?)))
        })
        .collect();
    found.sort_by_key(|(_, numbers)| *numbers);
    found
}

/// Removes a job's log with everything that belongs to it. A log that is not there is no error.
pub fn remove(log: &Path) -> io::Result<()> {
    for (segment, _) in segments(log) {
        std::fs::remove_file(segment)?;
    }
    match std::fs::remove_file(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(max: u64, chunks: &[&[u8]]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1.log");
        let mut log = LogFile::create(&path, max).expect("a log");
        for chunk in chunks {
            log.write(chunk);
        }
        assert_eq!(log.finish(), None);
        (folder, path)
    }

    #[test]
    fn a_short_log_is_kept_whole() {
        let (_folder, path) = written(100, &[b"one\n", b"two\n"]);
        assert_eq!(std::fs::read(path).expect("a log"), b"one\ntwo\n");
    }

    #[test]
    fn a_long_log_keeps_head_and_tail_and_marks_the_cut() {
        let output: Vec<u8> = (0..1000u32)
            .flat_map(|n| format!("{n:09}\n").into_bytes())
            .collect();
        let (folder, path) = written(400, &[&output]);
        let log = String::from_utf8(std::fs::read(&path).expect("a log")).expect("UTF-8");
        assert!(log.starts_with("000000000\n000000001\n"), "{log}");
        assert!(log.ends_with("000000998\n000000999\n"), "{log}");
        let (head, rest) = log.split_once(MARK_START).expect("a mark");
        let (count, tail) = rest.split_once(MARK_END).expect("a mark");
        let count: usize = count.parse().expect("a count");
        assert_eq!(head.len() + count + tail.len(), output.len());
        assert!(log.len() <= 460, "{}", log.len());
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            1,
            "segments are gone"
        );
    }

    #[test]
    fn a_log_that_just_passes_the_head_has_no_mark() {
        let (_folder, path) = written(100, &[&[b'x'; 60], &[b'y'; 15]]);
        assert_eq!(std::fs::read(path).expect("a log").len(), 75);
    }

    #[test]
    fn output_leaves_the_queue_room_on_the_disk_and_notes_say_what_is_missing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1.log");
        let mut log = LogFile::create(&path, 1000).expect("a log");
        log.write(b"one\n");
        let reserve = std::mem::replace(&mut log.reserve, u64::MAX);
        log.write(b"two\n");
        log.write(b"three\n");
        log.write_note(b"a note\n");
        log.reserve = reserve;
        log.write(b"four\n");
        let warning = log.finish().expect("a warning");
        assert!(
            warning.starts_with("10 bytes of the log ") && warning.contains("the disk is full"),
            "{warning}"
        );
        assert_eq!(
            std::fs::read_to_string(&path).expect("a log"),
            "one\n\n[launch-agent: 10 bytes were left out here]\na note\nfour\n"
        );
    }

    #[test]
    fn a_full_disk_loses_output_and_says_so_but_does_not_stop() {
        let mut log = LogFile::create(Path::new("/dev/full"), 100).expect("a log");
        log.write(b"some output");
        log.write(b" and more");
        let warning = log.finish().expect("a warning");
        assert!(
            warning
                .starts_with("20 bytes of the log /dev/full could not be written: No space left"),
            "{warning}"
        );
    }
}
