//! The W&B client against a peer that speaks W&B's wire, and against one that fails in every way.

mod admin;
mod contract;
mod faults;
mod identity;
mod outbox;
mod reports;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use launch_agent::config::identity::Address;
use launch_agent::failure::Kind;
use launch_agent::launch::command::Secret;
use launch_agent::queue::wandb::proxy::Proxies;
use launch_agent::queue::wandb::transport::Timing;
use launch_agent::queue::wandb::{Connection, WandbQueue};
use launch_agent::queue::{
    AgentId, AgentInfo, AgentStatus, Former, ItemId, Queue, RunQueueItem, Signals, StopRequest,
    Told,
};
use serde_json::{Value, json};

use crate::common::peer::{How, KEY, Peer};

/// Short times, so that a test of an outage is over in a moment.
pub const TIMING: Timing = Timing {
    file: Duration::from_secs(10),
    call: Duration::from_secs(2),
    first_retry: Duration::from_millis(10),
    retries: Duration::from_secs(1),
    run_check: Duration::from_millis(3),
    redelivery: Duration::from_millis(5),
    lease: Duration::from_secs(60),
    flush: Duration::from_secs(10),
};

fn open_with(connection: Connection, outbox: &Path) -> WandbQueue {
    let config = json!({"max_jobs": 1});
    WandbQueue::open(connection, outbox, config, "launch-agent@test".to_owned()).expect("opens")
}

/// A peer, and a folder for reports.
struct Place {
    peer: Peer,
    folder: tempfile::TempDir,
    timing: Timing,
}

impl Place {
    fn new() -> Place {
        Place {
            peer: Peer::new(&["q", "other"]),
            folder: tempfile::tempdir().expect("a folder"),
            timing: TIMING,
        }
    }

    fn outbox(&self) -> PathBuf {
        self.folder.path().join("outbox")
    }

    fn connection(&self) -> Connection {
        Connection {
            address: Address::parse(&self.peer.url, "test").expect("an address"),
            api_key: Secret::new(KEY),
            entity: None,
            proxies: Proxies::default(),
            ca_bundle: None,
            timing: self.timing,
        }
    }

    fn open_as(&self, connection: Connection) -> WandbQueue {
        open_with(connection, &self.outbox())
    }

    fn open_in(&self, outbox: &Path) -> WandbQueue {
        open_with(self.connection(), outbox)
    }

    fn open(&self) -> WandbQueue {
        self.open_as(self.connection())
    }

    /// An open queue with a registered agent.
    fn agent(&self) -> (WandbQueue, AgentId) {
        let queue = self.open();
        let agent = queue.register(&info(&["q", "other"])).expect("registers");
        (queue, agent)
    }

    /// A queue, an agent, and an item of queue `q` that it has popped.
    fn popped(&self, spec: Value) -> (WandbQueue, AgentId, RunQueueItem) {
        let (queue, agent) = self.agent();
        self.peer.model().add_item("q", spec);
        let item = pop(&queue, &agent).expect("an item");
        (queue, agent, item)
    }

    /// The same, acknowledged as run `r1`.
    fn claimed(&self, spec: Value) -> (WandbQueue, AgentId, ItemId) {
        let (queue, agent, item) = self.popped(spec);
        assert!(queue.ack(&agent, &item.id, "r1").expect("answered"));
        (queue, agent, item.id)
    }

