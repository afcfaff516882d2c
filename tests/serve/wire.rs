//! The queue over the wire: what agents and pushers send, and what they are told.

use serde_json::{Value, json};

use super::{FAIL, LAUNCH_AGENT, Member, POP, RUN, served, text};

#[test]
fn an_item_goes_from_push_to_claim_and_its_run_is_pending() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let team = Member {
        client: &client,
        entity: "team",
    };
    team.make_queue(
        "q",
        &json!({"env": ["A=1"], "shm-size": 8_589_934_592_u64}),
        &json!({}),
    );
    let item = team.push("q");
    assert_eq!(team.item("q", &item)["state"], "PENDING");

    let agent = team.agent("q");
    let popped = team.pop("q", &agent);
    assert_eq!(popped["runQueueItemId"], item.as_str());
    let spec = &popped["runSpec"];
    assert_eq!(spec["author"], "alice");
    assert_eq!(spec["entity"], "team");
    assert_eq!(
        spec["resource_args"].to_string(),
        r#"{"local-container":{"env":["A=1"],"shm-size":8589934592}}"#,
        "numbers and the order of keys stay as they were"
    );
    assert_eq!(team.item("q", &item)["state"], "LEASED");
    assert_eq!(
        team.pop("q", &agent),
        Value::Null,
        "an item is handed out once"
    );

    assert!(team.ack(&item, "run1"));
    assert!(team.ack(&item, "run1"), "an answer may be lost");
    assert!(!team.ack(&item, "run2"), "the item is another run's");
    assert_eq!(
        team.item("q", &item),
        json!({"id": item, "state": "CLAIMED", "associatedRunId": "run1"})
    );
    let run = |project: &str| {
        let place = json!({"e": "team", "p": project, "r": "run1"});
        client.data(RUN, &place)["project"]["run"].clone()
    };
    assert_eq!(run("demo")["state"], "pending");
    assert_eq!(
        run("DEMO")["stopped"],
        false,
        "agents write projects in small letters"
    );

    server.cli(&["item", "cancel", "1"]);
    assert_eq!(run("demo")["stopped"], true);
    assert_eq!(
        server
            .cli(&["item", "show", "1", "--json"])
            .matches("\"CLAIMED\"")
            .count(),
        1
    );
}

#[test]
fn a_run_can_be_stopped_by_its_id() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let team = Member {
        client: &client,
        entity: "team",
    };
    team.make_queue("q", &json!({}), &json!({}));
    let item = team.push("q");
    let agent = team.agent("q");
    team.pop("q", &agent);
    assert!(team.ack(&item, "run1"));
    let place = json!({"e": "team", "p": "demo", "r": "run1"});
    let run = client.data(RUN, &place)["project"]["run"].clone();
    let stop = "mutation s($id: ID!) { stopRun(input: {id: $id}) { success clientMutationId } }";
    client.data(stop, &json!({"id": run["id"]}));
    assert_eq!(client.data(RUN, &place)["project"]["run"]["stopped"], true);
}

#[test]
fn a_failure_ends_the_item_and_the_run_that_never_began() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let team = Member {
        client: &client,
        entity: "team",
    };
    team.make_queue("q", &json!({}), &json!({}));
    let item = team.push("q");
    let agent = team.agent("q");
    team.pop("q", &agent);
    assert!(team.ack(&item, "run1"));
    let warn = FAIL.replace("failRunQueueItem", "updateRunQueueItemWarning");
    let variables =
        |message: &str| json!({"i": item, "m": message, "s": "build", "f": ["a/b.log"]});
    client.data(&warn, &variables("torch was not installed"));
    client.data(&warn, &variables("torch was not installed"));
    let fail = |message: &str| {
        client.data(FAIL, &variables(message))["failRunQueueItem"]["success"] == true
    };
    assert!(fail("no such image"));
    assert!(fail("no such image"), "an answer may be lost");
    assert!(!fail("something else"), "it has ended already");
    assert_eq!(team.item("q", &item)["state"], "FAILED");
    let shown: Value =
        serde_json::from_str(&server.cli(&["item", "show", "1", "--json"])).expect("JSON");
    assert_eq!(shown["state"], "FAILED");
    assert_eq!(shown["warnings"], json!(["torch was not installed"]));
    assert!(shown.to_string().contains("no such image"));
    let place = json!({"e": "team", "p": "demo", "r": "run1"});
    assert_eq!(
        client.data(RUN, &place)["project"]["run"]["state"],
        "failed"
    );
    let message = client.error(FAIL, &json!({"i": item, "m": "m", "s": "somewhere"}));
    assert_eq!(message, "`somewhere` is not a stage: agent, build or run");
}

