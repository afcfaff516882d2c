//! What is reported of an item: by which call, when, and with which file.

use std::time::Duration;

use launch_agent::failure::{Error, Failure, Kind, Stage};
use launch_agent::queue::{Ended, Exit, Outcome, Queue, StopReason};
use serde_json::json;

use super::{Place, pop, spec};
use crate::common::peer::How;

pub fn failed(details: &str) -> Ended {
    Ended {
        outcome: Outcome::Failed(Failure {
            stage: Stage::Build,
            cause: Error::new(Kind::Docker, "cannot pull `job:1` ✗").hint("push it first"),
        }),
        duration: None,
        details: details.to_owned(),
    }
}

pub fn exited(code: i32, details: &str) -> Ended {
    Ended {
        outcome: Outcome::Exited(Exit {
            code,
            oom_killed: false,
        }),
        duration: Some(Duration::from_millis(1500)),
        details: details.to_owned(),
    }
}

fn stopped(reason: StopReason) -> Ended {
    Ended {
        outcome: Outcome::Stopped(reason),
        duration: None,
        details: String::new(),
    }
}

#[test]
fn a_failure_carries_stage_message_hint_and_the_log_as_a_file() {
    let place = Place::new();
    let (queue, agent, item) = place.claimed(spec());
    let ended = failed("línea 1\n最後の行\n");
    assert_eq!(queue.finish(&agent, &item, &ended), Ok(true));
    place.wait_until_all_is_said();

    let path = format!("{item}/error/error.log");
    let model = place.peer.model();
    let (stage, message, files) = model.items[0].failure.clone().expect("failed");
    assert_eq!(stage, "build");
    assert_eq!(message, "cannot pull `job:1` ✗\nhint: push it first");
    assert_eq!(files, [path.as_str()]);
    let key = (
        "me".to_owned(),
        "model-registry".to_owned(),
        model.agents[0].name.clone(),
    );
    let run = &model.runs[&key];
    assert_eq!(run.job_type.as_deref(), Some("sweep-controller"));
    let text = String::from_utf8(run.files[&path].clone()).expect("UTF-8");
    assert!(text.ends_with("línea 1\n最後の行\n"), "{text}");
    assert!(text.starts_with("cannot pull"), "{text}");
}

#[test]
fn the_hidden_run_is_made_once_and_only_when_there_is_something_to_attach() {
    let place = Place::new();
    let (queue, agent, item) = place.claimed(spec());
    queue.finish(&agent, &item, &failed("")).expect("kept");
    place.wait_until_all_is_said();
    assert_eq!(place.peer.count("failRunQueueItem"), 1);
    assert_eq!(place.peer.count("upsertBucket"), 0);
    for _ in 0..2 {
        place.peer.model().add_item("q", spec());
        let item = pop(&queue, &agent).expect("an item");
        queue
            .finish(&agent, &item.id, &failed("a line\n"))
            .expect("kept");
    }
    place.wait_until_all_is_said();
    assert_eq!(place.peer.count("upsertBucket"), 1);
    assert_eq!(place.peer.count("upload"), 2);
}

#[test]
fn a_run_that_appeared_tells_for_itself() {
    for state in ["running", "finished", "failed", "crashed"] {
        let place = Place::new();
        // It is the run of the job's own entity and project, in small letters.
        let elsewhere = json!({"entity": "crew", "project": "Demo"});
        let (queue, agent, item) = place.claimed(elsewhere);
        place.peer.model().set_run("crew", "demo", "r1", state);
        queue
            .finish(&agent, &item, &exited(1, "a line\n"))
            .expect("kept");
        place.wait_until_all_is_said();
        assert_eq!(place.peer.model().items[0].failure, None, "{state}");
        assert_eq!(place.peer.count("project"), 2, "the queues, and one look");
    }
}

