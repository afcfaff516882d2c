//! The only file that spawns: runs a [`CommandLine`], streams what it prints, ends it.
//!
//! Every program gets a process group of its own, so that a terminal's Ctrl-C reaches the agent alone, which
//! decides. Nothing here knows docker.

use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::failure::{Error, Kind, Result};
use crate::launch::command::{CommandLine, Secret};

/// How long a pipe may stay open after its program has ended: a grandchild that kept it must not hang the job.
const LINGER: Duration = Duration::from_secs(2);

/// The most that is kept of what a short command prints: an answer has some kilobytes, and a program gone mad must not
/// fill the memory until its time is over.
const LONGEST_ANSWER: usize = 16 << 20;

/// How often a silent program is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Ending {
        match status.code() {
            Some(code) => Ending::Code(code),
            None => Ending::Signal(status.signal().unwrap_or_default()),
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::Code(code) => write!(f, "exit code {code}"),
            Ending::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => f.write_str(signal.as_str()),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

/// The process group of a running program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group(Pid);

impl Group {
    /// Sends a signal to all of the group. A group that has ended is no error.
    pub fn signal(self, signal: Signal) {
        let _ = killpg(self.0, signal);
    }
}

/// One of the two streams that a program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Errors,
}

/// What a short command printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub ending: Ending,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// Did it exit with code 0?
    pub fn is_success(&self) -> bool {
        self.ending == Ending::Code(0)
    }
}

/// Runs `command` and gives what it prints to `on_output` as it comes, standard output and standard error in the
/// order in which they were written. `started` is told the process group before the first byte.
pub fn stream(
    command: &CommandLine,
    started: impl FnOnce(Group),
    on_output: impl FnMut(&[u8]),
) -> Result<Ending> {
    let broken = |cause: io::Error| not_followed(command, cause);
    let mut child = stream_until(command, None, started, on_output)?;
    child.wait().map(Ending::from).map_err(broken)
}

/// The same for a command that may take `limit`; `None` when it took longer and was ended.
pub fn stream_within(
    command: &CommandLine,
    limit: Duration,
    started: impl FnOnce(Group),
    on_output: impl FnMut(&[u8]),
) -> Result<Option<Ending>> {
    let broken = |cause: io::Error| not_followed(command, cause);
    let deadline = Instant::now() + limit;
    let mut child = stream_until(command, Some(deadline), started, on_output)?;
    let status = wait_until(&mut child, deadline).map_err(broken)?;
    if status.is_none() {
        end(&mut child);
    }
    Ok(status.map(Ending::from))
}

/// Starts `command` and follows it until it ends or `deadline` comes.
fn stream_until(
    command: &CommandLine,
    deadline: Option<Instant>,
    started: impl FnOnce(Group),
    mut on_output: impl FnMut(&[u8]),
) -> Result<Child> {
    let (reader, writer) =
        io::pipe().map_err(|cause| Error::system("cannot make a pipe", cause))?;
    let mut child = {
        let mut spawner = spawner(command);
        let second = writer
            .try_clone()
            .map_err(|cause| Error::system("cannot make a pipe", cause))?;
        spawner.stdout(writer).stderr(second);
        // The spawner holds our ends of the pipe for writing: it must be gone before the pipe can end.
        spawner
            .spawn()
            .map_err(|cause| not_executed(command, &cause))?
    };
    started(group_of(&child));
    let mut pipes = vec![Pipe {
        reader,
        on_output: &mut on_output,
    }];
    pump(&mut child, &mut pipes, Limit::until(deadline))
        .map_err(|cause| not_followed(command, cause))?;
    Ok(child)
}

