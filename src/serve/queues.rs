//! Queues: looked at, made, changed, deleted. A queue of the wire is named within its entity, one of the file by both.

use juniper::{GraphQLEnum, GraphQLInputObject, GraphQLObject, ID, graphql_object};
use serde_json::{Value, json};

use super::access::{Answer, Context, QUEUES_PROJECT, refuse};
use super::configs;
use super::ids::{self, Kind};
use super::items::{self, RunQueueItem, RunQueueItemConnection};
use super::pages;
use super::scalars::{DateTime, Json, JsonString, Scalar};
use crate::queue::QueueDefinition;
use crate::queue::QueueStatus;
use crate::queue::local::{QueueChange, full_name, split_name};

/// Who sees a queue. Here it is always its entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, GraphQLEnum)]
#[graphql(scalar = Scalar)]
pub enum RunQueueAccessType {
    Project,
    User,
}

/// May pushers give a priority?
#[derive(Clone, Copy, Debug, PartialEq, Eq, GraphQLEnum)]
#[graphql(scalar = Scalar)]
pub enum RunQueuePrioritizationMode {
    Disabled,
    V0,
}

/// A queue of an entity that the caller is a member of.
pub struct RunQueue(QueueStatus);

/// The queues of a project: none but those of the one project that has them.
pub fn of_project(context: &Context, entity: &str, project: &str) -> Answer<Vec<RunQueue>> {
    if project != QUEUES_PROJECT {
        return Ok(Vec::new());
    }
    let queues = context.told(context.queue.queues_of(entity))?;
    context.listed(queues.into_iter().map(RunQueue).collect())
}

/// The queue of that name in a project.
pub fn named(
    context: &Context,
    entity: &str,
    project: &str,
    name: &str,
) -> Answer<Option<RunQueue>> {
    // A name with a slash would be another entity's queue.
    if project != QUEUES_PROJECT || name.contains('/') || !context.is_member(entity) {
        return Ok(None);
    }
    let found = context.found(context.queue.queue(&full_name(entity, name)))?;
    Ok(found.map(RunQueue))
}

/// The queue with that id, by its name in the file.
pub fn name_of(context: &Context, id: &ID) -> Answer<Option<String>> {
    let Some(name) = ids::decode(Kind::RunQueue, id) else {
        return Ok(None);
    };
    if !context.is_member(split_name(&name).0) {
        return Ok(None);
    }
    let found = context.found(context.queue.queue(&name))?;
    Ok(found.map(|queue| queue.definition.name))
}

/// [`name_of`], where nothing can be done without the queue.
pub fn need(context: &Context, id: &ID) -> Answer<String> {
    match name_of(context, id)? {
        Some(name) => Ok(name),
        None => refuse(format!("no run queue `{}`", id.escape_debug())),
    }
}

/// A queue's config is the guardrail of its entity's other members: none of them changes it or puts another in its
/// place. Who made the queue does, and the server's owner.
fn need_maker(context: &Context, queue: &QueueStatus) -> Answer<()> {
    if queue.created_by == context.caller.user {
        return Ok(());
    }
    let (entity, name) = split_name(&queue.definition.name);
    let maker = match queue.created_by.as_str() {
        "" => "on the server's machine".to_owned(),
        user => format!("by `{user}`, who can change it"),
    };
    refuse(format!(
        "queue `{name}` of `{entity}` was made {maker} (hint: the server's owner can with `launch-agent queue`)"
    ))
}

/// The id of a queue.
pub fn id_of(name: &str) -> ID {
    ids::encode(Kind::RunQueue, name)
}

#[graphql_object(context = Context, scalar = Scalar)]
impl RunQueue {
    fn id(&self) -> ID {
        id_of(&self.0.definition.name)
    }

    fn name(&self) -> &str {
        split_name(&self.0.definition.name).1
    }

    fn created_by(&self) -> &str {
        &self.0.created_by
    }

    fn created_at(&self) -> Option<DateTime> {
        self.0.created_at.map(DateTime)
    }

    fn updated_at(&self) -> Option<DateTime> {
        self.0.updated_at.map(DateTime)
    }

    fn access() -> RunQueueAccessType {
        RunQueueAccessType::Project
    }

    #[graphql(name = "defaultResourceConfigID")]
    fn default_resource_config_id(&self) -> ID {
        configs::id_of_queue(&self.0.definition.name)
    }

    fn prioritization_mode(&self) -> RunQueuePrioritizationMode {
        if self.0.definition.prioritization {
            RunQueuePrioritizationMode::V0
        } else {
            RunQueuePrioritizationMode::Disabled
        }
    }

    fn external_links(&self) -> Json {
        Json(self.0.external_links.clone())
    }

    fn run_queue_items(
        &self,
        context: &Context,
        first: Option<i32>,
        after: Option<String>,
    ) -> Answer<RunQueueItemConnection> {
        items::page(context, &self.0.definition.name, first, after.as_deref())
    }

    fn run_queue_item(&self, context: &Context, id: ID) -> Answer<Option<RunQueueItem>> {
        items::of_queue(context, &self.0.definition.name, &id)
    }
}

/// What makes a queue.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct CreateRunQueueInput {
    entity_name: Option<String>,
    project_name: Option<String>,
    queue_name: String,
    access: Option<RunQueueAccessType>,
    prioritization_mode: Option<RunQueuePrioritizationMode>,
    #[graphql(name = "defaultResourceConfigID")]
    default_resource_config_id: Option<ID>,
    client_mutation_id: Option<String>,
}

/// A queue that was made.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
pub struct CreateRunQueuePayload {
    success: bool,
    #[graphql(name = "queueID")]
    queue_id: Option<ID>,
    client_mutation_id: Option<String>,
}

