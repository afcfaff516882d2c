//! A member of one entity and the things of another: each operation with ids and names that are not theirs.

use serde_json::{Value, json};

use super::{
    ACK, AGENT, FAIL, ITEM, LAUNCH_AGENT, Member, POP, PUSH, QUEUES, RUN, UPSERT_QUEUE, served,
};

#[test]
#[expect(clippy::too_many_lines, reason = "one table of every operation")]
fn nobody_sees_or_touches_what_belongs_to_another_entity() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, alice) = served(folder.path());
    let team = Member {
        client: &alice,
        entity: "team",
    };
    team.make_queue("q", &json!({"env": ["SECRET=1"]}), &json!({}));
    let (item, waiting) = (team.push("q"), team.push("q"));
    let agent = team.agent("q");
    team.pop("q", &agent);
    assert!(team.ack(&item, "run1"));
    let place = json!({"e": "team", "p": "demo", "r": "run1"});
    let run = alice.data(RUN, &place)["project"]["run"]["id"].clone();
    let queue = team.queue_id("q");
    let metadata = "query m($e: String!, $q: String!) { project(name: \"model-registry\", entityName: $e) { runQueue(name: $q) { id defaultResourceConfigID } } }";
    let config_of = "query c($e: String!, $i: ID!) { entity(name: $e) { isTeam defaultResourceConfig(id: $i) { config resource templateVariables { name schema } } } }";
    let shown = alice.data(metadata, &json!({"e": "team", "q": "q"}));
    let config = shown["project"]["runQueue"]["defaultResourceConfigID"].clone();
    let shown = alice.data(config_of, &json!({"e": "team", "i": config}));
    assert!(shown.to_string().contains("SECRET=1"));
    let before = server.cli(&["items", "--json"]);

    let eve = server.client(&server.key("eve", &["spies"]));
    let spies = Member {
        client: &eve,
        entity: "spies",
    };
    spies.make_queue("q", &json!({}), &json!({}));
    let spy = spies.agent("q");

    let spec = json!({"project": "demo", "docker": {"docker_image": "a:1"}}).to_string();
    let in_team =
        json!({"project": "demo", "entity": "team", "docker": {"docker_image": "a:1"}}).to_string();
    let model = "mutation m($i: UpsertModelInput!) { upsertModel(input: $i) { inserted } }";
    let save = "mutation s($e: String!) { createDefaultResourceConfig(input: {entityName: $e, resource: \"local-container\", config: \"{}\"}) { defaultResourceConfigID } }";
    let create = "mutation c($e: String!, $i: ID) { createRunQueue(input: {entityName: $e, projectName: \"model-registry\", queueName: \"new\", access: PROJECT, defaultResourceConfigID: $i}) { queueID } }";
    let delete_queue =
        "mutation d($i: ID!) { deleteRunQueues(input: {queueIDs: [$i]}) { success } }";
    let delete = "mutation d($q: ID!, $i: ID!) { deleteFromRunQueue(input: {queueID: $q, runQueueItemId: $i}) { success } }";
    let push_by_id = "mutation p($q: ID!, $s: JSONString!) { pushToRunQueue(input: {queueID: $q, runSpec: $s}) { runQueueItemId } }";
    let status = "mutation u($a: ID!) { updateLaunchAgent(input: {launchAgentId: $a, agentStatus: \"KILLED\"}) { success } }";
    let stop = "mutation s($i: ID!) { stopRun(input: {id: $i}) { success } }";
    let warn = FAIL.replace("failRunQueueItem", "updateRunQueueItemWarning");
    let own_queue = spies.queue_id("q");
    let not_there = |id: &Value| json!(format!("{}AA", id.as_str().unwrap_or_default()));

    // Asked for by name or id: nothing is there, as for what truly is not there.
    for (query, variables) in [
        (QUEUES, json!({"e": "team"})),
        (ITEM, json!({"e": "team", "q": "q", "i": item})),
        (RUN, place),
        (metadata, json!({"e": "team", "q": "q"})),
        (config_of, json!({"e": "team", "i": config})),
        (LAUNCH_AGENT, json!({"a": agent})),
    ] {
        let data = eve.data(query, &variables);
        let found = data.as_object().expect("an object").values();
        assert!(
            found.clone().all(Value::is_null),
            "{query} {variables} {data}"
        );
    }
    // By way of her own entity.
    for (query, variables, path) in [
        (
            ITEM,
            json!({"e": "spies", "q": "q", "i": item}),
            "/project/runQueue/runQueueItem",
        ),
        (
            metadata,
            json!({"e": "spies", "q": "team/q"}),
            "/project/runQueue",
        ),
        (
            config_of,
            json!({"e": "spies", "i": config}),
            "/entity/defaultResourceConfig",
        ),
        (
            RUN,
            json!({"e": "spies", "p": "demo", "r": "run1"}),
            "/project",
        ),
    ] {
        let data = eve.data(query, &variables);
        assert_eq!(
            data.pointer(path),
            Some(&Value::Null),
            "{query} {variables} {data}"
        );
    }
    // A queue that is not there and one that is not hers are the same to a push.
    let push = |entity: &str, queue: &str| {
        let variables = json!({"e": entity, "p": "model-registry", "q": queue, "s": spec});
        eve.data(PUSH, &variables)["pushToRunQueueByName"].clone()
    };
    assert_eq!(push("team", "q"), Value::Null);
    assert_eq!(push("team", "nothing"), Value::Null);
    assert_eq!(push("spies", "../team/q"), Value::Null);
    assert_eq!(push("spies", "team/q"), Value::Null);

    // Changes are refused, in words that do not tell whether the thing is there.
    for (query, variables, id) in [
        (
            model,
            json!({"i": {"entityName": "team", "name": "demo"}}),
            None,
        ),
        (save, json!({"e": "team"}), None),
        (create, json!({"e": "team", "i": null}), None),
        (create, json!({"e": "spies", "i": config}), Some("i")),
        (
            UPSERT_QUEUE,
            json!({"e": "team", "q": "q", "c": "{}"}),
            None,
        ),
        (delete_queue, json!({"i": queue}), Some("i")),
        (delete, json!({"q": queue, "i": waiting}), Some("q")),
        (delete, json!({"q": own_queue, "i": waiting}), Some("i")),
        (push_by_id, json!({"q": queue, "s": spec}), Some("q")),
        (push_by_id, json!({"q": own_queue, "s": in_team}), None),
        (AGENT, json!({"e": "team", "q": [queue]}), None),
        (AGENT, json!({"e": "spies", "q": [queue]}), None),
        (status, json!({"a": agent}), Some("a")),
        (POP, json!({"e": "team", "q": "q", "a": agent}), None),
        (POP, json!({"e": "team", "q": "q", "a": spy}), None),
        (POP, json!({"e": "spies", "q": "q", "a": agent}), Some("a")),
        (POP, json!({"e": "spies", "q": "team/q", "a": spy}), None),
        (ACK, json!({"i": item, "r": "run1"}), Some("i")),
        (ACK, json!({"i": waiting, "r": "mine"}), Some("i")),
        (FAIL, json!({"i": item, "m": "m", "s": "agent"}), Some("i")),
        (&warn, json!({"i": item, "m": "m", "s": "agent"}), Some("i")),
        (stop, json!({"i": run}), Some("i")),
    ] {
        let told = eve.error(query, &variables);
        assert!(!told.contains("SECRET"), "{told}");
        let Some(id) = id else { continue };
        let mut other = variables.clone();
        other[id] = not_there(&variables[id]);
        let other_told = eve.error(query, &other);
        let blank = |told: &str, id: &Value| told.replace(id.as_str().unwrap_or_default(), "ID");
        assert_eq!(
            blank(&told, &variables[id]),
            blank(&other_told, &other[id]),
            "{query}"
        );
    }
    assert_eq!(
        server.cli(&["items", "--json"]),
        before,
        "nothing was touched"
    );
    let run = alice.data(RUN, &json!({"e": "team", "p": "demo", "r": "run1"}));
    assert_eq!(run["project"]["run"]["stopped"], false);
    let seen = alice.data(LAUNCH_AGENT, &json!({"a": agent}))["launchAgent"].clone();
    assert_eq!(seen["agentStatus"], "POLLING");
}

