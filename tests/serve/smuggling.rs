//! What a launch spec may try against the queue that it is pushed to: options beside the templates, a process instead of
//! a container, the name of a run that is somebody else's; and what is deleted from a queue.

use serde_json::{Value, json};

use super::{ACK, Member, PUSH, served, text};
use crate::common::server::Client;

fn member(client: &Client) -> Member<'_> {
    Member {
        client,
        entity: "team",
    }
}

/// A spec with these keys beside what it must have.
fn spec(more: &Value) -> Value {
    let mut spec = json!({"project": "demo", "docker": {"docker_image": "a:1"}});
    for (key, value) in more.as_object().expect("an object") {
        spec[key] = value.clone();
    }
    spec
}

/// Pushes, and gives the item's id or why there is none.
fn push(team: &Member<'_>, spec: &Value, more: &Value) -> Result<String, String> {
    let mut variables = team.push_variables("q", spec);
    for (key, value) in more.as_object().expect("an object") {
        variables[key] = value.clone();
    }
    let (_, answer) = team
        .client
        .try_graphql(PUSH, &variables)
        .expect("an answer");
    match answer["data"]["pushToRunQueueByName"]["runQueueItemId"].as_str() {
        Some(id) => Ok(id.to_owned()),
        None => Err(text(&answer["errors"][0]["message"])),
    }
}

#[test]
fn no_spelling_of_docker_options_gets_past_the_templates() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let team = member(&client);
    team.make_queue(
        "q",
        &json!({"cpus": "{{cpus}}", "memory": "1g"}),
        &json!({"cpus": {"schema": {"type": "integer", "minimum": 1, "maximum": 4, "default": 1}}}),
    );
    let agent = team.agent("q");
    let own = json!({"privileged": true, "memory": "64g", "cpus": 64});
    let (mut refused, mut without_effect) = (0, 0);
    for more in [
        json!({"resource_args": {"local-container": own}}),
        json!({"resource_args": {"docker": own}}),
        json!({"resource_args": {"local": own}}),
        json!({"resource_args": {"local-container": {}, "docker": own}}),
        json!({"resource_args": {"docker": own, "local-container": null}}),
        json!({"resource_args": {"docker": own, "local-container": {}}}),
        json!({"resource_args": {"local-container": {"cpus": null}}}),
        json!({"resource_args": {"local-container": {"cpus": "{{cpus}}"}}}),
        json!({"resource_args": {"Local-Container": own}}),
        json!({"resource_args": {"kubernetes": own}}),
        json!({"resource_args": own}),
        json!({"resource_args": [own]}),
        json!({"resource_args": own.to_string()}),
        json!({"resource_args": {"local-container": own.to_string()}}),
        json!({"resource_args": null}),
        json!({"Resource_Args": {"local-container": own}}),
        json!({"resourceArgs": {"local-container": own}}),
        json!({"resource_config": own, "config": own, "queue_config": own, "local-container": own}),
        json!({"resource": own}),
        json!({"resource": "local-process"}),
        json!({"resource": "kubernetes"}),
        json!({"overrides": {"resource_args": {"local-container": own}}}),
        json!({"overrides": {"local-container": own, "docker": own, "cpus": 64}}),
        json!({"overrides": {"args": ["--privileged"], "entry_point": ["--privileged"]}}),
        json!({"docker": {"docker_image": "a:1", "args": own, "resource_args": own}}),
        json!({"docker": {"docker_image": "--privileged"}}),
        json!({"docker": {"docker_image": "a:1 --privileged"}}),
        json!({"image_uri": "--privileged", "docker": {}}),
        json!({"template_variables": {"cpus": 64}, "template_variable_values": {"cpus": 64}}),
        json!({"launch_agent": {"resource_args": {"local-container": own}, "cpus": 64}}),
        json!({"builder": own, "registry": own, "cuda": true}),
    ] {
        if push(&team, &spec(&more), &json!({})).is_err() {
            refused += 1;
            continue;
        }
        let popped = team.pop("q", &agent);
        assert_eq!(
            popped["runSpec"]["resource_args"],
            json!({"local-container": {"cpus": 1, "memory": "1g"}}),
            "{more}"
        );
        assert_ne!(popped["runSpec"]["docker"]["docker_image"], "--privileged");
        without_effect += 1;
    }
    assert!(
        refused > 10 && without_effect > 10,
        "{refused} {without_effect}"
    );
    for values in [
        json!({"CPUS": 64}),
        json!({"cpus ": 64}),
        json!({"memory": "64g"}),
        json!({"cpus": [1]}),
        json!({"cpus": {"a": 1}}),
        json!({"cpus": 4.000_000_1}),
        json!({"cpus": 1e3}),
        json!({"cpus": 18_446_744_073_709_551_615_u64}),
        json!({"cpus": ""}),
    ] {
        let variables = json!({"v": values.to_string()});
        assert!(
            push(&team, &spec(&json!({})), &variables).is_err(),
            "{values}"
        );
    }
}

