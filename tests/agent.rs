//! The agent with a fake docker: what it runs, in which order, and what it makes of what comes back.

use crate::common::sandbox::Sandbox;
use jiff::Timestamp;
use nix::sys::signal::Signal;

/// A sandbox with a queue `q` of this config, whose containers run `job`.
fn sandbox(config: &str, job: &str) -> Sandbox {
    let sandbox = Sandbox::with_fake_docker(job);
    sandbox.queue("q", config);
    sandbox
}

/// A job that waits until the test lets it go.
const WAITS: &str =
    "touch $FAKE/started.$1; until [ -e $FAKE/go ]; do read -t 0.02 <> <(:) || true; done";

#[test]
fn once_runs_all_jobs_and_says_with_its_code_whether_all_succeeded() {
    let sandbox = sandbox("{}", r#"echo "this is ${@: -1}"; exit "${@: -1}""#);
    let good = sandbox.push("job:1", &["--", "0"]);
    sandbox.once(&[]).code(0);
    let bad = sandbox.push("job:1", &["--", "3"]);
    sandbox.once(&[]).code(1);

    let item = sandbox.item(&good);
    assert_eq!(
        (&item["state"], &item["exit_code"]),
        (&"FINISHED".into(), &0.into()),
        "{item}"
    );
    let item = sandbox.item(&bad);
    assert_eq!(
        (&item["state"], &item["exit_code"]),
        (&"FINISHED".into(), &3.into()),
        "{item}"
    );
    assert!(
        sandbox
            .log(&bad)
            .ends_with("this is 3\n[launch-agent: exit code 3 after 2.0s]\n"),
        "{}",
        sandbox.log(&bad)
    );
}

#[test]
fn once_is_quiet_when_there_is_nothing_to_do() {
    let sandbox = sandbox("{}", "");
    let ran = sandbox.once(&[]).code(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
}

#[test]
fn a_second_once_leaves_at_once_with_one_line() {
    let sandbox = sandbox("{}", WAITS);
    let id = sandbox.push("job:1", &[]);
    let mut first = sandbox.start_agent(&["--once"]);
    sandbox.item_in(&id, &["CLAIMED"]);
    let second = sandbox.once(&[]).code(0);
    assert_eq!(second.stderr.lines().count(), 1, "{}", second.stderr);
    assert!(
        second
            .stderr
            .contains("another `launch-agent --once` is at work"),
        "{}",
        second.stderr
    );
    sandbox.write("fake/go", "");
    assert_eq!(first.wait(&sandbox), Some(0));
}

#[test]
fn the_first_line_of_the_log_is_exactly_what_ran() {
    let sandbox = sandbox(
        r#"{"env": ["A=two words", "B=it's $HOME"], "volume": ["/a:/a", "/b c:/b"]}"#,
        "",
    );
    let id = sandbox.push("job:1", &["--", "--flag", "a\nb", "caf\u{e9} \u{1f600}"]);
    sandbox.once(&[]).code(0);
    let ran = sandbox.calls("run").remove(0);

    // The printed line, run by bash with the same fake docker, makes the same call.
    let line = sandbox.log(&id).lines().next().expect("a line").to_owned();
    assert_eq!(sandbox.item(&id)["command"], line.as_str());
    std::fs::remove_file(sandbox.path("fake/calls")).expect("removed");
    let path = format!(
        "{}:{}",
        sandbox.path("bin").display(),
        std::env::var("PATH").expect("a PATH")
    );
    let bash = std::process::Command::new("bash")
        .args(["-c", &line])
        .env_clear()
        .env("PATH", path)
        .env("FAKE", sandbox.path("fake"))
        .output()
        .expect("bash runs");
    assert!(
        bash.status.success(),
        "{}",
        String::from_utf8_lossy(&bash.stderr)
    );
    assert_eq!(sandbox.calls("run"), [ran]);
}

#[test]
fn as_many_jobs_run_at_once_as_there_are_slots() {
    let sandbox = sandbox("{}", WAITS);
    let ids: Vec<String> = (0..3).map(|_| sandbox.push("job:1", &[])).collect();
    let mut agent = sandbox.start_agent(&["--once", "--max-jobs", "2"]);
    sandbox.item_in(&ids[0], &["CLAIMED"]);
    sandbox.item_in(&ids[1], &["CLAIMED"]);
    sandbox.wait_for("two containers", || sandbox.calls("run").len() == 2);
    assert_eq!(sandbox.item(&ids[2])["state"], "PENDING");
    sandbox.write("fake/go", "");
    assert_eq!(agent.wait(&sandbox), Some(0));
    assert_eq!(sandbox.calls("run").len(), 3);
}

#[test]
fn a_push_is_noticed_at_once_by_an_idle_agent() {
    let sandbox = sandbox("{}", "");
    let _agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the agent to poll", || {
        sandbox.read("agent.err").contains("polling")
    });
    let mut took: Vec<_> = (0..5)
        .map(|_| {
            let id = sandbox.push("job:1", &[]);
            let item = sandbox.item_in(&id, &["FINISHED"]);
            let at = |key: &str| -> Timestamp {
                item[key].as_str().expect("a time").parse().expect("a time")
            };
            at("claimed_at").duration_since(at("pushed_at"))
        })
        .collect();
    took.sort();
    // The agent's own tick is two seconds; a push wakes it long before.
    assert!(took[2].as_millis() < 500, "{took:?}");
}

