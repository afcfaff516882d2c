//! The agent over W&B's own wire: the real program, a peer that speaks the wire, and a fake docker.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::peer::{How, KEY, Peer};
use crate::common::sandbox::{Agent, Sandbox};

/// A job that waits until the test lets it go.
const WAITS: &str = "until [ -e $FAKE/go ]; do read -t 0.02 <> <(:) || true; done";

struct Stage {
    peer: Peer,
    sandbox: Sandbox,
}

impl Stage {
    /// A peer with queues `q` and `r`, and an agent's place whose containers run `job`.
    fn new(job: &str) -> Stage {
        let peer = Peer::new(&["q", "r"]);
        let mut sandbox = Sandbox::with_fake_docker(job);
        sandbox.set("WANDB_BASE_URL", &peer.url);
        sandbox.set("WANDB_API_KEY", KEY);
        sandbox.write(
            ".config/wandb/launch-config.yaml",
            "stopped_run_timeout: 1\nstop_grace: 1\n",
        );
        Stage { peer, sandbox }
    }

    fn agent(&self, arguments: &[&str]) -> Agent {
        self.sandbox.start(&[&["-q", "q"], arguments].concat())
    }

    fn push(&self, spec: Value) -> String {
        self.peer.model().add_item("q", spec)
    }

    fn push_job(&self, arguments: &[&str]) -> String {
        self.push(spec(arguments))
    }

    /// Waits for a container and gives the run of its item, which this makes known to the server as `state`.
    fn run_of(&self, item: &str, state: &str) -> String {
        self.peer
            .wait_for("a claim", |model| model.item(item).state == "CLAIMED");
        let run = self.peer.model().item(item).run.clone().expect("a run");
        self.peer.model().set_run("me", "proj", &run, state);
        run
    }

    fn wait_for_runs(&self, count: usize) {
        self.sandbox
            .wait_for("containers", || self.sandbox.calls("run").len() == count);
    }

    /// Stage and message of a failed item.
    fn failure(&self, item: &str) -> (String, String) {
        self.peer
            .wait_for("a failure", |model| model.item(item).failure.is_some());
        let (stage, message, _) = self
            .peer
            .model()
            .item(item)
            .failure
            .clone()
            .expect("a failure");
        (stage, message)
    }

    fn wait_for_word(&self, word: &str) {
        self.sandbox
            .wait_for(word, || self.sandbox.read("agent.err").contains(word));
    }
}

fn spec(arguments: &[&str]) -> Value {
    json!({
        "entity": "me", "project": "Proj", "docker": {"docker_image": "job:1"}, "resource": null, "git": {},
        "overrides": {"args": arguments}, "resource_args": {"local-container": {"volume": "/a:/a", "rm": true}}
    })
}

#[test]
fn a_job_runs_with_wandbs_environment_and_the_key_out_of_sight() {
    let stage = Stage::new(
        r#"printf 'key is %s\n' "$WANDB_API_KEY"; until [ -e $FAKE/go ]; do read -t 0.02 <> <(:) || true; done"#,
    );
    let item = stage.push_job(&["train"]);
    let mut agent = stage.agent(&["--once"]);
    let run = stage.run_of(&item, "running");
    stage.sandbox.write("fake/go", "");
    assert_eq!(agent.wait(&stage.sandbox), Some(0));

    let call = stage.sandbox.calls("run").remove(0);
    let from = call.find("'--env'").expect("variables");
    let expected = format!(
        "'--env' 'WANDB_BASE_URL={}' '--env' 'WANDB_API_KEY' '--env' 'WANDB_PROJECT=proj' '--env' 'WANDB_ENTITY=me' \
         '--env' 'WANDB_LAUNCH=True' '--env' 'WANDB_RUN_ID={run}' '--env' 'WANDB_DOCKER=job:1' \
         '--env' 'WANDB_LAUNCH_QUEUE_NAME=q' '--env' 'WANDB_LAUNCH_QUEUE_ENTITY=me' \
         '--env' 'WANDB_LAUNCH_TRACE_ID={item}' '--env' 'WANDB_CONFIG={{}}' \
         '--env' 'WANDB_LAUNCH_FILE_OVERRIDES={{}}' '--env' 'WANDB_ARTIFACTS={{}}' '--network' 'host' \
         '--add-host' 'host.docker.internal:host-gateway' '--volume' '/a:/a' '--rm' 'job:1' 'train'",
        stage.peer.url
    );
    assert_eq!(&call[from..], expected);
    // The fake docker's container inherits what the client has, so the job saw the key, and nobody else does.
    let out = stage.sandbox.read("agent.out");
    assert!(out.contains("key is [redacted]"), "{out}");
    for text in [
        out,
        stage.sandbox.read("agent.err"),
        stage.sandbox.read("fake/calls"),
    ] {
        assert!(!text.contains(KEY), "{text}");
    }
    let model = stage.peer.model();
    assert_eq!(model.items[0].failure, None, "the run tells how it ended");
    assert_eq!(
        model.agents[0].statuses.last().map(String::as_str),
        Some("KILLED")
    );
}

