//! Every operation against every kind of failure, and every lost answer.

use std::time::Duration;

use launch_agent::failure::{Error, Kind};
use launch_agent::queue::Queue as _;
use launch_agent::queue::wandb::WandbQueue;
use launch_agent::queue::wandb::transport::{is_refused, is_unreachable};
use launch_agent::queue::{AgentId, AgentStatus, ItemId, Push};
use serde_json::json;

use super::{Place, TIMING, pop, spec};
use crate::common::peer::How;

/// Every way to fail, and the kind of error that it must be.
fn failures() -> Vec<(How, Kind)> {
    let errors = r#"{"errors":[{"message":"no such thing"}],"data":null}"#;
    vec![
        (How::Status(500, "", errors), Kind::Queue),
        (
            How::Status(502, "Content-Type: text/html\r\n", "<html>"),
            Kind::Queue,
        ),
        (How::Status(503, "", ""), Kind::Queue),
        (How::Status(504, "", ""), Kind::Queue),
        (How::Status(429, "", ""), Kind::Queue),
        (How::Status(408, "", ""), Kind::Queue),
        (
            How::Status(302, "Location: https://x.example\r\n", ""),
            Kind::Queue,
        ),
        (How::Status(401, "", errors), Kind::Config),
        (How::Status(403, "", ""), Kind::Config),
        (How::Status(400, "", errors), Kind::Input),
        (How::Status(404, "", errors), Kind::Input),
        (
            How::Status(404, "Content-Type: text/html\r\n", "<html>"),
            Kind::Queue,
        ),
        (How::Drop, Kind::Queue),
        (How::Delay(Duration::from_millis(800)), Kind::Queue),
        (How::Errors("no such thing"), Kind::Input),
        (How::NoData, Kind::Queue),
        (How::Page, Kind::Queue),
        (How::Truncated, Kind::Queue),
    ]
}

/// One call, and the error that it gave.
type Operation = fn(&WandbQueue, &AgentId, &ItemId) -> Option<Error>;

/// The operations whose error their caller sees, by root field.
fn operations() -> Vec<(&'static str, Operation)> {
    vec![
        ("popFromRunQueue", |queue, agent, _| {
            let queues = ["q".to_owned()];
            queue.poll(agent, AgentStatus::Polling, 0, &queues).err()
        }),
        ("launchAgent", |queue, agent, item| {
            queue.signals(agent, std::slice::from_ref(item)).err()
        }),
        ("updateLaunchAgent", |queue, agent, _| {
            queue.poll(agent, AgentStatus::Running, 1, &[]).err()
        }),
        ("ackRunQueueItem", |queue, agent, item| {
            queue.ack(agent, item, "r1").err()
        }),
        ("pushToRunQueueByName", |queue, _, _| {
            let spec = spec().as_object().cloned().expect("an object");
            let push = Push {
                queue: "q".to_owned(),
                spec,
                template_values: serde_json::Map::new(),
                priority: None,
            };
            queue.client().push(&push).err()
        }),
        ("project", |queue, _, _| queue.client().queues().err()),
    ]
}

#[test]
fn every_failure_of_every_operation_is_told_apart_and_passes() {
    for (field, operation) in operations() {
        for (how, kind) in failures() {
            let mut place = Place::new();
            // The one that hangs must be given up soon.
            place.timing.call = Duration::from_millis(400);
            place.timing.retries = Duration::from_millis(30);
            let (queue, agent, item) = place.popped(spec());
            place.peer.fail(field, how.clone(), usize::MAX);
            let error = operation(&queue, &agent, &item.id)
                .unwrap_or_else(|| panic!("{field} with {how:?}: no error"));
            assert_eq!(error.kind, kind, "{field} with {how:?}: {error}");
            assert!(error.hint.is_some() || kind == Kind::Input);
            // When the failure is over the same call works, and the item is still there to be claimed.
            place.peer.heal();
            let later = queue.ack(&agent, &item.id, "r1");
            assert_eq!(later, Ok(true), "{field} with {how:?}");
            assert_eq!(
                operation(&queue, &agent, &item.id),
                None,
                "{field} with {how:?}"
            );
        }
    }
}

