//! Where the files of an artifact and its manifest are uploaded.

use std::io::Read;

use serde_json::Value;

use super::super::super::scalars::{MOST_VALUES, count_values};
use super::{
    Answer, ArtifactManifest, Context, File, FileConnection, FileEdge, GraphQLEnum,
    GraphQLInputObject, GraphQLObject, ID, Kind, MOST_FILES, PageInfo, Scalar, ids, need, refuse,
};
use crate::failure::Error;
use crate::queue::local::Blob;

/// What a manifest holds.
#[derive(GraphQLEnum, Clone, Copy, PartialEq, Eq)]
#[graphql(scalar = Scalar)]
pub enum ArtifactManifestType {
    /// Everything.
    Full,
    /// What is new beside another artifact's.
    Incremental,
    /// What differs from another artifact's.
    Patch,
}

/// A manifest to be.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct CreateArtifactManifestInput {
    #[graphql(name = "artifactID")]
    artifact_id: ID,
    #[graphql(name = "baseArtifactID")]
    base_artifact_id: Option<ID>,
    name: String,
    digest: String,
    entity_name: Option<String>,
    project_name: Option<String>,
    run_name: Option<String>,
    #[graphql(name = "type")]
    manifest_type: Option<ArtifactManifestType>,
    client_mutation_id: Option<String>,
}

/// The manifest, and where it is uploaded.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct CreateArtifactManifestPayload {
    artifact_manifest: ArtifactManifest,
    client_mutation_id: Option<String>,
}

/// Announces a manifest.
pub fn create_manifest(
    context: &Context,
    input: CreateArtifactManifestInput,
) -> Answer<CreateArtifactManifestPayload> {
    let artifact = need(context, &input.artifact_id)?;
    let is_full = input
        .manifest_type
        .is_none_or(|kind| kind == ArtifactManifestType::Full);
    // A whole manifest names the version before it, too; that is for a diff that nobody asked for.
    if !is_full {
        return refuse("this server takes whole manifests only, not what differs from another");
    }
    let md5 = Some(input.digest.as_str()).filter(|digest| !digest.is_empty());
    let id = context.told(context.queue.announce_manifest(artifact.id, md5))?;
    Ok(CreateArtifactManifestPayload {
        artifact_manifest: ArtifactManifest {
            artifact: artifact.id,
            id,
        },
        client_mutation_id: input.client_mutation_id,
    })
}

/// What a manifest that was announced is going to be.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct UpdateArtifactManifestInput {
    #[graphql(name = "artifactManifestID")]
    artifact_manifest_id: ID,
    digest: Option<String>,
    #[graphql(name = "baseArtifactID")]
    base_artifact_id: Option<ID>,
    client_mutation_id: Option<String>,
}

/// Says what a manifest that was announced is going to be.
pub fn update_manifest(
    context: &Context,
    input: UpdateArtifactManifestInput,
) -> Answer<CreateArtifactManifestPayload> {
    let id = &input.artifact_manifest_id;
    let number = ids::decode(Kind::ArtifactManifest, id).and_then(|name| name.parse().ok());
    let owner = match number {
        Some(number) => context.told(context.queue.artifact_of_manifest(number))?,
        None => None,
    };
    let (Some(number), Some(owner)) = (number, owner) else {
        return refuse(format!("no manifest `{}`", id.escape_debug()));
    };
    let artifact = need(context, &ids::encode(Kind::Artifact, owner))?;
    let md5 = input.digest.as_deref().filter(|digest| !digest.is_empty());
    context.told(context.queue.expect_manifest(number, md5))?;
    Ok(CreateArtifactManifestPayload {
        artifact_manifest: ArtifactManifest {
            artifact: artifact.id,
            id: number,
        },
        client_mutation_id: input.client_mutation_id,
    })
}

/// What a manifest says. An entry has four values or so.
pub(super) fn document(context: &Context, blob: &Blob) -> Answer<Value> {
    let mut text = Vec::new();
    let mut file = context.told(context.queue.open_blob(blob))?;
    let read = file.read_to_end(&mut text);
    context.told(read.map_err(|cause| Error::system("cannot read a manifest", cause)))?;
    if count_values(&text) > 4 * MOST_VALUES {
        return refuse("the manifest of the artifact has more than four million values");
    }
    serde_json::from_slice(&text)
        .or_else(|error| refuse(format!("the manifest is not JSON: {error}")))
}

/// Where W&B lays files. Here they lie by their digests, whatever it says.
#[derive(GraphQLEnum, Clone, Copy)]
#[graphql(scalar = Scalar)]
pub enum ArtifactStorageLayout {
    V1,
    V2,
}

/// The files of artifacts that are going to be uploaded.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct CreateArtifactFilesInput {
    artifact_files: Vec<CreateArtifactFileSpecInput>,
    storage_layout: Option<ArtifactStorageLayout>,
    #[graphql(name = "cloudRegionID")]
    cloud_region_id: Option<ID>,
    client_mutation_id: Option<String>,
}

/// A file of an artifact that is going to be uploaded.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct CreateArtifactFileSpecInput {
    #[graphql(name = "artifactID")]
    artifact_id: ID,
    #[graphql(name = "artifactManifestID")]
    artifact_manifest_id: Option<ID>,
    name: String,
    md5: String,
    mimetype: Option<String>,
    upload_parts_input: Option<Vec<UploadPartsInput>>,
}

/// A part of a file. Files come whole here; the client offers parts all the same.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct UploadPartsInput {
    part_number: i32,
    #[graphql(name = "hexMD5")]
    hex_md5: String,
}

/// Where each file is uploaded, in the order in which they were named.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct CreateArtifactFilesPayload {
    files: FileConnection,
    client_mutation_id: Option<String>,
}

/// Announces files of artifacts.
pub fn create_files(
    context: &Context,
    input: CreateArtifactFilesInput,
) -> Answer<CreateArtifactFilesPayload> {
    if input.artifact_files.len() > MOST_FILES {
        return refuse(format!("at most {MOST_FILES} files are uploaded at once"));
    }
    context.grant(input.artifact_files.len())?;
    let mut edges = Vec::new();
    let mut specs = input.artifact_files.into_iter().peekable();
    // Those of one artifact that follow each other are announced in one go.
    while let Some(first) = specs.next() {
        let artifact = need(context, &first.artifact_id)?;
        let mut announced = vec![(first.name, first.md5)];
        while let Some(next) = specs.next_if(|next| next.artifact_id == first.artifact_id) {
            announced.push((next.name, next.md5));
        }
        let files = context.queue.announce_files(artifact.id, &announced);
        edges.extend(context.told(files)?.into_iter().map(|file| FileEdge {
            cursor: file.id.to_string(),
            node: File::announced(file.artifact, file.id, file.name),
        }));
    }
    let total_count = i32::try_from(edges.len()).unwrap_or(i32::MAX);
    Ok(CreateArtifactFilesPayload {
        files: FileConnection {
            edges,
            page_info: PageInfo {
                end_cursor: None,
                has_next_page: false,
            },
            total_count,
        },
        client_mutation_id: input.client_mutation_id,
    })
}
