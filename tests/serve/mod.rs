//! `launch-agent serve`: its bounds, who gets in, and the queue over the wire.

mod artifacts;
mod bounds;
mod contract;
mod cost;
mod ending;
mod files;
mod guardrails;
mod keys;
mod lacking;
mod load;
mod operations;
mod ours;
mod runs;
mod smuggling;
mod stranger;
mod wire;

use std::path::Path;

use serde_json::{Value, json};

use crate::common::server::{Client, Server};

/// The documents of W&B's clients that the tests send, by their root field.
pub const PUSH: &str = "mutation p($e: String!, $p: String!, $q: String!, $s: JSONString!, $pr: Int, $v: JSONString) {
  pushToRunQueueByName(input: {entityName: $e, projectName: $p, queueName: $q, runSpec: $s, priority: $pr, templateVariableValues: $v}) { runQueueItemId runSpec }
}";
pub const AGENT: &str = "mutation c($e: String!, $q: [ID!]!, $c: JSONString) {
  createLaunchAgent(input: {entityName: $e, projectName: \"model-registry\", runQueues: $q, hostname: \"box\", agentConfig: $c, version: \"t\"}) { launchAgentId }
}";
pub const POP: &str = "mutation p($e: String!, $q: String!, $a: ID) {
  popFromRunQueue(input: {entityName: $e, projectName: \"model-registry\", queueName: $q, launchAgentId: $a}) { runQueueItemId runSpec }
}";
pub const ACK: &str = "mutation a($i: ID!, $r: String!) { ackRunQueueItem(input: {runQueueItemId: $i, runName: $r}) { success } }";
pub const FAIL: &str = "mutation f($i: ID!, $m: String!, $s: String!, $f: [String!]) {
  failRunQueueItem(input: {runQueueItemId: $i, message: $m, stage: $s, filePaths: $f}) { success }
}";
pub const UPSERT_QUEUE: &str = "mutation u($e: String!, $q: String!, $c: JSONString!, $v: JSONString, $m: RunQueuePrioritizationMode) {
  upsertRunQueue(input: {entityName: $e, projectName: \"model-registry\", queueName: $q, resourceType: \"local-container\", resourceConfig: $c, templateVariables: $v, prioritizationMode: $m}) { success configSchemaValidationErrors }
}";
pub const QUEUES: &str = "query q($e: String!) { project(name: \"model-registry\", entityName: $e) { runQueues { id name createdBy access } } }";
pub const ITEM: &str = "query i($e: String!, $q: String!, $i: ID!) {
  project(name: \"model-registry\", entityName: $e) { runQueue(name: $q) { runQueueItem(id: $i) { id state associatedRunId } } }
}";
pub const RUN: &str = "query r($e: String!, $p: String!, $r: String!) { project(name: $p, entityName: $e) { run(name: $r) { id state stopped } } }";
pub const LAUNCH_AGENT: &str = "query l($a: ID!) { launchAgent(id: $a) { id name runQueues hostname agentStatus stopPolling heartbeatAt } }";

/// A server, and a client of it for a member of `team`.
pub fn served(folder: &Path) -> (Server, Client) {
    let server = Server::start(folder);
    let client = server.client(&server.key("alice", &["team"]));
    (server, client)
}

/// What a member does with the queues of an entity.
pub struct Member<'a> {
    pub client: &'a Client,
    pub entity: &'a str,
}

impl Member<'_> {
    pub fn make_queue(&self, queue: &str, config: &Value, variables: &Value) {
        self.make_queue_in_mode(queue, config, variables, "V0");
    }

    /// [`Member::make_queue`], where priorities count (`V0`) or do not (`DISABLED`).
    pub fn make_queue_in_mode(&self, queue: &str, config: &Value, variables: &Value, mode: &str) {
        let config = json!({"resource_args": {"local-container": config}}).to_string();
        let data = self.client.data(
            UPSERT_QUEUE,
            &json!({"e": self.entity, "q": queue, "c": config, "v": variables.to_string(), "m": mode}),
        );
        assert_eq!(data["upsertRunQueue"]["success"], true);
    }

    pub fn push_variables(&self, queue: &str, spec: &Value) -> Value {
        json!({"e": self.entity, "p": "model-registry", "q": queue, "s": spec.to_string()})
    }

    /// Pushes a job of the project `demo`, and gives its id.
    pub fn push(&self, queue: &str) -> String {
        let spec = json!({"project": "demo", "docker": {"docker_image": "a:1"}});
        let data = self.client.data(PUSH, &self.push_variables(queue, &spec));
        text(&data["pushToRunQueueByName"]["runQueueItemId"])
    }

    /// The id of a queue.
    pub fn queue_id(&self, queue: &str) -> String {
        let data = self.client.data(QUEUES, &json!({"e": self.entity}));
        let queues = data["project"]["runQueues"].as_array().expect("queues");
        let found = queues.iter().find(|found| found["name"] == queue);
        text(&found.expect("the queue")["id"])
    }

    /// Makes an agent known that polls a queue, and gives its id.
    pub fn agent(&self, queue: &str) -> String {
        let variables =
            json!({"e": self.entity, "q": [self.queue_id(queue)], "c": "{\"max_jobs\": 2}"});
        let data = self.client.data(AGENT, &variables);
        text(&data["createLaunchAgent"]["launchAgentId"])
    }

    pub fn pop(&self, queue: &str, agent: &str) -> Value {
        let variables = json!({"e": self.entity, "q": queue, "a": agent});
        self.client.data(POP, &variables)["popFromRunQueue"].clone()
    }

    pub fn ack(&self, item: &str, run: &str) -> bool {
        let data = self.client.data(ACK, &json!({"i": item, "r": run}));
        data["ackRunQueueItem"]["success"] == true
    }

    pub fn item(&self, queue: &str, item: &str) -> Value {
        let data = self
            .client
            .data(ITEM, &json!({"e": self.entity, "q": queue, "i": item}));
        data["project"]["runQueue"]["runQueueItem"].clone()
    }
}

/// So many texts in a row.
pub fn repeated(count: usize, part: impl Fn(usize) -> String) -> String {
    (0..count).map(part).collect::<Vec<_>>().concat()
}

pub fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a text: {value}"))
        .to_owned()
}
