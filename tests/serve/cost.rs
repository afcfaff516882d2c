//! What a document of a few hundred words cannot make of itself: each list that leads to further lists, each text that
//! may be long, and the schema, which leads to itself.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Member, artifacts, repeated, runs, served};
use crate::common::server::Client;

/// The server gives no request more than 30 s; a machine that does much else takes its time over the answer.
const LONGEST: Duration = Duration::from_secs(50);

/// Sends a document, and gives the first error; each is to come soon.
fn refused(client: &Client, query: &str, variables: &Value) -> String {
    let start = Instant::now();
    let (_, answer) = client.try_graphql(query, variables).expect("an answer");
    let took = start.elapsed();
    assert!(took < LONGEST, "{took:?} {query:.200}");
    let length = answer.to_string().len();
    assert!(length < 4_000_000, "{length} bytes: {query:.200}");
    super::text(&answer["errors"][0]["message"])
}

#[test]
fn a_fragment_that_leads_to_itself_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    for fragments in [
        "fragment a on User { ...a }",
        "fragment a on User { id ...b } fragment b on User { id ...a }",
        "fragment a on User { teams { edges { node { ...b } } } } fragment b on Entity { organization { orgEntity { ...b } } }",
    ] {
        let query = format!("query {{ viewer {{ ...a }} }} {fragments}");
        let (status, answer) = client.try_graphql(&query, &json!({})).expect("an answer");
        assert_eq!(status, 400, "{answer}");
    }
}

#[test]
fn the_schema_is_told_one_level_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let nested = |levels: usize| {
        let (open, close) = ("fields { type { ".repeat(levels), "} } ".repeat(levels));
        format!("{open} name {close}")
    };
    let told = |query: &str| refused(&client, query, &json!({}));
    for query in [
        format!("query {{ __schema {{ types {{ {} }} }} }}", nested(2)),
        format!("query {{ __type(name: \"Project\") {{ {} }} }}", nested(10)),
        format!("query {{ a: __type(name: \"Project\") {{ b: {} c: {} }} }}", nested(1), nested(1)),
        "query { __schema { types { ...a } } } fragment a on __Type { fields { type { ...b } } } fragment b on __Type { fields { name } }".to_owned(),
        "query { __schema { types { possibleTypes { interfaces { possibleTypes { name } } } } } }".to_owned(),
    ] {
        assert!(told(&query).contains("about the schema"), "{query}");
    }
    // What tools ask for in one go, they get: each word is there once.
    let usual = "query { __schema { types { kind name fields { name args { name type { ...t } } type { ...t } }
      inputFields { name type { ...t } } interfaces { ...t } possibleTypes { ...t } enumValues { name } } } }
      fragment t on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }";
    let start = Instant::now();
    assert!(client.data(usual, &json!({}))["__schema"].is_object());
    assert!(start.elapsed() < LONGEST);
    // `__typename` asks for nothing.
    client.data("query { viewer { __typename } }", &json!({}));
}

