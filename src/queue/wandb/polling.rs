//! The two requests that an agent makes over and over: one mutation that takes work from all its queues and says how
//! it is doing, and one query that is its heartbeat and brings what people asked of it.

use std::collections::hash_map::Entry;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Document, QUEUES_PROJECT, text};
use super::{Ack, Held, WandbQueue};
use crate::failure::{Error, Result};
use crate::queue::{AgentId, AgentStatus, ItemId, RunQueueItem, Signals, StopRequest, Told};

/// How often an unchanged status is said again; W&B's own agent does it each 20 s. It rides on a poll and costs no
/// request.
const STATUS_EVERY: Duration = Duration::from_secs(20);

/// The least and the most time between two polls. At the most, and with the heartbeat each 10 s, an idle agent makes
/// 12 + 6 = 18 requests a minute; W&B's own makes 19 (REFERENCE section 7).
const QUICKEST: Duration = Duration::from_millis(500);
const SLOWEST: Duration = Duration::from_secs(5);

/// The most time between two polls of a server that does not answer.
const OFFLINE: Duration = Duration::from_secs(30);

/// What the last exchanges leave for the next one.
#[derive(Debug, Default)]
pub(super) struct Pace {
    status: Option<(AgentStatus, Instant)>,
    said_unknown: bool,
}

impl WandbQueue {
    /// Takes at most one item of each of `queues`, in their order, and says the agent's status when it changed or is
    /// due. One request; none when there is nothing to say or take.
    ///
    /// Asked once: a pop that is repeated takes the next item, so the caller's next poll is the repetition. A part
    /// of the answer counts even when the server had trouble with the rest.
    pub(super) fn ask_for_work(
        &self,
        agent: &AgentId,
        status: AgentStatus,
        running: usize,
        queues: &[String],
    ) -> Result<Vec<RunQueueItem>> {
        let mut document = Document::default();
        let says_status = self.status_due(status);
        if says_status {
            document.variable("agentStatus", "String", status.as_str());
            document.variable("agentId", "ID!", agent.0.as_str());
            document.field("updateLaunchAgent(input: {launchAgentId: $agentId, agentStatus: $agentStatus}) { success }");
        }
        for (index, queue) in queues.iter().enumerate() {
            let (nth, pop) = (nth(index), alias("popFromRunQueue", index));
            document.variable(format!("queueName{nth}"), "String!", queue.as_str());
            document.field(format!(
                "{pop}popFromRunQueue(input: {{entityName: $entity, projectName: $project, queueName: $queueName{nth}, launchAgentId: $launchAgentId}}) {{ runQueueItemId runSpec }}"
            ));
        }
        if document.is_empty() {
            return Ok(Vec::new());
        }
        let mut operation = "mutation updateLaunchAgent";
        if !queues.is_empty() {
            operation = "mutation popFromRunQueue";
            document.variable("launchAgentId", "ID", agent.0.as_str());
            document.variable("entity", "String!", self.entity()?);
            document.variable("project", "String!", QUEUES_PROJECT);
        }
        log::trace!("polling, with {running} jobs running");
        let (text_of, variables) = document.finish(operation);
        let transport = &self.client.transport;
        let answer = transport
            .partial(&text_of, &variables)
            .map_err(|trouble| transport.error(trouble))?;
        if says_status && !answer.data["updateLaunchAgent"].is_null() {
            self.pace().status = Some((status, Instant::now()));
        }
        let items = self.take(queues, &answer.data)?;
        if answer.errors.is_empty() {
            return Ok(items);
        }
        let errors = answer.errors.join("; ");
        if items.is_empty() {
            return Err(Error::input(format!(
                "{} refused the poll: {errors}",
                self.client.base_url()
            )));
        }
        log::warn!("{}: {errors}", self.client.base_url());
        Ok(items)
    }

    fn take(&self, queues: &[String], data: &Value) -> Result<Vec<RunQueueItem>> {
        let mut items = Vec::new();
        for (index, queue) in queues.iter().enumerate() {
            let popped = &data[format!("popFromRunQueue{}", nth(index))];
            let Some(id) = text(popped, "runQueueItemId") else {
                continue;
            };
            let item = RunQueueItem {
                id: ItemId(id),
                queue: queue.clone(),
                spec: read_spec(&popped["runSpec"]),
            };
            let held = self.hold(&item)?;
            if self.is_new(&item, held) {
                items.push(item);
            }
        }
        Ok(items)
    }

    /// Remembers an item. One that is in hand already came again because its lease ended while its ack could not get
    /// through: the lease is ours once more, so the thread that has the item goes on, and no second one is started.
    fn is_new(&self, item: &RunQueueItem, held: Held) -> bool {
        match self.held().entry(item.id.clone()) {
            Entry::Vacant(place) => {
                place.insert(held);
                true
            }
            Entry::Occupied(mut known) => {
                log::info!(
                    "item {}: leased again to the job that waits for it",
                    item.id
                );
                known.get_mut().taken_at = held.taken_at;
                false
            }
        }
    }

    fn status_due(&self, status: AgentStatus) -> bool {
        self.pace()
            .status
            .is_none_or(|(said, at)| said != status || at.elapsed() >= STATUS_EVERY)
    }