#[test]
fn bad_items_are_failed_with_the_reason_and_the_next_one_runs() {
    let stage = Stage::new("");
    let table = [
        (
            json!({"project": "p", "entity": "me", "resource": "kubernetes", "docker": {"docker_image": "job:1"}}),
            "this agent runs docker jobs",
        ),
        (
            json!("text"),
            "a launch spec is a JSON object, not a string",
        ),
        (
            json!({"entity": "me", "docker": {"docker_image": "job:1"}}),
            "has no `project`",
        ),
        (
            json!({"project": "p", "docker": {"docker_image": "--privileged"}}),
            "`--privileged`",
        ),
        (
            json!({"project": "p", "docker": {"docker_image": "job:1"}, "resource_args": {"local-container": {"rm": "x"}}}),
            "`rm` is true or false",
        ),
    ];
    let items: Vec<String> = table
        .iter()
        .map(|(spec, _)| stage.push(spec.clone()))
        .collect();
    let good = stage.push_job(&[]);
    let _agent = stage.agent(&[]);
    for (item, (spec, words)) in items.iter().zip(&table) {
        let (part, message) = stage.failure(item);
        assert_eq!(part, "agent", "{spec}");
        assert!(message.contains(words), "{spec}: {message}");
    }
    stage.run_of(&good, "running");
}

#[test]
fn a_job_of_another_entity_is_failed_too() {
    let stage = Stage::new("");
    let item = stage
        .push(json!({"entity": "they", "project": "p", "docker": {"docker_image": "absent:1"}}));
    let _agent = stage.agent(&[]);
    let (part, message) = stage.failure(&item);
    assert_eq!(part, "build");
    assert!(message.contains("`absent:1`"), "{message}");
}

#[test]
fn the_wait_for_a_run_that_never_comes_holds_no_slot() {
    let stage = Stage::new("exit 3");
    let first = stage.push_job(&[]);
    stage.push_job(&[]);
    let start = Instant::now();
    let _agent = stage.agent(&["--max-jobs", "1"]);
    stage.wait_for_runs(2);
    // The checks for the first job's run go on for a minute.
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(stage.peer.model().item(&first).failure, None);
}

#[test]
fn a_stop_first_leaves_the_program_its_time() {
    let stage = Stage::new("exec sleep 600");
    let item = stage.push_job(&[]);
    let _agent = stage.agent(&[]);
    let run = stage.run_of(&item, "running");
    stage.wait_for_runs(1);
    let start = Instant::now();
    stage
        .peer
        .model()
        .set_run("me", "proj", &run, "running")
        .stopped = true;
    stage.wait_for_word("asked to stop; it has 1 s to end by itself");
    stage
        .sandbox
        .wait_for("the stop", || !stage.sandbox.calls("stop").is_empty());
    stage.wait_for_word("stopped: a person asked for it");
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert!(
        stage.sandbox.calls("stop")[0].starts_with("'stop' '-t' '1'"),
        "{:?}",
        stage.sandbox.calls("stop")
    );
}

