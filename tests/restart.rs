//! An agent that was killed and is started again: with a fake docker that can be held at any step. On the real engine:
//! `tests/restart_docker.rs`.

use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::sandbox::{Agent, Sandbox};

/// Numbered lines, a part of them before the test lets the rest go.
pub const COUNTS: &str = r#"for n in 1 2 3; do echo "line $n"; done; echo $$ >$FAKE/counting.$1
    until [ -e $FAKE/go ]; do sleep 0.02; done; for n in 4 5 6; do echo "line $n"; done; exit 3"#;

pub fn sandbox(config: &str, job: &str) -> Sandbox {
    let sandbox = Sandbox::with_fake_docker(job);
    sandbox.queue("q", config);
    sandbox
}

pub fn kill(sandbox: &Sandbox, mut agent: Agent) {
    agent.signal(Signal::SIGKILL);
    assert_eq!(agent.wait(sandbox), None);
}

pub fn is_made(sandbox: &Sandbox, what: &str) -> bool {
    sandbox.path(&format!("fake/{what}")).exists()
}

pub fn let_go(sandbox: &Sandbox, step: &str) {
    std::fs::remove_file(sandbox.path(&format!("fake/hold-{step}"))).expect("held");
}

/// The output alone: without the agent's own words and commands.
pub fn output(sandbox: &Sandbox, id: &str) -> String {
    let log = sandbox.log(id);
    let own = |line: &&str| line.starts_with("[launch-agent: ") || line.starts_with("docker ");
    log.split_inclusive('\n')
        .filter(|line| !own(line))
        .collect()
}

/// The entries of the journal.
pub fn in_hand(sandbox: &Sandbox) -> Vec<Value> {
    let folder = sandbox.path(".local/state/launch-agent/agents/0/items");
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = files.map(|file| file.path());
    // What is just being written has another name.
    let whole = paths.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    let texts = whole.map(|path| std::fs::read_to_string(path).unwrap_or_default());
    texts
        .filter_map(|text| serde_json::from_str(&text).ok())
        .collect()
}

pub fn nothing_is_left(sandbox: &Sandbox) {
    sandbox.wait_for("an empty journal", || in_hand(sandbox).is_empty());
    let run = sandbox.path(".local/state/launch-agent/run");
    let files = std::fs::read_dir(run).expect("a folder").count();
    assert_eq!(files, 0, "files of containers");
}

#[test]
fn a_running_job_is_followed_from_the_line_where_it_was_left() {
    let sandbox = sandbox("{}", COUNTS);
    let id = sandbox.push("job:1", &[]);
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the first lines", || sandbox.log(&id).contains("line 3\n"));
    kill(&sandbox, agent);

    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("it to be followed", || sandbox.calls("logs").len() == 2);
    kill(&sandbox, agent);
    let mut agent = sandbox.start_agent(&["--once"]);
    sandbox.wait_for("it to be followed again", || {
        sandbox.calls("logs").len() == 4
    });
    sandbox.write("fake/go", "");
    assert_eq!(agent.wait(&sandbox), Some(1));
    let item = sandbox.item(&id);
    assert_eq!(
        (&item["state"], &item["exit_code"]),
        (&"FINISHED".into(), &3.into()),
        "{item}"
    );
    assert_eq!(
        output(&sandbox, &id),
        "line 1\nline 2\nline 3\nline 4\nline 5\nline 6\n"
    );
    assert_eq!(sandbox.calls("run").len(), 1);
    assert_eq!(item["warnings"], json!([]), "{item}");
    nothing_is_left(&sandbox);
}

