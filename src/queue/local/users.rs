//! Who gets in: users, their keys, and the entities that they belong to. Of a key only a hash is stored.

use std::fmt::Write;
use std::io::Read;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use sha2::{Digest, Sha256};

use super::rows::{texts, time};
use super::trouble::Trouble;
use super::{LocalQueue, now};
use crate::failure::{Error, Kind, Result};

/// The entity of everything that was made without a server.
pub const LOCAL_ENTITY: &str = "local";

/// A key's last use is written down when the one known is older than this, in milliseconds.
const USE_NOTED_EVERY: i64 = 60_000;

/// Whom a key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The number of the key.
    pub key: i64,
    /// The user's name, which is also that of an entity of their own.
    pub user: String,
    /// The entities that they are a member of, their own among them, sorted.
    pub entities: Vec<String>,
}

/// A key as people see it: never the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its number.
    pub id: i64,
    /// Whom it belongs to.
    pub user: String,
    /// The entities of that user.
    pub entities: Vec<String>,
    /// Its last four characters.
    pub ending: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A key that was just made. This is the only time that it can be shown.
#[derive(Debug)]
pub struct NewKey {
    /// Its number.
    pub id: i64,
    /// The key: 40 hexadecimal digits, as W&B's clients want it.
    pub key: String,
    /// Whom it lets in.
    pub caller: Caller,
}

impl LocalQueue {
    /// Makes a key for a user, and the user and the entities where they are not there yet. The user becomes a member
    /// of `entities`, beside those that they are a member of already.
    pub fn create_key(&self, user: &str, entities: &[String]) -> Result<NewKey> {
        for name in std::iter::once(user).chain(entities.iter().map(String::as_str)) {
            check_name(name)?;
        }
        if user == LOCAL_ENTITY {
            return Err(Error::input(format!(
                "`{LOCAL_ENTITY}` cannot be a user: it is the entity of the queues made without a server"
            ))
            .hint(format!(
                "a user who shall use them: `launch-agent serve key create NAME --entity {LOCAL_ENTITY}`"
            )));
        }
        let key = draw()?;
        self.write(|db| {
            let id = create(db, user, entities, &key, now())?;
            let caller = caller(db, id, user)?;
            Ok(NewKey { id, key, caller })
        })
    }

    /// All keys, revoked ones included, in the order in which they were made.
    pub fn keys(&self) -> Result<Vec<Key>> {
        self.read(|db| {
            let mut statement = db.prepare(
                "SELECT keys.*, (SELECT json_group_array(entity) FROM \
                 (SELECT entity FROM members WHERE members.user = keys.user ORDER BY entity)) AS entities \
                 FROM keys ORDER BY id",
            )?;
            let mut rows = statement.query([])?;
            let mut keys = Vec::new();
            while let Some(row) = rows.next()? {
                keys.push(read(row)?);
            }
            Ok(keys)
        })
    }

    /// Revokes a key, from now on. Repeating it changes nothing.
    pub fn revoke_key(&self, id: i64) -> Result<()> {
        self.write(|db| {
            let changed = db.execute(
                "UPDATE keys SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1",
                [id, now()],
            )?;
            if changed == 0 {
                return Err(Error::new(Kind::NotFound, format!("no key `{id}`"))
                    .hint("`launch-agent serve key list` lists the keys")
                    .into());
            }
            Ok(())
        })
    }

    /// Whom a key lets in; `None`: nobody.
    pub fn caller(&self, key: &str) -> Result<Option<Caller>> {
        let hash = hash(key);
        let found = self.read(|db| {
            let found = db
                .prepare_cached(
                    "SELECT id, user, used_at FROM keys WHERE hash = ?1 AND revoked_at IS NULL",
                )?
                .query_row([&hash], |row| {
                    Ok((
                        row.get::<_, i64>(0)?,
                        row.get::<_, String>(1)?,
                        row.get::<_, Option<i64>>(2)?,
                    ))
                })
                .optional()?;
            let Some((id, user, used_at)) = found else {
                return Ok(None);
            };
            Ok(Some((id, used_at, caller(db, id, &user)?)))
        })?;
        let Some((id, used_at, caller)) = found else {
            return Ok(None);
        };
        if used_at.is_none_or(|used_at| now().saturating_sub(used_at) >= USE_NOTED_EVERY) {
            self.write(|db| {
                db.execute("UPDATE keys SET used_at = ?2 WHERE id = ?1", [id, now()])?;
                Ok(())
            })?;
        }
        Ok(Some(caller))
    }

