//! Reports on their way to W&B: a folder with a file for each, and a thread that delivers them in the order in which
//! they were put there, for as long as that takes, across restarts too.
//!
//! A report leaves the folder when the server took it or refused it for good. While the server cannot be reached, the
//! first report waits and the others wait behind it, because a warning belongs before the failure. But a report that
//! fails again and again while others get through is passed by, and so is one that waits for a run to appear.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::client::Client;
use super::files::AgentRuns;
use super::report::{Next, Report, VERSION, Work};
use super::transport::{is_refused, is_unreachable};
use crate::failure::{Error, Result};
use crate::host::files::write_whole;

/// How long the thread sleeps when nothing wakes it: another process may have left something.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How often a process that delivers nothing looks whether the one that does has ended.
const LOCK_AGAIN: Duration = Duration::from_secs(1);

/// How long files are offered to a storage that cannot be reached.
const FILES_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// After so many failures while others got through, a report no longer holds up the others.
const STUBBORN: u32 = 5;

/// The folder and its thread.
pub struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    /// The server that reports are delivered to; those for others are somebody else's.
    server: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Somebody put something in.
    nudged: bool,
    /// The thread shall end.
    ending: bool,
    /// The last name given, as nanoseconds.
    last: i128,
}

impl Outbox {
    /// Opens the folder, makes it where it is missing, and starts to deliver what is in it.
    pub fn open(folder: &Path, client: Arc<Client>) -> Result<Outbox> {
        let refused = |cause: &dyn std::fmt::Display| {
            Error::system(
                format_args!("cannot keep reports in {}", folder.display()),
                cause,
            )
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|cause| refused(&cause))?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            server: client.base_url().to_owned(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let delivery = Delivery {
            shared: Arc::clone(&shared),
            client,
            runs: AgentRuns::default(),
            progress: HashMap::new(),
        };
        std::thread::Builder::new()
            .name("outbox".to_owned())
            .spawn(move || delivery.work())
            .map_err(|cause| refused(&cause))?;
        Ok(Outbox { shared })
    }

    /// Where the reports are kept.
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Keeps a report. Once this returns, the report survives a crash of the program and of the machine.
    pub fn put(&self, report: &Report) -> Result<()> {
        let name = {
            let mut state = self.shared.state();
            // A clock that is set back must not put a report before earlier ones.
            state.last = Timestamp::now().as_nanosecond().max(state.last + 1);
            format!("{:020}-{}.json", state.last, std::process::id())
        };
        write(&self.shared.folder.join(name), report)?;
        self.shared.state().nudged = true;
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Waits until all is delivered, at most for `bound`. Gives how many reports are left.
    pub fn flush(&self, bound: Duration) -> usize {
        let until = Instant::now() + bound;
        let mut state = self.shared.state();
        loop {
            let left = self.shared.deliverable().count();
            let now = Instant::now();
            if left == 0 || now >= until {
                return left;
            }
            let wait = (until - now).min(Duration::from_millis(100));
            state = self
                .shared
                .changed
                .wait_timeout(state, wait)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
    }
}

/// The thread is told to end and not waited for: it may be in a request, and what it does not finish is kept.
impl Drop for Outbox {
    fn drop(&mut self) {
        self.shared.state().ending = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reports that this process can deliver, the oldest first.
    fn deliverable(&self) -> impl Iterator<Item = Report> {
        let names = names(&self.folder).into_iter();
        names.filter_map(|name| self.read(&name))
    }

    /// The report of that name, when it is for our server and of a program that is not newer.
    fn read(&self, name: &str) -> Option<Report> {
        read(&self.folder.join(name)).filter(|report| report.server == self.server)
    }

    /// Sleeps until something is put in, the end comes, or `wait` is over. Gives whether to go on.
    fn sleep(&self, wait: Duration) -> bool {
        let state = self.state();
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, wait, |state| !state.nudged && !state.ending)
            .unwrap_or_else(PoisonError::into_inner);
        state.nudged = false;
        !state.ending
    }
}

struct Delivery {
    shared: Arc<Shared>,
    client: Arc<Client>,
    runs: AgentRuns,
    progress: HashMap<String, Progress>,
}

/// How far the delivery of one report came, in this process.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// Failures in a row.
    failures: u32,
    /// Those of them between which others had answers from the server: an outage has none.
    alone: u32,
    /// Answers that asked for a later try.
    tries: usize,
    /// Not before this.
    due: Instant,
    /// The answers that anybody had had from the server when it last failed.
    answers: u64,
}

impl Delivery {
    fn work(mut self) {
        let Some(_lock) = self.lock() else { return };
        loop {
            let wait = self.deliver_all();
            if !self.shared.sleep(wait) {
                return;
            }
        }
    }

    /// Only one process delivers from a folder; the others look again now and then whether it has ended. `None`: the
    /// end came first.
    fn lock(&self) -> Option<fs::File> {
        let path = self.shared.folder.join("lock");
        loop {
            let opened = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path);
            match opened {
                Ok(file) if file.try_lock().is_ok() => return Some(file),
                Ok(_) => {}
                Err(cause) => log::error!("cannot open {}: {cause}", path.display()),
            }
            if !self.shared.sleep(LOCK_AGAIN) {
                return None;
            }
        }
    }

    /// One pass over the folder, in order. Gives how long to sleep.
    fn deliver_all(&mut self) -> Duration {
        let names = names(&self.shared.folder);
        self.progress.retain(|name, _| names.contains(name));
        let mut wait = LOOK_AGAIN;
        for name in names {
            if self.shared.state().ending {
                break;
            }
            let Some(report) = self.shared.read(&name) else {
                continue;
            };
            let path = self.shared.folder.join(&name);
            let goes_on = self.deliver(&name, &path, report);
            if let Some(progress) = self.progress.get(&name) {
                wait = wait.min(progress.due.saturating_duration_since(Instant::now()));
            }
            if !goes_on {
                break;
            }
        }
        wait
    }

    /// Delivers one report as far as it goes now. Gives whether the next one may go.
    fn deliver(&mut self, name: &str, path: &Path, mut report: Report) -> bool {
        let answers = self.client.transport.link.answers();
        let mut progress = self.progress.get(name).copied().unwrap_or(Progress {
            failures: 0,
            alone: 0,
            tries: 0,
            due: Instant::now(),
            answers,
        });
        // A server that answers others again is worth a try before the pause is over.
        let is_back = progress.blocks() && answers > progress.answers;
        if progress.due > Instant::now() && !is_back {
            return !progress.blocks();
        }
        loop {
            match report.deliver(&self.client, &mut self.runs, progress.tries) {
                Ok(Next::Done) => return self.forget(name, path),
                Ok(Next::Step(work)) => {
                    report.work = work;
                    (progress.failures, progress.alone, progress.tries) = (0, 0, 0);
                    if let Err(error) = write(path, &report) {
                        log::error!("item {}: {error}", report.item);
                    }
                }
                Ok(Next::Later(pause)) => {
                    (progress.failures, progress.alone) = (0, 0);
                    progress.tries += 1;
                    progress.due = Instant::now() + pause;
                    self.progress.insert(name.to_owned(), progress);
                    return true;
                }
                Err(error) if is_unreachable(&error) || is_refused(&error) => {
                    let progress = self.failed(name, progress);
                    if progress.alone >= STUBBORN && is_old_file(name, &report) {
                        log::error!("item {}: its files are given up: {error}", report.item);
                        return self.forget(name, path);
                    }
                    return !progress.blocks();
                }
                Err(error) => {
                    log::error!("item {}: a report was given up: {error}", report.item);
                    return self.forget(name, path);
                }
            }
        }
    }

    fn forget(&mut self, name: &str, path: &Path) -> bool {
        self.progress.remove(name);
        if let Err(cause) = fs::remove_file(path) {
            log::error!("cannot remove {}: {cause}", path.display());
        }
        self.shared.changed.notify_all();
        true
    }

    /// Plans the next try.
    fn failed(&mut self, name: &str, mut progress: Progress) -> Progress {
        let link = &self.client.transport.link;
        let answers = link.answers();
        if progress.failures > 0 && answers > progress.answers {
            progress.alone += 1;
        }
        progress.answers = answers;
        progress.failures = progress.failures.saturating_add(1);
        let doubled = 2_u32.pow((progress.failures - 1).min(6));
        let pause = self.client.transport.timing.redelivery * doubled;
        progress.due = Instant::now() + pause.max(link.quiet_for().unwrap_or_default());
        self.progress.insert(name.to_owned(), progress);
        progress
    }
}

impl Progress {
    /// Does this report hold up the ones behind it?
    fn blocks(&self) -> bool {
        self.failures > 0 && self.alone < STUBBORN
    }
}

/// A failed item's files, a day after it failed. The failure itself is known by then, and a machine that cannot reach
/// W&B's storage must not gather files for ever.
fn is_old_file(name: &str, report: &Report) -> bool {
    let put_in = name.split('-').next().and_then(|text| text.parse().ok());
    let age = put_in.map(|put_in: i128| Timestamp::now().as_nanosecond() - put_in);
    matches!(report.work, Work::Attach { .. })
        && age.is_some_and(|age| age > FILES_KEPT.as_nanos().cast_signed())
}

/// The reports of the folder, the oldest first.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| Path::new(name).extension().is_some_and(|e| e == "json"))
        .collect();
    names.sort();
    names
}

/// A file that cannot be read is put aside, so that it is said once and kept for a person to look at. One of a newer
/// program is left where it is.
fn read(path: &Path) -> Option<Report> {
    let text = fs::read_to_string(path).ok()?;
    match serde_json::from_str::<Report>(&text) {
        Ok(report) if report.version == VERSION => Some(report),
        Ok(_) => None,
        Err(cause) => {
            log::error!("{} is no report, and is put aside: {cause}", path.display());
            let _ = fs::rename(path, path.with_extension("bad"));
            None
        }
    }
}

/// Keeps a report. The file holds lines of a job's log.
fn write(path: &Path, report: &Report) -> Result<()> {
    let bytes = serde_json::to_vec(report)
        .map_err(|cause| Error::system("a report cannot be written as JSON", cause))?;
    write_whole(path, &bytes)
}