    /// The heartbeat, and what people asked for: whether the agent shall take nothing more, and which of `items` were
    /// stopped. One request for all, asked once: the next heartbeat is the repetition.
    ///
    /// The stop of a job is looked up where its run is, in the job's own entity and project. A run that cannot be
    /// seen counts as not stopped.
    pub(super) fn ask_for_signals(&self, agent: &AgentId, items: &[ItemId]) -> Result<Signals> {
        let mut document = Document::default();
        document.variable("agentId", "ID!", agent.0.as_str());
        document.field("launchAgent(id: $agentId) { id name stopPolling agentStatus heartbeatAt }");
        let mut asked = Vec::new();
        for item in items {
            let Some(held) = self.held().get(item).cloned() else {
                continue;
            };
            let (Ack::Claimed, Some(run_id)) = (held.ack, held.run_id) else {
                continue;
            };
            let index = asked.len();
            let (nth, project) = (nth(index), alias("project", index));
            document.variable(format!("entityName{nth}"), "String", held.entity);
            document.variable(format!("projectName{nth}"), "String", held.project);
            document.variable(format!("runId{nth}"), "String!", run_id);
            document.field(format!(
                "{project}project(name: $projectName{nth}, entityName: $entityName{nth}) {{ run(name: $runId{nth}) {{ stopped }} }}"
            ));
            asked.push(item);
        }
        let (text_of, variables) = document.finish("query LaunchAgent");
        let transport = &self.client.transport;
        let answer = transport
            .partial(&text_of, &variables)
            .map_err(|trouble| transport.error(trouble))?;
        for error in &answer.errors {
            log::debug!("{}: {error}", self.client.base_url());
        }
        let data = &answer.data;
        self.say_unknown_once(
            agent,
            data["launchAgent"].is_null() && answer.errors.is_empty(),
        );
        let stopped =
            |index: usize| data[format!("project{}", nth(index))]["run"]["stopped"] == json!(true);
        Ok(Signals {
            stop: asked
                .into_iter()
                .enumerate()
                .filter(|(index, _)| stopped(*index))
                .map(|(_, item)| StopRequest {
                    item: item.clone(),
                    told: Told::JobToo,
                })
                .collect(),
            stop_polling: data["launchAgent"]["stopPolling"] == json!(true),
        })
    }

    fn say_unknown_once(&self, agent: &AgentId, unknown: bool) {
        let said = std::mem::replace(&mut self.pace().said_unknown, unknown);
        if unknown && !said {
            log::warn!(
                "{} does not know agent {agent} any more; it cannot be stopped from there",
                self.client.base_url()
            );
        }
    }

    /// How long to wait from one poll to the next. `idle` is the time since work last came or a slot got free: quick
    /// at first, then slower. A server that does not answer is asked less and less often, and not before it wants to.
    pub(super) fn pause(&self, idle: Duration) -> Duration {
        let link = &self.client.transport.link;
        let wait = pause(idle, link.failures());
        wait.max(link.quiet_for().unwrap_or_default())
    }

    /// Says that the agent has ended, and waits for the outbox, both within a bound. What could not be delivered
    /// stays on disk for the next start.
    pub(super) fn say_goodbye(&self, agent: &AgentId) -> Result<()> {
        let killed = self.ask_for_work(agent, AgentStatus::Killed, 0, &[]);
        if let Err(error) = &killed {
            log::debug!("the agent's end could not be said: {error}");
        }
        let left = self.outbox.flush(self.client.transport.timing.flush);
        if left > 0 {
            log::warn!(
                "reports that could not be delivered yet: {left}; they are kept in {} and go out at the next start",
                self.outbox.folder().display()
            );
        }
        killed.map(|_| ())
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of a part of a document. The first has none, so that a document with one part is, name for name, the
/// one that W&B's own agent sends; servers and proxies that log or limit by it see nothing new.
fn nth(index: usize) -> String {
    match index {
        0 => String::new(),
        index => index.to_string(),
    }
}

/// The alias of a numbered field, with its colon.
fn alias(field: &str, index: usize) -> String {
    match index {
        0 => String::new(),
        index => format!("{field}{index}: "),
    }
}

fn pause(idle: Duration, failures: u32) -> Duration {
    if failures > 0 {
        let doubled = SLOWEST * 2_u32.saturating_pow(failures.min(10) - 1);
        return doubled.min(OFFLINE);
    }
    (idle / 4).clamp(QUICKEST, SLOWEST)
}

/// The spec is an object (PROTOCOL section 2); a server that sends it as a text is understood too. What is neither
/// stays as it is, and the item is failed by whoever reads it.
fn read_spec(spec: &Value) -> Value {
    match spec {
        Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| spec.clone()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_minute_has_at_most_twelve_polls() {
        let mut now = Duration::from_secs(600);
        let mut polls = 0;
        while now < Duration::from_secs(660) {
            now += pause(now, 0);
            polls += 1;
        }
        assert_eq!(polls, 12);
    }

    #[test]
    fn polls_are_quick_after_work_and_rare_when_nobody_answers() {
        for (idle, failures, seconds) in [
            (0.0, 0, 0.5),
            (4.0, 0, 1.0),
            (12.0, 0, 3.0),
            (1e6, 0, 5.0),
            (0.0, 1, 5.0),
            (0.0, 2, 10.0),
            (1e6, 3, 20.0),
            (0.0, 4, 30.0),
            (0.0, u32::MAX, 30.0),
        ] {
            let found = pause(Duration::from_secs_f64(idle), failures);
            assert_eq!(found, Duration::from_secs_f64(seconds), "{idle} {failures}");
        }
    }
}
