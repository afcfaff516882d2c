//! What the engine remembers of its containers: their last events. It forgets them when it is started anew.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use serde::Deserialize;

use super::{ANSWER, End, engine_trouble, explain, refusal};
use crate::failure::Result;
use crate::host::process;
use crate::launch::docker;
use crate::queue::Exit;

/// So many events an engine keeps: one that tells of fewer tells of all since it was started.
const KEPT: usize = 256;

/// How a container ended that is no longer there, from the engine's memory of events since `since`. `None` when it
/// never started, or when the engine has forgotten.
pub fn end_from_events(container: &str, since: Timestamp) -> Result<Option<End>> {
    if let Some(end) = end_of_events(&events(container, since)?) {
        return Ok(Some(end));
    }
    // Podman, under whatever name it runs, is asked in another way, which docker does not know.
    let command = docker::events_of_podman(container, &seconds(since));
    let output = process::output(&command, ANSWER)?;
    Ok(end_of_events(&output.stdout))
}

/// Was docker told to send a container this signal, at `since` or later? So it ends one for `docker stop`, `docker kill`
/// and `docker rm --force`.
pub fn was_sent(container: &str, signal: i32, since: Timestamp) -> Result<bool> {
    let signal = signal.to_string();
    Ok(read(&events(container, since)?).iter().any(|event| {
        event.action == "kill" && event.actor.attributes.get("signal") == Some(&signal)
    }))
}

/// What docker remembers of a container since `since`, an event a line.
fn events(container: &str, since: Timestamp) -> Result<String> {
    // A clock that was set back meanwhile must not make the question one about the future, which docker refuses.
    let now = Timestamp::now();
    let since = since.min(now - 1.minute());
    let command = docker::events(container, &seconds(since), &seconds(now));
    let output = process::output(&command, ANSWER)?;
    if !output.is_success() {
        return Err(refusal(&output));
    }
    Ok(output.stdout)
}

/// A time as docker takes it.
pub fn seconds(time: Timestamp) -> String {
    format!("{}.{:09}", time.as_second(), time.subsec_nanosecond())
}

/// An event in docker's words, or in podman's.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "Action", default)]
    action: String,
    #[serde(rename = "Status", default)]
    status: String,
    #[serde(rename = "Actor", default)]
    actor: Actor,
    #[serde(rename = "ContainerExitCode")]
    exit_code: Option<i32>,
    /// In nanoseconds.
    #[serde(rename = "timeNano", default)]
    time: i64,
    #[serde(rename = "Time")]
    podmans_time: Option<Timestamp>,
}

impl Event {
    fn is(&self, docker: &str, podman: &str) -> bool {
        self.action == docker || self.status == podman
    }

    fn exit_code(&self) -> Option<i32> {
        let dockers = self.actor.attributes.get("exitCode");
        dockers.map_or(self.exit_code, |code| code.parse().ok())
    }

    fn nanoseconds(&self) -> i128 {
        self.podmans_time
            .map_or(self.time.into(), Timestamp::as_nanosecond)
    }
}

#[derive(Default, Deserialize)]
struct Actor {
    #[serde(rename = "Attributes", default)]
    attributes: BTreeMap<String, String>,
}

fn read(text: &str) -> Vec<Event> {
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn end_of_events(text: &str) -> Option<End> {
    let events = read(text);
    let started = events.iter().find(|event| event.is("start", "start"));
    let is_made_here = events.iter().any(|event| event.is("create", "create"));
    // An engine that was started anew under the container (`live-restore`) remembers neither, but how it ended.
    if started.is_none() && is_made_here {
        return None;
    }
    let died = events.iter().rev().find(|event| event.is("die", "died"))?;
    let lasted = started.map(|started| died.nanoseconds() - started.nanoseconds());
    Some(End {
        exit: Exit {
            code: died.exit_code()?,
            oom_killed: events.iter().any(|event| event.is("oom", "oom")),
        },
        duration: lasted.map(|lasted| Duration::from_nanos(u64::try_from(lasted).unwrap_or(0))),
    })
}

/// What the engine remembers of its containers. It forgets everything when it is started anew.
pub struct Memory {
    /// Time in nanoseconds since 1970, container, event; oldest first. `None`: the engine answers, and does not tell.
    events: Option<Vec<(i128, String, String)>>,
}

impl Memory {
    /// What it remembers since some time.
    pub fn since(since: Timestamp) -> Result<Memory> {
        let command = docker::all_events(&seconds(since), &seconds(Timestamp::now()));
        let output = process::output(&command, ANSWER)?;
        if output.is_success() {
            return Ok(Memory::read(&output.stdout));
        }
        match engine_trouble(&explain(&output.stderr)) {
            Some(error) => Err(error),
            None => Ok(Memory { events: None }),
        }
    }

    fn read(text: &str) -> Memory {
        let events = text.lines().filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            let time = words.next()?.parse().ok()?;
            Some((time, words.next()?.to_owned(), words.next()?.to_owned()))
        });
        Memory {
            events: Some(events.collect()),
        }
    }

    /// Has it forgotten how this container began, which was at `since` or later? `false` when that cannot be told,
    /// because so much has happened since.
    pub fn lacks_start(&self, container: &str, since: Timestamp) -> bool {
        self.is_whole(since) && !self.has(container, "create") && !self.has(container, "start")
    }

    /// Has it nothing of this container's end, which was at `since` or later? `false` when that cannot be told.
    pub fn lacks_end(&self, container: &str, since: Timestamp) -> bool {
        self.is_whole(since) && !self.has(container, "die")
    }

    fn has(&self, container: &str, wanted: &str) -> bool {
        let mut events = self.events.iter().flatten();
        events.any(|(_, of, event)| of == container && event == wanted)
    }

    fn is_whole(&self, since: Timestamp) -> bool {
        self.events.as_ref().is_some_and(|events| {
            let oldest = events.first();
            events.len() < KEPT || oldest.is_some_and(|(time, ..)| *time < since.as_nanosecond())
        })
    }
}