#[test]
fn the_queue_that_was_served_goes_to_the_back() {
    let sandbox = sandbox("{}", "");
    sandbox.queue("r", "{}");
    for queue in ["q", "q", "q", "r"] {
        sandbox.ok(&[
            "push", "-q", queue, "-p", "demo", "-d", "job:1", "--", queue,
        ]);
    }
    sandbox
        .run(&["--local", "-q", "q", "-q", "r", "--once"])
        .code(0);
    let order: Vec<_> = sandbox
        .calls("run")
        .iter()
        .map(|call| call.ends_with("'r'"))
        .collect();
    assert_eq!(order, [false, true, false, false]);
}

#[test]
fn dry_run_prints_the_next_plan_and_takes_nothing() {
    let sandbox = sandbox(r#"{"gpus": "all"}"#, "");
    sandbox
        .run(&["--local", "-q", "q", "--dry-run"])
        .code(0)
        .says("nothing to take");
    let id = sandbox.push("job:1", &["--", "train"]);
    let ran = sandbox.run(&["--local", "-q", "q", "--dry-run"]).code(0);
    assert!(
        ran.stdout.starts_with("docker run ") && ran.stdout.ends_with("--gpus all job:1 train\n"),
        "{}",
        ran.stdout
    );
    assert_eq!(sandbox.item(&id)["state"], "PENDING");
    assert_eq!(sandbox.read("fake/calls"), "");
}

#[test]
fn an_image_that_is_missing_is_pulled_and_one_that_cannot_be_fails_at_stage_build() {
    let sandbox = sandbox("{}", "");
    let id = sandbox.push("nowhere/image:1", &[]);
    sandbox.once(&[]).code(1);
    let item = sandbox.item(&id);
    assert_eq!(
        (&item["state"], &item["stage"]),
        (&"FAILED".into(), &"build".into()),
        "{item}"
    );
    let message = item["message"].as_str().expect("a message");
    assert!(
        message.contains("`nowhere/image:1`") && message.contains("pull access denied"),
        "{message}"
    );
    assert!(sandbox.calls("run").is_empty());

    sandbox.write("fake/registry", "");
    let id = sandbox.push("nowhere/image:1", &[]);
    sandbox.once(&[]).code(0);
    assert!(
        sandbox
            .log(&id)
            .contains("\ndocker pull nowhere/image:1\npulling nowhere/image:1\n"),
        "{}",
        sandbox.log(&id)
    );
}

#[test]
fn an_option_that_only_a_newer_docker_knows_is_asked_for() {
    let sandbox = sandbox(r#"{"brand-new": "x"}"#, "");
    let config = sandbox.write("agent.yaml", "policy: {allow: [brand-new]}\n");
    let refused = sandbox.push("job:1", &[]);
    sandbox.once(&[]).code(1);
    let message = sandbox.item(&refused)["message"].to_string();
    assert!(
        message.contains("this policy does not know what it does"),
        "{message}"
    );
    sandbox.push("job:1", &[]);
    sandbox
        .once(&["--config", config.to_str().expect("UTF-8")])
        .code(0);
    assert!(
        sandbox
            .calls("run")
            .iter()
            .any(|call| call.ends_with("'--brand-new' 'x' 'job:1'")),
        "{:?}",
        sandbox.calls("run")
    );
}

#[test]
fn what_docker_refuses_is_not_the_jobs_exit_code() {
    let sandbox = sandbox("{}", "");
    sandbox.write("fake/refuse", "docker: Error response from daemon: no such runtime.\n\nRun 'docker run --help' for more information\n");
    let id = sandbox.push("job:1", &[]);
    sandbox.once(&[]).code(1);
    let item = sandbox.item(&id);
    assert_eq!(
        (&item["state"], &item["stage"], &item["exit_code"]),
        (&"FAILED".into(), &"run".into(), &serde_json::Value::Null)
    );
    assert_eq!(
        item["message"],
        "docker could not run the container: no such runtime."
    );
}

#[test]
fn an_entry_point_that_cannot_be_run_comes_with_a_hint() {
    for (why, hint) in [
        (
            "exec: \"x\": executable file not found in $PATH: unknown",
            "does not exist in the image",
        ),
        (
            "exec: \"/x\": stat /x: no such file or directory: unknown",
            "does not exist in the image",
        ),
        (
            "exec: \"/tmp\": permission denied: unknown",
            "is not a program that may be executed",
        ),
    ] {
        let sandbox = sandbox("{}", "");
        let said = format!("docker: Error response from daemon: runc create failed: {why}.\n");
        sandbox.write("fake/refuse", &said);
        sandbox.push("job:1", &[]);
        sandbox.once(&[]).code(1).says(why).says(hint);
    }
}

#[test]
fn a_job_may_exit_with_a_code_that_docker_uses_too() {
    for code in ["125", "126", "127"] {
        let sandbox = sandbox("{}", r#"exit "${@: -1}""#);
        let id = sandbox.push("job:1", &["--", code]);
        sandbox.once(&[]).code(1);
        let item = sandbox.item(&id);
        assert_eq!(item["state"], "FINISHED", "{item}");
        assert_eq!(item["exit_code"].to_string(), code, "{item}");
    }
}

#[test]
fn a_container_is_removed_by_the_agent_unless_the_config_says_who_does() {
    for (config, removed) in [("{}", 1), (r#"{"rm": true}"#, 0), (r#"{"rm": false}"#, 0)] {
        let sandbox = sandbox(config, "");
        sandbox.push("job:1", &[]);
        sandbox.once(&[]).code(0);
        assert_eq!(sandbox.calls("rm").len(), removed, "{config}");
    }
}

#[test]
fn docker_that_is_missing_or_silent_is_said_before_anything_is_taken() {
    let mut sandbox = sandbox("{}", "");
    let id = sandbox.push("job:1", &[]);
    sandbox.write(
        "fake/no-engine",
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n",
    );
    sandbox
        .once(&[])
        .code(4)
        .says("the docker engine does not answer")
        .says("hint: start it");
    sandbox.write(
        "fake/no-engine",
        "permission denied while trying to connect to the Docker daemon socket at unix:///x\n",
    );
    sandbox
        .once(&[])
        .code(4)
        .says("permission denied on its socket")
        .says("hint: `sudo usermod -aG docker $USER`");
    std::fs::remove_file(sandbox.path("bin/docker")).expect("removed");
    sandbox.clear_path();
    sandbox
        .once(&[])
        .code(4)
        .says("`docker` is not installed")
        .says("hint: install it");
    assert_eq!(sandbox.item(&id)["state"], "PENDING");
}

#[test]
fn an_engine_that_goes_away_does_not_drain_the_queue_into_failures() {
    let sandbox = sandbox("{}", "");
    sandbox.write(
        "fake/refuse",
        "docker: Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n",
    );
    let ids: Vec<String> = (0..3).map(|_| sandbox.push("job:1", &[])).collect();
    let _agent = sandbox.start_agent(&[]);
    sandbox.write(
        "fake/no-engine",
        "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n",
    );
    sandbox.wait_for("the agent to say so", || {
        sandbox
            .read("agent.err")
            .contains("error: the docker engine does not answer")
            || sandbox.read("agent.err").starts_with("error")
    });
    std::fs::remove_file(sandbox.path("fake/refuse")).expect("removed");
    std::fs::remove_file(sandbox.path("fake/no-engine")).expect("removed");
    // Whether the agent saw the engine fail before or after it took the first item is a race; the others are safe.
    sandbox.item_in(&ids[1], &["PENDING", "FINISHED"]);
}

#[test]
fn a_running_job_is_cancelled() {
    let sandbox = sandbox("{}", "exec sleep 600");
    let id = sandbox.push("job:1", &[]);
    let _agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || sandbox.calls("run").len() == 1);
    sandbox.ok(&["item", "cancel", &id]);
    let item = sandbox.item_in(&id, &["STOPPED"]);
    assert_eq!(item["message"], "a person asked for it", "{item}");
    assert!(
        sandbox.calls("stop")[0].starts_with("'stop' '-t' '10' 'id-launch-"),
        "{:?}",
        sandbox.calls("stop")
    );
    assert!(sandbox.log(&id).contains("[launch-agent: exit code 137 (ended by SIGKILL)]\n[launch-agent: stopped: a person asked for it (after "));
}

#[test]
fn times_without_measure_are_long_times_and_harm_nothing() {
    let sandbox = sandbox("{}", "exec sleep 600");
    let config = sandbox.write(
        "agent.yaml",
        "stop_grace: 18446744073709551615\nstopped_run_timeout: 18446744073709551615\ntimeout: 18446744073709551615\n\
         transfer_timeout: 18446744073709551615\nmax_retries: 4294967295\n",
    );
    sandbox.write(
        "fake/refuse",
        "docker: Cannot connect to the Docker daemon\n",
    );
    sandbox.write("fake/registry", "");
    let id = sandbox.push("other:1", &["--timeout", "18446744073709551615"]);
    let _agent = sandbox.start_agent(&["--config", config.to_str().expect("UTF-8")]);
    sandbox.wait_for("the trouble", || {
        sandbox.read("agent.err").contains("does not answer")
    });
    std::fs::remove_file(sandbox.path("fake/refuse")).expect("removed");
    sandbox.wait_for("the container", || sandbox.calls("run").len() == 2);
    let warning = sandbox.item(&id)["warnings"].to_string();
    assert!(warning.contains("try 2 of 4294967295: "), "{warning}");
    sandbox.ok(&["item", "cancel", &id]);
    let item = sandbox.item_in(&id, &["STOPPED"]);
    assert_eq!(item["message"], "a person asked for it", "{item}");
}

#[test]
fn the_first_signal_lets_jobs_end_and_the_second_stops_them() {
    let sandbox = sandbox("{}", WAITS);
    let id = sandbox.push("job:1", &[]);
    let later = sandbox.push("job:1", &[]);
    let mut agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || sandbox.calls("run").len() == 1);
    agent.signal(Signal::SIGTERM);
    sandbox.wait_for("the agent to say so", || {
        sandbox
            .read("agent.err")
            .contains("ending when the running job has ended; a second signal stops it")
    });
    sandbox.write("fake/go", "");
    assert_eq!(agent.wait(&sandbox), Some(0));
    assert_eq!(sandbox.item(&id)["state"], "FINISHED");
    assert_eq!(sandbox.item(&later)["state"], "PENDING");

    std::fs::remove_file(sandbox.path("fake/go")).expect("removed");
    let mut agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || sandbox.calls("run").len() == 2);
    agent.signal(Signal::SIGTERM);
    sandbox.wait_for("the agent to say so", || {
        sandbox
            .read("agent.err")
            .contains("a second signal stops it")
    });
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait(&sandbox), Some(0));
    assert_eq!(sandbox.item(&later)["message"], "the agent was stopped");
}

