//! Whose journal it is. Each agent of a machine has a folder of its own, which it keeps over restarts: a lock says
//! that it is taken, and a name in it is the label of the agent's containers.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Entry, path_of, read_all, write};
use crate::failure::{Error, Result};
use crate::host::files;

/// More agents than this of one user on one machine are a mistake.
const MOST: usize = 1000;

/// The journal of one agent, held as long as this lives: the kernel lets go of the lock with the process, however
/// that ends.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    name: String,
    _lock: File,
}

/// Whose folder it is, as it lies there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    /// The agent's name on this machine.
    name: String,
    /// The machine: a home folder may be on several.
    machine: String,
    /// Where its items come from.
    backend: String,
    /// The queues that it polled last.
    queues: Vec<String>,
}

/// How well a free folder fits, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// The same queues: this agent, before its restart.
    Same,
    /// Other queues, and items in hand: this agent, before its configuration changed.
    InHand,
    /// Other queues, and nothing in hand.
    Empty,
}

impl Journal {
    /// The journal of an agent that polls `queues` of `backend`: the one that it had before its restart, or else a
    /// new one. Never one that another agent has now.
    pub fn open(state_folder: &Path, backend: &str, queues: &[String]) -> Result<Journal> {
        let all = state_folder.join("agents");
        files::make_folder(&all)?;
        // One agent chooses at a time: while it looks at a folder, that folder seems taken.
        let choosing = open_lock(&all)?;
        choosing
            .lock()
            .map_err(|cause| Error::system(format_args!("cannot lock {}", all.display()), cause))?;
        let mut queues = queues.to_vec();
        queues.sort();
        let wanted = |name: String| Owner {
            name,
            machine: machine(),
            backend: backend.to_owned(),
            queues: queues.clone(),
        };
        let mut best: Option<(Fit, Journal)> = None;
        for number in 0..MOST {
            let folder = all.join(number.to_string());
            let is_new = !folder.exists();
            if is_new && best.is_some() {
                break;
            }
            files::make_folder(&folder)?;
            let Some(lock) = lock(&folder)? else { continue };
            let owner = match read(&folder) {
                Some(owner) => owner,
                None if folder.join("items").exists() => continue,
                None => wanted(new_name()),
            };
            if (&owner.machine, &owner.backend) != (&machine(), &wanted(String::new()).backend) {
                continue;
            }
            let journal = Journal {
                folder,
                name: owner.name.clone(),
                _lock: lock,
            };
            let fit = match owner.queues == queues {
                true => Fit::Same,
                false if journal.holds_items() => Fit::InHand,
                false => Fit::Empty,
            };
            if best.as_ref().is_none_or(|(known, _)| fit < *known) {
                best = Some((fit, journal));
            }
            if is_new {
                break;
            }
        }
        let Some((_, journal)) = best else {
            return Err(Error::system(
                format_args!("cannot keep a journal in {}", all.display()),
                "all its folders are taken",
            ));
        };
        journal.write_owner(&wanted(journal.name.clone()))?;
        Ok(journal)
    }

    /// The agent's name on this machine: the label of its containers.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The items in hand, and a sentence about each file that is not understood.
    pub fn entries(&self) -> Result<(Vec<Entry>, Vec<Error>)> {
        read_all(&self.items())
    }

    /// Keeps what is known of an item. Once this returns it survives a crash of the program and of the machine.
    pub fn keep(&self, entry: &Entry) -> Result<()> {
        write(&self.items(), entry)
    }

    /// The item is no longer in hand.
    pub fn forget(&self, item: &str) -> Result<()> {
        files::remove(&path_of(&self.items(), item))
    }

    fn items(&self) -> PathBuf {
        self.folder.join("items")
    }

    fn holds_items(&self) -> bool {
        fs::read_dir(self.items()).is_ok_and(|mut items| items.next().is_some())
    }

    fn write_owner(&self, owner: &Owner) -> Result<()> {
        files::make_folder(&self.items())?;
        // What a crash left half-written has no name that counts.
        for file in fs::read_dir(self.items()).into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().starts_with(".tmp") {
                files::remove(&file.path())?;
            }
        }
        let text = serde_json::json!(owner).to_string();
        files::write_whole(&self.folder.join("agent.json"), text.as_bytes())
    }
}

fn read(folder: &Path) -> Option<Owner> {
    let text = fs::read_to_string(folder.join("agent.json")).ok()?;
    serde_json::from_str(&text).ok()
}

/// Takes a folder; `None` when another agent has it.
fn lock(folder: &Path) -> Result<Option<File>> {
    let file = open_lock(folder)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(cause)) => Err(Error::system(
            format_args!("cannot lock {}", folder.display()),
            cause,
        )),
    }
}

fn open_lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|cause| {
            Error::system(format_args!("cannot open {}", path.display()), cause).hint(
                "the folder must be writable by this user; XDG_STATE_HOME names another place",
            )
        })
}

/// A name that no other agent of any machine has.
fn new_name() -> String {
    std::iter::repeat_with(fastrand::alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .take(12)
        .collect()
}

/// What tells machines apart that share a home folder.
fn machine() -> String {
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let host = nix::unistd::gethostname().unwrap_or_default();
    match id.trim() {
        "" => host.to_string_lossy().into_owned(),
        id => id.to_owned(),
    }
}