#[test]
fn an_agent_is_heard_and_told_to_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let team = Member {
        client: &client,
        entity: "team",
    };
    team.make_queue("q", &json!({}), &json!({}));
    team.push("q");
    let agent = team.agent("q");
    let look = || client.data(LAUNCH_AGENT, &json!({"a": agent}))["launchAgent"].clone();
    let seen = look();
    assert_eq!(seen["runQueues"], json!([team.queue_id("q")]));
    assert_eq!(
        (&seen["hostname"], &seen["stopPolling"]),
        (&json!("box"), &json!(false))
    );
    assert_eq!(seen["agentStatus"], "POLLING");
    let say = "mutation u($a: ID!, $s: String) { updateLaunchAgent(input: {launchAgentId: $a, agentStatus: $s}) { success } }";
    client.data(say, &json!({"a": agent, "s": "RUNNING"}));
    assert_eq!(look()["agentStatus"], "RUNNING");
    client.error(say, &json!({"a": agent, "s": "DANCING"}));

    let list = server.cli(&["serve", "agent", "list", "--json"]);
    let agents: Value = serde_json::from_str(&list).expect("JSON");
    let id = super::text(&agents[0]["id"]);
    assert_eq!(seen["name"], format!("agent-{id}"));
    assert_eq!(
        (&agents[0]["entity"], &agents[0]["user"]),
        (&json!("team"), &json!("alice"))
    );
    assert_eq!(seen["id"], id.as_str());
    // As W&B's own agent writes it in its log.
    server.cli(&["serve", "agent", "stop", &format!("agent-{id}")]);
    assert_eq!(look()["stopPolling"], true);
    assert_eq!(team.pop("q", &agent), Value::Null, "it takes nothing more");
    for word in ["KILLED", "POLLING"] {
        client.data(say, &json!({"a": agent, "s": word}));
    }
    assert_eq!(look()["agentStatus"], "KILLED", "it has ended");
}

#[test]
fn several_operations_under_other_names_are_one_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let team = Member {
        client: &client,
        entity: "team",
    };
    for queue in ["a", "b"] {
        team.make_queue(queue, &json!({}), &json!({}));
        team.push(queue);
    }
    let queues = json!([team.queue_id("a"), team.queue_id("b")]);
    let data = client.data(super::AGENT, &json!({"e": "team", "q": queues, "c": null}));
    let agent = &data["createLaunchAgent"]["launchAgentId"];
    let document = "mutation popFromRunQueue($e: String!, $a: ID!, $s: String) {
      pop0: popFromRunQueue(input: {entityName: $e, projectName: \"model-registry\", queueName: \"a\", launchAgentId: $a}) { runQueueItemId runSpec }
      pop1: popFromRunQueue(input: {entityName: $e, projectName: \"model-registry\", queueName: \"b\", launchAgentId: $a}) { runQueueItemId runSpec }
      pop2: popFromRunQueue(input: {entityName: $e, projectName: \"model-registry\", queueName: \"c\", launchAgentId: $a}) { runQueueItemId runSpec }
      status: updateLaunchAgent(input: {launchAgentId: $a, agentStatus: $s}) { success }
    }";
    let answer = client.graphql(document, &json!({"e": "team", "a": agent, "s": "RUNNING"}));
    let data = &answer["data"];
    assert!(
        data["pop0"]["runQueueItemId"].is_string() && data["pop1"]["runQueueItemId"].is_string()
    );
    assert_eq!(data["pop2"], Value::Null);
    assert_eq!(data["status"]["success"], true);
    assert_eq!(answer["errors"][0]["path"], json!(["pop2"]));
}

#[test]
fn what_the_schema_lacks_is_said_in_the_words_that_fall_backs_look_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    for (query, message) in [
        (
            "query { serverInfo { features { name isEnabled } nothing } }",
            "Cannot query field \"nothing\" on type \"ServerInfo\".",
        ),
        (
            "query { nothing }",
            "Cannot query field \"nothing\" on type \"Query\".",
        ),
        (
            "mutation { nothing(input: {}) { success } }",
            "Cannot query field \"nothing\" on type \"Mutation\".",
        ),
        (
            "mutation m($n: Int = 1, $s: [Severity!]! = INFO) { nothing(s: $s, n: $n) { success } }",
            "Unknown type \"Severity\".",
        ),
    ] {
        let (status, answer) = client.try_graphql(query, &json!({})).expect("an answer");
        assert_eq!(status, 400);
        assert_eq!(answer["errors"][0]["message"], message);
        assert_eq!(answer.get("data"), None);
    }
    for body in [
        "",
        "[]",
        "{}",
        "null",
        "{\"query\": 5}",
        "\u{0}",
        "{\"query\": \"query { viewer { id } }\", \"variables\": []}",
    ] {
        let (status, _) = client.request("POST", "/graphql", "", body.as_bytes());
        assert_eq!(status, 400, "{body}");
    }
    // Two operations need a name, and a name must be one of theirs.
    let two = "query a { viewer { id } } query b { viewer { username } }";
    for (name, status) in [("", 400), ("a", 200), ("c", 400)] {
        let body = json!({"query": two, "operationName": name}).to_string();
        assert_eq!(
            client.request("POST", "/graphql", "", body.as_bytes()).0,
            status,
            "{name}"
        );
    }
}

#[test]
fn items_are_handed_out_to_registered_agents_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let team = Member {
        client: &client,
        entity: "team",
    };
    team.make_queue("q", &json!({}), &json!({}));
    team.make_queue("other", &json!({}), &json!({}));
    let item = team.push("q");
    let agent = team.agent("other");
    for variables in [
        json!({"e": "team", "q": "q", "a": null}),
        json!({"e": "team", "q": "q", "a": "x"}),
        json!({"e": "team", "q": "q", "a": agent}),
        json!({"e": "team", "q": "nothing", "a": agent}),
    ] {
        client.error(POP, &variables);
    }
    assert!(!team.ack(&item, "run1"), "nobody has leased it");
    assert_eq!(team.item("q", &item)["state"], "PENDING");
}

#[test]
fn pages_have_an_end_and_a_next_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let team = Member {
        client: &client,
        entity: "team",
    };
    team.make_queue("q", &json!({}), &json!({}));
    let items: Vec<String> = (0..5).map(|_| team.push("q")).collect();
    let page = "query p($n: Int, $c: String) { project(name: \"model-registry\", entityName: \"team\") { runQueue(name: \"q\") {
      runQueueItems(first: $n, after: $c) { edges { node { id } } pageInfo { endCursor hasNextPage } } } } }";
    let mut found = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let data = client.data(page, &json!({"n": 2, "c": cursor}));
        let part = &data["project"]["runQueue"]["runQueueItems"];
        let edges = part["edges"].as_array().expect("edges");
        assert!(edges.len() <= 2);
        found.extend(edges.iter().map(|edge| super::text(&edge["node"]["id"])));
        if part["pageInfo"]["hasNextPage"] == false {
            break;
        }
        cursor = part["pageInfo"]["endCursor"].clone();
    }
    assert_eq!(found, items);
    client.error(page, &json!({"n": 2, "c": "x"}));
}