#[test]
fn a_job_that_ended_meanwhile_has_its_own_code_and_all_its_lines() {
    let sandbox = sandbox("{}", COUNTS);
    let id = sandbox.push("job:1", &[]);
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the first lines", || sandbox.log(&id).contains("line 3\n"));
    kill(&sandbox, agent);
    sandbox.write("fake/go", "");
    sandbox.wait_for("its end", || {
        let states = std::fs::read_dir(sandbox.path("fake"))
            .expect("a folder")
            .flatten();
        states.map(|file| file.path()).any(|path| {
            let is_state = path.to_string_lossy().contains("/state.launch-");
            is_state
                && std::fs::read_to_string(path)
                    .unwrap_or_default()
                    .contains("exited")
        })
    });
    sandbox.once(&[]).code(1);
    assert_eq!(sandbox.item(&id)["exit_code"], 3);
    assert_eq!(
        output(&sandbox, &id),
        "line 1\nline 2\nline 3\nline 4\nline 5\nline 6\n"
    );
    nothing_is_left(&sandbox);
}

#[test]
fn killed_at_any_step_before_the_start_a_job_is_started_once() {
    for (step, image) in [("pull", "other:1"), ("create", "job:1"), ("start", "job:1")] {
        let sandbox = sandbox("{}", "echo ran; echo ran >>$FAKE/ran");
        sandbox.write("fake/registry", "");
        sandbox.write(&format!("fake/hold-{step}"), "");
        let id = sandbox.push(image, &[]);
        let agent = sandbox.start_agent(&[]);
        sandbox.wait_for("the step", || is_made(&sandbox, &format!("held-{step}")));
        kill(&sandbox, agent);
        // Docker's client lives on; were it not ended, it would start the container later.
        if step == "pull" {
            let_go(&sandbox, step);
            sandbox.once(&[]).code(0);
        } else {
            let mut agent = sandbox.start_agent(&["--once"]);
            sandbox.wait_for("a second client", || sandbox.calls("run").len() == 2);
            let_go(&sandbox, step);
            assert_eq!(agent.wait(&sandbox), Some(0), "{step}");
        }
        let item = sandbox.item(&id);
        assert_eq!(
            (&item["state"], &item["exit_code"]),
            (&"FINISHED".into(), &0.into()),
            "{step}: {item}"
        );
        assert_eq!(sandbox.read("fake/ran"), "ran\n", "{step}");
        assert_eq!(output(&sandbox, &id).matches("ran\n").count(), 1, "{step}");
        nothing_is_left(&sandbox);
    }
}

#[test]
fn items_in_hand_count_as_jobs_and_can_be_stopped() {
    let sandbox = sandbox("{}", "exec sleep 600");
    let id = sandbox.push("job:1", &[]);
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || is_running(&sandbox, &id));
    kill(&sandbox, agent);
    let later = sandbox.push("job:1", &[]);
    let _agent = sandbox.start_agent(&[]);
    sandbox.wait_for("it to be followed", || sandbox.calls("logs").len() == 2);
    let agent = sandbox.item(&id)["agent"].clone();
    let list = sandbox.ok(&["queue", "show", "q", "--json"]);
    assert!(list.contains(agent.as_str().expect("an agent")), "{list}");
    assert_eq!(sandbox.item(&later)["state"], "PENDING");
    sandbox.ok(&["item", "cancel", &id]);
    let item = sandbox.item_in(&id, &["STOPPED"]);
    assert_eq!(item["message"], "a person asked for it");
    sandbox.wait_for("the next job", || is_running(&sandbox, &later));
    sandbox.ok(&["item", "cancel", &later]);
    sandbox.item_in(&later, &["STOPPED"]);
}

pub fn is_running(sandbox: &Sandbox, id: &str) -> bool {
    let command = sandbox.item(id)["command"].clone();
    let words = command.as_str().unwrap_or_default().split(' ');
    let name = words
        .skip_while(|word| *word != "--name")
        .nth(1)
        .unwrap_or("none");
    sandbox
        .read(&format!("fake/state.{name}"))
        .contains("\"Running\":true")
        && is_made(sandbox, &format!("pid.{name}"))
}

