//! Carries out a plan: runs the container, finds out how it ended, removes it. Its image is there by then
//! (`images.rs`). What a restart left is found again in `runner/again.rs`.

mod again;
mod follow;

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan};

use crate::failure::{Error, Kind, Result};
use crate::host::engine::{self, End};
use crate::host::files;
use crate::host::journal::{self, Started};
use crate::host::logs::JobLog;
use crate::host::process::{self, Ending};
use crate::host::stop::{Activity, Stop};
use crate::launch::command::CommandLine;
use crate::launch::plan::Removal;
use crate::queue::Exit;
pub use again::{Labels, abandon, end_orphans, find_again, note_restarts, process_mark};

/// Exit codes of `docker run` that are docker's own: it refused; the command cannot be run; it was not found.
const DOCKERS_OWN: std::ops::RangeInclusive<i32> = 125..=127;

/// What docker's client ends with when something is wrong that has no code of its own.
const CLIENT_FAILED: i32 = 1;

/// What docker gives for a process that SIGKILL ended.
const KILLED: i32 = 128 + 9;

/// What docker gives for a process that SIGTERM ended.
const TERMINATED: i32 = 128 + 15;

/// What docker gives when it was not there to see the end.
const UNSEEN: i32 = 255;

/// How often an engine is asked again that does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How often a docker that answers is asked for what it refuses: it may be busy for some seconds.
const TRIES: u32 = 4;

/// Runs the job to its end and says how it ended. An error is a refusal to run it, or docker's or the machine's
/// trouble (see [`engine::may_pass`]), not the job's failure.
pub fn run(command: &CommandLine, started: &Started, log: &mut JobLog, stop: &Stop) -> Result<End> {
    stop.check()?;
    match &started.container {
        Some(container) => run_container(command, container, started, log, stop),
        None => run_process(command, log, stop),
    }
}

fn run_process(command: &CommandLine, log: &mut JobLog, stop: &Stop) -> Result<End> {
    let program = command.argv.first().map_or("", String::as_str);
    if which::which(program).is_err() {
        return Err(Error::input(format!(
            "the job is a command of the agent's own machine, and `{program}` is not installed there"
        ))
        .hint(format!("`pip install {program}` as the agent's user, on the agent's PATH")));
    }
    let begun = Instant::now();
    let ending = process::stream(
        command,
        |group| stop.now(Activity::Command(group)),
        |bytes| log.output(bytes),
    );
    stop.now(Activity::Between);
    let code = match ending? {
        Ending::Code(code) => code,
        // As a shell says it, and docker.
        Ending::Signal(number) => 128 + number,
    };
    Ok(End {
        exit: Exit {
            code,
            oom_killed: false,
        },
        duration: Some(begun.elapsed()),
    })
}

fn run_container(
    command: &CommandLine,
    container: &journal::Container,
    started: &Started,
    log: &mut JobLog,
    stop: &Stop,
) -> Result<End> {
    // Docker refuses to start when the file is there, and only a run that never came to its end left one.
    files::remove(&container.cidfile)?;
    let doing = |client| {
        stop.now(Activity::Container {
            cidfile: container.cidfile.clone(),
            client,
        });
    };
    let ending = process::stream(
        command,
        |client| doing(Some(client)),
        |bytes| log.output(bytes),
    );
    doing(None);
    let end = ending.and_then(|ending| find_end(container, started, ending, log, stop));
    stop.now(Activity::Between);
    end
}

/// The true end of a container, whatever became of the client that followed it.
fn find_end(
    container: &journal::Container,
    started: &Started,
    client: Ending,
    log: &mut JobLog,
    stop: &Stop,
) -> Result<End> {
    let Some(id) = container_id(&container.cidfile) else {
        return Err(refused(client, log));
    };
    let trouble = lost_docker(client, log);
    let untroubled = match client {
        Ending::Code(code) if trouble.is_none() => Some(code),
        _ => None,
    };
    match client {
        Ending::Code(code) if !DOCKERS_OWN.contains(&code) && trouble.is_none() => {
            let end = passed_on(&id, started.at, code);
            own_end(&id, started, end, false, log, stop)
        }
        // The client may have ended before its container, which holds the slot until it has ended too.
        _ => match follow::to_the_end(&id, started, untroubled, log, stop)? {
            Some(end) => Ok(end),
            None if matches!(client, Ending::Code(_)) => {
                // A restart of the engine takes its memory, and with it how the container ended.
                if is_known(|| engine::was_restarted(&id, since(started))) {
                    return Err(gone_with_the_engine(None));
                }
                Err(trouble.unwrap_or_else(|| refused(client, log)))
            }
            None => Err(unknown_end(&format!(
                "docker's client was ended by {client}, and the engine has no record"
            ))),
        },
    }
}