#[test]
fn the_third_signal_leaves_at_once_and_leaves_the_container() {
    let sandbox = sandbox("{}", "exec sleep 600");
    sandbox.push("job:1", &[]);
    // A stop that takes its time, so that the third signal comes while it is under way.
    let slow = sandbox.read("bin/docker").replacen(
        "  \"stop \"*",
        "  \"stop -t\") sleep 30 ;;\n  \"stop \"*",
        1,
    );
    std::fs::write(sandbox.path("bin/docker"), slow).expect("written");
    let mut agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || the_pid(&sandbox).is_some());
    agent.signal(Signal::SIGTERM);
    sandbox.wait_for("the agent to say so", || {
        sandbox
            .read("agent.err")
            .contains("a second signal stops it")
    });
    agent.signal(Signal::SIGTERM);
    sandbox.wait_for("the stop", || sandbox.calls("stop").len() == 1);
    agent.signal(Signal::SIGINT);
    assert_eq!(agent.wait(&sandbox), Some(130));
    end_container(&sandbox);
}

/// The process of the one container, once it runs.
fn the_pid(sandbox: &Sandbox) -> Option<i32> {
    let mut files = std::fs::read_dir(sandbox.path("fake"))
        .expect("a folder")
        .flatten();
    let file = files.find(|file| file.file_name().to_string_lossy().starts_with("pid."))?;
    std::fs::read_to_string(file.path())
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Ends the one container, which must still be there.
fn end_container(sandbox: &Sandbox) {
    let pid = nix::unistd::Pid::from_raw(the_pid(sandbox).expect("a container"));
    nix::sys::signal::kill(pid, Signal::SIGKILL).expect("the container was still there");
}

#[test]
fn an_item_of_a_killed_agent_says_so_at_once_and_there_is_a_way_out() {
    let sandbox = sandbox("{}", "exec sleep 600");
    let id = sandbox.push("job:1", &[]);
    let mut agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || the_pid(&sandbox).is_some());
    sandbox.item_in(&id, &["CLAIMED"]);
    assert_eq!(sandbox.item(&id)["waiting"], serde_json::Value::Null);
    agent.signal(Signal::SIGKILL);
    assert_eq!(agent.wait(&sandbox), None);

    let why = sandbox.item(&id)["waiting"].to_string();
    assert!(why.contains("started again, it takes the item up"), "{why}");
    let list = sandbox.ok(&["queue", "list"]);
    assert!(list.trim_end().ends_with("none"), "{list}");
    let run = sandbox.item(&id)["run_id"].clone();
    let run = run.as_str().expect("a run");
    sandbox
        .run(&["item", "cancel", &id])
        .code(0)
        .says("its agent is lost")
        .says(&format!("docker ps --filter label=launch-agent.run={run}`"));
    assert_eq!(sandbox.item(&id)["state"], "STOPPED");
    // The killed agent could not join its log: what stands beside it goes with it.
    let logs = sandbox.path(".local/state/launch-agent/queue.logs");
    std::fs::write(logs.join(format!("{id}.log.tail-7-7")), "the tail").expect("written");
    sandbox.run(&["item", "delete", &id]).code(0);
    assert_eq!(std::fs::read_dir(&logs).expect("a folder").count(), 0);
    sandbox.run(&["item", "show", &id]).code(6);
    end_container(&sandbox);
}

