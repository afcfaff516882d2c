//! Work that several jobs want at once and that is done for all of them by the first: a pull, a build. Knows nothing
//! about what the work is.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::failure::Result;
use crate::host::stop::Stop;

/// How often a job that waits looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(200);

/// How the work of the first caller stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Running,
    Succeeded,
    Failed,
}

#[derive(Debug)]
struct Turn {
    progress: Mutex<Progress>,
    ended: Condvar,
}

/// The work that is being done, by its key.
static TURNS: LazyLock<Mutex<HashMap<String, Arc<Turn>>>> = LazyLock::new(Mutex::default);

/// Does `work`, unless it is being done for somebody else under the same key: then waits for that, and takes its
/// success for its own. When it fails, the next who waited tries for himself: the reason may have been the first
/// one's alone, such as his own stop.
///
/// The error is that of `work`, or that the job shall stop while it waits.
pub fn once(key: &str, stop: &Stop, work: impl FnOnce() -> Result<()>) -> Result<()> {
    loop {
        let (turn, is_ours) = take(key);
        if is_ours {
            let mut ending = Ending {
                key,
                turn: &turn,
                progress: Progress::Failed,
            };
            let result = work();
            if result.is_ok() {
                ending.progress = Progress::Succeeded;
            }
            return result;
        }
        if wait(&turn, stop)? == Progress::Succeeded {
            return Ok(());
        }
    }
}

/// The turn of a key, and whether the caller is the one who has it.
fn take(key: &str) -> (Arc<Turn>, bool) {
    let mut turns = lock(&TURNS);
    if let Some(turn) = turns.get(key) {
        return (Arc::clone(turn), false);
    }
    let turn = Arc::new(Turn {
        progress: Mutex::new(Progress::Running),
        ended: Condvar::new(),
    });
    turns.insert(key.to_owned(), Arc::clone(&turn));
    (turn, true)
}

fn wait(turn: &Turn, stop: &Stop) -> Result<Progress> {
    let mut progress = lock(&turn.progress);
    while *progress == Progress::Running {
        stop.check()?;
        progress = turn
            .ended
            .wait_timeout(progress, LOOK)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
    Ok(*progress)
}

/// Gives the turn back however the work ended: a panic in it must not leave the others waiting.
struct Ending<'a> {
    key: &'a str,
    turn: &'a Turn,
    progress: Progress,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        lock(&TURNS).remove(self.key);
        *lock(&self.turn.progress) = self.progress;
        self.turn.ended.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Error;
    use crate::queue::StopReason;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Four jobs that come while the first works; gives how often the work was done, and each one's result.
    fn four(key: &str, work: impl Fn(usize) -> Result<()> + Sync) -> (usize, Vec<Result<()>>) {
        let done = AtomicUsize::new(0);
        let all_here = Barrier::new(4);
        let results = std::thread::scope(|scope| {
            let jobs: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let stop = Stop::default();
                        all_here.wait();
                        once(key, &stop, || {
                            // Whoever is first is waited for by the three others.
                            while waiting(key) < 3 - done.load(Ordering::SeqCst).min(3) {
                                std::thread::yield_now();
                            }
                            work(done.fetch_add(1, Ordering::SeqCst))
                        })
                    })
                })
                .collect();
            jobs.into_iter()
                .map(|job| job.join().expect("no panic"))
                .collect()
        });
        (done.load(Ordering::SeqCst), results)
    }

    /// Each that waits, and the one that works, hold the turn; so do the table and this look at it.
    fn waiting(key: &str) -> usize {
        lock(&TURNS)
            .get(key)
            .map_or(0, |turn| Arc::strong_count(turn).saturating_sub(2))
    }

    #[test]
    fn the_success_of_the_first_is_everybodys() {
        let (done, results) = four("success", |_| Ok(()));
        assert_eq!(done, 1);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(waiting("success"), 0);
    }

    #[test]
    fn after_a_failure_the_next_tries_itself() {
        let (done, results) = four("failure", |before| match before {
            0 => Err(Error::input("no luck")),
            _ => Ok(()),
        });
        assert_eq!(done, 2);
        assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
    }

    #[test]
    fn other_work_does_not_wait() {
        let stop = Stop::default();
        once("a", &stop, || once("b", &stop, || Ok(()))).expect("no deadlock");
    }

    #[test]
    fn a_job_that_shall_stop_does_not_wait_to_the_end() {
        let stop = Stop::default();
        let result = once("held", &Stop::default(), || {
            stop.request(StopReason::Requested);
            once("held", &stop, || panic!("it is not this job's turn"))
        });
        assert_eq!(
            result.expect_err("stopped").message,
            "stopped: a person asked for it"
        );
    }

    #[test]
    fn a_panic_gives_the_turn_back() {
        let stop = Stop::default();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            once("panic", &stop, || panic!("a bug in the work"))
        }));
        assert!(panicked.is_err());
        once("panic", &stop, || Ok(())).expect("the turn is free");
    }
}
