//! Artifacts for the agent of this machine: read as whoever pushed the item may read them.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::super::{LocalQueue, users};
use super::collection;
use crate::failure::{Error, Kind, Result};
use crate::launch::job::ArtifactName;
use crate::queue::ItemId;
use crate::queue::artifacts::{Artifact, ArtifactFile, Artifacts, read_manifest};

/// The most of a manifest that is read, in bytes.
const LARGEST_MANIFEST: u64 = 64 << 20;

/// The artifacts of an embedded queue, as far as one reader may see them.
pub struct LocalArtifacts<'a> {
    queue: &'a LocalQueue,
    /// `None` is the machine's owner, who may see everything.
    entities: Option<Vec<String>>,
}

impl LocalQueue {
    /// The artifacts, for the owner of this machine.
    pub fn artifacts_for_owner(&self) -> LocalArtifacts<'_> {
        LocalArtifacts {
            queue: self,
            entities: None,
        }
    }

    /// The artifacts that whoever pushed an item may see: a member of an entity cannot reach another's code by having
    /// an agent fetch it.
    pub fn artifacts_for_item(&self, item: &ItemId) -> Result<LocalArtifacts<'_>> {
        let entities = self.read(|db| {
            let user: String = db.query_row(
                "SELECT pushed_by FROM items WHERE id = ?1",
                [super::super::rows::row_number(item)],
                |row| row.get(0),
            )?;
            if user.is_empty() {
                return Ok(None);
            }
            Ok(Some(users::entities(db, &user)?))
        })?;
        Ok(LocalArtifacts {
            queue: self,
            entities,
        })
    }
}

impl LocalArtifacts<'_> {
    fn find(&self, name: &ArtifactName) -> Result<Option<super::Artifact>> {
        let found = match name {
            ArtifactName::Id(id) => match artifact_number(id) {
                Some(number) => self.queue.artifact(number)?,
                None => None,
            },
            ArtifactName::Path {
                entity,
                project,
                name,
                alias,
            } => match self
                .queue
                .read(|db| collection(db, entity, project, name))?
            {
                Some(collection) => self.queue.artifact_by_alias(collection.id, alias)?,
                None => None,
            },
        };
        Ok(found.filter(|artifact| {
            let entity = &artifact.collection.entity;
            artifact.state == "COMMITTED"
                && self
                    .entities
                    .as_ref()
                    .is_none_or(|entities| entities.contains(entity))
        }))
    }

    fn manifest(&self, artifact: i64) -> Result<Vec<ArtifactFile>> {
        let gone = || Error::new(Kind::Queue, "its manifest is not there");
        let (_, blob) = self.queue.manifest_content(artifact)?.ok_or_else(gone)?;
        let mut text = String::new();
        self.queue
            .open_blob(&blob)?
            .take(LARGEST_MANIFEST)
            .read_to_string(&mut text)
            .map_err(|cause| Error::system("cannot read its manifest", cause))?;
        let manifest: Value = serde_json::from_str(&text)
            .map_err(|cause| Error::input(format!("its manifest is not JSON: {cause}")))?;
        read_manifest(&manifest)
    }
}

impl Artifacts for LocalArtifacts<'_> {
    fn artifact(&self, name: &ArtifactName) -> Result<Artifact> {
        let found = self.find(name)?.ok_or_else(|| {
            let place = self.queue.path().display();
            Error::new(Kind::NotFound, format!("{place} has no artifact `{name}`"))
                .hint("check entity, project, name and alias; `push --code` and `--git` make a job, and say its name")
        })?;
        let files = self
            .manifest(found.id)
            .map_err(|error| error.within(format_args!("artifact `{name}`")))?;
        Ok(Artifact {
            id: artifact_id(found.id),
            entity: found.collection.entity,
            project: found.collection.project,
            collection: found.collection.name,
            version: found.version.unwrap_or_default(),
            files,
        })
    }

    fn download(
        &self,
        artifact: &Artifact,
        wants: &dyn Fn(&ArtifactFile) -> bool,
        take: &mut dyn FnMut(&ArtifactFile, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let number = artifact_number(&artifact.id).unwrap_or_default();
        for file in artifact.files.iter().filter(|file| wants(file)) {
            let names = [file.path.clone()];
            let stored = self.queue.artifact_files(number, &names, 0, 1)?.pop();
            let stored = stored.ok_or_else(|| {
                Error::new(
                    Kind::NotFound,
                    format!("the file `{}` of {} is gone", file.path, artifact.name()),
                )
            })?;
            take(file, &mut self.queue.open_blob(&stored.blob)?)?;
        }
        Ok(())
    }
}

/// The id of an artifact as W&B's clients know it, and as `serve` says it: its kind and its number, in base64.
pub fn artifact_id(number: i64) -> String {
    STANDARD.encode(format!("Artifact:{number}"))
}

fn artifact_number(id: &str) -> Option<i64> {
    let text = String::from_utf8(STANDARD.decode(id).ok()?).ok()?;
    text.strip_prefix("Artifact:")?.parse().ok()
}
