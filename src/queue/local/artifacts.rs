//! Artifacts: collections of versions, each a manifest with its files, found by alias. An artifact is made in three
//! steps, so that what is not whole is never seen: it is begun (`artifacts/begin.rs`), its files come in (`artifacts/content.rs`), and
//! it is committed (`artifacts/commit.rs`), with its version and its aliases.

mod begin;
mod commit;
mod content;
mod fetch;
mod keep;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::rows::{texts, time};
use super::trouble::Trouble;
use super::{LocalQueue, files};
use crate::failure::{Error, Kind, Result};

pub use begin::NewArtifact;
pub use commit::Manifest;
pub use content::ArtifactFile;
pub use fetch::{LocalArtifacts, artifact_id};
pub use keep::NewFile;

/// Versions of one thing, in a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// Its number.
    pub id: i64,
    /// The entity that it belongs to.
    pub entity: String,
    /// The project that it belongs to.
    pub project: String,
    /// Its name there.
    pub name: String,
    /// The type of its artifacts: `job`, `code`, ..
    pub artifact_type: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// One artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its number.
    pub id: i64,
    /// The collection that it belongs to.
    pub collection: Collection,
    /// The run that made it.
    pub run: Option<i64>,
    /// `PENDING`, `COMMITTED` or `DELETED`.
    pub state: String,
    /// Its version; none before it is committed.
    pub version: Option<i64>,
    /// What its maker says that it holds.
    pub digest: String,
    /// What people wrote about it.
    pub description: Option<String>,
    /// What its maker keeps with it, as JSON.
    pub metadata: Option<String>,
    /// Bytes of its files.
    pub size: i64,
    /// How many files it has.
    pub file_count: i64,
    /// Its aliases, with their numbers.
    pub aliases: Vec<(i64, String)>,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What is read at once takes no more memory than this.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// No artifact asks for more.
const MOST_ALIASES: usize = 100;

const COLLECTION: &str = "SELECT artifact_collections.*, entity, projects.name AS project_name \
     FROM artifact_collections JOIN projects ON projects.id = artifact_collections.project";

impl LocalQueue {
    /// The collection of that name.
    pub fn collection(
        &self,
        entity: &str,
        project: &str,
        name: &str,
    ) -> Result<Option<Collection>> {
        self.read(|db| collection(db, entity, project, name))
    }

    /// The collection of that number.
    pub fn collection_of_number(&self, id: i64) -> Result<Option<Collection>> {
        self.read(|db| {
            let mut statement =
                db.prepare_cached(&format!("{COLLECTION} WHERE artifact_collections.id = ?1"))?;
            let mut rows = statement.query([id])?;
            rows.next()?.map(read_collection).transpose()
        })
    }

    /// The collections of a project, those of one type when there is one given.
    pub fn collections(
        &self,
        entity: &str,
        project: &str,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Collection>> {
        self.read(|db| {
            let mut statement = db.prepare_cached(&format!(
                "{COLLECTION} WHERE entity = ?1 AND projects.name = ?2 AND (?3 IS NULL OR type = ?3) \
                 ORDER BY artifact_collections.id"
            ))?;
            let mut rows = statement.query(params![entity, project, artifact_type])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                all.push(read_collection(row)?);
            }
            Ok(all)
        })
    }

    /// The artifact of that number.
    pub fn artifact(&self, id: i64) -> Result<Option<Artifact>> {
        self.read(|db| artifact(db, id))
    }

    /// The committed artifact that an alias or a version, as `v3`, names in a collection.
    pub fn artifact_by_alias(&self, collection: i64, alias: &str) -> Result<Option<Artifact>> {
        self.read(|db| {
            let version = alias.strip_prefix('v').and_then(|text| {
                let number: i64 = text.parse().ok()?;
                (number.to_string() == text).then_some(number)
            });
            let found = db
                .prepare_cached(
                    "SELECT id FROM artifacts WHERE collection = ?1 AND state = 'COMMITTED' AND (version = ?3 OR id = \
                     (SELECT artifact FROM artifact_aliases WHERE collection = ?1 AND alias = ?2))",
                )?
                .query_row(params![collection, alias, version], |row| row.get(0))
                .optional()?;
            match found {
                Some(id) => artifact(db, id),
                None => Ok(None),
            }
        })
    }

    /// The committed artifacts of a collection, newest first, behind the one of number `before` when it is not 0.
    pub fn artifacts(&self, collection: i64, before: i64, most: usize) -> Result<Vec<Artifact>> {
        self.read(|db| {
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            select(
                db,
                "SELECT id FROM artifacts WHERE collection = ?1 AND state = 'COMMITTED' AND (?2 = 0 OR id < ?2) \
                 ORDER BY id DESC LIMIT ?3",
                params![collection, before, most],
            )
        })
    }

    /// How many committed artifacts a collection has.
    pub fn artifact_count(&self, collection: i64) -> Result<i64> {
        self.read(|db| {
            let sql =
                "SELECT count(*) FROM artifacts WHERE collection = ?1 AND state = 'COMMITTED'";
            Ok(db
                .prepare_cached(sql)?
                .query_row([collection], |row| row.get(0))?)
        })
    }