/// The name in the file of a queue that a request names.
fn full(
    context: &Context,
    entity: Option<String>,
    project: Option<&str>,
    name: &str,
) -> Answer<String> {
    let entity = entity
        .filter(|entity| !entity.is_empty())
        .unwrap_or_else(|| context.caller.user.clone());
    context.need_member(&entity)?;
    if project.is_some_and(|project| project != QUEUES_PROJECT) {
        return refuse(format!("queues are in the project `{QUEUES_PROJECT}`"));
    }
    if name.contains('/') {
        return refuse(format!(
            "`{}` cannot be the name of a queue",
            name.escape_debug()
        ));
    }
    Ok(full_name(&entity, name))
}

/// Makes a queue, out of a config that was saved before.
pub fn create(context: &Context, input: CreateRunQueueInput) -> Answer<CreateRunQueuePayload> {
    if input.access == Some(RunQueueAccessType::User) {
        return refuse("a queue for one user alone is not possible: its entity's members share it");
    }
    let name = full(
        context,
        input.entity_name,
        input.project_name.as_deref(),
        &input.queue_name,
    )?;
    context.need_room()?;
    let saved = match &input.default_resource_config_id {
        Some(id) => configs::need(context, split_name(&name).0, id)?,
        None => configs::plain(),
    };
    let definition = QueueDefinition {
        name: name.clone(),
        config: saved.config,
        template_variables: saved.template_variables,
        prioritization: input.prioritization_mode == Some(RunQueuePrioritizationMode::V0),
        paused: false,
    };
    context.told(context.queue.create_queue_by(
        &context.caller.user,
        &definition,
        &saved.resource,
        &configs::ask_nobody,
    ))?;
    Ok(CreateRunQueuePayload {
        success: true,
        queue_id: Some(id_of(&name)),
        client_mutation_id: input.client_mutation_id,
    })
}

/// What makes a queue, or changes it.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct UpsertRunQueueInput {
    entity_name: Option<String>,
    project_name: Option<String>,
    queue_name: String,
    resource_type: String,
    resource_config: JsonString,
    template_variables: Option<JsonString>,
    prioritization_mode: Option<RunQueuePrioritizationMode>,
    external_links: Option<JsonString>,
    client_mutation_id: Option<String>,
}

/// A queue that is as it was wanted.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
pub struct UpsertRunQueuePayload {
    success: bool,
    /// What is wrong with a config that was saved all the same. Here a wrong one is not saved, and the error says why.
    config_schema_validation_errors: Vec<String>,
    client_mutation_id: Option<String>,
}

/// Makes a queue, or changes the one that is there.
pub fn upsert(context: &Context, input: UpsertRunQueueInput) -> Answer<UpsertRunQueuePayload> {
    let name = full(
        context,
        input.entity_name,
        input.project_name.as_deref(),
        &input.queue_name,
    )?;
    context.need_room()?;
    let variables = input
        .template_variables
        .map_or(Value::Null, |variables| variables.0);
    let saved = configs::read(
        context,
        &input.resource_type,
        &input.resource_config.0,
        &variables,
    )?;
    let links = input.external_links.map(|links| links.0);
    if let Some(links) = &links {
        check_links(links)?;
    }
    let prioritization = input
        .prioritization_mode
        .map(|mode| mode == RunQueuePrioritizationMode::V0);
    let ask = &configs::ask_nobody;
    if let Some(queue) = context.found(context.queue.queue(&name))? {
        need_maker(context, &queue)?;
        let change = QueueChange {
            config: Some(saved.config),
            template_variables: Some(saved.template_variables),
            prioritization,
        };
        context.told(context.queue.update_queue(&name, &change, ask))?;
    } else {
        let definition = QueueDefinition {
            name: name.clone(),
            config: saved.config,
            template_variables: saved.template_variables,
            prioritization: prioritization.unwrap_or_default(),
            paused: false,
        };
        let user = &context.caller.user;
        let made = context
            .queue
            .create_queue_by(user, &definition, &saved.resource, ask);
        context.told(made)?;
    }
    if let Some(links) = &links {
        context.told(context.queue.set_links(&name, links))?;
    }
    Ok(UpsertRunQueuePayload {
        success: true,
        config_schema_validation_errors: Vec::new(),
        client_mutation_id: input.client_mutation_id,
    })
}

fn check_links(links: &Value) -> Answer<()> {
    let is_link = |link: &Value| link["label"].is_string() && link["url"].is_string();
    let all = links["links"].as_array();
    if all.is_some_and(|all| all.iter().all(is_link)) {
        return Ok(());
    }
    let form = json!({"links": [{"label": "..", "url": ".."}]});
    refuse(format!("`externalLinks` must be of the form {form}"))
}

/// Which queues are to be deleted.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct DeleteRunQueuesInput {
    #[graphql(name = "queueIDs")]
    queue_ids: Vec<ID>,
    client_mutation_id: Option<String>,
}

/// Whether what was asked for is done.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
pub struct SuccessPayload {
    pub success: bool,
    pub client_mutation_id: Option<String>,
}

/// Deletes queues with what waits in them. All are looked up before the first is touched.
pub fn delete(context: &Context, input: DeleteRunQueuesInput) -> Answer<SuccessPayload> {
    pages::check_count("queues", input.queue_ids.len())?;
    let names = input.queue_ids.iter().map(|id| need(context, id));
    let names = names.collect::<Answer<Vec<String>>>()?;
    for name in &names {
        need_maker(context, &context.told(context.queue.queue(name))?)?;
    }
    for name in names {
        context.told(context.queue.delete_queue(&name, true))?;
    }
    Ok(SuccessPayload {
        success: true,
        client_mutation_id: input.client_mutation_id,
    })
}
