//! Where docker's record of a container's output goes on from what a job's log has of it.
//!
//! The log has both of a container's streams in one, in the order in which they came; docker keeps them apart. So the
//! log must be a mixture of the beginnings of the two, and how long these beginnings are is what is looked for: from
//! there on nothing is doubled and nothing is missing. Pure: bytes in, a place out.

use super::Recorded;

/// What docker's logs make of a byte that is not UTF-8.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// More ways than this to see the log are not followed up: they differ in lines that look the same.
const MOST_WAYS: usize = 256;

/// How the lines begin that are not the container's: those that docker's client adds to its output when it loses it, and
/// the agent's own.
const OTHERS: [&[u8]; 5] = [
    b"[launch-agent: ",
    b"time=\"",
    b"docker: ",
    b"error waiting for container: ",
    b"unexpected EOF",
];

/// How much of each stream a log has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seam {
    /// Bytes of standard output.
    pub stdout: usize,
    /// Bytes of standard error.
    pub stderr: usize,
    /// The start of a line that the log has and docker's record does not have yet: it keeps whole lines.
    pub unfinished: Vec<u8>,
}

/// Finds the seam; `None` when the log is no mixture of the two streams.
pub fn find(recorded: &[Recorded], stdout: &[u8], stderr: &[u8]) -> Option<Seam> {
    let mut search = Search {
        stdout,
        stderr,
        ways: vec![Way::default()],
        unfinished: Vec::new(),
    };
    for piece in recorded {
        match piece {
            Recorded::Bytes(bytes) => {
                for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                    search.line(line)?;
                }
            }
            Recorded::LeftOut(bytes) => search.skip(*bytes)?,
        }
    }
    let way = search.ways.first()?;
    Some(Seam {
        stdout: way.stdout,
        stderr: way.stderr,
        unfinished: search.unfinished,
    })
}

/// One way to see the log so far: so much of either stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Way {
    stdout: usize,
    stderr: usize,
}

struct Search<'a> {
    stdout: &'a [u8],
    stderr: &'a [u8],
    ways: Vec<Way>,
    unfinished: Vec<u8>,
}

impl Search<'_> {
    fn line(&mut self, line: &[u8]) -> Option<()> {
        let is_others = OTHERS.iter().any(|start| line.starts_with(start));
        let before = is_others.then(|| (self.ways.clone(), self.unfinished.len()));
        let fits = line.iter().try_for_each(|byte| self.byte(*byte)).is_some();
        let is_new =
            |unfinished: usize| before.as_ref().is_some_and(|(_, then)| unfinished > *then);
        if fits && !is_new(self.unfinished.len()) {
            return Some(());
        }
        // Not of the container: the log goes on behind it as if it were not there.
        let (ways, unfinished) = before?;
        self.ways = ways;
        self.unfinished.truncate(unfinished);
        Some(())
    }

    fn byte(&mut self, byte: u8) -> Option<()> {
        if let [way] = self.ways[..]
            && self.stderr.get(way.stderr) != Some(&byte)
            && self.stdout.get(way.stdout) == Some(&byte)
        {
            self.ways[0].stdout += 1;
            return Some(());
        }
        let mut next = Vec::with_capacity(self.ways.len());
        for way in &self.ways {
            next.extend(steps(self.stdout, way.stdout, byte).map(|stdout| Way { stdout, ..*way }));
            next.extend(steps(self.stderr, way.stderr, byte).map(|stderr| Way { stderr, ..*way }));
        }
        next.sort_unstable();
        next.dedup();
        next.truncate(MOST_WAYS.max(self.ways.len()));
        if next.is_empty() {
            return self.unfinished_byte(byte);
        }
        self.ways = next;
        Some(())
    }

    /// A byte that docker's record does not have can only be of a line that has not ended, where the record ends.
    fn unfinished_byte(&mut self, byte: u8) -> Option<()> {
        let (stdout, stderr) = (self.stdout.len(), self.stderr.len());
        self.ways
            .retain(|way| way.stdout == stdout || way.stderr == stderr);
        if byte == b'\n' || self.ways.is_empty() {
            return None;
        }
        self.unfinished.push(byte);
        Some(())
    }

    /// The log leaves so many bytes out. Whichever stream they were of, all is tried.
    fn skip(&mut self, bytes: u64) -> Option<()> {
        let bytes = usize::try_from(bytes).ok()?;
        let mut next = Vec::new();
        for way in &self.ways {
            let of_errors = (self.stderr.len() - way.stderr).min(bytes);
            let of_output = (self.stdout.len() - way.stdout).min(bytes);
            for errors in bytes - of_output.min(bytes)..=of_errors {
                next.push(Way {
                    stdout: way.stdout + bytes - errors,
                    stderr: way.stderr + errors,
                });
            }
        }
        self.ways = next;
        (!self.ways.is_empty()).then_some(())
    }
}