#[test]
fn a_process_on_the_machine_of_an_agent_is_no_job() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let team = member(&client);
    team.make_queue("q", &json!({}), &json!({}));
    // As `wandb launch-sweep` writes it, which W&B's agent runs without a container.
    let scheduler = spec(&json!({
        "uri": "placeholder-uri-scheduler", "resource": "local-process", "job": null,
        "overrides": {"entry_point": ["wandb", "scheduler", "x"]},
    }));
    let told = push(&team, &scheduler, &json!({})).expect_err("refused");
    assert!(told.contains("has no sweeps"), "{told}");
}

#[test]
fn names_that_no_run_and_no_project_can_have_are_refused_at_push() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let team = member(&client);
    team.make_queue("q", &json!({}), &json!({}));
    let long = "x".repeat(129);
    for bad in ["a/b", "a:b", "a\nb", "../x", "a#b", &long] {
        for key in ["run_id", "project"] {
            let told = push(&team, &spec(&json!({key: bad})), &json!({})).expect_err("refused");
            assert!(told.contains("cannot be the name of a"), "{told}");
        }
    }
    for key in ["run_id", "project", "entity"] {
        push(&team, &spec(&json!({key: 5})), &json!({})).expect_err("refused");
    }
}

#[test]
fn two_jobs_never_go_on_with_one_run_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let team = member(&client);
    team.make_queue("q", &json!({}), &json!({}));
    let agent = team.agent("q");
    let named = |more: Value| {
        let mut spec = spec(&json!({"run_id": "run1"}));
        for (key, value) in more.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        push(&team, &spec, &json!({}))
    };
    let resumed = || named(json!({"_resume_count": 1}));
    let taken = "there is a run `run1` in team/";
    let first = named(json!({})).expect("an item");
    for step in ["waiting", "leased", "claimed"] {
        for again in [
            named(json!({})),
            resumed(),
            named(json!({"entity": "team"})),
            named(json!({"project": "DEMO"})),
        ] {
            let told = again.expect_err(step);
            assert!(told.contains(taken), "{step}: {told}");
        }
        match step {
            "waiting" => assert_eq!(team.pop("q", &agent)["runQueueItemId"], first.as_str()),
            "leased" => assert!(team.ack(&first, "run1")),
            _ => {}
        }
    }
    // Another project's run of that name is another run, however its name is written.
    let other = named(json!({"project": "\u{c9}t\u{e9}"})).expect("an item");
    let told = named(json!({"project": "\u{e9}t\u{e9}"})).expect_err("the same project");
    assert!(told.contains(taken), "{told}");
    team.pop("q", &agent);
    assert!(team.ack(&other, "run1"));
    let report = json!({"complete": true, "exitcode": 0}).to_string();
    let path = "/files/team/demo/run1/file_stream";
    assert_eq!(client.request("POST", path, "", report.as_bytes()).0, 200);
    // It has ended: it can be gone on with, by one.
    assert!(named(json!({})).expect_err("taken").contains(taken));
    let second = resumed().expect("an item");
    assert!(resumed().expect_err("taken").contains(taken));
    team.pop("q", &agent);
    assert!(team.ack(&second, "run1"));
    // The first one is tried again meanwhile, which is known only when an agent has it.
    server.cli(&["item", "retry", "1"]);
    assert_eq!(team.pop("q", &agent)["runQueueItemId"], first.as_str());
    let told = client.error(ACK, &json!({"i": first, "r": "run1"}));
    assert!(told.contains(taken), "{told}");
}

#[test]
fn an_item_is_deleted_while_no_agent_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let team = member(&client);
    team.make_queue("q", &json!({}), &json!({}));
    team.make_queue("other", &json!({}), &json!({}));
    let delete = "mutation d($q: ID!, $i: ID!) { deleteFromRunQueue(input: {queueID: $q, runQueueItemId: $i}) { success } }";
    let (first, second) = (team.push("q"), team.push("q"));
    let of = |queue: &str, item: &str| json!({"q": team.queue_id(queue), "i": item});
    let told = client.error(delete, &of("other", &first));
    assert_eq!(told, "the run queue item is in another queue");
    let data = client.data(delete, &of("q", &first));
    assert_eq!(data["deleteFromRunQueue"]["success"], true);
    assert_eq!(team.item("q", &first), Value::Null);
    assert!(
        client
            .error(delete, &of("q", &first))
            .contains("no run queue item")
    );

    let agent = team.agent("q");
    assert_eq!(team.pop("q", &agent)["runQueueItemId"], second.as_str());
    for _ in ["leased", "claimed"] {
        let told = client.error(delete, &of("q", &second));
        assert!(told.contains("is in the hands of an agent"), "{told}");
        assert!(team.ack(&second, "run1"));
    }
    assert_eq!(team.item("q", &second)["state"], "CLAIMED");
}