#[test]
fn a_container_of_an_item_that_was_given_up_is_ended() {
    let sandbox = sandbox("{}", "exec sleep 600");
    let id = sandbox.push("job:1", &[]);
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || is_running(&sandbox, &id));
    kill(&sandbox, agent);
    sandbox
        .run(&["item", "cancel", &id])
        .code(0)
        .says("its agent is lost");
    sandbox
        .once(&[])
        .code(0)
        .says("is not this agent's any more, or has ended");
    assert_eq!(sandbox.calls("stop").len(), 1);
    assert_eq!(sandbox.item(&id)["state"], "STOPPED");
    nothing_is_left(&sandbox);
}

#[test]
fn a_container_without_an_item_in_hand_is_ended_and_said() {
    let sandbox = sandbox("{}", "exec sleep 600");
    let id = sandbox.push("job:1", &[]);
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || is_running(&sandbox, &id));
    kill(&sandbox, agent);
    let items = sandbox.path(".local/state/launch-agent/agents/0/items");
    std::fs::remove_dir_all(items).expect("removed");
    sandbox
        .once(&[])
        .code(0)
        .says("the item is not in hand: stopping it");
    assert!(!is_running(&sandbox, &id));
}

#[test]
fn two_agents_of_one_machine_leave_each_others_containers_alone() {
    let sandbox = sandbox("{}", "exec sleep 600");
    let one = sandbox.push("job:1", &[]);
    let first = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || is_running(&sandbox, &one));
    let two = sandbox.push("job:1", &[]);
    let second = sandbox.start_agent(&[]);
    sandbox.wait_for("the other container", || is_running(&sandbox, &two));
    kill(&sandbox, first);
    let mut again = sandbox.start_agent(&[]);
    sandbox.wait_for("it to be followed", || sandbox.calls("logs").len() == 2);
    assert!(is_running(&sandbox, &one) && is_running(&sandbox, &two));
    again.signal(Signal::SIGTERM);
    sandbox.wait_for("the agent to say so", || {
        sandbox.read("agent.err").contains("a second signal")
    });
    again.signal(Signal::SIGTERM);
    assert_eq!(again.wait(&sandbox), Some(0));
    assert_eq!(sandbox.item(&one)["message"], "the agent was stopped");
    assert!(is_running(&sandbox, &two));
    sandbox.ok(&["item", "cancel", &two]);
    sandbox.item_in(&two, &["STOPPED"]);
    drop(second);
}

#[test]
fn an_entry_of_a_newer_agent_is_named_and_left() {
    let sandbox = sandbox("{}", "true");
    sandbox.once(&[]).code(0);
    let file = ".local/state/launch-agent/agents/0/items/7-00000000.json";
    sandbox.write(file, r#"{"version": 99, "entry": {}}"#);
    sandbox
        .once(&[])
        .code(0)
        .says("7-00000000.json")
        .says("version 99; this one knows 1");
    assert!(sandbox.path(file).exists());
}

#[test]
fn the_journal_is_for_the_agents_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = sandbox("{}", "exec sleep 600");
    let spec = r#"{"_wandb_api_key": "the-submitters-own-key"}"#;
    let id = sandbox.push("job:1", &["-c", spec]);
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || is_running(&sandbox, &id));
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    let agents = sandbox.path(".local/state/launch-agent/agents");
    let items = agents.join("0/items");
    assert_eq!((mode(&agents), mode(&items)), (0o700, 0o700));
    let file = std::fs::read_dir(&items)
        .expect("a folder")
        .next()
        .expect("a file");
    assert_eq!(mode(&file.expect("a file").path()), 0o600);
    assert_eq!(in_hand(&sandbox)[0]["entry"]["step"], "running");
    sandbox.ok(&["item", "cancel", &id]);
    nothing_is_left(&sandbox);
    drop(agent);
}

pub const ENGINE_GONE: &str =
    "docker: Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n";

