//! The types of artifacts: `job`, `code`, and whatever else their makers write. A type is there when an artifact of it
//! is.

use juniper::{GraphQLObject, ID, graphql_object};

use super::super::access::{Answer, Context};
use super::super::ids::{self, Kind};
use super::super::pages::PageInfo;
use super::super::scalars::{DateTime, JsonString, Scalar};
use super::collection::{
    self, ArtifactCollectionConnection, ArtifactCollectionValue, ArtifactSequence,
};
use crate::queue::local;

/// A kind of artifacts.
pub struct ArtifactType {
    entity: String,
    project: String,
    name: String,
}

impl ArtifactType {
    /// The type of a collection's artifacts.
    pub fn of(collection: &local::Collection) -> ArtifactType {
        ArtifactType {
            entity: collection.entity.clone(),
            project: collection.project.clone(),
            name: collection.artifact_type.clone(),
        }
    }
}

/// The type of that name in a project, if there are artifacts of it.
pub fn typed(
    context: &Context,
    entity: &str,
    project: &str,
    name: &str,
) -> Answer<Option<ArtifactType>> {
    let all = context.queue.collections(entity, project, Some(name));
    Ok((!context.told(all)?.is_empty()).then(|| ArtifactType {
        entity: entity.to_owned(),
        project: project.to_owned(),
        name: name.to_owned(),
    }))
}

#[graphql_object(context = Context, scalar = Scalar)]
impl ArtifactType {
    fn id(&self) -> ID {
        let Self {
            entity,
            project,
            name,
        } = self;
        ids::encode(
            Kind::ArtifactType,
            format_args!("{entity}:{project}:{name}"),
        )
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn description() -> Option<String> {
        None
    }

    /// That of its first collection.
    fn created_at(&self, context: &Context) -> Answer<Option<DateTime>> {
        let name = Some(self.name.as_str());
        let all = context.queue.collections(&self.entity, &self.project, name);
        let first = context.told(all)?.into_iter().next();
        Ok(first.map(|collection| DateTime(collection.created_at)))
    }

    fn artifact_collection(
        &self,
        context: &Context,
        name: String,
    ) -> Answer<Option<ArtifactCollectionValue>> {
        let found = context.queue.collection(&self.entity, &self.project, &name);
        Ok(context
            .told(found)?
            .filter(|collection| collection.artifact_type == self.name)
            .map(|collection| ArtifactSequence(collection).into()))
    }

    fn artifact_collections(
        &self,
        context: &Context,
        after: Option<String>,
        first: Option<i32>,
        filters: Option<JsonString>,
        order: Option<String>,
    ) -> Answer<ArtifactCollectionConnection> {
        collection::refuse_order(filters, order)?;
        let name = Some(self.name.as_str());
        let place = (self.entity.as_str(), self.project.as_str());
        collection::of_project(context, place, name, after.as_deref(), first)
    }
}

/// The types of a project's artifacts, on one page: there are few.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct ArtifactTypeConnection {
    edges: Vec<ArtifactTypeEdge>,
    page_info: PageInfo,
}

/// A type on a page.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
struct ArtifactTypeEdge {
    node: ArtifactType,
}

/// The types of a project's artifacts.
pub fn types(context: &Context, entity: &str, project: &str) -> Answer<ArtifactTypeConnection> {
    let all = context.told(context.queue.collections(entity, project, None))?;
    let mut names: Vec<String> = all
        .into_iter()
        .map(|collection| collection.artifact_type)
        .collect();
    names.sort();
    names.dedup();
    let edge = |name| ArtifactTypeEdge {
        node: ArtifactType {
            entity: entity.to_owned(),
            project: project.to_owned(),
            name,
        },
    };
    Ok(ArtifactTypeConnection {
        edges: context.listed(names.into_iter().map(edge).collect())?,
        page_info: PageInfo {
            end_cursor: None,
            has_next_page: false,
        },
    })
}
