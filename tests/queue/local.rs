//! The embedded queue: the contract, and what people see and do beyond it.

use std::path::Path;
use std::time::Duration;

use launch_agent::failure::Kind;
use launch_agent::launch::spec::Object;
use launch_agent::queue::local::{Cancelled, LocalQueue, QueueChange, Times};
use launch_agent::queue::{
    Exit, ItemId, ItemState, Priority, Push, Queue, QueueDefinition, Started,
};
use serde_json::{Value, json};

use super::contract::{
    Admin, Make, World, agent_of, contract, contract_of_a_queue_that_knows_all, exited, poll,
};

impl Admin for LocalQueue {
    fn push(&self, queue: &str, image: &str, priority: Option<Priority>) -> ItemId {
        LocalQueue::push(self, &job(queue, image, priority), &|| None)
            .expect("pushed")
            .id
    }

    fn cancel(&self, item: &ItemId) {
        LocalQueue::cancel(self, item).expect("cancelled");
    }

    fn set_paused(&self, queue: &str, paused: bool) {
        LocalQueue::set_paused(self, queue, paused).expect("paused or resumed");
    }

    fn state(&self, item: &ItemId) -> String {
        self.item(item).expect("an item").state.word().to_owned()
    }
}

pub fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        other => panic!("not an object: {other}"),
    }
}

pub fn job(queue: &str, image: &str, priority: Option<Priority>) -> Push {
    Push {
        queue: queue.to_owned(),
        spec: object(json!({"project": "p", "docker": {"docker_image": image}})),
        template_values: Object::new(),
        priority,
    }
}

fn definition(name: &str, config: Value, variables: Value) -> QueueDefinition {
    QueueDefinition {
        name: name.to_owned(),
        config: object(config),
        template_variables: object(variables),
        prioritization: name == "urgent",
        paused: false,
    }
}

