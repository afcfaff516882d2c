//! What the engine remembers of its containers: their last events. It forgets them when it is started anew.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::{ANSWER, End, refusal};
use crate::failure::Result;
use crate::host::process;
use crate::launch::docker;
use crate::queue::Exit;

/// An engine that remembers fewer events than this remembers all since it was started: it keeps the last 256.
const REMEMBERED: usize = 200;

/// How a container ended that is no longer there, from the engine's memory of events since `since`. `None` when it
/// never started, or when the engine has forgotten.
pub fn end_from_events(container: &str, since: Timestamp) -> Result<Option<End>> {
    let command = docker::events(container, &seconds(since), &seconds(Timestamp::now()));
    let output = process::output(&command, ANSWER)?;
    if !output.is_success() {
        return Err(refusal(&output));
    }
    if let Some(end) = end_of_events(&output.stdout) {
        return Ok(Some(end));
    }
    // Podman, under whatever name it runs, is asked in another way, which docker does not know.
    let command = docker::events_of_podman(container, &seconds(since));
    let output = process::output(&command, ANSWER)?;
    Ok(end_of_events(&output.stdout))
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

fn end_of_events(text: &str) -> Option<End> {
    let events: Vec<Event> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
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

/// Was the engine started anew since the container was made, at `since` or later? Then it does not remember making
/// it. `false` when that cannot be told, because so much has happened since.
pub fn was_restarted(container: &str, since: Timestamp) -> Result<bool> {
    let command = docker::all_events(&seconds(since), &seconds(Timestamp::now()));
    let output = process::output(&command, ANSWER)?;
    if !output.is_success() {
        return Err(refusal(&output));
    }
    let made = ["create", "start"].map(|event| format!("{container} {event}"));
    let is_remembered = output
        .stdout
        .lines()
        .any(|line| made.iter().any(|made| made == line));
    if is_remembered || output.stdout.lines().count() >= REMEMBERED {
        return Ok(false);
    }
    // Podman has no engine that runs, and so none that is started anew. It alone knows how this is asked.
    let podmans = process::output(
        &docker::events_of_podman(container, &seconds(since)),
        ANSWER,
    )?;
    Ok(!podmans.is_success())
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
