//! From a lease to a claim: the one step that decides whether a job runs here. See the folder's own words on what
//! each answer means.

use serde_json::json;

use super::{Ack, WandbQueue};
use crate::failure::{Error, Kind, Result};
use crate::queue::{Former, ItemId, RunQueueItem};

const ACK: &str = "mutation ackRunQueueItem($itemId: ID!, $runId: String!) {
  ackRunQueueItem(input: {runQueueItemId: $itemId, runName: $runId}) { success }
}";

impl WandbQueue {
    /// Claims an item for a run. `false`: somebody else has it, and it must be neither run nor failed.
    ///
    /// Repeats within a bound while the server cannot be reached. After that the error is one of
    /// [`is_unreachable`](super::transport::is_unreachable), and the caller calls again with the same run until it has
    /// an answer: the item may be ours already, and then nobody else will ever run it. What earlier calls could not
    /// find out is remembered.
    pub(super) fn claim(&self, item: &ItemId, run_id: &str) -> Result<bool> {
        let queue = self.remember_try(item, run_id)?;
        let variables = json!({"itemId": item.0, "runId": run_id});
        let transport = &self.client.transport;
        let answer =
            transport.repeated_with(ACK, &variables, || self.set_ack(item, Ack::Uncertain));
        let uncertain = self
            .held()
            .get(item)
            .is_some_and(|held| held.ack == Ack::Uncertain);
        let claimed = match answer {
            Ok(data) if data["ackRunQueueItem"]["success"] == json!(true) => true,
            Ok(_) if uncertain => self.carries_our_run(item, &queue, run_id)?,
            Ok(_) => false,
            // A repetition may also be refused in words.
            Err(error) if uncertain && error.kind == Kind::Input => {
                if !self.carries_our_run(item, &queue, run_id)? {
                    return Err(error);
                }
                true
            }
            Err(error) => return Err(error),
        };
        if claimed {
            self.set_ack(item, Ack::Claimed);
        } else {
            self.held().remove(item);
        }
        Ok(claimed)
    }

    /// Makes an item known that an earlier process of this agent acknowledged, or was about to, so that its stop
    /// requests and its end find their way. `false`: another run has it, or it has failed.
    ///
    /// What a server says that cannot be reached or cannot tell is not waited for: the item was ours, and no server
    /// gives an item that was acknowledged to another.
    pub(super) fn take_over(&self, item: &RunQueueItem, former: &Former) -> Result<bool> {
        let mut held = self.hold(item)?;
        held.run_id = Some(former.run_id.clone());
        held.ack = if former.claimed {
            Ack::Claimed
        } else {
            Ack::Uncertain
        };
        self.held().insert(item.id.clone(), held);
        if !former.claimed {
            return self.claim(&item.id, &former.run_id);
        }
        let found = match self.client.find_item(&item.id, [item.queue.as_str()]) {
            Ok(found) => found,
            Err(error) => {
                log::debug!("item {}: it cannot be looked up: {error}", item.id);
                None
            }
        };
        let is_lost = found.is_some_and(|found| {
            found.state == "FAILED" || found.run_id.is_some_and(|run_id| run_id != former.run_id)
        });
        if is_lost {
            self.held().remove(&item.id);
        }
        Ok(!is_lost)
    }

    fn remember_try(&self, item: &ItemId, run_id: &str) -> Result<String> {
        let mut all = self.held();
        let held = all.get_mut(item).ok_or_else(|| {
            Error::input(format!(
                "item {item} was not taken from a queue by this agent"
            ))
        })?;
        held.run_id = Some(run_id.to_owned());
        Ok(held.queue.clone())
    }

    fn set_ack(&self, item: &ItemId, ack: Ack) {
        if let Some(held) = self.held().get_mut(item) {
            held.ack = ack;
        }
    }

    /// Does the item carry the run that we made up for it? A server that cannot say so leaves us without the item.
    fn carries_our_run(&self, item: &ItemId, queue: &str, run_id: &str) -> Result<bool> {
        match self.client.find_item(item, [queue]) {
            Ok(found) => Ok(found.is_some_and(|found| found.run_id.as_deref() == Some(run_id))),
            Err(error) if error.kind == Kind::Input => {
                log::warn!(
                    "item {item}: whether it was claimed as run {run_id} cannot be read back, so it is not run here: {error}"
                );
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
