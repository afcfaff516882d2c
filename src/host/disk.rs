//! Room on the disks that jobs need: while there is less than the owner wants, the agent takes nothing.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use crate::failure::{Error, Kind, Result};

/// The folders that need room, and how much.
#[derive(Debug, Clone)]
pub struct Disks {
    folders: Vec<PathBuf>,
    least: u64,
    is_short: bool,
}

impl Disks {
    /// A guard over the disks of these folders, each of which must have `least` bytes free; 0 is no guard.
    pub fn new(folders: impl IntoIterator<Item = PathBuf>, least: u64) -> Disks {
        Disks {
            folders: folders.into_iter().collect(),
            least,
            is_short: false,
        }
    }

    /// The first of the folders whose disk is too full.
    pub fn full(&self) -> Option<&Path> {
        let is_full = |folder: &&PathBuf| free_bytes(folder).is_some_and(|free| free < self.least);
        self.folders.iter().find(is_full).map(PathBuf::as_path)
    }

    /// An error while one of the disks is too full. Its words stay the same for as long as that is so.
    pub fn check(&mut self) -> Result<()> {
        let Some(folder) = self.full().map(Path::to_owned) else {
            if std::mem::take(&mut self.is_short) {
                log::info!("there is room on the disk again: taking jobs");
            }
            return Ok(());
        };
        self.is_short = true;
        Err(Error::new(
            Kind::System,
            format!(
                "the disk of {} has less than {} MB free: taking no jobs until it has more",
                folder.display(),
                self.least.div_ceil(1_000_000)
            ),
        )
        .hint("make room, for example with `docker system df` and `docker image prune`; or set `min_free_disk` in launch-config.yaml"))
    }
}

/// What users other than root can still write; `None` where the system does not say.
fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = statvfs(folder).ok()?;
    Some(disk.blocks_available() * disk.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_too_full_is_named_until_it_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut disks = Disks::new([folder.path().to_owned()], u64::MAX);
        let error = disks.check().expect_err("no disk is that large");
        assert!(
            error.message.contains(&folder.path().display().to_string()),
            "{error}"
        );
        assert_eq!(disks.check().expect_err("still").message, error.message);
        disks.least = 1;
        assert_eq!(disks.check(), Ok(()));
        let nowhere = PathBuf::from("/no/such/folder");
        assert_eq!(Disks::new([nowhere], u64::MAX).check(), Ok(()));
    }
}
