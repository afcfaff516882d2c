//! What this server does not have: who asks for it is told so, and never that it was done.

use serde_json::{Value, json};

use super::{artifacts, runs, served, text};

#[test]
#[expect(clippy::too_many_lines, reason = "one table of what is not there")]
fn what_would_have_no_effect_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let run = runs::begin(&client, "r1");
    let artifact = artifacts::commit(&server, &client, "d0", &[]);
    let project = |more: Value| with(json!({"entityName": "team", "name": "demo"}), &more);
    let named = |more: Value| {
        let run = json!({"entityName": "team", "modelName": "demo", "name": "r1"});
        with(run, &more)
    };
    let made = |more: Value| {
        let artifact = json!({"entityName": "team", "projectName": "demo", "artifactTypeName": "t", "digest": "x",
            "artifactCollectionName": "thing"});
        with(artifact, &more)
    };
    let changed = |more: Value| with(json!({"artifactID": artifact}), &more);
    let queue = |more: Value| {
        let queue =
            json!({"entityName": "team", "projectName": "model-registry", "queueName": "new"});
        with(queue, &more)
    };
    let shown = || {
        let query = "query { project(name: \"demo\", entityName: \"team\") { id name access description runCount
          artifactTypes { edges { node { name } } } run(name: \"r1\") { id state displayName sweepName tags } }
          queues: project(name: \"model-registry\", entityName: \"team\") { runQueues { name access } } }";
        let artifact_of = "query a($i: ID!) { artifact(id: $i) { state tags { name } ttlDurationSeconds description } }";
        let all = client.data(query, &json!({}));
        all.to_string()
            + &client
                .data(artifact_of, &json!({"i": artifact}))
                .to_string()
    };
    let before = shown();
    for (operation, inputs) in [
        (
            "upsertModel",
            vec![
                project(json!({"access": "USER_READ"})),
                project(json!({"description": "mine"})),
                project(json!({"id": "UHJvamVjdA==", "name": "renamed"})),
                project(json!({"isPublished": true})),
                project(json!({"isBenchmark": true})),
                project(json!({"framework": "torch"})),
                project(json!({"repo": "https://example.org"})),
                project(json!({"views": "{}"})),
                project(json!({"owner": "VXNlcjpib2I="})),
                project(json!({"icon": {"name": "x"}})),
                project(json!({"rateLimits": {"graphql": 1}})),
                project(json!({"artifactTypes": [{"name": "x"}]})),
            ],
        ),
        (
            "upsertBucket",
            vec![
                named(json!({"sweep": "s1"})),
                named(json!({"state": "finished"})),
                json!({"id": run, "state": "finished"}),
                named(
                    json!({"config": r#"{"_wandb": {"value": {"branch_point": {"run_id": "r1", "step": 3}}}}"#}),
                ),
            ],
        ),
        (
            "createArtifact",
            vec![
                made(json!({"tags": [{"tagName": "x"}]})),
                made(json!({"labels": "[\"x\"]"})),
                made(json!({"ttlDurationSeconds": 60})),
                made(json!({"storageRegion": "eu"})),
                made(json!({"distributedID": "d"})),
                made(json!({"artifactCollectionNames": ["thing", "other"]})),
            ],
        ),
        (
            "updateArtifact",
            vec![
                changed(json!({"tagsToAdd": [{"tagName": "x"}]})),
                changed(json!({"labels": "{\"a\": 1}"})),
                changed(json!({"ttlDurationSeconds": 60})),
            ],
        ),
        (
            "createRunQueue",
            vec![
                queue(json!({"access": "USER"})),
                queue(json!({"projectName": "demo"})),
            ],
        ),
    ] {
        for input in inputs {
            let kind = format!("{}{}Input", operation[..1].to_uppercase(), &operation[1..]);
            let query =
                format!("mutation m($i: {kind}!) {{ {operation}(input: $i) {{ __typename }} }}");
            let (status, answer) = client
                .try_graphql(&query, &json!({"i": input}))
                .expect("an answer");
            assert_eq!(status, 200, "{operation} {input} {answer}");
            assert_eq!(answer["data"][operation], Value::Null, "{input} {answer}");
            assert!(!text(&answer["errors"][0]["message"]).is_empty());
        }
    }
    assert_eq!(shown(), before);
    // What says nothing more is no reason to refuse.
    let query = "mutation m($i: UpsertModelInput!) { upsertModel(input: $i) { inserted } }";
    let quiet =
        project(json!({"access": null, "description": "", "isPublished": false, "icon": null}));
    let data = client.data(query, &json!({"i": quiet}));
    assert_eq!(data["upsertModel"]["inserted"], false);
}

#[test]
fn a_run_of_several_processes_is_refused_before_it_begins() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    runs::begin(&client, "r1");
    for path in ["/graphql", "/files/team/demo/r1/file_stream"] {
        let body = json!({"query": "query { viewer { id } }"}).to_string();
        let headers = "X-WANDB-USE-ASYNC-FILESTREAM: true\r\n";
        let (status, told) = client.request("POST", path, headers, body.as_bytes());
        let told = String::from_utf8(told).expect("text");
        assert_eq!(status, 400, "{told}");
        assert!(
            told.contains("does not take one run from several"),
            "{told}"
        );
        assert_eq!(client.request("POST", path, "", body.as_bytes()).0, 200);
    }
}

#[test]
fn lists_that_cannot_be_filtered_or_ordered_say_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    artifacts::commit(&server, &client, "d0", &[]);
    for field in [
        "runs(filters: \"{\\\"state\\\": \\\"finished\\\"}\") { totalCount }",
        "runs(order: \"-summary_metrics.loss\") { totalCount }",
        "runCount(filters: \"{\\\"state\\\": \\\"finished\\\"}\")",
        "artifactCollections(filters: \"{\\\"name\\\": \\\"x\\\"}\") { totalCount }",
        "artifactCollections(order: \"name\") { totalCount }",
        "artifactCollection(name: \"thing\") { artifacts(order: \"size\") { totalCount } }",
        "artifactCollection(name: \"thing\") { artifacts(filters: \"{\\\"tags\\\": 1}\") { totalCount } }",
    ] {
        let query =
            format!("query {{ project(name: \"demo\", entityName: \"team\") {{ {field} }} }}");
        let told = client.error(&query, &json!({}));
        assert!(told.contains("this server"), "{field}: {told}");
    }
}

fn with(mut input: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().expect("an object") {
        input[key] = value.clone();
    }
    input
}
