//! What people do with W&B's queues beside running jobs: push, define, look. As far as W&B's public interface has
//! queries for it: an item is known by its state and its run, and its spec cannot be read back.

use serde_json::{Value, json};

use super::client::{Client, Document, QUEUES_PROJECT, edges, text};
use super::transport::is_unreachable;
use crate::failure::{Error, Kind, Result};
use crate::launch::spec::Object;
use crate::queue::{ItemId, Push, QueueDefinition};

/// How many items of a queue the server is asked for at once; its own client asks for as many.
const LISTED_ITEMS: usize = 100;

const QUEUE: &str =
    "query GetRunQueueMetadata($projectName: String!, $entityName: String!, $runQueue: String!) {
  project(name: $projectName, entityName: $entityName) {
    runQueue(name: $runQueue) { id access defaultResourceConfigID prioritizationMode }
  }
}";

const CONFIG: &str = "query GetDefaultResourceConfig($entityName: String!, $id: ID!) {
  entity(name: $entityName) {
    defaultResourceConfig(id: $id) { config resource templateVariables { name schema } }
  }
}";

const ITEMS: &str = "query GetRunQueueItems($projectName: String!, $entityName: String!, $runQueue: String!, $first: Int!) {
  project(name: $projectName, entityName: $entityName) {
    runQueue(name: $runQueue) { runQueueItems(first: $first) { edges { node { id state associatedRunId } } } }
  }
}";

const CREATE_PROJECT: &str =
    "mutation CreateProject($input: UpsertModelInput!) { upsertModel(input: $input) { inserted } }";

const CREATE_CONFIG: &str = "mutation CreateDefaultResourceConfig($entityName: String!, $resource: String!, $config: JSONString!, $templateVariables: JSONString) {
  createDefaultResourceConfig(input: {entityName: $entityName, resource: $resource, config: $config, templateVariables: $templateVariables}) { defaultResourceConfigID success }
}";

const CREATE_QUEUE: &str = "mutation CreateRunQueue($entity: String!, $project: String!, $queueName: String!, $access: RunQueueAccessType!, $prioritizationMode: RunQueuePrioritizationMode, $defaultResourceConfigID: ID) {
  createRunQueue(input: {entityName: $entity, projectName: $project, queueName: $queueName, access: $access, prioritizationMode: $prioritizationMode, defaultResourceConfigID: $defaultResourceConfigID}) { success queueID }
}";

/// A queue of W&B as people see it.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteQueue {
    /// Opaque.
    pub id: String,
    /// Its name, its config for docker, its template variables, and whether pushers may give a priority. W&B knows
    /// no pause.
    pub definition: QueueDefinition,
    /// The kind of its jobs, `local-container` for docker; `None` when the queue has no config.
    pub resource: Option<String>,
    /// `PROJECT` or `USER`.
    pub access: Option<String>,
    /// Its first hundred items.
    pub items: Vec<RemoteItem>,
}

/// An item of W&B as far as it can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteItem {
    /// Its name.
    pub id: ItemId,
    /// Its queue.
    pub queue: String,
    /// `PENDING`, `LEASED`, `CLAIMED`, `FAILED`, or what newer servers say.
    pub state: String,
    /// The run that it became.
    pub run_id: Option<String>,
}