/// Where a stream may stand after this byte of the log.
fn steps(stream: &[u8], at: usize, byte: u8) -> impl Iterator<Item = usize> {
    let same = (stream.get(at) == Some(&byte)).then_some(at + 1);
    let replaced = (byte >= 0x80 && stream[at..].starts_with(REPLACEMENT)).then_some(at + 3);
    same.into_iter().chain(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<Recorded> {
        vec![Recorded::Bytes(text.as_bytes().to_vec())]
    }

    fn seam(log: &str, stdout: &str, stderr: &str) -> Option<(usize, usize, String)> {
        let seam = find(&bytes(log), stdout.as_bytes(), stderr.as_bytes())?;
        let unfinished = String::from_utf8(seam.unfinished).expect("text");
        Some((seam.stdout, seam.stderr, unfinished))
    }

    #[test]
    fn finds_how_much_of_each_stream_a_log_has() {
        for (log, stdout, stderr, expected) in [
            ("", "1\n2\n", "", Some((0, 0, ""))),
            ("1\n", "1\n2\n", "", Some((2, 0, ""))),
            ("1\n2\n", "1\n2\n", "", Some((4, 0, ""))),
            // In the middle of a line that docker has whole.
            ("1\n2", "1\n22\n", "", Some((3, 0, ""))),
            // Of two streams, wherever the one was written between the other's lines, or in one.
            ("a\nE\nb\n", "a\nb\nc\n", "E\nF\n", Some((4, 2, ""))),
            ("aE\nb\n", "ab\nc\n", "E\nF\n", Some((3, 2, ""))),
            // The first `x` must be seen as the error, which shows only later.
            ("x\nx\ny\n", "x\nz\n", "x\ny\n", Some((2, 4, ""))),
            // A progress bar that has not ended its line is not in docker's record.
            ("1\n50%\r60%", "1\n", "", Some((2, 0, "50%\r60%"))),
            ("50%a\nb\n", "a\nb\n", "", Some((4, 0, "50%"))),
            // What the client adds when it loses its container is not the job's.
            (
                "1\ntime=\"2026\" level=error msg=\"unexpected EOF\"\n2\n",
                "1\n2\n3\n",
                "",
                Some((4, 0, "")),
            ),
            // What the agent said itself is not the job's either; a job may say the same.
            (
                "1\n[launch-agent: lines may be missing here]\n2\n[launch-agent: exit code 3]\n",
                "1\n2\n3\n",
                "",
                Some((4, 0, "")),
            ),
            (
                "[launch-agent: x]\n",
                "[launch-agent: x]\ny\n",
                "",
                Some((18, 0, "")),
            ),
            // Another container's log.
            ("1\n2\n", "2\n3\n", "", None),
            ("1\n2\n", "", "", None),
        ] {
            let expected = expected.map(|(a, b, rest)| (a, b, rest.to_owned()));
            assert_eq!(seam(log, stdout, stderr), expected, "{log:?}");
        }
    }

    #[test]
    fn a_byte_that_is_not_text_is_found_as_what_docker_made_of_it() {
        let log = [Recorded::Bytes(b"a\xff\xfe\n\xc3\xa9\n".to_vec())];
        let record = "a\u{fffd}\u{fffd}\n\u{e9}\nnext";
        let seam = find(&log, record.as_bytes(), b"").expect("a seam");
        assert_eq!(&record[seam.stdout..], "next");
    }

    #[test]
    fn what_the_log_left_out_is_counted() {
        let lines: Vec<String> = (0..1000).map(|n| format!("{n:04}\n")).collect();
        let (stdout, stderr) = (lines.concat(), "w1\nw2\n".to_owned());
        // The warnings came first and in the middle of what was left out.
        let all = format!(
            "w1\n{}w2\n{}",
            lines[..500].concat(),
            lines[500..900].concat()
        );
        let log = [
            Recorded::Bytes(all.as_bytes()[..100].to_vec()),
            Recorded::LeftOut(4000),
            Recorded::Bytes(all.as_bytes()[4100..].to_vec()),
        ];
        let seam = find(&log, stdout.as_bytes(), stderr.as_bytes()).expect("a seam");
        assert_eq!((seam.stdout, seam.stderr), (900 * 5, 6));
    }
}

#[cfg(test)]
mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Lines of few letters, so that the streams are often alike: what follows the seam, put behind the log, is
        /// a whole mixture of both.
        #[test]
        fn nothing_is_doubled_and_nothing_is_missing(
            written in prop::collection::vec((any::<bool>(), "[ab]{0,3}\n"), 0..40), cut in 0usize..200
        ) {
            let of = |stream: bool| -> String {
                written.iter().filter(|(is_error, _)| *is_error == stream).map(|(_, text)| text.as_str()).collect()
            };
            let (stdout, stderr) = (of(false), of(true));
            let all: String = written.iter().map(|(_, text)| text.as_str()).collect();
            let log = &all[..cut.min(all.len())];
            let seam = find(&[Recorded::Bytes(log.as_bytes().to_vec())], stdout.as_bytes(), stderr.as_bytes());
            let seam = seam.expect("the log is such a mixture");
            prop_assert_eq!(seam.stdout + seam.stderr, log.len());
            prop_assert!(seam.unfinished.is_empty());
            let count = |text: &str, byte: char| text.matches(byte).count();
            for byte in ['a', 'b', '\n'] {
                let rest = count(&stdout[seam.stdout..], byte) + count(&stderr[seam.stderr..], byte);
                prop_assert_eq!(count(log, byte) + rest, count(&all, byte));
            }
        }
    }
}