#[test]
fn an_agent_that_is_told_to_stop_polling_finishes_and_says_that_it_ended() {
    let stage = Stage::new(WAITS);
    let item = stage.push_job(&[]);
    let mut agent = stage.agent(&[]);
    stage.run_of(&item, "running");
    stage.wait_for_runs(1);
    stage.peer.model().agents[0].stop_polling = true;
    stage.wait_for_word("told to take nothing more");
    let later = stage.push_job(&[]);
    stage.sandbox.write("fake/go", "");
    assert_eq!(agent.wait(&stage.sandbox), Some(0));
    let mut model = stage.peer.model();
    assert_eq!(
        model.agents[0].statuses.last().map(String::as_str),
        Some("KILLED")
    );
    assert_eq!(model.item(&later).state, "PENDING");
}

#[test]
fn an_item_that_somebody_else_has_is_neither_run_nor_failed() {
    let stage = Stage::new("");
    let item = stage.push_job(&[]);
    stage.peer.fail(
        "ackRunQueueItem",
        How::Status(
            200,
            "",
            r#"{"data": {"ackRunQueueItem": {"success": false}}}"#,
        ),
        1,
    );
    let _agent = stage.agent(&[]);
    stage.wait_for_word("somebody else has taken it");
    assert!(stage.sandbox.calls("run").is_empty());
    assert_eq!(stage.peer.model().item(&item).failure, None);
}

#[test]
fn an_ack_whose_answer_is_lost_runs_the_job_once_under_both_kinds_of_server() {
    for idempotent in [true, false] {
        let stage = Stage::new("");
        stage.peer.model().idempotent_ack = idempotent;
        stage.peer.lose("ackRunQueueItem", How::Drop, 1);
        let item = stage.push_job(&[]);
        let _agent = stage.agent(&[]);
        stage.run_of(&item, "finished");
        stage.wait_for_runs(1);
        stage.wait_for_word("exit code 0");
        assert_eq!(
            stage.sandbox.calls("run").len(),
            1,
            "idempotent {idempotent}"
        );
        assert_eq!(
            stage.peer.model().item(&item).failure,
            None,
            "idempotent {idempotent}"
        );
    }
}

#[test]
fn an_item_whose_claim_nobody_answered_before_the_agent_was_stopped_is_run_by_the_next() {
    let stage = Stage::new("");
    stage.peer.lose("ackRunQueueItem", How::Drop, 1_000_000);
    let item = stage.push_job(&[]);
    let mut agent = stage.agent(&[]);
    stage.wait_for_word("cannot be claimed yet");
    agent.signal(Signal::SIGTERM);
    stage.wait_for_word("a second signal stops it");
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait(&stage.sandbox), Some(0));
    assert_eq!(stage.peer.model().item(&item).state, "CLAIMED");
    stage.peer.heal();
    let _agent = stage.agent(&[]);
    stage.run_of(&item, "running");
    stage.wait_for_runs(1);
    stage.wait_for_word("exit code 0");
    assert_eq!(stage.peer.model().item(&item).failure, None);
}

#[test]
fn an_outage_harms_no_running_job_and_loses_no_report() {
    let stage = Stage::new(&format!("{WAITS}; exit 3"));
    let first = stage.push_job(&[]);
    let _agent = stage.agent(&[]);
    stage.run_of(&first, "running");
    stage.wait_for_runs(1);
    let bad =
        stage.push(json!({"entity": "me", "project": "p", "docker": {"docker_image": "absent:1"}}));
    stage.peer.fail("*", How::Status(503, "", ""), 1_000_000);
    stage.wait_for_word("cannot be reached");
    stage.sandbox.write("fake/go", "");
    stage.wait_for_word("exit code 3");
    stage.peer.heal();
    stage.wait_for_word("answers again");
    let (part, message) = stage.failure(&bad);
    assert_eq!(part, "build", "{message}");
    let log = stage.sandbox.read("agent.err");
    assert_eq!(log.matches("cannot be reached").count(), 1, "{log}");
}

#[test]
fn an_agent_that_is_started_before_the_network_waits_for_its_server() {
    let stage = Stage::new("exit 3");
    let item = stage.push_job(&[]);
    stage.peer.fail("*", How::Status(503, "", ""), 1_000_000);
    let _agent = stage.agent(&[]);
    stage.wait_for_word("status 503; it is asked until it answers (hint: proxies");
    stage.peer.heal();
    stage.wait_for_word("answers again");
    stage.run_of(&item, "running");
    stage.wait_for_word("exit code 3");
}

