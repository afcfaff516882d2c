//! Files of runs and artifacts. Their contents lie beside the database, each under its SHA-256, so that no name that
//! anybody chose ever becomes a path; what belongs to whom is in the database.
//!
//! A content comes into its place, and leaves it, within the transaction that says so: no row ever names a file that
//! is not there.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};
use tempfile::{NamedTempFile, TempPath};

use super::rows::time;
use super::schema::make_folder;
use super::trouble::Trouble;
use super::{LocalQueue, now};
use crate::failure::{Error, Kind, Result};

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its SHA-256, in 64 hexadecimal digits.
    pub sha256: String,
    /// Its MD5, in base64.
    pub md5: String,
    /// Its bytes.
    pub size: u64,
}

/// A file that was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Its number among the files of its kind.
    pub id: i64,
    /// Its name, which is a relative path.
    pub name: String,
    /// What it holds.
    pub blob: Blob,
    /// When it was uploaded.
    pub updated_at: Timestamp,
}

/// A file that is coming in. It is gone when it is dropped.
pub struct Incoming(NamedTempFile);

impl Incoming {
    /// Where its bytes go.
    pub fn file(&mut self) -> &mut File {
        self.0.as_file_mut()
    }

    /// All of it has come: written through to the disk, and closed.
    pub fn complete(self) -> Result<Complete> {
        self.0
            .as_file()
            .sync_all()
            .map_err(|cause| Error::system("cannot write an uploaded file", cause))?;
        Ok(Complete {
            path: self.0.into_temp_path(),
            quota: u64::MAX,
        })
    }
}

/// A file that has come in whole, and has no place yet. It is gone when it is dropped.
pub struct Complete {
    path: TempPath,
    quota: u64,
}

impl Complete {
    /// It gets a place only while all files and lines together then take no more than so many bytes.
    #[must_use]
    pub fn within(self, quota: u64) -> Complete {
        Complete { quota, ..self }
    }
}

/// What became of a file that came in whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It has its place.
    Done,
    /// There was no room for it.
    Full,
}

/// An upload that stopped this long ago will not go on.
const ABANDONED: Duration = Duration::from_secs(24 * 3_600);

impl LocalQueue {
    /// Where the files are: `queue.files` beside `queue.db`.
    pub fn files_path(&self) -> PathBuf {
        self.path().with_extension("files")
    }

    /// A place for a file that is coming in.
    pub fn incoming_file(&self) -> Result<Incoming> {
        let folder = self.files_path().join("incoming");
        make_folder(&folder)
            .and_then(|()| NamedTempFile::new_in(&folder))
            .map(Incoming)
            .map_err(|cause| {
                Error::system(
                    format_args!("cannot make a file in {}", folder.display()),
                    cause,
                )
            })
    }

