//! Who gets in: keys as their owner makes, sees and revokes them.

use serde_json::json;

use super::{Member, files, runs, served};
use crate::common::server::{Client, Server};

const VIEWER: &str =
    "query Viewer { viewer { id entity username email flags teams { edges { node { name } } } } }";

#[test]
fn without_a_valid_key_nothing_but_the_health_check_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    assert_eq!(
        client.data(VIEWER, &json!({}))["viewer"]["username"],
        "alice"
    );
    let last = if client.key.ends_with('0') { '1' } else { '0' };
    let almost = format!("{}{last}", &client.key[..39]);
    for key in ["", "x", &almost, &client.key[..39]] {
        let stranger = server.client(key);
        for (method, path) in [
            ("POST", "/graphql"),
            ("GET", "/graphql"),
            ("POST", "/files/team/demo/run/file_stream"),
            ("GET", "/"),
            ("GET", "/healthz/.."),
            ("PUT", "/graphql"),
        ] {
            let (status, body) = stranger.request(method, path, "", b"{}");
            assert!(
                status == 401 || status == 404,
                "{key} {method} {path}: {status}"
            );
            assert!(!String::from_utf8_lossy(&body).contains("alice"));
        }
        assert_eq!(stranger.request("POST", "/graphql", "", b"{}").0, 401);
        assert_eq!(stranger.request("GET", "/healthz", "", b"").0, 200);
        // The client leaves its telemetry without a key, and is loud where it is not told that there is no such place.
        let telemetry = stranger.request("POST", "/sdk/otel/v1/metrics", "", b"{}");
        assert_eq!(telemetry.0, 404);
    }
    let bearer = format!("Authorization: Bearer {}\r\n", client.key);
    let body = json!({"query": VIEWER}).to_string();
    let (status, _) = server
        .client("")
        .request("POST", "/graphql", &bearer, body.as_bytes());
    assert_eq!(status, 200);
}

#[test]
fn a_server_that_lets_nobody_in_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    assert!(server.log().contains("there is no key yet"));
    server.key("alice", &[]);
    server.cli(&["serve", "key", "revoke", "1"]);
    drop(server);
    let server = Server::start(folder.path());
    let log = server.log();
    assert!(log.contains("there is no key that is not revoked"), "{log}");
}

#[test]
fn a_key_is_shown_once_stored_as_a_hash_and_revoked_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    assert_eq!(client.key.len(), 40);
    assert!(client.key.chars().all(|c| c.is_ascii_hexdigit()));
    let second = server.client(&server.key("alice", &[]));
    let list = server.cli(&["serve", "key", "list", "--json"]);
    let keys: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!(keys[0]["entities"], json!(["alice", "team"]));
    assert_eq!(keys[0]["ending"], client.key[36..]);
    assert_eq!(keys[1]["used_at"], json!(null));
    assert_eq!(second.data(VIEWER, &json!({}))["viewer"]["entity"], "alice");
    for file in ["queue.db", "queue.db-wal"] {
        let bytes = std::fs::read(folder.path().join(file)).expect("the database");
        let found = bytes.windows(40).any(|part| part == client.key.as_bytes());
        assert!(!found, "the key itself is in {file}");
    }
    server.cli(&["serve", "key", "revoke", "1"]);
    assert_eq!(client.request("POST", "/graphql", "", b"{}").0, 401);
    assert_eq!(second.data(VIEWER, &json!({}))["viewer"]["entity"], "alice");
    assert!(server.cli(&["serve", "key", "list"]).contains("revoked"));
    assert!(!server.log().contains(&client.key) && !server.log().contains(&second.key));
}