#[test]
fn a_short_trouble_is_bridged_inside_the_call_where_that_is_safe() {
    for (how, kind) in failures() {
        if kind != Kind::Queue || matches!(how, How::Delay(_)) {
            continue;
        }
        let place = Place::new();
        let (queue, agent, item) = place.popped(spec());
        place.peer.fail("ackRunQueueItem", how.clone(), 2);
        assert_eq!(queue.ack(&agent, &item.id, "r1"), Ok(true), "{how:?}");
        place.peer.fail("project", how.clone(), 1);
        assert_eq!(
            queue.client().queues().map(|all| all.len()),
            Ok(2),
            "{how:?}"
        );
    }
}

#[test]
fn a_lost_pop_loses_nothing() {
    for how in [
        How::Drop,
        How::Truncated,
        How::Page,
        How::Status(500, "", ""),
    ] {
        let place = Place::new();
        let (queue, agent) = place.agent();
        let first = place.peer.model().add_item("q", spec());
        let second = place.peer.model().add_item("q", spec());
        place.peer.lose("popFromRunQueue", how.clone(), 1);
        let queues = ["q".to_owned()];
        let error = queue.poll(&agent, AgentStatus::Polling, 0, &queues);
        assert!(is_unreachable(&error.expect_err("lost")), "{how:?}");
        assert_eq!(place.peer.count("popFromRunQueue"), 1, "it is not repeated");

        assert_eq!(pop(&queue, &agent).expect("the next one").id.0, second);
        assert!(pop(&queue, &agent).is_none(), "the first one is leased");
        // The second one is acknowledged, so that its lease cannot end too.
        assert!(queue.ack(&agent, &ItemId(second), "r2").expect("answered"));
        place.peer.model().lease = Duration::ZERO;
        let back = pop(&queue, &agent).expect("it comes again by itself");
        assert_eq!(back.id.0, first);
        place.peer.model().lease = Duration::from_secs(60);
        assert!(queue.ack(&agent, &back.id, "r1").expect("answered"));
    }
}

/// PROTOCOL section 3: right whether the server takes a repeated ack or answers it with no.
#[test]
fn an_ack_whose_answer_is_lost_never_loses_the_job() {
    for idempotent in [true, false] {
        for times in [1, 2] {
            for how in [
                How::Drop,
                How::Truncated,
                How::Page,
                How::Status(500, "", ""),
            ] {
                let place = Place::new();
                place.peer.model().idempotent_ack = idempotent;
                let (queue, agent, item) = place.popped(spec());
                place.peer.lose("ackRunQueueItem", how.clone(), times);
                let ours = queue.ack(&agent, &item.id, "r1");
                assert_eq!(
                    ours,
                    Ok(true),
                    "{how:?} {times} times, idempotent {idempotent}"
                );
                let model = place.peer.model().item(&item.id.0).clone();
                assert_eq!(
                    (model.state.as_str(), model.run.as_deref()),
                    ("CLAIMED", Some("r1"))
                );
                assert_eq!(model.failure, None);
            }
        }
    }
}

#[test]
fn an_ack_that_stayed_unanswered_for_longer_than_a_call_is_taken_up_by_the_next_call() {
    for idempotent in [true, false] {
        let place = Place::new();
        place.peer.model().idempotent_ack = idempotent;
        let (queue, agent, item) = place.popped(spec());
        place.peer.lose("ackRunQueueItem", How::Drop, 1);
        place.peer.fail("*", How::Drop, usize::MAX);
        let error = queue.ack(&agent, &item.id, "r1").expect_err("no answer");
        assert!(is_unreachable(&error), "{error}");
        place.peer.heal();
        assert_eq!(
            queue.ack(&agent, &item.id, "r1"),
            Ok(true),
            "idempotent {idempotent}"
        );
    }
}

/// An outage longer than a lease: the item is given to this very agent again while its job still asks for it.
#[test]
fn an_item_that_is_leased_to_us_again_starts_no_second_job() {
    let place = Place::new();
    let (queue, agent, item) = place.popped(spec());
    place.peer.fail("*", How::Drop, usize::MAX);
    queue.ack(&agent, &item.id, "r1").expect_err("no answer");
    place.peer.heal();
    place.peer.model().lease = Duration::ZERO;
    assert_eq!(pop(&queue, &agent), None, "its job is at work on it");
    place.peer.model().lease = Duration::from_secs(60);
    assert_eq!(place.peer.model().item(&item.id.0).state, "LEASED");
    assert_eq!(queue.ack(&agent, &item.id, "r1"), Ok(true));
    assert_eq!(
        place.peer.model().item(&item.id.0).run.as_deref(),
        Some("r1")
    );
}

