//! What anybody with a key may ask of W&B: who they are, which queues an entity has, and how a sweep is doing.
//! The agent and the commands beside it share it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::proxy::Proxies;
use super::transport::{Timing, Transport};
use crate::config::identity::{Address, no_key};
use crate::config::{AgentConfig, Environment};
use crate::failure::{Error, Kind, Result};
use crate::launch::command::Secret;

/// The project in which W&B keeps an entity's queues and agents (PROTOCOL section 1).
pub const QUEUES_PROJECT: &str = "model-registry";

const VIEWER: &str =
    "query Viewer { viewer { id username email entity teams { edges { node { name } } } } }";

const QUEUES: &str = "query ProjectRunQueues($entity: String!, $projectName: String!) {
  project(name: $projectName, entityName: $entity) { runQueues { id name createdBy access } }
  entity(name: $entity) { id isTeam }
}";

const SWEEP: &str = "query GetSweepState($entity: String, $project: String, $sweep: String!) {
  project(name: $project, entityName: $entity) { sweep(sweepName: $sweep) { state } }
}";

pub(super) const RUN_STATE: &str =
    "query RunState($project: String!, $entity: String!, $name: String!) {
  project(name: $project, entityName: $entity) { run(name: $name) { state } }
}";

/// What it takes to talk to W&B.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The server.
    pub address: Address,
    /// The key.
    pub api_key: Secret,
    /// The entity of the queues; `None` is the key's own.
    pub entity: Option<String>,
    /// The proxies of the environment, or the owner's for everything.
    pub proxies: Proxies,
    /// A file of certificates in place of the system's.
    pub ca_bundle: Option<PathBuf>,
    /// How long things may take.
    pub timing: Timing,
}

impl Connection {
    /// The connection that the configuration describes. Without a key: an error that says where one was looked for.
    pub fn of(config: &AgentConfig, environment: &Environment) -> Result<Connection> {
        let base_url = &config.base_url;
        let api_key = config
            .api_key
            .as_ref()
            .ok_or_else(|| no_key(&config.key_looked_for))?;
        Ok(Connection {
            address: Address::parse(&base_url.value, &base_url.origin.to_string())?,
            api_key: api_key.value.clone(),
            entity: config.entity.value.clone(),
            proxies: Proxies::read(environment.all()).or_all(config.network.value.proxy.as_ref()),
            ca_bundle: config.network.value.ca_bundle.clone(),
            timing: Timing::default(),
        })
    }
}

/// The person or service account that a key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// The user's name.
    pub username: String,
    /// The entity that is meant when none is named.
    pub entity: Option<String>,
    /// The entities that the user belongs to.
    pub teams: Vec<String>,
}

/// A queue in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedQueue {
    /// Opaque.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Who made it.
    pub created_by: Option<String>,
    /// `PROJECT` or `USER`.
    pub access: Option<String>,
}

/// W&B for one key and one entity.
pub struct Client {
    pub(super) transport: Transport,
    configured_entity: Option<String>,
    viewer: OnceLock<Viewer>,
}

impl Client {
    /// Prepares; asks nothing yet.
    pub fn new(connection: Connection) -> Result<Client> {
        Ok(Client {
            transport: Transport::new(
                connection.address,
                &connection.api_key,
                connection.proxies,
                connection.ca_bundle.as_deref(),
                connection.timing,
            )?,
            configured_entity: connection.entity,
            viewer: OnceLock::new(),
        })
    }

    /// The server's address.
    pub fn base_url(&self) -> &str {
        self.transport.base_url()
    }

    /// Whose key it is. Asked once. A refused key is an error of [`Kind::Config`].
    pub fn viewer(&self) -> Result<Viewer> {
        if let Some(viewer) = self.viewer.get() {
            return Ok(viewer.clone());
        }
        let data = self.transport.repeated(VIEWER, &json!({}))?;
        let viewer = &data["viewer"];
        // Some servers answer an unknown key with nobody instead of a 401.
        let username = text(viewer, "username").ok_or_else(|| {
            Error::new(
                Kind::Config,
                format!("{}: the API key belongs to nobody there", self.base_url()),
            )
            .hint("run `wandb login` or set `WANDB_API_KEY` to a key of this server")
        })?;
        let viewer = Viewer {
            username,
            entity: text(viewer, "entity"),
            teams: edges(&viewer["teams"])
                .filter_map(|team| text(team, "name"))
                .collect(),
        };
        Ok(self.viewer.get_or_init(|| viewer).clone())
    }

    /// The entity whose queues are meant: the configured one, else the key's own.
    pub fn entity(&self) -> Result<String> {
        if let Some(entity) = &self.configured_entity {
            return Ok(entity.clone());
        }
        let viewer = self.viewer()?;
        viewer.entity.ok_or_else(|| {
            Error::new(
                Kind::Config,
                format!("user `{}` has no entity of its own", viewer.username),
            )
            .hint("name one with `-e ENTITY`, `WANDB_ENTITY` or `entity:` in launch-config.yaml")
        })
    }

    /// The queues of the entity, in the server's order.
    pub fn queues(&self) -> Result<Vec<ListedQueue>> {
        Ok(self.look_at_entity()?.0)
    }

