//! Collections of artifacts, their versions, and the aliases by which a version is found.

use juniper::{GraphQLObject, ID, graphql_interface, graphql_object};
use serde_json::json;

use super::super::access::{Answer, Context, refuse};
use super::super::files::FileConnection;
use super::super::ids::{self, Kind};
use super::super::pages::{self, PageInfo};
use super::super::projects::{self, Project};
use super::super::scalars::{DateTime, JsonString, Scalar};
use super::{Artifact, ArtifactConnection, ArtifactType, files};
use crate::queue::local;

/// Versions of one thing. W&B has two kinds of them; here there is one, [`ArtifactSequence`].
#[expect(
    dead_code,
    reason = "juniper makes the interface of it, and calls the object"
)]
#[graphql_interface(for = ArtifactSequence, context = Context, scalar = Scalar)]
pub trait ArtifactCollection {
    fn id(&self) -> ID;
    fn name(&self) -> &str;
    fn description(&self) -> Option<String>;
    fn created_at(&self) -> DateTime;
    fn updated_at(&self) -> DateTime;
    fn state(&self) -> &str;
    fn project(&self, context: &Context) -> Answer<Option<Project>>;
    fn default_artifact_type(&self) -> ArtifactType;
    fn tags(&self) -> TagConnection;
    fn artifact_membership(
        &self,
        context: &Context,
        alias_name: String,
    ) -> Answer<Option<Membership>>;
    fn artifacts(
        &self,
        context: &Context,
        after: Option<String>,
        first: Option<i32>,
        order: Option<String>,
        filters: Option<JsonString>,
    ) -> Answer<ArtifactConnection>;
    fn aliases(
        &self,
        context: &Context,
        after: Option<String>,
        first: Option<i32>,
    ) -> Answer<ArtifactAliasConnection>;
}

/// The collection that artifacts are logged to.
pub struct ArtifactSequence(pub local::Collection);

#[graphql_object(context = Context, scalar = Scalar, impl = ArtifactCollectionValue)]
impl ArtifactSequence {
    fn id(&self) -> ID {
        ids::encode(Kind::ArtifactCollection, self.0.id)
    }

    fn name(&self) -> &str {
        &self.0.name
    }

    fn description() -> Option<String> {
        None
    }

    fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    fn updated_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    fn state() -> &'static str {
        "READY"
    }

    fn project(&self, context: &Context) -> Answer<Option<Project>> {
        let (project, entity) = (self.0.project.clone(), self.0.entity.clone());
        projects::project(context, Some(project), Some(entity))
    }

    fn default_artifact_type(&self) -> ArtifactType {
        ArtifactType::of(&self.0)
    }

    fn digest_algorithm() -> super::ArtifactDigestAlgorithm {
        super::ArtifactDigestAlgorithm::ManifestMd5
    }

    /// There are no tags here.
    fn tags() -> TagConnection {
        TagConnection { edges: Vec::new() }
    }

    fn latest_artifact(&self, context: &Context) -> Answer<Option<Artifact>> {
        let found = context.queue.artifact_by_alias(self.0.id, "latest");
        Ok(context.told(found)?.map(Artifact))
    }

    fn artifact_membership(
        &self,
        context: &Context,
        alias_name: String,
    ) -> Answer<Option<Membership>> {
        let found = context.queue.artifact_by_alias(self.0.id, &alias_name);
        Ok(context.told(found)?.map(Membership))
    }

    fn artifacts(
        &self,
        context: &Context,
        after: Option<String>,
        first: Option<i32>,
        order: Option<String>,
        filters: Option<JsonString>,
    ) -> Answer<ArtifactConnection> {
        let is_usual = |order: &str| ["", "-createdAt", "-created_at"].contains(&order);
        if !order.as_deref().is_none_or(is_usual) {
            return refuse("this server lists artifacts newest first, and in no other order");
        }
        // Others than committed ones are not listed anyway.
        let asks =
            |filters: &JsonString| ![json!({}), json!({"state": "COMMITTED"})].contains(&filters.0);
        if filters.as_ref().is_some_and(asks) {
            return refuse("this server does not filter artifacts");
        }
        let size = pages::granted(context, first, 50)?;
        let before = pages::after(after.as_deref())?;
        let found = context.queue.artifacts(self.0.id, before, size + 1);
        let total = context.told(context.queue.artifact_count(self.0.id))?;
        let total = i32::try_from(total).unwrap_or(i32::MAX);
        Ok(ArtifactConnection::page(context.told(found)?, size, total))
    }

    fn aliases(
        &self,
        context: &Context,
        after: Option<String>,
        first: Option<i32>,
    ) -> Answer<ArtifactAliasConnection> {
        let size = pages::granted(context, first, 1_000)?;
        let after = pages::after(after.as_deref())?;
        let found = context.queue.aliases(self.0.id, after, size + 1);
        let mut found = context.told(found)?;
        let has_next_page = found.len() > size;
        found.truncate(size);
        Ok(ArtifactAliasConnection {
            page_info: PageInfo {
                end_cursor: found.last().map(|(id, _)| id.to_string()),
                has_next_page,
            },
            edges: found
                .into_iter()
                .map(|(id, alias)| ArtifactAliasEdge {
                    node: ArtifactAlias {
                        id,
                        alias,
                        collection: self.0.clone(),
                    },
                })
                .collect(),
        })
    }
}