#[test]
fn output_that_is_not_text_and_lines_without_end_stop_nothing() {
    let sandbox = sandbox(
        "{}",
        r"printf '\377\376\n'; head -c 50000000 /dev/zero | tr '\0' x; printf 'a\rb\rc\n'",
    );
    let id = sandbox.push("job:1", &[]);
    sandbox.once(&[]).code(0);
    let log = std::fs::read(
        sandbox
            .path(".local/state/launch-agent/queue.logs")
            .join(format!("{id}.log")),
    )
    .expect("a log");
    assert!(log.len() > 50_000_000, "{}", log.len());
    assert!(log.windows(6).any(|window| window == b"a\rb\rc\n"));
    assert!(log.windows(3).any(|window| window == b"\xff\xfe\n"));
}

#[test]
fn a_log_is_bounded_and_says_where_it_was_cut() {
    let sandbox = sandbox("{}", "for ((n = 0; n < 20000; n++)); do echo $n; done");
    let config = sandbox.write("agent.yaml", "log_max_bytes: 20000\n");
    let id = sandbox.push("job:1", &[]);
    sandbox
        .once(&["--config", config.to_str().expect("UTF-8")])
        .code(0);
    let log = sandbox.log(&id);
    assert!(
        log.starts_with("docker run ")
            && log.contains("\n0\n1\n2\n")
            && log.contains("\n19998\n19999\n"),
        "{log}"
    );
    assert!(
        log.contains(" bytes were left out here]\n") && log.len() < 21_000,
        "{}",
        log.len()
    );
}

