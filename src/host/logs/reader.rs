//! Reads a job's log while it is written, and after.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{MARK_END, MARK_START, mark, segments};
use crate::failure::{Error, Result};

/// The most that one call gives.
const CHUNK: u64 = 1 << 20;

/// Gives a job's log piece by piece, each byte once, whatever the writer does with its files meanwhile.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    at: At,
}

#[derive(Debug, Clone, Copy)]
enum At {
    /// In the log's main file: the offset in that file.
    Main(u64),
    /// In the segments: the offset in the whole output, and where the head ends.
    Tail { output: u64, head: u64 },
}

impl Reader {
    /// A reader at the start of `path`. The file need not exist yet.
    pub fn open(path: &Path) -> Reader {
        Reader {
            path: path.to_owned(),
            at: At::Main(0),
        }
    }

    /// What is new since the last call; empty when nothing is.
    pub fn read(&mut self) -> Result<Vec<u8>> {
        self.try_read().map_err(|cause| {
            Error::system(
                format_args!("cannot read the log {}", self.path.display()),
                cause,
            )
        })
    }

    fn try_read(&mut self) -> io::Result<Vec<u8>> {
        match self.at {
            At::Main(offset) => self.read_main(offset),
            At::Tail { output, head } => self.read_tail(output, head),
        }
    }

    fn read_main(&mut self, offset: u64) -> io::Result<Vec<u8>> {
        let all = segments(&self.path);
        let Some((_, (head, _))) = all.first() else {
            let bytes = read_at(&self.path, offset, CHUNK)?;
            self.at = At::Main(offset + bytes.len() as u64);
            return Ok(bytes);
        };
        // The writer may be joining: what stands in the main file beyond the head is in the segments as well.
        if offset < *head {
            let bytes = read_at(&self.path, offset, CHUNK.min(head - offset))?;
            self.at = At::Main(offset + bytes.len() as u64);
            return Ok(bytes);
        }
        self.read_tail(offset, *head)
    }

    fn read_tail(&mut self, output: u64, head: u64) -> io::Result<Vec<u8>> {
        self.at = At::Tail { output, head };
        let all = segments(&self.path);
        let Some((_, (_, first))) = all.first() else {
            return self.read_joined(output, head);
        };
        if output < *first {
            self.at = At::Tail {
                output: *first,
                head,
            };
            return Ok(mark(first - output).into_bytes());
        }
        let Some((path, (_, start))) = all.iter().rev().find(|(_, (_, start))| *start <= output)
        else {
            return Ok(Vec::new());
        };
        let bytes = read_at(path, output - start, CHUNK)?;
        self.at = At::Tail {
            output: output + bytes.len() as u64,
            head,
        };
        Ok(bytes)
    }

    /// The segments are gone: the writer has joined them to the head, behind a mark that says how much is missing.
    fn read_joined(&mut self, output: u64, head: u64) -> io::Result<Vec<u8>> {
        let start = read_at(&self.path, head, 100)?;
        let missing = left_out(&start).unwrap_or(0);
        let mark_bytes = if missing > 0 {
            mark(missing).len() as u64
        } else {
            0
        };
        // What was left out after this reader's place is shown by the mark itself.
        let offset = match output.checked_sub(head + missing) {
            Some(beyond) => head + mark_bytes + beyond,
            None => head,
        };
        self.at = At::Main(offset);
        self.read_main(offset)
    }
}

fn left_out(text: &[u8]) -> Option<u64> {
    let rest = text.strip_prefix(MARK_START.as_bytes())?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    rest[digits..]
        .starts_with(MARK_END.as_bytes())
        .then_some(())?;
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

/// Up to `most` bytes from `offset`. A file that is not there yet, or no longer, has none.
fn read_at(path: &Path, offset: u64, most: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::LogFile;
    use super::*;

    fn read_all(reader: &mut Reader) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let bytes = reader.read().expect("readable");
            if bytes.is_empty() {
                return all;
            }
            all.extend(bytes);
        }
    }

    #[test]
    fn a_follower_sees_every_byte_once_across_segments_and_the_join() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1.log");
        let mut reader = Reader::open(&path);
        assert!(read_all(&mut reader).is_empty(), "no log yet");

        let mut log = LogFile::create(&path, 4000).expect("a log");
        let (mut written, mut seen) = (Vec::new(), Vec::new());
        for n in 0..1000u32 {
            let line = format!("{n:09}\n");
            log.write(line.as_bytes());
            written.extend(line.into_bytes());
            seen.extend(read_all(&mut reader));
        }
        log.write(b"unread before the join\n");
        written.extend(b"unread before the join\n");
        assert_eq!(log.finish(), None);
        seen.extend(read_all(&mut reader));
        assert!(seen == written, "{}", String::from_utf8_lossy(&seen));
    }

    #[test]
    fn a_slow_follower_gets_a_mark_for_what_it_missed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1.log");
        let mut log = LogFile::create(&path, 4000).expect("a log");
        let mut reader = Reader::open(&path);
        for n in 0..1000u32 {
            log.write(format!("{n:09}\n").as_bytes());
        }
        let seen = String::from_utf8(read_all(&mut reader)).expect("UTF-8");
        assert_eq!(
            seen.matches("bytes were left out here").count(),
            1,
            "{seen}"
        );
        assert!(seen.ends_with("000000999\n"), "{seen}");

        assert_eq!(log.finish(), None);
        assert!(read_all(&mut reader).is_empty());
        let joined = read_all(&mut Reader::open(&path));
        assert_eq!(String::from_utf8(joined).expect("UTF-8"), seen);
    }
}