/// The collection with that id, if it is in one of the caller's entities.
pub fn collection_with_id(context: &Context, id: &str) -> Answer<Option<ArtifactCollectionValue>> {
    let number = ids::decode(Kind::ArtifactCollection, id).and_then(|name| name.parse().ok());
    let Some(number) = number else {
        return Ok(None);
    };
    let found = context.told(context.queue.collection_of_number(number))?;
    Ok(found
        .filter(|collection| context.is_member(&collection.entity))
        .map(|collection| ArtifactSequence(collection).into()))
}

/// The collection of that name in a project.
pub fn collection_named(
    context: &Context,
    entity: &str,
    project: &str,
    name: &str,
) -> Answer<Option<ArtifactCollectionValue>> {
    if !context.is_member(entity) {
        return Ok(None);
    }
    let found = context.told(context.queue.collection(entity, project, name))?;
    Ok(found.map(|collection| ArtifactSequence(collection).into()))
}

/// Collections come by their age, and all of them.
pub fn refuse_order(filters: Option<JsonString>, order: Option<String>) -> Answer<()> {
    let asks = filters.is_some_and(|filters| filters.0 != json!({}) && !filters.0.is_null());
    if asks || order.is_some_and(|order| !order.is_empty()) {
        return refuse("this server neither filters nor orders collections of artifacts");
    }
    Ok(())
}

/// A page of collections.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct ArtifactCollectionConnection {
    edges: Vec<ArtifactCollectionEdge>,
    page_info: PageInfo,
    total_count: i32,
}

/// A collection on a page.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
struct ArtifactCollectionEdge {
    node: ArtifactCollectionValue,
    cursor: String,
}

/// A page of the collections of a project.
pub fn of_project(
    context: &Context,
    (entity, project): (&str, &str),
    artifact_type: Option<&str>,
    after: Option<&str>,
    first: Option<i32>,
) -> Answer<ArtifactCollectionConnection> {
    let size = pages::granted(context, first, 50)?;
    let after = pages::after(after)?;
    let all = context.queue.collections(entity, project, artifact_type);
    let mut all = context.told(all)?;
    let total_count = i32::try_from(all.len()).unwrap_or(i32::MAX);
    all.retain(|collection| collection.id > after);
    let has_next_page = all.len() > size;
    all.truncate(size);
    Ok(ArtifactCollectionConnection {
        page_info: PageInfo {
            end_cursor: all.last().map(|collection| collection.id.to_string()),
            has_next_page,
        },
        edges: all
            .into_iter()
            .map(|collection| ArtifactCollectionEdge {
                cursor: collection.id.to_string(),
                node: ArtifactSequence(collection).into(),
            })
            .collect(),
        total_count,
    })
}

/// A version as one of its collection's.
pub struct Membership(pub local::Artifact);

#[graphql_object(name = "ArtifactCollectionMembership", context = Context, scalar = Scalar)]
impl Membership {
    fn id(&self) -> ID {
        ids::encode(Kind::ArtifactMembership, self.0.id)
    }

    fn version_index(&self) -> Option<i32> {
        self.0
            .version
            .and_then(|version| i32::try_from(version).ok())
    }

    fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    fn aliases(&self, context: &Context) -> Answer<Vec<ArtifactAlias>> {
        context.listed(aliases_of(&self.0))
    }

    fn artifact_collection(&self) -> ArtifactCollectionValue {
        ArtifactSequence(self.0.collection.clone()).into()
    }

    fn artifact(&self) -> Artifact {
        Artifact(self.0.clone())
    }

    fn files(
        &self,
        context: &Context,
        names: Option<Vec<String>>,
        after: Option<String>,
        first: Option<i32>,
    ) -> Answer<FileConnection> {
        files(context, &self.0, names, after, first)
    }
}

/// The collections that an artifact is in.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct MembershipConnection {
    edges: Vec<MembershipEdge>,
}

/// A membership among others.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
struct MembershipEdge {
    node: Membership,
}

impl MembershipConnection {
    /// The one collection that an artifact is in.
    pub fn of(artifact: &local::Artifact) -> MembershipConnection {
        MembershipConnection {
            edges: vec![MembershipEdge {
                node: Membership(artifact.clone()),
            }],
        }
    }
}

/// A name of one version of a collection.
pub struct ArtifactAlias {
    id: i64,
    alias: String,
    collection: local::Collection,
}

/// The aliases of an artifact.
pub fn aliases_of(artifact: &local::Artifact) -> Vec<ArtifactAlias> {
    let of = |(id, alias): &(i64, String)| ArtifactAlias {
        id: *id,
        alias: alias.clone(),
        collection: artifact.collection.clone(),
    };
    artifact.aliases.iter().map(of).collect()
}

#[graphql_object(context = Context, scalar = Scalar)]
impl ArtifactAlias {
    fn id(&self) -> ID {
        ids::encode(Kind::ArtifactAlias, self.id)
    }

    fn alias(&self) -> &str {
        &self.alias
    }

    fn artifact_collection(&self) -> ArtifactCollectionValue {
        ArtifactSequence(self.collection.clone()).into()
    }
}

/// A page of aliases.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct ArtifactAliasConnection {
    edges: Vec<ArtifactAliasEdge>,
    page_info: PageInfo,
}

/// An alias on a page.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
struct ArtifactAliasEdge {
    node: ArtifactAlias,
}

/// A word that somebody put on something. There are none here, but the client asks.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
pub struct Tag {
    id: ID,
    name: String,
}

/// A page of tags.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
pub struct TagConnection {
    edges: Vec<TagEdge>,
}

/// A tag on a page.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
struct TagEdge {
    node: Tag,
}
