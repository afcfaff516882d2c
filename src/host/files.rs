//! Files that are whole or not there, for this user alone: each is made so where it is written. The process's umask is
//! left alone, because git and docker inherit it and would put it into images.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::failure::{Error, Result};

/// Writes a file so that there is always a whole one under its name, also after a power cut. Nobody else can read it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let attempt = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        fs::File::open(folder)?.sync_all()
    };
    attempt().map_err(|cause| Error::system(format_args!("cannot write {}", path.display()), cause))
}

/// Makes a folder for this user alone, with those above it; one that is there stays as it is.
pub fn make_folder(folder: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|cause| {
            Error::system(
                format_args!("cannot make the folder {}", folder.display()),
                cause,
            )
        })
}

/// Removes a file. One that is not there is no error.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::system(
            format_args!("cannot remove {}", path.display()),
            error,
        )),
        _ => Ok(()),
    }
}
/// Bytes as people say them: `1.2 GB`.
pub fn spell_size(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{}.{} GB", bytes / 1_000_000_000, bytes / 100_000_000 % 10),
        1_000_000.. => format!("{} MB", bytes / 1_000_000),
        1000.. => format!("{} kB", bytes / 1000),
        _ => format!("{bytes} bytes"),
    }
}
