//! The items of queues as people see them: pushed, looked at, deleted.

use juniper::{GraphQLInputObject, GraphQLObject, ID, graphql_object};
use serde_json::Value;

use super::access::{Answer, Context, QUEUES_PROJECT, refuse};
use super::configs::ask_nobody;
use super::ids::{self, Kind};
use super::pages::PageInfo;
use super::projects;
use super::queues::{self, SuccessPayload};
use super::runs;
use super::scalars::{JsonString, Scalar};
use crate::launch::spec::Object;
use crate::queue::local::{full_name, split_name};
use crate::queue::{Item, ItemId, ItemState, Priority, Push};

/// How many items a page has when nobody says.
const PAGE: usize = 100;

/// The longest launch spec, in bytes of JSON: what is in it becomes the environment and the command line of a process,
/// which hold no more.
const SPEC: usize = 1024 * 1024;

/// An item.
pub struct RunQueueItem(Item);

#[graphql_object(context = Context, scalar = Scalar)]
impl RunQueueItem {
    fn id(&self) -> ID {
        id_of(&self.0.id)
    }

    /// One of the four states that W&B's queue has: how a claimed item goes on, its run says.
    fn state(&self) -> &str {
        match &self.0.state {
            ItemState::Pending => "PENDING",
            ItemState::Leased => "LEASED",
            ItemState::Claimed | ItemState::Finished(_) => "CLAIMED",
            ItemState::Stopped { .. } if self.0.run_id.is_some() => "CLAIMED",
            ItemState::Failed { .. } | ItemState::Stopped { .. } => "FAILED",
            ItemState::Other(word) => word,
        }
    }

    fn associated_run_id(&self) -> Option<&str> {
        self.0.run_id.as_deref()
    }

    fn priority(&self) -> i32 {
        self.0.priority.unwrap_or_default() as i32
    }
}

/// The id of an item.
pub fn id_of(item: &ItemId) -> ID {
    ids::encode(Kind::RunQueueItem, item)
}

/// The item with that id, if it is in a queue of one of the caller's entities.
pub fn find(context: &Context, id: &ID) -> Answer<Option<Item>> {
    let Some(number) = ids::decode(Kind::RunQueueItem, id) else {
        return Ok(None);
    };
    let item = context.found(context.queue.item(&ItemId(number)))?;
    Ok(item.filter(|item| context.is_member(split_name(&item.queue).0)))
}

/// [`find`], where nothing can be done without it.
pub fn need(context: &Context, id: &ID) -> Answer<Item> {
    match find(context, id)? {
        Some(item) => Ok(item),
        None => refuse(format!("no run queue item `{}`", id.escape_debug())),
    }
}

/// The item with that id, if it is in this queue.
pub fn of_queue(context: &Context, queue: &str, id: &ID) -> Answer<Option<RunQueueItem>> {
    let item = find(context, id)?;
    Ok(item.filter(|item| item.queue == queue).map(RunQueueItem))
}

/// A page of items.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct RunQueueItemConnection {
    edges: Vec<RunQueueItemEdge>,
    page_info: PageInfo,
}

/// An item on a page.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct RunQueueItemEdge {
    node: RunQueueItem,
    cursor: String,
}

/// The items of a queue behind `after`.
pub fn page(
    context: &Context,
    queue: &str,
    first: Option<i32>,
    after: Option<&str>,
) -> Answer<RunQueueItemConnection> {
    let size = super::pages::granted(context, first, PAGE)?;
    let after = super::pages::after(after)?;
    let mut items = context.told(context.queue.items_after(queue, after, size + 1))?;
    let has_next_page = items.len() > size;
    items.truncate(size);
    let edges: Vec<RunQueueItemEdge> = items
        .into_iter()
        .map(|item| RunQueueItemEdge {
            cursor: item.id.0.clone(),
            node: RunQueueItem(item),
        })
        .collect();
    Ok(RunQueueItemConnection {
        page_info: PageInfo {
            end_cursor: edges.last().map(|edge| edge.cursor.clone()),
            has_next_page,
        },
        edges,
    })
}

/// A job for a queue that is named.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct PushToRunQueueByNameInput {
    entity_name: String,
    project_name: String,
    queue_name: String,
    run_spec: JsonString,
    priority: Option<i32>,
    template_variable_values: Option<JsonString>,
    client_mutation_id: Option<String>,
}

/// A job for a queue whose id is known.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct PushToRunQueueInput {
    #[graphql(name = "queueID")]
    queue_id: ID,
    run_spec: JsonString,
    priority: Option<i32>,
    template_variable_values: Option<JsonString>,
    client_mutation_id: Option<String>,
}

/// A job that is in its queue now.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
pub struct PushToRunQueueByNamePayload {
    run_queue_item_id: ID,
    run_spec: JsonString,
    client_mutation_id: Option<String>,
}