#[test]
fn a_client_that_dies_before_its_container_does_not_end_the_job() {
    let job = r#"until kill -KILL "$(cat $FAKE/client.$1)"; do sleep 0.02; done
        echo after; until [ -e $FAKE/go ]; do sleep 0.02; done; echo last; exit 7"#;
    let sandbox = sandbox("{}", job);
    let id = sandbox.push("job:1", &[]);
    let _agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the output to be followed", || {
        sandbox.calls("logs").len() >= 2 && sandbox.log(&id).contains("after\n")
    });
    assert_eq!(sandbox.item(&id)["state"], "CLAIMED");
    sandbox.write("fake/go", "");
    let item = sandbox.item_in(&id, &["FINISHED", "FAILED"]);
    assert_eq!(item["exit_code"], 7, "{item}");
    let log = sandbox.log(&id);
    let (_, output) = log.split_once('\n').expect("a command");
    assert_eq!(
        output,
        "after\nlast\n[launch-agent: exit code 7 after 2.0s]\n"
    );
}

#[test]
fn no_backend_and_no_queue_are_named_with_both_ways_out() {
    let sandbox = sandbox("{}", "");
    let ran = sandbox
        .run(&["-q", "q"])
        .code(3)
        .says("no W&B key")
        .says("--local");
    assert!(ran.stderr.contains("WANDB_API_KEY"), "{}", ran.stderr);
    sandbox
        .run(&["--local"])
        .code(3)
        .says("no queue to poll")
        .says("-q NAME");
    sandbox
        .run(&["--local", "-q", "Q"])
        .code(6)
        .says("`Q`")
        .says("did you mean `q`?");
}