/// That docker's client lost its engine: it ends with a code that jobs have too, and the container may not even have
/// been started. What a job prints by chance is harmless here: the engine is asked.
fn lost_docker(client: Ending, log: &JobLog) -> Option<Error> {
    if client != Ending::Code(CLIENT_FAILED) {
        return None;
    }
    log.last_lines(3)
        .lines()
        .rev()
        .find_map(engine::engine_trouble)
}

/// The id that docker gave a container; `None` when there never was one.
pub fn container_id(cidfile: &Path) -> Option<String> {
    let id = std::fs::read_to_string(cidfile).unwrap_or_default();
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// From when on the engine is asked what it remembers. A minute allows for clocks that differ.
fn since(started: &Started) -> Timestamp {
    started.at - 1.minute()
}

/// The end whose code the client passed on, with what else the engine knows of it.
fn passed_on(id: &str, begun: Timestamp, code: i32) -> End {
    let known = match engine::container_state(id) {
        Ok(Some(state)) if !state.is_alive() => state.end(),
        // `--rm`: the engine has removed it, and remembers its last events.
        Ok(None) => engine::end_from_events(id, begun - 1.minute())
            .ok()
            .flatten(),
        // A restart policy has started it again: the job ended when its command first did.
        Ok(Some(_)) | Err(_) => None,
    };
    known.unwrap_or(End {
        exit: Exit {
            code,
            oom_killed: false,
        },
        duration: None,
    })
}

/// The end when it is the job's own; an error when the engine or the machine ended the job by ending itself. Those
/// leave codes that a job rarely has, and they leave the engine without memory of the container. `outlived_engine`: it
/// was seen to run after the engine had been started anew.
fn own_end(
    id: &str,
    started: &Started,
    mut end: End,
    outlived_engine: bool,
    log: &mut JobLog,
    stop: &Stop,
) -> Result<End> {
    if stop.reason().is_some() {
        return Ok(end);
    }
    look_for_want_of_memory(id, started.at, &mut end);
    let is_suspicious = [KILLED, TERMINATED, UNSEEN].contains(&end.exit.code);
    if !is_suspicious || end.exit.oom_killed {
        return Ok(end);
    }
    if started.boot != boot() {
        return Err(Error::new(
            Kind::Docker,
            format!("the machine was started anew under the job ({})", end.exit),
        ));
    }
    let since = since(started);
    let went_with_the_engine = if outlived_engine {
        // An engine that saw the end is there still, and has ended nobody by ending.
        is_known(|| Ok(engine::Memory::since(since)?.lacks_end(id, since)))
    } else {
        started.engine_restarted || is_known(|| engine::was_restarted(id, since))
    };
    if went_with_the_engine {
        return Err(gone_with_the_engine(Some(end.exit)));
    }
    if end.exit.code != UNSEEN && is_known(|| engine::was_sent(id, end.exit.code - 128, since)) {
        log.note("[launch-agent: docker was told to end the job, and not by this agent: by `docker stop`, `kill` or `rm --force`]");
    }
    Ok(end)
}

fn gone_with_the_engine(exit: Option<Exit>) -> Error {
    let how = exit.map_or("its end is not known".to_owned(), |exit| exit.to_string());
    Error::new(
        Kind::Docker,
        format!("the docker engine was restarted under the job ({how})"),
    )
}

/// An end that nobody can know any more is neither a success nor tried again: the job may have done all its work.
fn unknown_end(why: &str) -> Error {
    Error::new(
        Kind::System,
        format!("how the job ended is not known: {why}"),
    )
}

/// Asks the engine until it answers, however long it refuses: a container that it may be running holds its slot.
fn patiently<T>(ask: impl FnMut() -> Result<T>) -> Result<T> {
    until_answered(ask, None)
}

/// Asks the engine about a container that does not run any more, or never did: its slot is not held for an answer that
/// does not come. It waits for an engine that does not answer at all; one that does, and not this, is asked a few
/// times.
fn for_a_while<T>(ask: impl FnMut() -> Result<T>) -> Result<T> {
    until_answered(ask, Some(TRIES))
}

/// What the engine knows of something that is over; `false` where it cannot be told.
fn is_known(ask: impl FnMut() -> Result<bool>) -> bool {
    for_a_while(ask).unwrap_or_else(|error| {
        log::warn!("what docker remembers cannot be told: {error}");
        false
    })
}

/// The answer; or the error, once an engine that shows signs of life has given no answer `most` times.
fn until_answered<T>(mut ask: impl FnMut() -> Result<T>, most: Option<u32>) -> Result<T> {
    let (mut said, mut refusals) = (false, 0);
    loop {
        let error = match ask() {
            Err(error) if error.kind == Kind::Docker => error,
            answer => {
                if said {
                    log::info!("docker answers again");
                }
                return answer;
            }
        };
        if let Some(most) = most {
            refusals += u32::from(engine::version().is_ok());
            if refusals >= most {
                return Err(error);
            }
        }
        if !std::mem::replace(&mut said, true) {
            log::error!("{error}; the job's slot stays taken until docker answers");
        }
        std::thread::sleep(ASK_AGAIN);
    }
}

/// What tells one start of this machine from another.
pub fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// The engine hears of a kill for want of memory apart from the end of the container, and sometimes later: a SIGKILL
/// that nobody here sent is looked into for a second.
fn look_for_want_of_memory(container: &str, begun: Timestamp, end: &mut End) {
    for _ in 0..5 {
        if end.exit.code != KILLED || end.exit.oom_killed {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
        if let Ok(Some(again)) = engine::end_from_events(container, begun - 1.minute()) {
            end.exit.oom_killed = again.exit.oom_killed;
        }
    }
}

/// Docker's own words about a container that never ran.
fn refused(client: Ending, log: &JobLog) -> Error {
    let said = log.last_lines(40);
    let words: Vec<&str> = said.lines().skip_while(|line| !is_dockers(line)).collect();
    let why = engine::explain(&words.join("\n"));
    if let Some(error) = engine::engine_trouble(&why) {
        return error;
    }
    let why = if why.is_empty() {
        format!("docker's client ended with {client} and no reason")
    } else {
        why
    };
    let error = Error::new(
        Kind::Input,
        format!("docker could not run the container: {why}"),
    );
    if why.contains("executable file not found")
        || why.contains("no such file or directory: unknown")
    {
        return error.hint("the entry point does not exist in the image; it is the first word after the image, or `--entrypoint`");
    }
    if why.contains("permission denied: unknown") {
        return error.hint("the entry point is not a program that may be executed");
    }
    if why.contains("could not select device driver") {
        return error.hint("for GPUs install the NVIDIA Container Toolkit and restart docker");
    }
    error
}

fn is_dockers(line: &str) -> bool {
    [
        "docker: ",
        "Error: ",
        "unknown flag: ",
        "unknown shorthand flag: ",
        "invalid argument ",
        "flag needs an argument",
    ]
    .iter()
    .any(|start| line.starts_with(start))
}

/// Waits until the engine answers, or the job shall stop.
pub fn wait_for_engine(stop: &Stop) -> Result<()> {
    while engine::version().is_err() {
        stop.pause(ASK_AGAIN)?;
    }
    Ok(())
}

/// Removes the container when that is the agent's to do. Called once its end is recorded.
pub fn clean_up(started: &Started, labels: Labels<'_>, ended_by_itself: bool) {
    let Some(container) = &started.container else {
        return;
    };
    let remove = match container.removal {
        Removal::Kept => false,
        Removal::ByAgent => true,
        // With `--rm` the engine removes what ran; what was created and never ran it leaves behind.
        Removal::ByDocker => !ended_by_itself,
    };
    if remove {
        clear(started, labels);
    }
    if let Err(error) = files::remove(&container.cidfile) {
        log::warn!("{error}");
    }
}

/// Removes a container, so that another can have its name. By its id: under its name there may be another's, which
/// docker refused to make room for. Waits until docker answers: nobody would look for the container later. A docker
/// that answers and will not is asked a few times, and then left with it.
pub fn clear(started: &Started, labels: Labels<'_>) {
    let Some(container) = &started.container else {
        return;
    };
    let removed = for_a_while(|| {
        again::look(container, labels)?.map_or(Ok(()), |id| engine::remove_container(&id))
    });
    if let Err(error) = removed {
        log::warn!(
            "the container {} could not be removed: {error}",
            container.name
        );
    }
}
