//! Projects as GraphQL shows them. The project `model-registry` of an entity holds its queues and is always there.

use juniper::{GraphQLInputObject, GraphQLObject, ID, graphql_object};

use super::access::{Answer, Context, QUEUES_PROJECT, refuse};
use super::artifacts::{
    self, Artifact, ArtifactCollectionConnection, ArtifactCollectionValue, ArtifactType,
    ArtifactTypeConnection, Membership,
};
use super::entities::{Entity, User};
use super::ids::{self, Kind};
use super::pages::{self, PageInfo};
use super::queues::{self, RunQueue};
use super::runs::list::RunConnection;
use super::runs::{self, Run};
use super::scalars::{DateTime, JsonString, Scalar};
use crate::queue::local;

/// A project of an entity that the caller is a member of.
pub struct Project {
    /// The entity that it belongs to.
    pub entity: String,
    /// Its name.
    pub name: String,
    stored: Option<local::Project>,
}

/// The project of that name; `None` when it is not there, or not the caller's to see.
pub fn project(
    context: &Context,
    name: Option<String>,
    entity: Option<String>,
) -> Answer<Option<Project>> {
    context.budget.time()?;
    let entity = entity
        .filter(|entity| !entity.is_empty())
        .unwrap_or_else(|| context.caller.user.clone());
    let Some(name) = name.filter(|_| context.is_member(&entity)) else {
        return Ok(None);
    };
    let stored = context.told(context.queue.project(&entity, &name))?;
    if stored.is_none() && name != QUEUES_PROJECT {
        return Ok(None);
    }
    Ok(Some(Project {
        name: stored.as_ref().map_or(name, |project| project.name.clone()),
        entity,
        stored,
    }))
}

/// A page of an entity's projects.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct ProjectConnection {
    edges: Vec<ProjectEdge>,
    page_info: PageInfo,
}

/// A project on a page.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
struct ProjectEdge {
    node: Project,
    cursor: String,
}

/// A page of the projects of an entity, or of the caller's own.
pub fn of_entity(
    context: &Context,
    entity: Option<String>,
    after: Option<&str>,
    first: Option<i32>,
) -> Answer<ProjectConnection> {
    let entity = entity
        .filter(|entity| !entity.is_empty())
        .unwrap_or_else(|| context.caller.user.clone());
    context.need_member(&entity)?;
    let size = pages::granted(context, first, 50)?;
    let found = context.queue.projects(&entity, pages::after(after)?, size);
    let (found, has_next_page) = context.told(found)?;
    Ok(ProjectConnection {
        page_info: PageInfo {
            end_cursor: found.last().map(|project| project.id.to_string()),
            has_next_page,
        },
        edges: found
            .into_iter()
            .map(|stored| ProjectEdge {
                cursor: stored.id.to_string(),
                node: Project {
                    entity: entity.clone(),
                    name: stored.name.clone(),
                    stored: Some(stored),
                },
            })
            .collect(),
    })
}

#[graphql_object(context = Context, scalar = Scalar)]
impl Project {
    fn id(&self) -> ID {
        ids::encode(
            Kind::Project,
            format_args!("v1:{}:{}", self.name, self.entity),
        )
    }

    fn internal_id(&self) -> ID {
        let number = self.stored.as_ref().map_or(0, |project| project.id);
        ids::encode(Kind::ProjectInternalId, number)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn entity_name(&self) -> &str {
        &self.entity
    }

    fn entity(&self) -> Entity {
        Entity(self.entity.clone())
    }

    fn created_at(&self) -> Option<DateTime> {
        self.stored
            .as_ref()
            .map(|project| DateTime(project.created_at))
    }

    fn description() -> Option<String> {
        None
    }

    /// Its entity's members, and nobody else.
    fn access() -> &'static str {
        "PRIVATE"
    }

    fn views() -> Option<String> {
        None
    }

    fn is_benchmark() -> bool {
        false
    }

    /// Who made a project is not written down.
    fn user() -> Option<User> {
        None
    }

    fn run_queues(&self, context: &Context) -> Answer<Vec<RunQueue>> {
        queues::of_project(context, &self.entity, &self.name)
    }

    fn run_queue(&self, context: &Context, name: String) -> Answer<Option<RunQueue>> {
        queues::named(context, &self.entity, &self.name, &name)
    }

    fn run(&self, context: &Context, name: String) -> Answer<Option<Run>> {
        runs::named(context, &self.entity, &self.name, &name)
    }

    fn read_only() -> bool {
        false
    }

    fn runs(
        &self,
        context: &Context,
        filters: Option<JsonString>,
        after: Option<String>,
        first: Option<i32>,
        order: Option<String>,
    ) -> Answer<RunConnection> {
        let place = (self.entity.as_str(), self.name.as_str());
        runs::list::of_project(context, place, filters, order, after.as_deref(), first)
    }

    fn run_count(&self, context: &Context, filters: Option<JsonString>) -> Answer<i32> {
        let place = (self.entity.as_str(), self.name.as_str());
        runs::list::count(context, place, filters)
    }