#[test]
fn a_key_that_is_refused_meanwhile_stops_the_taking_and_not_the_jobs() {
    let stage = Stage::new(WAITS);
    let first = stage.push_job(&[]);
    let _agent = stage.agent(&[]);
    stage.run_of(&first, "running");
    stage.wait_for_runs(1);
    stage.peer.fail("*", How::Status(401, "", ""), 1_000_000);
    let later = stage.push_job(&[]);
    stage.wait_for_word("key");
    stage.sandbox.write("fake/go", "");
    stage.wait_for_word("exit code 0");
    assert_eq!(stage.peer.model().item(&later).state, "PENDING");
    stage.peer.heal();
    stage.run_of(&later, "running");
    let log = stage.sandbox.read("agent.err");
    assert_eq!(log.matches(" error: ").count(), 1, "{log}");
}

#[test]
fn runs_of_a_sweep_are_for_as_long_as_it_goes_on() {
    let stage = Stage::new("");
    let with_sweep = |sweep: &str| {
        let mut spec = spec(&[]);
        spec["sweep_id"] = json!(sweep);
        spec
    };
    stage
        .peer
        .model()
        .sweeps
        .insert("over".to_owned(), "FINISHED".to_owned());
    stage
        .peer
        .model()
        .sweeps
        .insert("on".to_owned(), "RUNNING".to_owned());
    let over = stage.push(with_sweep("over"));
    let on = stage.push(with_sweep("on"));
    let _agent = stage.agent(&[]);
    let (part, message) = stage.failure(&over);
    assert_eq!(part, "agent");
    assert!(
        message.contains("the sweep `over` is FINISHED"),
        "{message}"
    );
    stage.run_of(&on, "running");
    stage.wait_for_runs(1);
    assert!(stage.sandbox.calls("run")[0].contains("'WANDB_SWEEP_ID=on'"));
}

fn scheduler(sweep: &str) -> Value {
    json!({
        "uri": "placeholder-uri-scheduler", "resource": "local-process", "entity": "me", "project": "proj",
        "run_id": sweep, "overrides": {"entry_point": ["wandb", "scheduler", sweep], "args": ["--queue", "q"]}
    })
}

#[test]
fn a_sweep_scheduler_runs_wandbs_command_within_its_limit() {
    let mut stage = Stage::new("");
    stage.sandbox.write_program(
        "wandb",
        "#!/bin/bash\nprintf '%s\\n' \"$*\" \"${WANDB_API_KEY:+has a key}\" \"$WANDB_RUN_ID\" >>\"$FAKE/wandb\"\nexec sleep 600\n",
    );
    let first = stage.push(scheduler("s1"));
    let _agent = stage.agent(&[]);
    stage.run_of(&first, "running");
    stage.sandbox.wait_for("the scheduler", || {
        stage.sandbox.read("fake/wandb").lines().count() == 3
    });
    assert_eq!(
        stage.sandbox.read("fake/wandb"),
        "scheduler s1 --queue q\nhas a key\ns1\n"
    );

    let second = stage.push(scheduler("s2"));
    stage.wait_for_word("because 1 sweep schedulers run");
    assert_eq!(stage.peer.model().item(&second).state, "LEASED");
    // A scheduler takes no job's slot.
    let job = stage.push_job(&[]);
    stage.run_of(&job, "running");
}

#[test]
fn without_the_wandb_command_a_scheduler_fails_with_the_reason() {
    let mut stage = Stage::new("");
    for program in ["bash", "rm", "mv", "cat", "grep", "sleep", "env"] {
        let real = format!("#!/bin/sh\nexec $(PATH=/usr/bin:/bin command -v {program}) \"$@\"\n");
        stage.sandbox.write_program(program, &real);
    }
    stage.sandbox.clear_path();
    let item = stage.push(scheduler("s1"));
    let _agent = stage.agent(&[]);
    let (part, message) = stage.failure(&item);
    assert_eq!(part, "run", "{message}");
    assert!(message.contains("`wandb` is not installed"), "{message}");
}

