//! What SQLite says, in words that name the file and say what to do. Touches nothing.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::failure::{Error, Kind};

/// What can go wrong inside a transaction: SQLite refused, or the queue itself has something to say.
#[derive(Debug)]
pub enum Trouble {
    Sql(rusqlite::Error),
    Told(Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Trouble::Sql(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Told(error)
    }
}

impl Trouble {
    /// The error for a person, about the database at `path`.
    pub fn tell(self, path: &Path) -> Error {
        match self {
            Trouble::Told(error) => error,
            Trouble::Sql(error) => tell(&error, path),
        }
    }
}

/// The error for a person, about the database at `path`.
pub fn tell(error: &rusqlite::Error, path: &Path) -> Error {
    let path = path.display();
    let (message, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            format!("{path} is locked by another process"),
            format!("try again; if it stays so, `fuser {path}` names the process"),
        ),
        Some(ErrorCode::NotADatabase) => (
            format!("{path} is not a queue database"),
            "name another file with `--local PATH`".to_owned(),
        ),
        Some(ErrorCode::DatabaseCorrupt) => (
            format!("the queue database {path} is damaged ({error})"),
            format!(
                "move it and its -wal and -shm files away; `sqlite3 {path} .recover` prints what can still be read"
            ),
        ),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => (
            format!("the queue database {path} cannot be written"),
            "the file, the files beside it and their folder must be writable by this user".to_owned(),
        ),
        Some(ErrorCode::CannotOpen) => (
            format!("cannot open the queue database {path}"),
            "it must be a file, and its folder must be writable by this user".to_owned(),
        ),
        Some(ErrorCode::DiskFull) => (
            format!("no space is left on the disk of the queue database {path}"),
            "nothing was changed; make room and try again".to_owned(),
        ),
        Some(ErrorCode::SystemIoFailure) => (
            format!("the disk of the queue database {path} gives errors: {error}"),
            "look whether the disk is full, then at the system's log; a queue database belongs on a disk of this machine, \
             not on a network one"
                .to_owned(),
        ),
        _ => return Error::new(Kind::Queue, format!("the queue database {path}: {error}")),
    };
    Error::new(Kind::Queue, message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[test]
    fn what_a_machine_can_refuse_is_told_with_what_to_do() {
        for (code, message) in [
            (ffi::SQLITE_BUSY, "/q.db is locked by another process"),
            (ffi::SQLITE_NOTADB, "/q.db is not a queue database"),
            (
                ffi::SQLITE_READONLY,
                "the queue database /q.db cannot be written",
            ),
            (ffi::SQLITE_CANTOPEN, "cannot open the queue database /q.db"),
            (
                ffi::SQLITE_FULL,
                "no space is left on the disk of the queue database /q.db",
            ),
        ] {
            let error = tell(
                &rusqlite::Error::SqliteFailure(ffi::Error::new(code), None),
                Path::new("/q.db"),
            );
            assert_eq!(error.message, message);
            assert_eq!(error.kind, Kind::Queue);
            assert!(error.hint.is_some(), "{message}");
        }
    }
}
