//! Carries out a plan: runs the container, finds out how it ended, removes it. Its image is there by then
//! (`images.rs`).

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan};

use crate::failure::{Error, Kind, Result};
use crate::host::engine::{self, ContainerState, End};
use crate::host::logs::JobLog;
use crate::host::process::{self, Ending};
use crate::host::stop::{Activity, Stop};
use crate::launch::command::CommandLine;
use crate::launch::docker;
use crate::launch::plan::{Container, Place, Plan, Removal};
use crate::queue::Exit;

/// Exit codes of `docker run` that are docker's own: it refused; the command cannot be run; it was not found.
const DOCKERS_OWN: std::ops::RangeInclusive<i32> = 125..=127;

/// What docker gives for a process that SIGKILL ended.
const KILLED: i32 = 128 + 9;

/// How often a container is looked at that has outlived its client.
const WATCH: Duration = Duration::from_secs(2);

/// Runs the job to its end and says how it ended. An error is a refusal to run it, not the job's failure.
pub fn run(plan: &Plan, log: &mut JobLog, stop: &Stop) -> Result<End> {
    stop.check()?;
    match &plan.place {
        Place::Container(container) => run_container(&plan.run, container, log, stop),
        Place::Process => run_process(&plan.run, log, stop),
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
    container: &Container,
    log: &mut JobLog,
    stop: &Stop,
) -> Result<End> {
    // Docker refuses to start when the file is there, and only a run that never came to its end left one.
    remove_file(&container.cidfile)?;
    let begun = Timestamp::now();
    let doing = |client| {
        stop.now(Activity::Container {
            name: container.name.clone(),
            client,
        });
    };
    let ending = process::stream(
        command,
        |client| doing(Some(client)),
        |bytes| log.output(bytes),
    );
    doing(None);
    let mut end = find_end(&container.cidfile, begun, ending?, log);
    if let Ok(end) = &mut end
        && stop.reason().is_none()
    {
        look_for_want_of_memory(&container.name, begun, end);
    }
    stop.now(Activity::Between);
    end
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

/// The true end of a container, whatever became of the client that followed it.
fn find_end(cidfile: &Path, begun: Timestamp, client: Ending, log: &JobLog) -> Result<End> {
    let id = std::fs::read_to_string(cidfile).unwrap_or_default();
    let id = id.trim();
    remove_file(cidfile)?;
    if id.is_empty() {
        return Err(refused(client, log));
    }
    let passed_on = match client {
        Ending::Code(code) if !DOCKERS_OWN.contains(&code) => Some(code),
        _ => None,
    };
    // The client passes on the code of a container that has ended. Otherwise it may have ended before its container,
    // which holds the slot until it has ended too.
    let state = match passed_on {
        Some(_) => engine::container_state(id),
        None => wait_for_container(id),
    };
    let end = match state {
        Ok(Some(state)) if !state.is_alive() => Ok(state.end()),
        // A restart policy has started it again: the job ended when its command first did.
        Ok(Some(_)) => Ok(None),
        // `--rm`: the engine has removed it, and remembers its last events. A minute allows for clocks that differ.
        Ok(None) => engine::end_from_events(id, begun - 1.minute()),
        Err(error) => Err(error),
    };
    match (end, passed_on) {
        (Ok(Some(end)), _) => Ok(end),
        (_, Some(code)) => Ok(End {
            exit: Exit {
                code,
                oom_killed: false,
            },
            duration: None,
        }),
        (Ok(None), None) if matches!(client, Ending::Code(_)) => Err(refused(client, log)),
        (Ok(None), None) => Err(Error::new(
            Kind::Docker,
            format!(
                "the container's end is not known: docker's client was ended by {client}, and the engine has no record"
            ),
        )),
        (Err(error), None) => Err(error.within("the container's end is not known")),
    }
}

/// The state of a container once it does not run.
fn wait_for_container(id: &str) -> Result<Option<ContainerState>> {
    let mut said = false;
    loop {
        match engine::container_state(id)? {
            Some(state) if state.is_alive() => {}
            other => return Ok(other),
        }
        if !said {
            said = true;
            log::warn!(
                "docker's client ended before its container {id}, which is waited for; see `docker logs {id}`"
            );
        }
        let _ = process::output(&docker::wait(id), WATCH);
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

/// Removes the container when that is the agent's to do. Called once its end is recorded.
pub fn clean_up(plan: &Plan, ended_by_itself: bool) {
    let Place::Container(container) = &plan.place else {
        return;
    };
    let remove = match container.removal {
        Removal::Kept => false,
        Removal::ByAgent => true,
        // With `--rm` the engine removes what ran; what was created and never ran it leaves behind.
        Removal::ByDocker => !ended_by_itself,
    };
    if remove && let Err(error) = engine::remove_container(&container.name) {
        log::warn!(
            "the container {} could not be removed: {error}",
            container.name
        );
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::system(
            format_args!("cannot remove {}", path.display()),
            error,
        )),
        _ => Ok(()),
    }
}