#[test]
fn what_is_wrong_at_the_start_is_said_in_one_line() {
    let stage = Stage::new("");
    let sandbox = &stage.sandbox;
    sandbox
        .run(&["-q", "Q"])
        .code(6)
        .says("`Q`")
        .says("did you mean `q`?");
    sandbox
        .run(&["-q", "q", "--dry-run"])
        .code(2)
        .says("there is no `--dry-run`");
    let mut wrong_key = Sandbox::with_fake_docker("");
    wrong_key.set("WANDB_BASE_URL", &stage.peer.url);
    wrong_key.set("WANDB_API_KEY", "0000000000000000000000000000000000000000");
    let ran = wrong_key.run(&["-q", "q"]).code(3);
    assert!(ran.stderr.contains("key"), "{}", ran.stderr);
}

#[test]
fn the_commands_are_the_same_over_w_and_b() {
    let stage = Stage::new("");
    let sandbox = &stage.sandbox;
    let config = sandbox.write("config.json", r#"{"cpus": "{{cpus}}", "rm": true}"#);
    let variables = sandbox.write(
        "variables.json",
        r#"{"cpus": {"schema": {"type": "integer", "maximum": 4}}}"#,
    );
    sandbox
        .run(&[
            "queue",
            "create",
            "new",
            "--prioritization",
            "--config",
            config.to_str().expect("UTF-8"),
            "--template-variables",
            variables.to_str().expect("UTF-8"),
        ])
        .code(0)
        .says(&format!(
            "created queue new in entity me at {}",
            stage.peer.url
        ));
    let shown: Value =
        serde_json::from_str(&sandbox.ok(&["queue", "show", "new", "--json"])).expect("JSON");
    assert_eq!(shown["config"], json!({"cpus": "{{cpus}}", "rm": true}));
    assert_eq!(shown["prioritization"], true);
    let listed: Value =
        serde_json::from_str(&sandbox.ok(&["queue", "list", "--json"])).expect("JSON");
    let names: Vec<&str> = listed
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|queue| queue["name"].as_str())
        .collect();
    assert_eq!(names, ["q", "r", "new"]);

    let id = sandbox.ok(&[
        "push", "-q", "new", "-p", "Proj", "-d", "job:1", "-v", "cpus=2", "-P", "high", "-E",
        "sh -c", "--", "echo hi",
    ]);
    let id = id.trim();
    let pushed = stage.peer.model().item(id).clone();
    assert_eq!(pushed.priority, 1);
    assert_eq!(
        pushed.spec,
        json!({
            "entity": "me", "project": "Proj", "docker": {"docker_image": "job:1"},
            "overrides": {"entry_point": ["sh", "-c"], "args": ["echo hi"]}
        })
    );
    let items: Value =
        serde_json::from_str(&sandbox.ok(&["items", "-q", "new", "--json"])).expect("JSON");
    assert_eq!(
        (&items[0]["id"], &items[0]["state"]),
        (&json!(id), &json!("PENDING"))
    );
    assert!(
        sandbox
            .ok(&["item", "show", id])
            .contains("state:          PENDING")
    );

    sandbox
        .run(&["push", "-q", "neww", "-p", "p", "-d", "job:1"])
        .code(6)
        .says("did you mean `new`?");
    sandbox
        .run(&["item", "cancel", id])
        .code(3)
        .says("this is for the embedded queue");
}

#[test]
fn push_waits_for_the_run_that_the_item_becomes() {
    let stage = Stage::new("");
    for (state, code) in [("finished", 0), ("failed", 1)] {
        let before = stage.peer.model().items.len();
        let mut waiting = stage
            .sandbox
            .command(&["push", "-q", "q", "-p", "Proj", "-d", "job:1", "--wait"])
            .spawn()
            .expect("it starts");
        stage
            .peer
            .wait_for("the push", |model| model.items.len() > before);
        {
            let mut model = stage.peer.model();
            "CLAIMED".clone_into(&mut model.items[before].state);
            model.items[before].run = Some(format!("run-{state}"));
            model.set_run("me", "proj", &format!("run-{state}"), "running");
        }
        assert_eq!(waiting.try_wait().expect("waited"), None);
        stage
            .peer
            .model()
            .set_run("me", "proj", &format!("run-{state}"), state);
        assert_eq!(
            waiting.wait().expect("waited").code(),
            Some(code),
            "{state}"
        );
    }
}
