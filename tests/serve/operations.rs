//! Every operation that the schema has, tried by a member of another entity: a new one fails here until somebody has
//! said how a stranger would misuse it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{ITEM, LAUNCH_AGENT, Member, RUN, artifacts, files, runs, served, text};
use crate::common::server::{Client, Server};

/// What the team has, by the names and ids that a stranger may have learnt.
struct Theirs {
    queue: String,
    config: String,
    waiting: String,
    claimed: String,
    agent: String,
    run: String,
    file: String,
    artifact: String,
    pending: String,
    manifest: String,
    collection: String,
}

/// What the stranger has.
struct Own {
    queue: String,
    agent: String,
    artifact: String,
}

impl Theirs {
    fn new(server: &Server, alice: &Client) -> Theirs {
        let team = Member {
            client: alice,
            entity: "team",
        };
        team.make_queue("q", &json!({"env": ["SECRET=1"]}), &json!({}));
        let (claimed, waiting, agent) = (team.push("q"), team.push("q"), team.agent("q"));
        team.pop("q", &agent);
        assert!(team.ack(&claimed, "item-run"));
        let run = runs::begin(alice, "r1");
        let put = files::upload_path(alice, "r1", "a.txt");
        assert_eq!(server.client("").request("PUT", &put, "", b"a").0, 200);
        let artifact = artifacts::commit(server, alice, "d0", &["best"]);
        let pending = text(&artifacts::new(alice, "d1", &[])["id"]);
        let made = alice.data(
            artifacts::MANIFEST,
            &json!({"a": pending, "d": "", "u": false, "t": "FULL"}),
        );
        let read = |query: &str, path: &str| {
            let data = alice.data(query, &json!({}));
            text(data.pointer(path).unwrap_or_else(|| panic!("{data}")))
        };
        Theirs {
            queue: team.queue_id("q"),
            config: read(
                "query { project(name: \"model-registry\", entityName: \"team\") { runQueue(name: \"q\") { defaultResourceConfigID } } }",
                "/project/runQueue/defaultResourceConfigID",
            ),
            waiting,
            claimed,
            agent,
            run,
            file: text(&files::files(alice, &json!({}))[0]["id"]),
            artifact,
            pending,
            manifest: text(&made["createArtifactManifest"]["artifactManifest"]["id"]),
            collection: read(
                "query { project(name: \"demo\", entityName: \"team\") { artifactCollection(name: \"thing\") { id } } }",
                "/project/artifactCollection/id",
            ),
        }
    }

    /// All of it, as the team sees it.
    fn shown(&self, server: &Server, alice: &Client) -> String {
        let mut all = server.cli(&["items", "--json"]) + &server.cli(&["queue", "list", "--json"]);
        let artifact = "query a($i: ID!) { artifact(id: $i) { state digest description metadata fileCount aliases { alias } usedBy { edges { node { id } } } artifactSequence { latestArtifact { id } } } }";
        let run = "query r($r: String!) { project(name: \"demo\", entityName: \"team\") { runCount run(name: $r) { id state stopped config summaryMetrics displayName tags historyLineCount logLineCount files { edges { node { name md5 } } } } } }";
        let agent = "query a($a: ID!) { launchAgent(id: $a) { agentStatus stopPolling } }";
        for (query, variables) in [
            (artifact, json!({"i": self.artifact})),
            (artifact, json!({"i": self.pending})),
            (run, json!({"r": "r1"})),
            (run, json!({"r": "item-run"})),
            (agent, json!({"a": self.agent})),
        ] {
            all += &alice.data(query, &variables).to_string();
        }
        all
    }

