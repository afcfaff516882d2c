//! What a server does when nobody asks: runs that fell silent are given up, and what was left half done is removed.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::failure::{Error, Result};
use crate::queue::local::LocalQueue;

/// How often files are looked through: nothing waits for that.
const TIDY_EVERY: Duration = Duration::from_secs(600);

/// The thread that keeps house. It ends when this is dropped.
pub struct Housekeeping {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Housekeeping {
    /// Begins to keep house. A run has crashed when it gave no sign of life for `silence`.
    pub fn start(queue: Arc<LocalQueue>, silence: Duration) -> Result<Housekeeping> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("housekeeping".to_owned())
            .spawn(move || keep(&queue, silence, &stopped))
            .map_err(|cause| Error::system("cannot start a thread", cause))?;
        Ok(Housekeeping {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn keep(queue: &LocalQueue, silence: Duration, stopped: &Receiver<()>) {
    let look_every = (silence / 4).clamp(Duration::from_millis(200), Duration::from_secs(30));
    // While the server was away no run could give a sign of life: it gets the whole time again.
    let start = Instant::now();
    let mut tidied: Option<Instant> = None;
    while stopped.recv_timeout(look_every) == Err(RecvTimeoutError::Timeout) {
        if start.elapsed() >= silence {
            match queue.give_up_lost_runs(silence) {
                Ok(0) => {}
                Ok(count) => log::info!("runs given up because they fell silent: {count}"),
                Err(error) => log::error!("{error}"),
            }
        }
        if tidied.is_none_or(|when| when.elapsed() >= TIDY_EVERY) {
            tidied = Some(Instant::now());
            if let Err(error) = queue.tidy_files() {
                log::error!("{error}");
            }
        }
    }
}