#[test]
fn a_list_without_pages_is_not_multiplied_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let names: Vec<String> = (0..60).map(|n| format!("alias-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let artifact = artifacts::commit(&server, &client, "d0", &names);
    let level =
        "aliases { artifactCollection { artifactMembership(aliasName: \"latest\") { artifact { ";
    let query = |levels: usize| {
        let (open, close) = (level.repeat(levels), "} } } } ".repeat(levels));
        format!("query a($i: ID!) {{ artifact(id: $i) {{ {open} id {close} }} }}")
    };
    client.data(&query(1), &json!({"i": artifact}));
    let told = refused(&client, &query(5), &json!({"i": artifact}));
    assert!(told.contains("ask for smaller pages"), "{told}");

    let team = Member {
        client: &client,
        entity: "team",
    };
    for n in 0..30 {
        team.make_queue(&format!("q{n}"), &json!({}), &json!({}));
    }
    let queues = |times: usize| {
        let queues = repeated(times, |n| format!("a{n}: runQueues {{ id }} "));
        format!(
            "query {{ project(name: \"model-registry\", entityName: \"team\") {{ {queues} }} }}"
        )
    };
    client.data(&queues(3), &json!({}));
    let told = refused(&client, &queues(300), &json!({}));
    assert!(told.contains("ask for smaller pages"), "{told}");
}

#[test]
fn one_request_names_only_so_many_things() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let team = Member {
        client: &client,
        entity: "team",
    };
    team.make_queue("q", &json!({}), &json!({}));
    let queues = vec![team.queue_id("q"); 1_001];
    runs::begin(&client, "r1");
    let artifact = artifacts::commit(&server, &client, "d0", &[]);
    let alias = |n: usize| json!({"alias": format!("a{n}"), "artifactCollectionName": "thing", "entityName": "team", "projectName": "demo"});
    let aliases: Vec<Value> = (0..1_001).map(alias).collect();
    let tags: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
    for (operation, kind, input) in [
        (
            "deleteRunQueues",
            "DeleteRunQueuesInput",
            json!({"queueIDs": queues}),
        ),
        (
            "createLaunchAgent",
            "CreateLaunchAgentInput",
            json!({"entityName": "team", "projectName": "model-registry", "runQueues": queues, "hostname": "h"}),
        ),
        (
            "addAliases",
            "AddAliasesInput",
            json!({"artifactID": artifact, "aliases": aliases}),
        ),
        (
            "upsertBucket",
            "UpsertBucketInput",
            json!({"entityName": "team", "modelName": "demo", "name": "r1", "tags": tags}),
        ),
    ] {
        let query =
            format!("mutation m($i: {kind}!) {{ {operation}(input: $i) {{ __typename }} }}");
        let told = refused(&client, &query, &json!({"i": input}));
        assert!(
            told.contains("one request names at most 1000"),
            "{operation}: {told}"
        );
    }
    let name = json!({"i": {"entityName": "team", "modelName": "demo", "name": "r1", "displayName": "x".repeat(5_000)}});
    let query = "mutation m($i: UpsertBucketInput!) { upsertBucket(input: $i) { inserted } }";
    assert!(refused(&client, query, &name).contains("at most 4096 bytes"));
    // The same list over and over: each of its addresses is one more row.
    let many = repeated(30, |n| {
        format!(
            "a{n}: createRunFiles(input: {{entityName: \"team\", projectName: \"demo\", runName: \"r1\", files: $f}}) {{ runID }} "
        )
    });
    let files: Vec<String> = (0..5_000).map(|n| format!("f{n}")).collect();
    let query = format!("mutation m($f: [String!]!) {{ {many} }}");
    let told = refused(&client, &query, &json!({"f": files}));
    assert!(told.contains("ask for smaller pages"), "{told}");
}

#[test]
fn long_texts_come_a_few_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let config = json!({"text": "x".repeat(12 * 1024 * 1024)}).to_string();
    for n in 0..4 {
        let run = json!({"e": "team", "p": "demo", "n": format!("r{n}"), "c": config});
        let query = "mutation u($e: String!, $p: String!, $n: String!, $c: JSONString) {
          upsertBucket(input: {entityName: $e, modelName: $p, name: $n, config: $c}) { inserted } }";
        client.data(query, &run);
    }
    // A page ends where it would be too long, and the next one goes on there.
    let page = "query p($c: String) { project(name: \"demo\", entityName: \"team\") { runs(first: 50, after: $c) {
      edges { node { name } } pageInfo { endCursor hasNextPage } } } }";
    let (mut found, mut cursor, mut pages) = (Vec::new(), Value::Null, 0);
    loop {
        let runs = client.data(page, &json!({"c": cursor}))["project"]["runs"].clone();
        let edges = runs["edges"].as_array().expect("edges");
        found.extend(edges.iter().map(|edge| super::text(&edge["node"]["name"])));
        pages += 1;
        if runs["pageInfo"]["hasNextPage"] == false {
            break;
        }
        cursor = runs["pageInfo"]["endCursor"].clone();
    }
    assert_eq!(
        (found, pages),
        (["r0", "r1", "r2", "r3"].map(str::to_owned).to_vec(), 2)
    );
    let configs = repeated(20, |n| format!("a{n}: config "));
    let query = format!(
        "query {{ project(name: \"demo\", entityName: \"team\") {{ run(name: \"r0\") {{ {configs} }} }} }}"
    );
    let told = refused(&client, &query, &json!({}));
    assert!(told.contains("bytes where it can have"), "{told}");
}