    /// What a stranger asks for in a field of the root; nothing for those that only know who asks.
    fn questions(&self, field: &str) -> Vec<(String, &'static str)> {
        let with_id = |id: &str| (format!("id: \"{id}\""), "id");
        match field {
            "viewer" | "serverInfo" => Vec::new(),
            "entity" => vec![("name: \"team\"".to_owned(), "id")],
            "project" | "model" => vec![
                ("name: \"demo\", entityName: \"team\"".to_owned(), "id"),
                (
                    "name: \"model-registry\", entityName: \"team\"".to_owned(),
                    "id",
                ),
            ],
            "models" => vec![("entityName: \"team\"".to_owned(), "edges { node { id } }")],
            "artifact" => vec![with_id(&self.artifact), with_id(&self.pending)],
            "artifactCollection" => vec![with_id(&self.collection)],
            "clientIDMapping" => vec![("clientID: \"c-d0-1\"".to_owned(), "serverID")],
            "launchAgent" => vec![with_id(&self.agent)],
            other => panic!("`{other}` is new: say what of another entity it could show"),
        }
    }

    /// The inputs with which a stranger would change something of the team's.
    #[expect(clippy::too_many_lines, reason = "one table of every operation")]
    fn misuses(&self, operation: &str, own: &Own) -> Vec<Value> {
        let Theirs { queue, run, .. } = self;
        let (theirs, artifact) = (&self.artifact, &own.artifact);
        let spec = json!({"project": "demo", "docker": {"docker_image": "a:1"}}).to_string();
        let into_team =
            json!({"project": "demo", "entity": "team", "docker": {"docker_image": "a:1"}})
                .to_string();
        let registry = "model-registry";
        let alias = |entity: &str| json!([{"alias": "best", "artifactCollectionName": "thing", "entityName": entity, "projectName": "demo"}]);
        let of_item = |item: &str| json!({"runQueueItemId": item, "message": "m", "stage": "run"});
        let md5 = artifacts::HELLO;
        match operation {
            "upsertModel" => vec![
                json!({"entityName": "team", "name": "demo"}),
                json!({"entityName": "team", "name": "new"}),
            ],
            "createDefaultResourceConfig" => {
                vec![
                    json!({"entityName": "team", "resource": "local-container", "config": "{\"resource_args\": {}}"}),
                ]
            }
            "createRunQueue" => vec![
                json!({"entityName": "team", "projectName": registry, "queueName": "new", "access": "PROJECT"}),
                json!({"entityName": "spies", "projectName": registry, "queueName": "new", "defaultResourceConfigID": self.config}),
                json!({"entityName": "spies", "projectName": registry, "queueName": "team/q"}),
            ],
            "upsertRunQueue" => vec![
                json!({"entityName": "team", "projectName": registry, "queueName": "q", "resourceType": "local-container", "resourceConfig": "{}"}),
                json!({"entityName": "spies", "projectName": registry, "queueName": "team/q", "resourceType": "local-container", "resourceConfig": "{}"}),
            ],
            "deleteRunQueues" => vec![
                json!({"queueIDs": [queue]}),
                json!({"queueIDs": [own.queue, queue]}),
            ],
            "pushToRunQueueByName" => vec![
                json!({"entityName": "team", "projectName": registry, "queueName": "q", "runSpec": spec}),
                json!({"entityName": "spies", "projectName": registry, "queueName": "team/q", "runSpec": spec}),
                json!({"entityName": "spies", "projectName": registry, "queueName": "q", "runSpec": into_team}),
            ],
            "pushToRunQueue" => vec![
                json!({"queueID": queue, "runSpec": spec}),
                json!({"queueID": own.queue, "runSpec": into_team}),
            ],
            "deleteFromRunQueue" => vec![
                json!({"queueID": queue, "runQueueItemId": self.waiting}),
                json!({"queueID": own.queue, "runQueueItemId": self.waiting}),
            ],
            "createLaunchAgent" => vec![
                json!({"entityName": "team", "projectName": registry, "runQueues": [queue], "hostname": "h"}),
                json!({"entityName": "spies", "projectName": registry, "runQueues": [queue], "hostname": "h"}),
            ],
            "updateLaunchAgent" => {
                vec![json!({"launchAgentId": self.agent, "agentStatus": "KILLED"})]
            }
            "popFromRunQueue" => vec![
                json!({"entityName": "team", "projectName": registry, "queueName": "q", "launchAgentId": self.agent}),
                json!({"entityName": "team", "projectName": registry, "queueName": "q", "launchAgentId": own.agent}),
                json!({"entityName": "spies", "projectName": registry, "queueName": "q", "launchAgentId": self.agent}),
                json!({"entityName": "spies", "projectName": registry, "queueName": "team/q", "launchAgentId": own.agent}),
            ],
            "ackRunQueueItem" => vec![
                json!({"runQueueItemId": self.claimed, "runName": "item-run"}),
                json!({"runQueueItemId": self.waiting, "runName": "mine"}),
            ],
            "failRunQueueItem" | "updateRunQueueItemWarning" => {
                vec![of_item(&self.claimed), of_item(&self.waiting)]
            }
            "stopRun" | "deleteRun" => vec![json!({"id": run})],
            "updateRunState" => vec![json!({"id": run, "state": "failed"})],
            "upsertBucket" => vec![
                json!({"id": run, "summaryMetrics": "{}", "displayName": "mine"}),
                json!({"entityName": "team", "modelName": "demo", "name": "r1", "displayName": "mine"}),
                json!({"entityName": "team", "modelName": "demo", "name": "new"}),
            ],
            "createRunFiles" => vec![
                json!({"entityName": "team", "projectName": "demo", "runName": "r1", "files": ["a.txt"]}),
                json!({"entityName": "spies", "projectName": "../team/demo", "runName": "r1", "files": ["a.txt"]}),
            ],
            "deleteFiles" => vec![json!({"files": [self.file]})],
            "createArtifact" => vec![
                json!({"entityName": "team", "projectName": "demo", "artifactTypeName": "job", "digest": "x", "artifactCollectionName": "thing"}),
                json!({"entityName": "spies", "projectName": "demo", "runName": "r1", "artifactTypeName": "job", "digest": "x", "artifactCollectionName": "thing"}),
            ],
            "createArtifactManifest" => {
                vec![
                    json!({"artifactID": self.pending, "name": "m", "digest": "", "entityName": "spies", "projectName": "demo", "runName": "r", "type": "FULL"}),
                ]
            }
            "updateArtifactManifest" => {
                vec![json!({"artifactManifestID": self.manifest, "digest": "x"})]
            }
            "createArtifactFiles" => vec![
                json!({"artifactFiles": [{"artifactID": self.pending, "name": "b.txt", "md5": md5}]}),
                json!({"artifactFiles": [
                    {"artifactID": artifact, "name": "b.txt", "md5": md5},
                    {"artifactID": self.pending, "name": "b.txt", "md5": md5},
                ]}),
            ],
            "commitArtifact" => vec![json!({"artifactID": self.pending})],
            "useArtifact" => vec![
                json!({"artifactID": theirs, "entityName": "team", "projectName": "demo", "runName": "r1"}),
                json!({"artifactID": theirs, "entityName": "spies", "projectName": "demo", "runName": "own"}),
                json!({"artifactID": artifact, "entityName": "team", "projectName": "demo", "runName": "r1"}),
            ],
            "updateArtifact" => vec![json!({"artifactID": theirs, "description": "mine"})],
            "deleteArtifact" => vec![
                json!({"artifactID": theirs, "deleteAliases": true}),
                json!({"artifactID": self.pending}),
            ],
            "addAliases" | "deleteAliases" => vec![
                json!({"artifactID": theirs, "aliases": alias("team")}),
                json!({"artifactID": theirs, "aliases": alias("spies")}),
                json!({"artifactID": artifact, "aliases": alias("team")}),
            ],
            other => panic!("`{other}` is new: say how it could be misused"),
        }
    }
}

