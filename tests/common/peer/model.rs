//! What the test peer believes: queues, items and their leases, agents, runs and their files, behaving as PROTOCOL
//! section 3 has it.

mod making;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::graphql::Field;

#[derive(Debug, Clone)]
pub struct Item {
    pub id: String,
    pub queue: String,
    pub spec: Value,
    pub state: String,
    pub run: Option<String>,
    pub priority: i64,
    pub leased_at: Option<Instant>,
    /// `failRunQueueItem`: stage, message, files.
    pub failure: Option<(String, String, Vec<String>)>,
    pub warning: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Run {
    pub state: String,
    pub stopped: bool,
    pub job_type: Option<String>,
    pub files: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone, Default)]
pub struct LaunchAgent {
    pub id: String,
    pub name: String,
    pub queues: Vec<String>,
    pub hostname: String,
    pub config: String,
    pub version: String,
    pub statuses: Vec<String>,
    pub stop_polling: bool,
}

/// A queue: its id, its resource config's id and what is in that config.
#[derive(Debug, Clone, Default)]
pub struct RunQueue {
    pub id: String,
    pub name: String,
    pub prioritization: String,
    pub config: Option<(String, String, Value)>,
}

pub struct Model {
    pub base_url: String,
    pub user: Option<String>,
    pub entity: Option<String>,
    pub teams: Vec<String>,
    pub queues: Vec<RunQueue>,
    pub configs: Vec<(String, String, Value)>,
    pub items: Vec<Item>,
    pub agents: Vec<LaunchAgent>,
    pub runs: BTreeMap<(String, String, String), Run>,
    pub sweeps: BTreeMap<String, String>,
    /// Does a repetition of an ack with the same run succeed?
    pub idempotent_ack: bool,
    /// Does the schema know `runQueueItem`?
    pub reads_items: bool,
    pub lease: Duration,
    next_id: u32,
}

impl Model {
    pub fn new(base_url: String) -> Model {
        Model {
            base_url,
            user: Some("me".to_owned()),
            entity: Some("me".to_owned()),
            teams: vec!["me".to_owned(), "crew".to_owned()],
            queues: Vec::new(),
            configs: Vec::new(),
            items: Vec::new(),
            agents: Vec::new(),
            runs: BTreeMap::new(),
            sweeps: BTreeMap::new(),
            idempotent_ack: true,
            reads_items: true,
            lease: Duration::from_secs(60),
            next_id: 1000,
        }
    }

    fn id(&mut self, kind: &str) -> String {
        self.next_id += 1;
        format!("{kind}:{}=", self.next_id)
    }

    pub fn add_queue(&mut self, name: &str) {
        let id = self.id("RunQueue");
        self.queues.push(RunQueue {
            id,
            name: name.to_owned(),
            prioritization: "DISABLED".to_owned(),
            config: None,
        });
    }

    pub fn add_item(&mut self, queue: &str, spec: Value) -> String {
        let id = self.id("RunQueueItem");
        self.items.push(Item {
            id: id.clone(),
            queue: queue.to_owned(),
            spec,
            state: "PENDING".to_owned(),
            run: None,
            priority: 2,
            leased_at: None,
            failure: None,
            warning: None,
        });
        id
    }

    pub fn item(&mut self, id: &str) -> &mut Item {
        let found = self.items.iter_mut().find(|item| item.id == id);
        found.unwrap_or_else(|| panic!("no item {id}"))
    }

    pub fn set_run(&mut self, entity: &str, project: &str, name: &str, state: &str) -> &mut Run {
        let key = (entity.to_owned(), project.to_owned(), name.to_owned());
        let run = self.runs.entry(key).or_default();
        state.clone_into(&mut run.state);
        run
    }