    /// Removes uploads that were broken off long ago, and contents that belong to nothing any more.
    pub fn tidy_files(&self) -> Result<()> {
        let folder = self.files_path();
        if let Ok(entries) = fs::read_dir(folder.join("incoming")) {
            for entry in entries.flatten() {
                let age = entry.metadata().and_then(|meta| meta.modified()).ok();
                let age = age.and_then(|time| SystemTime::now().duration_since(time).ok());
                if age.is_some_and(|age| age > ABANDONED) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        self.write(|db| sweep(db, &folder))
    }

    /// Bytes that files and lines of runs take.
    pub fn stored_bytes(&self) -> Result<u64> {
        self.read(stored_bytes)
    }

    /// Bytes that files and the database take, with all that is in it.
    pub fn used_bytes(&self) -> Result<u64> {
        self.read(|db| {
            let bytes: i64 = db
                .prepare_cached(
                    "SELECT (SELECT coalesce(sum(size), 0) FROM blobs) + (page_count - freelist_count) * page_size \
                     FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
                )?
                .query_row([], |row| row.get(0))?;
            Ok(u64::try_from(bytes).unwrap_or(0))
        })
    }

    /// Opens what a file holds.
    pub fn open_blob(&self, blob: &Blob) -> Result<File> {
        let path = place(&self.files_path(), &blob.sha256);
        // What we wrote is no link; if there is one, somebody else put it there.
        let no_follow = nix::fcntl::OFlag::O_NOFOLLOW.bits();
        OpenOptions::new()
            .read(true)
            .custom_flags(no_follow)
            .open(&path)
            .map_err(|cause| Error::system(format_args!("cannot open {}", path.display()), cause))
    }

    /// Gives a run a file, in place of one of that name. Fails when the run is gone.
    pub fn keep_run_file(&self, run: i64, name: &str, blob: &Blob, file: Complete) -> Result<Kept> {
        let folder = self.files_path();
        self.write(|db| {
            // Asked first: what was moved into its place would stay there when the row cannot be written.
            let is_there: bool = db.query_row(
                "SELECT EXISTS (SELECT 1 FROM runs WHERE id = ?1)",
                [run],
                |row| row.get(0),
            )?;
            if !is_there {
                return Err(Error::new(Kind::NotFound, "the run is gone").into());
            }
            if keep(db, &folder, blob, file)? == Kept::Full {
                return Ok(Kept::Full);
            }
            let old: Option<String> = db
                .query_row(
                    "SELECT blob FROM run_files WHERE run = ?1 AND name = ?2",
                    params![run, name],
                    |row| row.get(0),
                )
                .optional()?;
            db.execute(
                "INSERT INTO run_files (run, name, blob, updated_at) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT DO UPDATE SET blob = excluded.blob, updated_at = excluded.updated_at",
                params![run, name, blob.sha256, now()],
            )?;
            if let Some(old) = old {
                drop_unused(db, &folder, &old)?;
            }
            Ok(Kept::Done)
        })
    }

    /// Those files of a run that have one of `names`, when there are any, and match `pattern`, in the way of SQL's
    /// `LIKE`; behind the file of number `after`, at most so many.
    pub fn run_files(
        &self,
        run: i64,
        names: &[String],
        pattern: Option<&str>,
        after: i64,
        most: usize,
    ) -> Result<Vec<StoredFile>> {
        let names = serde_json::Value::from(names.to_vec()).to_string();
        self.read(|db| {
            let mut statement = db.prepare_cached(
                "SELECT id, name, sha256, md5, size, updated_at FROM run_files JOIN blobs ON sha256 = blob \
                 WHERE run = ?1 AND (?2 = '[]' OR name IN (SELECT value FROM json_each(?2))) \
                 AND (?3 IS NULL OR name LIKE ?3) AND id > ?4 ORDER BY id LIMIT ?5",
            )?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            read_all(statement.query(params![run, names, pattern, after, most])?)
        })
    }

    /// How many files a run has.
    pub fn run_file_count(&self, run: i64) -> Result<i64> {
        self.read(|db| {
            let sql = "SELECT count(*) FROM run_files WHERE run = ?1";
            Ok(db.prepare_cached(sql)?.query_row([run], |row| row.get(0))?)
        })
    }

    /// The run's file of that number, and the run.
    pub fn run_file(&self, id: i64) -> Result<Option<(i64, StoredFile)>> {
        self.read(|db| {
            let mut statement = db.prepare_cached(
                "SELECT id, name, sha256, md5, size, updated_at FROM run_files JOIN blobs ON sha256 = blob \
                 WHERE id = ?1",
            )?;
            let Some(file) = read_all(statement.query([id])?)?.pop() else {
                return Ok(None);
            };
            let run = db.query_row("SELECT run FROM run_files WHERE id = ?1", [id], |row| {
                row.get(0)
            })?;
            Ok(Some((run, file)))
        })
    }

    /// Forgets files of runs.
    pub fn delete_run_files(&self, ids: &[i64]) -> Result<()> {
        let folder = self.files_path();
        self.write(|db| {
            for id in ids {
                db.execute("DELETE FROM run_files WHERE id = ?1", [id])?;
            }
            sweep(db, &folder)
        })
    }

    /// The secret that signs addresses of uploads and downloads: the same for as long as the database lives.
    pub fn signing_secret(&self) -> Result<[u8; 32]> {
        let mut drawn = [0; 32];
        File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut drawn))
            .map_err(|cause| Error::system("cannot draw a secret from /dev/urandom", cause))?;
        self.write(|db| {
            db.execute(
                "INSERT INTO secrets (name, value) VALUES ('addresses', ?1) ON CONFLICT DO NOTHING",
                [drawn.as_slice()],
            )?;
            Ok(db.query_row(
                "SELECT value FROM secrets WHERE name = 'addresses'",
                [],
                |row| row.get(0),
            )?)
        })
    }
}

