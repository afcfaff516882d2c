//! A docker that answers and will not: nothing waits for it without end that is over, nothing asks it without a pause,
//! and a slot is given away only when its container is seen to be gone.

use std::time::{Duration, Instant};

use crate::faults::engines::{answer, sandbox};
use crate::restart::{is_made, is_running, kill, let_go, nothing_is_left};

const REFUSES: &str = "echo 'Error response from daemon: banana' >&2; exit 1";

#[test]
fn a_container_that_is_gone_and_whose_end_docker_will_not_tell_is_no_success_and_holds_no_slot() {
    let mut sandbox = sandbox("kill -KILL \"$(cat $FAKE/client.$1)\"; rm $FAKE/state.$1");
    answer(&mut sandbox, "\"events \"*", REFUSES);
    let ids = [sandbox.push("job:1", &[]), sandbox.push("job:1", &[])];
    sandbox.once(&[]).code(1);
    for id in ids {
        let item = sandbox.item(&id);
        assert_eq!(
            (&item["state"], &item["stage"]),
            (&"FAILED".into(), &"run".into()),
            "{item}"
        );
        let message = item["message"].as_str().expect("a message");
        assert!(
            message.contains("how the job ended is not known") && message.contains("banana"),
            "{message}"
        );
    }
    assert_eq!(sandbox.calls("run").len(), 2);
}

#[test]
fn a_container_that_never_started_and_will_not_go_fails_its_job_and_no_other() {
    let mut sandbox = sandbox("");
    sandbox.write("fake/hold-start", "");
    let id = sandbox.push("job:1", &[]);
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the step", || is_made(&sandbox, "held-start"));
    kill(&sandbox, agent);
    answer(&mut sandbox, "\"rm \"*", REFUSES);
    let next = sandbox.push("job:1", &[]);
    let mut agent = sandbox.start_agent(&["--once"]);
    sandbox.item_in(&id, &["FAILED"]);
    let_go(&sandbox, "start");
    assert_eq!(agent.wait(&sandbox), Some(1));
    let item = sandbox.item(&id);
    let message = item["message"].as_str().expect("a message");
    assert!(
        message.contains("was made for the job and never started is in its way")
            && message.contains("banana"),
        "{message}"
    );
    assert_eq!(sandbox.item(&next)["state"], "FINISHED");
}

#[test]
fn a_stop_that_ends_nothing_is_followed_by_a_kill_and_a_look() {
    let mut sandbox = sandbox("exec sleep 600");
    answer(&mut sandbox, "\"stop -t\"", "exit 0");
    let id = sandbox.push("job:1", &[]);
    let later = sandbox.push("job:1", &[]);
    let _agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || is_running(&sandbox, &id));
    sandbox.ok(&["item", "cancel", &id]);
    sandbox.item_in(&id, &["STOPPED"]);
    assert!(!is_running(&sandbox, &id));
    assert_eq!(sandbox.calls("kill").len(), 1);
    sandbox.wait_for("the next job", || is_running(&sandbox, &later));
    sandbox.ok(&["item", "cancel", &later]);
    sandbox.item_in(&later, &["STOPPED"]);
}

#[test]
fn a_stop_that_hangs_is_given_up_and_followed_by_a_kill() {
    let mut sandbox = sandbox("exec sleep 600");
    let config = sandbox.write("agent.yaml", "stop_grace: 1\n");
    answer(&mut sandbox, "\"stop -t\"", "sleep 600");
    let id = sandbox.push("job:1", &[]);
    let _agent = sandbox.start_agent(&["--config", config.to_str().expect("UTF-8")]);
    sandbox.wait_for("the container", || is_running(&sandbox, &id));
    sandbox.ok(&["item", "cancel", &id]);
    let item = sandbox.item_in(&id, &["STOPPED"]);
    assert_eq!(item["message"], "a person asked for it");
    assert!(!is_running(&sandbox, &id));
    assert_eq!(sandbox.calls("kill").len(), 1);
}

#[test]
fn a_container_that_nothing_ends_keeps_its_slot_and_that_is_said() {
    let mut sandbox = sandbox("exec sleep 600");
    let whole = sandbox.read("bin/docker");
    answer(&mut sandbox, "\"stop -t\"|\"kill \"*", "exit 0");
    let id = sandbox.push("job:1", &[]);
    let later = sandbox.push("job:1", &[]);
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || is_running(&sandbox, &id));
    sandbox.ok(&["item", "cancel", &id]);
    sandbox.wait_for("the agent to say so", || {
        let said = sandbox.read("agent.err");
        said.contains("keeps its slot: the container id-launch-")
            && said.contains("could not be stopped: it still runs")
    });
    let computed = agent.cpu_time();
    std::thread::sleep(Duration::from_secs(2));
    assert!(agent.cpu_time().saturating_sub(computed) < Duration::from_millis(500));
    assert_eq!(sandbox.item(&later)["state"], "PENDING");
    sandbox.write_program("docker", &whole);
    sandbox.item_in(&id, &["STOPPED"]);
    sandbox.wait_for("the next job", || is_running(&sandbox, &later));
    sandbox.ok(&["item", "cancel", &later]);
    sandbox.item_in(&later, &["STOPPED"]);
}

#[test]
fn a_docker_that_shows_nothing_of_a_container_that_runs_is_asked_now_and_then() {
    let mut sandbox = sandbox("until [ -e $FAKE/go ]; do sleep 0.02; done; exit 3");
    let id = sandbox.push("job:1", &[]);
    let agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || is_running(&sandbox, &id));
    kill(&sandbox, agent);
    answer(&mut sandbox, "\"logs \"*|\"attach \"*|\"wait \"*", REFUSES);
    let mut agent = sandbox.start_agent(&["--once"]);
    sandbox.wait_for("it to be looked at", || !sandbox.calls("wait").is_empty());
    let begun = Instant::now();
    std::thread::sleep(Duration::from_secs(5));
    let looks = sandbox.calls("wait").len() as u64;
    assert!(
        looks <= begun.elapsed().as_secs() / 2 + 2,
        "{looks} looks in {:?}",
        begun.elapsed()
    );
    sandbox.write("fake/go", "");
    assert_eq!(agent.wait(&sandbox), Some(1));
    assert_eq!(sandbox.item(&id)["exit_code"], 3);
    let log = sandbox.log(&id);
    let said = "lines may be missing here: docker has no log of the container: banana";
    assert_eq!(log.matches(said).count(), 1, "{log}");
    nothing_is_left(&sandbox);
}
