//! An agent that is killed at each step of a job's story that `tests/restart.rs` does not hold it at, and a machine that
//! was started anew.

use nix::sys::signal::Signal;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::common::sandbox::Sandbox;
use crate::restart::{
    COUNTS, in_hand, is_made, is_running, kill, let_go, nothing_is_left, output, sandbox,
};

/// A job that leaves a line for each time that it ran.
const RAN: &str = "echo ran; echo ran >>$FAKE/ran";

fn ran_once(sandbox: &Sandbox, id: &str) {
    let item = sandbox.item(id);
    assert_eq!(
        (&item["state"], &item["exit_code"]),
        (&"FINISHED".into(), &0.into()),
        "{item}"
    );
    assert_eq!(sandbox.read("fake/ran"), "ran\n");
    assert_eq!(output(sandbox, id).matches("ran\n").count(), 1);
    nothing_is_left(sandbox);
}

/// Changes the one entry of the journal.
fn change_entry(sandbox: &Sandbox, change: impl FnOnce(&mut Value)) {
    let folder = sandbox.path(".local/state/launch-agent/agents/0/items");
    let file = std::fs::read_dir(folder).expect("a folder").next();
    let path = file.expect("a file").expect("a file").path();
    let text = std::fs::read_to_string(&path).expect("read");
    let mut whole: Value = serde_json::from_str(&text).expect("JSON");
    change(&mut whole["entry"]);
    std::fs::write(path, whole.to_string()).expect("written");
}

fn database(sandbox: &Sandbox) -> Connection {
    Connection::open(sandbox.path(".local/state/launch-agent/queue.db")).expect("a database")
}