    /// The queues of the entity, and whether it is a team.
    pub(super) fn look_at_entity(&self) -> Result<(Vec<ListedQueue>, bool)> {
        let entity = self.entity()?;
        let variables = json!({"entity": entity, "projectName": QUEUES_PROJECT});
        let data = self.transport.repeated(QUEUES, &variables)?;
        let is_team = data["entity"]["isTeam"].as_bool().unwrap_or_default();
        let Some(listed) = data["project"]["runQueues"].as_array() else {
            // An entity that has never used Launch has no such project, and so no queues.
            if data["entity"].is_object() && self.is_mine(&entity)? {
                return Ok((Vec::new(), is_team));
            }
            return Err(self.no_entity(&entity)?);
        };
        let queues = listed
            .iter()
            .filter_map(|queue| {
                Some(ListedQueue {
                    id: text(queue, "id")?,
                    name: text(queue, "name")?,
                    created_by: text(queue, "createdBy"),
                    access: text(queue, "access"),
                })
            })
            .collect();
        Ok((queues, is_team))
    }

    fn is_mine(&self, entity: &str) -> Result<bool> {
        let viewer = self.viewer()?;
        Ok(viewer.entity.as_deref() == Some(entity) || viewer.teams.iter().any(|t| t == entity))
    }

    /// The server tells an entity that does not exist and one that is closed to us in the same way.
    fn no_entity(&self, entity: &str) -> Result<Error> {
        let viewer = self.viewer()?;
        // The user's own entity is among the teams, too, on some servers.
        let own = viewer
            .entity
            .iter()
            .filter(|own| !viewer.teams.contains(own));
        let known: Vec<&str> = viewer.teams.iter().chain(own).map(String::as_str).collect();
        Ok(Error::new(
            Kind::NotFound,
            format!(
                "entity `{entity}` does not exist on {}, or user `{}` has no access to it",
                self.base_url(),
                viewer.username
            ),
        )
        .hint(format!("the entities of this key: {}", known.join(", ")))
        .closest(entity, known.iter().copied()))
    }

    /// That the entity has no such queue, naming the closest one.
    pub(super) fn no_queue(&self, name: &str, queues: &[ListedQueue]) -> Result<Error> {
        let error = Error::new(
            Kind::NotFound,
            format!("entity `{}` has no queue `{name}`", self.entity()?),
        );
        let names: Vec<&str> = queues.iter().map(|queue| queue.name.as_str()).collect();
        Ok(if names.is_empty() {
            error.hint(format!(
                "it has none yet: `launch-agent queue create {name}`"
            ))
        } else {
            error
                .hint(format!("its queues: {}", names.join(", ")))
                .closest(name, names)
        })
    }

    /// The state of a run, such as `running` or `finished`; `None` when there is no such run yet.
    pub fn run_state(&self, entity: &str, project: &str, run: &str) -> Result<Option<String>> {
        let variables = json!({"entity": entity, "project": project, "name": run});
        let data = self.transport.repeated(RUN_STATE, &variables)?;
        Ok(text(&data["project"]["run"], "state"))
    }

    /// The state of a sweep, such as `RUNNING` or `PAUSED`; `None` when there is no such sweep.
    pub fn sweep_state(
        &self,
        entity: &str,
        project: &str,
        sweep_id: &str,
    ) -> Result<Option<String>> {
        let variables = json!({"entity": entity, "project": project, "sweep": sweep_id});
        let data = self.transport.repeated(SWEEP, &variables)?;
        Ok(text(&data["project"]["sweep"], "state"))
    }
}

/// A text in an object of the answer; an empty one is as good as none.
pub(super) fn text(value: &Value, key: &str) -> Option<String> {
    value
        .get(key)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

/// The nodes of a GraphQL connection.
pub(super) fn edges(connection: &Value) -> impl Iterator<Item = &Value> {
    let edges = connection.get("edges").and_then(Value::as_array);
    edges.into_iter().flatten().map(|edge| &edge["node"])
}

/// The document of an operation made of numbered parts: `operation($name: Type, ..) { part part .. }`.
#[derive(Debug, Default)]
pub(super) struct Document {
    parameters: Vec<String>,
    fields: Vec<String>,
    variables: BTreeMap<String, Value>,
}

impl Document {
    /// Declares a variable with its value.
    pub fn variable(&mut self, name: impl Into<String>, kind: &str, value: impl Into<Value>) {
        let name = name.into();
        self.parameters.push(format!("${name}: {kind}"));
        self.variables.insert(name, value.into());
    }

    /// Adds a root field.
    pub fn field(&mut self, field: impl Into<String>) {
        self.fields.push(field.into());
    }

    /// Nothing asked yet?
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The text of the document, `operation` being for example `query Signals`, and its variables.
    pub fn finish(self, operation: &str) -> (String, Value) {
        let text = format!(
            "{operation}({}) {{\n  {}\n}}",
            self.parameters.join(", "),
            self.fields.join("\n  ")
        );
        (text, Value::Object(self.variables.into_iter().collect()))
    }
}
