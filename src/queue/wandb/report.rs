//! What is reported of an item, as it lies in the outbox, and how each report is delivered (PROTOCOL section 6).
//! A report is a small machine: a delivery ends it, turns it into the next step, or asks for a later try.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::admin::RemoteItem;
use super::client::{Client, RUN_STATE, text};
use super::files::{AgentRuns, File};
use super::{Ack, Held};
use crate::failure::{Failure, Kind, Result, Stage};
use crate::queue::{Ended, Exit, ItemId, Outcome, StopReason};

/// The version of the files in the outbox. A newer program reads older ones for ever.
pub const VERSION: u32 = 1;

/// After a container ended its run is looked for at 0, 1, 3, 7, 15, 31 and 63 s, as W&B's own agent does: these are
/// the pauses between, in units of [`Timing::run_check`](super::transport::Timing::run_check).
const LOOKS: [u32; 6] = [1, 2, 4, 8, 16, 32];

/// How much of a job's last lines a message quotes. The file beside it holds more.
const QUOTED_LINES: usize = 10;
const QUOTED_CHARS: usize = 2000;

const FAIL: &str = "mutation failRunQueueItem($runQueueItemId: ID!, $message: String!, $stage: String!, $filePaths: [String!]) {
  failRunQueueItem(input: {runQueueItemId: $runQueueItemId, message: $message, stage: $stage, filePaths: $filePaths}) { success }
}";

const WARN: &str = "mutation updateRunQueueItemWarning($runQueueItemId: ID!, $message: String!, $stage: String!, $filePaths: [String!]) {
  updateRunQueueItemWarning(input: {runQueueItemId: $runQueueItemId, message: $message, stage: $stage, filePaths: $filePaths}) { success }
}";

/// One file of the outbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub version: u32,
    /// The server that it is for.
    pub server: String,
    /// The entity of the queue, where the agent and its hidden run are.
    pub entity: String,
    /// The agent that had the item.
    pub agent: String,
    pub item: String,
    pub work: Work,
}

/// What there is to say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// The item could not be run.
    Fail {
        stage: String,
        message: String,
        files: Vec<File>,
        claim: Claim,
    },
    /// Something its owner should know.
    Warn { stage: String, message: String },
    /// The container has ended: the item failed, unless its run appears.
    LookForRun {
        entity: String,
        project: String,
        run_id: String,
        message: String,
        files: Vec<File>,
    },
    /// The item is failed; the files that the failure names are still to be uploaded.
    Attach { files: Vec<File> },
}

/// Whose an item was when it failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    pub queue: String,
    /// The run of the ack, if there was one.
    pub run_id: Option<String>,
    /// The ack was answered with yes.
    pub certain: bool,
    /// When it was taken: without an ack it is ours for the length of a lease.
    pub taken_at: Timestamp,
}

/// What comes after a delivery.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Nothing: the report has served.
    Done,
    /// This, at the same place in the order.
    Step(Work),
    /// The same again after a pause.
    Later(Duration),
}

/// What is to be reported of an end; `None` when the item is better left alone.
pub(super) fn of_end(item: &ItemId, held: &Held, ended: &Ended) -> Option<Work> {
    let claim = Claim {
        queue: held.queue.clone(),
        run_id: held.run_id.clone(),
        certain: held.ack == Ack::Claimed,
        taken_at: held.taken_at,
    };
    let fail = |stage: Stage, message: String| Work::Fail {
        stage: stage.as_str().to_owned(),
        files: files(item, &message, &ended.details),
        message,
        claim: claim.clone(),
    };
    let look = |message: String| match &held.run_id {
        None => fail(Stage::Run, message),
        Some(run_id) => Work::LookForRun {
            entity: held.entity.clone(),
            project: held.project.clone(),
            run_id: run_id.clone(),
            files: files(item, &message, &ended.details),
            message,
        },
    };
    match &ended.outcome {
        Outcome::Failed(Failure { stage, cause }) => {
            let hint = cause.hint.as_ref().map(|hint| format!("\nhint: {hint}"));
            Some(fail(
                *stage,
                format!("{}{}", cause.message, hint.unwrap_or_default()),
            ))
        }
        Outcome::Exited(exit) => Some(look(no_run(*exit, ended))),
        // An item that was not acknowledged goes back to its queue by itself, for the next agent.
        Outcome::Stopped(StopReason::AgentStopped) if held.run_id.is_none() => None,
        Outcome::Stopped(reason) => Some(look(format!(
            "The job was stopped before its run appeared: {reason}{}",
            last_lines(&ended.details)
        ))),
    }
}

