//! The lines that a run streams while it lives: history, events of its machine, and console output. Each is stored
//! under its number, so that a client which repeats itself changes nothing.

use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::Value;

use super::super::rows::texts;
use super::super::trouble::Trouble;
use super::super::{LocalQueue, files, now};
use super::{end_item, run_number};
use crate::failure::{Error, Result};

/// What is read at once takes no more memory than this. Fewer lines than asked for would look like all there are.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// What a line takes beside its text: a quota that counts texts alone has room for any number of empty lines.
const BESIDE: i64 = 32;

/// What the lines are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// What the program logged, one JSON object a line.
    History,
    /// What the machine measured, one JSON object a line.
    Events,
    /// What the program printed.
    Output,
}

impl Stream {
    fn word(self) -> &'static str {
        match self {
            Stream::History => "history",
            Stream::Events => "events",
            Stream::Output => "output",
        }
    }
}

/// Lines of one stream, the first of which has the number `offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Whose lines they are.
    pub stream: Stream,
    /// The number of the first one.
    pub offset: i64,
    /// The lines.
    pub lines: Vec<String>,
}

/// What a run reports at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Post {
    /// New lines, and old ones that changed.
    pub chunks: Vec<Chunk>,
    /// The last values, as JSON.
    pub summary: Option<String>,
    /// The program has ended, with this exit code.
    pub exit_code: Option<i32>,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// It is written down.
    Done {
        /// Somebody asked the run to stop.
        stopped: bool,
    },
    /// There is no such run.
    NoRun,
    /// Its lines would take more room than there is.
    Full,
}

/// A line that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number in its stream.
    pub number: i64,
    /// The line.
    pub text: String,
}

impl LocalQueue {
    /// Writes down what a run reports, unless lines and files would then take more than `quota` bytes. A run that was
    /// given up for lost lives again.
    pub fn post_to_run(
        &self,
        (entity, project, name): (&str, &str, &str),
        post: &Post,
        quota: u64,
    ) -> Result<Posted> {
        self.write(|db| {
            let Some(run) = run_number(db, entity, project, name)? else {
                return Ok(Posted::NoRun);
            };
            let bytes = post.bytes();
            // Without room the lines are lost, but not that the run lives, or how it ended.
            let is_full = bytes > 0 && files::stored_bytes(db)?.saturating_add(bytes) > quota;
            for chunk in post.chunks.iter().filter(|_| !is_full) {
                write_chunk(db, run, chunk)?;
            }
            heartbeat(db, run, post, now())?;
            let stopped = db
                .prepare_cached(
                    "SELECT stopped OR EXISTS (SELECT 1 FROM items WHERE run = runs.id AND stop_requested) \
                     FROM runs WHERE id = ?1",
                )?
                .query_row([run], |row| row.get(0))?;
            if let Some(code) = post.exit_code {
                end(db, run, code, now())?;
            }
            if is_full {
                return Ok(Posted::Full);
            }
            Ok(Posted::Done { stopped })
        })
    }

    /// How many lines a stream has: one more than the last one's number.
    pub fn line_count(&self, run: i64, stream: Stream) -> Result<i64> {
        self.read(|db| {
            let last: Option<i64> = db
                .prepare_cached("SELECT max(number) FROM run_lines WHERE run = ?1 AND stream = ?2")?
                .query_row(params![run, stream.word()], |row| row.get(0))?;
            Ok(last.map_or(0, |last| last + 1))
        })
    }

    /// The greatest step in a run's history.
    pub fn last_step(&self, run: i64) -> Result<Option<i64>> {
        self.read(|db| {
            Ok(db
                .prepare_cached(
                    "SELECT max(step) FROM run_lines WHERE run = ?1 AND stream = 'history' AND step IS NOT NULL",
                )?
                .query_row([run], |row| row.get(0))?)
        })
    }

    /// The lines from a number on, at most so many.
    pub fn lines(&self, run: i64, stream: Stream, from: i64, most: usize) -> Result<Vec<Line>> {
        self.read(|db| {
            select(
                db,
                "SELECT number, line FROM run_lines WHERE run = ?1 AND stream = ?2 AND number >= ?3 \
                 ORDER BY number LIMIT ?4",
                params![run, stream.word(), from, limit(most)],
            )
        })
    }

    /// The history of the steps from `first` on and before `end`, at most so many lines.
    pub fn history_between(
        &self,
        run: i64,
        first: i64,
        end: i64,
        most: usize,
    ) -> Result<Vec<Line>> {
        self.read(|db| {
            select(
                db,
                "SELECT number, line FROM run_lines WHERE run = ?1 AND stream = 'history' AND step >= ?2 \
                 AND step < ?3 ORDER BY step, number LIMIT ?4",
                params![run, first, end, limit(most)],
            )
        })
    }

