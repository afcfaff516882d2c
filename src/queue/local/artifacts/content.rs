//! The files of an artifact and its manifest, as they are announced and as they come in.

use rusqlite::{OptionalExtension, params};

use super::super::files::{self, Blob, Complete, Kept, StoredFile};
use super::super::{LocalQueue, now};
use crate::failure::{Error, Kind, Result};

/// A file that is to be uploaded: whose it is, and what it has to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFile {
    /// Its number.
    pub id: i64,
    /// The artifact.
    pub artifact: i64,
    /// Its name there.
    pub name: String,
    /// The MD5 that it has to have, in base64.
    pub md5: String,
}

/// Which table an upload is written to.
const CONTENTS: &str = "SELECT artifact_files.id, name, sha256, blobs.md5, size, artifact_files.updated_at \
     FROM artifact_files JOIN blobs ON sha256 = blob";

impl LocalQueue {
    /// Announces files of an artifact that is not committed.
    pub fn announce_files(
        &self,
        artifact: i64,
        announced: &[(String, String)],
    ) -> Result<Vec<ArtifactFile>> {
        for (name, _) in announced {
            files::check_file_name(name)?;
        }
        self.write(|db| {
            need_pending(super::need(db, artifact)?.state.as_str())?;
            let mut all = Vec::new();
            for (name, md5) in announced {
                // What was there under that name is another file unless it has the same MD5.
                db.prepare_cached(
                    "INSERT INTO artifact_files (artifact, name, md5, updated_at) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT DO UPDATE SET md5 = excluded.md5, updated_at = excluded.updated_at, \
                     blob = CASE WHEN md5 = excluded.md5 THEN blob END",
                )?
                .execute(params![artifact, name, md5, now()])?;
                let id = db
                    .prepare_cached("SELECT id FROM artifact_files WHERE artifact = ?1 AND name = ?2")?
                    .query_row(params![artifact, name], |row| row.get(0))?;
                all.push(ArtifactFile {
                    id,
                    artifact,
                    name: name.clone(),
                    md5: md5.clone(),
                });
            }
            Ok(all)
        })
    }

    /// Announces a manifest, whose MD5 may not be known yet. Gives its number.
    pub fn announce_manifest(&self, artifact: i64, md5: Option<&str>) -> Result<i64> {
        self.write(|db| {
            need_pending(super::need(db, artifact)?.state.as_str())?;
            db.execute(
                "INSERT INTO artifact_manifests (artifact, md5) VALUES (?1, ?2)",
                params![artifact, md5],
            )?;
            Ok(db.last_insert_rowid())
        })
    }

    /// Says what MD5 a manifest will have. Gives the artifact.
    pub fn expect_manifest(&self, manifest: i64, md5: Option<&str>) -> Result<()> {
        self.write(|db| {
            db.execute(
                "UPDATE artifact_manifests SET md5 = coalesce(?2, md5) WHERE id = ?1 AND blob IS NULL",
                params![manifest, md5],
            )?;
            Ok(())
        })
    }

    /// The artifact of a manifest.
    pub fn artifact_of_manifest(&self, manifest: i64) -> Result<Option<i64>> {
        self.read(|db| {
            Ok(db
                .query_row(
                    "SELECT artifact FROM artifact_manifests WHERE id = ?1",
                    [manifest],
                    |row| row.get(0),
                )
                .optional()?)
        })
    }

    /// Takes in the content of an announced file.
    pub fn keep_artifact_file(&self, id: i64, blob: &Blob, file: Complete) -> Result<Kept> {
        self.keep_announced("artifact_files", id, blob, file)
    }

    /// Takes in the content of an announced manifest.
    pub fn keep_manifest(&self, id: i64, blob: &Blob, file: Complete) -> Result<Kept> {
        self.keep_announced("artifact_manifests", id, blob, file)
    }

    fn keep_announced(&self, table: &str, id: i64, blob: &Blob, file: Complete) -> Result<Kept> {
        let folder = self.files_path();
        self.write(|db| {
            let announced: Option<(Option<String>, Option<String>, String)> = db
                .query_row(
                    &format!(
                        "SELECT {table}.md5, {table}.blob, state FROM {table} JOIN artifacts ON artifacts.id = artifact \
                         WHERE {table}.id = ?1"
                    ),
                    [id],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )
                .optional()?;
            let Some((md5, there, state)) = announced else {
                return Err(Error::new(Kind::NotFound, "the artifact is gone").into());
            };
            if md5.as_ref().is_some_and(|md5| *md5 != blob.md5) {
                return Err(Error::input(format!(
                    "what came has the MD5 {}, not {} as announced",
                    blob.md5,
                    md5.unwrap_or_default()
                ))
                .into());
            }
            // A client whose answer was lost sends the same again.
            if there.as_ref() == Some(&blob.sha256) {
                return Ok(Kept::Done);
            }
            need_pending(&state)?;
            if files::keep(db, &folder, blob, file)? == Kept::Full {
                return Ok(Kept::Full);
            }
            db.execute(
                &format!("UPDATE {table} SET blob = ?2 WHERE id = ?1"),
                params![id, blob.sha256],
            )?;
            if let Some(old) = there {
                files::drop_unused(db, &folder, &old)?;
            }
            Ok(Kept::Done)
        })
    }

    /// The files of an artifact, those of `names` when there are any; behind the file of number `after`, at most so
    /// many.
    pub fn artifact_files(
        &self,
        artifact: i64,
        names: &[String],
        after: i64,
        most: usize,
    ) -> Result<Vec<StoredFile>> {
        let names = serde_json::Value::from(names.to_vec()).to_string();
        self.read(|db| {
            let mut statement = db.prepare_cached(&format!(
                "{CONTENTS} WHERE artifact = ?1 AND (?2 = '[]' OR name IN (SELECT value FROM json_each(?2))) \
                 AND artifact_files.id > ?3 ORDER BY artifact_files.id LIMIT ?4"
            ))?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            files::read_all(statement.query(params![artifact, names, after, most])?)
        })
    }

    /// The artifact's file of that number.
    pub fn artifact_file(&self, id: i64) -> Result<Option<StoredFile>> {
        self.read(|db| {
            let mut statement =
                db.prepare_cached(&format!("{CONTENTS} WHERE artifact_files.id = ?1"))?;
            Ok(files::read_all(statement.query([id])?)?.pop())
        })
    }

    /// What the manifest of that number holds.
    pub fn manifest(&self, id: i64) -> Result<Option<Blob>> {
        self.read(|db| {
            let sha256: Option<Option<String>> = db
                .query_row(
                    "SELECT blob FROM artifact_manifests WHERE id = ?1",
                    [id],
                    |row| row.get(0),
                )
                .optional()?;
            super::content_of(db, sha256.flatten())
        })
    }
}

fn need_pending(state: &str) -> Result<()> {
    if state == "PENDING" {
        return Ok(());
    }
    Err(Error::input(
        "the artifact is committed, so its files do not change any more",
    ))
}
