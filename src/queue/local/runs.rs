//! Projects and runs: a claimed item becomes a run, which can be asked to stop and whose end is the item's. What the
//! program says of itself is in `runs/account.rs`, and the lines that it streams in `runs/lines.rs`.

mod account;
mod lines;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::rows::{texts, time};
use super::trouble::Trouble;
use super::{LocalQueue, now};
use crate::failure::Result;
use crate::queue::StopReason;

pub use account::RunChange;
pub use lines::{Chunk, Line, Post, Posted, Stream};

/// A project of an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its number.
    pub id: i64,
    /// The entity that it belongs to.
    pub entity: String,
    /// Its name, as it was first written.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its number.
    pub id: i64,
    /// The entity that it belongs to.
    pub entity: String,
    /// The project that it belongs to.
    pub project: String,
    /// Its name there.
    pub name: String,
    /// Whose key made it.
    pub user: String,
    /// `pending`, `running`, `finished`, `failed`, `crashed` or `killed`.
    pub state: String,
    /// Somebody asked it to stop.
    pub stopped: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last said that it lives.
    pub heartbeat_at: Timestamp,
    /// What it is called, when that is not its name.
    pub display_name: Option<String>,
    /// Its configuration, as JSON.
    pub config: Option<String>,
    /// Its last values, as JSON.
    pub summary: Option<String>,
    /// What people wrote about it.
    pub notes: Option<String>,
    /// Its first description.
    pub description: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// The group that it belongs to.
    pub group: Option<String>,
    /// What kind of work it is.
    pub job_type: Option<String>,
    /// The sweep that it belongs to.
    pub sweep: Option<String>,
    /// The git commit of its program.
    pub commit: Option<String>,
    /// How its program ended.
    pub exit_code: Option<i32>,
    /// It began anew, and no line of its history came since.
    pub is_blank: bool,
}

/// A page of runs takes no more memory than this: a config may be as long as a request.
const PAGE_BYTES: usize = 32 * 1024 * 1024;

const RUN: &str = "SELECT runs.*, entity, projects.name AS project_name, \
     runs.stopped OR EXISTS (SELECT 1 FROM items WHERE run = runs.id AND stop_requested) AS is_stopped \
     FROM runs JOIN projects ON projects.id = runs.project";

impl LocalQueue {
    /// The project of that name; its letters may be small or capital.
    pub fn project(&self, entity: &str, name: &str) -> Result<Option<Project>> {
        self.read(|db| project(db, entity, name))
    }

    /// The project of that name, and whether it was made just now.
    pub fn make_project(&self, entity: &str, name: &str) -> Result<(Project, bool)> {
        if let Some(found) = self.project(entity, name)? {
            return Ok((found, false));
        }
        self.write(|db| {
            let is_new = make_project(db, entity, name, now())?;
            let found = project(db, entity, name)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            Ok((found, is_new))
        })
    }

    /// The projects of an entity behind a number, at most so many, and whether there are more.
    pub fn projects(&self, entity: &str, after: i64, most: usize) -> Result<(Vec<Project>, bool)> {
        self.read(|db| {
            let mut statement = db.prepare_cached(
                "SELECT name FROM projects WHERE entity = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
            )?;
            let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
            let names = statement.query_map(params![entity, after, limit], |row| row.get(0))?;
            let names: Vec<String> = names.collect::<Result<_, _>>()?;
            let found = names
                .iter()
                .take(most)
                .map(|name| project(db, entity, name));
            let found = found.collect::<Result<Vec<_>, Trouble>>()?;
            Ok((found.into_iter().flatten().collect(), names.len() > most))
        })
    }

    /// The run of that name in a project.
    pub fn run(&self, entity: &str, project: &str, name: &str) -> Result<Option<Run>> {
        self.read(|db| match run_number(db, entity, project, name)? {
            Some(id) => run_of_number(db, id),
            None => Ok(None),
        })
    }

    /// The run of that number.
    pub fn run_of_number(&self, id: i64) -> Result<Option<Run>> {
        self.read(|db| run_of_number(db, id))
    }

    /// Writes down how a run ended, in its own words: `finished`, `failed`, `crashed` or `killed`. Its item ends with it.
    pub fn end_run(&self, id: i64, state: &str, exit_code: i32) -> Result<()> {
        self.write(|db| {
            db.execute(
                "UPDATE runs SET state = ?2 WHERE id = ?1",
                params![id, state],
            )?;
            end_item(db, id, exit_code, now())
        })
    }

    /// The runs of a project by their age, behind the one of number `after` when it is not 0, at most so many and fewer
    /// when they are long; and whether there are more.
    pub fn runs_of_project(
        &self,
        entity: &str,
        project: &str,
        newest_first: bool,
        after: i64,
        most: usize,
    ) -> Result<(Vec<Run>, bool)> {
        let (sign, order) = if newest_first {
            ("<", "DESC")
        } else {
            (">", "ASC")
        };
        self.read(|db| {
            let mut statement = db.prepare_cached(&format!(
                "{RUN} WHERE entity = ?1 AND projects.name = ?2 AND (?3 = 0 OR runs.id {sign} ?3) \
                 ORDER BY runs.id {order} LIMIT ?4"
            ))?;
            let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
            let mut rows = statement.query(params![entity, project, after, limit])?;
            let (mut runs, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let run = read(row)?;
                bytes += length(&run);
                if runs.len() == most || (bytes > PAGE_BYTES && !runs.is_empty()) {
                    return Ok((runs, true));
                }
                runs.push(run);
            }
            Ok((runs, false))
        })
    }

