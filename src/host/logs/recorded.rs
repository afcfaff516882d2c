//! A log that an earlier process left: what is in it, and how its writer goes on.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::{LogFile, Segment, Tail, mark, segments};

/// A part of what was written into a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many bytes, which were not kept.
    LeftOut(u64),
}

/// Opens a log for more. A process that was ended while it joined the tail to the head left both: where the join was
/// whole the tail goes, and otherwise the join does.
pub(super) fn resume(path: &Path, max_bytes: u64) -> io::Result<LogFile> {
    let head = OpenOptions::new().append(true).open(path)?;
    let mut log = LogFile::new(path, head, max_bytes);
    let kept = kept_segments(path)?;
    let size = log.head.metadata()?.len();
    let Some((head_bytes, left_out)) = cut(path) else {
        log.head_bytes = size;
        return Ok(log);
    };
    let tail_bytes: u64 = kept.iter().map(|segment| segment.bytes).sum();
    let mark_bytes = if left_out > 0 {
        mark(left_out).len() as u64
    } else {
        0
    };
    // A tail is removed from its start, and only once it is joined.
    let is_part_removed = kept.len() == 1 && left_out > 0;
    let is_joined =
        size > head_bytes && (is_part_removed || size >= head_bytes + mark_bytes + tail_bytes);
    if is_joined {
        for segment in &kept {
            std::fs::remove_file(&segment.path)?;
        }
        log.head_bytes = size;
        return Ok(log);
    }
    log.head.set_len(head_bytes)?;
    log.head_bytes = head_bytes;
    if let Some(newest) = kept.last() {
        log.tail = Some(Tail {
            file: OpenOptions::new().append(true).open(&newest.path)?,
            kept,
            left_out,
        });
    }
    Ok(log)
}

/// What was written from `from` on.
pub(super) fn read(path: &Path, from: u64) -> io::Result<Vec<Recorded>> {
    let mut pieces = Vec::new();
    let Some((head_bytes, left_out)) = cut(path) else {
        pieces.push(Recorded::Bytes(bytes_from(path, from, u64::MAX)?));
        return Ok(pieces);
    };
    let mut at = from;
    if at < head_bytes {
        pieces.push(Recorded::Bytes(bytes_from(path, at, head_bytes - at)?));
        at = head_bytes;
    }
    let tail_start = head_bytes + left_out;
    if at < tail_start {
        pieces.push(Recorded::LeftOut(tail_start - at));
        at = tail_start;
    }
    let mut start = tail_start;
    for segment in kept_segments(path)? {
        let skipped = at.saturating_sub(start).min(segment.bytes);
        pieces.push(Recorded::Bytes(bytes_from(
            &segment.path,
            skipped,
            u64::MAX,
        )?));
        start += segment.bytes;
    }
    Ok(pieces)
}

/// Where the head of a log with a tail ends, and how much was left out behind it.
fn cut(path: &Path) -> Option<(u64, u64)> {
    let (_, (head, start)) = segments(path).into_iter().next()?;
    Some((head, start.saturating_sub(head)))
}

fn kept_segments(path: &Path) -> io::Result<Vec<Segment>> {
    let all = segments(path).into_iter();
    all.map(|(path, _)| {
        let bytes = path.metadata()?.len();
        Ok(Segment { path, bytes })
    })
    .collect()
}

fn bytes_from(path: &Path, offset: u64, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pieces: &[Recorded]) -> String {
        let shown = pieces.iter().map(|piece| match piece {
            Recorded::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Recorded::LeftOut(bytes) => format!("<{bytes}>"),
        });
        shown.collect()
    }

    #[test]
    fn a_log_goes_on_after_any_line_as_if_nothing_had_been() {
        let lines: Vec<String> = (0..200u32).map(|n| format!("{n:09}\n")).collect();
        let whole = {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("1.log");
            let mut log = LogFile::create(&path, 400).expect("a log");
            for line in &lines {
                log.write(line.as_bytes());
            }
            assert_eq!(log.finish(), None);
            std::fs::read_to_string(path).expect("a log")
        };
        for cut in 0..lines.len() {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("1.log");
            let mut log = LogFile::create(&path, 400).expect("a log");
            for line in &lines[..cut] {
                log.write(line.as_bytes());
            }
            // The process is killed: nothing is finished.
            std::mem::forget(log);
            let mut log = LogFile::resume(&path, 400).expect("a log");
            assert_eq!(log.position(), cut as u64 * 10, "{cut}");
            let from = (cut / 2) as u64 * 10;
            let shown = text(&log.recorded(from).expect("readable"));
            if !shown.contains('<') {
                assert_eq!(shown, lines[cut / 2..cut].concat());
            }
            for line in &lines[cut..] {
                log.write(line.as_bytes());
            }
            assert_eq!(log.finish(), None);
            assert_eq!(
                std::fs::read_to_string(&path).expect("a log"),
                whole,
                "{cut}"
            );
        }
    }

    #[test]
    fn a_join_that_was_cut_short_is_made_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1.log");
        let build = || {
            let mut log = LogFile::create(&path, 400).expect("a log");
            for n in 0..200u32 {
                log.write(format!("{n:09}\n").as_bytes());
            }
            log
        };
        assert_eq!(build().finish(), None);
        let whole = std::fs::read_to_string(&path).expect("a log");
        let tail_at = whole.find("\n[launch-agent: ").expect("a mark");
        for reached in tail_at..=whole.len() {
            std::mem::forget(build());
            let segments = segments(&path);
            std::fs::write(&path, &whole[..reached]).expect("written");
            if reached == whole.len() {
                std::fs::remove_file(&segments[0].0).expect("removed");
            }
            let log = LogFile::resume(&path, 400).expect("a log");
            assert_eq!(log.finish(), None);
            assert_eq!(
                std::fs::read_to_string(&path).expect("a log"),
                whole,
                "{reached}"
            );
            assert!(super::segments(&path).is_empty());
        }
    }
}
