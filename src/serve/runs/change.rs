//! How runs are made, changed, stopped and deleted.

use juniper::{GraphQLInputObject, GraphQLObject, ID};

use super::super::access::{Answer, Context, refuse};
use super::super::pages;
use super::super::projects;
use super::super::queues::SuccessPayload;
use super::super::scalars::{JsonString, Scalar};
use super::{Run, check_name, find};
use crate::queue::local::RunChange;

/// A run as it is now, made when it is new. With an id it is only changed; with a name it begins.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct UpsertBucketInput {
    id: Option<String>,
    name: Option<String>,
    group_name: Option<String>,
    model_name: Option<String>,
    entity_name: Option<String>,
    description: Option<String>,
    display_name: Option<String>,
    notes: Option<String>,
    config: Option<JsonString>,
    commit: Option<String>,
    host: Option<String>,
    debug: Option<bool>,
    job_program: Option<String>,
    job_repo: Option<String>,
    job_type: Option<String>,
    state: Option<String>,
    sweep: Option<String>,
    tags: Option<Vec<String>>,
    summary_metrics: Option<JsonString>,
    client_mutation_id: Option<String>,
}

/// The run that was made or changed.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct UpsertBucketPayload {
    bucket: Option<Run>,
    inserted: Option<bool>,
    client_mutation_id: Option<String>,
}

/// Where a run is when it names no project: W&B's own word.
const NO_PROJECT: &str = "uncategorized";

/// Makes a run, or changes it.
pub fn upsert(context: &Context, mut input: UpsertBucketInput) -> Answer<UpsertBucketPayload> {
    if let Some(sweep) = input.sweep.as_ref().filter(|sweep| !sweep.is_empty()) {
        return refuse(format!(
            "no sweep `{}`: this server has no sweeps",
            sweep.escape_debug()
        ));
    }
    let config = input.config.as_ref();
    if config.is_some_and(|config| !config.0["_wandb"]["value"]["branch_point"].is_null()) {
        return refuse("this server does not fork a run: leave out `fork_from`");
    }
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let client_mutation_id = input.client_mutation_id.take();
    let id = given(input.id.take());
    let entity = given(input.entity_name.take()).unwrap_or_else(|| context.caller.user.clone());
    let project = given(input.model_name.take()).unwrap_or_else(|| NO_PROJECT.to_owned());
    let name = given(input.name.take());
    let state = given(input.state.take());
    let change = change(input)?;
    let (run, inserted) = if let Some(id) = id {
        if state.is_some() {
            return refuse("the state of a run is not changed together with it");
        }
        let run = find(context, &id)?;
        (
            context.told(context.queue.change_run(run.id, &change))?,
            false,
        )
    } else {
        context.need_member(&entity)?;
        projects::check_name(&project)?;
        let Some(name) = name else {
            return refuse("a run needs a name");
        };
        check_name(&name)?;
        let is_pending = match state.as_deref() {
            None | Some("running") => false,
            Some("pending") => true,
            Some(other) => {
                return refuse(format!(
                    "a run does not begin in the state `{}`",
                    other.escape_debug()
                ));
            }
        };
        let place = (entity.as_str(), project.as_str(), name.as_str());
        let user = &context.caller.user;
        context.told(context.queue.begin_run(place, user, is_pending, &change))?
    };
    Ok(UpsertBucketPayload {
        bucket: Some(Run(run)),
        inserted: Some(inserted),
        client_mutation_id,
    })
}

/// The longest short text of a run, in bytes: a path, a URL, a name.
const SHORT: usize = 4_096;

fn check_short(input: &UpsertBucketInput) -> Answer<()> {
    let texts = [
        &input.display_name,
        &input.group_name,
        &input.job_type,
        &input.commit,
        &input.job_repo,
        &input.job_program,
        &input.host,
    ];
    let tags = input.tags.as_deref().unwrap_or_default();
    pages::check_count("tags", tags.len())?;
    let mut all = texts.into_iter().flatten().chain(tags);
    if all.any(|text| text.len() > SHORT) {
        return refuse(format!(
            "the names and tags of a run have at most {SHORT} bytes each"
        ));
    }
    Ok(())
}

fn change(input: UpsertBucketInput) -> Answer<RunChange> {
    check_short(&input)?;
    let json = |what: &str, value: Option<JsonString>| match value {
        Some(value) if !value.0.is_object() => refuse(format!("`{what}` is not a JSON object")),
        other => Ok(other.map(|value| value.0.to_string())),
    };
    Ok(RunChange {
        config: json("config", input.config)?,
        summary: json("summaryMetrics", input.summary_metrics)?,
        display_name: input.display_name,
        notes: input.notes,
        description: input.description,
        tags: input.tags,
        group: input.group_name,
        job_type: input.job_type,
        sweep: None,
        commit: input.commit,
        repo: input.job_repo,
        program: input.job_program,
        host: input.host,
    })
}

/// Which run is to stop.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct StopRunInput {
    id: ID,
    client_mutation_id: Option<String>,
}

/// Asks a run to stop.
pub fn stop(context: &Context, input: StopRunInput) -> Answer<SuccessPayload> {
    let run = find(context, &input.id)?;
    context.told(context.queue.stop_run(run.id))?;
    Ok(SuccessPayload {
        success: true,
        client_mutation_id: input.client_mutation_id,
    })
}

/// Which run is to be forgotten.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct DeleteRunInput {
    id: ID,
    delete_artifacts: Option<bool>,
    client_mutation_id: Option<String>,
}

/// Forgets a run.
pub fn delete(context: &Context, input: DeleteRunInput) -> Answer<SuccessPayload> {
    let run = find(context, &input.id)?;
    let with_artifacts = input.delete_artifacts == Some(true);
    context.told(context.queue.delete_run(run.id, with_artifacts))?;
    Ok(SuccessPayload {
        success: true,
        client_mutation_id: input.client_mutation_id,
    })
}

/// Which state a run is to be in.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct UpdateRunStateInput {
    id: ID,
    state: String,
    client_mutation_id: Option<String>,
}

/// Sets a run back to `pending`, or gives it up as `failed`.
pub fn update_state(context: &Context, input: UpdateRunStateInput) -> Answer<SuccessPayload> {
    let run = find(context, &input.id)?;
    if !context.told(context.queue.set_run_state(run.id, &input.state))? {
        return refuse(format!(
            "a run that is {} cannot be set to `{}`",
            run.state,
            input.state.escape_debug()
        ));
    }
    Ok(SuccessPayload {
        success: true,
        client_mutation_id: input.client_mutation_id,
    })
}
