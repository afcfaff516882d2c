//! Many agents and pushers over HTTP, and a server that is killed in the middle: each item is handed to exactly one,
//! and what was acknowledged is there afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{ACK, FAIL, Member, POP, PUSH};
use crate::common::server::{Client, Server};

/// How many of each; the variables make the test as large as one likes.
struct Size {
    items: usize,
    kills: usize,
    agents: usize,
    pushers: usize,
}

impl Size {
    fn read() -> Size {
        let number = |name: &str, usual: usize| {
            std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
        };
        Size {
            items: number("LOAD_ITEMS", 1_000),
            kills: number("LOAD_KILLS", 3),
            agents: 8,
            pushers: 4,
        }
    }
}

/// What the clients know, each from the answers that it had.
#[derive(Default)]
struct Known {
    /// The items that pushers have an id for.
    pushed: Mutex<BTreeSet<String>>,
    /// How often an item was handed out, and to which agents.
    handed: Mutex<BTreeMap<String, Vec<usize>>>,
    /// Which run each acknowledged item is, as the agent that was told `true` knows.
    claimed: Mutex<BTreeMap<String, Vec<String>>>,
    ended: AtomicUsize,
    over: AtomicBool,
}

/// Asks until there is an answer: the server may be gone for a while. `None` when the test is over.
fn ask(client: &Client, known: &Known, query: &str, variables: &Value) -> Option<Value> {
    while !known.over.load(Ordering::Relaxed) {
        match client.try_graphql(query, variables) {
            Ok((200, answer)) if answer.get("errors").is_none() => {
                return Some(answer["data"].clone());
            }
            Ok((503, _)) | Err(_) => std::thread::sleep(Duration::from_millis(10)),
            Ok((status, answer)) => panic!("{status}: {answer}"),
        }
    }
    None
}

/// Pushes until so many pushes were answered. A push whose answer is lost may have been done: it is pushed again, as
/// a client without an id for it must.
fn push(client: &Client, known: &Known, name: usize, count: usize) {
    for number in 0..count {
        let spec = json!({"project": "load", "name": format!("{name}-{number}"), "docker": {"docker_image": "a:1"}});
        let variables =
            json!({"e": "team", "p": "model-registry", "q": "q", "s": spec.to_string()});
        let Some(data) = ask(client, known, PUSH, &variables) else {
            return;
        };
        let id = super::text(&data["pushToRunQueueByName"]["runQueueItemId"]);
        assert!(
            known.pushed.lock().expect("no panic").insert(id),
            "an id twice"
        );
    }
}

/// Takes, claims and ends items until the test is over.
fn work(client: &Client, known: &Known, name: usize, agent: &str) {
    while !known.over.load(Ordering::Relaxed) {
        let variables = json!({"e": "team", "q": "q", "a": agent});
        let Some(data) = ask(client, known, POP, &variables) else {
            return;
        };
        let Value::String(item) = &data["popFromRunQueue"]["runQueueItemId"] else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        let mut handed = known.handed.lock().expect("no panic");
        handed.entry(item.clone()).or_default().push(name);
        drop(handed);
        let run = format!("run-{name}-{}", fastrand::u64(..));
        let Some(data) = ask(client, known, ACK, &json!({"i": item, "r": run})) else {
            return;
        };
        assert_eq!(
            data["ackRunQueueItem"]["success"], true,
            "only we have {item}"
        );
        let mut claimed = known.claimed.lock().expect("no panic");
        claimed.entry(item.clone()).or_default().push(run);
        drop(claimed);
        let end = json!({"i": item, "m": format!("ended by {name}"), "s": "run"});
        let Some(data) = ask(client, known, FAIL, &end) else {
            return;
        };
        assert_eq!(data["failRunQueueItem"]["success"], true);
        known.ended.fetch_add(1, Ordering::Relaxed);
    }
}

fn start_all(
    size: &Size,
    client: &Client,
    known: &Arc<Known>,
) -> (Vec<JoinHandle<()>>, Vec<JoinHandle<()>>) {
    let team = Member {
        client,
        entity: "team",
    };
    let agents = (0..size.agents).map(|name| {
        let (client, known, agent) = (client.clone(), Arc::clone(known), team.agent("q"));
        std::thread::spawn(move || work(&client, &known, name, &agent))
    });
    let agents = agents.collect();
    let count = size.items / size.pushers;
    let pushers = (0..size.pushers).map(|name| {
        let (client, known) = (client.clone(), Arc::clone(known));
        std::thread::spawn(move || push(&client, &known, name, count))
    });
    (agents, pushers.collect())
}

