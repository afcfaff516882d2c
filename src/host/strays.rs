//! Finds and ends what an earlier process of the agent started and left: docker's client that would still start a
//! container or goes on building, git, and a sweep scheduler. Reads `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a killed process may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// By what a process is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark<'a> {
    /// One of its arguments is this.
    Argument(&'a str),
    /// One of its arguments is this folder, or something in it.
    Folder(&'a str),
    /// This `NAME=VALUE` was in its environment when it began.
    Variable(&'a str),
}

impl Mark<'_> {
    fn is_on(self, word: &[u8]) -> bool {
        match self {
            Mark::Argument(text) | Mark::Variable(text) => word == text.as_bytes(),
            Mark::Folder(path) => word
                .strip_prefix(path.as_bytes())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")),
        }
    }
}

/// The variable that a command of the agent's own machine is known by after a restart.
pub const VARIABLE: &str = "LAUNCH_AGENT_ITEM";

/// Kills every process with that mark, and waits until they are gone. A container goes on without its client.
pub fn end(mark: Mark<'_>) {
    let begun = Instant::now();
    loop {
        let found = find(mark);
        if found.is_empty() || begun.elapsed() > PATIENCE {
            return;
        }
        for pid in found {
            // One that has ended meanwhile is no error.
            let _ = kill(pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn find(mark: Mark<'_>) -> Vec<Pid> {
    let file = match mark {
        Mark::Argument(_) | Mark::Folder(_) => "cmdline",
        Mark::Variable(_) => "environ",
    };
    let own = Pid::this();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.map(Pid::from_raw)
        .filter(|pid| *pid != own)
        .filter(|pid| {
            // What belongs to another user cannot be read, and is not ours.
            let words = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            words.split(|byte| *byte == 0).any(|word| mark.is_on(word))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::{self, Ending};
    use crate::launch::command::{CommandLine, Secret};

    #[test]
    fn ends_the_process_with_the_mark_and_no_other() {
        let unique = format!("stray-{}", fastrand::u64(..));
        let variable = format!("{VARIABLE}={unique}");
        let by_argument = CommandLine::new("sleep").args(["0.5", "60"]);
        let mut by_variable = by_argument.clone();
        let environment = &mut by_variable.env;
        environment.insert(VARIABLE.to_owned(), Secret::new(unique.clone()));
        // `sleep` adds its arguments up; the mark is one that it takes as a number.
        let number = format!("60.{:09}", fastrand::u32(1..1_000_000_000));
        let marked = CommandLine::new("sleep").arg(&number);
        for (command, mark) in [
            (marked, Mark::Argument(&number)),
            (by_variable, Mark::Variable(&variable)),
        ] {
            std::thread::scope(|scope| {
                let ending = process::stream(
                    &command,
                    |_| {
                        scope.spawn(|| {
                            while find(mark).is_empty() {
                                std::thread::yield_now();
                            }
                            end(mark);
                        });
                    },
                    |_| {},
                );
                assert_eq!(ending.expect("a run"), Ending::Signal(9), "{mark:?}");
            });
            assert!(find(mark).is_empty());
        }
    }

    #[test]
    fn a_folder_is_itself_and_what_is_in_it() {
        for (word, is_on) in [
            ("/jobs/1/code", true),
            ("/jobs/1/code/Dockerfile", true),
            ("/jobs/1/code-beside", false),
            ("/jobs/1/code:/mnt/wandb", false),
            ("--file=/jobs/1/code", false),
            ("/jobs/1", false),
        ] {
            assert_eq!(
                Mark::Folder("/jobs/1/code").is_on(word.as_bytes()),
                is_on,
                "{word}"
            );
        }
    }
}
