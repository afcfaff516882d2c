//! Files of runs and artifacts as GraphQL shows them: names, sizes, and the signed addresses that lead to them.

use juniper::{GraphQLInputObject, GraphQLObject, ID, graphql_object};

use super::access::{Answer, Context, refuse};
use super::ids::{self, Kind};
use super::pages::{self, PageInfo};
use super::queues::SuccessPayload;
use super::runs;
use super::scalars::{DateTime, Int64, Scalar};
use super::signed::Address;
use crate::queue::local::{StoredFile, check_file_name};

/// A file: one that was uploaded, or one that is going to be.
pub struct File {
    id: ID,
    name: String,
    stored: Option<StoredFile>,
    download: Option<Address>,
    upload: Option<Address>,
    /// The artifact that it belongs to.
    artifact: Option<i64>,
}

impl File {
    /// A run's file that was uploaded.
    pub fn of_run(run: i64, file: StoredFile) -> File {
        File {
            id: ids::encode(Kind::RunFile, file.id),
            download: Some(Address::GetRunFile(file.id)),
            upload: Some(Address::PutRunFile(run, file.name.clone())),
            name: file.name.clone(),
            stored: Some(file),
            artifact: None,
        }
    }

    /// A run's file that is not there. Who asks for files by their names is told of each: an MD5 of `0` is what the
    /// client's `wandb.restore(..)` knows a missing one by.
    fn missing(name: String) -> File {
        File {
            id: ids::encode(Kind::RunFile, 0),
            download: Some(Address::GetRunFile(0)),
            upload: None,
            name,
            stored: None,
            artifact: None,
        }
    }

    /// An artifact's file that was uploaded.
    pub fn of_artifact(artifact: i64, file: StoredFile) -> File {
        File {
            id: ids::encode(Kind::ArtifactFile, file.id),
            download: Some(Address::GetArtifactFile(file.id)),
            upload: None,
            name: file.name.clone(),
            stored: Some(file),
            artifact: Some(artifact),
        }
    }

    /// An artifact's file that is going to be uploaded.
    pub fn announced(artifact: i64, id: i64, name: String) -> File {
        File {
            id: ids::encode(Kind::ArtifactFile, id),
            download: None,
            upload: Some(Address::PutArtifactFile(id)),
            name,
            stored: None,
            artifact: Some(artifact),
        }
    }

    /// An artifact's manifest.
    pub fn of_manifest(artifact: i64, id: i64) -> File {
        File {
            id: ids::encode(Kind::ManifestFile, id),
            download: Some(Address::GetManifest(id)),
            upload: Some(Address::PutManifest(id)),
            name: "wandb_manifest.json".to_owned(),
            stored: None,
            artifact: Some(artifact),
        }
    }

    fn download_url(&self, context: &Context) -> Option<String> {
        self.download.as_ref().map(|address| context.url(address))
    }
}

#[graphql_object(context = Context, scalar = Scalar)]
impl File {
    fn id(&self) -> &ID {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn display_name(&self) -> &str {
        &self.name
    }

    fn url(&self, context: &Context, upload: Option<bool>) -> Option<String> {
        if upload == Some(true) {
            return self.upload.as_ref().map(|address| context.url(address));
        }
        self.download_url(context)
    }

    fn direct_url(&self, context: &Context) -> Option<String> {
        self.download_url(context)
    }

    fn upload_url(&self, context: &Context) -> Option<String> {
        self.upload.as_ref().map(|address| context.url(address))
    }

    /// An address is all that an upload needs.
    fn upload_headers() -> Vec<String> {
        Vec::new()
    }

    /// Files come in one piece.
    fn upload_multipart_urls() -> Option<UploadMultipartUrls> {
        None
    }

    fn storage_path(&self) -> Option<&str> {
        self.artifact.map(|_| self.name.as_str())
    }

    fn size_bytes(&self) -> Int64 {
        let size = self.stored.as_ref().map_or(0, |file| file.blob.size);
        Int64(i64::try_from(size).unwrap_or(i64::MAX))
    }

    /// Nobody looked into it.
    fn mimetype() -> Option<String> {
        None
    }

    fn updated_at(&self) -> Option<DateTime> {
        self.stored.as_ref().map(|file| DateTime(file.updated_at))
    }

    fn md5(&self) -> Option<&str> {
        match (&self.stored, self.artifact) {
            (Some(file), _) => Some(&file.blob.md5),
            (None, None) => Some("0"),
            (None, Some(_)) => None,
        }
    }

    fn digest(&self) -> Option<&str> {
        self.stored.as_ref().map(|file| file.blob.md5.as_str())
    }

    fn artifact(&self) -> Option<ArtifactOfFile> {
        let id = self.artifact?;
        Some(ArtifactOfFile {
            id: ids::encode(Kind::Artifact, id),
        })
    }
}

/// Which artifact a file is of.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
struct ArtifactOfFile {
    id: ID,
}

/// Addresses for the parts of a file. There are none here, but the client asks.
#[derive(GraphQLObject)]
#[graphql(name = "UploadMultipartUrls", scalar = Scalar)]
struct UploadMultipartUrls {
    #[graphql(name = "uploadID")]
    upload_id: String,
    upload_url_parts: Vec<UploadUrlPart>,
}

/// The address of a part.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
struct UploadUrlPart {
    part_number: i32,
    upload_url: String,
}

/// A page of files.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct FileConnection {
    pub edges: Vec<FileEdge>,
    pub page_info: PageInfo,
    pub total_count: i32,
}

