//! The agent on the real engine: real containers, made and removed. Without an engine these tests fail.

use std::ops::Deref;
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::common::sandbox::Sandbox;

/// The job image, made out of this machine's own programs once for all tests.
pub fn image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        if let Ok(image) = std::env::var("LAUNCH_AGENT_TEST_IMAGE") {
            return image;
        }
        let made = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/job-image"))
            .arg("launch-agent-job:test")
            .output()
            .expect("scripts/job-image runs");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        "launch-agent-job:test".to_owned()
    })
}

pub fn docker(arguments: &[&str]) -> Output {
    Command::new("docker")
        .args(arguments)
        .output()
        .expect("docker is installed")
}

/// A sandbox whose containers are removed with it, also when its test fails.
pub struct Bench(Sandbox);

impl Bench {
    pub fn new() -> Bench {
        Bench(Sandbox::new())
    }

    pub fn with_queue(config: &str) -> Bench {
        let bench = Bench::new();
        bench.queue("q", config);
        bench
    }
}

impl Deref for Bench {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.0
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let output = self
            .command(&["items", "--json"])
            .output()
            .expect("launch-agent starts");
        let items: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let commands = items
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item["command"].as_str());
        for name in commands.filter_map(name_of) {
            docker(&["rm", "--force", "--volumes", name]);
        }
    }
}

fn name_of(command: &str) -> Option<&str> {
    command
        .split(' ')
        .skip_while(|word| *word != "--name")
        .nth(1)
}

/// The container of an item that was started, by the name on its command line.
pub fn container(sandbox: &Bench, id: &str) -> String {
    let item = sandbox.item(id);
    let command = item["command"]
        .as_str()
        .unwrap_or_else(|| panic!("no command: {item}"));
    name_of(command).expect("a name").to_owned()
}

pub fn exists(container: &str) -> bool {
    docker(&["container", "inspect", container])
        .status
        .success()
}

pub fn is_running(container: &str) -> bool {
    let output = docker(&[
        "container",
        "inspect",
        "--format",
        "{{.State.Running}}",
        container,
    ]);
    output.stdout == b"true\n"
}

/// The job's own output: the log without the command in front and the agent's words at the end.
pub fn output(sandbox: &Bench, id: &str) -> String {
    let log = sandbox.log(id);
    let (_, rest) = log.split_once('\n').expect("a command line");
    let jobs = |line: &&str| !line.starts_with("[launch-agent: ");
    rest.split_inclusive('\n').filter(jobs).collect()
}