    /// Does the key of that number still let somebody in?
    pub fn is_key_valid(&self, id: i64) -> Result<bool> {
        self.read(|db| {
            let sql = "SELECT EXISTS (SELECT 1 FROM keys WHERE id = ?1 AND revoked_at IS NULL)";
            Ok(db.prepare_cached(sql)?.query_row([id], |row| row.get(0))?)
        })
    }

    /// Is the entity more than one user's own?
    pub fn is_team(&self, entity: &str) -> Result<bool> {
        self.read(|db| {
            let own: bool = db
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM users WHERE name = ?1)")?
                .query_row([entity], |row| row.get(0))?;
            Ok(!own)
        })
    }
}

fn create(
    db: &Transaction<'_>,
    user: &str,
    entities: &[String],
    key: &str,
    now: i64,
) -> Result<i64, Trouble> {
    let is_new = db.execute(
        "INSERT INTO users (name, created_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![user, now],
    )? == 1;
    let made = |entity: &str| {
        db.execute(
            "INSERT INTO entities (name, created_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![entity, now],
        )
    };
    // A user's own entity is nobody else's: a team of that name was there first.
    if made(user)? == 0 && is_new {
        return Err(Error::input(format!(
            "`{user}` is an entity already, so it cannot be the name of a user"
        ))
        .hint(format!(
            "name the user, and the entity beside it: `launch-agent serve key create NAME --entity {user}`"
        ))
        .into());
    }
    for entity in entities {
        let of_another: bool = entity != user
            && db.query_row(
                "SELECT EXISTS (SELECT 1 FROM users WHERE name = ?1)",
                [entity],
                |row| row.get(0),
            )?;
        if of_another {
            return Err(Error::input(format!(
                "`{entity}` is a user, whose own entity has no other members"
            ))
            .hint("name a team with `--entity`: it is made when it is not there yet")
            .into());
        }
        made(entity)?;
    }
    for entity in entities.iter().map(String::as_str).chain([user]) {
        db.execute(
            "INSERT INTO members (user, entity) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            [user, entity],
        )?;
    }
    db.execute(
        "INSERT INTO keys (user, hash, ending, created_at) VALUES (?1, ?2, ?3, ?4)",
        params![user, hash(key), &key[key.len() - 4..], now],
    )?;
    Ok(db.last_insert_rowid())
}

fn caller(db: &Transaction<'_>, key: i64, user: &str) -> Result<Caller, Trouble> {
    Ok(Caller {
        key,
        user: user.to_owned(),
        entities: entities(db, user)?,
    })
}

/// The entities that a user is a member of, sorted.
pub fn entities(db: &Transaction<'_>, user: &str) -> Result<Vec<String>, Trouble> {
    let mut statement =
        db.prepare_cached("SELECT entity FROM members WHERE user = ?1 ORDER BY entity")?;
    let entities = statement.query_map([user], |row| row.get(0))?;
    Ok(entities.collect::<rusqlite::Result<_>>()?)
}

fn read(row: &Row<'_>) -> Result<Key, Trouble> {
    let id = row.get("id")?;
    let place = format!("key {id}");
    let optional = |column| -> Result<Option<Timestamp>, Trouble> {
        row.get::<_, Option<i64>>(column)?
            .map(|millis| time(millis, &place))
            .transpose()
    };
    Ok(Key {
        id,
        user: row.get("user")?,
        entities: texts(&row.get::<_, String>("entities")?, &place)?,
        ending: row.get("ending")?,
        created_at: time(row.get("created_at")?, &place)?,
        used_at: optional("used_at")?,
        revoked_at: optional("revoked_at")?,
    })
}

/// A name that can stand in a path and in an address.
fn check_name(name: &str) -> Result<()> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if name.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && name.chars().all(plain)
        && name.len() <= 64
    {
        return Ok(());
    }
    Err(Error::input(format!(
        "`{}` cannot be the name of a user or an entity",
        name.escape_debug()
    ))
    .hint(
        "a name has up to 64 letters, digits, `-`, `_` and `.`, and begins with a letter or a digit",
    ))
}

/// Twenty bytes that nobody can guess, from the system: `fastrand` is for names, not for secrets.
fn draw() -> Result<String> {
    let mut bytes = [0; 20];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|cause| Error::system("cannot draw a key from /dev/urandom", cause))?;
    Ok(hex(&bytes))
}

fn hash(key: &str) -> String {
    hex(&Sha256::digest(key.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
