//! Which images are pulled and when, and what is tried again; with a fake docker.

use std::fs;

use serde_json::Value;

use crate::common::sandbox::Sandbox;

pub const IMAGE: &str = "ghcr.io/team/train:1";

/// A sandbox with a queue `q`, whose agent has this configuration, and an image of a registry that is here.
pub fn sandbox(config: &str) -> Sandbox {
    let sandbox = Sandbox::with_fake_docker("echo ran");
    sandbox.queue("q", "{}");
    sandbox.write(".config/wandb/launch-config.yaml", config);
    sandbox.write("fake/images", &format!("job:1\n{IMAGE}\n"));
    sandbox.write("fake/digests", "");
    sandbox
}

/// What the registry answers to the next pulls, one line each.
pub fn refuse(sandbox: &Sandbox, said: &[&str]) {
    let lines: Vec<String> = said
        .iter()
        .map(|line| format!("Error response from daemon: {line}\n"))
        .collect();
    sandbox.write("fake/refusals", &lines.concat());
    sandbox.write("fake/registry", "");
}

fn pulls(sandbox: &Sandbox) -> usize {
    sandbox.calls("pull").len()
}

/// An item's message without the hint, which stands on a line of its own.
fn message(item: &Value) -> &str {
    let message = item["message"].as_str().expect("a message");
    message.split("\nhint: ").next().expect("a line")
}

fn warnings(item: &Value) -> Vec<&str> {
    let warnings = item["warnings"].as_array().expect("a list");
    warnings.iter().filter_map(Value::as_str).collect()
}

#[test]
fn without_a_policy_an_image_is_pulled_and_what_is_here_is_used_when_that_fails() {
    let sandbox = sandbox("");
    refuse(&sandbox, &["denied: no", "denied: no"]);
    let first = sandbox.push(IMAGE, &[]);
    let second = sandbox.push(IMAGE, &[]);
    let third = sandbox.push(IMAGE, &[]);
    let ran = sandbox.once(&[]).code(0);
    assert_eq!(pulls(&sandbox), 3, "before every job");
    let warning = format!(
        "the image `{IMAGE}` could not be pulled, so the one on this machine is used: denied: no"
    );
    assert_eq!(warnings(&sandbox.item(&first)), [&warning]);
    assert!(warnings(&sandbox.item(&second)).is_empty(), "it was said");
    assert!(warnings(&sandbox.item(&third)).is_empty(), "it was pulled");
    assert_eq!(ran.stderr.matches(&warning).count(), 1, "{}", ran.stderr);
    let log = sandbox.log(&first);
    let expected = format!(
        "\ndocker pull {IMAGE}\npulling {IMAGE}\nError response from daemon: denied: no\n[launch-agent: warning: {warning}]\nran\n"
    );
    assert!(log.contains(&expected), "{log}");
}

#[test]
fn a_registry_that_cannot_be_reached_is_left_alone_where_the_image_is_here() {
    let sandbox = sandbox("");
    sandbox.write(
        "fake/images",
        &format!("{IMAGE}\nghcr.io/team/eval:1\nquay.io/team/x:1\n"),
    );
    refuse(&sandbox, &["dial tcp: lookup ghcr.io: no such host"]);
    for image in [IMAGE, IMAGE, "ghcr.io/team/eval:1", "quay.io/team/x:1"] {
        sandbox.push(image, &[]);
    }
    sandbox
        .once(&[])
        .code(0)
        .says("the registry `ghcr.io` cannot be reached: images of it that are on this machine are used as they are, and it is asked again in 5 minutes")
        .says("the image `ghcr.io/team/eval:1` could not be pulled, so the one on this machine is used: its registry could not be reached a moment ago");
    let asked = sandbox.calls("pull");
    assert_eq!(
        asked,
        [
            format!("'pull' '{IMAGE}'"),
            "'pull' 'quay.io/team/x:1'".to_owned()
        ],
        "one trial for ghcr.io, and other registries are asked"
    );
    // What is not here has no other way than the registry.
    sandbox.push("ghcr.io/team/new:1", &[]);
    sandbox.once(&[]).code(0);
    assert_eq!(pulls(&sandbox), 3);
}

#[test]
fn what_no_registry_can_have_another_of_is_not_pulled_and_nothing_is_said() {
    let digest = format!("ghcr.io/team/train@sha256:{}", "a1".repeat(32));
    let sandbox = sandbox("");
    sandbox.write("fake/images", &format!("{digest}\njob:1\n"));
    sandbox.push(&digest, &[]);
    sandbox.once(&[]).code(0);
    fs::remove_file(sandbox.path("fake/digests")).expect("removed");
    let id = sandbox.push("job:1", &[]);
    sandbox.once(&[]).code(0);
    assert_eq!(pulls(&sandbox), 0);
    assert!(warnings(&sandbox.item(&id)).is_empty());
}

#[test]
fn always_pulls_before_every_job_and_uses_nothing_else() {
    let sandbox = sandbox("pull_policy: always\n");
    refuse(&sandbox, &["denied: no"]);
    let bad = sandbox.push(IMAGE, &[]);
    let good = sandbox.push(IMAGE, &[]);
    sandbox.once(&[]).code(1);
    assert_eq!(pulls(&sandbox), 2);
    let item = sandbox.item(&bad);
    assert_eq!(item["stage"], "build", "{item}");
    assert_eq!(
        message(&item),
        format!(
            "the image `{IMAGE}` could not be pulled, and `pull_policy` is `always`: denied: no"
        )
    );
    assert_eq!(sandbox.item(&good)["state"], "FINISHED");
    sandbox.push(IMAGE, &[]);
    let line = sandbox.ok(&["--local", "-q", "q", "--dry-run"]);
    assert!(
        line.starts_with(&format!("docker pull {IMAGE}\ndocker run ")),
        "{line}"
    );
}