/// Bytes that files and lines of runs take.
pub fn stored_bytes(db: &Transaction<'_>) -> Result<u64, Trouble> {
    let bytes: i64 = db
        .prepare_cached(
            "SELECT (SELECT coalesce(sum(size), 0) FROM blobs) + (SELECT coalesce(sum(bytes), 0) FROM run_line_bytes)",
        )?
        .query_row([], |row| row.get(0))?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Puts a content into its place, where it may be already. Only here, where no other writes, is it sure how much room
/// there is: of uploads that came at the same time each had seen enough for itself.
pub fn keep(
    db: &Transaction<'_>,
    folder: &Path,
    blob: &Blob,
    file: Complete,
) -> Result<Kept, Trouble> {
    let place = place(folder, &blob.sha256);
    let refused = |cause: std::io::Error| {
        Error::system(format_args!("cannot write {}", place.display()), cause)
    };
    let is_there =
        fs::symlink_metadata(&place).is_ok_and(|meta| meta.is_file() && meta.len() == blob.size);
    if !is_there {
        if stored_bytes(db)?.saturating_add(blob.size) > file.quota {
            return Ok(Kept::Full);
        }
        let home = place.parent().unwrap_or(folder);
        make_folder(home).map_err(refused)?;
        file.path
            .persist(&place)
            .map_err(|failed| refused(failed.error))?;
        // The file's name has to outlive a power cut as well as its bytes do.
        File::open(home)
            .and_then(|folder| folder.sync_all())
            .map_err(refused)?;
    }
    db.prepare_cached(
        "INSERT INTO blobs (sha256, md5, size, created_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
    )?
    .execute(params![blob.sha256, blob.md5, i64::try_from(blob.size).unwrap_or(i64::MAX), now()])?;
    Ok(Kept::Done)
}

/// What no file has as its content.
const UNUSED: &str = "NOT EXISTS (SELECT 1 FROM run_files WHERE blob = sha256) \
     AND NOT EXISTS (SELECT 1 FROM artifact_files WHERE blob = sha256) \
     AND NOT EXISTS (SELECT 1 FROM artifact_manifests WHERE blob = sha256)";

/// Removes the contents that belong to nothing any more.
pub fn sweep(db: &Transaction<'_>, folder: &Path) -> Result<(), Trouble> {
    let unused: Vec<String> = db
        .prepare_cached(&format!("SELECT sha256 FROM blobs WHERE {UNUSED}"))?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    unused
        .iter()
        .try_for_each(|sha256| drop_unused(db, folder, sha256))
}

/// Removes a content if it belongs to nothing any more.
pub fn drop_unused(db: &Transaction<'_>, folder: &Path, sha256: &str) -> Result<(), Trouble> {
    let gone = db
        .prepare_cached(&format!("DELETE FROM blobs WHERE sha256 = ?1 AND {UNUSED}"))?
        .execute([sha256])?;
    if gone == 0 {
        return Ok(());
    }
    let place = place(folder, sha256);
    match fs::remove_file(&place) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => {
            Err(Error::system(format_args!("cannot remove {}", place.display()), cause).into())
        }
        _ => Ok(()),
    }
}

/// Where the content with that SHA-256 lies.
fn place(folder: &Path, sha256: &str) -> PathBuf {
    folder.join(&sha256[..2]).join(&sha256[2..])
}

/// Rows of `id, name, sha256, md5, size, updated_at`.
pub fn read_all(mut rows: rusqlite::Rows<'_>) -> Result<Vec<StoredFile>, Trouble> {
    let mut files = Vec::new();
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        files.push(StoredFile {
            id,
            name: row.get(1)?,
            blob: Blob {
                sha256: row.get(2)?,
                md5: row.get(3)?,
                size: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0),
            },
            updated_at: time(row.get(5)?, &format!("file {id}"))?,
        });
    }
    Ok(files)
}

/// The content of that SHA-256.
pub fn blob(db: &Transaction<'_>, sha256: &str) -> Result<Option<Blob>, Trouble> {
    Ok(db
        .prepare_cached("SELECT sha256, md5, size FROM blobs WHERE sha256 = ?1")?
        .query_row([sha256], |row| {
            Ok(Blob {
                sha256: row.get(0)?,
                md5: row.get(1)?,
                size: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
            })
        })
        .optional()?)
}

/// Is it a name that a file may have? A relative path that stays where it is put, on the machines of those who will
/// download it as well.
pub fn check_file_name(name: &str) -> Result<()> {
    let is_step = |part: &str| part.is_empty() || part == "." || part == "..";
    if name.len() <= 1_024
        && !name.contains(|letter: char| letter.is_control() || letter == '\\')
        && !name.split('/').any(is_step)
    {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Error::new(
        Kind::Input,
        format!("`{}` cannot be the name of a file", shown.escape_debug()),
    )
    .hint("it has to be a relative path without `..`, of at most 1024 bytes"))
}
