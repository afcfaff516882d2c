//! What keeps the agent's memory from the other users of the machine. Its files are `files.rs`'s to keep.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A core file, of this process or of docker's client, would hold the key; Ctrl-\ is enough to write one. Nothing can
/// be done where this is refused, and nothing is lost.
pub fn write_no_cores() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, most);
    }
}
