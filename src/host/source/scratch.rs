//! A folder for one job, gone when the job has ended. What a killed agent left is found by its lock, which the kernel
//! let go, and removed at the next start.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::refused;
use crate::failure::{Error, Kind, Result};
use crate::host::strays::{self, Mark};

/// The folder of one job.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    lock: PathBuf,
    #[expect(dead_code, reason = "the open file is the lock")]
    held: File,
}

impl Scratch {
    /// Makes a folder in `cache`.
    pub fn make(cache: &Path) -> Result<Scratch> {
        let work = cache.join("work");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&work)
            .map_err(|cause| refused("make the folder", &work, &cause))?;
        // Whoever tidies may take a lock in the moment before we do; then the next name is ours.
        for _ in 0..100 {
            let name = format!("{:016x}", fastrand::u64(..));
            let lock = work.join(format!("{name}.lock"));
            let Ok(held) = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&lock)
            else {
                continue;
            };
            if held.try_lock().is_err() {
                continue;
            }
            let folder = work.join(name);
            let code = folder.join("code");
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&code)
                .map_err(|cause| refused("make the folder", &code, &cause))?;
            return Ok(Scratch { folder, lock, held });
        }
        Err(Error::new(
            Kind::System,
            format!("cannot make a folder in {}", work.display()),
        )
        .hint("it must be writable by the agent's user; XDG_CACHE_HOME names another place"))
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder for the job's code and nothing else.
    pub fn code(&self) -> PathBuf {
        self.folder.join("code")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.folder, &self.lock);
    }
}

fn remove(folder: &Path, lock: &Path) {
    match fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            // A container that ran as root has left files that are not ours; the lock stays, for the next start.
            log::warn!("cannot remove {}: {cause}", folder.display());
        }
        _ => drop(fs::remove_file(lock)),
    }
}

/// Removes the folders of jobs whose agent is gone, but those of which `is_in_use` says that a container still has
/// their code. What still fetches into one or builds of it ends first: its job begins again, with a folder of its own.
pub fn sweep(cache: &Path, is_in_use: &dyn Fn(&Path) -> bool) {
    let Ok(entries) = fs::read_dir(cache.join("work")) else {
        return;
    };
    for lock in entries.flatten().map(|entry| entry.path()) {
        if lock.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let Ok(file) = OpenOptions::new().write(true).open(&lock) else {
            continue;
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => continue,
        }
        let folder = lock.with_extension("");
        let code = folder.join("code");
        if !is_in_use(&code) {
            strays::end(Mark::Folder(&code.to_string_lossy()));
            remove(&folder, &lock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::{self, Ending};
    use crate::launch::command::CommandLine;

    #[test]
    fn a_scratch_folder_goes_with_its_job() {
        let cache = tempfile::tempdir().expect("a folder");
        let scratch = Scratch::make(cache.path()).expect("a scratch folder");
        let folder = scratch.folder().to_owned();
        assert!(scratch.code().is_dir());
        fs::write(scratch.code().join("x"), "x").expect("written");
        sweep(cache.path(), &|_| false);
        assert!(folder.is_dir(), "a job that lives keeps its folder");
        drop(scratch);
        assert!(!folder.exists());
        assert_eq!(
            fs::read_dir(cache.path().join("work"))
                .expect("a folder")
                .count(),
            0
        );
    }

    #[test]
    fn what_a_killed_agent_left_is_removed_unless_a_container_has_it() {
        let cache = tempfile::tempdir().expect("a folder");
        let left = |name: &str| {
            let code = cache.path().join("work").join(name).join("code");
            fs::create_dir_all(&code).expect("a folder");
            fs::write(cache.path().join("work").join(format!("{name}.lock")), "").expect("written");
            code
        };
        let (gone, used) = (left("gone"), left("used"));
        sweep(cache.path(), &|code| code == used);
        assert!(!gone.parent().expect("a parent").exists());
        assert!(used.is_dir());
        sweep(cache.path(), &|_| false);
        assert!(!used.exists());
    }

    #[test]
    fn what_a_killed_agent_left_at_work_in_a_folder_ends_with_it() {
        let cache = tempfile::tempdir().expect("a folder");
        let code = cache.path().join("work/left/code");
        fs::create_dir_all(&code).expect("a folder");
        fs::write(code.join("x"), "x\n").expect("written");
        fs::write(cache.path().join("work/left.lock"), "").expect("written");
        let command = CommandLine::new("tail")
            .arg("-f")
            .arg(code.join("x").to_string_lossy());
        // What it prints shows that it is at work.
        let swept = |_: &[u8]| sweep(cache.path(), &|_| false);
        let ending = process::stream(&command, |_| {}, swept).expect("a run");
        assert_eq!(ending, Ending::Signal(9));
        assert!(!code.exists());
    }
}