/// [`stream`] with standard output and standard error apart. Which of two pieces was written first is then not known.
/// A command that prints nothing for `silence` is ended, and that is an error.
pub fn stream_apart(
    command: &CommandLine,
    silence: Option<Duration>,
    started: impl FnOnce(Group),
    mut on_output: impl FnMut(Stream, &[u8]),
) -> Result<Ending> {
    let broken = |cause: io::Error| {
        Error::system(format_args!("cannot follow `{}`", program(command)), cause)
    };
    let (stdout_reader, stdout_writer) = io::pipe().map_err(broken)?;
    let (stderr_reader, stderr_writer) = io::pipe().map_err(broken)?;
    let mut child = spawner(command)
        .stdout(stdout_writer)
        .stderr(stderr_writer)
        .spawn()
        .map_err(|cause| not_executed(command, &cause))?;
    started(group_of(&child));
    let on_output = std::cell::RefCell::new(&mut on_output);
    let mut take_output = |bytes: &[u8]| (on_output.borrow_mut())(Stream::Output, bytes);
    let mut take_errors = |bytes: &[u8]| (on_output.borrow_mut())(Stream::Errors, bytes);
    let mut pipes = vec![
        Pipe {
            reader: stdout_reader,
            on_output: &mut take_output,
        },
        Pipe {
            reader: stderr_reader,
            on_output: &mut take_errors,
        },
    ];
    let limit = Limit {
        deadline: None,
        silence,
    };
    pump(&mut child, &mut pipes, limit).map_err(broken)?;
    if let (Some(silence), false) = (silence, pipes.is_empty())
        && child.try_wait().map_err(broken)?.is_none()
    {
        end(&mut child);
        return Err(no_answer(command, silence));
    }
    child.wait().map(Ending::from).map_err(broken)
}

/// Runs a short command to its end and gives what it printed; after `timeout` it is killed, and that is an error.
pub fn output(command: &CommandLine, timeout: Duration) -> Result<Output> {
    output_of(command, Stdio::null(), timeout, |_| {})
}

/// The same with `input` on its standard input: the way of a password, which is then in no argv and no environment.
/// `started` is told the process group.
pub fn output_with_input(
    command: &CommandLine,
    input: &Secret,
    timeout: Duration,
    started: impl FnOnce(Group),
) -> Result<Output> {
    let broken = |cause: io::Error| not_followed(command, cause);
    let (reader, mut writer) = io::pipe().map_err(broken)?;
    std::thread::scope(|scope| {
        // On a thread of its own, because the program may read late or never. When it ends, so does the pipe.
        scope.spawn(move || writer.write_all(input.expose().as_bytes()));
        output_of(command, Stdio::from(reader), timeout, started)
    })
}