#[test]
fn the_projects_of_an_entity_are_listed_a_page_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = served(folder.path());
    let upsert = "mutation u($n: String) { upsertModel(input: {entityName: \"team\", name: $n}) { inserted } }";
    for name in ["one", "two", "three"] {
        client.data(upsert, &json!({"n": name}));
    }
    let query = "query p($e: String, $a: String) { models(entityName: $e, after: $a, first: 2) {
      pageInfo { endCursor hasNextPage } edges { node { name entityName createdAt isBenchmark user { name } } } } }";
    let (mut names, mut after) = (Vec::new(), Value::Null);
    loop {
        let data = client.data(query, &json!({"e": "team", "a": after}));
        let page = &data["models"];
        let edges = page["edges"].as_array().expect("projects");
        names.extend(edges.iter().map(|edge| text(&edge["node"]["name"])));
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
        assert_eq!(edges.len(), 2);
        after = page["pageInfo"]["endCursor"].clone();
    }
    assert_eq!(names, ["one", "two", "three"]);
    let own = client.data(query, &json!({}));
    assert_eq!(own["models"]["edges"], json!([]));
    let stranger = server.client(&server.key("mallory", &["other"]));
    let told = stranger.error(query, &json!({"e": "team"}));
    assert!(told.contains("permission denied"), "{told}");
}

#[test]
fn what_a_request_asks_for_in_all_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, client) = served(folder.path());
    let team = Member {
        client: &client,
        entity: "team",
    };
    team.make_queue("q", &json!({}), &json!({}));
    super::runs::begin(&client, "r1");
    let project = |name: &str, fields: &str| {
        format!("query {{ project(name: \"{name}\", entityName: \"team\") {{ {fields} }} }}")
    };
    let runs = |count: usize, fields: &str| {
        let runs = super::repeated(count, |n| {
            format!("a{n}: runs(first: 1000) {{ edges {{ node {{ {fields} }} }} }} ")
        });
        project("demo", &runs)
    };
    let samples = |count: usize| {
        let all = super::repeated(count, |n| format!("a{n}: sampledHistory(specs: \"{{}}\") "));
        project("demo", &format!("run(name: \"r1\") {{ {all} }}"))
    };
    let ids = super::repeated(400, |n| format!("a{n}: id "));
    for good in [runs(1, "id"), runs(10, "id"), runs(1, &ids), samples(10)] {
        client.data(&good, &json!({}));
    }
    let items = super::repeated(30, |n| {
        format!("a{n}: runQueueItems(first: 100000) {{ edges {{ node {{ id }} }} }} ")
    });
    for bad in [
        project(
            "model-registry",
            &format!("runQueue(name: \"q\") {{ {items} }}"),
        ),
        runs(30, "id"),
        // Each row may be long.
        runs(3, &super::repeated(200, |n| format!("a{n}: id "))),
        // What is empty has been looked up.
        samples(60),
        // A fragment makes a short document long.
        runs(2, "...f") + " fragment f on Run { id }",
    ] {
        let message = client.error(&bad, &json!({}));
        assert!(message.contains("ask for smaller pages"), "{message}");
    }
}
