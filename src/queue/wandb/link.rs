//! Whether W&B can be reached, kept in one place, so that the log says once that it is gone and once that it is back,
//! and so that nobody asks before the server wants to be asked again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// No server keeps us silent for longer than this, whatever its `Retry-After` says.
const LONGEST_SILENCE: Duration = Duration::from_secs(300);

/// After how many failures in a row the server counts as gone. One lost connection is no outage, and worth no line.
const FAILURES: u32 = 2;

/// What is known of the way to one server.
#[derive(Debug)]
pub struct Link {
    server: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    offline_since: Option<Instant>,
    quiet_until: Option<Instant>,
    refused: bool,
    answers: u64,
}

impl Link {
    /// A link that nobody has used yet. `server` is for the log.
    pub fn new(server: impl Into<String>) -> Link {
        Link {
            server: server.into(),
            state: Mutex::default(),
        }
    }

    /// The server answered and took the key, whatever it said.
    pub fn answered(&self) {
        let mut state = self.state();
        state.answers += 1;
        if std::mem::take(&mut state.refused) {
            log::info!("{} takes the key again", self.server);
        }
        self.reached(&mut state);
    }

    /// A request had no answer. `after`: the server asked to be left alone for so long.
    pub fn failed(&self, why: &str, after: Option<Duration>) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        if let Some(after) = after {
            state.quiet_until = Some(Instant::now() + after.min(LONGEST_SILENCE));
        }
        if state.offline_since.is_none() && state.failures >= FAILURES {
            state.offline_since = Some(Instant::now());
            log::warn!(
                "{} cannot be reached: {why}; running jobs go on, and what there is to report is kept and sent later",
                self.server
            );
        } else {
            log::debug!("{}: {why}", self.server);
        }
    }

    /// The server did not take the key.
    pub fn refused(&self, why: &str) {
        let mut state = self.state();
        self.reached(&mut state);
        if !std::mem::replace(&mut state.refused, true) {
            log::error!("{}: {why}", self.server);
        }
    }

    fn reached(&self, state: &mut State) {
        state.failures = 0;
        state.quiet_until = None;
        if let Some(since) = state.offline_since.take() {
            let seconds = since.elapsed().as_secs();
            log::info!("{} answers again, after {seconds} s", self.server);
        }
    }

    /// For how long the server wants to be left alone.
    pub fn quiet_for(&self) -> Option<Duration> {
        let left = self
            .state()
            .quiet_until?
            .checked_duration_since(Instant::now())?;
        (!left.is_zero()).then_some(left)
    }

    /// How many requests in a row had no answer.
    pub fn failures(&self) -> u32 {
        self.state().failures
    }

    /// How many answers have ever come, refusals of the key apart: a way to see whether others get through.
    pub fn answers(&self) -> u64 {
        self.state().answers
    }

    /// The state is plain numbers, so that a thread that panicked cannot have left it half written.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
