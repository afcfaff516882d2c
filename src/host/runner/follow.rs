//! Follows a container that no client of ours follows any more: its output from where the log has it, and its end.

use std::time::Duration;

use jiff::Timestamp;

use super::{for_a_while, is_known, own_end, patiently, since, unknown_end};
use crate::failure::{Error, Kind, Result};
use crate::host::engine::{self, End};
use crate::host::journal::Started;
use crate::host::logs::seam::{self, Seam};
use crate::host::logs::{JobLog, Recorded, Redactor};
use crate::host::process::{self, Ending, Group, Stream};
use crate::host::stop::{Activity, Stop};
use crate::launch::command::CommandLine;
use crate::launch::docker;

/// A log that is longer than this, in bytes, is not held against docker's record: both would have to be in memory.
const LONGEST: u64 = 128 << 20;

/// How often a container is looked at whose output cannot be followed.
const WATCH: Duration = Duration::from_secs(2);

/// The least time between two looks, whatever docker says.
const LEAST: Duration = Duration::from_millis(50);

/// How long docker may be silent over what it has kept already.
const SILENCE: Duration = Duration::from_secs(30);

/// Follows a container to its end, which is the job's own or an error; `None` when the engine does not know how it
/// ended, or whether it ever ran. `client`: the code that a client of ours gave which followed the container, where it
/// ended by itself and had no trouble.
pub fn to_the_end(
    id: &str,
    started: &Started,
    client: Option<i32>,
    log: &mut JobLog,
    stop: &Stop,
) -> Result<Option<End>> {
    let doing = |client| {
        if let Some(container) = &started.container {
            stop.now(Activity::Container {
                cidfile: container.cidfile.clone(),
                client,
            });
        }
    };
    doing(None);
    let mut is_first = true;
    let mut outlived_engine = false;
    loop {
        let (is_alive, end) = match patiently(|| engine::container_state(id))? {
            None => {
                let end = for_a_while(|| engine::end_from_events(id, since(started)));
                let restarted = || is_known(|| engine::was_restarted(id, since(started)));
                if !has_passed_on_all(client, &end, restarted) {
                    log.note("[launch-agent: lines may be missing here: docker has removed the container, and its log with it]");
                }
                return end
                    .map_err(|error| unknown_end(&format!("its container is gone, and {error}")))?
                    .map(|end| own_end(id, started, end, outlived_engine, log, stop))
                    .transpose();
            }
            Some(state) if state.end().is_none() && !state.is_alive() => return Ok(None),
            Some(state) => (state.is_alive(), state.end()),
        };
        // Engines leave containers running when they are started anew, where `live-restore` says so.
        outlived_engine |= is_alive && engine::was_restarted(id, since(started)).unwrap_or(false);
        let source = Source {
            id,
            is_alive,
            is_first: std::mem::take(&mut is_first),
            started,
        };
        // While docker is away it has a log all the same: its end is not taken for the log's.
        let mut follow = || follow(&source, log, |client| doing(Some(client)));
        let followed = if is_alive {
            patiently(&mut follow)
        } else {
            for_a_while(&mut follow)
        };
        doing(None);
        if let Err(error) = followed {
            log::warn!("the output of the container {id} cannot be followed: {error}");
            if !is_alive {
                log.note(format_args!(
                    "[launch-agent: lines may be missing here: {error}]"
                ));
            }
        }
        if !is_alive {
            if !outlived_engine
                && is_known(|| engine::may_have_ended_without_the_engine(id, since(started)))
            {
                log.note(
                    "[launch-agent: lines may be missing here: docker was away when the job ended]",
                );
            }
            // All its output that docker has is here: what it printed between the last look and its end came with the
            // look after. The engine is not asked again: with `--rm` it may have removed the container, and its end
            // with it.
            return end
                .map(|end| own_end(id, started, end, outlived_engine, log, stop))
                .transpose();
        }
        wait(id);
    }
}

/// Does the log have all that a container printed which docker has removed? Docker's client gives 126 and 127 for a
/// command that could not be run, and when the container itself ended so. Otherwise the container never ran, when the
/// engine knows of no end and has not forgotten it.
fn has_passed_on_all(
    client: Option<i32>,
    end: &Result<Option<End>>,
    engine_was_restarted: impl FnOnce() -> bool,
) -> bool {
    matches!(client, Some(126 | 127)) || (matches!(end, Ok(None)) && !engine_was_restarted())
}

/// Waits a moment for the end of a container, also where docker has no patience for the question.
fn wait(id: &str) {
    let waited = process::output(&docker::wait(id), WATCH);
    let has_refused = waited.is_ok_and(|output| !output.is_success());
    std::thread::sleep(if has_refused { WATCH } else { LEAST });
}

/// Whose output is followed.
struct Source<'a> {
    id: &'a str,
    is_alive: bool,
    /// It was not followed before, so lines may be missing of which nobody has spoken yet.
    is_first: bool,
    started: &'a Started,
}

/// Brings what a container printed and the log does not have, and what it prints until it ends.
fn follow(source: &Source<'_>, log: &mut JobLog, client: impl Fn(Group)) -> Result<()> {
    let (seam, command) = match find_seam(source, log, &client)? {
        Found::Seam(seam) => (seam, docker::follow_logs(source.id)),
        Found::NoSeam => {
            let since = engine::seconds(last_written(source, log));
            if source.is_first {
                log.note("[launch-agent: lines may be missing or doubled here: docker's log of the container does not begin as this one]");
            }
            let command = docker::follow_logs_since(source.id, &since);
            (Seam::default(), command)
        }
        Found::Nothing(why) => {
            if source.is_first {
                log.note(format_args!(
                    "[launch-agent: lines may be missing here: docker has no log of the container: {why}]"
                ));
            }
            if source.is_alive {
                pass_on(
                    source,
                    &docker::attach(source.id),
                    Seam::default(),
                    log,
                    client,
                )?;
            }
            return Ok(());
        }
    };
    pass_on(source, &command, seam, log, client)
}