impl Client {
    /// Pushes a job. Asked once, because a push that is repeated runs twice: a lost answer is an error that says so.
    pub fn push(&self, push: &Push) -> Result<ItemId> {
        let entity = self.entity()?;
        let mut document = Document::default();
        let mut input = vec![
            "entityName: $entityName, projectName: $projectName, queueName: $queueName, runSpec: $runSpec",
        ];
        document.variable("entityName", "String!", entity);
        document.variable("projectName", "String!", QUEUES_PROJECT);
        document.variable("queueName", "String!", push.queue.as_str());
        let spec = Value::Object(push.spec.clone());
        document.variable("runSpec", "JSONString!", spec.to_string());
        if let Some(priority) = push.priority {
            document.variable("priority", "Int", priority as u8);
            input.push("priority: $priority");
        }
        if !push.template_values.is_empty() {
            let values = Value::Object(push.template_values.clone());
            document.variable("templateVariableValues", "JSONString", values.to_string());
            input.push("templateVariableValues: $templateVariableValues");
        }
        document.field(format!(
            "pushToRunQueueByName(input: {{{}}}) {{ runQueueItemId runSpec }}",
            input.join(", ")
        ));
        let (text_of, variables) = document.finish("mutation pushToRunQueueByName");
        let data = self
            .transport
            .partial(&text_of, &variables)
            .map_err(|trouble| {
                let maybe_done = trouble.may_have_been_done();
                let error = self.transport.error(trouble);
                if maybe_done && is_unreachable(&error) {
                    return error.hint(
                        "the job may have been pushed all the same; look with `launch-agent items` before pushing again",
                    );
                }
                error
            })?;
        match text(&data.data["pushToRunQueueByName"], "runQueueItemId") {
            Some(id) => Ok(ItemId(id)),
            None if !data.errors.is_empty() => Err(Error::input(format!(
                "{} refused the job: {}",
                self.base_url(),
                data.errors.join("; ")
            ))),
            None => Err(self.no_queue(&push.queue, &self.queues()?)?),
        }
    }

    /// A queue with its config and its first items. A queue that does not exist: the closest name.
    pub fn queue(&self, name: &str) -> Result<RemoteQueue> {
        let variables =
            json!({"projectName": QUEUES_PROJECT, "entityName": self.entity()?, "runQueue": name});
        let data = self.transport.repeated(QUEUE, &variables)?;
        let queue = &data["project"]["runQueue"];
        let Some(id) = text(queue, "id") else {
            return Err(self.no_queue(name, &self.queues()?)?);
        };
        let mut remote = RemoteQueue {
            id,
            definition: QueueDefinition {
                name: name.to_owned(),
                config: Object::new(),
                template_variables: Object::new(),
                prioritization: text(queue, "prioritizationMode")
                    .is_some_and(|mode| mode != "DISABLED"),
                paused: false,
            },
            resource: None,
            access: text(queue, "access"),
            items: self.items(name)?,
        };
        // The id of a config is opaque: a number or a text.
        let config = &queue["defaultResourceConfigID"];
        if !config.is_null() {
            self.read_config(config, &mut remote)?;
        }
        Ok(remote)
    }

    fn read_config(&self, id: &Value, queue: &mut RemoteQueue) -> Result<()> {
        let variables = json!({"entityName": self.entity()?, "id": id});
        let data = self.transport.repeated(CONFIG, &variables)?;
        let found = &data["entity"]["defaultResourceConfig"];
        let config = as_json(&found["config"]);
        queue.resource = text(found, "resource");
        let of_resource = queue
            .resource
            .as_ref()
            .and_then(|resource| config["resource_args"].get(resource))
            .unwrap_or(&config["resource_args"]);
        if let Value::Object(options) = of_resource {
            queue.definition.config = options.clone();
        }
        for variable in found["templateVariables"].as_array().into_iter().flatten() {
            if let Some(name) = text(variable, "name") {
                let schema = json!({"schema": as_json(&variable["schema"])});
                queue.definition.template_variables.insert(name, schema);
            }
        }
        Ok(())
    }

