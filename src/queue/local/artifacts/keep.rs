//! Keeping a new artifact of this very machine: all the steps of a client at once.

use std::fmt::Write as _;
use std::io::{Read, Write as _};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::LocalQueue;
use super::super::files::{Blob, Complete};
use super::{Artifact, Manifest, NewArtifact};
use crate::failure::{Error, Result};
use crate::launch::spec::Object;
use crate::queue::artifacts::hex;

/// A file of an artifact to be.
pub struct NewFile<'a> {
    /// Its path in the artifact.
    pub path: String,
    /// Its bytes.
    pub content: Box<dyn Read + 'a>,
}

/// A file whose bytes are here, and which belongs to nothing yet.
struct Received {
    path: String,
    blob: Blob,
    file: Complete,
}

impl LocalQueue {
    /// Keeps an artifact, with `latest` as its alias; one of the same collection that holds the same already is given
    /// instead of a new version.
    pub fn keep_artifact<'a>(
        &self,
        entity: &str,
        project: &str,
        collection: &str,
        artifact_type: &str,
        files: impl IntoIterator<Item = Result<NewFile<'a>>>,
    ) -> Result<Artifact> {
        let mut received = files
            .into_iter()
            .map(|file| self.receive(file?))
            .collect::<Result<Vec<Received>>>()?;
        received.sort_by(|a, b| a.path.cmp(&b.path));
        let new = NewArtifact {
            collection: collection.to_owned(),
            artifact_type: artifact_type.to_owned(),
            run: None,
            digest: digest(&received),
            client_id: None,
            aliases: vec!["latest".to_owned()],
            description: None,
            metadata: None,
            reuse: true,
        };
        let begun = self.begin_artifact(entity, project, &new)?;
        if begun.state == "COMMITTED" {
            return Ok(begun);
        }
        let kept = self.fill(begun.id, received);
        if kept.is_err() {
            // What could not be made whole is nobody's; the first error is the one to tell.
            let _ = self.delete_artifact(begun.id, true);
        }
        kept
    }

    fn fill(&self, artifact: i64, files: Vec<Received>) -> Result<Artifact> {
        let announced: Vec<(String, String)> = files
            .iter()
            .map(|file| (file.path.clone(), file.blob.md5.clone()))
            .collect();
        let numbers = self.announce_files(artifact, &announced)?;
        let contents: Object = files
            .iter()
            .map(|file| {
                let entry = json!({"digest": file.blob.md5, "size": file.blob.size});
                (file.path.clone(), entry)
            })
            .collect();
        for (file, announced) in files.into_iter().zip(&numbers) {
            self.keep_artifact_file(announced.id, &file.blob, file.file)?;
        }
        let document = json!({
            "version": 1,
            "storagePolicy": "wandb-storage-policy-v1",
            "storagePolicyConfig": {"storageLayout": "V2"},
            "contents": contents,
        });
        let text = document.to_string();
        let manifest = self.receive(NewFile {
            path: "wandb_manifest.json".to_owned(),
            content: Box::new(text.as_bytes()),
        })?;
        let number = self.announce_manifest(artifact, Some(&manifest.blob.md5))?;
        self.keep_manifest(number, &manifest.blob, manifest.file)?;
        self.commit_artifact(artifact, &Manifest::read(number, &document)?)
    }

    fn receive(&self, mut new: NewFile<'_>) -> Result<Received> {
        let broken =
            |cause| Error::system(format_args!("cannot keep the file `{}`", new.path), cause);
        let mut incoming = self.incoming_file()?;
        let (mut md5, mut sha256, mut size) = (Md5::new(), Sha256::new(), 0);
        let mut piece = vec![0; 64 * 1024];
        loop {
            let count = new.content.read(&mut piece).map_err(broken)?;
            if count == 0 {
                break;
            }
            md5.update(&piece[..count]);
            sha256.update(&piece[..count]);
            size += count as u64;
            incoming.file().write_all(&piece[..count]).map_err(broken)?;
        }
        let blob = Blob {
            sha256: hex(&sha256.finalize()),
            md5: STANDARD.encode(md5.finalize()),
            size,
        };
        Ok(Received {
            path: new.path,
            blob,
            file: incoming.complete()?,
        })
    }
}

/// W&B's digest of an artifact: the MD5 of its paths and their MD5s.
fn digest(files: &[Received]) -> String {
    let mut text = "wandb-artifact-manifest-v1\n".to_owned();
    for file in files {
        let _ = writeln!(text, "{}:{}", file.path, file.blob.md5);
    }
    hex(&Md5::digest(text.as_bytes()))
}
