//! An agent's first words to W&B: whose key it is, whether the queues exist, and who is there now.

use serde_json::{Value, json};

use super::client::{QUEUES_PROJECT, text};
use super::{ListedQueue, WandbQueue};
use crate::config::{AgentConfig, Environment};
use crate::failure::{Error, Kind, Result};
use crate::queue::{AgentId, AgentInfo};

const CREATE: &str = "mutation createLaunchAgent($entity: String!, $project: String!, $queues: [ID!]!, $hostname: String!, $agentConfig: JSONString, $version: String) {
  createLaunchAgent(input: {entityName: $entity, projectName: $project, runQueues: $queues, hostname: $hostname, agentConfig: $agentConfig, version: $version}) { launchAgentId }
}";

/// The agent's configuration as W&B shows it beside the agent: what `config show` shows, without any secret.
pub fn agent_config(config: &AgentConfig) -> Value {
    let entries = config.entries().into_iter();
    let shown = entries.filter(|(key, ..)| *key != "api_key");
    Value::Object(
        shown
            .map(|(key, value, _)| (key.to_owned(), value))
            .collect(),
    )
}

/// How this program names itself to W&B; `WANDB_AGENT_VERSION` wins, as with W&B's own agent.
pub fn agent_version(environment: &Environment) -> String {
    environment.get("WANDB_AGENT_VERSION").map_or_else(
        || concat!("launch-agent@", env!("CARGO_PKG_VERSION")).to_owned(),
        str::to_owned,
    )
}

impl WandbQueue {
    /// Checks the key, the entity and the queues, and makes the agent known. Three requests.
    ///
    /// An answer that is lost on the way makes the agent known twice, which harms nobody: the one that never polls
    /// again shows as dead. Errors: a refused key, an entity or a queue that does not exist (the closest name), an
    /// entity without queues.
    pub(super) fn introduce(&self, agent: &AgentInfo) -> Result<AgentId> {
        let viewer = self.client.viewer()?;
        let entity = self.entity()?;
        log::info!(
            "{}: user `{}`, entity `{entity}`",
            self.client.base_url(),
            viewer.username
        );
        let (queues, is_team) = self.client.look_at_entity()?;
        let ids = self.ids(&agent.queues, &queues)?;
        if is_team {
            log::warn!(
                "entity `{entity}` is a team: each of its members can run code on this machine by pushing to its queues"
            );
        }
        let variables = json!({
            "entity": entity,
            "project": QUEUES_PROJECT,
            "queues": ids,
            "hostname": agent.hostname,
            "agentConfig": self.agent_config.to_string(),
            "version": self.version,
        });
        let data = self.client.transport.repeated(CREATE, &variables)?;
        text(&data["createLaunchAgent"], "launchAgentId")
            .map(AgentId)
            .ok_or_else(|| {
                Error::new(
                    Kind::Input,
                    format!("{} did not register the agent", self.client.base_url()),
                )
            })
    }

    /// The ids of the queues named, in the server's order, as W&B's own agent sends them.
    fn ids(&self, wanted: &[String], queues: &[ListedQueue]) -> Result<Vec<String>> {
        if queues.is_empty() {
            let name = wanted.first().map_or("NAME", String::as_str);
            return Err(Error::new(
                Kind::NotFound,
                format!("entity `{}` has no queue at all", self.entity()?),
            )
            .hint(format!(
                "make one with `launch-agent queue create {name} --config FILE`, or in W&B under Launch"
            )));
        }
        for name in wanted {
            if !queues.iter().any(|queue| &queue.name == name) {
                return Err(self.client.no_queue(name, queues)?);
            }
        }
        Ok(queues
            .iter()
            .filter(|queue| wanted.contains(&queue.name))
            .map(|queue| queue.id.clone())
            .collect())
    }
}