/// An address that stays the same when the server comes back.
fn address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

/// What the database holds in the end: the states of the items, counted.
fn states(folder: &Path) -> BTreeMap<String, usize> {
    let queue = launch_agent::queue::local::LocalQueue::open(&folder.join("queue.db"))
        .expect("the database");
    let mut states = BTreeMap::new();
    for item in queue.items(Some("team/q")).expect("items") {
        *states.entry(item.state.word().to_owned()).or_default() += 1;
    }
    states
}

#[test]
#[expect(
    clippy::print_stdout,
    reason = "the figures are worth seeing with --nocapture"
)]
fn a_server_that_is_killed_loses_nothing_and_hands_out_nothing_twice() {
    let size = Size::read();
    let folder = tempfile::tempdir().expect("a folder");
    let address = address();
    let mut server = Server::start_at(folder.path(), &address);
    let client = server.client(&server.key("alice", &["team"]));
    Member {
        client: &client,
        entity: "team",
    }
    .make_queue("q", &json!({}), &json!({}));
    let known = Arc::new(Known::default());
    let start = Instant::now();
    let (agents, pushers) = start_all(&size, &client, &known);
    let patience = Duration::from_secs(30) + Duration::from_millis(100 * size.items as u64);
    let ended = || known.ended.load(Ordering::Relaxed);
    for kill in 1..=size.kills {
        while ended() < size.items * kill / (size.kills + 1) && start.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(server.end(Signal::SIGKILL), None);
        server = Server::start_at(folder.path(), &address);
    }
    for pusher in pushers {
        pusher.join().expect("a pusher");
    }
    // An item whose pop was answered to nobody comes back after the lease, which is longer than this test: all
    // others must end.
    let lost = |states: &BTreeMap<String, usize>| states.get("LEASED").copied().unwrap_or(0);
    let mut found = states(folder.path());
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < Duration::from_millis(500) && start.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(50));
        let now = states(folder.path());
        let is_over = now
            .keys()
            .all(|state| state == "FAILED" || state == "LEASED");
        if now != found || !is_over {
            quiet_since = Instant::now();
        }
        found = now;
    }
    known.over.store(true, Ordering::Relaxed);
    for agent in agents {
        agent.join().expect("an agent");
    }
    let took = start.elapsed();
    drop(server);

    let pushed = known.pushed.lock().expect("no panic");
    let handed = known.handed.lock().expect("no panic");
    let claimed = known.claimed.lock().expect("no panic");
    let in_all: usize = found.values().sum();
    println!(
        "{} items pushed by {} pushers, {in_all} in the database, {} claimed by {} agents, {} leased to lost answers, \
         {} kills, {:.1} s: {:.0} items a second",
        pushed.len(),
        size.pushers,
        claimed.len(),
        size.agents,
        lost(&found),
        size.kills,
        took.as_secs_f64(),
        f64::from(u32::try_from(claimed.len()).expect("few")) / took.as_secs_f64()
    );
    assert_eq!(pushed.len(), size.items);
    assert!(
        handed.values().all(|to| to.len() == 1),
        "handed out twice: {handed:?}"
    );
    assert!(
        claimed.values().all(|runs| runs.len() == 1),
        "claimed twice: {claimed:?}"
    );
    assert!(in_all >= size.items, "an acknowledged push is lost");
    assert!(lost(&found) <= size.kills * size.agents, "{found:?}");
    assert_eq!(
        found.get("FAILED"),
        Some(&(in_all - lost(&found))),
        "{found:?}"
    );
    let missing: Vec<&String> = pushed
        .iter()
        .filter(|id| !handed.contains_key(*id))
        .collect();
    assert!(
        missing.len() <= lost(&found),
        "never handed out: {missing:?}"
    );
    // What the agents were told stands in the database.
    let queue = launch_agent::queue::local::LocalQueue::open(&folder.path().join("queue.db"))
        .expect("the database");
    let runs: BTreeSet<String> = queue
        .items(Some("team/q"))
        .expect("items")
        .into_iter()
        .filter_map(|item| item.run_id)
        .collect();
    assert!(claimed.values().flatten().all(|run| runs.contains(run)));
}