/// Debian's own and docker's may be on one machine, years apart: each client on the PATH runs, fails and stops a job.
#[test]
fn every_docker_client_of_this_machine_is_understood() {
    let clients: std::collections::BTreeSet<_> = which::which_all("docker")
        .expect("docker is installed")
        .filter_map(|client| client.canonicalize().ok())
        .collect();
    assert!(!clients.is_empty());
    for client in clients {
        let mut bench = Bench::new();
        let path = client.display();
        bench
            .0
            .write_program("docker", &format!("#!/bin/sh\nexec {path} \"$@\"\n"));
        bench.queue("q", r#"{"rm": true, "init": true}"#);
        let fails = bench.push(image(), &["--", "sh", "-c", "echo from the job; exit 3"]);
        let missing = bench.push(image(), &["--", "/no/such/program"]);
        let stopped = bench.push(image(), &["--timeout", "1", "--", "sleep", "600"]);
        bench.once(&[]).code(1);
        let item = bench.item(&fails);
        assert_eq!(item["exit_code"], 3, "{path}: {item}");
        assert!(bench.log(&fails).contains("from the job\n"), "{path}");
        assert_eq!(bench.item(&missing)["exit_code"], 127, "{path}");
        assert_eq!(bench.item(&stopped)["state"], "STOPPED", "{path}");
    }
}

#[test]
fn success_and_failure_with_and_without_rm() {
    for config in ["{}", r#"{"rm": true}"#] {
        let sandbox = Bench::with_queue(config);
        let good = sandbox.push(
            image(),
            &["--", "sh", "-c", "echo out; sleep 0.3; echo err >&2"],
        );
        let bad = sandbox.push(image(), &["--", "sh", "-c", "exit 3"]);
        sandbox.once(&[]).code(1);
        let item = sandbox.item(&good);
        assert_eq!(
            (&item["state"], &item["exit_code"]),
            (&"FINISHED".into(), &0.into()),
            "{item}"
        );
        assert_eq!(output(&sandbox, &good), "out\nerr\n");
        let item = sandbox.item(&bad);
        assert_eq!(
            (&item["state"], &item["exit_code"]),
            (&"FINISHED".into(), &3.into()),
            "{item}"
        );
        assert!(
            item["duration_seconds"]
                .as_f64()
                .is_some_and(|seconds| seconds < 30.0),
            "{item}"
        );
        for id in [good, bad] {
            assert!(
                !exists(&container(&sandbox, &id)),
                "{config}: the container is left"
            );
        }
    }
}

#[test]
fn rm_false_keeps_the_container() {
    let sandbox = Bench::with_queue(r#"{"rm": false}"#);
    let id = sandbox.push(image(), &["--", "true"]);
    sandbox.once(&[]).code(0);
    let container = container(&sandbox, &id);
    assert!(exists(&container));
    assert!(docker(&["rm", &container]).status.success());
}

#[test]
fn a_command_that_is_not_in_the_image_is_dockers_failure() {
    for config in ["{}", r#"{"rm": true}"#] {
        let sandbox = Bench::with_queue(config);
        let id = sandbox.push(image(), &["--", "no-such-program"]);
        sandbox
            .once(&[])
            .code(1)
            .says("hint: the entry point does not exist in the image");
        let item = sandbox.item(&id);
        assert_eq!(
            (&item["state"], &item["stage"]),
            (&"FAILED".into(), &"run".into()),
            "{config}: {item}"
        );
        let message = item["message"].as_str().expect("a message");
        assert!(
            message.contains("\"no-such-program\": executable file not found in $PATH"),
            "{message}"
        );
        assert!(
            !sandbox.log(&id).contains("lines may be missing"),
            "{config}: it never ran"
        );
        assert!(
            !exists(&container(&sandbox, &id)),
            "{config}: the container is left"
        );
    }
}

#[test]
fn a_shells_own_127_is_the_jobs() {
    for config in ["{}", r#"{"rm": true}"#] {
        let sandbox = Bench::with_queue(config);
        let id = sandbox.push(image(), &["--", "sh", "-c", "no-such-program"]);
        sandbox.once(&[]).code(1);
        let item = sandbox.item(&id);
        assert_eq!(
            (&item["state"], &item["exit_code"]),
            (&"FINISHED".into(), &127.into()),
            "{item}"
        );
        assert!(
            !sandbox.log(&id).contains("lines may be missing"),
            "{config}: docker's client has followed it to its end"
        );
    }
}

#[test]
fn out_of_memory_is_said_in_words() {
    for rm in ["true", "null"] {
        let sandbox = Bench::with_queue(&format!(
            r#"{{"memory": "20m", "memory-swap": "20m", "rm": {rm}}}"#
        ));
        let id = sandbox.push(
            image(),
            &[
                "--",
                "sh",
                "-c",
                "x=$(yes | head -c 200000000); echo unreachable",
            ],
        );
        sandbox.once(&[]).code(1).says("out of memory");
        let item = sandbox.item(&id);
        assert_eq!(
            (&item["exit_code"], &item["oom_killed"]),
            (&137.into(), &true.into()),
            "rm {rm}: {item}"
        );
        assert!(sandbox.ok(&["item", "show", &id]).contains("out of memory"));
    }
}

#[test]
fn an_image_that_does_not_exist_fails_at_stage_build() {
    let sandbox = Bench::with_queue("{}");
    let id = sandbox.push("localhost:1/no-such-image:1", &[]);
    sandbox.once(&[]).code(1);
    let item = sandbox.item(&id);
    assert_eq!(
        (&item["state"], &item["stage"]),
        (&"FAILED".into(), &"build".into()),
        "{item}"
    );
    assert!(
        item["message"]
            .as_str()
            .is_some_and(|text| text.contains("`localhost:1/no-such-image:1`")),
        "{item}"
    );
}

#[test]
fn values_arrive_byte_for_byte() {
    let value = "two  words 'single' \"double\" $HOME `id` \\back\nnew line\ttab * ? ~ ; & | caf\u{e9} \u{1f600} \u{202e}";
    let mut sandbox = Bench::new();
    sandbox.0.set("BY_NAME", value);
    let config =
        serde_json::json!({"env": [format!("BY_VALUE={value}"), "BY_NAME"], "hostname": "a-host"});
    sandbox.queue("q", &config.to_string());
    let script = r#"printf '<%s>' "$BY_VALUE" "$BY_NAME" "$@""#;
    let id = sandbox.push(
        image(),
        &["--", "sh", "-c", script, "-", value, "", "--privileged"],
    );
    sandbox.once(&[]).code(0);
    assert_eq!(
        output(&sandbox, &id),
        format!("<{value}><{value}><{value}><><--privileged>\n")
    );
}

#[test]
fn the_jobs_environment_is_as_w_and_b_has_it_and_without_a_key() {
    let mut sandbox = Bench::new();
    sandbox.0.set("USER", "ada");
    sandbox.queue("q", "{}");
    let spec = r#"{"overrides": {"run_config": {"lr": 1e-07, "x": "é"}}, "run_id": "myrun"}"#;
    let id = sandbox.push(
        image(),
        &["-c", spec, "-e", "team", "--name", "a name", "--", "env"],
    );
    sandbox.once(&[]).code(0);
    let output = output(&sandbox, &id);
    for line in [
        "WANDB_PROJECT=demo",
        "WANDB_ENTITY=team",
        "WANDB_LAUNCH=True",
        "WANDB_RUN_ID=myrun",
        "WANDB_NAME=a name",
        "WANDB_USERNAME=ada",
        "WANDB_LAUNCH_QUEUE_NAME=q",
        "WANDB_MODE=offline",
        r#"WANDB_CONFIG={"lr": 1e-07, "x": "\u00e9"}"#,
        "WANDB_LAUNCH_FILE_OVERRIDES={}",
        "WANDB_ARTIFACTS={}",
    ] {
        assert!(
            output.lines().any(|found| found == line),
            "no {line} in\n{output}"
        );
    }
    assert!(
        output
            .lines()
            .any(|line| line == format!("WANDB_LAUNCH_TRACE_ID={id}")),
        "{output}"
    );
    assert!(
        output
            .lines()
            .any(|line| line == format!("WANDB_DOCKER={}", image())),
        "{output}"
    );
    assert!(!output.contains("WANDB_API_KEY"), "{output}");
}

#[test]
fn an_entry_point_replaces_the_images_own() {
    let sandbox = Bench::with_queue("{}");
    let id = sandbox.push(
        image(),
        &["-E", "sh -c 'echo \"$0 and $1\"'", "--", "one", "two words"],
    );
    sandbox.once(&[]).code(0);
    assert_eq!(output(&sandbox, &id), "one and two words\n");
}

#[test]
fn volume_and_rm_of_the_documentation_work() {
    let sandbox = Bench::new();
    let data = sandbox.write("data/hello.txt", "a file of the host");
    let folder = data.parent().expect("a folder").display();
    sandbox.queue(
        "q",
        &format!(r#"{{"volume": "{folder}:/data", "rm": true}}"#),
    );
    let id = sandbox.push(image(), &["--", "cat", "/data/hello.txt"]);
    sandbox.once(&[]).code(0);
    assert_eq!(output(&sandbox, &id), "a file of the host\n");
}

#[test]
fn what_the_policy_refuses_is_what_docker_would_have_done() {
    let sandbox = Bench::new();
    sandbox.write(".ssh/id", "a key");
    std::fs::create_dir(sandbox.path("data")).expect("a folder");
    std::os::unix::fs::symlink(sandbox.path(".ssh"), sandbox.path("data/link")).expect("linked");
    let (link, hidden) = (sandbox.path("data/link"), sandbox.path(".ssh"));
    let (link, hidden) = (link.display(), hidden.display());
    sandbox.queue("q", "{}");
    let open = sandbox.write("open.yaml", "policy: {preset: open}\n");
    for options in [
        format!(r#"{{"volume": "{link}:/x"}}"#),
        format!(r#"{{"volume": "{link}/../../.ssh:/x"}}"#),
        format!(r#"{{"mount": "\ntype=bind,\"SRC={link}\",dst=/x\ntype=tmpfs"}}"#),
        format!(
            r#"{{"mount": "dst=/x,volume-opt=type=none,volume-opt=o=bind,volume-opt=device={hidden}"}}"#
        ),
    ] {
        let options = format!(r#"{{"docker": {options}}}"#);
        let push = || sandbox.push(image(), &["-R", &options, "--", "cat", "/x/id"]);
        let refused = push();
        sandbox.once(&[]).code(1);
        let item = sandbox.item(&refused);
        assert_eq!(
            (&item["state"], &item["stage"]),
            (&"FAILED".into(), &"agent".into()),
            "{item}"
        );
        let opened = push();
        sandbox
            .once(&["--config", open.to_str().expect("UTF-8")])
            .code(0);
        assert_eq!(output(&sandbox, &opened), "a key\n", "{options}");
    }
}

#[test]
fn what_the_owner_allows_is_what_the_job_gets() {
    let sandbox = Bench::with_queue(r#"{"cap-drop": "ALL", "cap-add": "SYS_PTRACE"}"#);
    let push = || sandbox.push(image(), &["--", "cat", "/proc/self/status"]);
    let refused = push();
    sandbox.once(&[]).code(1);
    let message = sandbox.item(&refused)["message"].to_string();
    assert!(
        message.contains("refuses `--cap-add SYS_PTRACE`"),
        "{message}"
    );
    let config = sandbox.write("agent.yaml", "policy: {allow: [cap-add=SYS_PTRACE]}\n");
    let allowed = push();
    sandbox
        .once(&["--config", config.to_str().expect("UTF-8")])
        .code(0);
    let status = output(&sandbox, &allowed);
    assert!(status.contains("\nCapEff:\t0000000000080000\n"), "{status}");
}

#[test]
fn a_container_of_others_cannot_be_joined() {
    let sandbox = Bench::new();
    let stranger = format!("launch-agent-stranger-{}", std::process::id());
    let made = docker(&["create", "--name", &stranger, image(), "true"]);
    assert!(made.status.success(), "{made:?}");
    sandbox.queue("q", "{}");
    for (option, value) in [
        ("network", format!("name=container:{stranger}")),
        ("ipc", format!("container:{stranger}")),
        ("volumes-from", stranger.clone()),
        ("link", format!("{stranger}:db")),
    ] {
        let options = format!(r#"{{"docker": {{"{option}": "{value}"}}}}"#);
        let id = sandbox.push(image(), &["-R", &options]);
        sandbox.once(&[]).code(1);
        let message = sandbox.item(&id)["message"].to_string();
        assert!(
            message.contains("the container is no job of this agent"),
            "{message}"
        );
    }
    assert!(docker(&["rm", &stranger]).status.success());
}

#[test]
fn two_jobs_run_at_once() {
    let sandbox = Bench::new();
    std::fs::create_dir(sandbox.path("shared")).expect("a folder");
    sandbox.queue(
        "q",
        &format!(
            r#"{{"volume": "{}:/shared"}}"#,
            sandbox.path("shared").display()
        ),
    );
    // Each job ends only when it has seen the other: one after the other they would wait for ever.
    let script = ": >/shared/$1; until [ -e /shared/$2 ]; do sleep 0.05; done; echo met";
    let a = sandbox.push(image(), &["--", "sh", "-c", script, "-", "a", "b"]);
    let b = sandbox.push(image(), &["--", "sh", "-c", script, "-", "b", "a"]);
    sandbox.once(&["-j", "2"]).code(0);
    assert_eq!(output(&sandbox, &a) + &output(&sandbox, &b), "met\nmet\n");
}

#[test]
fn a_stop_ends_the_container_whether_it_listens_or_not() {
    let ignores = "trap '' TERM; echo ready; while true; do sleep 0.1; done";
    let chatters = "echo ready; while true; do echo chatter; sleep 0.01; done";
    let handles = "trap 'echo bye; exit 5' TERM; echo ready; while true; do sleep 0.1; done";
    for (rm, script, code) in [
        ("true", ignores, 137),
        ("null", ignores, 137),
        ("null", chatters, 137),
        ("null", "echo ready; exec sleep 600", 137),
        ("null", handles, 5),
    ] {
        let sandbox = Bench::with_queue(&format!(r#"{{"rm": {rm}}}"#));
        let config = sandbox.write("agent.yaml", "stop_grace: 1\n");
        let id = sandbox.push(image(), &["--", "sh", "-c", script]);
        let _agent = sandbox.start_agent(&["--config", config.to_str().expect("UTF-8")]);
        sandbox.wait_for("the job to be ready", || {
            sandbox.item(&id)["state"] == "CLAIMED" && sandbox.log(&id).contains("\nready\n")
        });
        let container = container(&sandbox, &id);
        assert!(is_running(&container));
        sandbox.ok(&["item", "cancel", &id]);
        let item = sandbox.item_in(&id, &["STOPPED"]);
        assert!(!is_running(&container), "{item}");
        assert!(
            sandbox
                .log(&id)
                .contains(&format!("[launch-agent: exit code {code}")),
            "{}",
            sandbox.log(&id)
        );
        sandbox.wait_for("the container to be removed", || !exists(&container));
    }
}

#[test]
fn who_ends_a_job_by_docker_itself_is_told_from_the_job() {
    let told = "[launch-agent: docker was told to end the job, and not by this agent";
    for (rm, how, code) in [
        ("null", Some(&["kill"][..]), 137),
        ("true", Some(&["rm", "--force"]), 137),
        ("null", Some(&["stop"]), 143),
        ("null", None, 137),
    ] {
        let bench = Bench::with_queue(&format!(r#"{{"init": true, "rm": {rm}}}"#));
        let script = match how {
            Some(_) => "echo ready; exec sleep 600",
            None => "echo ready; kill -KILL $$",
        };
        let id = bench.push(image(), &["--", "sh", "-c", script]);
        let mut agent = bench.start_agent(&["--once"]);
        bench.wait_for("the job to be ready", || bench.log(&id).contains("ready\n"));
        if let Some(how) = how {
            let container = container(&bench, &id);
            let done = docker(&[how, &[&container]].concat());
            assert!(done.status.success(), "{done:?}");
        }
        assert_eq!(agent.wait(&bench), Some(1));
        let (item, log) = (bench.item(&id), bench.log(&id));
        assert_eq!(item["exit_code"], code, "{how:?}: {item}");
        assert_eq!(log.contains(told), how.is_some(), "{how:?}: {log}");
    }
}

#[test]
fn push_wait_follows_the_log_and_exits_with_the_jobs_code() {
    let sandbox = Bench::with_queue("{}");
    let _agent = sandbox.start_agent(&[]);
    let ran = sandbox
        .run(&[
            "push",
            "-q",
            "q",
            "-p",
            "demo",
            "-d",
            image(),
            "--wait",
            "--",
            "sh",
            "-c",
            "echo working; exit 42",
        ])
        .code(42);
    assert!(ran.stdout.contains("working\n"), "{}", ran.stdout);
}

#[test]
fn the_containers_labels_name_item_queue_run_and_agent() {
    let sandbox = Bench::with_queue(r#"{"rm": false, "label": {"mine": 1}}"#);
    let id = sandbox.push(image(), &["--", "true"]);
    sandbox.once(&[]).code(0);
    let container = container(&sandbox, &id);
    let labels = docker(&[
        "container",
        "inspect",
        "--format",
        "{{json .Config.Labels}}",
        &container,
    ])
    .stdout;
    assert!(docker(&["rm", &container]).status.success());
    let labels: serde_json::Value = serde_json::from_slice(&labels).expect("JSON");
    let item = sandbox.item(&id);
    assert_eq!(labels["launch-agent.item"], id.as_str());
    assert_eq!(labels["launch-agent.queue"], "q");
    assert_eq!(labels["launch-agent.run"], item["run_id"]);
    // The agent's name on this machine stays when it is started again, unlike its name in the queue.
    let owner = sandbox.read(".local/state/launch-agent/agents/0/agent.json");
    let owner: serde_json::Value = serde_json::from_str(&owner).expect("JSON");
    assert_eq!(labels["launch-agent.agent"], owner["name"]);
    assert_eq!(labels["mine"], "1");
}