/// A file on a page.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct FileEdge {
    pub node: File,
    pub cursor: String,
}

/// A page of what was found: one more than `size` was asked for, when there is more.
pub fn page(
    mut found: Vec<StoredFile>,
    size: usize,
    total: i64,
    show: impl Fn(StoredFile) -> File,
) -> FileConnection {
    let has_next_page = found.len() > size;
    found.truncate(size);
    FileConnection {
        page_info: PageInfo {
            end_cursor: found.last().map(|file| file.id.to_string()),
            has_next_page,
        },
        edges: found
            .into_iter()
            .map(|file| FileEdge {
                cursor: file.id.to_string(),
                node: show(file),
            })
            .collect(),
        total_count: i32::try_from(total).unwrap_or(i32::MAX),
    }
}

/// A page of a run's files.
pub fn of_run(
    context: &Context,
    run: i64,
    names: Vec<String>,
    pattern: Option<String>,
    after: Option<&str>,
    first: Option<i32>,
) -> Answer<FileConnection> {
    let size = pages::granted(context, first, 50)?;
    let after = pages::after(after)?;
    let queue = &context.queue;
    let found = queue.run_files(run, &names, pattern.as_deref(), after, size + 1);
    let total = context.told(queue.run_file_count(run))?;
    let mut page = page(context.told(found)?, size, total, |file| {
        File::of_run(run, file)
    });
    if after == 0 && !page.page_info.has_next_page {
        context.grant(names.len())?;
        let is_there = |name: &str| page.edges.iter().any(|edge| edge.node.name == name);
        let missing: Vec<String> = names.into_iter().filter(|name| !is_there(name)).collect();
        page.edges.extend(missing.into_iter().map(|name| FileEdge {
            cursor: after.to_string(),
            node: File::missing(name),
        }));
    }
    Ok(page)
}

/// Which files a run is going to upload.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct CreateRunFilesInput {
    entity_name: Option<String>,
    project_name: Option<String>,
    run_name: Option<String>,
    files: Vec<String>,
    client_mutation_id: Option<String>,
}

/// Where they go.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct CreateRunFilesPayload {
    #[graphql(name = "runID")]
    run_id: ID,
    upload_headers: Vec<String>,
    files: Vec<File>,
    client_mutation_id: Option<String>,
}

/// No request announces more files than this.
pub const MOST_FILES: usize = 10_000;

/// Says where files of a run are to be uploaded.
pub fn create(context: &Context, input: CreateRunFilesInput) -> Answer<CreateRunFilesPayload> {
    let entity = input.entity_name.as_deref().unwrap_or(&context.caller.user);
    let project = input.project_name.as_deref().unwrap_or_default();
    let name = input.run_name.as_deref().unwrap_or_default();
    context.need_member(entity)?;
    let Some(run) = runs::named(context, entity, project, name)? else {
        return refuse(format!("no run `{}`", name.escape_debug()));
    };
    if input.files.len() > MOST_FILES {
        return refuse(format!("at most {MOST_FILES} files are uploaded at once"));
    }
    context.grant(input.files.len())?;
    for file in &input.files {
        context.told(check_file_name(file))?;
    }
    let run = run.0.id;
    let files = input.files.into_iter().map(|name| File {
        id: ids::encode(Kind::RunFile, format_args!("{run}:{name}")),
        upload: Some(Address::PutRunFile(run, name.clone())),
        name,
        stored: None,
        download: None,
        artifact: None,
    });
    Ok(CreateRunFilesPayload {
        run_id: ids::encode(Kind::Run, run),
        upload_headers: Vec::new(),
        files: files.collect(),
        client_mutation_id: input.client_mutation_id,
    })
}

/// Which files of a run are to go.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct DeleteFilesInput {
    files: Vec<ID>,
    project_id: Option<i32>,
    client_mutation_id: Option<String>,
}

/// Deletes files of runs. All are looked up before the first is touched.
pub fn delete(context: &Context, input: DeleteFilesInput) -> Answer<SuccessPayload> {
    context.grant(input.files.len())?;
    let mut numbers = Vec::new();
    for id in &input.files {
        let number = ids::decode(Kind::RunFile, id).and_then(|name| name.parse().ok());
        let found = match number {
            Some(number) => context.told(context.queue.run_file(number))?,
            None => None,
        };
        let owner = match found {
            Some((run, file)) => runs::numbered(context, run)?.map(|_| file.id),
            None => None,
        };
        let Some(number) = owner else {
            return refuse(format!("no file `{}`", id.escape_debug()));
        };
        numbers.push(number);
    }
    context.told(context.queue.delete_run_files(&numbers))?;
    Ok(SuccessPayload {
        success: true,
        client_mutation_id: input.client_mutation_id,
    })
}