/// Pushes a job of a git repository whose host answers only while nobody holds it.
pub fn push_git(sandbox: &mut Sandbox) -> String {
    sandbox.write_program(
        "ssh",
        r#"#!/bin/bash
while [ $# -gt 0 ]; do case "$1" in -o|-p) shift 2 ;; -*) shift ;; *) break ;; esac; done
shift
while [ -e "$FAKE/hold-fetch" ]; do : >"$FAKE/held-fetch"; sleep 0.02; done
exec sh -c "$*"
"#,
    );
    let ssh = sandbox.path("bin/ssh").display().to_string();
    sandbox.set("GIT_SSH_COMMAND", &ssh);
    let train = sandbox.write("repo/train.py", "1\n");
    let repository = train.parent().expect("a folder");
    for arguments in [
        &["init", "-q", "-b", "main"][..],
        &["add", "-A"],
        &[
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.invalid",
            "commit",
            "-q",
            "-m",
            "x",
        ],
    ] {
        let git = std::process::Command::new("git")
            .args(arguments)
            .current_dir(repository)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .status();
        assert!(git.expect("git runs").success(), "{arguments:?}");
    }
    let remote = format!("ssh://git@host{}@main", repository.display());
    let push = [
        "push",
        "-q",
        "q",
        "-p",
        "demo",
        "--git",
        &remote,
        "-E",
        "python train.py",
    ];
    sandbox.ok(&push).trim().to_owned()
}

#[test]
fn killed_while_code_is_fetched_or_its_image_built_a_job_begins_again_and_runs_once() {
    for step in ["fetch", "build"] {
        let mut sandbox = sandbox("{}", RAN);
        let id = push_git(&mut sandbox);
        sandbox.write(&format!("fake/hold-{step}"), "");
        let agent = sandbox.start_agent(&[]);
        sandbox.wait_for("the step", || is_made(&sandbox, &format!("held-{step}")));
        kill(&sandbox, agent);
        assert_eq!(sandbox.item(&id)["state"], "CLAIMED", "{step}");
        assert_eq!(in_hand(&sandbox).len(), 1, "{step}");
        let_go(&sandbox, step);
        sandbox.once(&[]).code(0);
        ran_once(&sandbox, &id);
        let work = sandbox.path(".cache/launch-agent/work");
        let left = std::fs::read_dir(work).expect("a folder").count();
        assert_eq!(left, 0, "{step}: the code of the killed agent's job");
    }
}

#[test]
fn a_build_that_the_engine_breaks_off_begins_again() {
    for said in [
        "Step 3/5 : RUN make\nunexpected EOF\n",
        "ERROR: failed to receive status: rpc error: code = Unavailable desc = error reading from server: EOF\n",
        "Step 3/5 : COPY . /code\nunable to find image \"sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef\"\n",
        "Step 3/5 : RUN make\nCannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n",
    ] {
        let mut sandbox = sandbox("{}", RAN);
        let id = push_git(&mut sandbox);
        sandbox.write("fake/refuse-build", said);
        sandbox.once(&[]).code(0);
        let warnings = sandbox.item(&id)["warnings"].to_string();
        assert!(
            warnings.contains("try 2 of 6: the docker engine ") && !warnings.contains("Step 3"),
            "{warnings}"
        );
        ran_once(&sandbox, &id);
    }
}

#[test]
fn a_build_that_a_registry_does_not_serve_is_tried_again_and_one_that_it_refuses_is_not() {
    let away = "the registry of the image to start from could not be reached";
    for (said, again, state) in [
        (
            "Get \"https://r.example/v2/\": dial tcp: lookup r.example: no such host",
            away,
            "FINISHED",
        ),
        (
            "Get \"https://r.example/v2/\": dial tcp 10.0.0.1:443: i/o timeout",
            away,
            "FINISHED",
        ),
        (
            "received unexpected HTTP status: 502 Bad Gateway",
            "the registry of the image to start from has trouble of its own",
            "FINISHED",
        ),
        (
            "pull access denied for x, repository does not exist",
            "",
            "FAILED",
        ),
    ] {
        let mut sandbox = sandbox("{}", RAN);
        let id = push_git(&mut sandbox);
        sandbox.write("fake/refuse-build", &format!("Step 1/5 : FROM x\n{said}\n"));
        sandbox.once(&[]);
        let item = sandbox.item(&id);
        assert_eq!(item["state"], state, "{item}");
        let log = sandbox.log(&id);
        let built = sandbox.calls("build").len();
        let lines = log.lines().filter(|line| line.starts_with("docker build "));
        assert_eq!(lines.count(), built, "a line for each build: {log}");
        if again.is_empty() {
            assert_eq!(built, 1, "{log}");
            assert_eq!(item["stage"], "build", "{item}");
        } else {
            let note = format!("[launch-agent: {again}: {said}; trying again in 1 s]\n");
            assert!(log.contains(&note), "{log}");
            assert_eq!(built, 2, "{log}");
            assert_eq!(item["warnings"], json!([]), "no other try of the job");
        }
    }
}

#[test]
fn a_build_whose_command_speaks_of_an_engine_has_failed() {
    let mut sandbox = sandbox("{}", RAN);
    let id = push_git(&mut sandbox);
    sandbox.write(
        "fake/refuse-build",
        "Step 3/5 : RUN docker ps\nCannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n\
         The command '/bin/sh -c docker ps' returned a non-zero code: 1\n",
    );
    sandbox.once(&[]).code(1);
    let item = sandbox.item(&id);
    assert_eq!(
        (&item["state"], &item["stage"], &item["warnings"]),
        (&"FAILED".into(), &"build".into(), &json!([])),
        "{item}"
    );
}

#[test]
fn killed_before_and_after_its_claim_was_answered_an_item_runs_once() {
    for state in ["LEASED", "CLAIMED"] {
        let sandbox = sandbox("{}", RAN);
        sandbox.write("fake/registry", "");
        sandbox.write("fake/hold-pull", "");
        let id = sandbox.push("other:1", &[]);
        let agent = sandbox.start_agent(&[]);
        sandbox.wait_for("the pull", || is_made(&sandbox, "held-pull"));
        kill(&sandbox, agent);
        let_go(&sandbox, "pull");
        // As the journal and the queue are between the two.
        change_entry(&sandbox, |entry| entry["step"] = json!("taken"));
        let now = jiff::Timestamp::now().as_millisecond();
        database(&sandbox)
            .execute(
                "UPDATE items SET state = ?1, leased_until = CASE ?1 WHEN 'LEASED' THEN ?2 END",
                rusqlite::params![state, now + 50_000],
            )
            .expect("changed");
        sandbox.once(&[]).code(0);
        ran_once(&sandbox, &id);
    }
}

#[test]
fn killed_before_its_end_was_recorded_a_job_is_reported_and_not_run_again() {
    for is_kept in [true, false] {
        let sandbox = sandbox("{}", COUNTS);
        let id = sandbox.push("job:1", &[]);
        let agent = sandbox.start_agent(&[]);
        sandbox.wait_for("the first lines", || sandbox.log(&id).contains("line 3\n"));
        let other = database(&sandbox);
        other
            .busy_timeout(std::time::Duration::from_secs(10))
            .expect("a timeout");
        other.execute_batch("BEGIN IMMEDIATE").expect("locked");
        sandbox.write("fake/go", "");
        sandbox.wait_for("its end to be kept", || {
            in_hand(&sandbox)[0]["entry"]["step"]["ended"].is_object()
        });
        kill(&sandbox, agent);
        if !is_kept {
            // As it is between the last line of the log and the journal.
            change_entry(&sandbox, |entry| {
                entry["step"] = json!("running");
            });
        }
        other.execute_batch("ROLLBACK").expect("unlocked");
        assert_eq!(sandbox.item(&id)["state"], "CLAIMED");
        sandbox.once(&[]).code(1);
        let item = sandbox.item(&id);
        assert_eq!(
            (&item["state"], &item["exit_code"]),
            (&"FINISHED".into(), &3.into()),
            "{item}"
        );
        assert_eq!(sandbox.calls("run").len(), 1);
        let log = sandbox.log(&id);
        let (_, log) = log.split_once('\n').expect("a command");
        assert_eq!(
            log,
            "line 1\nline 2\nline 3\nline 4\nline 5\nline 6\n[launch-agent: exit code 3 after 2.0s]\n"
        );
        nothing_is_left(&sandbox);
    }
}

#[test]
fn killed_while_it_clears_up_the_agent_clears_up_at_the_next_start() {
    let sandbox = sandbox("{}", RAN);
    sandbox.write("fake/hold-rm", "");
    let id = sandbox.push("job:1", &[]);
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the removal", || is_made(&sandbox, "held-rm"));
    assert_eq!(sandbox.item(&id)["state"], "FINISHED");
    kill(&sandbox, agent);
    // The client of the first removal ends without it.
    sandbox.write("fake/no-engine", "");
    let name = container(&sandbox);
    std::fs::copy(sandbox.path(&format!("fake/{name}")), sandbox.path("kept")).expect("copied");
    let_go(&sandbox, "rm");
    sandbox.wait_for("the client to end", || !is_made(&sandbox, &name));
    std::fs::copy(sandbox.path("kept"), sandbox.path(&format!("fake/{name}"))).expect("copied");
    std::fs::remove_file(sandbox.path("fake/no-engine")).expect("removed");
    sandbox.once(&[]).code(0);
    assert_eq!(sandbox.calls("rm").len(), 2);
    ran_once(&sandbox, &id);
}

/// The file of the one container.
fn container(sandbox: &Sandbox) -> String {
    let files = std::fs::read_dir(sandbox.path("fake")).expect("a folder");
    let mut names = files.map(|file| file.expect("a file").file_name());
    names
        .find_map(|name| {
            Some(name.to_str()?)
                .filter(|name| name.starts_with("state."))
                .map(str::to_owned)
        })
        .expect("a container")
}

#[test]
fn a_job_that_the_machine_took_down_with_it_begins_again_and_one_that_ended_before_does_not() {
    for (code, is_gone, runs, said) in [
        (
            "137",
            false,
            2,
            "the machine was started anew under the job (exit code 137",
        ),
        (
            "255",
            false,
            2,
            "the machine was started anew under the job (exit code 255",
        ),
        (
            "0",
            true,
            2,
            "the machine was started anew, and the job's container is gone",
        ),
        ("0", false, 1, ""),
        ("3", false, 1, ""),
    ] {
        let job = format!("until [ -e $FAKE/go ]; do sleep 0.02; done; exit {code}");
        let sandbox = sandbox("{}", &job);
        let id = sandbox.push("job:1", &[]);
        let agent = sandbox.start_agent(&[]);
        sandbox.wait_for("the container", || is_running(&sandbox, &id));
        kill(&sandbox, agent);
        sandbox.write("fake/go", "");
        sandbox.wait_for("its end", || !is_running(&sandbox, &id));
        // The kernel gives each start of a machine an id of its own.
        change_entry(&sandbox, |entry| {
            entry["started"]["boot"] = json!("an earlier one");
        });
        if is_gone {
            std::fs::remove_file(sandbox.path(&format!("fake/{}", container(&sandbox))))
                .expect("removed");
        }
        sandbox.write("fake/job", "exit 0");
        sandbox.once(&[]);
        let item = sandbox.item(&id);
        assert_eq!(sandbox.calls("run").len(), runs, "{code} {is_gone}: {item}");
        let expected = if runs == 1 { code } else { "0" };
        assert_eq!(item["exit_code"].to_string(), expected, "{item}");
        let warnings = item["warnings"].to_string();
        assert!(warnings.contains(said), "{warnings}");
        assert_eq!(warnings.contains("try 2 of 6"), runs == 2, "{warnings}");
        nothing_is_left(&sandbox);
    }
}

#[test]
fn while_docker_is_silent_about_what_is_left_the_agent_takes_nothing_and_hears_signals() {
    let sandbox = sandbox("{}", RAN);
    sandbox.write("fake/hold-ps", "");
    let mut agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the question", || is_made(&sandbox, "held-ps"));
    let id = sandbox.push("job:1", &[]);
    agent.signal(Signal::SIGTERM);
    sandbox.wait_for("the agent to say so", || {
        sandbox.read("agent.err").contains("a second signal")
    });
    assert_eq!(sandbox.item(&id)["state"], "PENDING");
    let_go(&sandbox, "ps");
    assert_eq!(agent.wait(&sandbox), Some(0));
    assert_eq!(sandbox.item(&id)["state"], "PENDING");
    sandbox.once(&[]).code(0);
    ran_once(&sandbox, &id);
}
