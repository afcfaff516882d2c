//! What a program says of its run: its configuration, its names, its last values. A run that begins again under its
//! old name begins a new life; one that is only changed does not.

use rusqlite::{Transaction, params};

use super::super::trouble::Trouble;
use super::super::{LocalQueue, files, now};
use super::{Run, make_pending, run_number, run_of_number};
use crate::failure::{Error, Kind, Result};

/// What changes in a run. `None` leaves a thing as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunChange {
    /// What it is called.
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
    pub tags: Option<Vec<String>>,
    /// The group that it belongs to.
    pub group: Option<String>,
    /// What kind of work it is.
    pub job_type: Option<String>,
    /// The sweep that it belongs to.
    pub sweep: Option<String>,
    /// The git commit of its program.
    pub commit: Option<String>,
    /// Where its program comes from.
    pub repo: Option<String>,
    /// The program.
    pub program: Option<String>,
    /// The machine that it is on.
    pub host: Option<String>,
}

impl LocalQueue {
    /// The run of that name: made when it is new, and running from now on, unless it is to be `pending`. Gives whether
    /// it was made just now. A run whose item was claimed is no longer pending; one that had ended begins anew.
    pub fn begin_run(
        &self,
        (entity, project, name): (&str, &str, &str),
        user: &str,
        is_pending: bool,
        change: &RunChange,
    ) -> Result<(Run, bool)> {
        self.write(|db| {
            let now = now();
            let known = run_number(db, entity, project, name)?;
            let id = match known {
                Some(id) => id,
                None => make_pending(db, entity, project, name, user, now)?,
            };
            if !is_pending {
                begin(db, id, user, now)?;
            }
            account(db, id, change)?;
            Ok((need(db, id)?, known.is_none()))
        })
    }

    /// Changes what is known of a run, and neither its state nor its heartbeat.
    pub fn change_run(&self, id: i64, change: &RunChange) -> Result<Run> {
        self.write(|db| {
            account(db, id, change)?;
            need(db, id)
        })
    }

    /// Sets a run back to `pending`, or gives it up as `failed`. `false`: it is in no state from which that can be.
    pub fn set_run_state(&self, id: i64, state: &str) -> Result<bool> {
        let from = match state {
            "pending" => "'running', 'failed', 'crashed'",
            "failed" => "'pending', 'running'",
            _ => return Ok(false),
        };
        self.write(|db| {
            let changed = db.execute(
                &format!("UPDATE runs SET state = ?2 WHERE id = ?1 AND state IN ({from})"),
                params![id, state],
            )?;
            if changed == 1 && state == "failed" {
                super::end_item(db, id, 1, now())?;
            }
            Ok(changed == 1)
        })
    }

    /// Forgets a run with its lines and files, and with its artifacts when those are to go too.
    pub fn delete_run(&self, id: i64, with_artifacts: bool) -> Result<()> {
        let folder = self.files_path();
        self.write(|db| {
            if with_artifacts {
                db.execute("DELETE FROM artifacts WHERE run = ?1", [id])?;
            }
            db.execute("UPDATE items SET run = NULL WHERE run = ?1", [id])?;
            db.execute("DELETE FROM runs WHERE id = ?1", [id])?;
            files::sweep(db, &folder)
        })
    }

    /// Runs that gave no sign of life for so long have crashed, and so have their items. Gives how many.
    pub fn give_up_lost_runs(&self, silence: std::time::Duration) -> Result<usize> {
        let lost = "SELECT id FROM runs WHERE state = 'running' AND heartbeat_at < ?1";
        let before = |now: i64| now.saturating_sub(super::super::millis(silence));
        let any: bool = self.read(|db| {
            Ok(
                db.query_row(&format!("SELECT EXISTS ({lost})"), [before(now())], |row| {
                    row.get(0)
                })?,
            )
        })?;
        if !any {
            return Ok(0);
        }
        self.write(|db| {
            let now = now();
            let runs: Vec<i64> = db
                .prepare(lost)?
                .query_map([before(now)], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            for run in &runs {
                crash(db, *run, silence, now)?;
            }
            Ok(runs.len())
        })
    }
}

fn crash(
    db: &Transaction<'_>,
    run: i64,
    silence: std::time::Duration,
    now: i64,
) -> Result<(), Trouble> {
    db.execute("UPDATE runs SET state = 'crashed' WHERE id = ?1", [run])?;
    db.execute(
        "UPDATE items SET state = 'FAILED', stage = 'run', message = ?2, ended_at = ?3, stop_requested = 0 \
         WHERE run = ?1 AND state = 'CLAIMED'",
        params![
            run,
            format!("the run gave no sign of life for {} s", silence.as_secs()),
            now
        ],
    )?;
    Ok(())
}

/// The states that a run does not leave by itself.
const ENDED: &str = "('finished', 'failed', 'crashed', 'killed')";

fn begin(db: &Transaction<'_>, id: i64, user: &str, now: i64) -> Result<(), Trouble> {
    db.prepare_cached(&format!(
        "UPDATE runs SET began_anew = '[\"history\",\"events\",\"output\"]', stopped = 0, exit_code = NULL \
         WHERE id = ?1 AND state IN {ENDED}"
    ))?
    .execute([id])?;
    db.prepare_cached(
        "UPDATE runs SET state = 'running', heartbeat_at = ?2, user = CASE user WHEN '' THEN ?3 ELSE user END \
         WHERE id = ?1",
    )?
    .execute(params![id, now, user])?;
    Ok(())
}

fn account(db: &Transaction<'_>, id: i64, change: &RunChange) -> Result<(), Trouble> {
    let tags = change
        .tags
        .as_ref()
        .map(|tags| serde_json::Value::from(tags.clone()).to_string());
    db.prepare_cached(
        "UPDATE runs SET display_name = coalesce(?2, display_name), config = coalesce(?3, config), \
         summary = coalesce(?4, summary), notes = coalesce(?5, notes), \
         description = coalesce(?6, description), tags = coalesce(?7, tags), \
         group_name = coalesce(?8, group_name), job_type = coalesce(?9, job_type), \
         sweep = coalesce(?10, sweep), git_commit = coalesce(?11, git_commit), repo = coalesce(?12, repo), \
         program = coalesce(?13, program), host = coalesce(?14, host) WHERE id = ?1",
    )?
    .execute(params![
        id,
        change.display_name,
        change.config,
        change.summary,
        change.notes,
        change.description,
        tags,
        change.group,
        change.job_type,
        change.sweep,
        change.commit,
        change.repo,
        change.program,
        change.host,
    ])?;
    Ok(())
}

fn need(db: &Transaction<'_>, id: i64) -> Result<Run, Trouble> {
    run_of_number(db, id)?
        .ok_or_else(|| Error::new(Kind::NotFound, format!("no run with the number {id}")).into())
}
