//! Stopping a job, whatever it is doing: a request that every step looks at, and the thread that carries it out.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::failure::{Error, Kind, Result};
use crate::host::process::Group;
use crate::host::{engine, runner};
use crate::queue::StopReason;

/// How long a command that is not a container gets after SIGTERM, and docker's client after its container has ended.
const COMMAND_GRACE: Duration = Duration::from_secs(5);

/// How long a container may take to appear after its client was started.
const CREATION: Duration = Duration::from_secs(10);

/// Whether one job shall stop, and what it is doing right now. Shared by the job's thread and the agent.
#[derive(Debug, Default)]
pub struct Stop {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    reason: Option<StopReason>,
    limit: Option<(Instant, StopReason)>,
    activity: Activity,
}

/// What a job's thread is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Activity {
    /// It is between two steps, and will look at the request before the next.
    #[default]
    Between,
    /// A command on this machine, such as a pull.
    Command(Group),
    /// A container, and docker's client that follows it.
    Container {
        /// Where docker writes the container's id, once it is made. Under its name there may be another's.
        cidfile: PathBuf,
        /// The client's process group; `None` once the client has ended before its container.
        client: Option<Group>,
    },
    /// Nothing more: the job has ended.
    Done,
}

impl Stop {
    /// Asks the job to stop. The first reason stays; `false` when there was one.
    pub fn request(&self, reason: StopReason) -> bool {
        let mut state = self.lock();
        let first = state.reason.is_none();
        state.reason.get_or_insert(reason);
        drop(state);
        self.changed.notify_all();
        first
    }

    /// Why the job shall stop, if it shall.
    pub fn reason(&self) -> Option<StopReason> {
        self.lock().reason
    }

    /// An error when the job shall stop: for the places between two steps.
    pub fn check(&self) -> Result<()> {
        match self.reason() {
            Some(reason) => Err(Error::new(Kind::System, format!("stopped: {reason}"))),
            None => Ok(()),
        }
    }

    /// Waits before another trial; an error when the job shall stop, which it does not wait out.
    pub fn pause(&self, length: Duration) -> Result<()> {
        let waiting = self
            .changed
            .wait_timeout_while(self.lock(), length, |state| state.reason.is_none());
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
        self.check()
    }

    /// Limits the time of what the job does from now on; `None` ends the limit.
    pub fn limit(&self, limit: Option<(Instant, StopReason)>) {
        self.lock().limit = limit;
    }

    /// When the job's time is over, and why.
    pub fn time_limit(&self) -> Option<(Instant, StopReason)> {
        self.lock().limit
    }

    /// Has the job ended?
    pub fn has_ended(&self) -> bool {
        self.lock().activity == Activity::Done
    }

    /// Says what the job's thread does from now on.
    pub fn now(&self, activity: Activity) {
        self.lock().activity = activity;
        self.changed.notify_all();
    }

    fn activity(&self) -> Activity {
        self.lock().activity.clone()
    }

    /// Waits until the job's thread does something other than `activity`; `false` when it still does after `limit`.
    fn moved_on_from(&self, activity: &Activity, limit: Duration) -> bool {
        let waiting = self
            .changed
            .wait_timeout_while(self.lock(), limit, |state| state.activity == *activity)
            .unwrap_or_else(PoisonError::into_inner);
        waiting.0.activity != *activity
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends what the job is doing: the container gets `grace`, then is killed, then is checked gone. Returns when the
/// job has ended.
pub fn carry_out(stop: &Stop, grace: Duration) {
    let begun = Instant::now();
    let mut said = false;
    loop {
        let activity = stop.activity();
        match &activity {
            Activity::Done => return,
            // The request may have come just after the job's thread looked: whatever it begins next is ended too.
            Activity::Between => {
                stop.moved_on_from(&activity, COMMAND_GRACE);
            }
            Activity::Command(group) => end_command(stop, &activity, Some(*group)),
            Activity::Container { cidfile, client } => match stop_container(cidfile, grace) {
                Ok(true) => end_command_after(stop, &activity, *client),
                // It is being created, or it has just been removed.
                Ok(false) if begun.elapsed() < CREATION => {
                    stop.moved_on_from(&activity, Duration::from_millis(100));
                }
                Ok(false) => end_command(stop, &activity, *client),
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        log::error!(
                            "a container cannot be stopped yet, and keeps its slot: {error}"
                        );
                    }
                    stop.moved_on_from(&activity, Duration::from_secs(1));
                }
            },
        }
    }
}

/// `Ok(false)`: there is no such container, or not yet.
fn stop_container(cidfile: &Path, grace: Duration) -> Result<bool> {
    match runner::container_id(cidfile) {
        Some(id) => engine::stop_container(&id, grace),
        None => Ok(false),
    }
}

fn end_command(stop: &Stop, activity: &Activity, group: Option<Group>) {
    if let Some(group) = group {
        group.signal(Signal::SIGTERM);
    }
    end_command_after(stop, activity, group);
}

fn end_command_after(stop: &Stop, activity: &Activity, group: Option<Group>) {
    if !stop.moved_on_from(activity, COMMAND_GRACE) {
        if let Some(group) = group {
            group.signal(Signal::SIGKILL);
        }
        stop.moved_on_from(activity, COMMAND_GRACE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process;
    use crate::launch::command::CommandLine;

    #[test]
    fn the_first_reason_stays() {
        let stop = Stop::default();
        assert!(stop.check().is_ok());
        assert!(stop.request(StopReason::Requested));
        assert!(!stop.request(StopReason::AgentStopped));
        assert_eq!(stop.reason(), Some(StopReason::Requested));
        assert_eq!(
            stop.check().expect_err("stopped").message,
            "stopped: a person asked for it"
        );
    }

    #[test]
    fn a_pause_is_waited_out_unless_the_job_shall_stop() {
        let stop = Stop::default();
        assert!(stop.pause(Duration::from_millis(1)).is_ok());
        std::thread::scope(|scope| {
            let pausing = scope.spawn(|| stop.pause(Duration::from_secs(600)));
            stop.request(StopReason::Requested);
            assert!(pausing.join().expect("a result").is_err());
        });
    }

    #[test]
    fn a_command_that_ignores_sigterm_is_killed() {
        let stop = Stop::default();
        stop.request(StopReason::Requested);
        let start = Instant::now();
        std::thread::scope(|scope| {
            let command = CommandLine::new("sh").args([
                "-c",
                "trap '' TERM; echo ready; sleep 60 & wait; wait; sleep 60",
            ]);
            let mut carrying = None;
            let ending = process::stream(
                &command,
                |group| stop.now(Activity::Command(group)),
                |_| {
                    carrying
                        .get_or_insert_with(|| scope.spawn(|| carry_out(&stop, Duration::ZERO)));
                },
            )
            .expect("a run");
            stop.now(Activity::Done);
            assert_eq!(ending, process::Ending::Signal(9));
        });
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            start.elapsed()
        );
    }

    #[test]
    fn what_begins_after_the_request_is_ended_too() {
        let stop = Stop::default();
        stop.request(StopReason::AgentStopped);
        std::thread::scope(|scope| {
            scope.spawn(|| carry_out(&stop, Duration::ZERO));
            let sleep = CommandLine::new("sleep").arg("60");
            let ending =
                process::stream(&sleep, |group| stop.now(Activity::Command(group)), |_| {})
                    .expect("a run");
            stop.now(Activity::Done);
            assert_eq!(ending, process::Ending::Signal(15));
        });
    }
}
