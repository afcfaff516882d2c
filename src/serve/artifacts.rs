//! Artifacts as GraphQL shows them. Collections are in `artifacts/collection.rs`; how artifacts are made, used and
//! changed is in `artifacts/change.rs`.

mod change;
mod collection;
mod kinds;

use juniper::{GraphQLObject, GraphQLUnion, ID, graphql_object};

use super::access::{Answer, Context, refuse};
use super::files::{File, FileConnection, page};
use super::ids::{self, Kind};
use super::pages::{self, PageInfo};
use super::runs::{self, Run};
use super::scalars::{DateTime, Int64, Scalar};
use crate::queue::local;

pub use change::*;
pub use collection::*;
pub use kinds::*;

/// An artifact of an entity that the caller is a member of.
pub struct Artifact(pub local::Artifact);

/// The artifact with that id, if it is in one of the caller's entities.
pub fn with_id(context: &Context, id: &str) -> Answer<Option<Artifact>> {
    let number = ids::decode(Kind::Artifact, id).and_then(|name| name.parse().ok());
    let Some(number) = number else {
        return Ok(None);
    };
    let found = context.told(context.queue.artifact(number))?;
    Ok(found
        .filter(|artifact| context.is_member(&artifact.collection.entity))
        .map(Artifact))
}

/// The artifact with that id, or a refusal.
fn need(context: &Context, id: &str) -> Answer<local::Artifact> {
    match with_id(context, id)? {
        Some(artifact) => Ok(artifact.0),
        None => refuse(format!("no artifact `{}`", id.escape_debug())),
    }
}

/// Which artifact has the id that its maker chose.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
pub struct ClientIdMapping {
    #[graphql(name = "serverID")]
    server_id: Option<ID>,
}

/// The artifact that was begun under that id, in one of the caller's entities.
pub fn of_client(context: &Context, id: &str) -> Answer<Option<ClientIdMapping>> {
    let found = context.told(context.queue.artifact_of_client(id))?;
    let own = found
        .into_iter()
        .find(|artifact| context.is_member(&artifact.collection.entity));
    Ok(own.map(|artifact| ClientIdMapping {
        server_id: Some(ids::encode(Kind::Artifact, artifact.id)),
    }))
}

/// The artifact of a project that `NAME:ALIAS` names, or `NAME` for its newest.
pub fn named(
    context: &Context,
    entity: &str,
    project: &str,
    name: &str,
) -> Answer<Option<Membership>> {
    if !context.is_member(entity) {
        return Ok(None);
    }
    let (name, alias) = name.rsplit_once(':').unwrap_or((name, "latest"));
    let found = context.queue.collection(entity, project, name);
    let Some(collection) = context.told(found)? else {
        return Ok(None);
    };
    let found = context.queue.artifact_by_alias(collection.id, alias);
    Ok(context.told(found)?.map(Membership))
}

/// Who made an artifact.
#[derive(GraphQLUnion)]
#[graphql(context = Context, scalar = Scalar)]
pub enum ArtifactCreator {
    /// A run made it.
    Run(Run),
}

#[graphql_object(context = Context, scalar = Scalar)]
impl Artifact {
    fn id(&self) -> ID {
        ids::encode(Kind::Artifact, self.0.id)
    }

    fn state(&self) -> &str {
        &self.0.state
    }

    fn version_index(&self) -> Option<i32> {
        self.0
            .version
            .and_then(|version| i32::try_from(version).ok())
    }

    fn digest(&self) -> &str {
        &self.0.digest
    }

    fn digest_algorithm() -> ArtifactDigestAlgorithm {
        ArtifactDigestAlgorithm::ManifestMd5
    }

    fn artifact_sequence(&self) -> ArtifactSequence {
        ArtifactSequence(self.0.collection.clone())
    }

    fn artifact_type(&self) -> ArtifactType {
        ArtifactType::of(&self.0.collection)
    }

    fn description(&self, context: &Context) -> Answer<Option<&str>> {
        context.long(self.0.description.as_deref())
    }

    fn metadata(&self, context: &Context) -> Answer<Option<&str>> {
        context.long(self.0.metadata.as_deref())
    }

    /// Nothing expires here.
    fn ttl_duration_seconds() -> Int64 {
        Int64(-1)
    }

    fn ttl_is_inherited() -> bool {
        false
    }

    /// There are no tags here.
    fn tags() -> Vec<Tag> {
        Vec::new()
    }

    fn history_step() -> Option<Int64> {
        None
    }

    fn size(&self) -> Int64 {
        Int64(self.0.size)
    }

    fn file_count(&self) -> Int64 {
        Int64(self.0.file_count)
    }

