//! The commands about queues and items, as a person uses them: the real binary in a place of its own.

use std::process::Stdio;

use crate::common::sandbox::Sandbox;
use serde_json::{Value, json};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// A sandbox with a queue `q` of this config, whose containers run `job`.
fn with_queue(config: &str, job: &str) -> Sandbox {
    let sandbox = Sandbox::with_fake_docker(job);
    sandbox.queue("q", config);
    sandbox
}

#[test]
fn a_queue_is_defined_shown_changed_and_deleted() {
    let sandbox = Sandbox::new();
    let config = sandbox.write(
        "c.json",
        r#"{"shm-size": "8g", "cpus": 1.50, "env": ["A=1"]}"#,
    );
    let config = config.to_str().expect("UTF-8");
    sandbox
        .run(&["queue", "create", "q", "--config", config])
        .code(0)
        .says("created queue q in ");
    sandbox
        .run(&["queue", "create", "q"])
        .code(2)
        .says("there is a queue `q` already");

    let shown = sandbox.ok(&["queue", "show", "q"]);
    let order: Vec<_> = ["\"shm-size\"", "\"cpus\": 1.50", "\"env\""]
        .iter()
        .map(|part| {
            shown
                .find(part)
                .unwrap_or_else(|| panic!("no {part} in {shown}"))
        })
        .collect();
    assert!(order.is_sorted(), "{shown}");

    sandbox.ok(&["queue", "update", "q", "--prioritization"]);
    sandbox.ok(&["queue", "pause", "q"]);
    let queue = json_of(&sandbox.ok(&["queue", "show", "q", "--json"]));
    assert_eq!(queue["prioritization"], json!(true));
    assert_eq!(queue["paused"], json!(true));
    assert_eq!(
        queue["config"]["env"],
        json!(["A=1"]),
        "what is not named stays"
    );
    sandbox.ok(&["queue", "resume", "q"]);
    let all = json_of(&sandbox.ok(&["queue", "list", "--json"]));
    assert_eq!(all[0]["name"], "q");
    assert_eq!(all[0]["paused"], json!(false));

    sandbox.push("job:1", &[]);
    sandbox
        .run(&["queue", "delete", "q"])
        .code(2)
        .says("--force");
    sandbox.ok(&["queue", "delete", "q", "--force"]);
    sandbox
        .run(&["queue", "show", "q"])
        .code(6)
        .says("no queue `q`");
}