#[test]
fn what_the_engine_interrupts_begins_again_and_says_so() {
    let sandbox = sandbox(
        "{}",
        r#"printf '%s\n' "$@" | grep -x WANDB_RESUME=allow; exit 0"#,
    );
    sandbox.write("fake/refuse", ENGINE_GONE);
    let id = sandbox.push("job:1", &[]);
    let mut agent = sandbox.start_agent(&["--once"]);
    sandbox.wait_for("the trouble", || {
        sandbox.read("agent.err").contains("does not answer")
    });
    std::fs::remove_file(sandbox.path("fake/refuse")).expect("removed");
    assert_eq!(agent.wait(&sandbox), Some(0));
    let item = sandbox.item(&id);
    assert_eq!(item["state"], "FINISHED", "{item}");
    let warning = item["warnings"][0].as_str().expect("a warning");
    assert!(
        warning.starts_with("try 2 of 6: the docker engine does not answer"),
        "{item}"
    );
    assert!(output(&sandbox, &id).ends_with("\nWANDB_RESUME=allow\n"));
}

#[test]
fn it_begins_again_at_most_so_often() {
    let sandbox = sandbox("{}", "");
    sandbox.write("fake/refuse", ENGINE_GONE);
    let config = sandbox.write("agent.yaml", "max_retries: 1\n");
    let id = sandbox.push("job:1", &[]);
    sandbox
        .once(&["--config", config.to_str().expect("UTF-8")])
        .code(1);
    assert_eq!(sandbox.calls("run").len(), 2);
    let item = sandbox.item(&id);
    assert_eq!(
        (&item["state"], &item["stage"]),
        (&"FAILED".into(), &"run".into()),
        "{item}"
    );
}

#[test]
fn a_full_disk_under_a_pull_is_waited_out() {
    let sandbox = sandbox("{}", "");
    sandbox.write("fake/registry", "");
    sandbox.write(
        "fake/refusals",
        "failed to register layer: write /x: no space left on device\n",
    );
    let id = sandbox.push("other:1", &[]);
    sandbox.once(&[]).code(0);
    assert_eq!(sandbox.calls("pull").len(), 2);
    let item = sandbox.item(&id);
    assert!(
        item["warnings"][0]
            .to_string()
            .contains("no space left on device"),
        "{item}"
    );
}

#[test]
fn a_job_with_a_code_of_its_own_is_never_run_again() {
    for (code, forgetful, runs) in [
        ("1", true, 1),
        ("0", true, 1),
        ("137", false, 1),
        ("137", true, 2),
    ] {
        // Its first try ends with the code, whatever comes after with 0.
        let job = format!("[ -e $FAKE/tried ] || {{ : >$FAKE/tried; exit {code}; }}");
        let sandbox = sandbox("{}", &job);
        if forgetful {
            // An engine that was restarted remembers nothing of its containers.
            sandbox.write("fake/forgetful", "");
        }
        let id = sandbox.push("job:1", &[]);
        sandbox.once(&[]);
        assert_eq!(sandbox.calls("run").len(), runs, "{code}");
        let item = sandbox.item(&id);
        let expected = if runs == 1 { code } else { "0" };
        assert_eq!(item["exit_code"].to_string(), expected, "{item}");
    }
}

#[test]
fn killed_while_it_removes_what_never_ran_a_job_is_started_once() {
    let sandbox = sandbox("{}", "echo ran >>$FAKE/ran");
    sandbox.write("fake/hold-start", "");
    let id = sandbox.push("job:1", &[]);
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the step", || is_made(&sandbox, "held-start"));
    kill(&sandbox, agent);
    // The container is gone, and the agent that had it removed does not live to know.
    sandbox.write("fake/hold-removed", "");
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the removal", || is_made(&sandbox, "held-removed"));
    kill(&sandbox, agent);
    let_go(&sandbox, "removed");
    let_go(&sandbox, "start");
    sandbox.once(&[]).code(0);
    assert_eq!(sandbox.item(&id)["exit_code"], 0);
    assert_eq!(sandbox.read("fake/ran"), "ran\n");
    nothing_is_left(&sandbox);
}