    fn reports(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.outbox())
            .expect("a folder")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with("json"))
            .collect();
        names.sort();
        names
    }

    /// Waits until nothing is left to report.
    fn wait_until_all_is_said(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.reports().is_empty() {
            assert!(
                Instant::now() < deadline,
                "left: {:?}; requests: {:#?}",
                self.reports(),
                self.peer.requests()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn info(queues: &[&str]) -> AgentInfo {
    AgentInfo {
        hostname: "box".to_owned(),
        pid: 7,
        queues: queues.iter().map(|name| (*name).to_owned()).collect(),
        max_jobs: Some(1),
    }
}

fn spec() -> Value {
    json!({"entity": "me", "project": "Demo", "docker": {"docker_image": "job:1"}})
}

fn pop(queue: &WandbQueue, agent: &AgentId) -> Option<RunQueueItem> {
    let queues = ["q".to_owned()];
    let polled = queue.poll(agent, AgentStatus::Polling, 0, &queues);
    polled.expect("answered").pop()
}

#[test]
fn an_agent_registers_with_three_requests_and_polls_all_its_queues_with_one() {
    let place = Place::new();
    let (queue, agent) = place.agent();
    let requests = place.peer.requests();
    let operations: Vec<&str> = requests.iter().map(|r| r.operation.as_str()).collect();
    assert_eq!(
        operations,
        ["Viewer", "ProjectRunQueues", "createLaunchAgent"]
    );
    let user_agent = requests[0]
        .headers
        .iter()
        .find(|line| line.to_ascii_lowercase().starts_with("user-agent"));
    assert!(
        user_agent.is_some_and(|line| line.contains("launch-agent/")),
        "{user_agent:?}"
    );
    {
        let model = place.peer.model();
        let known = &model.agents[0];
        assert_eq!(known.id, agent.0);
        assert_eq!(known.queues.len(), 2);
        assert_eq!(known.hostname, "box");
        assert_eq!(known.version, "launch-agent@test");
        assert_eq!(known.config, r#"{"max_jobs":1}"#);
    }
    let (first, second) = {
        let mut model = place.peer.model();
        (
            model.add_item("q", spec()),
            model.add_item("other", json!({"project": "ünïcödé 🚀"})),
        )
    };
    let names = ["other".to_owned(), "q".to_owned()];
    let polled = queue
        .poll(&agent, AgentStatus::Polling, 0, &names)
        .expect("answered");
    assert_eq!(place.peer.requests().len(), 4);
    let taken: Vec<(&str, &str)> = polled
        .iter()
        .map(|item| (item.id.0.as_str(), item.queue.as_str()))
        .collect();
    assert_eq!(taken, [(second.as_str(), "other"), (first.as_str(), "q")]);
    assert_eq!(polled[0].spec, json!({"project": "ünïcödé 🚀"}));
    assert_eq!(polled[1].spec, spec());
}

#[test]
fn a_status_is_said_when_it_changes_and_nothing_is_asked_when_there_is_nothing_to_say() {
    let place = Place::new();
    let (queue, agent) = place.agent();
    let before = place.peer.requests().len();
    for (status, names) in [
        (AgentStatus::Polling, &["q".to_owned()][..]),
        (AgentStatus::Polling, &["q".to_owned()][..]),
        (AgentStatus::Running, &[]),
        (AgentStatus::Running, &[]),
        (AgentStatus::Polling, &[]),
    ] {
        queue.poll(&agent, status, 1, names).expect("answered");
    }
    assert_eq!(
        place.peer.model().agents[0].statuses,
        ["POLLING", "RUNNING", "POLLING"]
    );
    assert_eq!(
        place.peer.requests().len() - before,
        4,
        "one had nothing to say"
    );
    queue.close(&agent).expect("answered");
    assert_eq!(
        place.peer.model().agents[0].statuses.last().expect("one"),
        "KILLED"
    );
}

#[test]
fn an_idle_minute_has_fewer_requests_than_the_reference() {
    let place = Place::new();
    let (queue, agent) = place.agent();
    let before = place.peer.requests().len();
    // The caller's schedule, by a clock that nobody waits for.
    let (mut poll_at, mut signals_at) = (0.0_f64, 0.0_f64);
    let long_idle = Duration::from_secs(3600);
    while poll_at.min(signals_at) < 60.0 {
        if poll_at <= signals_at {
            assert!(pop(&queue, &agent).is_none());
            poll_at += queue.poll_every(long_idle).as_secs_f64();
        } else {
            queue.signals(&agent, &[]).expect("answered");
            signals_at += 10.0;
        }
    }
    let made = place.peer.requests().len() - before;
    assert!(made <= 18, "{made} requests in an idle minute");
}

#[test]
fn stops_are_seen_where_the_run_is_and_all_in_one_request() {
    let place = Place::new();
    let (queue, agent, first) = place.claimed(spec());
    let elsewhere = json!({"entity": "crew", "project": "P", "docker": {"docker_image": "job:1"}});
    let second = place.peer.model().add_item("q", elsewhere);
    let second = ItemId(second);
    assert_eq!(
        pop(&queue, &agent).map(|item| item.id),
        Some(second.clone())
    );
    assert!(queue.ack(&agent, &second, "r2").expect("answered"));
    let items = [first.clone(), second.clone(), ItemId("unknown".to_owned())];

    let quiet = queue.signals(&agent, &items).expect("answered");
    assert_eq!(quiet, Signals::default(), "the runs are not there yet");

    place.peer.model().set_run("me", "demo", "r1", "running");
    place
        .peer
        .model()
        .set_run("crew", "p", "r2", "running")
        .stopped = true;
    let before = place.peer.requests().len();
    let signals = queue.signals(&agent, &items).expect("answered");
    assert_eq!(place.peer.requests().len() - before, 1);
    assert_eq!(
        signals.stop,
        [StopRequest {
            item: second,
            told: Told::JobToo
        }]
    );
    assert!(!signals.stop_polling);

    place.peer.model().agents[0].stop_polling = true;
    assert!(queue.signals(&agent, &[]).expect("answered").stop_polling);
}

#[test]
fn what_an_agent_cannot_start_with_is_said_in_one_line() {
    let place = Place::new();
    let try_with = |change: &dyn Fn(&mut Connection), queues: &[&str]| {
        let mut connection = place.connection();
        change(&mut connection);
        let error = place.open_as(connection).register(&info(queues));
        let error = error.expect_err("refused");
        assert!(!error.message.contains('\n'));
        (error.kind, error.message, error.hint.unwrap_or_default())
    };
    let (kind, message, _) = try_with(&|c| c.api_key = Secret::new("wrong"), &["q"]);
    assert_eq!(kind, Kind::Config);
    assert!(message.contains("refused (status 401)"), "{message}");

    let (kind, message, hint) = try_with(&|c| c.entity = Some("crow".to_owned()), &["q"]);
    assert_eq!(kind, Kind::NotFound);
    assert!(
        message.contains("entity `crow` does not exist"),
        "{message}"
    );
    assert_eq!(hint, "did you mean `crew`?");

    let (kind, message, hint) = try_with(&|_| (), &["q", "othr"]);
    assert_eq!(kind, Kind::NotFound);
    assert_eq!(message, "entity `me` has no queue `othr`");
    assert_eq!(hint, "did you mean `other`?");

    place.peer.model().queues.clear();
    let (kind, message, hint) = try_with(&|_| (), &["q"]);
    assert_eq!(
        (kind, message.as_str()),
        (Kind::NotFound, "entity `me` has no queue at all")
    );
    assert!(hint.contains("launch-agent queue create q"), "{hint}");
    assert_eq!(
        place.peer.count("createRunQueue"),
        0,
        "none is made behind anybody's back"
    );

    place.peer.model().user = None;
    let (kind, message, _) = try_with(&|_| (), &["q"]);
    assert_eq!(kind, Kind::Config);
    assert!(message.contains("belongs to nobody"), "{message}");
}

#[test]
fn a_team_is_registered_like_anybody() {
    let place = Place::new();
    let mut connection = place.connection();
    connection.entity = Some("crew".to_owned());
    let queue = place.open_as(connection);
    queue.register(&info(&["q"])).expect("registers");
    assert_eq!(place.peer.count("createLaunchAgent"), 1);
    let request = place.peer.requests().pop().expect("a request");
    assert_eq!(request.variables["entity"], "crew");
}

/// What an earlier process did that claimed an item for a run.
fn former(agent: &AgentId, run_id: &str) -> Former {
    Former {
        agents: vec![agent.clone()],
        run_id: run_id.to_owned(),
        claimed: true,
    }
}

#[test]
fn an_item_that_has_another_run_or_has_failed_is_not_taken_up() {
    let place = Place::new();
    let (queue, agent, item) = place.claimed(spec());
    let again = RunQueueItem {
        id: item.clone(),
        queue: "q".to_owned(),
        spec: spec(),
    };
    let adopted = |run: &str| queue.adopt(&agent, &again, &former(&agent, run));
    assert!(!adopted("another").expect("known"));
    assert!(adopted("r1").expect("known"));
    place.peer.model().item(&item.0).state = "FAILED".to_owned();
    assert!(!adopted("r1").expect("known"));
}

#[test]
fn an_item_whose_ack_may_have_been_lost_is_claimed_again_under_both_kinds_of_server() {
    for idempotent in [true, false] {
        let place = Place::new();
        place.peer.model().idempotent_ack = idempotent;
        let (queue, agent, item) = place.claimed(spec());
        drop(queue);
        let queue = place.open();
        let again = RunQueueItem {
            id: item,
            queue: "q".to_owned(),
            spec: spec(),
        };
        let mut former = former(&agent, "r1");
        former.claimed = false;
        assert!(
            queue.adopt(&agent, &again, &former).expect("known"),
            "{idempotent}"
        );
    }
}

#[test]
fn the_agent_of_an_earlier_process_is_taken_up_again() {
    let place = Place::new();
    let (queue, agent, item) = place.claimed(spec());
    drop(queue);
    let queue = place.open();
    let again = RunQueueItem {
        id: item.clone(),
        queue: "q".to_owned(),
        spec: spec(),
    };
    let adopted = queue.adopt(&agent, &again, &former(&agent, "r1"));
    assert!(adopted.expect("known"));
    place
        .peer
        .model()
        .set_run("me", "demo", "r1", "running")
        .stopped = true;
    let signals = queue
        .signals(&agent, std::slice::from_ref(&item))
        .expect("answered");
    assert_eq!(
        signals.stop,
        [StopRequest {
            item,
            told: Told::JobToo
        }]
    );
}

#[test]
fn a_server_that_wants_silence_gets_it() {
    let place = Place::new();
    let (queue, agent) = place.agent();
    let busy = How::Status(429, "Retry-After: 7\r\n", "slow down");
    place.peer.fail("popFromRunQueue", busy, 1);
    let before = place.peer.requests().len();
    let queues = ["q".to_owned()];
    for _ in 0..3 {
        queue
            .poll(&agent, AgentStatus::Polling, 0, &queues)
            .expect_err("it is quiet time");
    }
    assert_eq!(
        place.peer.requests().len() - before,
        1,
        "asked once, then silent"
    );
    let wait = queue.poll_every(Duration::ZERO).as_secs_f64();
    assert!((6.0..=7.0).contains(&wait), "{wait}");
}
