//! Files that belong to a report. W&B keeps them with a run of the agent's own (PROTOCOL sections 6 and 7), which is
//! made when the first file needs it: most agents never do.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{Client, QUEUES_PROJECT, text};
use crate::failure::{Error, Result};

const AGENT_NAME: &str =
    "query LaunchAgent($agentId: ID!) { launchAgent(id: $agentId) { id name hostname } }";

const CREATE_RUN: &str = "mutation UpsertBucket($name: String, $project: String, $entity: String, $config: JSONString, $host: String, $program: String, $jobType: String) {
  upsertBucket(input: {name: $name, modelName: $project, entityName: $entity, config: $config, host: $host, jobProgram: $program, jobType: $jobType}) { bucket { id name } inserted }
}";

const CREATE_FILES: &str = "mutation CreateRunFiles($entity: String!, $project: String!, $run: String!, $files: [String!]!) {
  createRunFiles(input: {entityName: $entity, projectName: $project, runName: $run, files: $files}) { runID uploadHeaders files { name uploadUrl } }
}";

/// The job type by which W&B hides an agent's run.
const HIDDEN: &str = "sweep-controller";

/// A file of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its path in the agent's run.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// The hidden runs that were made, by entity and agent.
#[derive(Debug, Default)]
pub struct AgentRuns(HashMap<(String, String), String>);

impl AgentRuns {
    /// Uploads files to the hidden run of an agent.
    pub fn attach(
        &mut self,
        client: &Client,
        entity: &str,
        agent: &str,
        files: &[File],
    ) -> Result<()> {
        let run = self.run(client, entity, agent)?;
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let variables =
            json!({"entity": entity, "project": QUEUES_PROJECT, "run": run, "files": paths});
        let data = client.transport.once(CREATE_FILES, &variables)?;
        let created = &data["createRunFiles"];
        let headers = upload_headers(&created["uploadHeaders"]);
        for file in files {
            let url = created["files"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|made| made["name"] == file.path.as_str())
                .and_then(|made| text(made, "uploadUrl"))
                .ok_or_else(|| {
                    Error::input(format!(
                        "{} gave no address to upload `{}` to",
                        client.base_url(),
                        file.path
                    ))
                })?;
            client
                .transport
                .upload(&url, &headers, file.text.as_bytes())?;
        }
        Ok(())
    }

    /// The name of the agent's run, made when it is not there yet. Making it again is harmless: it is the same name.
    fn run(&mut self, client: &Client, entity: &str, agent: &str) -> Result<String> {
        let key = (entity.to_owned(), agent.to_owned());
        if let Some(run) = self.0.get(&key) {
            return Ok(run.clone());
        }
        let data = client
            .transport
            .once(AGENT_NAME, &json!({"agentId": agent}))?;
        let known = &data["launchAgent"];
        let name = text(known, "name").ok_or_else(|| {
            Error::input(format!(
                "{} does not know agent {agent}, whose run would hold the files",
                client.base_url()
            ))
        })?;
        let variables = json!({
            "name": name,
            "project": QUEUES_PROJECT,
            "entity": entity,
            "config": json!({"_wandb": {"value": {}}}).to_string(),
            "host": known["hostname"],
            "program": "launch-agent",
            "jobType": HIDDEN,
        });
        let data = client.transport.once(CREATE_RUN, &variables)?;
        let run = text(&data["upsertBucket"]["bucket"], "name").unwrap_or(name);
        self.0.insert(key, run.clone());
        Ok(run)
    }
}

/// `["Name:value", ..]`, as pairs.
fn upload_headers(list: &Value) -> Vec<(String, String)> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str)
        .filter_map(|header| header.split_once(':'))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}