/// The fields of a root object, each with the type of its first argument.
fn fields(client: &Client, root: &str) -> Vec<(String, String)> {
    let query = "query f($t: String!) { __type(name: $t) { fields { name args { type { name ofType { name } } } } } }";
    let data = client.data(query, &json!({"t": root}));
    let fields = data["__type"]["fields"].as_array().expect("fields");
    fields
        .iter()
        .map(|field| {
            let input = &field["args"][0]["type"];
            let name = input["name"].as_str().or(input["ofType"]["name"].as_str());
            (text(&field["name"]), name.unwrap_or_default().to_owned())
        })
        .collect()
}

#[test]
fn no_operation_reaches_what_belongs_to_another_entity() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, alice) = served(folder.path());
    let theirs = Theirs::new(&server, &alice);
    let eve = server.client(&server.key("eve", &["spies"]));
    let spies = Member {
        client: &eve,
        entity: "spies",
    };
    spies.make_queue("q", &json!({}), &json!({}));
    let run = json!({"e": "spies", "p": "demo", "n": "own"});
    eve.data(runs::UPSERT, &run);
    // With the id that the client of another artifact made up: it is not that one.
    let input = json!({"entityName": "spies", "projectName": "demo", "artifactTypeName": "job", "digest": "d0",
        "artifactCollectionName": "thing", "clientID": "c-d0-1", "enableDigestDeduplication": true});
    let made = eve.data(artifacts::CREATE, &json!({"i": input}))["createArtifact"].clone();
    assert_eq!(made["artifact"]["state"], "PENDING");
    let own = Own {
        queue: spies.queue_id("q"),
        agent: spies.agent("q"),
        artifact: text(&made["artifact"]["id"]),
    };
    let before = theirs.shown(&server, &alice);

    for (field, _) in fields(&eve, "Query") {
        for (arguments, part) in theirs.questions(&field) {
            if field == "clientIDMapping" {
                let query = format!("query {{ {field}({arguments}) {{ {part} }} }}");
                let found = eve.data(&query, &json!({}))[&field][part].clone();
                assert_eq!(found, own.artifact.as_str(), "her own");
                continue;
            }
            let query = format!("query {{ {field}({arguments}) {{ {part} }} }}");
            let told = eve.graphql(&query, &json!({}));
            assert_eq!(told["data"][&field], Value::Null, "{query} {told}");
            assert_ne!(
                alice.data(&query, &json!({}))[&field],
                Value::Null,
                "{query}"
            );
        }
    }
    let mut tried = BTreeSet::new();
    for (operation, input) in fields(&eve, "Mutation") {
        for misuse in theirs.misuses(&operation, &own) {
            let query =
                format!("mutation m($i: {input}!) {{ {operation}(input: $i) {{ __typename }} }}");
            let (status, answer) = eve
                .try_graphql(&query, &json!({"i": misuse}))
                .expect("an answer");
            let told = answer.to_string();
            assert_eq!(
                status, 200,
                "what is refused is the misuse: {operation} {told}"
            );
            assert_eq!(
                answer["data"][&operation],
                Value::Null,
                "{operation} {misuse} {told}"
            );
            assert!(!told.contains("SECRET"), "{told}");
            tried.insert(operation.clone());
        }
    }
    assert!(tried.len() > 25, "{tried:?}");
    assert_eq!(
        theirs.shown(&server, &alice),
        before,
        "something was touched"
    );
    // By way of her own entity, with the names of the team's.
    for (query, variables, path) in [
        (
            ITEM,
            json!({"e": "spies", "q": "q", "i": theirs.waiting}),
            "/project/runQueue/runQueueItem",
        ),
        (
            RUN,
            json!({"e": "spies", "p": "demo", "r": "r1"}),
            "/project/run",
        ),
        (
            RUN,
            json!({"e": "spies", "p": "../team/demo", "r": "r1"}),
            "/project",
        ),
        (LAUNCH_AGENT, json!({"a": theirs.agent}), "/launchAgent"),
    ] {
        let data = eve.data(query, &variables);
        assert_eq!(data.pointer(path), Some(&Value::Null), "{query} {data}");
    }
    let path = "/files/team/demo/r1/file_stream";
    let report = json!({"complete": true, "exitcode": 1}).to_string();
    for path in [path, "/files/spies%2f..%2fteam/demo/r1/file_stream"] {
        assert_eq!(eve.request("POST", path, "", report.as_bytes()).0, 404);
    }
    assert_eq!(
        theirs.shown(&server, &alice),
        before,
        "something was touched"
    );
}
