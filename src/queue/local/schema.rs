//! The database's shape and its versions: makes the file, brings an older one up to date, refuses a newer one.
//! Touches the file and its folder, and no row of what is in it beyond what a migration must.

use std::fs::{DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::trouble::{Trouble, tell};
use crate::failure::{Error, Kind, Result};

/// `PRAGMA application_id`: the letters `LAq1`, so that `file` and we can tell the database from another program's.
const APPLICATION: i64 = 0x4c41_7131;

/// The version that this program writes, in `PRAGMA user_version`.
const NEWEST: u32 = 2;

/// Each migration brings the database from the version that is its index to the next. Written once, never
/// changed: `tests/fixtures` keeps a sample of every version.
const MIGRATIONS: [&str; NEWEST as usize] =
    [include_str!("schema-1.sql"), include_str!("schema-2.sql")];

/// Opens the database, making it when it is missing.
pub fn open(path: &Path, busy: Duration) -> Result<Connection> {
    make_file(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection =
        Connection::open_with_flags(path, flags).map_err(|error| tell(&error, path))?;
    prepare(&mut connection, path, busy).map_err(|trouble| trouble.tell(path))?;
    Ok(connection)
}

/// A second connection of a process that has the database open already.
pub fn reopen(path: &Path, busy: Duration) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
        .and_then(|connection| connection.busy_timeout(busy).map(|()| connection))
        .map_err(|error| tell(&error, path))
}

/// SQLite would make the file as the umask says; specs hold what a submitter would not show everyone.
fn make_file(path: &Path) -> Result<()> {
    let refused = |cause: std::io::Error| {
        Error::new(
            Kind::Queue,
            format!("cannot make the queue database {}: {cause}", path.display()),
        )
        .hint("name another place with `--local PATH`")
    };
    if path.is_file() {
        return Ok(());
    }
    if path.is_dir() {
        return Err(Error::new(
            Kind::Queue,
            format!("{} is a folder, not a queue database", path.display()),
        )
        .hint(format!("for a database in it, write `{}/`", path.display())));
    }
    make_folder(path.parent().unwrap_or(Path::new("/"))).map_err(refused)?;
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(refused(error)),
        _ => Ok(()),
    }
}

/// Makes a folder for this user alone, with those above it; one that is there stays as it is.
pub fn make_folder(folder: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn prepare(connection: &mut Connection, path: &Path, busy: Duration) -> Result<(), Trouble> {
    connection.busy_timeout(busy)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let version = version(connection, path)?;
    journal_in_wal(connection, busy)?;
    if version < MIGRATIONS.len() {
        migrate(connection, path)?;
    }
    Ok(())
}

/// Two processes that turn the mode of a new file at once: SQLite tells one of them at once that it is busy,
/// without the wait that every other statement gets.
fn journal_in_wal(connection: &Connection, busy: Duration) -> Result<(), Trouble> {
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode == "wal" {
        return Ok(());
    }
    let start = Instant::now();
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())) {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && start.elapsed() < busy =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return Ok(other?),
        }
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Trouble> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it while this one waited for its turn.
    for migration in &MIGRATIONS[version(&transaction, path)?..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", NEWEST)?;
    Ok(transaction.commit()?)
}

/// The version of the database; 0 for a new file. Refuses another program's database and a newer one.
fn version(connection: &Connection, path: &Path) -> Result<usize, Trouble> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    let application = number("application_id")?;
    if application != APPLICATION && (application != 0 || tables != 0) {
        return Err(Error::new(
            Kind::Queue,
            format!("{} is a database of another program", path.display()),
        )
        .hint("name another file with `--local PATH`")
        .into());
    }
    let version = number("user_version")?;
    match usize::try_from(version) {
        Ok(known) if known <= MIGRATIONS.len() => Ok(known),
        _ => Err(Error::new(
            Kind::Queue,
            format!(
                "the queue database {} was written by a newer launch-agent (version {version}; this one knows {NEWEST})",
                path.display()
            ),
        )
        .hint("update launch-agent, or name another file with `--local PATH`")
        .into()),
    }
}