fn last_written(source: &Source<'_>, log: &JobLog) -> Timestamp {
    let time = log.file().written_at();
    let time = time.and_then(|time| Timestamp::try_from(time).ok());
    time.unwrap_or(source.started.at)
}

enum Found {
    Seam(Seam),
    /// Docker's record and the log do not fit.
    NoSeam,
    /// Docker has no record, and says why.
    Nothing(String),
}

fn find_seam(source: &Source<'_>, log: &JobLog, client: &impl Fn(Group)) -> Result<Found> {
    let from = source.started.log_from;
    if log.position().saturating_sub(from) > LONGEST {
        return Ok(Found::NoSeam);
    }
    let recorded = log.file().recorded(from)?;
    let length: u64 = recorded.iter().map(length).sum();
    // Docker writes out a byte that is not text as three.
    let most = usize::try_from(3 * length + 1).unwrap_or(usize::MAX);
    let (mut stdout, mut stderr) = (Kept::new(log, most), Kept::new(log, most));
    let ending = process::stream_apart(
        &docker::logs(source.id),
        Some(SILENCE),
        client,
        |stream, bytes| match stream {
            Stream::Output => stdout.push(bytes),
            Stream::Errors => stderr.push(bytes),
        },
    )?;
    let (stdout, stderr) = (stdout.finish(), stderr.finish());
    if ending != Ending::Code(0) {
        let said = engine::explain(&String::from_utf8_lossy(&stderr));
        if let Some(error) = engine::engine_trouble(&said) {
            return Err(error);
        }
        return Ok(Found::Nothing(said));
    }
    Ok(seam::find(&recorded, &stdout, &stderr).map_or(Found::NoSeam, Found::Seam))
}

fn length(piece: &Recorded) -> u64 {
    match piece {
        Recorded::Bytes(bytes) => bytes.len() as u64,
        Recorded::LeftOut(bytes) => *bytes,
    }
}

/// The beginning of a stream as the log has it: without secrets.
struct Kept {
    redactor: Redactor,
    bytes: Vec<u8>,
    most: usize,
}

impl Kept {
    fn new(log: &JobLog, most: usize) -> Kept {
        Kept {
            redactor: log.redactor(),
            bytes: Vec::new(),
            most,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.bytes.len() < self.most {
            self.bytes.extend(self.redactor.push(bytes));
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.extend(self.redactor.finish());
        self.bytes
    }
}

/// Runs a command that prints a container's output, and passes on what lies behind the seam.
fn pass_on(
    source: &Source<'_>,
    command: &CommandLine,
    seam: Seam,
    log: &mut JobLog,
    client: impl Fn(Group),
) -> Result<()> {
    let mut rest = Rest {
        stdout: (log.redactor(), seam.stdout),
        stderr: (log.redactor(), seam.stderr),
        unfinished: seam.unfinished,
        held: Vec::new(),
    };
    // One that runs may be silent for days.
    let silence = (!source.is_alive).then_some(SILENCE);
    let ending = process::stream_apart(command, silence, client, |stream, bytes| {
        rest.push(stream, bytes, log);
    });
    let said = rest.finish(ending.as_ref().ok(), log);
    // Of one that runs, what follows is asked for again as long as it does.
    if ending? == Ending::Code(0) || source.is_alive {
        return Ok(());
    }
    Err(Error::new(
        Kind::Docker,
        format!("docker's log of the container broke off: {said}"),
    ))
}

/// What is still to be left out of the two streams.
struct Rest {
    stdout: (Redactor, usize),
    stderr: (Redactor, usize),
    /// The start of a line that is in the log already.
    unfinished: Vec<u8>,
    /// The end of the errors, as long as it may be docker's own word on why it stops.
    held: Vec<u8>,
}

impl Rest {
    fn push(&mut self, stream: Stream, bytes: &[u8], log: &mut JobLog) {
        let (redactor, skip) = match stream {
            Stream::Output => &mut self.stdout,
            Stream::Errors => &mut self.stderr,
        };
        let shown = redactor.push(bytes);
        let skipped = shown.len().min(*skip);
        *skip -= skipped;
        let mut shown = &shown[skipped..];
        if shown.is_empty() {
            return;
        }
        if let Some(rest) = shown.strip_prefix(self.unfinished.as_slice()) {
            shown = rest;
            self.unfinished.clear();
        }
        if stream == Stream::Errors {
            log.output(&std::mem::take(&mut self.held));
            if ["Error", "error from daemon", "You cannot attach"]
                .iter()
                .any(|start| shown.starts_with(start.as_bytes()))
            {
                self.held = shown.to_vec();
                return;
            }
        }
        log.output(shown);
    }

    /// Gives what docker said of its end, when that was not a good one.
    fn finish(mut self, ending: Option<&Ending>, log: &mut JobLog) -> String {
        for (redactor, skip) in [&mut self.stdout, &mut self.stderr] {
            let shown = redactor.finish();
            log.output(&shown[shown.len().min(*skip)..]);
        }
        if ending == Some(&Ending::Code(0)) {
            log.output(&self.held);
            return String::new();
        }
        engine::explain(&String::from_utf8_lossy(&self.held))
    }
}
