//! What a member of an entity can and cannot change about the jobs of its queues: the guardrails are the server's.

use serde_json::{Value, json};

use super::{ACK, Member, PUSH, UPSERT_QUEUE, served};

#[test]
fn what_a_team_member_can_change_is_what_the_templates_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let team = Member {
        client: &client,
        entity: "team",
    };
    team.make_queue(
        "q",
        &json!({"cpus": "{{cpus}}", "shm-size": "{{shm}}", "memory": "{{gb}}g"}),
        &json!({
            "cpus": {"schema": {"type": "integer", "minimum": 1, "maximum": 4}},
            "shm": {"schema": {"type": "string", "enum": ["1g", "2g"], "default": "1g"}},
            "gb": {"schema": {"type": "number", "maximum": 1.5, "default": 1}},
        }),
    );
    let spec = json!({"project": "demo", "docker": {"docker_image": "a:1"}});
    let push = |values: Value, spec: &Value| {
        let mut variables = team.push_variables("q", spec);
        variables["v"] = values.to_string().into();
        client.graphql(PUSH, &variables)
    };
    let good = push(json!({"cpus": 4, "gb": 1.5}), &spec);
    let pushed = super::text(&good["data"]["pushToRunQueueByName"]["runSpec"]);
    let pushed: Value = serde_json::from_str(&pushed).expect("JSON");
    assert_eq!(
        pushed["resource_args"],
        json!({"local-container": {"cpus": 4, "shm-size": "1g", "memory": "1.5g"}})
    );
    for (values, says) in [
        (json!({}), "template variable `cpus` needs a value"),
        (json!(null), "template variable `cpus` needs a value"),
        (
            json!({"cpus": 5}),
            "template variable `cpus` cannot be `5`: it is more than 4",
        ),
        (json!({"cpus": 0}), "it is less than 1"),
        (json!({"cpus": 1.5}), "it is not a whole number"),
        (json!({"cpus": "4"}), "it is a string"),
        (json!({"cpus": true}), "it is a boolean"),
        (
            json!({"cpus": 1, "shm": "9g"}),
            "template variable `shm` cannot be `9g`",
        ),
        (
            json!({"cpus": 1, "gb": 2}),
            "template variable `gb` cannot be `2`",
        ),
        (
            json!({"cpus": 1, "x": 2}),
            "the queue has no template variable `x`",
        ),
        (json!([1]), "not a JSON object"),
    ] {
        let answer = push(values.clone(), &spec);
        assert_eq!(answer["data"]["pushToRunQueueByName"], Value::Null);
        let message = super::text(&answer["errors"][0]["message"]);
        assert!(message.contains(says), "{values}: {message}");
    }
    let mut long = spec.clone();
    long["overrides"] = json!({"args": ["x".repeat(2_000_000)]});
    let message = push(json!({"cpus": 1}), &long)["errors"][0]["message"].to_string();
    assert!(message.contains("longer than 1048576 bytes"), "{message}");
    let mut own = spec.clone();
    own["resource_args"] = json!({"local-container": {"privileged": true}});
    let answer = push(json!({"cpus": 1}), &own);
    let message = super::text(&answer["errors"][0]["message"]);
    assert!(
        message.contains("so it takes no `resource_args` from a job"),
        "{message}"
    );
}

