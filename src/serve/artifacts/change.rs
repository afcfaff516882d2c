//! How artifacts are made, used, changed and deleted.

use juniper::{GraphQLEnum, GraphQLInputObject, GraphQLObject, ID};
use serde_json::{Value, json};

use super::super::access::{Answer, Context, refuse};
use super::super::files::{File, FileConnection, FileEdge, MOST_FILES};
use super::super::ids::{self, Kind};
use super::super::pages::{self, PageInfo};
use super::super::queues::SuccessPayload;
use super::super::runs;
use super::super::scalars::{Int64, JsonString, Scalar};
use super::{Artifact, ArtifactManifest, need};
use crate::queue::local::{Manifest, NewArtifact};

mod content;

pub use content::*;

/// How a digest is made. There is one way here.
#[derive(GraphQLEnum, Clone, Copy)]
#[graphql(scalar = Scalar)]
pub enum ArtifactDigestAlgorithm {
    #[graphql(name = "MANIFEST_MD5")]
    ManifestMd5,
}

/// An alias of a version of the collection that is meant.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct ArtifactAliasInput {
    alias: String,
    artifact_collection_name: String,
}

/// A tag. There are none here, but the client names the type.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct TagInput {
    tag_name: String,
    tag_category_name: Option<String>,
    attributes: Option<String>,
}

/// An artifact to be. The client names each of these fields in every request, whether it means something or not.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct CreateArtifactInput {
    entity_name: String,
    project_name: String,
    run_name: Option<String>,
    artifact_type_name: String,
    artifact_collection_name: Option<String>,
    artifact_collection_names: Option<Vec<String>>,
    digest: String,
    digest_algorithm: Option<ArtifactDigestAlgorithm>,
    aliases: Option<Vec<ArtifactAliasInput>>,
    description: Option<String>,
    metadata: Option<JsonString>,
    labels: Option<JsonString>,
    tags: Option<Vec<TagInput>>,
    history_step: Option<Int64>,
    ttl_duration_seconds: Option<Int64>,
    storage_region: Option<String>,
    enable_digest_deduplication: Option<bool>,
    #[graphql(name = "clientID")]
    client_id: Option<ID>,
    #[graphql(name = "sequenceClientID")]
    sequence_client_id: Option<ID>,
    #[graphql(name = "distributedID")]
    distributed_id: Option<String>,
    client_mutation_id: Option<String>,
}

/// The artifact that was begun, used or changed.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct CreateArtifactPayload {
    artifact: Option<Artifact>,
    client_mutation_id: Option<String>,
}

/// Begins an artifact.
pub fn create(context: &Context, input: CreateArtifactInput) -> Answer<CreateArtifactPayload> {
    context.need_member(&input.entity_name)?;
    super::super::projects::check_name(&input.project_name)?;
    refuse_tags(input.tags.as_deref())?;
    refuse_labels(input.labels.as_ref())?;
    if input
        .storage_region
        .is_some_and(|region| !region.is_empty())
    {
        return refuse("this server keeps all files in one place");
    }
    let collection = match (
        &input.artifact_collection_names,
        &input.artifact_collection_name,
    ) {
        (Some(names), _) if names.len() > 1 => {
            return refuse("an artifact is in one collection here");
        }
        (Some(names), _) if !names.is_empty() => names[0].clone(),
        (_, Some(name)) => name.clone(),
        _ => return refuse("an artifact needs the name of a collection"),
    };
    check_names(&collection, &input.artifact_type_name)?;
    if input.distributed_id.is_some_and(|id| !id.is_empty()) {
        return refuse("this server makes no artifact out of several runs");
    }
    if input.ttl_duration_seconds.is_some_and(|time| time.0 > 0) {
        return refuse("nothing expires on this server");
    }
    let run = match input.run_name.as_deref().filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => match runs::named(context, &input.entity_name, &input.project_name, name)? {
            Some(run) => Some(run.0.id),
            None => return refuse(format!("no run `{}`", name.escape_debug())),
        },
    };
    let aliases = aliases(input.aliases.unwrap_or_default(), &collection)?;
    let new = NewArtifact {
        collection,
        artifact_type: input.artifact_type_name,
        run,
        digest: input.digest,
        client_id: input.client_id.map(|id| id.to_string()),
        aliases,
        description: input.description,
        metadata: input.metadata.map(|metadata| metadata.0.to_string()),
        reuse: input.enable_digest_deduplication == Some(true),
    };
    let begun = context
        .queue
        .begin_artifact(&input.entity_name, &input.project_name, &new);
    Ok(CreateArtifactPayload {
        artifact: Some(Artifact(context.told(begun)?)),
        client_mutation_id: input.client_mutation_id,
    })
}