#[test]
fn an_engine_that_forgets_is_noticed_before_its_memory_is_full_of_others() {
    let sandbox = sandbox("{}", "until [ -e $FAKE/go ]; do sleep 0.02; done; exit 137");
    sandbox.write("fake/hold-inspect", "");
    let id = sandbox.push("job:1", &[]);
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || is_running(&sandbox, &id));
    kill(&sandbox, agent);
    // The engine is restarted under the job; an agent comes and is killed again before it has looked at the container.
    sandbox.write("fake/go", "");
    sandbox.write("fake/forgetful", "");
    sandbox.wait_for("its end", || !is_running(&sandbox, &id));
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the question", || is_made(&sandbox, "held-inspect"));
    kill(&sandbox, agent);
    assert_eq!(
        in_hand(&sandbox)[0]["entry"]["started"]["engine_restarted"],
        true
    );
    // Now it remembers a start again, as a memory that others have filled leaves it open whether it ever forgot.
    std::fs::remove_file(sandbox.path("fake/forgetful")).expect("forgetful");
    let_go(&sandbox, "inspect");
    sandbox.write("fake/job", "exit 0");
    sandbox.once(&[]).code(0);
    assert_eq!(sandbox.calls("run").len(), 2);
    assert_eq!(sandbox.item(&id)["exit_code"], 0);
}

#[test]
fn the_end_of_a_log_that_docker_was_not_there_to_read_is_said_to_be_missing() {
    for (live_restore, saw_the_end) in [(true, false), (true, true), (false, false)] {
        let sandbox = sandbox("{}", COUNTS);
        let id = sandbox.push("job:1", &[]);
        let agent = sandbox.start_agent(&[]);
        sandbox.wait_for("the first lines", || sandbox.log(&id).contains("line 3\n"));
        kill(&sandbox, agent);
        // Docker was started anew: it does not remember the start, and an end only if it found that when it came back.
        sandbox.write("fake/forgetful", "");
        if saw_the_end {
            sandbox.write("fake/saw-the-end", "");
        }
        if live_restore {
            sandbox.write("fake/live-restore", "");
        }
        sandbox.write("fake/go", "");
        sandbox.wait_for("its end", || !is_running(&sandbox, &id));
        sandbox.once(&[]).code(1);
        assert_eq!(sandbox.item(&id)["exit_code"], 3);
        let said = "lines may be missing here: docker was away when the job ended";
        assert_eq!(sandbox.log(&id).contains(said), live_restore);
    }
}

#[test]
fn a_job_that_outlived_a_restart_of_the_engine_has_a_code_of_its_own() {
    let sandbox = sandbox("{}", "until [ -e $FAKE/go ]; do sleep 0.02; done; exit 137");
    let id = sandbox.push("job:1", &[]);
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || is_running(&sandbox, &id));
    kill(&sandbox, agent);
    // With `live-restore` an engine does not remember the start of a container, and sees its end.
    sandbox.write("fake/forgetful", "");
    sandbox.write("fake/live-restore", "");
    sandbox.write("fake/saw-the-end", "");
    let mut agent = sandbox.start_agent(&["--once"]);
    sandbox.wait_for("it to be followed", || sandbox.calls("logs").len() == 2);
    sandbox.write("fake/go", "");
    assert_eq!(agent.wait(&sandbox), Some(1));
    assert_eq!(sandbox.calls("run").len(), 1);
    assert_eq!(sandbox.item(&id)["exit_code"], 137);
    assert!(!sandbox.log(&id).contains("lines may be missing"));
}