#[test]
fn the_other_members_of_a_team_cannot_change_what_holds_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, alice) = served(folder.path());
    let bob = server.client(&server.key("bob", &["team"]));
    let member = |client| Member {
        client,
        entity: "team",
    };
    let variables = json!({"cpus": {"schema": {"type": "integer", "maximum": 4}}});
    member(&alice).make_queue("q", &json!({"cpus": "{{cpus}}"}), &variables);
    server.cli(&["queue", "create", "team/owners"]);
    let before = server.cli(&["queue", "list", "--json"]);
    let change = |queue: &str| json!({"e": "team", "q": queue, "c": "{\"resource_args\": {\"local-container\": {\"privileged\": true}}}"});
    let delete = "mutation d($i: [ID!]!) { deleteRunQueues(input: {queueIDs: $i}) { success } }";
    let create = "mutation c($q: String!) { createRunQueue(input: {entityName: \"team\", projectName: \"model-registry\", queueName: $q}) { queueID } }";
    member(&bob).make_queue("bobs", &json!({}), &json!({}));
    let own = member(&bob).queue_id("bobs");
    for (queue, maker) in [("q", "by `alice`"), ("owners", "on the server's machine")] {
        let id = member(&bob).queue_id(queue);
        for (query, variables) in [
            (UPSERT_QUEUE, change(queue)),
            (delete, json!({"i": [id]})),
            (delete, json!({"i": [own, id]})),
        ] {
            let message = bob.error(query, &variables);
            assert!(message.contains(maker), "{message}");
        }
        let message = bob.error(create, &json!({"q": queue}));
        assert!(message.contains("there is a queue"), "{message}");
    }
    // Their own is theirs, all of them are the owner's, and nothing else has changed.
    bob.data(UPSERT_QUEUE, &change("bobs"));
    bob.data(delete, &json!({"i": [own]}));
    assert_eq!(server.cli(&["queue", "list", "--json"]), before);
    alice.data(UPSERT_QUEUE, &change("q"));
    let id = member(&alice).queue_id("owners");
    alice.error(delete, &json!({"i": [id]}));
    server.cli(&["queue", "delete", "team/owners"]);
}

#[test]
fn a_spec_cannot_say_who_pushed_it_nor_take_the_name_of_another_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let team = Member {
        client: &client,
        entity: "team",
    };
    team.make_queue("q", &json!({}), &json!({}));
    let spec = |run: &str| json!({"project": "Demo", "docker": {"docker_image": "a:1"}, "author": "root", "run_id": run});
    let push = |run: &str| client.graphql(PUSH, &team.push_variables("q", &spec(run)));
    let first = push("run1");
    let item = super::text(&first["data"]["pushToRunQueueByName"]["runQueueItemId"]);
    let taken = "there is a run `run1` in team/demo already";
    assert!(
        push("run1")["errors"][0]["message"]
            .to_string()
            .contains(taken)
    );
    let agent = team.agent("q");
    assert_eq!(team.pop("q", &agent)["runSpec"]["author"], "alice");
    assert!(team.ack(&item, "run1"));
    assert!(
        push("run1")["errors"][0]["message"]
            .to_string()
            .contains(taken)
    );
    // An agent that makes up a name which is there already is told so as well.
    let second = team.push("q");
    team.pop("q", &agent);
    let message = client.error(ACK, &json!({"i": second, "r": "run1"}));
    assert!(message.contains(taken), "{message}");
    assert!(team.ack(&second, "run2"));
    for bad in ["", "a/b", "..", "a\u{0}", &"x".repeat(200)] {
        if bad != ".." {
            client.error(ACK, &json!({"i": second, "r": bad}));
        }
    }
}

#[test]
fn priorities_are_numbers_and_only_for_queues_that_know_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let team = Member {
        client: &client,
        entity: "team",
    };
    team.make_queue("q", &json!({}), &json!({}));
    let spec = |n: i32| json!({"project": "demo", "docker": {"docker_image": format!("a:{n}")}});
    let push = |queue: &str, n: i32| {
        let mut variables = team.push_variables(queue, &spec(n));
        variables["pr"] = n.into();
        client.graphql(PUSH, &variables)
    };
    for n in [3, 2, 0, 1] {
        assert!(push("q", n).get("errors").is_none());
    }
    assert!(
        push("q", 4)["errors"][0]["message"]
            .to_string()
            .contains("4 is not a priority")
    );
    assert!(push("q", -1)["errors"].is_array());
    let agent = team.agent("q");
    for n in 0..4 {
        let image = format!("a:{n}");
        assert_eq!(
            team.pop("q", &agent)["runSpec"]["docker"]["docker_image"],
            image
        );
    }
    let variables = json!({"e": "team", "q": "plain", "c": "{}", "v": null, "m": "DISABLED"});
    client.data(UPSERT_QUEUE, &variables);
    let message = push("plain", 0)["errors"][0]["message"].to_string();
    assert!(message.contains("takes no priorities"), "{message}");
}