#[test]
fn a_body_has_only_so_many_values() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    runs::begin(&client, "r1");
    let many = format!("[{}1]", "[],".repeat(1_000_001));
    let document = "mutation u($c: JSONString) { upsertBucket(input: {entityName: \"team\", modelName: \"demo\", name: \"r1\", config: $c}) { inserted } }";
    let body =
        format!("{{\"query\": \"query {{ viewer {{ id }} }}\", \"variables\": {{\"a\": {many}}}}}");
    assert_eq!(
        client.request("POST", "/graphql", "", body.as_bytes()).0,
        413
    );
    let config = json!({"c": format!("{{\"a\": {many}}}")});
    let (status, answer) = client.try_graphql(document, &config).expect("an answer");
    assert_eq!(status, 400);
    assert!(
        answer.to_string().contains("more than 1000000 values"),
        "{answer}"
    );
    let files = repeated(2_000_000, |n| format!("\"{n}\":{{}},"));
    let report = format!("{{\"files\": {{{files} \"x\": {{}}}}}}");
    let path = "/files/team/demo/r1/file_stream";
    assert_eq!(client.request("POST", path, "", report.as_bytes()).0, 413);
    // In a string they are letters.
    let text = json!({"c": json!({"a": ",".repeat(1_000_001)}).to_string()});
    client.data(document, &text);
}

#[test]
fn a_query_has_a_depth_and_a_cost() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let deep = |levels: usize| {
        format!(
            "query {{ viewer {{ {} name {} }} }}",
            "teams { edges { node { ".repeat(levels),
            "} } }".repeat(levels)
        )
    };
    let entity = |levels: usize| {
        format!(
            "query {{ project(name: \"model-registry\") {{ {} name {} }} }}",
            "entity { defaultResourceConfig(id: \"x\") { id } ".repeat(levels),
            "}".repeat(levels)
        )
    };
    assert!(client.graphql(&deep(1), &json!({}))["errors"].is_null());
    assert!(client.graphql(&entity(1), &json!({}))["errors"].is_null());
    let aliases = repeated(20_000, |n| format!("a{n}: viewer {{ id }} "));
    let fields = repeated(2_500, |n| format!("a{n}: serverInfo {{ __typename }} "));
    let fragments: String = (0..30)
        .map(|n| format!("fragment f{n} on User {{ ...f{0} ...f{0} }} ", n + 1))
        .chain(["fragment f30 on User { id }".to_owned()])
        .collect();
    for query in [
        "{".repeat(100_000),
        format!("query {{ viewer {} }}", "{ teams ".repeat(5_000)),
        format!("query {{ {aliases} }}"),
        format!("query {{ {fields} }}"),
        format!("query {{ viewer {{ ...f0 }} }} {fragments}"),
        format!(
            "query($v: String = {}{}) {{ viewer {{ id }} }}",
            "[".repeat(5_000),
            "]".repeat(5_000)
        ),
    ] {
        let start = Instant::now();
        let (status, answer) = client.try_graphql(&query, &json!({})).expect("an answer");
        assert_eq!(
            status,
            400,
            "{}",
            answer.to_string().chars().take(300).collect::<String>()
        );
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
    }
    // A variable may be deep too.
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let body =
        format!("{{\"query\": \"query {{ viewer {{ id }} }}\", \"variables\": {{\"a\": {deep}}}}}");
    assert_eq!(
        client.request("POST", "/graphql", "", body.as_bytes()).0,
        400
    );
}
