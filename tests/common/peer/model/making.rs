//! What W&B's clients make on the test peer: runs with their files, jobs, queues and their configs.

use serde_json::{Map, Value, json};

use super::{Model, strings};

impl Model {
    pub(super) fn upsert_run(&mut self, input: &Map<String, Value>) -> Value {
        let text = |key: &str| input[key].as_str().unwrap_or_default().to_owned();
        let name = text("name");
        let job_type = text("jobType");
        let run = self.set_run(&text("entityName"), &text("modelName"), &name, "running");
        run.job_type = Some(job_type);
        json!({"bucket": {"id": format!("Run:{name}"), "name": name}, "inserted": true})
    }

    pub(super) fn create_files(&mut self, input: &Map<String, Value>) -> Value {
        let text = |key: &str| input[key].as_str().unwrap_or_default().to_owned();
        let (entity, project, run) = (text("entityName"), text("projectName"), text("runName"));
        let key = (entity.clone(), project.clone(), run.clone());
        if !self.runs.contains_key(&key) {
            return Value::Null;
        }
        let files: Vec<Value> = strings(&input["files"])
            .into_iter()
            .map(|name| {
                let path = name.replace('=', "%3D");
                let url = format!(
                    "{}/storage/{entity}/{project}/{run}/{path}?signed=1",
                    self.base_url
                );
                json!({"name": name, "uploadUrl": url})
            })
            .collect();
        json!({"runID": format!("Run:{run}"), "uploadHeaders": ["X-Storage: yes:1"], "files": files})
    }

    /// A file arrives at the address that `createRunFiles` gave.
    pub fn store(&mut self, path: &str, body: Vec<u8>) -> bool {
        let path = path
            .split('?')
            .next()
            .unwrap_or_default()
            .replace("%3D", "=");
        let parts: Vec<&str> = path.splitn(6, '/').collect();
        let ["", "storage", entity, project, run, name] = parts[..] else {
            return false;
        };
        let key = (entity.to_owned(), project.to_owned(), run.to_owned());
        let run = self.runs.get_mut(&key);
        run.map(|run| run.files.insert(name.to_owned(), body))
            .is_some()
    }

    pub(super) fn push(&mut self, input: &Map<String, Value>) -> Result<Value, String> {
        let text = |key: &str| input[key].as_str().unwrap_or_default().to_owned();
        let queue = text("queueName");
        if !self.queues.iter().any(|known| known.name == queue) {
            return Ok(Value::Null);
        }
        let spec: Value = serde_json::from_str(&text("runSpec")).map_err(|e| e.to_string())?;
        if spec["docker"]["docker_image"] == "forbidden" {
            return Err("the image is forbidden by your admin".to_owned());
        }
        let id = self.add_item(&queue, spec);
        let priority = input.get("priority").and_then(Value::as_i64);
        self.item(&id).priority = priority.unwrap_or(2);
        Ok(json!({"runQueueItemId": id, "runSpec": text("runSpec")}))
    }

    pub(super) fn create_config(&mut self, input: &Map<String, Value>) -> Value {
        let text = |key: &str| input[key].as_str().unwrap_or_default().to_owned();
        let read = |key: &str| serde_json::from_str::<Value>(&text(key)).expect("JSON");
        let whole =
            json!({"config": read("config"), "templateVariables": read("templateVariables")});
        let id = self.id("Config");
        self.configs.push((id.clone(), text("resource"), whole));
        json!({"defaultResourceConfigID": id, "success": true})
    }

    pub(super) fn create_queue(&mut self, input: &Map<String, Value>) -> Value {
        let text = |key: &str| input[key].as_str().unwrap_or_default().to_owned();
        self.add_queue(&text("queueName"));
        let id = text("defaultResourceConfigID");
        let config = self
            .configs
            .iter()
            .find(|(config, ..)| *config == id)
            .cloned();
        let queue = self.queues.last_mut().expect("just made");
        queue.config = config;
        queue.prioritization = text("prioritizationMode");
        json!({"success": true, "queueID": queue.id})
    }
}