/// The two sentences of W&B's own agent, by which people search, and then what they need to know.
fn no_run(exit: Exit, ended: &Ended) -> String {
    let sentence = if exit.code == 0 {
        "The submitted job exited successfully but failed to call wandb.init"
    } else {
        "The submitted run was not successfully started"
    };
    let after = ended
        .duration
        .map(|duration| format!(" after {:.1} s", duration.as_secs_f64()))
        .unwrap_or_default();
    format!("{sentence}: {exit}{after}{}", last_lines(&ended.details))
}

fn last_lines(details: &str) -> String {
    let lines: Vec<&str> = details.trim_end().lines().collect();
    if lines.is_empty() {
        return String::new();
    }
    let text = lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n");
    let surplus = text.chars().count().saturating_sub(QUOTED_CHARS);
    let text: String = text.chars().skip(surplus).collect();
    format!("\nThe last lines of its log:\n{text}")
}

/// The file that goes with a failure: nothing when there is no more to say than the message does.
fn files(item: &ItemId, message: &str, details: &str) -> Vec<File> {
    if details.trim().is_empty() {
        return Vec::new();
    }
    vec![File {
        path: format!("{item}/error/error.log"),
        text: format!("{message}\n\n{details}"),
    }]
}

impl Report {
    /// Delivers the report once. `tries` counts the answers to this step that asked for a later try. An error that is
    /// [unreachable](super::transport::is_unreachable) or [refused](super::transport::is_refused) leaves the report
    /// as it is; any other one is final.
    pub(super) fn deliver(
        &self,
        client: &Client,
        runs: &mut AgentRuns,
        tries: usize,
    ) -> Result<Next> {
        match &self.work {
            Work::Fail {
                stage,
                message,
                files,
                claim,
            } => {
                match self.may_fail(client, claim, tries)? {
                    Verdict::Fail => {}
                    Verdict::Wait(pause) => return Ok(Next::Later(pause)),
                    Verdict::Leave(why) => {
                        log::warn!("item {}: its failure is not reported: {why}", self.item);
                        return Ok(Next::Done);
                    }
                }
                let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
                self.mutate(client, FAIL, "failRunQueueItem", stage, message, &paths)?;
                Ok(if files.is_empty() {
                    Next::Done
                } else {
                    Next::Step(Work::Attach {
                        files: files.clone(),
                    })
                })
            }
            Work::Warn { stage, message } => {
                self.mutate(
                    client,
                    WARN,
                    "updateRunQueueItemWarning",
                    stage,
                    message,
                    &[],
                )?;
                Ok(Next::Done)
            }
            Work::LookForRun {
                entity,
                project,
                run_id,
                message,
                files,
            } => {
                let variables = json!({"entity": entity, "project": project, "name": run_id});
                let data = client.transport.once(RUN_STATE, &variables)?;
                let state = text(&data["project"]["run"], "state");
                if state.is_some_and(|state| state != "pending") {
                    return Ok(Next::Done);
                }
                if let Some(pause) = LOOKS.get(tries) {
                    return Ok(Next::Later(client.transport.timing.run_check * *pause));
                }
                Ok(Next::Step(Work::Fail {
                    stage: Stage::Run.as_str().to_owned(),
                    message: message.clone(),
                    files: files.clone(),
                    claim: Claim {
                        queue: String::new(),
                        run_id: Some(run_id.clone()),
                        certain: true,
                        taken_at: Timestamp::now(),
                    },
                }))
            }
            Work::Attach { files } => {
                runs.attach(client, &self.entity, &self.agent, files)?;
                Ok(Next::Done)
            }
        }
    }

    fn mutate(
        &self,
        client: &Client,
        document: &str,
        field: &str,
        stage: &str,
        message: &str,
        paths: &[&str],
    ) -> Result<()> {
        let paths = if paths.is_empty() {
            Value::Null
        } else {
            json!(paths)
        };
        let variables = json!({
            "runQueueItemId": self.item,
            "message": message,
            "stage": stage,
            "filePaths": paths,
        });
        let data = client.transport.once(document, &variables)?;
        if data[field]["success"] != json!(true) {
            log::warn!("item {}: {field} was answered with no", self.item);
        }
        Ok(())
    }

