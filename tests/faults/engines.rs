//! Engines that hang, answer nonsense, are older, or are another program.

use std::time::{Duration, Instant};

use crate::common::sandbox::Sandbox;

pub fn sandbox(job: &str) -> Sandbox {
    let sandbox = Sandbox::with_fake_docker(job);
    sandbox.queue("q", "{}");
    sandbox
}

/// Puts a case before all others of the fake docker.
pub fn answer(sandbox: &mut Sandbox, pattern: &str, commands: &str) {
    let script = sandbox.read("bin/docker").replacen(
        "case \"$1 $2\" in\n",
        &format!("case \"$1 $2\" in\n  {pattern}) {commands} ;;\n"),
        1,
    );
    sandbox.write_program("docker", &script);
}

#[test]
fn an_engine_that_hangs_at_the_start_is_said_within_seconds() {
    let mut sandbox = sandbox("");
    let id = sandbox.push("job:1", &[]);
    answer(&mut sandbox, "\"version \"*", "sleep 600");
    let start = Instant::now();
    sandbox
        .once(&[])
        .code(4)
        .says("`docker version --format '{{.Server.Version}}'` gave no answer in 10 s");
    assert!(
        start.elapsed() < Duration::from_secs(25),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(sandbox.item(&id)["state"], "PENDING");
}

#[test]
fn an_engine_that_hangs_or_floods_over_a_question_does_not_hold_the_agent() {
    let mut sandbox = sandbox("exit 5");
    // How the container is doing is asked when its client has ended; the client's own word then counts.
    answer(&mut sandbox, "\"container inspect\"", "yes nonsense");
    let id = sandbox.push("job:1", &[]);
    sandbox.once(&[]).code(1);
    let item = sandbox.item(&id);
    assert_eq!(
        (&item["state"], &item["exit_code"]),
        (&"FINISHED".into(), &5.into()),
        "{item}"
    );
}

#[test]
fn nonsense_is_neither_believed_nor_fatal() {
    for (pattern, nonsense) in [
        ("\"container inspect\"", "echo '{\"Running\": \"maybe\"}'"),
        ("\"container inspect\"", "echo '<html>'; exit 0"),
        ("\"container inspect\"", "printf '\\377\\0\\n'"),
        ("\"info \"*", "echo 'not/a/folder'"),
        ("\"info \"*", "exit 3"),
        (
            "\"rm \"*",
            "echo 'Error response from daemon: banana' >&2; exit 1",
        ),
    ] {
        let mut sandbox = sandbox("exit 7");
        answer(&mut sandbox, pattern, nonsense);
        let id = sandbox.push("job:1", &[]);
        sandbox.once(&[]).code(1);
        let item = sandbox.item(&id);
        assert_eq!(
            (&item["state"], &item["exit_code"]),
            (&"FINISHED".into(), &7.into()),
            "{pattern} {nonsense}: {item}"
        );
    }
}

#[test]
fn a_container_that_docker_will_not_remove_costs_neither_the_next_job_nor_the_cpu() {
    let mut sandbox = sandbox("exit 7");
    answer(
        &mut sandbox,
        "\"rm \"*",
        "echo 'Error response from daemon: device or resource busy' >&2; exit 1",
    );
    let first = sandbox.push("job:1", &[]);
    let agent = sandbox.start_agent(&[]);
    sandbox.item_in(&first, &["FINISHED"]);
    // Its end is recorded, and its slot is still taken.
    let second = sandbox.push("job:1", &[]);
    let (begun, computed) = (Instant::now(), agent.cpu_time());
    sandbox.item_in(&second, &["FINISHED"]);
    let computed = agent.cpu_time().saturating_sub(computed);
    let share = computed.as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!(
        begun.elapsed() > Duration::from_secs(2),
        "it was asked again"
    );
    assert!(share < 0.25, "the agent took {share} of a core");
    let said = sandbox.read("agent.err");
    assert_eq!(
        said.matches("could not be removed: `docker rm").count(),
        1,
        "{said}"
    );
}

#[test]
fn a_client_that_ends_with_a_code_of_its_own_and_no_container_is_not_the_jobs_end() {
    let mut sandbox = sandbox("");
    answer(
        &mut sandbox,
        "\"run --name\"",
        "echo 'fatal error: unexpected signal' >&2; exit 2",
    );
    let id = sandbox.push("job:1", &[]);
    sandbox.once(&[]).code(1);
    let item = sandbox.item(&id);
    assert_eq!(
        (&item["state"], &item["stage"]),
        (&"FAILED".into(), &"run".into()),
        "{item}"
    );
}

#[test]
fn an_engine_elsewhere_is_reached_as_the_environment_says() {
    // Rootless docker, and docker behind ssh, are both no more than an address for docker's client.
    let mut sandbox = sandbox("echo \"host=$DOCKER_HOST\"");
    sandbox.set("DOCKER_HOST", "unix:///run/user/1000/docker.sock");
    let id = sandbox.push("job:1", &[]);
    sandbox.once(&[]).code(0);
    let log = sandbox.log(&id);
    assert!(
        log.contains("host=unix:///run/user/1000/docker.sock"),
        "{log}"
    );
}

/// Podman's answers as 4.3 gives them, to the questions that the agent asks.
const FAKE_PODMAN: &str = r#"#!/bin/bash
printf '%s\n' "${*@Q}" >>"$FAKE/calls"
started=$(date -u +%Y-%m-%dT%H:%M:%S.%NZ)
case "$1 $2" in
  "version "*) echo 4.3.1 ;;
  "info "*) case "$3" in *Store*) echo "$FAKE" ;; *) echo "Error: template: info:1:2: can't evaluate field" >&2; exit 125 ;; esac ;;
  "image inspect") case "${*: -1}" in job:1) echo '{"digests":[],"labels":null}' ;; *) echo "Error: inspecting object: ${*: -1}: image not known" >&2; exit 125 ;; esac ;;
  "pull "*) echo "Error: short-name \"${*: -1}\" did not resolve to an alias" >&2; exit 125 ;;
  "run "*)
    for ((i = 1; i < $#; i++)); do j=$((i + 1)); case "${!i}" in --name) name=${!j} ;; --cidfile) cidfile=${!j} ;; esac; done
    echo id-1 >"$cidfile"
    event() { printf '{"ID":"id-1","Image":"localhost/job:1","Name":"%s","Status":"%s","Time":"%s","Type":"container","Attributes":{}%s}\n' "$name" "$1" "$(date -u +%Y-%m-%dT%H:%M:%S.%NZ)" "$2" >>"$FAKE/events"; }
    event create
    case "${*: -1}" in
      nosuch) echo 'time="2026-11-22T05:15:04Z" level=error msg="Removing container"' >&2
        echo 'Error: runc: runc create failed: exec: "nosuch": executable file not found in $PATH: OCI runtime attempted to invoke a command that was not found' >&2
        printf '{"Status":"created","Running":false,"Paused":false,"Restarting":false,"OOMKilled":false,"ExitCode":0,"StartedAt":"0001-01-01T00:00:00Z","FinishedAt":"0001-01-01T00:00:00Z"}\n' >"$FAKE/state"
        exit 127 ;;
    esac
    event start
    echo hello
    event died ',"ContainerExitCode":9'
    event remove
    # The client is killed, and the container is gone, as with --rm.
    kill -KILL $$ ;;
  "container inspect") cat "$FAKE/state" 2>/dev/null || { echo "Error: inspecting object: no such container ${*: -1}" >&2; exit 125; } ;;
  "events "*) case "$*" in *--stream=false*) cat "$FAKE/events" ;; esac ;;
  "wait "*|"rm "*) ;;
  *) echo "Error: unknown command \"$1\" for \"podman\"" >&2; exit 125 ;;