    /// Defines a new queue for docker jobs. The server checks its config; a name that is taken is refused here:
    /// jobs are pushed by name, and two queues of one name could not be told apart.
    pub fn create_queue(&self, definition: &QueueDefinition, resource: &str) -> Result<()> {
        let entity = self.entity()?;
        let queues = self.queues()?;
        if queues.iter().any(|queue| queue.name == definition.name) {
            return Err(Error::input(format!(
                "entity `{entity}` has a queue `{}` already",
                definition.name
            )));
        }
        let project = json!({"input": {"name": QUEUES_PROJECT, "entityName": entity}});
        self.transport.once(CREATE_PROJECT, &project)?;
        let config = json!({"resource_args": {resource: definition.config}});
        let variables = json!({
            "entityName": entity,
            "resource": resource,
            "config": config.to_string(),
            "templateVariables": Value::Object(definition.template_variables.clone()).to_string(),
        });
        let data = self.transport.once(CREATE_CONFIG, &variables)?;
        let made = &data["createDefaultResourceConfig"];
        self.check_success(made, "the queue's config")?;
        let variables = json!({
            "entity": entity,
            "project": QUEUES_PROJECT,
            "queueName": definition.name,
            "access": "PROJECT",
            "prioritizationMode": if definition.prioritization { "V0" } else { "DISABLED" },
            "defaultResourceConfigID": made["defaultResourceConfigID"],
        });
        let data = self.transport.once(CREATE_QUEUE, &variables)?;
        self.check_success(&data["createRunQueue"], "the queue")
    }

    fn check_success(&self, payload: &Value, what: &str) -> Result<()> {
        if payload["success"].as_bool() == Some(true) {
            return Ok(());
        }
        Err(Error::input(format!(
            "{} did not take {what}, and does not say why",
            self.base_url()
        )))
    }

    /// The first items of a queue, as the server orders them.
    pub fn items(&self, queue: &str) -> Result<Vec<RemoteItem>> {
        let variables = json!({
            "projectName": QUEUES_PROJECT,
            "entityName": self.entity()?,
            "runQueue": queue,
            "first": LISTED_ITEMS,
        });
        let data = self.transport.repeated(ITEMS, &variables)?;
        let found = &data["project"]["runQueue"];
        if found.is_null() {
            return Err(self.no_queue(queue, &self.queues()?)?);
        }
        Ok(edges(&found["runQueueItems"])
            .filter_map(|node| item(node, queue))
            .collect())
    }

    /// An item, wherever it is among the entity's queues.
    pub fn item(&self, id: &ItemId) -> Result<RemoteItem> {
        let queues = self.queues()?;
        let found = self.find_item(id, queues.iter().map(|queue| queue.name.as_str()))?;
        found.ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!("no item `{id}` in the queues of this entity"),
            )
            .hint("`launch-agent items` lists them")
        })
    }

    /// The item, if it is in one of `queues`. One request for all of them.
    pub(super) fn find_item<'a>(
        &self,
        id: &ItemId,
        queues: impl IntoIterator<Item = &'a str>,
    ) -> Result<Option<RemoteItem>> {
        let queues: Vec<&str> = queues.into_iter().collect();
        if queues.is_empty() {
            return Ok(None);
        }
        let mut document = Document::default();
        document.variable("entityName", "String!", self.entity()?);
        document.variable("projectName", "String!", QUEUES_PROJECT);
        document.variable("itemId", "ID!", id.0.as_str());
        let mut fields = Vec::new();
        for (index, queue) in queues.iter().enumerate() {
            document.variable(format!("runQueue{index}"), "String!", *queue);
            fields.push(format!(
                "queue{index}: runQueue(name: $runQueue{index}) {{ runQueueItem(id: $itemId) {{ id state associatedRunId }} }}"
            ));
        }
        document.field(format!(
            "project(name: $projectName, entityName: $entityName) {{ {} }}",
            fields.join(" ")
        ));
        let (text_of, variables) = document.finish("query GetRunQueueItem");
        let data = self.transport.repeated(&text_of, &variables)?;
        Ok(queues.iter().enumerate().find_map(|(index, queue)| {
            item(
                &data["project"][format!("queue{index}")]["runQueueItem"],
                queue,
            )
        }))
    }
}

fn item(node: &Value, queue: &str) -> Option<RemoteItem> {
    Some(RemoteItem {
        id: ItemId(text(node, "id")?),
        queue: queue.to_owned(),
        state: text(node, "state").unwrap_or_default(),
        run_id: text(node, "associatedRunId"),
    })
}

/// JSON that some fields carry as a text.
fn as_json(value: &Value) -> Value {
    match value {
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        other => other.clone(),
    }
}
