//! The outbox: reports in their order, through outages and restarts, whatever becomes of one of them.

use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::time::Duration;

use launch_agent::queue::{AgentStatus, ItemId, Queue, RunQueueItem};
use serde_json::json;

use super::reports::{exited, failed};
use super::{Place, former, pop, spec};
use crate::common::peer::How;

#[test]
fn warnings_add_up_and_come_before_the_failure() {
    let place = Place::new();
    let (queue, agent, item) = place.claimed(spec());
    place.peer.fail("*", How::Status(503, "", ""), usize::MAX);
    queue.warn(&item, "`x` was left out").expect("kept");
    queue.warn(&item, "`y` was left out").expect("kept");
    queue
        .finish(&agent, &item, &failed("a line\n"))
        .expect("kept");
    assert_eq!(place.reports().len(), 3);
    for name in place.reports() {
        let path = place.outbox().join(name);
        let mode = std::fs::metadata(path)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    place.peer.heal();
    place.wait_until_all_is_said();
    let warning = place.peer.model().items[0].warning.clone();
    assert_eq!(
        warning.as_deref(),
        Some("`x` was left out\n`y` was left out")
    );
    let order: Vec<String> = place
        .peer
        .requests()
        .into_iter()
        .flat_map(|request| request.fields)
        .filter(|field| field.contains("RunQueueItem") && field != "ackRunQueueItem")
        .collect();
    let first_fail = order.iter().position(|field| field == "failRunQueueItem");
    let last_warn = order
        .iter()
        .rposition(|field| field == "updateRunQueueItemWarning");
    assert!(last_warn < first_fail, "{order:?}");
}

#[test]
fn reports_survive_every_kind_of_outage_and_a_restart_in_their_order() {
    for how in [
        How::Status(500, "", ""),
        How::Status(429, "Retry-After: 0\r\n", ""),
        How::Status(401, "", ""),
        How::Drop,
        How::Page,
        How::NoData,
    ] {
        let place = Place::new();
        let (queue, agent) = place.agent();
        let mut items = Vec::new();
        for _ in 0..4 {
            place.peer.model().add_item("q", spec());
            let item = pop(&queue, &agent).expect("an item").id;
            assert!(
                queue
                    .ack(&agent, &item, &format!("run-{item}"))
                    .expect("answered")
            );
            items.push(item);
        }
        place.peer.fail("*", how.clone(), usize::MAX);
        for item in &items[..2] {
            queue
                .finish(&agent, item, &failed(""))
                .expect("never waits for the network");
        }
        drop(queue);
        let queue = place.open();
        // Of the items of the earlier process the new one is told by its journal.
        for item in &items[2..] {
            let again = RunQueueItem {
                id: item.clone(),
                queue: "q".to_owned(),
                spec: json!({"entity": "me", "project": "demo"}),
            };
            let adopted = queue.adopt(&agent, &again, &former(&agent, &format!("run-{item}")));
            if adopted.is_err() {
                // The entity is the key's own, and nobody can be asked for it now.
                place.peer.heal();
                queue
                    .adopt(&agent, &again, &former(&agent, &format!("run-{item}")))
                    .expect("known");
            }
            queue.finish(&agent, item, &failed("")).expect("kept");
        }
        place.peer.heal();
        place.wait_until_all_is_said();
        let mut seen: Vec<ItemId> = Vec::new();
        for request in place.peer.requests() {
            if request.fields == ["failRunQueueItem"] {
                let id = request.variables["runQueueItemId"].as_str().expect("an id");
                let id = ItemId(id.to_owned());
                if seen.last() != Some(&id) {
                    seen.push(id);
                }
            }
        }
        assert_eq!(seen, items, "{how:?}");
        assert!(
            place
                .peer
                .model()
                .items
                .iter()
                .all(|item| item.failure.is_some())
        );
    }
}

#[test]
fn a_report_whose_answer_is_lost_is_sent_again() {
    for field in [
        "failRunQueueItem",
        "upsertBucket",
        "createRunFiles",
        "upload",
    ] {
        for how in [How::Drop, How::Truncated, How::Status(500, "", "")] {
            let place = Place::new();
            let (queue, agent, item) = place.claimed(spec());
            place.peer.lose(field, how.clone(), 2);
            queue
                .finish(&agent, &item, &failed("a line\n"))
                .expect("kept");
            place.wait_until_all_is_said();
            let model = place.peer.model();
            assert!(model.items[0].failure.is_some(), "{field} {how:?}");
            assert!(
                model.runs.values().any(|run| !run.files.is_empty()),
                "{field} {how:?}"
            );
        }
    }
}

#[test]
fn a_report_that_is_refused_for_good_holds_up_nothing() {
    for (field, how) in [
        ("failRunQueueItem", How::Errors("no such item")),
        ("failRunQueueItem", How::Status(400, "", "{}")),
        ("createRunFiles", How::Errors("no such run")),
        ("upload", How::Status(403, "", "")),
    ] {
        let place = Place::new();
        let (queue, agent, item) = place.claimed(spec());
        place.peer.fail(field, how, 1);
        queue
            .finish(&agent, &item, &failed("a line\n"))
            .expect("kept");
        place.peer.model().add_item("q", spec());
        let next = pop(&queue, &agent).expect("an item").id;
        queue.finish(&agent, &next, &failed("")).expect("kept");
        place.wait_until_all_is_said();
        assert!(
            place.peer.model().item(&next.0).failure.is_some(),
            "{field}"
        );
    }
}

#[test]
fn a_report_that_always_fails_is_passed_by_while_others_get_through() {
    let place = Place::new();
    let (queue, agent, item) = place.claimed(spec());
    place.peer.fail(
        "updateRunQueueItemWarning",
        How::Status(500, "", ""),
        usize::MAX,
    );
    queue.warn(&item, "never taken").expect("kept");
    queue.finish(&agent, &item, &failed("")).expect("kept");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while place.reports().len() > 1 {
        assert!(
            std::time::Instant::now() < deadline,
            "{:#?}",
            place.peer.requests()
        );
        queue.signals(&agent, &[]).expect("answered");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(place.peer.model().items[0].failure.is_some());
    assert_eq!(place.reports().len(), 1);
}

#[test]
fn closing_says_killed_waits_for_the_reports_and_has_a_bound() {
    let mut place = Place::new();
    let (queue, agent, item) = place.claimed(spec());
    queue.finish(&agent, &item, &exited(1, "")).expect("kept");
    queue.close(&agent).expect("answered");
    assert!(place.reports().is_empty());
    assert_eq!(
        place.peer.model().agents[0].statuses.last().expect("one"),
        "KILLED"
    );
    drop(queue);

    place.timing.flush = Duration::from_millis(50);
    let (queue, agent, item) = place.claimed(spec());
    place.peer.fail("*", How::Status(503, "", ""), usize::MAX);
    queue.finish(&agent, &item, &failed("")).expect("kept");
    queue.close(&agent).expect_err("nobody answers");
    assert_eq!(place.reports().len(), 1, "it is kept for the next start");
    drop(queue);
    place.peer.heal();
    let next = place.open();
    place.wait_until_all_is_said();
    next.poll(&agent, AgentStatus::Polling, 0, &[])
        .expect("answered");
}

#[test]
fn reports_for_another_server_and_of_a_newer_program_are_left_alone_and_damaged_ones_put_aside() {
    let place = Place::new();
    std::fs::create_dir_all(place.outbox()).expect("a folder");
    let work = json!({"warn": {"stage": "agent", "message": "m"}});
    let report = |server: &str, version: u32| json!({"version": version, "server": server, "entity": "me", "agent": "a", "item": "i", "work": work});
    let write = |name: &str, text: String| {
        std::fs::write(place.outbox().join(name), text).expect("written");
    };
    write("1.json", report("https://elsewhere.example", 1).to_string());
    write("2.json", report(&place.peer.url, 99).to_string());
    write("3.json", "{broken".to_owned());
    let (queue, agent, item) = place.claimed(spec());
    queue.finish(&agent, &item, &failed("")).expect("kept");
    place
        .peer
        .wait_for("the failure", |model| model.items[0].failure.is_some());
    queue.close(&agent).ok();
    assert_eq!(place.reports(), ["1.json", "2.json"]);
    assert!(place.outbox().join("3.bad").exists());
}

/// What the program said, in all tests of this binary; each looks for its own peer's address.
struct Said(Mutex<Vec<String>>);

impl log::Log for Said {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::Level::Info {
            let mut said = self.0.lock().expect("no panic");
            said.push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

static SAID: Said = Said(Mutex::new(Vec::new()));

#[test]
fn an_outage_is_said_once_and_its_end_once_and_a_refused_key_once() {
    // Only this test sets a logger; the others are silent or heard by it as well.
    let _ = log::set_logger(&SAID);
    log::set_max_level(log::LevelFilter::Info);
    let place = Place::new();
    let (queue, agent) = place.agent();
    for how in [
        How::Drop,
        How::Status(503, "", ""),
        How::Status(401, "", ""),
    ] {
        place.peer.fail("launchAgent", how, 4);
        for turn in 0..5 {
            assert_eq!(queue.signals(&agent, &[]).is_ok(), turn == 4);
        }
    }
    place.peer.fail("launchAgent", How::Drop, 1);
    queue.signals(&agent, &[]).expect_err("dropped");
    queue.signals(&agent, &[]).expect("answered");
    let said = SAID.0.lock().expect("no panic").clone();
    let about = |words: &str| {
        let ours = said.iter().filter(|line| line.starts_with(&place.peer.url));
        ours.filter(|line| line.contains(words)).count()
    };
    assert_eq!(
        about("cannot be reached"),
        2,
        "one lost connection is no outage: {said:#?}"
    );
    assert_eq!(about("answers again"), 2, "{said:#?}");
    assert_eq!(about("refused (status 401)"), 1, "{said:#?}");
    assert_eq!(about("takes the key again"), 1, "{said:#?}");
}

#[test]
fn files_that_no_storage_takes_are_given_up_after_a_day() {
    let place = Place::new();
    let (queue, agent) = place.agent();
    place
        .peer
        .fail("upload", How::Status(503, "", ""), usize::MAX);
    let report = |name: &str| {
        let files = json!([{"path": "i/error/error.log", "text": "t"}]);
        let report = json!({"version": 1, "server": place.peer.url, "entity": "me", "agent": agent.0, "item": "i",
            "work": {"attach": {"files": files}}});
        std::fs::write(place.outbox().join(name), report.to_string()).expect("written");
    };
    report("00000000000000000001-1.json");
    report("09999999999999999999-1.json");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while place.reports().len() > 1 {
        assert!(
            std::time::Instant::now() < deadline,
            "{:#?}",
            place.peer.requests()
        );
        queue.signals(&agent, &[]).expect("answered");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(place.reports(), ["09999999999999999999-1.json"]);
}