esac
"#;

#[test]
fn podman_is_understood_under_its_own_name_and_under_dockers() {
    for engine in ["podman", "docker"] {
        let mut sandbox = Sandbox::new();
        sandbox.write_program(engine, FAKE_PODMAN);
        std::fs::create_dir(sandbox.path("fake")).expect("a folder");
        let fake = sandbox.path("fake").display().to_string();
        sandbox.set("FAKE", &fake);
        sandbox.write(
            ".config/wandb/launch-config.yaml",
            &format!("engine: {engine}\n"),
        );
        sandbox.queue("q", r#"{"rm": true}"#);
        let [removed, refused, missing] = [
            sandbox.push("job:1", &[]),
            sandbox.push("job:1", &["--", "nosuch"]),
            sandbox.push("elsewhere:1", &[]),
        ];
        sandbox.once(&[]).code(1);

        let item = sandbox.item(&removed);
        assert_eq!(
            (&item["state"], &item["exit_code"]),
            (&"FINISHED".into(), &9.into()),
            "{item}"
        );
        let command = item["command"].as_str().expect("a command");
        assert!(
            command.starts_with(&format!("{engine} run --name ")),
            "{command}"
        );
        let item = sandbox.item(&refused);
        let message = item["message"].as_str().expect("a message");
        assert!(
            message.starts_with("docker could not run the container: runc: runc create failed")
                && message.contains("hint: the entry point does not exist in the image"),
            "{message}"
        );
        let item = sandbox.item(&missing);
        assert_eq!(
            (&item["state"], &item["stage"]),
            (&"FAILED".into(), &"build".into()),
            "{item}"
        );
        let message = item["message"].as_str().expect("a message");
        assert!(
            message.contains("short-name \"elsewhere:1\" did not resolve"),
            "{message}"
        );
    }
}

#[test]
fn podman_that_is_not_there_is_named() {
    let mut sandbox = sandbox("");
    sandbox.write(".config/wandb/launch-config.yaml", "engine: podman\n");
    sandbox.clear_path();
    sandbox
        .once(&[])
        .code(4)
        .says("`podman` is not installed")
        .says("`engine: docker`");
}