    /// May this item still be failed? An item that was never surely ours is ours for a lease; after that it may run
    /// elsewhere, and failing it would end somebody else's job.
    fn may_fail(&self, client: &Client, claim: &Claim, tries: usize) -> Result<Verdict> {
        let lease = client.transport.timing.lease;
        let age = Duration::try_from(Timestamp::now().duration_since(claim.taken_at));
        // A fifth of the lease is left for the request itself; a clock that was set back proves nothing.
        if claim.certain || age.is_ok_and(|age| age < lease * 4 / 5) {
            return Ok(Verdict::Fail);
        }
        let item = ItemId(self.item.clone());
        match client.find_item(&item, [claim.queue.as_str()]) {
            Ok(found) => Ok(judge(found.as_ref(), claim, tries, lease)),
            Err(error) if error.kind == Kind::Input => Ok(Verdict::Leave(format!(
                "its lease has ended, and how it stands cannot be read: {error}"
            ))),
            Err(error) => Err(error),
        }
    }
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Fail,
    Wait(Duration),
    Leave(String),
}

fn judge(found: Option<&RemoteItem>, claim: &Claim, tries: usize, lease: Duration) -> Verdict {
    let Some(found) = found else {
        return Verdict::Leave("it is no longer in the queue".to_owned());
    };
    match &found.run_id {
        Some(run_id) if claim.run_id.as_ref() == Some(run_id) => Verdict::Fail,
        Some(_) => Verdict::Leave("somebody else runs it".to_owned()),
        None if found.state == "LEASED" && tries == 0 => Verdict::Wait(lease * 5 / 4),
        // Leased for longer than a lease lasts: this server does not end leases, so it is still ours.
        None if found.state == "LEASED" => Verdict::Fail,
        None => Verdict::Leave(format!("its lease has ended, and it is {}", found.state)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_may_run_elsewhere_is_left_alone() {
        let lease = Duration::from_secs(60);
        let claim = |run_id: Option<&str>| Claim {
            queue: "q".to_owned(),
            run_id: run_id.map(str::to_owned),
            certain: false,
            taken_at: Timestamp::UNIX_EPOCH,
        };
        let item = |state: &str, run_id: Option<&str>| RemoteItem {
            id: ItemId("i".to_owned()),
            queue: "q".to_owned(),
            state: state.to_owned(),
            run_id: run_id.map(str::to_owned),
        };
        for (found, ours, tries, fails) in [
            (item("CLAIMED", Some("us")), Some("us"), 0, Some(true)),
            (item("CLAIMED", Some("them")), Some("us"), 0, Some(false)),
            (item("CLAIMED", Some("them")), None, 0, Some(false)),
            (item("PENDING", None), None, 0, Some(false)),
            (item("LEASED", None), None, 0, None),
            (item("LEASED", None), None, 1, Some(true)),
        ] {
            let verdict = judge(Some(&found), &claim(ours), tries, lease);
            let expected = match verdict {
                Verdict::Fail => Some(true),
                Verdict::Leave(_) => Some(false),
                Verdict::Wait(_) => None,
            };
            assert_eq!(expected, fails, "{found:?} {ours:?} {tries}");
        }
    }

    #[test]
    fn the_message_quotes_the_last_lines_whole_characters_only() {
        let lines: Vec<String> = (0..30).map(|n| format!("línea {n}")).collect();
        let details = lines.join("\n");
        let quoted = last_lines(&details);
        assert!(quoted.ends_with("línea 29"), "{quoted}");
        assert!(!quoted.contains("línea 19"), "{quoted}");
        let long = last_lines(&"é".repeat(10_000));
        assert_eq!(long.matches('é').count(), QUOTED_CHARS);
        assert_eq!(last_lines("\n\n"), "");
    }

    /// The first version of the outbox's files. It is read for ever.
    #[test]
    fn a_report_of_version_1_is_read() {
        let text = r#"{"version":1,"server":"https://w.example","entity":"me","agent":"a","item":"i","work":{"fail":{
            "stage":"agent","message":"m","files":[{"path":"i/error/error.log","text":"t"}],
            "claim":{"queue":"q","run_id":null,"certain":false,"taken_at":"2026-01-01T00:00:00Z"}}}}"#;
        let report: Report = serde_json::from_str(text).expect("a report");
        let again = serde_json::to_string(&report).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Report>(&again).expect("a report"),
            report
        );
        for work in [
            r#"{"warn":{"stage":"agent","message":"m"}}"#,
            r#"{"look_for_run":{"entity":"e","project":"p","run_id":"r","message":"m","files":[]}}"#,
            r#"{"attach":{"files":[]}}"#,
        ] {
            serde_json::from_str::<Work>(work).expect(work);
        }
    }
}
