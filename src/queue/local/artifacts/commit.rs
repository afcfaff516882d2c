//! How an artifact becomes one: everything that its manifest names is there and is what the manifest says, and only
//! then it has a version and aliases. And how it changes afterwards, and goes.

use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::{Map, Value};

use super::super::trouble::Trouble;
use super::super::{LocalQueue, files, now};
use super::{Artifact, MOST_ALIASES, need, wanted_aliases};
use crate::failure::{Error, Kind, Result};

impl LocalQueue {
    /// The manifest that was uploaded for an artifact, and what it holds.
    pub fn manifest_content(&self, artifact: i64) -> Result<Option<(i64, files::Blob)>> {
        self.read(|db| manifest_content(db, artifact))
    }

    /// Commits an artifact whose manifest is `manifest`. Repeating it changes nothing.
    pub fn commit_artifact(&self, id: i64, manifest: &Manifest) -> Result<Artifact> {
        self.write(|db| {
            let artifact = need(db, id)?;
            match artifact.state.as_str() {
                "COMMITTED" => return Ok(artifact),
                "PENDING" => {}
                _ => return Err(Error::input("the artifact was deleted").into()),
            }
            let collection = artifact.collection.id;
            let (size, count) = check(db, (id, collection), manifest)?;
            db.execute(
                "UPDATE artifacts SET state = 'COMMITTED', manifest = ?2, size = ?3, file_count = ?4, updated_at = ?5, \
                 version = (SELECT next_version FROM artifact_collections WHERE id = ?6) WHERE id = ?1",
                params![id, manifest.id, size, count, now(), collection],
            )?;
            db.execute(
                "UPDATE artifact_collections SET next_version = next_version + 1 WHERE id = ?1",
                [collection],
            )?;
            let mut aliases = wanted_aliases(db, id)?;
            // Without an alias a version is still the newest one.
            if !aliases.iter().any(|alias| alias == "latest") {
                aliases.push("latest".to_owned());
            }
            set_aliases(db, id, collection, &aliases)?;
            need(db, id)
        })
    }

    /// Changes what is kept with an artifact. With `aliases` it has those and no others.
    pub fn change_artifact(
        &self,
        id: i64,
        description: Option<&str>,
        metadata: Option<&str>,
        aliases: Option<&[String]>,
    ) -> Result<Artifact> {
        self.write(|db| {
            let artifact = need(db, id)?;
            db.execute(
                "UPDATE artifacts SET description = coalesce(?2, description), metadata = coalesce(?3, metadata), \
                 updated_at = ?4 WHERE id = ?1",
                params![id, description, metadata, now()],
            )?;
            if let Some(aliases) = aliases {
                need_committed(&artifact)?;
                db.execute("DELETE FROM artifact_aliases WHERE artifact = ?1", [id])?;
                set_aliases(db, id, artifact.collection.id, aliases)?;
            }
            need(db, id)
        })
    }

    /// Gives an artifact aliases, which others of its collection lose.
    pub fn add_aliases(&self, id: i64, aliases: &[String]) -> Result<()> {
        self.write(|db| {
            let artifact = need(db, id)?;
            need_committed(&artifact)?;
            set_aliases(db, id, artifact.collection.id, aliases)
        })
    }

    /// Takes aliases from an artifact.
    pub fn delete_aliases(&self, id: i64, aliases: &[String]) -> Result<()> {
        self.write(|db| {
            for alias in aliases {
                db.execute(
                    "DELETE FROM artifact_aliases WHERE artifact = ?1 AND alias = ?2",
                    params![id, alias],
                )?;
            }
            Ok(())
        })
    }

