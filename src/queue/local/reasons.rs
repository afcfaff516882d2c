//! Why an item does not move on, in words for whoever waits for it. Reads; changes nothing.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Transaction, named_params};

use super::agents::{self, Agent};
use super::rows::{WAITING, definition, priority_number, row_number};
use super::trouble::Trouble;
use crate::queue::{Item, ItemState};

/// Why a pending item waits, or that a running one's agent has not been heard of.
pub fn why_waiting(
    db: &Transaction<'_>,
    item: &Item,
    path: &Path,
    quiet: Duration,
    now: i64,
) -> Result<Option<String>, Trouble> {
    let agents = agents::all(db, now)?;
    match item.state {
        ItemState::Pending => {}
        ItemState::Claimed | ItemState::Leased => {
            let agent = agents
                .iter()
                .find(|agent| Some(&agent.id) == item.agent.as_ref());
            return Ok(silence(item, agent, quiet, now));
        }
        _ => return Ok(None),
    }
    if definition(db, &item.queue)?.paused {
        return Ok(Some(format!(
            "the queue is paused; `launch-agent queue resume {}` ends that",
            item.queue
        )));
    }
    let (alive, gone): (Vec<_>, Vec<_>) = agents
        .into_iter()
        .filter(|agent| agent.polls(&item.queue))
        .partition(|agent| agent.is_alive(now, quiet));
    if alive.is_empty() {
        return Ok(Some(nobody_polls(item, gone.first(), path, now)));
    }
    let behind = match count_before(db, item, now)? {
        0 => None,
        1 => Some("behind 1 item".to_owned()),
        count => Some(format!("behind {count} items")),
    };
    let reasons: Vec<String> = busy(&alive).into_iter().chain(behind).collect();
    if reasons.is_empty() {
        return Ok(Some("it is next".to_owned()));
    }
    Ok(Some(reasons.join(", ")))
}

fn nobody_polls(item: &Item, last: Option<&Agent>, path: &Path, now: i64) -> String {
    let seen = match last {
        Some(agent) => format!(
            "no agent polls the queue any more (the last, on {}, was seen {} ago)",
            agent.hostname,
            ago(agent, now)
        ),
        None => "no agent has ever polled the queue".to_owned(),
    };
    format!(
        "{seen}; start one with `launch-agent -q {} --local {}`",
        quoted(&item.queue),
        quoted(&path.to_string_lossy())
    )
}

fn quoted(word: &str) -> String {
    shlex::try_quote(word).map_or_else(|_| word.to_owned(), std::borrow::Cow::into_owned)
}

/// Are all slots of these agents taken? One without a limit always has room.
fn busy(agents: &[Agent]) -> Option<String> {
    let slots = agents
        .iter()
        .map(|agent| agent.max_jobs)
        .sum::<Option<usize>>()?;
    let running: usize = agents.iter().map(|agent| agent.running).sum();
    (running >= slots).then(|| {
        format!("all slots of the agents that poll the queue are busy ({running} of {slots})")
    })
}

fn count_before(db: &Transaction<'_>, item: &Item, now: i64) -> Result<i64, Trouble> {
    Ok(db.query_row(
        &format!(
            "SELECT count(*) FROM items WHERE queue = :queue AND {WAITING} AND (priority, position) < \
             (:priority, (SELECT position FROM items WHERE id = :id))"
        ),
        named_params! {
            ":queue": item.queue,
            ":now": now,
            ":priority": priority_number(item.priority.unwrap_or_default()),
            ":id": row_number(&item.id),
        },
        |row| row.get(0),
    )?)
}

fn silence(item: &Item, agent: Option<&Agent>, quiet: Duration, now: i64) -> Option<String> {
    let way_out = format!("`launch-agent item cancel {}` gives the item up", item.id);
    let Some(agent) = agent else {
        return Some(format!("its agent is not known any more; {way_out}"));
    };
    if agent.is_alive(now, quiet) {
        return None;
    }
    if agent.is_gone {
        return Some(format!(
            "its agent on {} has ended without reporting it; started again, it takes the item up; {way_out}",
            agent.place()
        ));
    }
    Some(format!(
        "its agent on {} was last seen {} ago",
        agent.hostname,
        ago(agent, now)
    ))
}

fn ago(agent: &Agent, now: i64) -> String {
    let silent = now.saturating_sub(agent.seen_at.as_millisecond());
    in_words(Duration::from_millis(u64::try_from(silent).unwrap_or(0)))
}

/// A duration as people say it, in its largest unit: `40 seconds`, `3 hours`.
fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_words() {
        for (seconds, words) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (7_300, "2 hours"),
            (90_000, "1 day"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}