    /// The aliases of a collection with their numbers, behind that of number `after`, at most so many.
    pub fn aliases(&self, collection: i64, after: i64, most: usize) -> Result<Vec<(i64, String)>> {
        self.read(|db| {
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let mut statement = db.prepare_cached(
                "SELECT id, alias FROM artifact_aliases WHERE collection = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
            )?;
            let all = statement.query_map([collection, after, most], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
            Ok(all.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The committed artifacts that a run made, or those that it used.
    pub fn artifacts_of_run(
        &self,
        run: i64,
        used: bool,
        after: i64,
        most: usize,
    ) -> Result<Vec<Artifact>> {
        let whose = if used {
            "id IN (SELECT artifact FROM artifact_uses WHERE artifact_uses.run = ?1)"
        } else {
            "run = ?1"
        };
        self.read(|db| {
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            select(
                db,
                &format!(
                    "SELECT id FROM artifacts WHERE {whose} AND state = 'COMMITTED' AND id > ?2 ORDER BY id LIMIT ?3"
                ),
                params![run, after, most],
            )
        })
    }

    /// The artifacts that were begun under that client id, which makers choose at random.
    pub fn artifact_of_client(&self, client_id: &str) -> Result<Vec<Artifact>> {
        self.read(|db| {
            select(
                db,
                "SELECT id FROM artifacts WHERE client_id = ?1 AND state != 'DELETED' LIMIT 10",
                [client_id],
            )
        })
    }

    /// Writes down that a run used an artifact.
    pub fn use_artifact(&self, artifact: i64, run: i64) -> Result<()> {
        self.write(|db| {
            db.execute(
                "INSERT INTO artifact_uses (artifact, run) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                [artifact, run],
            )?;
            Ok(())
        })
    }

    /// The numbers of the runs that used an artifact.
    pub fn users_of_artifact(&self, artifact: i64) -> Result<Vec<i64>> {
        self.read(|db| {
            let mut statement =
                db.prepare_cached("SELECT run FROM artifact_uses WHERE artifact = ?1 LIMIT 1000")?;
            let runs = statement.query_map([artifact], |row| row.get(0))?;
            Ok(runs.collect::<rusqlite::Result<_>>()?)
        })
    }
}

fn select(
    db: &Transaction<'_>,
    sql: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<Artifact>, Trouble> {
    let ids: Vec<i64> = db
        .prepare_cached(sql)?
        .query_map(values, |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let (mut all, mut bytes) = (Vec::new(), 0);
    for id in ids {
        let artifact = need(db, id)?;
        let texts = [&artifact.metadata, &artifact.description];
        bytes += texts.into_iter().flatten().map(String::len).sum::<usize>();
        if bytes > MOST_BYTES {
            return Err(Error::input(
                "these artifacts take more than 64 MiB; ask for fewer at once",
            )
            .into());
        }
        all.push(artifact);
    }
    Ok(all)
}

fn collection(
    db: &Transaction<'_>,
    entity: &str,
    project: &str,
    name: &str,
) -> Result<Option<Collection>, Trouble> {
    let mut statement = db.prepare_cached(&format!(
        "{COLLECTION} WHERE entity = ?1 AND projects.name = ?2 AND artifact_collections.name = ?3"
    ))?;
    let mut rows = statement.query([entity, project, name])?;
    rows.next()?.map(read_collection).transpose()
}

fn read_collection(row: &Row<'_>) -> Result<Collection, Trouble> {
    let id = row.get("id")?;
    Ok(Collection {
        id,
        entity: row.get("entity")?,
        project: row.get("project_name")?,
        name: row.get("name")?,
        artifact_type: row.get("type")?,
        created_at: time(row.get("created_at")?, &format!("artifact collection {id}"))?,
    })
}

fn need(db: &Transaction<'_>, id: i64) -> Result<Artifact, Trouble> {
    artifact(db, id)?.ok_or_else(|| {
        Error::new(Kind::NotFound, format!("no artifact with the number {id}")).into()
    })
}

fn artifact(db: &Transaction<'_>, id: i64) -> Result<Option<Artifact>, Trouble> {
    let place = format!("artifact {id}");
    let mut statement = db.prepare_cached("SELECT * FROM artifacts WHERE id = ?1")?;
    let mut rows = statement.query([id])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let collection: i64 = row.get("collection")?;
    let mut found =
        db.prepare_cached(&format!("{COLLECTION} WHERE artifact_collections.id = ?1"))?;
    let mut collections = found.query([collection])?;
    let collection = collections
        .next()?
        .map(read_collection)
        .transpose()?
        .ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let aliases = db
        .prepare_cached("SELECT id, alias FROM artifact_aliases WHERE artifact = ?1 ORDER BY id")?
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(Artifact {
        id,
        collection,
        run: row.get("run")?,
        state: row.get("state")?,
        version: row.get("version")?,
        digest: row.get("digest")?,
        description: row.get("description")?,
        metadata: row.get("metadata")?,
        size: row.get("size")?,
        file_count: row.get("file_count")?,
        aliases,
        created_at: time(row.get("created_at")?, &place)?,
        updated_at: time(row.get("updated_at")?, &place)?,
    }))
}

fn wanted_aliases(db: &Transaction<'_>, id: i64) -> Result<Vec<String>, Trouble> {
    let text: String = db.query_row(
        "SELECT wanted_aliases FROM artifacts WHERE id = ?1",
        [id],
        |row| row.get(0),
    )?;
    texts(&text, &format!("artifact {id}"))
}

/// The content of a blob, if it is still there.
fn content_of(
    db: &Transaction<'_>,
    sha256: Option<String>,
) -> Result<Option<files::Blob>, Trouble> {
    match sha256 {
        Some(sha256) => files::blob(db, &sha256),
        None => Ok(None),
    }
}