    /// How many runs a project has.
    pub fn run_count(&self, entity: &str, project: &str) -> Result<i64> {
        self.read(|db| {
            Ok(db
                .prepare_cached(
                    "SELECT count(*) FROM runs JOIN projects ON projects.id = runs.project \
                     WHERE entity = ?1 AND projects.name = ?2",
                )?
                .query_row([entity, project], |row| row.get(0))?)
        })
    }

    /// Asks a run to stop: its program sees it, and so does the agent that runs it.
    pub fn stop_run(&self, id: i64) -> Result<()> {
        self.write_and_ring(|db| {
            db.execute("UPDATE runs SET stopped = 1 WHERE id = ?1", [id])?;
            db.execute(
                "UPDATE items SET stop_requested = 1 WHERE run = ?1 AND state = 'CLAIMED'",
                [id],
            )?;
            Ok(())
        })
    }
}

fn length(run: &Run) -> usize {
    let texts = [&run.config, &run.summary, &run.notes, &run.description];
    texts.into_iter().flatten().map(String::len).sum()
}

/// The item of a run ends as the run does: with its exit code, or stopped when somebody asked for that.
fn end_item(db: &Transaction<'_>, run: i64, exit_code: i32, now: i64) -> Result<(), Trouble> {
    db.prepare_cached(
        "UPDATE items SET state = 'STOPPED', message = ?2, ended_at = ?3, duration = ?3 - claimed_at, \
         stop_requested = 0 WHERE run = ?1 AND state = 'CLAIMED' AND stop_requested",
    )?
    .execute(params![run, StopReason::Requested.to_string(), now])?;
    db.prepare_cached(
        "UPDATE items SET state = 'FINISHED', exit_code = ?2, ended_at = ?3, duration = ?3 - claimed_at \
         WHERE run = ?1 AND state = 'CLAIMED'",
    )?
    .execute(params![run, exit_code, now])?;
    Ok(())
}

fn project(db: &Transaction<'_>, entity: &str, name: &str) -> Result<Option<Project>, Trouble> {
    let found = db
        .prepare_cached(
            "SELECT id, entity, name, created_at FROM projects WHERE entity = ?1 AND name = ?2",
        )?
        .query_row([entity, name], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    let Some((id, entity, name, created_at)) = found else {
        return Ok(None);
    };
    Ok(Some(Project {
        created_at: time(created_at, &format!("project {id}"))?,
        id,
        entity,
        name,
    }))
}

/// Makes a project unless it is there. Gives whether it is new.
pub fn make_project(
    db: &Transaction<'_>,
    entity: &str,
    name: &str,
    now: i64,
) -> Result<bool, Trouble> {
    let made = db
        .prepare_cached(
            "INSERT INTO projects (entity, name, created_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?
        .execute(params![entity, name, now])?;
    Ok(made == 1)
}

/// The number of the run of that name.
pub fn run_number(
    db: &Transaction<'_>,
    entity: &str,
    project: &str,
    name: &str,
) -> Result<Option<i64>, Trouble> {
    let found = db
        .prepare_cached(
            "SELECT runs.id FROM runs JOIN projects ON projects.id = runs.project \
             WHERE entity = ?1 AND projects.name = ?2 AND runs.name = ?3",
        )?
        .query_row([entity, project, name], |row| row.get(0));
    Ok(found.optional()?)
}

/// Makes the run that a claimed item will be. Gives its number.
pub fn make_pending(
    db: &Transaction<'_>,
    entity: &str,
    project: &str,
    name: &str,
    user: &str,
    now: i64,
) -> Result<i64, Trouble> {
    make_project(db, entity, project, now)?;
    db.prepare_cached(
        "INSERT INTO runs (project, name, user, state, created_at, heartbeat_at) \
         SELECT id, ?3, ?4, 'pending', ?5, ?5 FROM projects WHERE entity = ?1 AND name = ?2",
    )?
    .execute(params![entity, project, name, user, now])?;
    Ok(db.last_insert_rowid())
}

fn run_of_number(db: &Transaction<'_>, id: i64) -> Result<Option<Run>, Trouble> {
    let mut statement = db.prepare_cached(&format!("{RUN} WHERE runs.id = ?1"))?;
    let mut rows = statement.query([id])?;
    rows.next()?.map(read).transpose()
}

fn read(row: &Row<'_>) -> Result<Run, Trouble> {
    let id = row.get("id")?;
    let place = format!("run {id}");
    Ok(Run {
        id,
        entity: row.get("entity")?,
        project: row.get("project_name")?,
        name: row.get("name")?,
        user: row.get("user")?,
        state: row.get("state")?,
        stopped: row.get("is_stopped")?,
        created_at: time(row.get("created_at")?, &place)?,
        heartbeat_at: time(row.get("heartbeat_at")?, &place)?,
        display_name: row.get("display_name")?,
        config: row.get("config")?,
        summary: row.get("summary")?,
        notes: row.get("notes")?,
        description: row.get("description")?,
        tags: texts(&row.get::<_, String>("tags")?, &place)?,
        group: row.get("group_name")?,
        job_type: row.get("job_type")?,
        sweep: row.get("sweep")?,
        commit: row.get("git_commit")?,
        exit_code: row.get("exit_code")?,
        is_blank: texts(&row.get::<_, String>("began_anew")?, &place)?
            .iter()
            .any(|stream| stream == "history"),
    })
}
