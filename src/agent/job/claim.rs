//! Whose an item is: claimed, taken over from the agent's earlier process, or given up.

use std::sync::Arc;

use super::{Job, REPORT_EVERY, Verdict};
use crate::failure::Result;
use crate::host::journal::Step;
use crate::host::runner;
use crate::queue::{AgentId, Former, RunQueueItem};

impl Job {
    /// Makes the lease a claim. While the queue gives no answer it is asked again: the claim may have been made, and
    /// giving up would leave the item claimed by nobody. `None` when the job was asked to stop before there was one.
    pub(super) fn claim(&self) -> Option<bool> {
        let (queue, agent) = (&self.shared.queue, &self.shared.agent);
        let ours = self.ask_queue("claimed", || {
            queue.ack(agent, &self.item, &self.entry.run_id)
        });
        match ours {
            Some(false) => log::warn!("item {}: somebody else has taken it", self.item),
            Some(true) => {}
            None => queue.leave(&self.item),
        }
        ours
    }

    /// Takes the item over from this agent's earlier process. While the queue gives no answer, one that was claimed is
    /// ours: what runs is followed, and its end is reported when the queue is there again.
    pub(super) fn adopt(&mut self) -> Option<bool> {
        let former = Former {
            agents: self.entry.agents.iter().cloned().map(AgentId).collect(),
            run_id: self.entry.run_id.clone(),
            claimed: self.entry.step != Step::Taken,
        };
        let item = RunQueueItem {
            id: self.item.clone(),
            queue: self.entry.queue.clone(),
            spec: self.entry.spec.clone(),
        };
        let (queue, agent) = (Arc::clone(&self.shared.queue), self.shared.agent.clone());
        // Ended between the two, the next process must know both names.
        self.entry.agents.push(agent.0.clone());
        self.keep_or_say();
        let ask = || queue.adopt(&agent, &item, &former);
        // Asked once whatever else is wanted of the item: one that was given up is stopped as what it is.
        let ours = ask().map_or_else(|_| self.ask_queue("taken up", ask), Some);
        if ours == Some(true) {
            self.entry.agents = vec![agent.0];
            if self.entry.step == Step::Taken {
                self.entry.step = Step::Preparing;
            }
            self.keep_or_say();
        }
        ours.or(former.claimed.then_some(true))
    }

    /// The agent ends before the queue has said whose the item is. Nothing runs for it, and it may be claimed: the
    /// journal keeps it.
    pub(super) fn leave_to_the_next_start(&self) -> Verdict {
        log::warn!(
            "item {}: it is not known whether it is this agent's; asked again when the agent starts again",
            self.item
        );
        Verdict::NotOurs
    }

    /// Asks the queue until it answers; `None` when the job was asked to stop first.
    pub(super) fn ask_queue(&self, what: &str, ask: impl Fn() -> Result<bool>) -> Option<bool> {
        let mut said = false;
        while self.stop.reason().is_none() {
            match ask() {
                Ok(answer) => return Some(answer),
                Err(error) if !said => {
                    log::error!("item {}: cannot be {what} yet: {error}", self.item);
                    said = true;
                }
                Err(_) => {}
            }
            let _ = self.stop.pause(REPORT_EVERY);
        }
        None
    }

    /// The item was given up or given to another while no agent was there: what runs for it ends.
    pub(super) fn abandon(&self) -> Verdict {
        log::warn!(
            "item {}: it is not this agent's any more, or has ended",
            self.item
        );
        if let Some(started) = &self.entry.started {
            let grace = self.shared.config.stop_grace.value;
            if let Err(error) = runner::abandon(started, self.labels(), grace) {
                log::error!(
                    "item {}: what runs for it cannot be ended: {error}",
                    self.item
                );
                return Verdict::NotOurs;
            }
        }
        self.forget();
        Verdict::NotOurs
    }
}