#[test]
fn a_run_that_never_appears_is_a_failure_with_the_exit_code_and_the_last_lines() {
    for (code, sentence) in [
        (
            0,
            "The submitted job exited successfully but failed to call wandb.init: exit code 0 after 1.5 s",
        ),
        (
            137,
            "The submitted run was not successfully started: exit code 137 (ended by SIGKILL) after 1.5 s",
        ),
    ] {
        let place = Place::new();
        let elsewhere = json!({"entity": "crew", "project": "Demo"});
        let (queue, agent, item) = place.claimed(elsewhere);
        // A pending run is none yet.
        place.peer.model().set_run("crew", "demo", "r1", "pending");
        let before = place.peer.count("project");
        queue
            .finish(&agent, &item, &exited(code, "one\ntwo\n"))
            .expect("kept");
        place.wait_until_all_is_said();
        assert_eq!(
            place.peer.count("project") - before,
            7,
            "at 0, 1, 3, 7, 15, 31 and 63"
        );
        let model = place.peer.model();
        let (stage, message, files) = model.items[0].failure.clone().expect("failed");
        assert_eq!(stage, "run");
        assert!(message.starts_with(sentence), "{message}");
        assert!(message.ends_with("\none\ntwo"), "{message}");
        assert_eq!(
            files.len(),
            1,
            "a job of another entity is failed like any other"
        );
    }
}

#[test]
fn a_job_that_waits_for_its_run_holds_up_no_other() {
    let mut place = Place::new();
    place.timing.run_check = Duration::from_secs(3600);
    let (queue, agent, first) = place.claimed(spec());
    queue.finish(&agent, &first, &exited(0, "")).expect("kept");
    place.peer.model().add_item("q", spec());
    let second = pop(&queue, &agent).expect("an item").id;
    queue.finish(&agent, &second, &failed("")).expect("kept");
    place.peer.wait_for("the second one's failure", |model| {
        model.item(&second.0).failure.is_some()
    });
    let others = "only the first one to wait";
    place.peer.wait_for(others, |_| place.reports().len() == 1);
    assert_eq!(place.peer.model().item(&first.0).failure, None);
}

#[test]
fn a_stopped_job_is_failed_only_when_no_run_tells_of_it() {
    let place = Place::new();
    let (queue, agent, item) = place.claimed(spec());
    queue
        .finish(&agent, &item, &stopped(StopReason::Requested))
        .expect("kept");
    place.wait_until_all_is_said();
    let (stage, message, _) = place.peer.model().items[0].failure.clone().expect("failed");
    assert_eq!(stage, "run");
    assert!(message.contains("a person asked for it"), "{message}");

    // An agent that ends before it acknowledged leaves the item to the next one.
    let (queue, agent, item) = place.popped(spec());
    queue
        .finish(&agent, &item.id, &stopped(StopReason::AgentStopped))
        .expect("kept");
    place.wait_until_all_is_said();
    assert_eq!(place.peer.model().item(&item.id.0).failure, None);
    assert_eq!(place.peer.model().item(&item.id.0).state, "LEASED");
}

#[test]
fn a_late_failure_of_an_item_that_was_never_ours_ends_nobody_elses_job() {
    for (theirs, fails) in [(Some("theirs"), false), (None, false), (Some("r1"), true)] {
        let mut place = Place::new();
        place.timing.lease = Duration::ZERO;
        let (queue, agent, item) = place.popped(spec());
        // An ack that was carried out, and whose answer never came.
        place.peer.fail("ackRunQueueItem", How::Drop, usize::MAX);
        queue.ack(&agent, &item.id, "r1").expect_err("no answer");
        let state = if theirs.is_some() {
            "CLAIMED"
        } else {
            "PENDING"
        };
        place.peer.model().item(&item.id.0).state = state.to_owned();
        place.peer.model().item(&item.id.0).run = theirs.map(str::to_owned);
        queue.finish(&agent, &item.id, &failed("")).expect("kept");
        place.wait_until_all_is_said();
        let failure = place.peer.model().item(&item.id.0).failure.clone();
        assert_eq!(failure.is_some(), fails, "{theirs:?}");
    }
}
