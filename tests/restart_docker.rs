//! An agent that was killed and is started again, on the real engine.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::sandbox::Agent;
use crate::docker::{Bench, container, docker, exists, image, is_running, output};

/// Numbered lines to both streams, many a second.
const COUNTS: &str = "n=0; while [ $n -lt 60 ]; do n=$((n+1)); echo \"out $n\"; echo \"err $n\" >&2; \
    sleep 0.05; done; exit 7";

fn kill(bench: &Bench, mut agent: Agent) {
    agent.signal(Signal::SIGKILL);
    assert_eq!(agent.wait(bench), None);
}

#[test]
fn no_line_is_doubled_and_none_is_missing_however_often_the_agent_is_killed() {
    for config in ["{}", r#"{"log-driver": "local"}"#] {
        let bench = Bench::with_queue(config);
        let id = bench.push(image(), &["--", "sh", "-c", COUNTS]);
        for line in ["out 10", "out 20", "out 30"] {
            let agent = bench.start_agent(&[]);
            bench.wait_for(line, || bench.log(&id).contains(line));
            kill(&bench, agent);
            std::thread::sleep(Duration::from_millis(200));
        }
        bench.once(&[]).code(1);
        let item = bench.item(&id);
        assert_eq!(
            (&item["state"], &item["exit_code"]),
            (&"FINISHED".into(), &7.into()),
            "{item}"
        );
        let text = output(&bench, &id);
        // Which of the two streams comes first is not docker's promise; each by itself is whole and in order.
        for stream in ["out", "err"] {
            let expected: Vec<String> = (1..=60).map(|n| format!("{stream} {n}")).collect();
            let lines: Vec<&str> = text
                .lines()
                .filter(|line| line.starts_with(stream))
                .collect();
            assert_eq!(lines, expected, "{config}\n{text}");
        }
        assert_eq!(text.lines().count(), 120, "{text}");
        assert_eq!(item["warnings"], serde_json::json!([]), "{item}");
        assert!(!exists(&container(&bench, &id)), "the container is left");
    }
}

