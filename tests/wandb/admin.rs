//! What people do with W&B's queues beside running jobs.

use launch_agent::failure::Kind;
use launch_agent::queue::wandb::Client;
use launch_agent::queue::{ItemId, Priority, Push, QueueDefinition};
use serde_json::{Map, Value, json};

use super::{Place, spec};

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else {
        panic!("not an object: {value}")
    };
    object
}

fn push(queue: &str, spec: Value) -> Push {
    Push {
        queue: queue.to_owned(),
        spec: object(spec),
        template_values: Map::new(),
        priority: None,
    }
}

fn client(place: &Place) -> Client {
    Client::new(place.connection()).expect("prepared")
}

#[test]
fn a_push_carries_priority_and_template_values() {
    let place = Place::new();
    let client = client(&place);
    let id = client.push(&push("q", spec())).expect("pushed");
    assert_eq!(place.peer.model().item(&id.0).spec, spec());
    let plain = place.peer.requests().pop().expect("a request");
    assert_eq!(plain.variables.get("priority"), None);
    assert_eq!(plain.variables.get("templateVariableValues"), None);

    let mut full = push("q", spec());
    full.priority = Some(Priority::High);
    full.template_values = object(json!({"cpus": 3, "mem": "2g"}));
    let id = client.push(&full).expect("pushed");
    assert_eq!(place.peer.model().item(&id.0).priority, 1);
    let request = place.peer.requests().pop().expect("a request");
    assert_eq!(
        request.variables["templateVariableValues"],
        r#"{"cpus":3,"mem":"2g"}"#
    );
    assert_eq!(request.variables["projectName"], "model-registry");
}

#[test]
fn a_push_that_is_refused_says_why() {
    let place = Place::new();
    let client = client(&place);
    let error = client
        .push(&push("othr", spec()))
        .expect_err("no such queue");
    assert_eq!(error.kind, Kind::NotFound);
    assert_eq!(error.hint.as_deref(), Some("did you mean `other`?"));

    let forbidden = json!({"docker": {"docker_image": "forbidden"}});
    let error = client.push(&push("q", forbidden)).expect_err("refused");
    assert_eq!(error.kind, Kind::Input);
    assert!(
        error
            .message
            .contains("the image is forbidden by your admin"),
        "{error}"
    );
}

#[test]
fn a_queue_is_made_and_read_back() {
    let place = Place::new();
    let client = client(&place);
    let definition = QueueDefinition {
        name: "gpu".to_owned(),
        config: object(json!({"gpus": "all", "cpus": "{{cpus}}", "env": ["A=é"]})),
        template_variables: object(json!({"cpus": {"schema": {"type": "integer", "maximum": 4}}})),
        prioritization: true,
        paused: false,
    };
    client
        .create_queue(&definition, "local-container")
        .expect("made");
    let found = client.queue("gpu").expect("there");
    assert_eq!(found.definition, definition);
    assert_eq!(found.resource.as_deref(), Some("local-container"));
    assert!(found.items.is_empty());
    let names: Vec<String> = client
        .queues()
        .expect("listed")
        .into_iter()
        .map(|queue| queue.name)
        .collect();
    assert_eq!(names, ["q", "other", "gpu"]);

    let error = client
        .create_queue(&definition, "local-container")
        .expect_err("taken");
    assert_eq!(error.message, "entity `me` has a queue `gpu` already");

    let bare = client.queue("q").expect("there");
    assert!(bare.definition.config.is_empty() && !bare.definition.prioritization);
    assert_eq!(
        client.queue("gpuu").expect_err("no").hint.as_deref(),
        Some("did you mean `gpu`?")
    );
}

#[test]
fn items_are_listed_and_found_in_whichever_queue_they_are() {
    let place = Place::new();
    let (queue, _, item) = place.claimed(spec());
    let other = ItemId(place.peer.model().add_item("other", spec()));
    let client = queue.client();
    let listed = client.items("q").expect("listed");
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].state.as_str(), listed[0].run_id.as_deref()),
        ("CLAIMED", Some("r1"))
    );
    assert_eq!(client.item(&item).expect("found").queue, "q");
    let found = client.item(&other).expect("found");
    assert_eq!(
        (found.queue.as_str(), found.state.as_str(), found.run_id),
        ("other", "PENDING", None)
    );
    let error = client
        .item(&ItemId("nowhere".to_owned()))
        .expect_err("none");
    assert_eq!(error.kind, Kind::NotFound);
    assert_eq!(client.items("nope").expect_err("none").kind, Kind::NotFound);
}

#[test]
fn a_sweep_has_a_state_or_is_not_there() {
    let place = Place::new();
    place
        .peer
        .model()
        .sweeps
        .insert("s1".to_owned(), "RUNNING".to_owned());
    let client = client(&place);
    let state = |id: &str| client.sweep_state("me", "demo", id).expect("answered");
    assert_eq!(state("s1").as_deref(), Some("RUNNING"));
    assert_eq!(state("s2"), None);
}
