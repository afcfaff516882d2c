//! Agents: made known, heard, told to stop; and the way of an item through their hands.

use juniper::{GraphQLInputObject, GraphQLObject, ID, graphql_object};
use serde_json::Value;

use super::access::{Answer, Context, QUEUES_PROJECT, refuse};
use super::items;
use super::pages;
use super::queues::{self, SuccessPayload};
use super::scalars::{DateTime, Json, JsonString, Scalar};
use crate::failure::Stage;
use crate::queue::local::{Agent, RemoteAgent, RemoteFailure, full_name, split_name};
use crate::queue::{AgentId, AgentInfo, AgentStatus};

/// The longest message of a failure that is kept, in characters: an agent may send a whole log.
const MESSAGE: usize = 20_000;

/// How much of an agent's settings is kept, in bytes of JSON, how long the name of its machine may be and how many files
/// may tell of a failure.
const CONFIG: usize = 64 * 1024;
const HOSTNAME: usize = 255;
const FILES: usize = 100;

/// An agent of an entity that the caller is a member of.
pub struct LaunchAgent(Agent);

#[graphql_object(context = Context, scalar = Scalar)]
impl LaunchAgent {
    fn id(&self) -> ID {
        id_of(&self.0.id)
    }

    /// Also the name of the run that an agent keeps its files in.
    fn name(&self) -> String {
        format!("agent-{}", self.0.id)
    }

    fn run_queues(&self) -> Vec<ID> {
        self.0
            .queues
            .iter()
            .map(|name| queues::id_of(name))
            .collect()
    }

    fn hostname(&self) -> &str {
        &self.0.hostname
    }

    fn agent_status(&self) -> &str {
        &self.0.status
    }

    fn stop_polling(&self) -> bool {
        self.0.stop_polling
    }

    fn heartbeat_at(&self) -> DateTime {
        DateTime(self.0.seen_at)
    }
}

/// The id of an agent: its name as it is, for an agent logs this and its owner looks for it in the list of all.
fn id_of(agent: &AgentId) -> ID {
    ID::new(agent.to_string())
}

/// The agent with that id. An agent asks for itself in every round: this is its heartbeat.
pub fn launch_agent(context: &Context, id: &ID) -> Answer<Option<LaunchAgent>> {
    Ok(find(context, id)?.map(LaunchAgent))
}

fn find(context: &Context, id: &ID) -> Answer<Option<Agent>> {
    let id = AgentId(id.to_string());
    let known = context.told(context.queue.agent(&id))?;
    if !known.is_some_and(|agent| context.is_member(&agent.entity)) {
        return Ok(None);
    }
    context.told(context.queue.agent_asks(&id))
}

fn need(context: &Context, id: &ID) -> Answer<Agent> {
    match find(context, id)? {
        Some(agent) => Ok(agent),
        None => refuse(format!("no launch agent `{}`", id.escape_debug())),
    }
}

/// What makes an agent known.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct CreateLaunchAgentInput {
    entity_name: String,
    project_name: String,
    run_queues: Vec<ID>,
    hostname: String,
    agent_config: Option<JsonString>,
    version: Option<String>,
    client_mutation_id: Option<String>,
}

/// An agent that is known now.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
pub struct CreateLaunchAgentPayload {
    launch_agent_id: ID,
    success: bool,
    client_mutation_id: Option<String>,
}

/// Makes an agent known, for queues of its entity.
pub fn create(
    context: &Context,
    input: CreateLaunchAgentInput,
) -> Answer<CreateLaunchAgentPayload> {
    context.need_member(&input.entity_name)?;
    if input.project_name != QUEUES_PROJECT {
        return refuse(format!("queues are in the project `{QUEUES_PROJECT}`"));
    }
    pages::check_count("queues", input.run_queues.len())?;
    let names = input.run_queues.iter().map(|id| queues::need(context, id));
    let names = names.collect::<Answer<Vec<String>>>()?;
    if names
        .iter()
        .any(|name| split_name(name).0 != input.entity_name)
    {
        return refuse(format!(
            "an agent of `{}` polls queues of that entity only",
            input.entity_name
        ));
    }
    let config = input.agent_config.map_or(Value::Null, |config| config.0);
    if config.to_string().len() > CONFIG || input.hostname.len() > HOSTNAME {
        return refuse(format!(
            "an agent says of itself at most {CONFIG} bytes of settings and a host name of {HOSTNAME}"
        ));
    }
    let info = AgentInfo {
        hostname: input.hostname,
        pid: 0,
        queues: names,
        max_jobs: config["max_jobs"]
            .as_i64()
            .and_then(|limit| usize::try_from(limit).ok()),
    };
    let remote = RemoteAgent {
        entity: input.entity_name,
        user: context.caller.user.clone(),
        config,
        version: input.version.unwrap_or_default(),
    };
    let id = context.told(context.queue.register_remote(&info, &remote))?;
    Ok(CreateLaunchAgentPayload {
        launch_agent_id: id_of(&id),
        success: true,
        client_mutation_id: input.client_mutation_id,
    })
}