#[test]
fn names_that_would_mix_users_with_teams_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let queue = launch_agent::queue::local::LocalQueue::open(&folder.path().join("queue.db"))
        .expect("a queue");
    let create = |user: &str, entities: &[&str]| {
        let entities: Vec<String> = entities.iter().map(|name| (*name).to_owned()).collect();
        queue
            .create_key(user, &entities)
            .map_err(|error| error.message)
    };
    create("alice", &["team"]).expect("a key");
    create("bob", &["team", "local"]).expect("a key");
    for (user, entities, message) in [
        (
            "team",
            vec![],
            "`team` is an entity already, so it cannot be the name of a user",
        ),
        (
            "carol",
            vec!["alice"],
            "`alice` is a user, whose own entity has no other members",
        ),
        ("local", vec![], "`local` cannot be a user"),
        (
            "a/b",
            vec![],
            "`a/b` cannot be the name of a user or an entity",
        ),
        (
            "carol",
            vec![".."],
            "`..` cannot be the name of a user or an entity",
        ),
        ("", vec![], "`` cannot be the name of a user or an entity"),
    ] {
        let error = create(user, &entities).expect_err("refused");
        assert!(error.starts_with(message), "{error}");
    }
    let keys = queue.keys().expect("keys");
    let users: Vec<&str> = keys.iter().map(|key| key.user.as_str()).collect();
    assert_eq!(
        users,
        ["alice", "bob"],
        "what is refused leaves nothing behind"
    );
}

#[test]
fn a_server_ends_within_seconds_and_finds_its_state_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    team(&client).make_queue("q", &json!({"env": ["A=1"]}), &json!({}));
    let (item, waiting) = (team(&client).push("q"), team(&client).push("q"));
    let agent = team(&client).agent("q");
    team(&client).pop("q", &agent);
    assert!(team(&client).ack(&item, "item-run"));
    runs::begin(&client, "r1");
    let put = files::upload_path(&client, "r1", "a.txt");
    assert_eq!(files::nobody(&server).request("PUT", &put, "", b"a").0, 200);
    let known = |client: &Client| {
        let place = json!({"e": "team", "p": "demo", "r": "item-run"});
        let names = files::files(client, &json!({})).into_iter();
        json!({
            "viewer": client.data(VIEWER, &json!({})),
            "queues": client.data(super::QUEUES, &json!({"e": "team"})),
            "items": [team(client).item("q", &item), team(client).item("q", &waiting)],
            "run": client.data(super::RUN, &place),
            "files": names.map(|file| file["md5"].clone()).collect::<Vec<_>>(),
        })
    };
    let before = known(&client);
    // An open connection that says nothing does not hold it up.
    let _idle = std::net::TcpStream::connect(&server.address).expect("a connection");
    let start = std::time::Instant::now();
    assert_eq!(server.end(nix::sys::signal::Signal::SIGTERM), Some(0));
    assert!(start.elapsed() < std::time::Duration::from_secs(8));
    let again = Server::start(folder.path());
    let client = again.client(&client.key);
    assert_eq!(known(&client), before);
    // Agents, leases and addresses of files go on as well.
    let next = team(&client).pop("q", &agent);
    assert_eq!(next["runQueueItemId"], waiting.as_str());
    assert_eq!(files::nobody(&again).request("PUT", &put, "", b"b").0, 200);
}

#[test]
fn it_listens_on_this_machine_unless_it_is_told_to_and_then_says_what_that_means() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, _) = served(folder.path());
    let help = server.cli(&["serve", "--help"]);
    assert!(help.contains("[default: 127.0.0.1:8080]"), "{help}");
    assert_eq!(server.end(nix::sys::signal::Signal::SIGTERM), Some(0));
    assert!(!server_log(folder.path()).contains("TLS"));

    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start_at(folder.path(), "0.0.0.0:0");
    assert_eq!(server.end(nix::sys::signal::Signal::SIGTERM), Some(0));
    let said = server_log(folder.path());
    for part in ["HTTP without TLS", "--public-url https://", "reverse-proxy"] {
        assert!(said.contains(part), "{said}");
    }
}

fn team(client: &Client) -> Member<'_> {
    Member {
        client,
        entity: "team",
    }
}

/// What a server that has ended said after its first line.
fn server_log(folder: &std::path::Path) -> String {
    let path = folder.join("serve.err");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        // It is copied by a thread, which ends after the server.
        if log.ends_with("stopped\n") {
            return log;
        }
        assert!(std::time::Instant::now() < deadline, "{log}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
