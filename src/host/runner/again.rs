//! Finds again what an earlier process of the agent started: its container by the id that docker wrote down, or by its
//! labels. And ends what belongs to no item any more.

use std::time::Duration;

use super::{boot, clean_up, container_id, follow, for_a_while, patiently, since, unknown_end};
use crate::failure::{Error, Kind, Result};
use crate::host::engine::{self, End, Labelled};
use crate::host::files;
use crate::host::journal::{Container, Entry, Started};
use crate::host::logs::JobLog;
use crate::host::stop::{Activity, Stop};
use crate::host::strays::{self, Mark};
use crate::launch::docker::{AGENT_LABEL, ITEM_LABEL, RUN_LABEL};

/// How long a container that was made may take to be started by a client that has been killed since.
const STARTING: Duration = Duration::from_secs(1);

/// Whose containers are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    /// The agent, by its name on this machine.
    pub agent: &'a str,
    /// The item.
    pub item: &'a str,
    /// The run.
    pub run: &'a str,
}

/// Finds what was started for an item, follows it to its end, and says how it ended; `None` when it never ran, and
/// nothing of it is left.
pub fn find_again(
    started: &Started,
    labels: Labels<'_>,
    log: &mut JobLog,
    stop: &Stop,
) -> Result<Option<End>> {
    let Some(container) = &started.container else {
        end_process(labels);
        return Err(Error::new(
            Kind::Docker,
            "the agent ended under the job, which is a process of its own machine",
        ));
    };
    end_client(container);
    let Some(id) = patiently(|| look(container, labels))? else {
        return Ok(None);
    };
    let end = end_of(&id, started, log, stop);
    stop.now(Activity::Between);
    end
}

fn end_of(id: &str, started: &Started, log: &mut JobLog, stop: &Stop) -> Result<Option<End>> {
    let mut state = patiently(|| engine::container_state(id))?;
    if state
        .as_ref()
        .is_some_and(engine::ContainerState::is_only_created)
    {
        // The client may have sent the order to start it with its last breath.
        std::thread::sleep(STARTING);
        state = patiently(|| engine::container_state(id))?;
    }
    if state.is_some_and(|state| !state.is_alive() && state.end().is_none()) {
        // In this order: where the agent is killed between the two, the container is found by its labels, and not
        // missed as one of which nobody knows how it ended.
        if let Some(container) = &started.container {
            files::remove(&container.cidfile)?;
        }
        for_a_while(|| engine::remove_container(id)).map_err(|error| {
            Error::new(
                Kind::System,
                format!(
                    "a container that was made for the job and never started is in its way: {error}"
                ),
            )
        })?;
        return Ok(None);
    }
    if let Some(end) = follow::to_the_end(id, started, None, log, stop)? {
        return Ok(Some(end));
    }
    if started.boot != boot() {
        return Err(Error::new(
            Kind::Docker,
            "the machine was started anew, and the job's container is gone",
        ));
    }
    Err(unknown_end(
        "it ended while no agent was there, its container is gone, and the engine has no record",
    ))
}

/// The id of the item's container, which docker wrote down unless it was interrupted.
pub(super) fn look(container: &Container, labels: Labels<'_>) -> Result<Option<String>> {
    if let Some(id) = container_id(&container.cidfile) {
        return Ok(Some(id));
    }
    let wanted = [
        format!("{AGENT_LABEL}={}", labels.agent),
        format!("{ITEM_LABEL}={}", labels.item),
        format!("{RUN_LABEL}={}", labels.run),
    ];
    let found = engine::containers(&wanted)?;
    let Some(found) = found.into_iter().find(|found| found.name == container.name) else {
        return Ok(None);
    };
    // From now on it is known as if docker had written it down.
    files::write_whole(&container.cidfile, found.id.as_bytes())?;
    Ok(Some(found.id))
}

/// Notes under which of these the engine was started anew, while it still knows: with every container that comes and
/// goes it forgets an older one. Gives the entries that it changed.
pub fn note_restarts<'a>(agent: &str, entries: &'a mut [Entry]) -> Result<Vec<&'a Entry>> {
    let mut ids: Vec<(String, &'a mut Entry)> = entries
        .iter_mut()
        .filter_map(|entry| {
            let started = entry.started.as_ref()?;
            let id = container_id(&started.container.as_ref()?.cidfile)?;
            (!started.engine_restarted).then_some((id, entry))
        })
        .collect();
    let first = ids.iter().filter_map(|(_, entry)| entry.started.as_ref());
    let Some(first) = first.map(since).min() else {
        return Ok(Vec::new());
    };
    let memory = engine::Memory::since(first)?;
    let all = engine::containers(&[format!("{AGENT_LABEL}={agent}")])?;
    let is_alive = |id: &str| all.iter().any(|found| found.id == id && found.is_alive());
    let mut changed = Vec::new();
    for (id, entry) in ids.drain(..) {
        let Some(started) = &mut entry.started else {
            continue;
        };
        // Asked alone, it is known whether the engine is one that remembers.
        if memory.lacks_start(&id, since(started))
            && !is_alive(&id)
            && engine::was_restarted(&id, since(started))?
        {
            started.engine_restarted = true;
            changed.push(&*entry);
        }
    }
    Ok(changed)
}

/// Docker's client that an earlier process left: it must start nothing any more. Its container goes on without it.
fn end_client(container: &Container) {
    strays::end(Mark::Argument(&container.cidfile.to_string_lossy()));
}

fn end_process(labels: Labels<'_>) {
    let mark = process_mark(labels.agent, labels.item);
    strays::end(Mark::Variable(&format!("{}={mark}", strays::VARIABLE)));
}

/// By what the process of an item is known that runs on the agent's own machine.
pub fn process_mark(agent: &str, item: &str) -> String {
    format!("{agent}/{item}")
}

/// Ends what was started for an item that is not the agent's any more, and removes it.
pub fn abandon(started: &Started, labels: Labels<'_>, grace: Duration) -> Result<()> {
    let Some(container) = &started.container else {
        end_process(labels);
        return Ok(());
    };
    end_client(container);
    if let Some(id) = patiently(|| look(container, labels))? {
        patiently(|| engine::stop_container(&id, grace))?;
    }
    clean_up(started, labels, false);
    Ok(())
}

/// Ends the containers of this agent that belong to none of `items`: after `grace`, and said. One that has ended is
/// left to people, because a queue's config may say that containers are kept.
pub fn end_orphans(agent: &str, items: &[String], grace: Duration) -> Result<()> {
    let labels = [format!("{AGENT_LABEL}={agent}")];
    let all = engine::containers(&labels)?;
    let orphans = all.into_iter().filter(|found| !items.contains(&found.item));
    for orphan in orphans {
        if let Err(error) = end_orphan(&orphan, grace) {
            // What docker will not end is left; a docker that does not answer is asked again for all of them.
            engine::version()?;
            log::error!(
                "the container {} could not be ended, and is left: {error}",
                orphan.name
            );
        }
    }
    Ok(())
}

fn end_orphan(orphan: &Labelled, grace: Duration) -> Result<()> {
    let Labelled {
        id,
        name,
        state,
        item,
    } = orphan;
    match state.as_str() {
        "exited" | "dead" | "removing" => Ok(()),
        "created" => {
            log::warn!(
                "the container {name} of item {item} was made and never started, and the item is not in hand: removing it"
            );
            engine::remove_container(id)
        }
        _ => {
            log::warn!(
                "the container {name} of item {item} runs, and the item is not in hand: stopping it"
            );
            engine::stop_container(id, grace).map(drop)
        }
    }
}