/// Adds a job to a queue that is named; `None` when there is no such queue, which the client has words for.
pub fn push_by_name(
    context: &Context,
    input: PushToRunQueueByNameInput,
) -> Answer<Option<PushToRunQueueByNamePayload>> {
    let name = full_name(&input.entity_name, &input.queue_name);
    let is_there = context.is_member(&input.entity_name)
        && input.project_name == QUEUES_PROJECT
        && !input.queue_name.contains('/')
        && context.found(context.queue.queue(&name))?.is_some();
    if !is_there {
        return Ok(None);
    }
    push(
        context,
        name,
        input.run_spec.0,
        input.priority,
        input.template_variable_values,
        input.client_mutation_id,
    )
    .map(Some)
}

/// Adds a job to a queue whose id is known. The client comes here when the other way gave no item, and this answer is
/// the one that it shows.
pub fn push_by_id(
    context: &Context,
    input: PushToRunQueueInput,
) -> Answer<PushToRunQueueByNamePayload> {
    push(
        context,
        queues::need(context, &input.queue_id)?,
        input.run_spec.0,
        input.priority,
        input.template_variable_values,
        input.client_mutation_id,
    )
}

fn push(
    context: &Context,
    queue: String,
    spec: Value,
    priority: Option<i32>,
    values: Option<JsonString>,
    client_mutation_id: Option<String>,
) -> Answer<PushToRunQueueByNamePayload> {
    let Value::Object(mut spec) = spec else {
        return refuse("the launch spec is not a JSON object");
    };
    if serde_json::to_string(&spec).is_ok_and(|text| text.len() > SPEC) {
        return refuse(format!("the launch spec is longer than {SPEC} bytes"));
    }
    let entity = settle_entity(context, &mut spec, &queue)?;
    context.need_member(&entity)?;
    context.need_room()?;
    check_names(&spec)?;
    // Who pushed is what the key says, whatever the spec says.
    spec.insert("author".to_owned(), context.caller.user.as_str().into());
    let template_values = match values.map(|values| values.0) {
        None | Some(Value::Null) => Object::new(),
        Some(Value::Object(values)) => values,
        Some(_) => return refuse("the template variable values are not a JSON object"),
    };
    let push = Push {
        queue,
        spec,
        template_values,
        priority: priority.map(read_priority).transpose()?,
    };
    let pushed = context
        .queue
        .push_by(&context.caller.user, &push, &ask_nobody);
    let id = context.told(pushed)?.id;
    let item = context.told(context.queue.item(&id))?;
    Ok(PushToRunQueueByNamePayload {
        run_queue_item_id: id_of(&id),
        run_spec: JsonString(item.spec),
        client_mutation_id,
    })
}

/// The entity that the run will belong to; the queue's where the spec names none.
fn settle_entity(context: &Context, spec: &mut Object, queue: &str) -> Answer<String> {
    match spec.get("entity") {
        None | Some(Value::Null) => {
            let entity = split_name(queue).0;
            spec.insert("entity".to_owned(), entity.into());
            Ok(entity.to_owned())
        }
        Some(Value::String(entity)) if entity.is_empty() => {
            let own = context.caller.user.clone();
            spec.insert("entity".to_owned(), own.as_str().into());
            Ok(own)
        }
        Some(Value::String(entity)) => Ok(entity.clone()),
        Some(_) => refuse("`entity` of the launch spec must be a string"),
    }
}

/// Names that no run and no project can have would be found out by the agent alone, when nobody waits any more.
fn check_names(spec: &Object) -> Answer<()> {
    let named = |key: &str| {
        let name = spec.get(key).and_then(Value::as_str);
        name.filter(|name| !name.is_empty())
    };
    named("project").map_or(Ok(()), projects::check_name)?;
    named("run_id").map_or(Ok(()), runs::check_name)
}

fn read_priority(number: i32) -> Answer<Priority> {
    let found = usize::try_from(number)
        .ok()
        .and_then(|number| Priority::ALL.get(number));
    match found {
        Some(priority) => Ok(*priority),
        None => refuse(format!(
            "{number} is not a priority: 0 is critical, 1 high, 2 medium, 3 low"
        )),
    }
}

/// Which item is to be deleted.
#[derive(GraphQLInputObject)]
#[expect(clippy::struct_field_names, reason = "the names are the wire's")]
#[graphql(scalar = Scalar)]
pub struct DeleteFromRunQueueInput {
    #[graphql(name = "queueID")]
    queue_id: ID,
    run_queue_item_id: ID,
    client_mutation_id: Option<String>,
}

/// Deletes an item that no agent has in hand.
pub fn delete(context: &Context, input: DeleteFromRunQueueInput) -> Answer<SuccessPayload> {
    let queue = queues::need(context, &input.queue_id)?;
    let item = need(context, &input.run_queue_item_id)?;
    if item.queue != queue {
        return refuse("the run queue item is in another queue");
    }
    context.told(context.queue.delete_item(&item.id))?;
    Ok(SuccessPayload {
        success: true,
        client_mutation_id: input.client_mutation_id,
    })
}