#[test]
fn missing_pulls_what_is_missing_and_never_nothing() {
    for (policy, pulled) in [("missing", 1), ("never", 0)] {
        let sandbox = sandbox(&format!("pull_policy: {policy}\n"));
        sandbox.write("fake/registry", "");
        let here = sandbox.push(IMAGE, &[]);
        let missing = sandbox.push("ghcr.io/team/new:1", &[]);
        sandbox.once(&[]);
        assert_eq!(pulls(&sandbox), pulled, "{policy}");
        assert_eq!(sandbox.item(&here)["state"], "FINISHED", "{policy}");
        let item = sandbox.item(&missing);
        if policy == "never" {
            assert_eq!(item["stage"], "build", "{item}");
            assert_eq!(
                message(&item),
                "the image `ghcr.io/team/new:1` is not on this machine, and `pull_policy` is `never`"
            );
        } else {
            assert_eq!(item["state"], "FINISHED", "{item}");
        }
    }
}

#[test]
fn the_option_of_the_queue_beats_the_agents_key() {
    let sandbox = sandbox("pull_policy: always\n");
    sandbox.queue("other", r#"{"pull": "never"}"#);
    sandbox.ok(&["push", "-q", "other", "-p", "demo", "-d", IMAGE]);
    sandbox.run(&["--local", "-q", "other", "--once"]).code(0);
    assert_eq!(pulls(&sandbox), 0);
    assert!(sandbox.calls("run")[0].contains(&format!("'--pull' 'never' '{IMAGE}'")));
}

#[test]
fn what_passes_is_tried_again_and_what_is_certain_is_not() {
    for (said, trials) in [
        (
            &[
                "unexpected EOF",
                "received unexpected HTTP status: 503 Service Unavailable",
            ][..],
            3,
        ),
        (&["dial tcp 10.0.0.1:443: connect: connection refused"], 2),
        (
            &["manifest for ghcr.io/team/new:1 not found: manifest unknown: manifest unknown"],
            1,
        ),
        (
            &["no matching manifest for linux/amd64 in the manifest list entries"],
            1,
        ),
    ] {
        let sandbox = sandbox("");
        refuse(&sandbox, said);
        let id = sandbox.push("ghcr.io/team/new:1", &[]);
        let ran = sandbox.once(&[]);
        assert_eq!(pulls(&sandbox), trials, "{said:?}");
        if trials > 1 {
            assert_eq!(sandbox.item(&id)["state"], "FINISHED", "{said:?}");
            let log = sandbox.log(&id);
            assert!(
                log.contains("[launch-agent: trying again in 1 s]\n"),
                "{log}"
            );
        } else {
            let item = sandbox.item(&id);
            let message = format!(
                "the image `ghcr.io/team/new:1` is not on this machine and could not be pulled: {}",
                said[0]
            );
            assert_eq!(self::message(&item), message);
            assert_eq!(item["stage"], "build");
            ran.says("hint: ");
        }
    }
}

#[test]
fn four_jobs_that_want_the_same_image_pull_it_once() {
    let sandbox = sandbox("max_jobs: 4\n");
    sandbox.write("fake/registry", "");
    sandbox.write("fake/hold", "");
    let ids: Vec<String> = (0..4)
        .map(|_| sandbox.push("ghcr.io/team/new:1", &[]))
        .collect();
    let _agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the pull to begin and all jobs to want it", || {
        let log_of = |id: &String| sandbox.item(id)["log"].is_string();
        sandbox.path("fake/held").exists() && ids.iter().all(log_of)
    });
    fs::remove_file(sandbox.path("fake/hold")).expect("removed");
    for id in &ids {
        assert_eq!(sandbox.item_in(id, &["FINISHED", "FAILED"])["exit_code"], 0);
    }
    assert_eq!(pulls(&sandbox), 1, "{:?}", sandbox.calls("pull"));
}

#[test]
fn a_pull_that_takes_too_long_is_ended_and_a_stop_ends_one_too() {
    let sandbox = sandbox("transfer_timeout: 1\n");
    sandbox.write("fake/hold", "");
    let id = sandbox.push("ghcr.io/team/new:1", &[]);
    sandbox
        .once(&[])
        .code(1)
        .says("hint: `transfer_timeout` in launch-config.yaml sets how long it may take");
    assert_eq!(
        message(&sandbox.item(&id)),
        "the image `ghcr.io/team/new:1` is not on this machine and could not be pulled: it was not done after 1 s and was ended"
    );

    sandbox.write(".config/wandb/launch-config.yaml", "");
    fs::remove_file(sandbox.path("fake/held")).expect("removed");
    let id = sandbox.push("ghcr.io/team/new:1", &[]);
    let _agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the pull to begin", || sandbox.path("fake/held").exists());
    sandbox.ok(&["item", "cancel", &id]);
    sandbox.item_in(&id, &["STOPPED"]);
}