#[test]
fn a_config_is_checked_before_it_is_saved() {
    let sandbox = Sandbox::new();
    let write = |name: &str, text: &str| {
        sandbox
            .write(name, text)
            .to_str()
            .expect("UTF-8")
            .to_owned()
    };
    let config = write("c.yaml", "cpus: '{{cpus}}'\nenv: ['A={{a}}']\n");
    let half = write(
        "half.json",
        r#"{"cpus": {"schema": {"type": "integer", "maximum": 4}}}"#,
    );
    let ran = sandbox
        .run(&["queue", "check", &config, "--template-variables", &half])
        .code(2)
        .says("`{{a}}` has no schema");
    assert_eq!(
        ran.stdout,
        "cpus: integer, at most 4\na: MISSING: no schema\n"
    );

    let whole = write(
        "whole.json",
        r#"{"cpus": {"schema": {"type": "integer"}}, "a": {"schema": {"type": "string", "enum": ["x"]}}}"#,
    );
    let checked = [
        "queue",
        "check",
        &config,
        "--template-variables",
        &whole,
        "--json",
    ];
    assert_eq!(json_of(&sandbox.ok(&checked))["ok"], json!(true));

    let wrong = write("wrong.json", r#"{"memori": "1g"}"#);
    sandbox
        .run(&["queue", "check", &wrong])
        .code(2)
        .says("`memori`");
    let broken = write("broken.json", "{\n  \"cpus\": 2,,\n}");
    sandbox
        .run(&["queue", "check", &broken])
        .code(2)
        .says("broken.json:2");
    let list = write("list.json", "[]");
    sandbox
        .run(&["queue", "check", &list])
        .code(2)
        .says("must be an object");
    sandbox
        .run(&["queue", "create", "q", "--config", &wrong])
        .code(2)
        .says("wrong.json: `memori` is not an option")
        .says("did you mean one of `memory`");
    let list = ["queue", "list"];
    sandbox.run(&list).code(6).says("no queues yet");
}

#[test]
fn a_push_makes_the_spec_that_the_flags_ask_for() {
    let mut sandbox = with_queue(r#"{"cpus": 2}"#, "");
    sandbox.set("USER", "ada");
    sandbox.set("WANDB_PROJECT", "from-env");
    let base =
        r#"{"entity": "me", "run_id": "myrunid", "overrides": {"run_config": {"lr": 0.10}}}"#;
    let pushed = sandbox.ok(&[
        "push",
        "-q",
        "q",
        "-d",
        "job:1",
        "-c",
        base,
        "--name",
        "my run",
        "-E",
        "sh -c 'echo hi'",
        "-R",
        r#"{"docker": {"memory": "1g"}}"#,
        "--json",
        "--",
        "--lr",
        "a b",
    ]);
    assert_eq!(
        json_of(&pushed)["spec"],
        json_of(
            r#"{
            "entity": "me", "run_id": "myrunid", "project": "from-env", "name": "my run", "author": "ada",
            "docker": {"docker_image": "job:1"},
            "overrides": {"run_config": {"lr": 0.10}, "entry_point": ["sh", "-c", "echo hi"], "args": ["--lr", "a b"]},
            "resource_args": {"local-container": {"cpus": 2, "memory": "1g"}}}"#
        )
    );
    let ran = sandbox
        .run(&["push", "-q", "q", "-d", "job:1", "-p", "flag"])
        .code(0)
        .says("pushed item 2 to queue q (");
    assert_eq!(ran.stdout, "2\n");
    let item = sandbox.item("2");
    assert_eq!(item["spec"]["project"], "flag");
    assert_eq!(item["spec"]["entity"], "local");
}

#[test]
fn a_push_that_is_wrong_is_told_where_and_leaves_nothing() {
    let sandbox = with_queue("{}", "");
    let refused = |arguments: &[&str], says: &str| {
        let all = [&["push", "-q", "q"], arguments].concat();
        sandbox.run(&all).code(2).says(says);
    };
    let job = ["-d", "job:1", "-p", "p"];
    let and = |more: &[&'static str]| [&job[..], more].concat();
    refused(&["-d", "job:1"], "add `-p NAME`");
    refused(&["-d", "job:1", "-p", ""], "add `-p NAME`");
    refused(
        &["-d", "job:1", "-c", r#"{"project": null}"#],
        "add `-p NAME`",
    );
    refused(&["-p", "p"], "neither an image nor a job");
    refused(&["-p", "p", "-d", "Job:1"], "`Job:1` is not an image");
    refused(&and(&["-P", "high"]), "queue update q --prioritization");
    refused(&and(&["-P", "urgent"]), "`urgent` is not a priority");
    refused(&and(&["-E", "sh -c 'x"]), "ends inside a quote");
    refused(
        &and(&["-R", r#"{"cpus": 2}"#]),
        r#"{"local-container":{"cpus":2}}"#,
    );
    refused(
        &and(&["-R", r#"{"docker": []}"#]),
        "must be an object of docker options",
    );
    refused(
        &and(&["-R", r#"{"kubernetes": {}}"#]),
        "this agent runs docker jobs",
    );
    refused(
        &and(&["-c", r#"{"resource": "kubernetes"}"#]),
        "this agent runs docker jobs",
    );
    refused(&and(&["-c", "[1]"]), "must be an object, not a list");
    refused(&and(&["-c", "{\"a\":\n}}"]), "--config:");
    refused(&and(&["-c", "nowhere.json"]), "cannot read nowhere.json");
    refused(&and(&["-v", "cpus=1"]), "no template variable `cpus`");
    sandbox
        .run(&["push", "-q", "Q1", "-d", "job:1", "-p", "p"])
        .code(6)
        .says("no queue `Q1`");
    assert_eq!(sandbox.ok(&["items"]), "");
}

#[test]
fn template_values_are_held_to_their_schemas() {
    let sandbox = Sandbox::new();
    let config = sandbox.write("c.json", r#"{"cpus": "{{cpus}}", "env": ["A={{a}}"]}"#);
    let variables = r#"{"cpus": {"schema": {"type": "integer", "minimum": 1, "maximum": 4}},
        "a": {"schema": {"type": "string", "default": "x"}}}"#;
    let variables = sandbox.write("v.json", variables);
    sandbox.ok(&[
        "queue",
        "create",
        "q",
        "--config",
        config.to_str().expect("UTF-8"),
        "--template-variables",
        variables.to_str().expect("UTF-8"),
    ]);
    let pushed = sandbox.push("job:1", &["-v", "cpus=3", "-v", "a=k=v"]);
    assert_eq!(
        sandbox.item(&pushed)["spec"]["resource_args"],
        json!({"local-container": {"cpus": 3, "env": ["A=k=v"]}})
    );
    let push = ["push", "-q", "q", "-p", "p", "-d", "job:1"];
    for (value, says) in [
        ("cpus=9", "`cpus` cannot be `9`: it is more than 4"),
        ("cpus=two", "`cpus` cannot be `two`"),
        ("cpu=2", "did you mean `cpus`?"),
        ("cpus", "has no value"),
    ] {
        sandbox
            .run(&[&push[..], &["-v", value]].concat())
            .code(2)
            .says(says);
    }
    sandbox.run(&push).code(2).says("`cpus` needs a value");
    let own = ["-v", "cpus=1", "-R", r#"{"docker": {"cpus": 64}}"#];
    sandbox
        .run(&[&push[..], &own].concat())
        .code(2)
        .says("takes no `resource_args` from a job");
}

#[test]
fn items_are_listed_cancelled_retried_and_deleted() {
    let sandbox = with_queue("{}", "");
    let first = sandbox.push("job:1", &["--name", "a\u{1b}[31mred"]);
    let second = sandbox.push("job:2", &[]);
    let table = sandbox.ok(&["items", "-q", "q"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("ID  QUEUE  STATE    NAME"), "{table}");
    assert!(lines[1].contains("a\\u{1b}[31mred"), "{table}");
    assert!(lines[2].starts_with("2   q      PENDING  -"), "{table}");

    sandbox
        .run(&["item", "cancel", &first])
        .code(0)
        .says("item 1 is stopped");
    sandbox
        .run(&["item", "cancel", &first])
        .code(2)
        .says("has ended already (STOPPED)");
    assert_eq!(sandbox.item(&first)["message"], "a person asked for it");
    sandbox
        .run(&["item", "retry", &second])
        .code(2)
        .says("has not ended yet");
    sandbox
        .run(&["item", "retry", &first])
        .code(0)
        .says("(attempt 2)");
    assert_eq!(sandbox.item(&first)["state"], "PENDING");
    sandbox.ok(&["item", "delete", &first]);
    sandbox
        .run(&["item", "show", &first])
        .code(6)
        .says("no item `1`");
    for wrong in ["abc", "99", "01", ""] {
        sandbox
            .run(&["item", "show", wrong])
            .code(6)
            .says(&format!("no item `{wrong}`"));
    }
    sandbox
        .run(&["items", "-q", "r"])
        .code(6)
        .says("no queue `r`");
    let all = json_of(&sandbox.ok(&["items", "--json"]));
    assert_eq!(all.as_array().map(Vec::len), Some(1));
    assert_eq!(all[0]["id"], "2");
    let why = all[0]["waiting"].as_str().expect("a reason");
    assert!(
        why.starts_with("no agent has ever polled the queue"),
        "{why}"
    );
}

#[test]
fn the_submitters_own_key_is_not_shown() {
    let sandbox = with_queue("{}", "");
    let id = sandbox.push("job:1", &["-c", r#"{"_wandb_api_key": "sesame-sesame"}"#]);
    for command in [
        &["item", "show", &id][..],
        &["item", "show", &id, "--json"],
        &["items", "--json"],
    ] {
        assert!(!sandbox.ok(command).contains("sesame"), "{command:?}");
    }
}

#[test]
fn waiting_follows_the_log_and_ends_as_the_job_does() {
    let job = r#"echo one; until [ -e $FAKE/go ]; do sleep 0.02; done; echo two; exit "${@: -1}""#;
    let sandbox = with_queue("{}", job);
    let wait = [
        "push", "-q", "q", "-p", "p", "-d", "job:1", "--wait", "--", "7",
    ];
    let talk = std::fs::File::create(sandbox.path("push.err")).expect("a file");
    let child = sandbox
        .command(&wait)
        .stdout(Stdio::piped())
        .stderr(talk)
        .spawn()
        .expect("started");
    sandbox.wait_for("why it waits", || {
        sandbox
            .read("push.err")
            .contains("item 1 waits: no agent has ever polled the queue")
    });
    let _agent = sandbox.start_agent(&[]);
    sandbox.item_in("1", &["CLAIMED"]);
    sandbox.wait_for("the first line", || sandbox.log("1").contains("one"));
    sandbox.write("fake/go", "");
    let output = child.wait_with_output().expect("an end");
    let talk = sandbox.read("push.err");
    assert_eq!(output.status.code(), Some(7), "{talk}");
    let followed = String::from_utf8_lossy(&output.stdout);
    assert!(followed.contains("one\ntwo\n"), "{followed}{talk}");
    assert!(talk.contains("item 1 ended with exit code 7"), "{talk}");

    let shown = sandbox.ok(&["item", "show", "1"]);
    for part in [
        "FINISHED: exit code 7",
        "command:",
        "docker run",
        "log:",
        "duration:",
    ] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    assert_eq!(sandbox.ok(&["item", "logs", "-f", "1"]), followed);
    sandbox.ok(&["item", "delete", "1"]);
}

#[test]
fn waiting_for_a_job_that_is_cancelled_fails() {
    let sandbox = with_queue("{}", "");
    let child = sandbox
        .command(&["push", "-q", "q", "-p", "p", "-d", "job:1", "--wait"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    sandbox.wait_for("the item", || sandbox.ok(&["items"]).contains("PENDING"));
    sandbox.ok(&["item", "cancel", "1"]);
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("item 1 was stopped: a person asked for it"),
        "{stderr}"
    );
}

#[test]
fn config_show_offers_no_flag_that_changes_nothing() {
    let sandbox = Sandbox::new();
    for help in ["-h", "--help"] {
        let text = sandbox.ok(&["config", "show", help]);
        assert!(text.contains("--max-jobs"), "{text}");
        assert!(
            !text.contains("--once") && !text.contains("--dry-run"),
            "{text}"
        );
    }
    // A command line of the agent can be looked at as it is.
    sandbox
        .run(&["config", "show", "--local", "-q", "q", "--once"])
        .code(0);
}

#[test]
fn a_machine_without_a_home_is_told_what_to_set() {
    let mut sandbox = Sandbox::new();
    sandbox.set("HOME", "");
    sandbox
        .run(&["queue", "list", "--local", "./q.db"])
        .code(3)
        .says("hint: set HOME, or both XDG_STATE_HOME and XDG_CONFIG_HOME");
    for name in ["XDG_STATE_HOME", "XDG_CONFIG_HOME"] {
        let folder = sandbox.path(name);
        sandbox.set(name, folder.to_str().expect("UTF-8"));
    }
    sandbox.run(&["queue", "create", "q"]).code(0);
}

#[test]
fn an_agent_that_could_never_take_a_job_is_refused() {
    let sandbox = with_queue("{}", "");
    sandbox
        .run(&["--local", "-q", "q", "--once", "-j", "0"])
        .code(3)
        .says("`max_jobs` is 0 (flag --max-jobs)");
}

#[test]
fn what_comes_from_standard_input_is_called_so() {
    use std::io::Write;
    let sandbox = Sandbox::new();
    let mut child = sandbox
        .command(&["queue", "check", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("launch-agent starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(br#"{"cpus": "{{c}}"}"#).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("error: standard input: "), "{said}");
}

#[test]
fn a_template_value_that_no_queue_would_take_is_refused() {
    let sandbox = with_queue("{}", "");
    let config = sandbox.write("config.json", "{}");
    let config = config.to_str().expect("UTF-8");
    let value = ["--image", "x", "-v", "cpus=2"];
    for command in [&["render"][..], &["policy", "check"]] {
        let refused = |queue: &[&str], says: &str| {
            let all = [command, queue, &value].concat();
            sandbox.run(&all).code(2).says(says);
        };
        refused(&[], "--queue <NAME>");
        refused(&["--queue-config", config], "'--set-var <NAME=VALUE>'");
        refused(&["-q", "q"], "no template variable `cpus`");
    }
}

#[test]
fn the_exit_codes_of_the_help_are_those_of_the_readme() {
    let readme = include_str!("../README.md");
    let (_, section) = readme.split_once("\n## Exit codes\n").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("a next section");
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let code: u8 = cells[0].parse().ok()?;
        Some(format!("  {code}  {}\n", cells[1].replace('`', "")))
    };
    let rows: Vec<String> = section.lines().filter_map(row).collect();
    assert_eq!(rows.len(), 8, "{section}");
    let help = Sandbox::new().ok(&["--help"]);
    assert!(help.contains(&rows.concat()), "{help}\n{}", rows.concat());
}

#[test]
fn the_json_shapes_are_those_that_the_readme_names() {
    let readme = include_str!("../README.md");
    let section = readme
        .split("\n## ")
        .find(|section| section.starts_with("Output for programs"))
        .expect("the section");
    let row = |command: &str| {
        let row = section
            .lines()
            .find(|line| line.starts_with(&format!("| `{command}`")))
            .expect("a row");
        row.rsplit("| ").next().expect("a shape").to_owned()
    };
    let sandbox = with_queue("{}", "");
    let item = sandbox.push("job:1", &[]);
    let shown = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&sandbox.ok(arguments)).expect("JSON")
    };
    for (command, value) in [
        ("items", shown(&["items", "--json"])[0].take()),
        ("items", shown(&["item", "show", &item, "--json"])),
        ("queue list", shown(&["queue", "list", "--json"])[0].take()),
        ("queue list", shown(&["queue", "show", "q", "--json"])),
        (
            "render --format json",
            shown(&["render", "-q", "q", "--image", "x", "--format", "json"]),
        ),
    ] {
        let named = row(command);
        for key in value.as_object().expect("an object").keys() {
            assert!(named.contains(&format!("`{key}`")), "{command}: {key}");
        }
        for key in named.split('`').skip(1).step_by(2) {
            let of_an_agent =
                key == "id" || "hostname pid queues max_jobs status seen_at".contains(key);
            assert!(
                value.get(key).is_some() || (command == "queue list" && of_an_agent),
                "{command}: {key}"
            );
        }
    }
}

#[test]
fn a_number_that_is_none_is_told_so_in_words() {
    let sandbox = Sandbox::new();
    for (words, said) in [
        (&["-q", "q", "-j", "many"][..], "not a whole number"),
        (
            &["push", "-q", "q", "-p", "p", "-d", "i", "--timeout", "1h"],
            "not a whole number from 1 on",
        ),
        (
            &[
                "push",
                "-q",
                "q",
                "-p",
                "p",
                "--code",
                ".",
                "--code-limit",
                "5000",
            ],
            "not a whole number from 1 to 4000",
        ),
    ] {
        sandbox.run(words).code(2).says(said);
    }
}

#[test]
fn a_device_is_no_queue() {
    let sandbox = Sandbox::new();
    sandbox
        .run(&["items", "--local", "/dev/null"])
        .code(5)
        .says("/dev/null is no file that can hold a queue");
}
