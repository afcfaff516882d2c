//! The contract of all queues, kept by W&B's client in front of the peer.

use std::time::{Duration, Instant};

use launch_agent::queue::{ItemId, Priority};
use serde_json::json;

use super::Place;
use crate::common::peer::Peer;
use crate::queue::contract::{Admin, World, contract};

impl Admin for Peer {
    fn push(&self, queue: &str, image: &str, priority: Option<Priority>) -> ItemId {
        let spec = json!({"entity": "me", "project": "p", "docker": {"docker_image": image}});
        let mut model = self.model();
        let id = model.add_item(queue, spec);
        model.item(&id).priority = priority.map_or(2, |priority| priority as i64);
        ItemId(id)
    }

    /// What the stop button of a run does.
    fn cancel(&self, item: &ItemId) {
        let run = self
            .model()
            .item(&item.0)
            .run
            .clone()
            .expect("it was taken");
        self.model().set_run("me", "p", &run, "running").stopped = true;
    }

    fn set_paused(&self, queue: &str, _paused: bool) {
        panic!("W&B cannot pause queue {queue}");
    }

    fn state(&self, item: &ItemId) -> String {
        let mut model = self.model();
        let lease = model.lease;
        let item = model.item(&item.0);
        let lapsed = |at: Instant| item.state == "LEASED" && at.elapsed() >= lease;
        if item.leased_at.is_some_and(lapsed) {
            "PENDING".to_owned()
        } else {
            item.state.clone()
        }
    }
}

#[test]
fn wandbs_client_keeps_the_contract() {
    contract(&|lease: Duration, scenario| {
        let mut place = Place::new();
        place.peer = Peer::new(&["plain", "urgent"]);
        place.peer.model().lease = lease;
        // Each agent is a process of its own, with its own folder for reports.
        let folders = std::sync::Mutex::new(Vec::new());
        scenario(&World {
            open: &|| {
                let folder = tempfile::tempdir().expect("a folder");
                let queue = place.open_in(folder.path());
                folders.lock().expect("whole").push(folder);
                Box::new(queue)
            },
            admin: &place.peer,
        });
    });
}