#[test]
fn a_time_limit_stops_the_job_and_says_whose_it_was() {
    for (own, owners, message) in [
        (
            Some("1"),
            "",
            "it ran longer than the job's own `timeout` of 1 s",
        ),
        (
            None,
            "timeout: 1\n",
            "it ran longer than the agent's `timeout` of 1 s",
        ),
        (
            Some("600"),
            "timeout: 1\n",
            "it ran longer than the agent's `timeout` of 1 s",
        ),
    ] {
        let sandbox = sandbox("{}", "exec sleep 600");
        let config = sandbox.write("agent.yaml", owners);
        let arguments: Vec<&str> = own.iter().flat_map(|own| ["--timeout", own]).collect();
        let id = sandbox.push("job:1", &arguments);
        sandbox
            .once(&["--config", config.to_str().expect("UTF-8")])
            .code(1);
        let item = sandbox.item(&id);
        assert_eq!(
            (&item["state"], &item["message"]),
            (&"STOPPED".into(), &message.into()),
            "{item}"
        );
    }
}

#[test]
fn a_time_limit_goes_on_over_a_restart() {
    let sandbox = sandbox("{}", "exec sleep 600");
    let id = sandbox.push("job:1", &["--timeout", "3"]);
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || is_running(&sandbox, &id));
    kill(&sandbox, agent);
    let begun = std::time::Instant::now();
    sandbox.once(&[]).code(1);
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
    assert_eq!(
        sandbox.item(&id)["message"],
        "it ran longer than the job's own `timeout` of 3 s"
    );
}

#[test]
fn a_container_that_is_still_being_made_is_stopped_too() {
    let sandbox = sandbox("{}", "echo ran >>$FAKE/ran");
    sandbox.write("fake/hold-create", "");
    let id = sandbox.push("job:1", &[]);
    let _agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the step", || is_made(&sandbox, "held-create"));
    sandbox.ok(&["item", "cancel", &id]);
    let item = sandbox.item_in(&id, &["STOPPED"]);
    let_go(&sandbox, "create");
    assert_eq!(item["message"], "a person asked for it");
    nothing_is_left(&sandbox);
    assert!(!is_made(&sandbox, "ran"));
}

#[test]
fn a_stop_waits_for_an_engine_that_does_not_answer_and_the_slot_stays_taken() {
    let sandbox = sandbox("{}", "exec sleep 600");
    let id = sandbox.push("job:1", &[]);
    let later = sandbox.push("job:1", &[]);
    let _agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || is_running(&sandbox, &id));
    sandbox.write("fake/no-engine", ENGINE_GONE);
    sandbox.ok(&["item", "cancel", &id]);
    sandbox.wait_for("the agent to say so", || {
        sandbox
            .read("agent.err")
            .contains("cannot be stopped yet, and keeps its slot")
    });
    assert_eq!(sandbox.item(&id)["state"], "CLAIMED");
    assert_eq!(sandbox.item(&later)["state"], "PENDING");
    std::fs::remove_file(sandbox.path("fake/no-engine")).expect("removed");
    sandbox.item_in(&id, &["STOPPED"]);
    sandbox.wait_for("the next job", || is_running(&sandbox, &later));
    sandbox.ok(&["item", "cancel", &later]);
    sandbox.item_in(&later, &["STOPPED"]);
}

#[test]
fn leaving_at_once_leaves_a_job_to_the_next_start() {
    let sandbox = sandbox("{}", COUNTS);
    let config = sandbox.write("agent.yaml", "on_signal: detach\n");
    let id = sandbox.push("job:1", &[]);
    let mut agent = sandbox.start_agent(&["--config", config.to_str().expect("UTF-8")]);
    sandbox.wait_for("the first lines", || sandbox.log(&id).contains("line 3\n"));
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait(&sandbox), Some(130));
    sandbox.write("fake/go", "");
    sandbox.once(&[]).code(1);
    assert_eq!(sandbox.item(&id)["exit_code"], 3);
    assert_eq!(output(&sandbox, &id).lines().count(), 6);
}