/// Was the engine started anew since the container was made, at `since` or later? Then it does not remember making
/// it. `false` when that cannot be told.
pub fn was_restarted(container: &str, since: Timestamp) -> Result<bool> {
    if !Memory::since(since)?.lacks_start(container, since) {
        return Ok(false);
    }
    // Podman has no engine that runs, and so none that is started anew. It alone knows how this is asked.
    let podmans = process::output(
        &docker::events_of_podman(container, &seconds(since)),
        ANSWER,
    )?;
    Ok(!podmans.is_success())
}

/// May the end of a container's output be lost, which nobody saw run after the engine was started anew? It ran on
/// without the engine (`live-restore`), and what it printed meanwhile is read later only from one that still runs.
pub fn may_have_ended_without_the_engine(container: &str, since: Timestamp) -> Result<bool> {
    if !Memory::since(since)?.lacks_start(container, since) {
        return Ok(false);
    }
    let output = process::output(&docker::live_restore(), ANSWER)?;
    Ok(output.is_success() && output.stdout.trim() == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_end_of_a_removed_container_from_its_events() {
        let event = |action: &str, attributes: &str, time: u64| {
            format!(
                r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"x","Attributes":{{{attributes}}}}},"timeNano":{time}}}"#
            )
        };
        let all = [
            event("create", "", 1),
            event("start", "", 1_000_000_000),
            event("oom", "", 2_000_000_000),
            event("die", r#""exitCode":"137","name":"t3""#, 3_000_000_000),
            event("destroy", "", 4),
        ];
        let end = end_of_events(&all.join("\n")).expect("an end");
        assert_eq!(
            end,
            End {
                exit: Exit {
                    code: 137,
                    oom_killed: true
                },
                duration: Some(Duration::from_secs(2))
            }
        );
        assert_eq!(
            end_of_events(&[all[0].as_str(), all[4].as_str()].join("\n")),
            None,
            "never started"
        );
        assert_eq!(end_of_events("not json\n"), None);
        let end = end_of_events(&all[3]).expect("an end, of a start that is forgotten");
        assert_eq!((end.exit.code, end.duration), (137, None));
    }

    #[test]
    fn an_engine_that_has_kept_all_events_has_forgotten_only_by_a_restart() {
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        let filler = |count: usize, second: i64| {
            let line = |n| format!("{} f{n} exec_create: sh -c true\n", second * 1_000_000_000);
            (0..count).map(line).collect::<String>()
        };
        let whole = Memory::read(&format!(
            "5000000000 a create\n6000000000 b die\n{}",
            filler(253, 7)
        ));
        assert!(!whole.lacks_start("a", at(1)) && whole.lacks_end("a", at(1)));
        assert!(whole.lacks_start("b", at(1)) && !whole.lacks_end("b", at(1)));
        // Full: what was before the oldest is not known.
        let full = Memory::read(&filler(256, 7));
        assert!(!full.lacks_start("a", at(1)) && !full.lacks_end("a", at(1)));
        assert!(full.lacks_start("a", at(8)));
        let silent = Memory { events: None };
        assert!(!silent.lacks_start("a", at(8)) && !silent.lacks_end("a", at(8)));
    }

    #[test]
    fn reads_podmans_events_too() {
        // As podman 4.3 prints them.
        let text = r#"{"ID":"c7","Image":"localhost/job:1","Name":"t3","Status":"create","Time":"2026-11-22T05:17:44.1Z","Type":"container","Attributes":{}}
{"ID":"c7","Image":"localhost/job:1","Name":"t3","Status":"start","Time":"2026-11-22T05:17:44.5Z","Type":"container","Attributes":{}}
{"ContainerExitCode":9,"ID":"c7","Image":"localhost/job:1","Name":"t3","Status":"died","Time":"2026-11-22T05:17:46Z","Type":"container","Attributes":{}}
{"ID":"c7","Image":"localhost/job:1","Name":"t3","Status":"remove","Time":"2026-11-22T05:18:05Z","Type":"container","Attributes":{}}"#;
        let end = end_of_events(text).expect("an end");
        assert_eq!((end.exit.code, end.exit.oom_killed), (9, false));
        assert_eq!(end.duration, Some(Duration::from_millis(1_500)));
    }
}