#[test]
fn a_job_that_ended_while_no_agent_was_there_has_its_true_code() {
    for (config, lines) in [("{}", 2), (r#"{"rm": true}"#, 1)] {
        let bench = Bench::with_queue(config);
        let script = "echo first; sleep 2; echo last; exit 42";
        let id = bench.push(image(), &["--", "sh", "-c", script]);
        let agent = bench.start_agent(&[]);
        bench.wait_for("the first line", || bench.log(&id).contains("first\n"));
        kill(&bench, agent);
        let container = container(&bench, &id);
        bench.wait_for("its end", || !is_running(&container));
        bench.once(&[]).code(1);
        let item = bench.item(&id);
        assert_eq!(
            (&item["state"], &item["exit_code"]),
            (&"FINISHED".into(), &42.into()),
            "{config}: {item}"
        );
        assert_eq!(output(&bench, &id).lines().count(), lines, "{config}");
        assert!(!exists(&container), "{config}: the container is left");
    }
}

#[test]
fn an_end_that_nobody_knows_is_no_success() {
    let bench = Bench::with_queue("{}");
    let id = bench.push(image(), &["--", "sleep", "600"]);
    let agent = bench.start_agent(&[]);
    bench.wait_for("the container", || {
        bench.item(&id)["command"].is_string() && is_running(&container(&bench, &id))
    });
    kill(&bench, agent);
    // As if the container had been removed and the engine had forgotten it: there never was one of that id.
    let container = container(&bench, &id);
    docker(&["rm", "--force", &container]);
    let run = bench.path(".local/state/launch-agent/run");
    let file = std::fs::read_dir(run)
        .expect("a folder")
        .next()
        .expect("a file");
    std::fs::write(file.expect("a file").path(), "0123456789abcdef").expect("written");
    bench.once(&[]).code(1);
    let item = bench.item(&id);
    assert_eq!(
        (&item["state"], &item["stage"]),
        (&"FAILED".into(), &"run".into()),
        "{item}"
    );
    assert!(
        item["message"]
            .to_string()
            .contains("how the job ended is not known"),
        "{item}"
    );
}

/// The clock was right when the container was started, and an hour earlier when its end is asked for; or the other way
/// round.
#[test]
fn a_clock_that_was_set_back_hides_no_end() {
    let label = "launch-agent.example=test";
    let run = docker(&[
        "run",
        "--detach",
        "--rm",
        "--label",
        label,
        image(),
        "sh",
        "-c",
        "exit 9",
    ]);
    let id = String::from_utf8(run.stdout).expect("an id");
    let id = id.trim();
    docker(&["wait", id]);
    let now = jiff::Timestamp::now();
    for since in [
        now + jiff::Span::new().hours(1),
        now - jiff::Span::new().hours(1),
    ] {
        let end = || launch_agent::host::engine::end_from_events(id, since).expect("an answer");
        let begun = std::time::Instant::now();
        while end().is_none() {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "no end since {since}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(end().expect("an end").exit.code, 9);
    }
}

#[test]
fn a_container_without_a_log_says_that_lines_may_be_missing() {
    let bench = Bench::with_queue(r#"{"log-driver": "none"}"#);
    // It outlasts the restart, also on a machine that has much to do.
    let script = "n=0; while [ $n -lt 150 ]; do n=$((n+1)); echo $n; sleep 0.1; done; exit 3";
    let id = bench.push(image(), &["--", "sh", "-c", script]);
    let agent = bench.start_agent(&[]);
    bench.wait_for("a line", || bench.log(&id).contains("\n5\n"));
    kill(&bench, agent);
    bench.once(&[]).code(1);
    let log = bench.log(&id);
    assert_eq!(bench.item(&id)["exit_code"], 3, "{log}");
    assert!(
        log.contains("lines may be missing here: docker has no log of the container"),
        "{log}"
    );
    assert!(log.contains("\n150\n"), "{log}");
}

#[test]
fn a_paused_container_is_stopped_too_also_after_a_restart() {
    let bench = Bench::with_queue("{}");
    let config = bench.write("agent.yaml", "stop_grace: 1\n");
    let id = bench.push(image(), &["--", "sleep", "600"]);
    let start = || bench.start_agent(&["--config", config.to_str().expect("UTF-8")]);
    let agent = start();
    bench.wait_for("the container", || {
        bench.item(&id)["command"].is_string() && is_running(&container(&bench, &id))
    });
    let container = container(&bench, &id);
    assert!(docker(&["pause", &container]).status.success());
    kill(&bench, agent);
    let _agent = start();
    bench.wait_for("it to be taken up", || {
        bench.read("agent.err").contains("taken up")
    });
    bench.ok(&["item", "cancel", &id]);
    let item = bench.item_in(&id, &["STOPPED"]);
    assert_eq!(item["message"], "a person asked for it");
    bench.wait_for("the container to be removed", || !exists(&container));
}

#[test]
fn a_name_that_another_container_has_is_not_taken_from_it() {
    let name = format!("launch-agent-test-{}", unused_name());
    assert!(
        docker(&[
            "run",
            "--detach",
            "--label",
            "launch-agent.example=test",
            "--name",
            &name,
            image(),
            "sleep",
            "600"
        ])
        .status
        .success()
    );
    let bench = Bench::with_queue(&format!(r#"{{"name": "{name}"}}"#));
    let id = bench.push(image(), &["--", "true"]);
    bench.once(&[]).code(1);
    let stayed = is_running(&name);
    docker(&["rm", "--force", &name]);
    assert!(stayed, "the other's container was ended");
    assert!(
        bench.item(&id)["message"]
            .to_string()
            .contains("already in use")
    );
}

/// A name that no test before this one had.
fn unused_name() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!(
        "{}-{}",
        std::process::id(),
        now.expect("a clock").as_nanos()
    )
}
