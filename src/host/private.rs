//! What keeps the agent's own things from the other users of the machine. Files are made with mode 0600 where they
//! are written. The process's umask is left alone, because git and docker inherit it and would put it into images.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Makes a folder for this user alone, with those above it; one that is there stays as it is.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// A core file, of this process or of docker's client, would hold the key; Ctrl-\ is enough to write one. Nothing can
/// be done where this is refused, and nothing is lost.
pub fn write_no_cores() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, most);
    }
}
