//! The contract of all queues, kept over the wire: our W&B client on one side, this server on the other.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use launch_agent::config::identity::Address;
use launch_agent::launch::command::Secret;
use launch_agent::queue::local::{LocalQueue, Times};
use launch_agent::queue::wandb::proxy::Proxies;
use launch_agent::queue::wandb::{Connection, WandbQueue};
use launch_agent::queue::{ItemId, Priority};
use launch_agent::serve::exchange::Limits;
use launch_agent::serve::{self, Launch, Stopper};
use serde_json::json;

use super::{Member, PUSH, RUN, served};
use crate::common::server::Client;
use crate::queue::contract::{Admin, World, contract};
use crate::wandb::TIMING;

/// A member of the team, who pushes, looks and stops as the `wandb` client does.
struct Person<'a>(Member<'a>);

impl Person<'_> {
    /// An item, which the wire looks up by way of its queue.
    fn find(&self, item: &ItemId) -> serde_json::Value {
        let found = ["plain", "urgent"].map(|queue| self.0.item(queue, &item.0));
        let found = found.into_iter().find(|found| !found.is_null());
        found.unwrap_or_else(|| panic!("no item {item}"))
    }
}

impl Admin for Person<'_> {
    fn push(&self, queue: &str, image: &str, priority: Option<Priority>) -> ItemId {
        let spec = json!({"project": "demo", "docker": {"docker_image": image}});
        let mut variables = self.0.push_variables(queue, &spec);
        if let Some(priority) = priority {
            variables["pr"] = json!(priority as i64);
        }
        let data = self.0.client.data(PUSH, &variables);
        ItemId(super::text(&data["pushToRunQueueByName"]["runQueueItemId"]))
    }

    /// What the stop button of a run does.
    fn cancel(&self, item: &ItemId) {
        let place = json!({"e": "team", "p": "demo", "r": self.find(item)["associatedRunId"]});
        let run = self.0.client.data(RUN, &place)["project"]["run"]["id"].clone();
        let stop = "mutation s($i: ID!) { stopRun(input: {id: $i}) { success } }";
        let data = self.0.client.data(stop, &json!({"i": run}));
        assert_eq!(data["stopRun"]["success"], true);
    }

    fn set_paused(&self, queue: &str, _paused: bool) {
        panic!("queue {queue} cannot be paused over the wire");
    }

    fn state(&self, item: &ItemId) -> String {
        super::text(&self.find(item)["state"])
    }
}

/// Shows a scenario the queues of a server: `key` is an agent's, `client` a person's.
fn show(client: &Client, key: &str, scenario: &dyn Fn(&World)) {
    let team = Member {
        client,
        entity: "team",
    };
    for queue in ["plain", "urgent"] {
        let mode = if queue == "urgent" { "V0" } else { "DISABLED" };
        team.make_queue_in_mode(queue, &json!({}), &json!({}), mode);
    }
    // Each agent is a process of its own, with its own folder for reports.
    let folders = Mutex::new(Vec::new());
    scenario(&World {
        open: &|| {
            let folder = tempfile::tempdir().expect("a folder");
            let queue = open(&client.address, key, folder.path());
            folders.lock().expect("whole").push(folder);
            Box::new(queue)
        },
        admin: &Person(team),
    });
}

fn open(address: &str, key: &str, outbox: &Path) -> WandbQueue {
    let connection = Connection {
        address: Address::parse(&format!("http://{address}"), "test").expect("an address"),
        api_key: Secret::new(key),
        entity: Some("team".to_owned()),
        proxies: Proxies::default(),
        ca_bundle: None,
        timing: TIMING,
    };
    let version = "launch-agent@test".to_owned();
    WandbQueue::open(connection, outbox, json!({"max_jobs": 1}), version).expect("opens")
}

/// A server in this process, whose leases may be short and whose files may have little room.
pub struct Here {
    pub address: SocketAddr,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Here {
    pub fn start(queue: LocalQueue, quota: u64) -> Here {
        let server =
            serve::Server::bind(([127, 0, 0, 1], 0).into(), Limits::default()).expect("a server");
        let (address, stopper) = (server.address().expect("an address"), server.stopper());
        let site = Launch::new(Arc::new(queue), None, quota).expect("a site");
        let thread = std::thread::spawn(move || server.run(Arc::new(site)).expect("served"));
        Here {
            address,
            stopper,
            thread: Some(thread),
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn our_client_and_this_server_keep_the_contract() {
    contract(&|lease, scenario| {
        let folder = tempfile::tempdir().expect("a folder");
        if lease == Times::default().lease {
            let (server, alice) = served(folder.path());
            show(&alice, &server.key("bob", &["team"]), scenario);
            return;
        }
        let times = Times {
            lease,
            ..Times::default()
        };
        let queue = LocalQueue::open_with(&folder.path().join("queue.db"), times).expect("a queue");
        let team = ["team".to_owned()];
        let key = |user: &str| queue.create_key(user, &team).expect("a key").key;
        let (alice, bob) = (key("alice"), key("bob"));
        let server = Here::start(queue, 1 << 30);
        let alice = Client {
            address: server.address.to_string(),
            key: alice,
        };
        show(&alice, &bob, scenario);
    });
}