    /// An older word for a run. One that is missing is `None` whatever is asked.
    fn bucket(
        &self,
        context: &Context,
        name: String,
        missing_ok: Option<bool>,
    ) -> Answer<Option<Run>> {
        let _ = missing_ok;
        runs::named(context, &self.entity, &self.name, &name)
    }

    fn artifact(&self, context: &Context, name: String) -> Answer<Option<Artifact>> {
        let found = artifacts::named(context, &self.entity, &self.name, &name)?;
        Ok(found.map(|membership| Artifact(membership.0)))
    }

    fn artifact_collection_membership(
        &self,
        context: &Context,
        name: String,
    ) -> Answer<Option<Membership>> {
        artifacts::named(context, &self.entity, &self.name, &name)
    }

    fn artifact_collection(
        &self,
        context: &Context,
        name: String,
    ) -> Answer<Option<ArtifactCollectionValue>> {
        artifacts::collection_named(context, &self.entity, &self.name, &name)
    }

    fn artifact_collections(
        &self,
        context: &Context,
        after: Option<String>,
        first: Option<i32>,
        filters: Option<JsonString>,
        order: Option<String>,
    ) -> Answer<ArtifactCollectionConnection> {
        artifacts::refuse_order(filters, order)?;
        let place = (self.entity.as_str(), self.name.as_str());
        artifacts::of_project(context, place, None, after.as_deref(), first)
    }

    fn artifact_types(
        &self,
        context: &Context,
        after: Option<String>,
        first: Option<i32>,
    ) -> Answer<ArtifactTypeConnection> {
        let _ = (after, first);
        artifacts::types(context, &self.entity, &self.name)
    }

    fn artifact_type(&self, context: &Context, name: String) -> Answer<Option<ArtifactType>> {
        artifacts::typed(context, &self.entity, &self.name, &name)
    }
}

/// What makes a project, or changes it. The client names each field of it in every request, so each must be known;
/// those that have no effect here are refused when they say something.
#[derive(GraphQLInputObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct UpsertModelInput {
    access: Option<String>,
    allow_all_artifact_types_in_registry: Option<bool>,
    artifact_types: Option<Vec<ArtifactTypeInput>>,
    client_mutation_id: Option<String>,
    description: Option<String>,
    docker_image: Option<String>,
    entity_name: Option<String>,
    framework: Option<String>,
    icon: Option<ProjectIconInput>,
    id: Option<String>,
    is_benchmark: Option<bool>,
    is_published: Option<bool>,
    name: Option<String>,
    owner: Option<ID>,
    rate_limits: Option<RateLimitsInput>,
    repo: Option<String>,
    views: Option<String>,
}

#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
struct ArtifactTypeInput {
    name: String,
}

#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
struct ProjectIconInput {
    name: Option<String>,
}

#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
struct RateLimitsInput {
    graphql: Option<i32>,
}

/// A project that is there now.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct UpsertModelPayload {
    project: Option<Project>,
    model: Option<Project>,
    inserted: Option<bool>,
    client_mutation_id: Option<String>,
}

/// Makes a project unless it is there.
pub fn upsert(context: &Context, input: UpsertModelInput) -> Answer<Option<UpsertModelPayload>> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let entity = given(&input.entity_name).unwrap_or_else(|| context.caller.user.clone());
    context.need_member(&entity)?;
    let Some(name) = given(&input.name) else {
        return refuse("a project needs a name");
    };
    check_name(&name)?;
    if says_more(&input) {
        return refuse("this server keeps of a project only its name, which does not change");
    }
    let (_, inserted) = context.told(context.queue.make_project(&entity, &name))?;
    let shown = || project(context, Some(name.clone()), Some(entity.clone()));
    Ok(Some(UpsertModelPayload {
        project: shown()?,
        model: shown()?,
        inserted: Some(inserted),
        client_mutation_id: input.client_mutation_id,
    }))
}

/// Does it say more than which project it is? A client that was told of a success would believe all of it.
fn says_more(input: &UpsertModelInput) -> bool {
    let texts = [
        &input.access,
        &input.description,
        &input.docker_image,
        &input.framework,
        &input.id,
        &input.repo,
        &input.views,
    ];
    let says = |text: &&Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    texts.iter().any(says)
        || input.artifact_types.is_some()
        || input.icon.is_some()
        || input.owner.is_some()
        || input.rate_limits.is_some()
        || input.allow_all_artifact_types_in_registry.is_some()
        || input.is_benchmark == Some(true)
        || input.is_published == Some(true)
}

/// W&B's own rule for the names of projects.
pub fn check_name(name: &str) -> Answer<()> {
    let is_bad = |letter: char| letter.is_control() || "/\\#?%:".contains(letter);
    if name.chars().count() <= 128 && !name.contains(is_bad) {
        return Ok(());
    }
    refuse(format!(
        "`{}` cannot be the name of a project: it has up to 128 characters, and none of `/ \\ # ? % :`",
        name.escape_debug()
    ))
}