fn output_of(
    command: &CommandLine,
    input: Stdio,
    timeout: Duration,
    started: impl FnOnce(Group),
) -> Result<Output> {
    let broken = |cause: io::Error| not_followed(command, cause);
    let deadline = Instant::now() + timeout;
    let (stdout_reader, stdout_writer) = io::pipe().map_err(broken)?;
    let (stderr_reader, stderr_writer) = io::pipe().map_err(broken)?;
    let mut child = spawner(command)
        .stdin(input)
        .stdout(stdout_writer)
        .stderr(stderr_writer)
        .spawn()
        .map_err(|cause| not_executed(command, &cause))?;
    started(group_of(&child));

    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut keep_stdout = |bytes: &[u8]| keep(&mut stdout, bytes);
    let mut keep_stderr = |bytes: &[u8]| keep(&mut stderr, bytes);
    let mut pipes = vec![
        Pipe {
            reader: stdout_reader,
            on_output: &mut keep_stdout,
        },
        Pipe {
            reader: stderr_reader,
            on_output: &mut keep_stderr,
        },
    ];
    pump(&mut child, &mut pipes, Limit::until(Some(deadline))).map_err(broken)?;
    drop(pipes);
    let Some(status) = wait_until(&mut child, deadline).map_err(broken)? else {
        end(&mut child);
        return Err(no_answer(command, timeout));
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Output {
        ending: status.into(),
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

fn no_answer(command: &CommandLine, limit: Duration) -> Error {
    Error::new(
        Kind::Docker,
        format!(
            "`{command}` gave no answer in {} s and was ended",
            limit.as_secs()
        ),
    )
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = LONGEST_ANSWER.saturating_sub(kept.len());
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// The one place where a [`CommandLine`] becomes a process: the same fields that its `Display` prints.
#[expect(clippy::disallowed_methods, reason = "this is the file that may spawn")]
fn spawner(command: &CommandLine) -> Command {
    let mut spawner = Command::new(program(command));
    spawner
        .args(command.argv.iter().skip(1))
        .stdin(Stdio::null())
        .process_group(0);
    spawner.envs(
        command
            .env
            .iter()
            .map(|(name, value)| (name, value.expose())),
    );
    if let Some(folder) = &command.cwd {
        spawner.current_dir(folder);
    }
    spawner
}

fn program(command: &CommandLine) -> &str {
    command.argv.first().map_or("", String::as_str)
}

fn group_of(child: &Child) -> Group {
    // A pid is positive and fits: the kernel's limit is 2^22.
    Group(Pid::from_raw(child.id().cast_signed()))
}

fn end(child: &mut Child) {
    group_of(child).signal(Signal::SIGKILL);
    let _ = child.wait();
}

fn not_followed(command: &CommandLine, cause: io::Error) -> Error {
    Error::system(format_args!("cannot follow `{}`", program(command)), cause)
}

fn not_executed(command: &CommandLine, cause: &io::Error) -> Error {
    let program = program(command);
    match cause.kind() {
        ErrorKind::NotFound => {
            Error::new(Kind::System, format!("could not execute `{program}`: it is not installed, or not on the PATH"))
        }
        ErrorKind::ArgumentListTooLong => Error::input(format!(
            "could not execute `{program}`: its arguments have {} bytes, more than this machine's kernel takes",
            command.argv.iter().map(|argument| argument.len() + 1).sum::<usize>()
        ))
        .hint("make the job's config or arguments smaller, or give it a file"),
        _ => Error::system(format_args!("could not execute `{program}`"), cause),
    }
}

struct Pipe<'a> {
    reader: PipeReader,
    on_output: &'a mut dyn FnMut(&[u8]),
}

/// How long a program may take.
#[derive(Clone, Copy)]
struct Limit {
    deadline: Option<Instant>,
    /// How long it may print nothing.
    silence: Option<Duration>,
}

impl Limit {
    fn until(deadline: Option<Instant>) -> Limit {
        Limit {
            deadline,
            silence: None,
        }
    }

    /// When it is over, as long as nothing more is printed.
    fn after(self, last_output: Instant) -> Option<Instant> {
        let silent = self.silence.map(|silence| last_output + silence);
        self.deadline.into_iter().chain(silent).min()
    }
}

/// Reads all pipes until they end, until `child` has ended and the rest has lingered, or until the limit.
fn pump(child: &mut Child, pipes: &mut Vec<Pipe<'_>>, limit: Limit) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut looked = Instant::now();
    let mut last_output = looked;
    let mut ended: Option<Instant> = None;
    while !pipes.is_empty() {
        let now = Instant::now();
        let deadline = limit.after(last_output);
        if deadline.is_some_and(|deadline| now >= deadline)
            || ended.is_some_and(|end| now >= end + LINGER)
        {
            return Ok(());
        }
        let wait = deadline.map_or(TICK, |deadline| TICK.min(deadline - now));
        let ready = wait_for_input(pipes, wait)?;
        if !ready.is_empty() {
            last_output = Instant::now();
        }
        for index in ready.into_iter().rev() {
            let bytes = pipes[index].reader.read(&mut buffer)?;
            match bytes {
                0 => drop(pipes.remove(index)),
                bytes => (pipes[index].on_output)(&buffer[..bytes]),
            }
        }
        if ended.is_none() && looked.elapsed() >= TICK {
            looked = Instant::now();
            ended = child.try_wait()?.map(|_| looked);
        }
    }
    Ok(())
}

/// The pipes that have something to read or have ended, after at most `wait`.
fn wait_for_input(pipes: &[Pipe<'_>], wait: Duration) -> io::Result<Vec<usize>> {
    let mut polled: Vec<PollFd<'_>> = pipes
        .iter()
        .map(|pipe| PollFd::new(pipe.reader.as_fd(), PollFlags::POLLIN))
        .collect();
    // Rounded up, so that the last fraction of a millisecond is not spent in a busy loop.
    let millis = u16::try_from(wait.as_millis() + 1).unwrap_or(u16::MAX);
    match poll(&mut polled, PollTimeout::from(millis)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(polled
        .iter()
        .enumerate()
        .filter(|(_, fd)| fd.any() == Some(true))
        .map(|(index, _)| index)
        .collect())
}

fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> CommandLine {
        CommandLine::new("sh").args(["-c", script])
    }

    fn streamed(command: &CommandLine) -> (Ending, String) {
        let mut all = Vec::new();
        let ending = stream(command, |_| {}, |bytes| all.extend_from_slice(bytes)).expect("a run");
        (ending, String::from_utf8_lossy(&all).into_owned())
    }

    #[test]
    fn keeps_the_order_of_output_and_errors() {
        let (ending, text) = streamed(&sh("echo 1; echo 2 >&2; echo 3; exit 3"));
        assert_eq!((ending, text.as_str()), (Ending::Code(3), "1\n2\n3\n"));
    }

    #[test]
    fn keeps_output_and_errors_apart_in_a_short_command() {
        let output = output(
            &sh("echo out; echo err >&2; kill -9 $$"),
            Duration::from_secs(10),
        )
        .expect("a run");
        assert_eq!(
            output,
            Output {
                ending: Ending::Signal(9),
                stdout: "out\n".into(),
                stderr: "err\n".into()
            }
        );
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipe_cannot_hang_the_job() {
        let start = Instant::now();
        let (ending, text) = streamed(&sh("sleep 60 & echo started"));
        assert_eq!((ending, text.as_str()), (Ending::Code(0), "started\n"));
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
    }

    #[test]
    fn a_command_without_an_answer_is_ended() {
        let start = Instant::now();
        let error = output(&sh("sleep 60"), Duration::from_millis(200)).expect_err("a timeout");
        assert!(error.message.contains("gave no answer"), "{error}");
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
    }

    #[test]
    fn a_streamed_command_that_takes_too_long_is_ended() {
        let limit = Duration::from_millis(200);
        let slow = stream_within(&sh("echo begun; exec sleep 60"), limit, |_| {}, |_| {});
        assert_eq!(slow.expect("a run"), None);
        let quick = stream_within(&sh("exit 3"), TICK * 60, |_| {}, |_| {});
        assert_eq!(quick.expect("a run"), Some(Ending::Code(3)));
    }

    #[test]
    fn a_command_that_falls_silent_is_ended_and_one_that_goes_on_printing_is_not() {
        let silence = Some(Duration::from_millis(500));
        let silent = stream_apart(&sh("echo begun; exec sleep 60"), silence, |_| {}, |_, _| {});
        let error = silent.expect_err("silence");
        assert!(error.message.contains("gave no answer"), "{error}");
        let prints = sh("for n in 1 2 3 4 5 6 7 8; do echo $n; sleep 0.1; done; exit 3");
        let ending = stream_apart(&prints, silence, |_| {}, |_, _| {}).expect("a run");
        assert_eq!(ending, Ending::Code(3));
    }

    #[test]
    fn input_arrives_whole_and_one_that_nobody_reads_hangs_nothing() {
        let long = Secret::new("x".repeat(300_000));
        let output = output_with_input(&sh("wc -c"), &long, TICK * 60, |_| {}).expect("a run");
        assert_eq!(output.stdout.trim(), "300000");
        let output = output_with_input(&sh("exit 4"), &long, TICK * 60, |_| {}).expect("a run");
        assert_eq!(output.ending, Ending::Code(4));
        output_with_input(&sh("sleep 60"), &long, TICK / 5, |_| {}).expect_err("a timeout");
    }

    #[test]
    fn an_answer_without_end_fills_no_memory() {
        let output = output(&sh("head -c 50000000 /dev/zero"), Duration::from_secs(60));
        assert_eq!(output.expect("a run").stdout.len(), LONGEST_ANSWER);
    }

    #[test]
    fn the_environment_of_the_command_is_added_to_ours() {
        let mut command = sh("echo $LAUNCH_AGENT_TEST; test -n \"$PATH\"");
        command
            .env
            .insert("LAUNCH_AGENT_TEST".into(), Secret::new("a value"));
        assert_eq!(
            streamed(&command),
            (Ending::Code(0), "a value\n".to_owned())
        );
    }

    #[test]
    fn a_signal_reaches_the_group_alone() {
        let ending = stream(
            &sh("sleep 60"),
            |group| group.signal(Signal::SIGTERM),
            |_| {},
        )
        .expect("a run");
        assert_eq!(ending, Ending::Signal(15));
    }

    #[test]
    fn what_could_not_start_is_said() {
        let error = stream(&CommandLine::new("no-such-program-here"), |_| {}, |_| {})
            .expect_err("nothing to run");
        assert_eq!(error.kind, Kind::System);
        assert!(error.message.contains("`no-such-program-here`"), "{error}");
        let error = output(&sh("true").arg("x".repeat(3_000_000)), TICK).expect_err("too long");
        assert!(
            error
                .message
                .contains("more than this machine's kernel takes"),
            "{error}"
        );
    }
}
