//! Runs over the wire: what a program reports, how it is read back, how it ends, and that it is its entity's alone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ACK, AGENT, ITEM, Member, POP, RUN, served, text};
use crate::common::server::{Client, Server};

pub const UPSERT: &str = "mutation u($id: String, $e: String, $p: String, $n: String, $c: JSONString, $s: JSONString, $d: String, $t: [String!], $st: String) {
  upsertBucket(input: {id: $id, entityName: $e, modelName: $p, name: $n, config: $c, summaryMetrics: $s, displayName: $d, tags: $t, state: $st}) {
    bucket { id name displayName config historyLineCount project { name entity { name } } } inserted
  }
}";
const READ: &str = "query r($e: String!, $p: String!, $r: String!) { project(name: $p, entityName: $e) { run(name: $r) {
  id state stopped config summaryMetrics historyLineCount eventsLineCount logLineCount historyKeys exitCode
  user { username } history(samples: 500) logLines(last: 10) { edges { node { number level timestamp line } } }
} } }";
const STOP: &str = "mutation s($id: ID!) { stopRun(input: {id: $id}) { success } }";

/// Begins a run of `team/demo`, and gives its id.
pub fn begin(client: &Client, name: &str) -> String {
    let data = client.data(UPSERT, &json!({"e": "team", "p": "demo", "n": name}));
    text(&data["upsertBucket"]["bucket"]["id"])
}

fn post(client: &Client, run: &str, report: &Value) -> (u16, Value) {
    let path = format!("/files/team/demo/{run}/file_stream");
    let (status, body) = client.request("POST", &path, "", report.to_string().as_bytes());
    (status, serde_json::from_slice(&body).expect("JSON"))
}

fn lines(offset: usize, lines: &[&str]) -> Value {
    json!({"offset": offset, "content": lines})
}

fn read(client: &Client, run: &str) -> Value {
    let data = client.data(READ, &json!({"e": "team", "p": "demo", "r": run}));
    data["project"]["run"].clone()
}

