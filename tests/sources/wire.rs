//! Jobs over the wire: W&B's client of this program against `serve`, and who may read what.

use std::collections::BTreeMap;
use std::path::Path;

use launch_agent::config::identity::Address;
use launch_agent::failure::Kind;
use launch_agent::launch::command::Secret;
use launch_agent::launch::job::ArtifactName;
use launch_agent::queue::artifacts::Artifacts;
use launch_agent::queue::local::{LocalQueue, NewFile};
use launch_agent::queue::wandb::proxy::Proxies;
use launch_agent::queue::wandb::transport::Timing;
use launch_agent::queue::wandb::{Client, Connection};
use launch_agent::queue::{ItemId, Push, Queue};
use serde_json::json;

use super::fetch_job;
use crate::common::server::Server;

fn client(server: &Server, key: &str) -> Client {
    let address = format!("http://{}", server.address);
    Client::new(Connection {
        address: Address::parse(&address, "the test").expect("an address"),
        api_key: Secret::new(key),
        entity: Some("team".to_owned()),
        proxies: Proxies::read(&BTreeMap::new()),
        ca_bundle: None,
        timing: Timing::default(),
    })
    .expect("a client")
}

fn keep(queue: &LocalQueue, name: &str, kind: &str, files: &[(&str, String)]) -> String {
    let files = files.iter().map(|(path, text)| {
        Ok(NewFile {
            path: (*path).to_owned(),
            content: Box::new(text.as_bytes()),
        })
    });
    let kept = queue
        .keep_artifact("team", "Demo", name, kind, files)
        .expect("kept");
    launch_agent::queue::local::artifact_id(kept.id)
}

/// A job of the entity `team` with its code.
fn keep_job(queue: &LocalQueue) {
    let code = keep(
        queue,
        "code-train",
        "code",
        &[
            ("train.py", "print(1)\n".to_owned()),
            ("pkg/a b%ü.txt", "x".repeat(200_000)),
            ("empty", String::new()),
        ],
    );
    let job = json!({"source_type": "artifact", "runtime": "3.12",
        "source": {"artifact": format!("wandb-artifact://_id/{code}"), "entrypoint": ["python", "train.py"]}});
    keep(
        queue,
        "train",
        "job",
        &[("wandb-job.json", job.to_string())],
    );
}

#[test]
fn a_job_is_fetched_over_the_wire_and_is_the_same_as_at_home() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let key = server.key("alice", &["team"]);
    let queue = LocalQueue::open(&folder.path().join("queue.db")).expect("a queue");
    keep_job(&queue);
    let fetch = |artifacts: &dyn Artifacts, cache: &Path| {
        fetch_job(artifacts, "team/demo/train:latest", cache, &BTreeMap::new())
    };
    let here = fetch(&queue.artifacts_for_owner(), &folder.path().join("cache-1"));
    let wire = client(&server, &key);
    let there = fetch(&wire, &folder.path().join("cache-2"));
    assert_eq!(there.read("train.py"), "print(1)\n");
    assert_eq!(there.read("pkg/a b%ü.txt").len(), 200_000);
    assert_eq!(there.identity(), here.identity());
    assert_eq!(there.code().job.name, "team/Demo/train:v0");
    // What is in the cache is asked for by name, and not downloaded again.
    let before = server.log().len();
    assert_eq!(
        fetch(&wire, &folder.path().join("cache-2")).identity(),
        here.identity()
    );
    assert!(server.log().len() >= before);

    let stranger = client(&server, &server.key("mallory", &["other"]));
    let closed = fetch(&stranger, &folder.path().join("cache-3"));
    let error = closed.code.expect_err("closed");
    assert_eq!(error.kind, Kind::NotFound);
    assert!(
        error
            .message
            .contains("has no artifact `team/demo/train:latest`"),
        "{error}"
    );
    let missing = wire.artifact(&ArtifactName::parse("team/demo/train:v7").expect("a name"));
    assert_eq!(missing.expect_err("missing").kind, Kind::NotFound);
}

#[test]
fn an_agent_beside_the_queue_fetches_only_what_the_pusher_may_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    server.key("alice", &["team"]);
    server.key("mallory", &["other"]);
    let queue = LocalQueue::open(&folder.path().join("queue.db")).expect("a queue");
    keep_job(&queue);
    server.cli(&["queue", "create", "q"]);
    let push = |user: &str| -> ItemId {
        let spec = json!({"project": "demo", "job": "team/demo/train:latest"});
        let push = Push {
            queue: "q".to_owned(),
            spec: spec.as_object().expect("an object").clone(),
            template_values: serde_json::Map::new(),
            priority: None,
        };
        queue.push_by(user, &push, &|| None).expect("pushed").id
    };
    for (user, may) in [("", true), ("alice", true), ("mallory", false)] {
        let artifacts = Queue::artifacts(&queue, &push(user)).expect("artifacts");
        let cache = folder.path().join("cache");
        let fetched = fetch_job(
            artifacts.as_ref(),
            "team/demo/train:latest",
            &cache,
            &BTreeMap::new(),
        );
        assert_eq!(fetched.code.is_ok(), may, "{user}: {}", fetched.said);
    }
}
