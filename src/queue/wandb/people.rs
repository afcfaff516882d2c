//! W&B's queues as people see them: the answers of the API in the words that all queues share. What the API does
//! not tell stays open.

use serde_json::Value;

use super::admin::{RemoteItem, RemoteQueue};
use super::client::Client;
use crate::failure::Result;
use crate::launch::resource_args::Ask;
use crate::queue::local::{Agent, check_new, check_push};
use crate::queue::{
    AgentId, Item, ItemId, ItemState, Push, Pushed, QueueClient, QueueDefinition, QueueStatus,
};

impl QueueClient for Client {
    fn place(&self) -> String {
        let entity = self.entity().unwrap_or_else(|_| "?".to_owned());
        format!("entity {entity} at {}", self.base_url())
    }

    fn default_entity(&self) -> Result<String> {
        self.entity()
    }

    fn create_queue(
        &self,
        definition: &QueueDefinition,
        resource: &str,
        ask: Ask<'_>,
    ) -> Result<()> {
        let resource = check_new(definition, resource, ask)?;
        Client::create_queue(self, definition, resource)
    }

    fn queues(&self) -> Result<Vec<QueueStatus>> {
        let names = Client::queues(self)?;
        names
            .iter()
            .map(|queue| QueueClient::queue(self, &queue.name))
            .collect()
    }

    fn queue(&self, name: &str) -> Result<QueueStatus> {
        Ok(status(Client::queue(self, name)?))
    }

    /// The spec is checked here, so that a mistake is said before it travels; the server checks what is its own: the
    /// template variables.
    fn push(&self, push: &Push, ask: Ask<'_>) -> Result<Pushed> {
        let (_, warnings) = check_push(push, ask)?;
        Ok(Pushed {
            id: Client::push(self, push)?,
            warnings,
        })
    }

    fn items(&self, queue: Option<&str>) -> Result<Vec<Item>> {
        let names = match queue {
            Some(name) => vec![name.to_owned()],
            None => Client::queues(self)?
                .into_iter()
                .map(|queue| queue.name)
                .collect(),
        };
        let mut items = Vec::new();
        for name in names {
            items.extend(Client::items(self, &name)?.into_iter().map(item));
        }
        Ok(items)
    }

    fn item(&self, id: &ItemId) -> Result<Item> {
        Ok(item(Client::item(self, id)?))
    }

    fn agent(&self, _id: &AgentId) -> Result<Option<Agent>> {
        Ok(None)
    }

    fn why_waiting(&self, _item: &Item) -> Result<Option<String>> {
        Ok(None)
    }
}

fn status(queue: RemoteQueue) -> QueueStatus {
    let count = |wanted: fn(&ItemState) -> bool| {
        queue
            .items
            .iter()
            .filter(|item| wanted(&state(&item.state)))
            .count() as u64
    };
    QueueStatus {
        pending: count(|state| *state == ItemState::Pending),
        running: count(|state| matches!(state, ItemState::Leased | ItemState::Claimed)),
        ended: count(ItemState::is_ended),
        resource: queue.resource,
        definition: queue.definition,
        agents: None,
        created_by: String::new(),
        external_links: Value::Null,
        created_at: None,
        updated_at: None,
    }
}

fn item(remote: RemoteItem) -> Item {
    Item {
        state: state(&remote.state),
        id: remote.id,
        queue: remote.queue,
        priority: None,
        spec: Value::Null,
        attempt: 1,
        run_id: remote.run_id,
        agent: None,
        pushed_at: None,
        claimed_at: None,
        ended_at: None,
        duration: None,
        command: None,
        log: None,
        warnings: Vec::new(),
        details: String::new(),
        stop_requested: false,
    }
}

fn state(word: &str) -> ItemState {
    match word {
        "PENDING" => ItemState::Pending,
        "LEASED" => ItemState::Leased,
        "CLAIMED" => ItemState::Claimed,
        "FAILED" => ItemState::Failed {
            stage: None,
            message: String::new(),
        },
        other => ItemState::Other(other.to_owned()),
    }
}