fn refuse_tags(tags: Option<&[TagInput]>) -> Answer<()> {
    if tags.is_some_and(|tags| !tags.is_empty()) {
        return refuse("this server keeps no tags of artifacts");
    }
    Ok(())
}

/// An older word for tags.
fn refuse_labels(labels: Option<&JsonString>) -> Answer<()> {
    let says = |value: &Value| !value.is_null() && *value != json!([]) && *value != json!({});
    if labels.is_some_and(|labels| says(&labels.0)) {
        return refuse("this server keeps no labels of artifacts");
    }
    Ok(())
}

/// W&B's own rule: such a name can stand in `ENTITY/PROJECT/NAME:ALIAS`.
fn check_names(collection: &str, artifact_type: &str) -> Answer<()> {
    for (what, name) in [
        ("an artifact", collection),
        ("a type of artifacts", artifact_type),
    ] {
        let is_good = |letter: char| letter.is_alphanumeric() || "-_. ".contains(letter);
        if name.is_empty() || name.chars().count() > 128 || !name.chars().all(is_good) {
            return refuse(format!(
                "`{}` cannot be the name of {what}: it has up to 128 letters, digits, `-`, `_`, `.` and spaces",
                name.escape_debug()
            ));
        }
    }
    Ok(())
}

fn aliases(inputs: Vec<ArtifactAliasInput>, collection: &str) -> Answer<Vec<String>> {
    pages::check_count("aliases", inputs.len())?;
    let mut aliases = Vec::new();
    for input in inputs {
        if input.artifact_collection_name != collection {
            return refuse(format!(
                "the alias `{}` is of another collection, and an artifact is in one here",
                input.alias.escape_debug()
            ));
        }
        if !aliases.contains(&input.alias) {
            aliases.push(input.alias);
        }
    }
    Ok(aliases)
}

/// Which artifact is whole now.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct CommitArtifactInput {
    #[graphql(name = "artifactID")]
    artifact_id: ID,
    client_mutation_id: Option<String>,
}

/// The largest manifest that is read: some hundred thousand files.
const MANIFEST_BYTES: u64 = 64 * 1024 * 1024;

/// Commits an artifact, if all that its manifest names has come.
pub fn commit(context: &Context, input: CommitArtifactInput) -> Answer<CreateArtifactPayload> {
    let artifact = need(context, &input.artifact_id)?;
    let uploaded = context.told(context.queue.manifest_content(artifact.id))?;
    let Some((id, blob)) = uploaded else {
        return refuse("the manifest of the artifact was not uploaded");
    };
    if blob.size > MANIFEST_BYTES {
        return refuse("the manifest of the artifact is larger than 64 MiB");
    }
    let document = content::document(context, &blob)?;
    let manifest = context.told(Manifest::read(id, &document))?;
    let committed = context.queue.commit_artifact(artifact.id, &manifest);
    Ok(CreateArtifactPayload {
        artifact: Some(Artifact(context.told(committed)?)),
        client_mutation_id: input.client_mutation_id,
    })
}

/// Which run uses which artifact.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct UseArtifactInput {
    entity_name: String,
    project_name: String,
    run_name: String,
    #[graphql(name = "artifactID")]
    artifact_id: ID,
    artifact_entity_name: Option<String>,
    artifact_project_name: Option<String>,
    used_as: Option<String>,
    client_mutation_id: Option<String>,
}

/// Writes down that a run uses an artifact.
pub fn use_it(context: &Context, input: UseArtifactInput) -> Answer<CreateArtifactPayload> {
    let artifact = need(context, &input.artifact_id)?;
    let run = runs::named(
        context,
        &input.entity_name,
        &input.project_name,
        &input.run_name,
    )?;
    let Some(run) = run else {
        return refuse(format!("no run `{}`", input.run_name.escape_debug()));
    };
    context.told(context.queue.use_artifact(artifact.id, run.0.id))?;
    Ok(CreateArtifactPayload {
        artifact: Some(Artifact(artifact)),
        client_mutation_id: input.client_mutation_id,
    })
}