    fn commit_hash(&self) -> &str {
        &self.0.digest
    }

    fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    fn updated_at(&self) -> DateTime {
        DateTime(self.0.updated_at)
    }

    fn aliases(&self, context: &Context) -> Answer<Vec<ArtifactAlias>> {
        context.listed(aliases_of(&self.0))
    }

    fn created_by(&self, context: &Context) -> Answer<Option<ArtifactCreator>> {
        let Some(run) = self.0.run else {
            return Ok(None);
        };
        let run = runs::numbered(context, run)?;
        Ok(run.map(|run| ArtifactCreator::Run(Run(run))))
    }

    fn used_by(&self, context: &Context) -> Answer<RunsOfArtifact> {
        let users = context.told(context.queue.users_of_artifact(self.0.id))?;
        context.grant(users.len())?;
        let mut edges = Vec::new();
        for run in users {
            let Some(run) = runs::numbered(context, run)? else {
                continue;
            };
            // They are all held until the last of them is told.
            context.long(run.config.as_deref())?;
            context.long(run.summary.as_deref())?;
            edges.push(RunOfArtifact { node: Run(run) });
        }
        Ok(RunsOfArtifact { edges })
    }

    /// It is in one collection only: there are no links here.
    fn artifact_memberships(&self) -> MembershipConnection {
        MembershipConnection::of(&self.0)
    }

    fn current_manifest(&self, context: &Context) -> Answer<Option<ArtifactManifest>> {
        let found = context.told(context.queue.manifest_content(self.0.id))?;
        Ok(found.map(|(id, _)| ArtifactManifest {
            artifact: self.0.id,
            id,
        }))
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

/// A page of an artifact's files.
fn files(
    context: &Context,
    artifact: &local::Artifact,
    names: Option<Vec<String>>,
    after: Option<String>,
    first: Option<i32>,
) -> Answer<FileConnection> {
    let names = names.unwrap_or_default();
    let size = pages::granted(context, first, 50)?;
    let after = pages::after(after.as_deref())?;
    let found = context
        .queue
        .artifact_files(artifact.id, &names, after, size + 1);
    Ok(page(
        context.told(found)?,
        size,
        artifact.file_count,
        |file| File::of_artifact(artifact.id, file),
    ))
}

/// A list of an artifact's files.
pub struct ArtifactManifest {
    artifact: i64,
    id: i64,
}

#[graphql_object(context = Context, scalar = Scalar)]
impl ArtifactManifest {
    fn id(&self) -> ID {
        ids::encode(Kind::ArtifactManifest, self.id)
    }

    fn file(&self) -> File {
        File::of_manifest(self.artifact, self.id)
    }
}

/// Runs that used an artifact.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
struct RunsOfArtifact {
    edges: Vec<RunOfArtifact>,
}

/// A run that used an artifact.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
struct RunOfArtifact {
    node: Run,
}

/// A page of artifacts.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct ArtifactConnection {
    edges: Vec<ArtifactEdge>,
    page_info: PageInfo,
    total_count: i32,
}

/// An artifact on a page.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
struct ArtifactEdge {
    version: String,
    cursor: String,
    node: Artifact,
}

impl ArtifactConnection {
    /// A page of what was found: one more than `size` was asked for, when there is more.
    fn page(mut found: Vec<local::Artifact>, size: usize, total: i32) -> ArtifactConnection {
        let has_next_page = found.len() > size;
        found.truncate(size);
        ArtifactConnection {
            page_info: PageInfo {
                end_cursor: found.last().map(|artifact| artifact.id.to_string()),
                has_next_page,
            },
            edges: found
                .into_iter()
                .map(|artifact| ArtifactEdge {
                    version: format!("v{}", artifact.version.unwrap_or_default()),
                    cursor: artifact.id.to_string(),
                    node: Artifact(artifact),
                })
                .collect(),
            total_count: total,
        }
    }
}

/// A page of the artifacts that a run made, or of those that it used.
pub fn of_run(
    context: &Context,
    run: i64,
    used: bool,
    after: Option<&str>,
    first: Option<i32>,
) -> Answer<ArtifactConnection> {
    let size = pages::granted(context, first, 50)?;
    let after = pages::after(after)?;
    let all = context.queue.artifacts_of_run(run, used, 0, usize::MAX);
    let mut all = context.told(all)?;
    // What a run used may belong to an entity that the caller has left since.
    all.retain(|artifact| context.is_member(&artifact.collection.entity));
    let total = i32::try_from(all.len()).unwrap_or(i32::MAX);
    all.retain(|artifact| artifact.id > after);
    Ok(ArtifactConnection::page(all, size, total))
}