    /// What a root field answers.
    pub fn execute(&mut self, field: &Field) -> Result<Value, String> {
        let input = field.input();
        let text = |key: &str| {
            let value = input.get(key).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let value = match field.name.as_str() {
            "viewer" => self.viewer(),
            "entity" => return Ok(self.look_at_entity(field)),
            "project" => return self.project(field),
            "launchAgent" => self.launch_agent(&field.text("id")),
            "createLaunchAgent" => self.create_agent(&input),
            "updateLaunchAgent" => self.update_agent(&text("launchAgentId"), text("agentStatus")),
            "popFromRunQueue" => self.pop(&text("queueName")),
            "ackRunQueueItem" => self.ack(&text("runQueueItemId"), text("runName")),
            "failRunQueueItem" | "updateRunQueueItemWarning" => self.report(&field.name, &input),
            "upsertBucket" => self.upsert_run(&input),
            "createRunFiles" => self.create_files(&input),
            "pushToRunQueueByName" => self.push(&input)?,
            "upsertModel" => json!({"inserted": true}),
            "createDefaultResourceConfig" => self.create_config(&input),
            "createRunQueue" => self.create_queue(&input),
            other => return Err(format!("Cannot query field \"{other}\" on the root")),
        };
        select(&value, &field.fields)
    }

    fn viewer(&self) -> Value {
        let Some(user) = &self.user else {
            return Value::Null;
        };
        let teams: Vec<Value> = self
            .teams
            .iter()
            .map(|name| json!({"node": {"name": name}}))
            .collect();
        json!({"id": "VXNlcjox", "entity": self.entity, "username": user, "email": "me@example.invalid",
            "flags": "{}", "teams": {"edges": teams}})
    }

    fn look_at_entity(&self, field: &Field) -> Value {
        let name = field.text("name");
        if !self.teams.contains(&name) {
            return Value::Null;
        }
        let mut answer = Map::new();
        for wanted in &field.fields {
            let value = match wanted.name.as_str() {
                "id" => json!(format!("Entity:{name}")),
                "isTeam" => json!(Some(&name) != self.entity.as_ref()),
                "defaultResourceConfig" => self.config(wanted),
                other => panic!("what is {other} of an entity?"),
            };
            answer.insert(wanted.alias.clone(), value);
        }
        Value::Object(answer)
    }

    fn config(&self, field: &Field) -> Value {
        let id = field.text("id");
        let found = self.configs.iter().find(|(config, ..)| *config == id);
        found.map_or(Value::Null, |(_, resource, whole)| {
            let variables: Vec<Value> = whole["templateVariables"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| json!({"name": name, "schema": value["schema"].to_string()}))
                .collect();
            json!({"config": whole["config"], "resource": resource, "templateVariables": variables})
        })
    }

    fn project(&mut self, field: &Field) -> Result<Value, String> {
        let (name, entity) = (field.text("name"), field.text("entityName"));
        if name == "model-registry" && !self.teams.contains(&entity) {
            return Ok(Value::Null);
        }
        let mut answer = Map::new();
        for wanted in &field.fields {
            let value = match wanted.name.as_str() {
                "runQueues" => self.queues.iter().map(listed).collect(),
                "runQueue" => self.run_queue(wanted)?,
                "run" => {
                    let key = (entity.clone(), name.clone(), wanted.text("name"));
                    self.runs.get(&key).map_or(
                        Value::Null,
                        |run| json!({"state": run.state, "stopped": run.stopped}),
                    )
                }
                "sweep" => self
                    .sweeps
                    .get(&wanted.text("sweepName"))
                    .map_or(Value::Null, |state| json!({"state": state})),
                other => return Err(format!("Cannot query field \"{other}\" on Project")),
            };
            answer.insert(wanted.alias.clone(), value);
        }
        Ok(Value::Object(answer))
    }

    fn run_queue(&self, field: &Field) -> Result<Value, String> {
        let name = field.text("name");
        let Some(queue) = self.queues.iter().find(|queue| queue.name == name) else {
            return Ok(Value::Null);
        };
        let item =
            |item: &Item| json!({"id": item.id, "state": item.state, "associatedRunId": item.run});
        let items = || self.items.iter().filter(|item| item.queue == name);
        let mut answer = Map::new();
        for wanted in &field.fields {
            let value = match wanted.name.as_str() {
                "id" => json!(queue.id),
                "access" => json!("PROJECT"),
                "prioritizationMode" => json!(queue.prioritization),
                "defaultResourceConfigID" => json!(queue.config.as_ref().map(|(id, ..)| id)),
                "runQueueItem" if self.reads_items => {
                    let id = wanted.text("id");
                    items()
                        .find(|item| item.id == id)
                        .map(item)
                        .unwrap_or_default()
                }
                "runQueueItems" => {
                    let nodes = items().map(|found| json!({"node": item(found)}));
                    json!({"edges": nodes.collect::<Vec<_>>()})
                }
                other => return Err(format!("Cannot query field \"{other}\" on RunQueue")),
            };
            answer.insert(wanted.alias.clone(), value);
        }
        Ok(Value::Object(answer))
    }

    fn launch_agent(&self, id: &str) -> Value {
        let found = self.agents.iter().find(|agent| agent.id == id);
        found.map_or(Value::Null, |agent| {
            json!({"id": agent.id, "name": agent.name, "runQueues": agent.queues, "hostname": agent.hostname,
                "agentStatus": agent.statuses.last(), "stopPolling": agent.stop_polling,
                "heartbeatAt": "2026-01-01T00:00:00Z"})
        })
    }

    fn create_agent(&mut self, input: &Map<String, Value>) -> Value {
        let id = self.id("LaunchAgent");
        let text = |key: &str| input[key].as_str().unwrap_or_default().to_owned();
        self.agents.push(LaunchAgent {
            name: format!("agent-{}", self.next_id),
            id: id.clone(),
            queues: strings(&input["runQueues"]),
            hostname: text("hostname"),
            config: text("agentConfig"),
            version: text("version"),
            ..LaunchAgent::default()
        });
        json!({"launchAgentId": id})
    }

    fn update_agent(&mut self, id: &str, status: String) -> Value {
        let found = self.agents.iter_mut().find(|agent| agent.id == id);
        let success = found.map(|agent| agent.statuses.push(status)).is_some();
        json!({"success": success})
    }

    fn end_leases(&mut self) {
        let lease = self.lease;
        for item in &mut self.items {
            if item.state == "LEASED" && item.leased_at.is_some_and(|at| at.elapsed() >= lease) {
                "PENDING".clone_into(&mut item.state);
            }
        }
    }

    fn pop(&mut self, queue: &str) -> Value {
        self.end_leases();
        let waiting = self
            .items
            .iter_mut()
            .filter(|item| item.queue == queue && item.state == "PENDING");
        let Some(item) = waiting.min_by_key(|item| item.priority) else {
            return Value::Null;
        };
        "LEASED".clone_into(&mut item.state);
        item.leased_at = Some(Instant::now());
        json!({"runQueueItemId": item.id, "runSpec": item.spec})
    }

    fn ack(&mut self, id: &str, run: String) -> Value {
        self.end_leases();
        let idempotent = self.idempotent_ack;
        let Some(item) = self.items.iter_mut().find(|item| item.id == id) else {
            return json!({"success": false});
        };
        let success = match item.state.as_str() {
            "LEASED" => true,
            "CLAIMED" => idempotent && item.run.as_ref() == Some(&run),
            _ => false,
        };
        if success {
            "CLAIMED".clone_into(&mut item.state);
            item.run = Some(run);
        }
        json!({"success": success})
    }

    fn report(&mut self, field: &str, input: &Map<String, Value>) -> Value {
        let text = |key: &str| input[key].as_str().unwrap_or_default().to_owned();
        let id = text("runQueueItemId");
        let Some(item) = self.items.iter_mut().find(|item| item.id == id) else {
            return json!({"success": false});
        };
        if field == "failRunQueueItem" {
            "FAILED".clone_into(&mut item.state);
            let files = strings(input.get("filePaths").unwrap_or(&Value::Null));
            item.failure = Some((text("stage"), text("message"), files));
        } else {
            item.warning = Some(text("message"));
        }
        json!({"success": true})
    }
}

fn listed(queue: &RunQueue) -> Value {
    json!({"id": queue.id, "name": queue.name, "createdBy": "me", "access": "PROJECT"})
}

fn strings(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten();
    texts.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Only what was asked for; what there is not to ask for is an error, as on a real server.
fn select(value: &Value, fields: &[Field]) -> Result<Value, String> {
    match value {
        Value::Object(_) if fields.is_empty() => Ok(value.clone()),
        Value::Object(object) => {
            let mut answer = Map::new();
            for field in fields {
                let found = object
                    .get(&field.name)
                    .ok_or_else(|| format!("Cannot query field \"{}\"", field.name))?;
                answer.insert(field.alias.clone(), select(found, &field.fields)?);
            }
            Ok(Value::Object(answer))
        }
        Value::Array(values) => values.iter().map(|value| select(value, fields)).collect(),
        other => Ok(other.clone()),
    }
}
