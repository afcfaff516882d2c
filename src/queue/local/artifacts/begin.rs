//! How an artifact is begun: in a collection that is made when it is missing, and once, however often it is asked for.

use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::Value;

use super::super::runs::make_project;
use super::super::trouble::Trouble;
use super::super::{LocalQueue, now};
use super::{Artifact, Collection, collection, commit, need};
use crate::failure::{Error, Result};

/// An artifact to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewArtifact {
    /// The collection.
    pub collection: String,
    /// The type of its artifacts.
    pub artifact_type: String,
    /// The run that makes it.
    pub run: Option<i64>,
    /// What it will hold.
    pub digest: String,
    /// The maker's own name for it, so that what is sent twice is made once.
    pub client_id: Option<String>,
    /// The aliases that it gets when it is committed.
    pub aliases: Vec<String>,
    /// What people wrote about it.
    pub description: Option<String>,
    /// What its maker keeps with it, as JSON.
    pub metadata: Option<String>,
    /// An artifact of the same collection that holds the same is as good as a new one.
    pub reuse: bool,
}

impl LocalQueue {
    /// Begins an artifact, or gives the one that was begun under the same client id, or that holds the same already.
    pub fn begin_artifact(
        &self,
        entity: &str,
        project: &str,
        new: &NewArtifact,
    ) -> Result<Artifact> {
        self.write(|db| {
            let collection = make_collection(db, entity, project, new)?;
            let known = match known(db, &collection, new)? {
                Some(id) => id,
                None => insert(db, &collection, new)?,
            };
            need(db, known)
        })
    }
}

fn make_collection(
    db: &Transaction<'_>,
    entity: &str,
    project: &str,
    new: &NewArtifact,
) -> Result<Collection, Trouble> {
    make_project(db, entity, project, now())?;
    db.prepare_cached(
        "INSERT INTO artifact_collections (project, name, type, created_at) \
         SELECT id, ?3, ?4, ?5 FROM projects WHERE entity = ?1 AND name = ?2 ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        entity,
        project,
        new.collection,
        new.artifact_type,
        now()
    ])?;
    let found = collection(db, entity, project, &new.collection)?
        .ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    if found.artifact_type != new.artifact_type {
        return Err(Error::input(format!(
            "`{}` holds artifacts of the type `{}`, not `{}`",
            new.collection, found.artifact_type, new.artifact_type
        ))
        .hint("give this one another name")
        .into());
    }
    Ok(found)
}

/// The artifact that was begun before: by the same request sent twice, or with the same content.
fn known(
    db: &Transaction<'_>,
    collection: &Collection,
    new: &NewArtifact,
) -> Result<Option<i64>, Trouble> {
    let begun = db
        .prepare_cached(
            "SELECT id FROM artifacts WHERE collection = ?1 AND client_id = ?2 AND state != 'DELETED'",
        )?
        .query_row(params![collection.id, new.client_id], |row| row.get(0))
        .optional()?;
    if begun.is_some() || !new.reuse {
        return Ok(begun);
    }
    let same = db
        .prepare_cached(
            "SELECT id FROM artifacts WHERE collection = ?1 AND digest = ?2 AND state = 'COMMITTED' \
             ORDER BY version DESC LIMIT 1",
        )?
        .query_row(params![collection.id, new.digest], |row| row.get(0))
        .optional()?;
    if let Some(id) = same {
        commit::set_aliases(db, id, collection.id, &new.aliases)?;
    }
    Ok(same)
}

fn insert(
    db: &Transaction<'_>,
    collection: &Collection,
    new: &NewArtifact,
) -> Result<i64, Trouble> {
    commit::check_aliases(&new.aliases)?;
    // The client id of a deleted artifact may be told again: its row has no use for it any more.
    db.execute(
        "UPDATE artifacts SET client_id = NULL WHERE collection = ?1 AND client_id = ?2",
        params![collection.id, new.client_id],
    )?;
    db.execute(
        "INSERT INTO artifacts (collection, run, state, digest, client_id, wanted_aliases, description, metadata, \
         created_at, updated_at) VALUES (?1, ?2, 'PENDING', ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
        params![
            collection.id,
            new.run,
            new.digest,
            new.client_id,
            Value::from(new.aliases.clone()).to_string(),
            new.description,
            new.metadata,
            now()
        ],
    )?;
    Ok(db.last_insert_rowid())
}