/// A queue file with the queues `plain` and `urgent`.
pub fn open(folder: &Path, times: Times) -> LocalQueue {
    let queue = LocalQueue::open_with(&folder.join("queue.db"), times).expect("a queue");
    for name in ["plain", "urgent"] {
        queue
            .create_queue(&definition(name, json!({}), json!({})), "docker", &|| None)
            .expect("created");
    }
    queue
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn the_embedded_queue_keeps_the_contract() {
    let make: Make = &|lease, scenario| {
        let folder = folder();
        let times = Times {
            lease,
            ..Times::default()
        };
        let admin = open(folder.path(), times);
        let again = || LocalQueue::open_with(&folder.path().join("queue.db"), times);
        scenario(&World {
            open: &|| Box::new(again().expect("a queue")),
            admin: &admin,
        });
    };
    contract(make);
    contract_of_a_queue_that_knows_all(make);
}

#[test]
fn an_item_tells_its_whole_life() {
    let folder = folder();
    let queue = open(folder.path(), Times::default());
    let agent = agent_of(&queue);
    let id = Admin::push(&queue, "plain", "a:1", None);
    poll(&queue, &agent, "plain").expect("an item");
    assert!(queue.ack(&agent, &id, "run1").expect("an ack"));
    let log = queue.logs_folder().expect("a folder").join("1.log");
    let started = Started {
        command: "docker run a:1".to_owned(),
        log: log.clone(),
    };
    queue.started(&id, &started).expect("noted");
    queue.warn(&id, "first").expect("warned");
    queue.warn(&id, "second").expect("warned");
    assert!(queue.finish(&agent, &id, &exited(3)).expect("a finish"));

    let item = queue.item(&id).expect("an item");
    assert_eq!(
        item.state,
        ItemState::Finished(Exit {
            code: 3,
            oom_killed: false
        })
    );
    assert_eq!(item.run_id.as_deref(), Some("run1"));
    assert_eq!(item.agent, Some(agent));
    assert_eq!(item.command.as_deref(), Some("docker run a:1"));
    assert_eq!(item.log, Some(log.clone()));
    assert_eq!(item.warnings, ["first", "second"]);
    assert_eq!(item.duration, Some(Duration::from_millis(1_500)));
    assert!(item.pushed_at.is_some() && item.pushed_at <= item.claimed_at);
    assert!(item.claimed_at <= item.ended_at);

    assert_eq!(queue.retry(&id).expect("a retry"), 2);
    let again = queue.item(&id).expect("an item");
    assert_eq!(again.state, ItemState::Pending);
    assert_eq!((again.attempt, again.spec), (2, item.spec));
    assert_eq!(
        (again.run_id, again.agent, again.command),
        (None, None, None)
    );
    assert_eq!(
        (again.log, again.duration, again.ended_at),
        (None, None, None)
    );
    assert!(again.warnings.is_empty());
}

#[test]
fn a_retried_item_goes_to_the_back() {
    let folder = folder();
    let queue = open(folder.path(), Times::default());
    let first = Admin::push(&queue, "plain", "a:1", None);
    let second = Admin::push(&queue, "plain", "b:1", None);
    Admin::cancel(&queue, &first);
    queue.retry(&first).expect("a retry");
    for _ in 0..2 {
        let next = queue.peek("plain").expect("a peek").expect("an item");
        assert_eq!(next.id, second, "a peek takes nothing");
    }
    let error = queue.retry(&second).expect_err("it has not ended");
    assert_eq!(error.message, "item 2 has not ended yet (PENDING)");
}

#[test]
fn only_an_item_in_nobodys_hands_is_deleted_and_its_log_with_it() {
    let folder = folder();
    let queue = open(folder.path(), Times::default());
    let agent = agent_of(&queue);
    let id = Admin::push(&queue, "plain", "a:1", None);
    poll(&queue, &agent, "plain").expect("an item");
    let log = queue.logs_folder().expect("a folder").join("1.log");
    std::fs::write(&log, "hello").expect("a log");
    let started = Started {
        command: String::new(),
        log: log.clone(),
    };
    queue.started(&id, &started).expect("noted");

    let error = queue.delete_item(&id).expect_err("leased");
    assert_eq!(error.message, "item 1 is in the hands of an agent (LEASED)");
    let error = queue.delete_queue("plain", true).expect_err("leased");
    assert_eq!(
        error.message,
        "queue `plain` has 1 item in the hands of an agent"
    );
    assert!(queue.finish(&agent, &id, &exited(0)).expect("a finish"));
    queue.delete_item(&id).expect("deleted");
    assert!(!log.exists());
    assert_eq!(queue.item(&id).expect_err("gone").kind, Kind::NotFound);
    let next = Admin::push(&queue, "plain", "a:1", None);
    assert_eq!(next.0, "2", "a number is never used twice");
}

#[test]
fn a_queue_with_waiting_items_is_deleted_by_force_alone() {
    let folder = folder();
    let queue = open(folder.path(), Times::default());
    Admin::push(&queue, "plain", "a:1", None);
    let error = queue
        .delete_queue("plain", false)
        .expect_err("an item waits");
    assert_eq!(error.message, "queue `plain` has 1 item waiting");
    assert_eq!(queue.delete_queue("plain", true).expect("deleted"), 1);
    assert_eq!(queue.items(None).expect("items"), []);
}

#[test]
fn an_item_of_a_lost_agent_can_be_ended_by_a_person() {
    let folder = folder();
    let times = Times {
        lost: Duration::ZERO,
        ..Times::default()
    };
    let queue = open(folder.path(), times);
    let agent = agent_of(&queue);
    let id = Admin::push(&queue, "plain", "a:1", None);
    poll(&queue, &agent, "plain").expect("an item");
    assert!(queue.ack(&agent, &id, "run1").expect("an ack"));
    assert_eq!(
        queue.cancel(&id).expect("a cancel"),
        Cancelled::GivenUp {
            run_id: Some("run1".to_owned())
        }
    );
    let asked = queue
        .signals(&agent, std::slice::from_ref(&id))
        .expect("signals")
        .stop;
    assert_eq!(asked.len(), 1, "should it come back: {asked:?}");
    assert_eq!(asked[0].item, id);
    assert!(!queue.finish(&agent, &id, &exited(0)).expect("a finish"));
}

#[test]
fn an_item_says_why_it_waits() {
    let folder = folder();
    let queue = open(folder.path(), Times::default());
    let why = |id: &ItemId| {
        let item = queue.item(id).expect("an item");
        queue
            .why_waiting(&item)
            .expect("a look")
            .unwrap_or_default()
    };
    let path = queue.path().display();
    let (first, second) = (
        Admin::push(&queue, "plain", "a:1", None),
        Admin::push(&queue, "plain", "b:1", None),
    );
    assert_eq!(
        why(&first),
        format!(
            "no agent has ever polled the queue; start one with `launch-agent -q plain --local {path}`"
        )
    );
    let agent = agent_of(&queue);
    assert_eq!(why(&first), "it is next");
    assert_eq!(why(&second), "behind 1 item");
    let taken = poll(&queue, &agent, "plain");
    assert_eq!(taken.map(|item| item.id), Some(first));
    assert_eq!(
        why(&second),
        "all slots of the agents that poll the queue are busy (1 of 1)"
    );
    queue.close(&agent).expect("closed");
    assert_eq!(
        why(&second),
        format!(
            "no agent polls the queue any more (the last, on box, was seen 0 seconds ago); \
             start one with `launch-agent -q plain --local {path}`"
        )
    );
    queue.set_paused("plain", true).expect("paused");
    assert_eq!(
        why(&second),
        "the queue is paused; `launch-agent queue resume plain` ends that"
    );
}

#[test]
fn a_push_fills_the_queues_templates() {
    let folder = folder();
    let queue = open(folder.path(), Times::default());
    let config = json!({"memory": "{{mem}}", "cpus": 2});
    let variables = json!({"mem": {"schema": {"type": "string", "enum": ["1g", "2g"]}}});
    let templated = definition("small", config, variables);
    queue
        .create_queue(&templated, "docker", &|| None)
        .expect("created");

    let mut push = job("small", "a:1", None);
    push.template_values = object(json!({"mem": "2g"}));
    let id = queue.push(&push, &|| None).expect("pushed").id;
    assert_eq!(
        queue.item(&id).expect("an item").spec["resource_args"],
        json!({"local-container": {"memory": "2g", "cpus": 2}})
    );

    push.template_values = object(json!({"mem": "9g"}));
    let error = queue.push(&push, &|| None).expect_err("out of range");
    assert_eq!(error.kind, Kind::Input);
    assert!(
        error.message.contains("mem") && error.message.contains("9g"),
        "{error}"
    );

    push.template_values = object(json!({"mem": "1g"}));
    push.spec
        .insert("resource_args".to_owned(), json!({"docker": {"cpus": 64}}));
    let error = queue.push(&push, &|| None).expect_err("not its to say");
    assert_eq!(
        error.message,
        "queue `small` has template variables, so it takes no `resource_args` from a job"
    );
    assert_eq!(queue.items(Some("small")).expect("items").len(), 1);
}

#[test]
fn a_job_lays_its_options_over_the_queues() {
    let folder = folder();
    let queue = open(folder.path(), Times::default());
    let change = QueueChange {
        config: Some(object(json!({"cpus": 2, "memory": "1g"}))),
        ..QueueChange::default()
    };
    queue
        .update_queue("plain", &change, &|| None)
        .expect("changed");
    let mut push = job("plain", "a:1", None);
    push.spec.insert(
        "resource_args".to_owned(),
        json!({"docker": {"cpus": 0.50}}),
    );
    let id = queue.push(&push, &|| None).expect("pushed").id;
    assert_eq!(
        queue.item(&id).expect("an item").spec["resource_args"].to_string(),
        r#"{"local-container":{"cpus":0.5,"memory":"1g"}}"#
    );
}

#[test]
fn what_cannot_be_pushed_is_refused() {
    let folder = folder();
    let queue = open(folder.path(), Times::default());
    let refused = |push: &Push| queue.push(push, &|| None).expect_err("refused");
    let error = refused(&job("plain", "a:1", Some(Priority::High)));
    assert_eq!(error.message, "queue `plain` takes no priorities");
    let error = refused(&job("plain", "", None));
    assert_eq!(
        error.message,
        "the launch spec names neither an image nor a job"
    );
    let error = refused(&job("plan", "a:1", None));
    assert_eq!(
        (error.kind, error.message.as_str()),
        (Kind::NotFound, "no queue `plan`")
    );
    assert_eq!(error.hint.as_deref(), Some("did you mean `plain`?"));
    assert_eq!(queue.items(None).expect("items"), []);
}