/// What an agent says of itself.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct UpdateLaunchAgentInput {
    launch_agent_id: ID,
    agent_status: Option<String>,
    client_mutation_id: Option<String>,
}

/// Notes what an agent says of itself.
pub fn update(context: &Context, input: UpdateLaunchAgentInput) -> Answer<SuccessPayload> {
    let agent = need(context, &input.launch_agent_id)?;
    if let Some(word) = input.agent_status {
        let known = [
            AgentStatus::Polling,
            AgentStatus::Running,
            AgentStatus::Killed,
        ];
        let Some(status) = known.into_iter().find(|status| status.as_str() == word) else {
            return refuse(format!(
                "`{}` is not the status of an agent: POLLING, RUNNING or KILLED",
                word.escape_debug()
            ));
        };
        context.told(context.queue.agent_says(&agent.id, status))?;
    }
    Ok(SuccessPayload {
        success: true,
        client_mutation_id: input.client_mutation_id,
    })
}

/// Which queue, and for whom.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct PopFromRunQueueInput {
    entity_name: String,
    project_name: String,
    queue_name: String,
    launch_agent_id: Option<ID>,
    client_mutation_id: Option<String>,
}

/// An item that an agent has taken.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
pub struct PopFromRunQueuePayload {
    run_queue_item_id: ID,
    run_spec: Json,
    client_mutation_id: Option<String>,
}

/// Takes the next item of a queue; `None` when it has none for this agent.
pub fn pop(
    context: &Context,
    input: PopFromRunQueueInput,
) -> Answer<Option<PopFromRunQueuePayload>> {
    context.need_member(&input.entity_name)?;
    let Some(id) = input.launch_agent_id else {
        return refuse("an item is handed to an agent only: `launchAgentId` is missing");
    };
    let agent = need(context, &id)?;
    let name = full_name(&input.entity_name, &input.queue_name);
    if input.project_name != QUEUES_PROJECT || !agent.polls(&name) {
        return refuse(format!(
            "the agent is not registered for a queue `{}` of `{}`",
            input.queue_name.escape_debug(),
            input.entity_name
        ));
    }
    if agent.stop_polling {
        return Ok(None);
    }
    let popped = context.told(context.queue.pop_remote(&agent.id, &name))?;
    Ok(popped.map(|item| PopFromRunQueuePayload {
        run_queue_item_id: items::id_of(&item.id),
        run_spec: Json(item.spec),
        client_mutation_id: input.client_mutation_id,
    }))
}

/// An item, and the run that it will be.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct AckRunQueueItemInput {
    run_queue_item_id: ID,
    run_name: String,
    client_mutation_id: Option<String>,
}

/// Turns a lease into a claim.
pub fn ack(context: &Context, input: AckRunQueueItemInput) -> Answer<SuccessPayload> {
    let item = items::need(context, &input.run_queue_item_id)?;
    super::runs::check_name(&input.run_name)?;
    let success = context.told(context.queue.ack_remote(&item.id, &input.run_name))?;
    Ok(SuccessPayload {
        success,
        client_mutation_id: input.client_mutation_id,
    })
}

/// What is wrong with an item, or worth a warning.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct RunQueueItemMessageInput {
    run_queue_item_id: ID,
    message: String,
    stage: String,
    file_paths: Option<Vec<String>>,
    client_mutation_id: Option<String>,
}

/// Ends an item that could not be run.
pub fn fail(context: &Context, input: RunQueueItemMessageInput) -> Answer<SuccessPayload> {
    let item = items::need(context, &input.run_queue_item_id)?;
    let failure = RemoteFailure {
        stage: read_stage(&input.stage)?,
        message: input.message.chars().take(MESSAGE).collect(),
        files: input
            .file_paths
            .unwrap_or_default()
            .into_iter()
            .take(FILES)
            .collect(),
    };
    let success = context.told(context.queue.fail_remote(&item.id, &failure))?;
    Ok(SuccessPayload {
        success,
        client_mutation_id: input.client_mutation_id,
    })
}

/// Adds a warning to an item.
pub fn warn(context: &Context, input: RunQueueItemMessageInput) -> Answer<SuccessPayload> {
    let item = items::need(context, &input.run_queue_item_id)?;
    read_stage(&input.stage)?;
    let message: String = input.message.chars().take(MESSAGE).collect();
    context.told(context.queue.warn_remote(&item.id, &message))?;
    Ok(SuccessPayload {
        success: true,
        client_mutation_id: input.client_mutation_id,
    })
}

fn read_stage(word: &str) -> Answer<Stage> {
    let found = [Stage::Agent, Stage::Build, Stage::Run]
        .into_iter()
        .find(|stage| stage.as_str() == word);
    match found {
        Some(stage) => Ok(stage),
        None => refuse(format!(
            "`{}` is not a stage: agent, build or run",
            word.escape_debug()
        )),
    }
}