    /// Deletes an artifact with its files. One that has aliases is deleted only when they may go too.
    pub fn delete_artifact(&self, id: i64, with_aliases: bool) -> Result<()> {
        let folder = self.files_path();
        self.write(|db| {
            let artifact = need(db, id)?;
            if !artifact.aliases.is_empty() && !with_aliases {
                return Err(
                    Error::input("the artifact has aliases, so it is not deleted")
                        .hint("delete them with it: `artifact.delete(delete_aliases=True)`")
                        .into(),
                );
            }
            for sql in [
                "DELETE FROM artifact_aliases WHERE artifact = ?1",
                "DELETE FROM artifact_files WHERE artifact = ?1",
                "DELETE FROM artifact_manifests WHERE artifact = ?1",
                "UPDATE artifacts SET state = 'DELETED' WHERE id = ?1 AND state = 'COMMITTED'",
                "DELETE FROM artifacts WHERE id = ?1 AND state = 'PENDING'",
            ] {
                db.execute(sql, [id])?;
            }
            files::sweep(db, &folder)
        })
    }
}

/// What a manifest says, as far as the server holds it to that.
pub struct Manifest {
    /// Its number.
    pub id: i64,
    contents: Vec<(String, String, Option<i64>)>,
}

impl Manifest {
    /// Reads a manifest. References to files elsewhere are not ours to check.
    pub fn read(id: i64, document: &Value) -> Result<Manifest> {
        let broken = |what: &str| Error::input(format!("the manifest {what}"));
        if document["version"] != 1 {
            return Err(broken("has a version that is not known here"));
        }
        let contents = document["contents"]
            .as_object()
            .ok_or_else(|| broken("has no `contents`"))?;
        let mut files = Vec::new();
        for (name, entry) in contents {
            files::check_file_name(name)?;
            if entry.get("ref").is_some_and(|target| !target.is_null()) {
                continue;
            }
            files.push(
                file(name, entry).ok_or_else(|| {
                    broken(&format!("has no digest for `{}`", name.escape_debug()))
                })?,
            );
        }
        Ok(Manifest {
            id,
            contents: files,
        })
    }
}

fn file(name: &str, entry: &Value) -> Option<(String, String, Option<i64>)> {
    let entry: &Map<String, Value> = entry.as_object()?;
    let digest = entry.get("digest")?.as_str()?;
    Some((
        name.to_owned(),
        digest.to_owned(),
        entry.get("size").and_then(Value::as_i64),
    ))
}

/// Bytes and number of the files, all of which are there.
fn check(
    db: &Transaction<'_>,
    (artifact, collection): (i64, i64),
    manifest: &Manifest,
) -> Result<(i64, i64), Trouble> {
    let (mut bytes, mut count) = (0, 0);
    let mut base = 0;
    for (name, digest, size) in &manifest.contents {
        let mut there = content(db, artifact, name)?;
        if there.is_none() && inherit(db, (artifact, collection), &mut base, (name, digest))? {
            there = content(db, artifact, name)?;
        }
        let shown = name.escape_debug();
        let Some((md5, length)) = there else {
            return Err(Error::input(format!(
                "the file `{shown}` of the artifact was not uploaded"
            ))
            .into());
        };
        if md5 != *digest || size.is_some_and(|size| size != length) {
            return Err(Error::input(format!(
                "the file `{shown}` of the artifact is not what its manifest says"
            ))
            .into());
        }
        bytes += length;
        count += 1;
    }
    Ok((bytes, count))
}

