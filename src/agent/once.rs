//! The lock of `--once`: a second start by cron finds the first one still at work, and leaves.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;

use sha2::{Digest, Sha256};

use crate::config::{AgentConfig, Backend};
use crate::failure::{Error, Result};
use crate::host::files;

/// Held while it lives; the kernel lets it go with the process, however that ends.
#[derive(Debug)]
pub struct OnceLock(#[expect(dead_code, reason = "the open file is the lock")] File);

/// Takes the lock for these queues of this backend; `None` when another process has it.
pub fn lock(config: &AgentConfig) -> Result<Option<OnceLock>> {
    let mut queues = config.queues.value.clone();
    queues.sort();
    let place = match &config.backend.value {
        Backend::Local(database) => database.to_string_lossy().into_owned(),
        Backend::Wandb | Backend::Unset => {
            format!("{} {:?}", config.base_url.value, config.entity.value)
        }
    };
    let mut hash = Sha256::new();
    for part in std::iter::once(&place).chain(&queues) {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digest = hash.finalize();
    let name = u64::from_be_bytes(std::array::from_fn(|index| digest[index]));
    let path = config.state_folder.join(format!("once-{name:016x}.lock"));
    let refused = |cause: &dyn std::fmt::Display| {
        Error::system(format_args!("cannot lock {}", path.display()), cause)
            .hint("the folder must be writable by this user; XDG_STATE_HOME names another place")
    };
    files::make_folder(&config.state_folder)?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|cause| refused(&cause))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(OnceLock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(cause)) => Err(refused(&cause)),
    }
}
