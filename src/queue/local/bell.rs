//! How an agent notices at once that there is something new: each listens on a unix datagram socket beside the
//! database, and who changes something sends it one byte after the commit. A nudge may get lost, so the listener
//! also asks SQLite twice a second whether anyone wrote. Touches sockets and `PRAGMA data_version`, no row.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::{LocalQueue, schema};
use crate::failure::{Error, Result};
use crate::queue::AgentId;

/// How long a listener waits for a nudge before it looks for itself.
const PATIENCE: Duration = Duration::from_millis(500);

/// A unix socket's path has room for 107 bytes; a longer one goes without nudges.
const LONGEST_PATH: usize = 100;

/// A listener: its thread, and how to end it.
pub struct Bell {
    over: Arc<AtomicBool>,
    socket: Option<PathBuf>,
    thread: Option<JoinHandle<()>>,
}

impl Bell {
    /// Starts to listen for `agent`. Gives the socket's path as it can be stored, where there is a socket.
    pub fn hang(
        database: &Path,
        folder: &Path,
        agent: &AgentId,
        wake: Box<dyn Fn() + Send>,
    ) -> Result<(Bell, Option<String>)> {
        let listener = Listener {
            connection: schema::reopen(database, PATIENCE)?,
            socket: None,
            over: Arc::new(AtomicBool::new(false)),
            wake,
        };
        let path = folder.join(&agent.0);
        // Without a socket the agent is half a second slower, and that is all.
        let socket = bind(folder, &path).ok();
        let bell = socket.is_some().then_some(path);
        let name = bell.as_deref().and_then(Path::to_str).map(str::to_owned);
        let over = Arc::clone(&listener.over);
        let thread = std::thread::Builder::new()
            .name("queue-watch".to_owned())
            .spawn(move || Listener { socket, ..listener }.listen())
            .map_err(|cause| {
                Error::system("cannot start a thread that watches the queue", cause)
            })?;
        let bell = Bell {
            over,
            socket: bell,
            thread: Some(thread),
        };
        Ok((bell, name))
    }
}

/// Ends the listener; it is over within half a second, and at once when the nudge arrives.
impl Drop for Bell {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(socket) = &self.socket {
            ring(std::slice::from_ref(socket));
            let _ = std::fs::remove_file(socket);
        }
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
        if let Some(thread) = self.thread.take()
            // A listener whose `wake` drops the queue must not wait for itself.
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

struct Listener {
    connection: Connection,
    socket: Option<UnixDatagram>,
    over: Arc<AtomicBool>,
    wake: Box<dyn Fn() + Send>,
}

impl Listener {
    fn listen(self) {
        let mut seen = self.version();
        while !self.over.load(Ordering::Relaxed) {
            let nudged = self.wait();
            let version = self.version();
            if (nudged || version != seen) && !self.over.load(Ordering::Relaxed) {
                (self.wake)();
            }
            seen = version;
        }
    }

    /// Waits for a nudge, and takes all that came at once as one.
    fn wait(&self) -> bool {
        let Some(socket) = &self.socket else {
            std::thread::park_timeout(PATIENCE);
            return false;
        };
        let mut byte = [0];
        if let Err(error) = socket.recv(&mut byte) {
            if !matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
            ) {
                // A socket that gives errors must not turn the wait into a spin.
                std::thread::park_timeout(PATIENCE);
            }
            return false;
        }
        if socket.set_nonblocking(true).is_ok() {
            while socket.recv(&mut byte).is_ok() {}
        }
        let _ = socket.set_nonblocking(false);
        true
    }

    /// A number that changes when another connection has written. `None` when SQLite will not say: then the
    /// agent looks for itself once and meets the same trouble where it can be told.
    fn version(&self) -> Option<i64> {
        self.connection
            .pragma_query_value(None, "data_version", |row| row.get(0))
            .ok()
    }
}

fn bind(folder: &Path, path: &Path) -> std::io::Result<UnixDatagram> {
    if path.as_os_str().len() > LONGEST_PATH || path.to_str().is_none() {
        return Err(ErrorKind::InvalidFilename.into());
    }
    schema::make_folder(folder)?;
    remove_stale(folder);
    let socket = UnixDatagram::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Sends one byte to each socket, waiting for none. A full one has a nudge in it already.
pub fn ring(sockets: &[PathBuf]) {
    let Ok(sender) = UnixDatagram::unbound() else {
        return;
    };
    if sender.set_nonblocking(true).is_err() {
        return;
    }
    for socket in sockets {
        let _ = sender.send_to(&[1], socket);
    }
}

/// Removes the sockets of agents that were killed: nobody is there to connect to.
fn remove_stale(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if connect(&path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Does nobody listen there any more? The kernel knows at once when a process ends, however it ends. A folder that is
/// not there says nothing: a container may see the database under another path.
pub fn is_deserted(socket: &Path) -> bool {
    match connect(socket).map_err(|error| error.kind()) {
        Err(ErrorKind::ConnectionRefused) => true,
        Err(ErrorKind::NotFound) => socket.parent().is_some_and(Path::is_dir),
        _ => false,
    }
}

fn connect(socket: &Path) -> std::io::Result<()> {
    UnixDatagram::unbound()?.connect(socket)
}

impl LocalQueue {
    /// Where the agents' sockets are: `queue.wake` beside `queue.db`.
    pub(super) fn bells_folder(&self) -> PathBuf {
        self.path.with_extension("wake")
    }
}