#[test]
fn the_queues_of_the_command_line_are_those_of_the_entity_local() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, alice) = served(folder.path());
    let config = folder.path().join("config.json");
    std::fs::write(&config, "{}").expect("written");
    let config = config.to_str().expect("UTF-8");
    server.cli(&["queue", "create", "plain", "--config", config]);
    server.cli(&["queue", "create", "team/shared", "--config", config]);
    let bob = server.client(&server.key("bob", &["local"]));
    let names = |client: &crate::common::server::Client, entity: &str| {
        let data = client.data(QUEUES, &json!({"e": entity}));
        let queues = data["project"]["runQueues"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        queues
            .iter()
            .map(|queue| super::text(&queue["name"]))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&bob, "local"), ["plain"]);
    assert_eq!(names(&alice, "team"), ["shared"]);
    assert_eq!(names(&alice, "local"), [""; 0]);
    let local = Member {
        client: &bob,
        entity: "local",
    };
    local.push("plain");
    server.cli(&["push", "-q", "team/shared", "-p", "demo", "-d", "a:1"]);
    let team = Member {
        client: &alice,
        entity: "team",
    };
    let agent = team.agent("shared");
    let popped = team.pop("shared", &agent);
    assert_eq!(popped["runSpec"]["docker"]["docker_image"], "a:1");
    assert!(server.cli(&["items", "-q", "plain"]).contains("PENDING"));
}