/// MD5 and bytes of an artifact's file that was uploaded.
fn content(
    db: &Transaction<'_>,
    artifact: i64,
    name: &str,
) -> Result<Option<(String, i64)>, Trouble> {
    Ok(db
        .prepare_cached(
            "SELECT blobs.md5, size FROM artifact_files JOIN blobs ON sha256 = blob WHERE artifact = ?1 AND name = ?2",
        )?
        .query_row(params![artifact, name], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?)
}

/// Gives an artifact a file of an earlier version: the client uploads of a draft (`artifact.new_draft()`) only what is
/// new in it. Most such files are of one version, so `base`, which had the last one, is asked before all others.
fn inherit(
    db: &Transaction<'_>,
    (artifact, collection): (i64, i64),
    base: &mut i64,
    (name, digest): (&str, &str),
) -> Result<bool, Trouble> {
    if copy(db, *base, artifact, (name, digest))? {
        return Ok(true);
    }
    let newest = db
        .prepare_cached(
            "SELECT artifacts.id FROM artifacts JOIN artifact_files ON artifact = artifacts.id \
             JOIN blobs ON sha256 = blob WHERE collection = ?1 AND state = 'COMMITTED' AND name = ?2 \
             AND blobs.md5 = ?3 ORDER BY artifacts.id DESC LIMIT 1",
        )?
        .query_row(params![collection, name, digest], |row| row.get(0))
        .optional()?;
    let Some(newest) = newest else {
        return Ok(false);
    };
    *base = newest;
    copy(db, newest, artifact, (name, digest))
}

fn copy(
    db: &Transaction<'_>,
    from: i64,
    to: i64,
    (name, digest): (&str, &str),
) -> Result<bool, Trouble> {
    let copied = db
        .prepare_cached(
            "INSERT INTO artifact_files (artifact, name, md5, blob, updated_at) \
             SELECT ?2, name, blobs.md5, blob, ?5 FROM artifact_files JOIN blobs ON sha256 = blob \
             WHERE artifact = ?1 AND name = ?3 AND blobs.md5 = ?4 \
             ON CONFLICT DO UPDATE SET md5 = excluded.md5, blob = excluded.blob, updated_at = excluded.updated_at",
        )?
        .execute(params![from, to, name, digest, now()])?;
    Ok(copied > 0)
}

fn manifest_content(
    db: &Transaction<'_>,
    artifact: i64,
) -> Result<Option<(i64, files::Blob)>, Trouble> {
    // That of a committed artifact stays what it was when it was committed.
    let found = db
        .prepare_cached(
            "SELECT artifact_manifests.id, artifact_manifests.blob FROM artifact_manifests \
             JOIN artifacts ON artifacts.id = artifact WHERE artifact = ?1 AND blob IS NOT NULL \
             AND (artifacts.manifest IS NULL OR artifacts.manifest = artifact_manifests.id) \
             ORDER BY artifact_manifests.id DESC LIMIT 1",
        )?
        .query_row([artifact], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((id, sha256)) = found else {
        return Ok(None);
    };
    Ok(super::content_of(db, sha256)?.map(|blob| (id, blob)))
}

fn need_committed(artifact: &Artifact) -> Result<(), Trouble> {
    if artifact.state == "COMMITTED" {
        return Ok(());
    }
    Err(Error::new(
        Kind::Input,
        "the artifact is not committed, so it has no aliases",
    )
    .into())
}

/// W&B's own rule, and one of ours: an alias that looks like a version could hide one.
pub fn check_aliases(aliases: &[String]) -> Result<(), Trouble> {
    if aliases.len() > MOST_ALIASES {
        return Err(Error::input(format!("an artifact has at most {MOST_ALIASES} aliases")).into());
    }
    for alias in aliases {
        let is_version = alias
            .strip_prefix('v')
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
        let is_bad = |letter: char| letter.is_control() || "/:".contains(letter);
        if is_version || alias.is_empty() || alias.len() > 128 || alias.contains(is_bad) {
            return Err(Error::input(format!(
                "`{}` cannot be an alias",
                alias.escape_debug()
            ))
            .hint("an alias has up to 128 letters, none of them `/` or `:`, and is not a version such as `v1`")
            .into());
        }
    }
    Ok(())
}

/// Gives an artifact aliases, which others of its collection lose.
pub fn set_aliases(
    db: &Transaction<'_>,
    artifact: i64,
    collection: i64,
    aliases: &[String],
) -> Result<(), Trouble> {
    check_aliases(aliases)?;
    for alias in aliases {
        db.prepare_cached(
            "INSERT INTO artifact_aliases (collection, alias, artifact) VALUES (?1, ?2, ?3) \
             ON CONFLICT DO UPDATE SET artifact = excluded.artifact",
        )?
        .execute(params![collection, alias, artifact])?;
    }
    Ok(())
}