    /// About so many lines of a stream, evenly spread; all of them when there are no more.
    pub fn sampled_lines(&self, run: i64, stream: Stream, most: usize) -> Result<Vec<Line>> {
        let count = self.line_count(run, stream)?;
        let most = limit(most).max(1);
        let every = (count + most - 1) / most;
        self.read(|db| {
            select(
                db,
                "SELECT number, line FROM run_lines WHERE run = ?1 AND stream = ?2 AND number % ?3 = 0 \
                 ORDER BY number LIMIT ?4",
                params![run, stream.word(), every.max(1), most],
            )
        })
    }
}

impl Post {
    fn bytes(&self) -> u64 {
        let lines = self.chunks.iter().flat_map(|chunk| &chunk.lines);
        lines
            .map(|line| line.len() as u64 + BESIDE.unsigned_abs())
            .sum()
    }
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

fn select(
    db: &Transaction<'_>,
    sql: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<Line>, Trouble> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let (mut lines, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let line = Line {
            number: row.get(0)?,
            text: row.get(1)?,
        };
        bytes += line.text.len();
        if bytes > MOST_BYTES {
            return Err(
                Error::input("these lines take more than 64 MiB; ask for fewer at once").into(),
            );
        }
        lines.push(line);
    }
    Ok(lines)
}

fn write_chunk(db: &Transaction<'_>, run: i64, chunk: &Chunk) -> Result<(), Trouble> {
    cut_off(db, run, chunk)?;
    let is_history = chunk.stream == Stream::History;
    let (mut gone, mut come) = (0, 0);
    for (number, line) in (chunk.offset..).zip(&chunk.lines) {
        let step = is_history.then(|| step(line)).flatten();
        let old: Option<i64> = db
            .prepare_cached(
                "SELECT length(CAST(line AS BLOB)) FROM run_lines WHERE run = ?1 AND stream = ?2 AND number = ?3",
            )?
            .query_row(params![run, chunk.stream.word(), number], |row| row.get(0))
            .optional()?;
        db.prepare_cached(
            "INSERT INTO run_lines (run, stream, number, step, line) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT DO UPDATE SET step = excluded.step, line = excluded.line",
        )?
        .execute(params![run, chunk.stream.word(), number, step, line])?;
        gone += old.map_or(0, |length| length + BESIDE);
        come += limit(line.len()) + BESIDE;
    }
    account_bytes(db, run, come - gone)
}

/// An older version counted texts alone: what goes may be more than was counted.
fn account_bytes(db: &Transaction<'_>, run: i64, more: i64) -> Result<(), Trouble> {
    db.prepare_cached(
        "INSERT INTO run_line_bytes (run, bytes) VALUES (?1, max(?2, 0)) \
         ON CONFLICT DO UPDATE SET bytes = max(bytes + ?2, 0)",
    )?
    .execute(params![run, more])?;
    Ok(())
}

/// The first lines of a new life: what an earlier one left from there on is not its.
fn cut_off(db: &Transaction<'_>, run: i64, chunk: &Chunk) -> Result<(), Trouble> {
    let began_anew: String = db
        .prepare_cached("SELECT began_anew FROM runs WHERE id = ?1")?
        .query_row([run], |row| row.get(0))?;
    let mut streams = texts(&began_anew, &format!("run {run}"))?;
    let Some(place) = streams.iter().position(|word| word == chunk.stream.word()) else {
        return Ok(());
    };
    streams.remove(place);
    let values = params![run, chunk.stream.word(), chunk.offset];
    let (bytes, lines): (i64, i64) = db.query_row(
        "SELECT coalesce(sum(length(CAST(line AS BLOB))), 0), count(*) FROM run_lines \
         WHERE run = ?1 AND stream = ?2 AND number >= ?3",
        values,
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    db.execute(
        "DELETE FROM run_lines WHERE run = ?1 AND stream = ?2 AND number >= ?3",
        values,
    )?;
    account_bytes(db, run, -bytes - lines * BESIDE)?;
    db.execute(
        "UPDATE runs SET began_anew = ?2 WHERE id = ?1",
        params![run, Value::from(streams).to_string()],
    )?;
    Ok(())
}

fn step(line: &str) -> Option<i64> {
    let value: Value = serde_json::from_str(line).ok()?;
    value.get("_step")?.as_i64()
}

fn heartbeat(db: &Transaction<'_>, run: i64, post: &Post, now: i64) -> Result<(), Trouble> {
    db.prepare_cached(
        "UPDATE runs SET heartbeat_at = ?2, summary = coalesce(?3, summary), \
         state = CASE WHEN state IN ('pending', 'crashed') THEN 'running' ELSE state END WHERE id = ?1",
    )?
    .execute(params![run, now, post.summary])?;
    Ok(())
}

fn end(db: &Transaction<'_>, run: i64, code: i32, now: i64) -> Result<(), Trouble> {
    let changed = db
        .prepare_cached(
            "UPDATE runs SET state = CASE ?2 WHEN 0 THEN 'finished' ELSE 'failed' END, exit_code = ?2 WHERE id = ?1 AND state IN ('pending', 'running')",
        )?
        .execute(params![run, code])?;
    if changed == 1 {
        end_item(db, run, code, now)?;
    }
    Ok(())
}