#[test]
fn what_a_run_reports_is_read_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let config = r#"{"lr": {"value": 1e-07}}"#;
    let begun = client.data(
        UPSERT,
        &json!({"e": "team", "p": "Demo", "n": "r1", "c": config, "d": "first"}),
    );
    assert_eq!(begun["upsertBucket"]["inserted"], true);
    assert_eq!(begun["upsertBucket"]["bucket"]["displayName"], "first");
    let report = json!({"files": {
        "wandb-history.jsonl": lines(0, &[r#"{"_step":0,"loss":1}"#, r#"{"_step":1,"loss":0.5}"#]),
        "wandb-events.jsonl": lines(0, &[r#"{"system.cpu":3}"#]),
        "output.log": lines(0, &["2026-11-22T00:02:36.455137 one", "ERROR 2026-11-22T00:02:37.0 two"]),
        "wandb-summary.json": lines(0, &[r#"{"loss":0.5}"#]),
    }});
    for _ in 0..2 {
        // A client whose answer was lost sends all of it again.
        let (status, answer) = post(&client, "r1", &report);
        assert_eq!((status, &answer["stopped"]), (200, &json!(false)));
    }
    let run = read(&client, "r1");
    assert_eq!(run["state"], "running");
    assert_eq!(run["config"], r#"{"lr":{"value":1e-07}}"#);
    assert_eq!(run["summaryMetrics"], r#"{"loss":0.5}"#);
    assert_eq!(run["historyLineCount"], 2);
    assert_eq!(run["historyKeys"]["lastStep"], 1);
    assert_eq!(run["history"][1], r#"{"_step":1,"loss":0.5}"#);
    assert_eq!(run["user"]["username"], "alice");
    let second = &run["logLines"]["edges"][1]["node"];
    assert_eq!(
        (&second["level"], &second["line"]),
        (&json!("error"), &json!("two"))
    );
    let (status, _) = post(&client, "r1", &json!({"complete": true, "exitcode": 0}));
    assert_eq!(status, 200);
    assert_eq!(read(&client, "r1")["state"], "finished");
}

#[test]
fn a_loss_that_is_no_number_ends_no_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let config = r#"{"inf": {"value": Infinity}}"#;
    client.data(
        UPSERT,
        &json!({"e": "team", "p": "demo", "n": "r1", "c": config}),
    );
    let report = json!({"files": {
        "wandb-history.jsonl": lines(0, &[r#"{"_step":0,"loss":NaN}"#, r#"{"_step":1,"loss":-Infinity}"#]),
        "wandb-events.jsonl": lines(0, &[r#"{"system.cpu":NaN}"#]),
        "output.log": lines(0, &["2026-11-22T00:02:36.455137 loss: NaN"]),
        "wandb-summary.json": lines(0, &[r#"{"loss":NaN,"deep":{"a":[Infinity]}}"#]),
    }});
    assert_eq!(post(&client, "r1", &report).0, 200);
    let run = read(&client, "r1");
    assert_eq!(run["config"], r#"{"inf":{"value":"Infinity"}}"#);
    assert_eq!(
        run["summaryMetrics"],
        r#"{"loss":"NaN","deep":{"a":["Infinity"]}}"#
    );
    assert_eq!(
        run["history"],
        json!([
            r#"{"_step":0,"loss":"NaN"}"#,
            r#"{"_step":1,"loss":"-Infinity"}"#
        ])
    );
    assert_eq!(run["logLines"]["edges"][0]["node"]["line"], "loss: NaN");
    let query = "query q($s: [JSONString!]!) { project(name: \"demo\", entityName: \"team\") { run(name: \"r1\") { systemMetrics sampledHistory(specs: $s) } } }";
    let data = client.data(query, &json!({"s": [r#"{"keys": ["loss"]}"#]}));
    let run = &data["project"]["run"];
    assert_eq!(
        run["sampledHistory"][0],
        json!([{"loss": "NaN"}, {"loss": "-Infinity"}])
    );
    assert_eq!(run["systemMetrics"], r#"{"system.cpu":"NaN"}"#);
}

#[test]
fn a_history_is_sampled_by_its_keys_and_paged_by_its_steps() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    begin(&client, "r1");
    let all: Vec<String> = (0..100)
        .map(|step| match step % 2 {
            0 => format!(r#"{{"_step":{step},"even":{step}}}"#),
            _ => format!(r#"{{"_step":{step},"odd":{{"deep":{step}}}}}"#),
        })
        .collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    post(
        &client,
        "r1",
        &json!({"files": {"wandb-history.jsonl": lines(0, &all)}}),
    );
    let query = "query q($s: [JSONString!]!, $a: Int64, $b: Int64) { project(name: \"demo\", entityName: \"team\") { run(name: \"r1\") { sampledHistory(specs: $s) history(minStep: $a, maxStep: $b, samples: 500) } } }";
    let sampled = |spec: Value, min: i64, max: i64| {
        let data = client.data(query, &json!({"s": [spec.to_string()], "a": min, "b": max}));
        data["project"]["run"].clone()
    };
    let run = sampled(json!({"keys": ["_step", "even"], "samples": 500}), 10, 12);
    assert_eq!(run["sampledHistory"][0].as_array().expect("rows").len(), 50);
    assert_eq!(run["sampledHistory"][0][1], json!({"_step": 2, "even": 2}));
    assert_eq!(run["history"].as_array().expect("lines").len(), 2);
    let run = sampled(json!({"keys": ["odd.deep"], "samples": 10}), 0, 0);
    let few = run["sampledHistory"][0].as_array().expect("rows");
    assert!((5..=10).contains(&few.len()), "{few:?}");
    assert_eq!(few[0], json!({"odd.deep": 1}));
    let run = sampled(json!({"keys": ["_step"], "minStep": 3, "maxStep": 4}), 0, 0);
    assert_eq!(
        run["sampledHistory"][0],
        json!([{"_step": 3}, {"_step": 4}])
    );
}

#[test]
fn a_run_that_is_asked_to_stop_learns_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let id = begin(&client, "r1");
    begin(&client, "r2");
    client.data(STOP, &json!({"id": id}));
    server.cli(&["serve", "run", "stop", "team/demo/r2"]);
    for run in ["r1", "r2"] {
        assert_eq!(post(&client, run, &json!({})).1["stopped"], true);
    }
    let (_, answer) = post(&client, "r1", &json!({"complete": true, "exitcode": 255}));
    assert_eq!(answer["stopped"], true);
    let run = read(&client, "r1");
    assert_eq!(
        (&run["state"], &run["exitCode"]),
        (&json!("failed"), &json!(255))
    );
    // Who changes its notes does not bring it back to life, who begins it anew does.
    client.data(UPSERT, &json!({"id": id, "s": "{\"best\": 1}"}));
    assert_eq!(read(&client, "r1")["state"], "failed");
    begin(&client, "r1");
    let run = read(&client, "r1");
    assert_eq!(
        (&run["state"], &run["stopped"]),
        (&json!("running"), &json!(false))
    );
}

#[test]
fn a_run_that_begins_anew_loses_the_lines_that_it_does_not_go_on_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    begin(&client, "r1");
    let history =
        |offset, all: &[&str]| json!({"files": {"wandb-history.jsonl": lines(offset, all)}});
    post(
        &client,
        "r1",
        &history(0, &["{\"a\":1}", "{\"a\":2}", "{\"a\":3}"]),
    );
    post(&client, "r1", &json!({"complete": true, "exitcode": 1}));
    begin(&client, "r1");
    post(&client, "r1", &history(1, &["{\"b\":1}"]));
    assert_eq!(
        read(&client, "r1")["history"],
        json!(["{\"a\":1}", "{\"b\":1}"])
    );
    post(&client, "r1", &history(2, &["{\"b\":2}"]));
    assert_eq!(read(&client, "r1")["historyLineCount"], 3);
}

#[test]
fn a_run_that_falls_silent_has_crashed_and_so_has_its_item() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start_with(
        folder.path(),
        &["--listen", "127.0.0.1:0", "--lost-after", "1"],
    );
    let client = server.client(&server.key("alice", &["team"]));
    let member = Member {
        client: &client,
        entity: "team",
    };
    member.make_queue("q", &json!({}), &json!({}));
    let item = member.push("q");
    let agent = client.data(
        AGENT,
        &json!({"e": "team", "q": [member.queue_id("q")], "c": "{}"}),
    );
    let agent = text(&agent["createLaunchAgent"]["launchAgentId"]);
    client.data(POP, &json!({"e": "team", "q": "q", "a": agent}));
    client.data(ACK, &json!({"i": item, "r": "r1"}));
    let begun = client.data(UPSERT, &json!({"e": "team", "p": "demo", "n": "r1"}));
    assert_eq!(
        begun["upsertBucket"]["inserted"], false,
        "the item's own run"
    );
    let place = json!({"e": "team", "p": "demo", "r": "r1"});
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.data(RUN, &place)["project"]["run"]["state"] != "crashed" {
        assert!(Instant::now() < deadline, "still running");
        std::thread::sleep(Duration::from_millis(50));
    }
    let data = client.data(ITEM, &json!({"e": "team", "q": "q", "i": item}));
    assert_eq!(
        data["project"]["runQueue"]["runQueueItem"]["state"],
        "FAILED"
    );
    post(&client, "r1", &json!({}));
    assert_eq!(
        client.data(RUN, &place)["project"]["run"]["state"],
        "running"
    );
}

#[test]
fn what_cannot_be_a_report_or_a_run_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    begin(&client, "r1");
    assert_eq!(post(&client, "r1", &json!([])).0, 400);
    assert_eq!(
        post(&client, "r1", &json!({"files": {"../x": {"content": []}}})).0,
        400
    );
    assert_eq!(post(&client, "none", &json!({})).0, 404);
    for name in ["", "a/b", "a\u{0}", &"x".repeat(129), "a%2f"] {
        client.error(UPSERT, &json!({"e": "team", "p": "demo", "n": name}));
    }
    client.error(UPSERT, &json!({"e": "team", "p": "a/b", "n": "r"}));
    client.error(
        UPSERT,
        &json!({"e": "team", "p": "demo", "n": "r", "c": "[1]"}),
    );
}

#[test]
fn another_entitys_run_is_not_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let id = begin(&client, "r1");
    let stranger = server.client(&server.key("mallory", &["other"]));
    let place = json!({"e": "team", "p": "demo", "r": "r1"});
    assert_eq!(stranger.data(READ, &place)["project"], Value::Null);
    assert_eq!(
        post(&stranger, "r1", &json!({"complete": true, "exitcode": 1})).0,
        404
    );
    stranger.error(STOP, &json!({"id": id}));
    stranger.error(UPSERT, &json!({"id": id, "s": "{}"}));
    stranger.error(UPSERT, &json!({"e": "team", "p": "demo", "n": "r1"}));
    stranger.error(UPSERT, &json!({"e": "team", "p": "new", "n": "r9"}));
    stranger.error(
        "mutation d($id: ID!) { deleteRun(input: {id: $id}) { success } }",
        &json!({"id": id}),
    );
    stranger.error(
        "mutation d($id: ID!) { updateRunState(input: {id: $id, state: \"failed\"}) { success } }",
        &json!({"id": id}),
    );
    let run = read(&client, "r1");
    assert_eq!(
        (&run["state"], &run["stopped"]),
        (&json!("running"), &json!(false))
    );
    let nobody = server.client("");
    assert_eq!(post(&nobody, "r1", &json!({})).0, 401);
}
