//! Runs: their state, and how one is asked to stop.

use juniper::{GraphQLInputObject, ID, graphql_object};

use super::access::{Answer, Context, refuse};
use super::ids::{self, Kind};
use super::queues::SuccessPayload;
use super::scalars::Scalar;
use crate::queue::local;

/// A run of an entity that the caller is a member of.
pub struct Run(local::Run);

/// The run of that name in a project.
pub fn named(context: &Context, entity: &str, project: &str, name: &str) -> Answer<Option<Run>> {
    if !context.is_member(entity) {
        return Ok(None);
    }
    let found = context.told(context.queue.run(entity, project, name))?;
    Ok(found.map(Run))
}

/// The run with that id, if it is in one of the caller's entities.
fn find(context: &Context, id: &str) -> Answer<Option<local::Run>> {
    let number = ids::decode(Kind::Run, id).and_then(|name| name.parse().ok());
    let Some(number) = number else {
        return Ok(None);
    };
    let found = context.told(context.queue.run_of_number(number))?;
    Ok(found.filter(|run| context.is_member(&run.entity)))
}

#[graphql_object(context = Context, scalar = Scalar)]
impl Run {
    fn id(&self) -> ID {
        ids::encode(Kind::Run, self.0.id)
    }

    fn name(&self) -> &str {
        &self.0.name
    }

    fn state(&self) -> &str {
        &self.0.state
    }

    fn stopped(&self) -> bool {
        self.0.stopped
    }
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
    let Some(run) = find(context, &input.id)? else {
        return refuse(format!("no run `{}`", input.id.escape_debug()));
    };
    context.told(context.queue.stop_run(run.id))?;
    Ok(SuccessPayload {
        success: true,
        client_mutation_id: input.client_mutation_id,
    })
}

/// W&B's own rule for the names of runs.
pub fn check_name(name: &str) -> Answer<()> {
    let is_bad = |letter: char| letter.is_control() || "/\\#?%:".contains(letter);
    if !name.is_empty() && name.chars().count() <= 128 && !name.contains(is_bad) {
        return Ok(());
    }
    refuse(format!(
        "`{}` cannot be the name of a run: it has up to 128 characters, and none of `/ \\ # ? % :`",
        name.escape_debug()
    ))
}