#[test]
fn somebody_elses_item_is_neither_run_nor_failed() {
    let place = Place::new();
    let (queue, agent, item) = place.popped(spec());
    place.peer.model().item(&item.id.0).state = "CLAIMED".to_owned();
    place.peer.model().item(&item.id.0).run = Some("theirs".to_owned());
    assert_eq!(queue.ack(&agent, &item.id, "r1"), Ok(false));
    assert_eq!(
        place.peer.count("project"),
        1,
        "a first no needs no second look"
    );

    // The same when our own first try was lost, and somebody took the item meanwhile.
    let (queue, agent, item) = place.popped(spec());
    place.peer.model().item(&item.id.0).state = "CLAIMED".to_owned();
    place.peer.model().item(&item.id.0).run = Some("theirs".to_owned());
    place.peer.fail("ackRunQueueItem", How::Drop, 1);
    assert_eq!(queue.ack(&agent, &item.id, "r1"), Ok(false));
    assert_eq!(place.peer.count("failRunQueueItem"), 0);
}

#[test]
fn a_repeated_ack_that_cannot_be_verified_is_not_ours() {
    let place = Place::new();
    place.peer.model().idempotent_ack = false;
    place.peer.model().reads_items = false;
    let (queue, agent, item) = place.popped(spec());
    place.peer.lose("ackRunQueueItem", How::Drop, 1);
    assert_eq!(queue.ack(&agent, &item.id, "r1"), Ok(false));
    assert_eq!(place.peer.count("failRunQueueItem"), 0);
}

#[test]
fn a_lost_push_is_not_repeated_and_says_so() {
    let place = Place::new();
    let (queue, agent) = place.agent();
    place.peer.lose("pushToRunQueueByName", How::Drop, 1);
    let push = Push {
        queue: "q".to_owned(),
        spec: spec().as_object().cloned().expect("an object"),
        template_values: serde_json::Map::new(),
        priority: None,
    };
    let error = queue.client().push(&push).expect_err("lost");
    assert!(error.hint.expect("a hint").contains("may have been pushed"));
    assert_eq!(place.peer.model().items.len(), 1);
    assert!(pop(&queue, &agent).is_some());
}

#[test]
fn trouble_with_one_queue_does_not_cost_the_item_of_another() {
    let place = Place::new();
    let (queue, agent) = place.agent();
    place.peer.model().add_item("q", spec());
    // A run whose project the key may not see is no reason to miss the heartbeat either.
    let partial = json!({
        "errors": [{"message": "queue `other` is locked"}],
        "data": {"popFromRunQueue": {"runQueueItemId": "x", "runSpec": spec()}, "popFromRunQueue1": null},
    });
    let body: &'static str = Box::leak(partial.to_string().into_boxed_str());
    place
        .peer
        .fail("popFromRunQueue", How::Status(200, "", body), 1);
    let queues = ["q".to_owned(), "other".to_owned()];
    let polled = queue
        .poll(&agent, AgentStatus::Polling, 0, &queues)
        .expect("a part of an answer");
    assert_eq!(polled.len(), 1);
}

#[test]
fn a_key_that_is_refused_while_running_is_an_error_of_its_own() {
    let place = Place::new();
    let (queue, agent, item) = place.claimed(spec());
    place.peer.fail("*", How::Status(401, "", ""), usize::MAX);
    let error = queue.signals(&agent, &[item]).expect_err("refused");
    assert!(is_refused(&error) && !is_unreachable(&error), "{error}");
    place.peer.heal();
    assert!(
        queue.signals(&agent, &[]).is_ok(),
        "one refusal is not the end"
    );
}

#[test]
fn a_server_that_is_not_there_is_unreachable_and_cannot_have_done_anything() {
    let place = Place::new();
    let mut connection = place.connection();
    let url = "http://127.0.0.1:1";
    connection.address =
        launch_agent::config::identity::Address::parse(url, "test").expect("an address");
    connection.timing = TIMING;
    let queue = place.open_as(connection);
    let error = queue.client().viewer().expect_err("nobody there");
    assert!(is_unreachable(&error), "{error}");
    assert!(error.message.contains(url), "{error}");
    let waits: Vec<f64> = (0..3)
        .map(|_| queue.poll_every(Duration::ZERO).as_secs_f64())
        .collect();
    assert!(waits[0] >= 5.0, "asked less often: {waits:?}");
}
