//! What an earlier process of this agent left: its items in hand are taken up, and what belongs to none of them is ended.
//!
//! Docker is asked on a thread of its own. It may take its time, and the loop must hear signals and tell the queue that
//! the agent lives. Nothing new is taken meanwhile: what is being ended may have the GPU.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::{Agent, Event, Phase, Running, Shared, is_scheduler, job};
use crate::failure::{Error, Result};
use crate::host::journal::Entry;
use crate::host::stop::Stop;
use crate::host::{engine, runner, source};
use crate::queue::{ItemId, StopReason};

/// How long apart docker is asked again that does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How often a docker that answers is asked for the agent's containers.
const TRIES: u32 = 4;

impl Agent {
    /// Begins to look at what an earlier process left.
    pub(super) fn resume(&mut self) -> Result<()> {
        let (entries, troubles) = self.shared.journal.entries()?;
        for trouble in &troubles {
            self.say_once(trouble);
        }
        let resuming = Resuming {
            shared: Arc::clone(&self.shared),
            // What is not understood may be in hand all the same: then nobody's container is ended.
            ends_orphans: troubles.is_empty(),
            tries_once: self.once,
            stop: Arc::clone(&self.resuming),
            events: self.sender.clone(),
        };
        self.is_resuming = true;
        std::thread::Builder::new()
            .name("resume".to_owned())
            .spawn(move || resuming.carry_out(entries))
            .map(drop)
            .map_err(|cause| Error::system("cannot start a thread", cause))
    }

    /// Goes on with the items in hand, each on a thread of its own.
    pub(super) fn take_up(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let id = ItemId(entry.item.clone());
            let is_scheduler = is_scheduler(&entry.spec);
            let stop = Arc::new(Stop::default());
            match job::take_up(&self.shared, entry, &stop, &self.sender) {
                Ok(thread) => {
                    let running = Running::new(stop, thread, is_scheduler);
                    self.running.insert(id.clone(), running);
                }
                // It stays in the journal, for the next start.
                Err(error) => log::error!("item {id}: cannot be taken up: {error}"),
            }
            if self.phase == Phase::Stopping {
                self.stop(&id, StopReason::AgentStopped);
            }
        }
    }
}

/// The look at what is left.
struct Resuming {
    shared: Arc<Shared>,
    ends_orphans: bool,
    /// Who starts the agent by the clock will start it again.
    tries_once: bool,
    stop: Arc<Stop>,
    events: Sender<Event>,
}

impl Resuming {
    fn carry_out(self, mut entries: Vec<Entry>) {
        source::sweep(&self.shared.config.cache_folder, &engine::is_mounted);
        let items: Vec<String> = entries.iter().map(|entry| entry.item.clone()).collect();
        let journal = &self.shared.journal;
        match runner::note_restarts(journal.name(), &mut entries) {
            Ok(changed) => {
                for error in changed
                    .into_iter()
                    .filter_map(|entry| journal.keep(entry).err())
                {
                    log::error!("{error}");
                }
            }
            // Each job asks again, and waits for docker.
            Err(error) => log::error!("{error}"),
        }
        let _ = self.events.send(Event::InHand(entries));
        if self.ends_orphans {
            self.end_orphans(&items);
        }
    }

    /// Ends the containers of no item. While docker does not answer it is asked again, as for everything that the agent
    /// wants of it before it takes a job.
    fn end_orphans(&self, items: &[String]) {
        let grace = self.shared.config.stop_grace.value;
        let (mut said, mut refusals) = (false, 0);
        while let Err(error) = runner::end_orphans(self.shared.journal.name(), items, grace) {
            refusals += u32::from(engine::version().is_ok());
            if !std::mem::replace(&mut said, true) {
                log::error!(
                    "what an earlier process may have left running cannot be ended yet: {error}"
                );
            }
            let ends = self.tries_once || refusals >= TRIES;
            if ends || self.stop.pause(ASK_AGAIN).is_err() {
                return;
            }
        }
    }
}

impl Drop for Resuming {
    /// Whatever became of it, the agent goes on.
    fn drop(&mut self) {
        let _ = self.events.send(Event::Resumed);
    }
}