/// What changes in an artifact.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct UpdateArtifactInput {
    #[graphql(name = "artifactID")]
    artifact_id: ID,
    description: Option<String>,
    metadata: Option<JsonString>,
    labels: Option<JsonString>,
    aliases: Option<Vec<ArtifactAliasInput>>,
    tags_to_add: Option<Vec<TagInput>>,
    tags_to_delete: Option<Vec<TagInput>>,
    ttl_duration_seconds: Option<Int64>,
    client_mutation_id: Option<String>,
}

/// Changes an artifact.
pub fn update(context: &Context, input: UpdateArtifactInput) -> Answer<CreateArtifactPayload> {
    let artifact = need(context, &input.artifact_id)?;
    refuse_tags(input.tags_to_add.as_deref())?;
    refuse_labels(input.labels.as_ref())?;
    if input.ttl_duration_seconds.is_some_and(|time| time.0 > 0) {
        return refuse("nothing expires on this server");
    }
    let aliases = match input.aliases {
        Some(inputs) => Some(aliases(inputs, &artifact.collection.name)?),
        None => None,
    };
    let metadata = input.metadata.map(|metadata| metadata.0.to_string());
    let changed = context.queue.change_artifact(
        artifact.id,
        input.description.as_deref(),
        metadata.as_deref(),
        aliases.as_deref(),
    );
    Ok(CreateArtifactPayload {
        artifact: Some(Artifact(context.told(changed)?)),
        client_mutation_id: input.client_mutation_id,
    })
}

/// Which artifact is to go.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct DeleteArtifactInput {
    #[graphql(name = "artifactID")]
    artifact_id: ID,
    delete_aliases: Option<bool>,
    client_mutation_id: Option<String>,
}

/// Deletes an artifact.
pub fn delete(context: &Context, input: DeleteArtifactInput) -> Answer<CreateArtifactPayload> {
    let artifact = need(context, &input.artifact_id)?;
    let with_aliases = input.delete_aliases == Some(true);
    context.told(context.queue.delete_artifact(artifact.id, with_aliases))?;
    Ok(CreateArtifactPayload {
        artifact: Some(Artifact(artifact)),
        client_mutation_id: input.client_mutation_id,
    })
}

/// Aliases that an artifact is to have, or to lose.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct AddAliasesInput {
    #[graphql(name = "artifactID")]
    artifact_id: ID,
    aliases: Vec<ArtifactCollectionAliasInput>,
    client_mutation_id: Option<String>,
}

/// [`AddAliasesInput`] under the name that the client has for the other direction.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct DeleteAliasesInput {
    #[graphql(name = "artifactID")]
    artifact_id: ID,
    aliases: Vec<ArtifactCollectionAliasInput>,
    client_mutation_id: Option<String>,
}

/// An alias with the collection that it is of.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct ArtifactCollectionAliasInput {
    alias: String,
    artifact_collection_name: String,
    entity_name: String,
    project_name: String,
}

/// Gives an artifact aliases.
pub fn add_aliases(context: &Context, input: AddAliasesInput) -> Answer<SuccessPayload> {
    let (artifact, aliases) = own_aliases(context, &input.artifact_id, input.aliases)?;
    context.told(context.queue.add_aliases(artifact, &aliases))?;
    Ok(SuccessPayload {
        success: true,
        client_mutation_id: input.client_mutation_id,
    })
}

/// Takes aliases from an artifact.
pub fn delete_aliases(context: &Context, input: DeleteAliasesInput) -> Answer<SuccessPayload> {
    let (artifact, aliases) = own_aliases(context, &input.artifact_id, input.aliases)?;
    context.told(context.queue.delete_aliases(artifact, &aliases))?;
    Ok(SuccessPayload {
        success: true,
        client_mutation_id: input.client_mutation_id,
    })
}

fn own_aliases(
    context: &Context,
    id: &str,
    inputs: Vec<ArtifactCollectionAliasInput>,
) -> Answer<(i64, Vec<String>)> {
    pages::check_count("aliases", inputs.len())?;
    let artifact = need(context, id)?;
    let own = &artifact.collection;
    let is_own = |input: &ArtifactCollectionAliasInput| {
        input.artifact_collection_name == own.name
            && input.entity_name == own.entity
            && input.project_name.eq_ignore_ascii_case(&own.project)
    };
    if !inputs.iter().all(is_own) {
        return refuse("an artifact has aliases in its own collection only");
    }
    let aliases = inputs.into_iter().map(|input| input.alias).collect();
    Ok((artifact.id, aliases))
}
