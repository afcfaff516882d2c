//! Where jobs and their code are kept: artifacts, read by name. A trait of its own beside [`Queue`](super::Queue),
//! because commands read them too, and need nothing that an agent keeps running.

use std::fmt::Write;
use std::io::Read;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::failure::{Error, Result};
use crate::launch::job::ArtifactName;

/// A place that has artifacts.
pub trait Artifacts: Send + Sync {
    /// The artifact of that name. One that does not exist, or is not for this reader, is an error of
    /// [`NotFound`](crate::failure::Kind::NotFound).
    fn artifact(&self, name: &ArtifactName) -> Result<Artifact>;

    /// Gives the bytes of those files of `artifact` that `wants` picks to `take`, one after the other, unchecked.
    /// An error of `take` ends it.
    fn download(
        &self,
        artifact: &Artifact,
        wants: &dyn Fn(&ArtifactFile) -> bool,
        take: &mut dyn FnMut(&ArtifactFile, &mut dyn Read) -> Result<()>,
    ) -> Result<()>;
}

impl<T: Artifacts + ?Sized> Artifacts for &T {
    fn artifact(&self, name: &ArtifactName) -> Result<Artifact> {
        (**self).artifact(name)
    }

    fn download(
        &self,
        artifact: &Artifact,
        wants: &dyn Fn(&ArtifactFile) -> bool,
        take: &mut dyn FnMut(&ArtifactFile, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        (**self).download(artifact, wants, take)
    }
}

/// One version of an artifact, with what its manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its id, in the words of the queue that has it.
    pub id: String,
    /// The entity that it belongs to.
    pub entity: String,
    /// The project that it belongs to.
    pub project: String,
    /// Its collection.
    pub collection: String,
    /// Its version: 3 is `v3`.
    pub version: i64,
    /// Its files, by path.
    pub files: Vec<ArtifactFile>,
}

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFile {
    /// Its path: relative, without `..`.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Its MD5, in base64.
    pub md5: String,
}

impl Artifact {
    /// `entity/project/name:v3`
    pub fn name(&self) -> String {
        format!(
            "{}/{}/{}:v{}",
            self.entity, self.project, self.collection, self.version
        )
    }

    /// What it holds, as a SHA-256 in hexadecimal digits. Made here out of its files: what a server says of it is only
    /// what the artifact's maker said.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for file in &self.files {
            for part in [&file.path, &file.size.to_string(), &file.md5] {
                hash.update(part.as_bytes());
                hash.update([0]);
            }
        }
        hex(&hash.finalize())
    }

    /// Bytes of all its files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The files of a manifest, by path (PROTOCOL section 5, step 3).
pub fn read_manifest(manifest: &Value) -> Result<Vec<ArtifactFile>> {
    let contents = manifest
        .get("contents")
        .and_then(Value::as_object)
        .filter(|_| manifest["version"] == 1)
        .ok_or_else(|| Error::input("its manifest has a form that is not known here"))?;
    let mut files = contents
        .iter()
        .map(|(path, entry)| read_entry(path, entry))
        .collect::<Result<Vec<ArtifactFile>>>()?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn read_entry(path: &str, entry: &Value) -> Result<ArtifactFile> {
    let shown = path.escape_debug();
    if let Some(target) = entry.get("ref").and_then(Value::as_str) {
        return Err(Error::input(format!(
            "its file `{shown}` is a reference to `{}`, which the agent does not fetch",
            target.escape_debug()
        ))
        .hint("references are for data: add the file itself, or let the job download the data"));
    }
    check_path(path)?;
    let digest = entry.get("digest").and_then(Value::as_str);
    let size = entry.get("size").and_then(Value::as_u64);
    match (digest, size) {
        (Some(md5), Some(size)) => Ok(ArtifactFile {
            path: path.to_owned(),
            size,
            md5: md5.to_owned(),
        }),
        _ => Err(Error::input(format!(
            "its manifest says neither size nor MD5 of `{shown}`"
        ))),
    }
}

/// An error unless the path stays in the folder that it is written to.
fn check_path(path: &str) -> Result<()> {
    let is_step = |part: &str| part.is_empty() || part == "." || part == "..";
    if path.len() > 1_024 || path.contains(char::is_control) || path.split('/').any(is_step) {
        let shown: String = path.chars().take(80).collect();
        return Err(Error::input(format!(
            "its manifest names a file `{}`, which would not stay in the artifact's folder",
            shown.escape_debug()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_manifest_is_read_in_the_order_of_paths() {
        let manifest = json!({"version": 1, "contents": {
            "b/c.txt": {"digest": "yy==", "size": 2, "birthArtifactID": "x"}, "a.txt": {"digest": "xx==", "size": 1}}});
        let files = read_manifest(&manifest).expect("a manifest");
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["a.txt", "b/c.txt"]);
        assert_eq!((files[1].size, files[1].md5.as_str()), (2, "yy=="));
    }

    #[test]
    fn what_would_not_stay_in_the_folder_is_refused() {
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "./a",
            "a/",
            "a\nb",
            &"x".repeat(1_025),
        ] {
            let manifest = json!({"version": 1, "contents": {path: {"digest": "x", "size": 1}}});
            read_manifest(&manifest).expect_err(path);
        }
        for (manifest, message) in [
            (json!({"version": 2, "contents": {}}), "not known here"),
            (json!({"version": 1}), "not known here"),
            (
                json!({"version": 1, "contents": {"a": {"size": 1}}}),
                "neither size nor MD5",
            ),
            (
                json!({"version": 1, "contents": {"a": {"size": 1, "digest": "x", "ref": "s3://b/k"}}}),
                "a reference to `s3://b/k`",
            ),
        ] {
            let error = read_manifest(&manifest).expect_err(message);
            assert!(error.message.contains(message), "{error}");
        }
    }

    #[test]
    fn the_digest_is_of_paths_sizes_and_contents() {
        let file = |path: &str, md5: &str| ArtifactFile {
            path: path.to_owned(),
            size: 1,
            md5: md5.to_owned(),
        };
        let digest = |files: Vec<ArtifactFile>| {
            let artifact = Artifact {
                id: String::new(),
                entity: String::new(),
                project: String::new(),
                collection: String::new(),
                version: 0,
                files,
            };
            artifact.digest()
        };
        let one = digest(vec![file("a", "x")]);
        assert_eq!(one.len(), 64);
        assert_eq!(one, digest(vec![file("a", "x")]));
        for other in [
            vec![],
            vec![file("a", "y")],
            vec![file("b", "x")],
            vec![file("a", "x"), file("b", "x")],
        ] {
            assert_ne!(one, digest(other));
        }
    }
}
