//! The policy as its owner and a job's owner meet it: in the agent, in `policy check` and in `config show`.

use std::path::Path;

use serde_json::{Value, json};

use crate::common::sandbox::Sandbox;

/// A sandbox with something hidden in its home folder, and a link to it where jobs may mount.
fn sandbox_with_a_link() -> Sandbox {
    let sandbox = Sandbox::with_fake_docker("true");
    sandbox.write(".ssh/id", "a key");
    std::fs::create_dir(sandbox.path("data")).expect("a folder");
    std::os::unix::fs::symlink(sandbox.path(".ssh"), sandbox.path("data/link")).expect("linked");
    sandbox
}

#[test]
fn policy_check_explains_each_option_and_exits_with_the_verdict() {
    let sandbox = sandbox_with_a_link();
    let link = sandbox.path("data/link");
    let config = json!({
        "volume": format!("{}:/x", link.display()), "gpus": "all", "privileged": true, "env": {"PIN": "1234"}
    });
    let file = sandbox.write("queue.json", &config.to_string());
    let file = file.to_str().expect("UTF-8");
    let check = [
        "policy",
        "check",
        "--queue-config",
        file,
        "--image",
        "job:1",
    ];
    let ran = sandbox.run(&check).code(2);
    for part in [
        format!("refused  --volume {}:/x", link.display()),
        format!(
            "which is `{}`, is where a home folder keeps keys",
            sandbox.path(".ssh").display()
        ),
        "hint: the machine's owner allows it in launch-config.yaml with `policy: {mounts: ["
            .to_owned(),
        "allowed  --gpus all".to_owned(),
        "refused  --privileged".to_owned(),
        "allowed  --env PIN  ".to_owned(),
        "refused by this machine's policy (preset `standard`)\n".to_owned(),
    ] {
        assert!(ran.stdout.contains(&part), "no `{part}` in\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("1234"), "{}", ran.stdout);

    let json = sandbox
        .run(&[&check[..], &["--json"]].concat())
        .code(2)
        .stdout;
    let answer: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&answer["allowed"], &answer["preset"]),
        (&json!(false), &json!("standard"))
    );
    assert_eq!(
        answer["checks"][3],
        json!({
            "option": "privileged", "given": "--privileged", "allowed": false,
            "rule": "it takes away every wall between the job and the host",
            "hint": r#"the machine's owner allows it in launch-config.yaml with `policy: {allow: ["privileged"]}`"#
        })
    );
    let keys: Vec<&String> = answer["checks"][0]
        .as_object()
        .expect("an object")
        .keys()
        .collect();
    let readme = include_str!("../../README.md");
    let row = readme
        .lines()
        .find(|line| line.starts_with("| `policy check` |"))
        .expect("a row of the README");
    for key in keys
        .into_iter()
        .chain(answer.as_object().expect("an object").keys())
    {
        assert!(
            row.contains(&format!("`{key}`")),
            "the README says nothing of `{key}`"
        );
    }

    // What the hints say is what opens it.
    let opened = json!({"policy": {"allow": ["privileged"], "mounts": [sandbox.path(".ssh")]}});
    let opened = sandbox.write("agent.yaml", &opened.to_string());
    let opened = opened.to_str().expect("UTF-8");
    let ran = sandbox
        .run(&[&check[..], &["--agent-config", opened]].concat())
        .code(0);
    assert!(
        ran.stdout
            .ends_with("allowed by this machine's policy (preset `standard`)\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn what_a_job_asks_for_does_not_look_like_a_verdict() {
    let sandbox = Sandbox::with_fake_docker("true");
    let config = json!({
        "user": "\u{1b}[2Kme\nallowed by this machine's policy", "cap-add": "X\r\u{202e}"
    });
    let file = sandbox.write("queue.json", &config.to_string());
    let file = file.to_str().expect("UTF-8");
    let words = ["--queue-config", file, "--image", "job:1"];
    let ran = sandbox
        .run(&[&["policy", "check"], &words[..]].concat())
        .code(2);
    assert_eq!(ran.stdout.lines().count(), 5, "{}", ran.stdout);
    assert!(
        !ran.stdout.contains(['\u{1b}', '\r', '\u{202e}']),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout
            .contains("allowed  --user \\u{1b}[2Kme\\nallowed by"),
        "{}",
        ran.stdout
    );
}

#[test]
fn policy_check_judges_what_a_job_with_code_asks_of_docker() {
    let sandbox = Sandbox::new();
    let spec = |options: &str| {
        let text = format!(
            r#"{{"project": "p", "job": "me/p/train:v0", "resource_args": {{"local-container": {options}}}}}"#
        );
        sandbox.write("spec.json", &text).display().to_string()
    };
    let ran = sandbox
        .run(&["policy", "check", &spec(r#"{"shm-size": "1g"}"#)])
        .code(0)
        .says("the image is judged by the agent");
    assert!(
        ran.stdout.contains("allowed  --shm-size 1g "),
        "{}",
        ran.stdout
    );
    let privileged = spec(r#"{"privileged": true}"#);
    let ran = sandbox
        .run(&["policy", "check", "--json", &privileged])
        .code(2);
    let shown: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let options = shown["checks"].as_array().expect("checks").iter();
    let options: Vec<_> = options.map(|check| &check["option"]).collect();
    assert_eq!(options, ["privileged"], "{shown}");
}

#[test]
fn policy_check_says_what_secure_mode_refuses() {
    let sandbox = Sandbox::with_fake_docker("true");
    let secure = sandbox.write("secure.yaml", "secure_mode: true\n");
    let spec = json!({"project": "p", "image_uri": "job:1", "overrides": {"entry_point": ["sh"]}});
    let spec = sandbox.write("spec.json", &spec.to_string());
    let spec = spec.to_str().expect("UTF-8");
    sandbox.run(&["policy", "check", spec]).code(0);
    let ran = sandbox
        .run(&[
            "policy",
            "check",
            spec,
            "--agent-config",
            secure.to_str().expect("UTF-8"),
        ])
        .code(2);
    assert!(
        ran.stdout.contains("refused  overrides.entry_point"),
        "{}",
        ran.stdout
    );
    sandbox
        .run(&["policy", "check"])
        .code(2)
        .says("nothing to check");
}

#[test]
fn an_agent_fails_what_its_policy_refuses_before_it_takes_it() {
    let sandbox = sandbox_with_a_link();
    // A macro leads to the folder, and a job's own options count as the queue's do.
    sandbox.queue("q", r#"{"volume": "${HOME}/data/${run_name}:/x"}"#);
    let id = sandbox.push("job:1", &["--name", "link"]);
    let other = sandbox.push(
        "job:1",
        &["-R", r#"{"docker": {"volume": null, "pid": "host"}}"#],
    );
    let good = sandbox.push("job:1", &["--name", "out"]);
    sandbox.once(&[]).code(1);
    for (id, part) in [
        (&id, "where a home folder keeps keys"),
        (&other, "`--pid host`"),
    ] {
        let item = sandbox.item(id);
        assert_eq!(
            (&item["state"], &item["stage"]),
            (&json!("FAILED"), &json!("agent")),
            "{item}"
        );
        let message = item["message"].as_str().expect("a message");
        assert!(
            message.contains("this machine's policy refuses `") && message.contains(part),
            "{message}"
        );
        assert_eq!(
            (&item["claimed_at"], &item["command"]),
            (&Value::Null, &Value::Null),
            "{item}"
        );
    }
    assert_eq!(sandbox.item(&good)["state"], "FINISHED");
    assert_eq!(sandbox.calls("run").len(), 1);
}

#[test]
fn a_value_that_a_macro_took_from_a_secret_is_in_no_refusal() {
    let mut sandbox = Sandbox::with_fake_docker("true");
    sandbox.set("LOG_TOKEN", "open-sesame");
    let config = sandbox.write("agent.yaml", "policy: {env_macros: [LOG_TOKEN]}\n");
    let queue = sandbox.write(
        "queue.json",
        r#"{"log-opt": {"splunk-token": "${LOG_TOKEN}"}}"#,
    );
    let (config, queue) = (
        config.to_str().expect("UTF-8"),
        queue.to_str().expect("UTF-8"),
    );
    for command in [
        &["render"][..],
        &["policy", "check"],
        &["policy", "check", "--json"],
    ] {
        let words = [
            "--queue-config",
            queue,
            "--image",
            "job:1",
            "--agent-config",
            config,
        ];
        let ran = sandbox.run(&[command, &words[..]].concat()).code(2);
        let said = ran.stdout + &ran.stderr;
        assert!(said.contains("splunk-token=[redacted]"), "{said}");
        assert!(!said.contains("sesame"), "{said}");
    }
}

#[test]
fn config_show_has_the_policy_with_its_origins() {
    let sandbox = Sandbox::new();
    let file = sandbox.write(
        "agent.yaml",
        "policy: {preset: strict, allow: [v], mounts: [~/data, '/mnt:ro'], max_memory: 32g, max_gpus: 1}\n",
    );
    let shown = sandbox.ok(&[
        "config",
        "show",
        "--config",
        file.to_str().expect("UTF-8"),
        "--json",
    ]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let origin = format!("file {}", file.display());
    let data = sandbox.path("data").display().to_string();
    for (key, value, origin) in [
        ("policy.preset", json!("strict"), origin.as_str()),
        ("policy.allow", json!(["volume"]), &origin),
        ("policy.deny", json!([]), "default"),
        ("policy.mounts", json!([data, "/mnt:ro"]), &origin),
        ("policy.images", Value::Null, "default"),
        ("policy.max_memory", json!("32g"), &origin),
        ("policy.max_cpus", Value::Null, "default"),
        ("policy.max_gpus", json!(1), &origin),
        ("policy.max_shm_size", Value::Null, "default"),
    ] {
        assert_eq!(
            shown[key],
            json!({"value": value, "origin": origin}),
            "{key}"
        );
    }
}

#[test]
fn mistakes_in_a_policy_are_named() {
    let sandbox = Sandbox::new();
    for (keys, message) in [
        ("preset: lax", "`policy.preset` is `lax`"),
        (
            "deny: [privilege]",
            "`policy.deny` lists `privilege`, which is no option of docker 28",
        ),
        ("deny: [privilege]", "hint: did you mean `privileged`?"),
        (
            "allow: ['volume=/etc:/etc']",
            "`policy.allow` lists `volume=/etc:/etc`, but one folder has many spellings",
        ),
        ("mounts: [./data]", "`policy.mounts` lists `./data`"),
        ("max_memory: much", "`policy.max_memory` is `much`"),
        ("max_cpus: -1", "`policy.max_cpus` is -1"),
        ("max_gpus: -1", "policy.max_gpus: invalid"),
        ("max_ram: 1g", "unknown key `max_ram`"),
    ] {
        let file = sandbox.write("agent.yaml", &format!("policy: {{{keys}}}\n"));
        sandbox
            .run(&["config", "show", "--config", file.to_str().expect("UTF-8")])
            .code(3)
            .says(message);
    }
}

#[test]
fn keys_that_variables_name_are_not_mounted() {
    for (variable, value) in [
        ("WANDB_API_KEY_FILE", "~/kept/key"),
        ("NETRC", "kept/key"),
        ("WANDB_CONFIG_DIR", "~/kept"),
        ("CLOUDSDK_CONFIG", "kept"),
    ] {
        let mut sandbox = Sandbox::with_fake_docker("true");
        sandbox.set(variable, value);
        let key = sandbox.write("kept/key", "machine api.wandb.ai password sesame-open\n");
        let others = sandbox.write("others/key", "");
        let refused = |path: &Path| {
            let config = json!({"volume": format!("{}:/x:ro", path.display())});
            let file = sandbox.write("queue.json", &config.to_string());
            let file = file.to_str().expect("UTF-8");
            let words = ["--queue-config", file, "--image", "job:1"];
            let ran = sandbox.run(&[&["policy", "check"], &words[..]].concat());
            ran.stdout.contains("where the agent's owner keeps keys")
        };
        assert!(refused(&key), "{variable}={value}");
        assert!(refused(&sandbox.path("kept")), "{variable}={value}");
        assert!(!refused(&others), "{variable}={value}");
    }
}

#[test]
fn folders_of_another_machine_cannot_be_judged() {
    let mut sandbox = Sandbox::new();
    sandbox.set("DOCKER_HOST", "ssh://gpu-box");
    let queue = sandbox.write("queue.json", r#"{"volume": "/data:/data"}"#);
    let words = [
        "render",
        "--queue-config",
        queue.to_str().expect("UTF-8"),
        "--image",
        "job:1",
    ];
    sandbox
        .run(&words)
        .code(2)
        .says("docker's engine is on another machine (`DOCKER_HOST` is `ssh://..`)");
    let open = sandbox.write("agent.yaml", "policy: {preset: open}\n");
    sandbox
        .run(
            &[
                &words[..],
                &["--agent-config", open.to_str().expect("UTF-8")],
            ]
            .concat(),
        )
        .code(0);
}

#[test]
fn folders_of_the_machine_that_a_context_leads_to_cannot_be_judged() {
    let mut sandbox = Sandbox::new();
    let queue = sandbox.write("queue.json", r#"{"volume": "/data:/data"}"#);
    let queue = queue.to_str().expect("UTF-8").to_owned();
    let words = ["render", "--queue-config", &queue, "--image", "job:1"];
    let mut context = |address: &str| {
        let script =
            format!("#!/bin/sh\n[ \"$1 $2\" = 'context inspect' ] && echo {address} || exit 1\n");
        sandbox.write_program("docker", &script);
        sandbox.run(&words)
    };
    context("ssh://me@gpu-box")
        .code(2)
        .says("docker's engine is on another machine (docker's context leads to `ssh://..`)");
    context("unix:///run/user/1000/docker.sock").code(0);
}

#[test]
fn looking_into_a_built_image_runs_nothing_that_came_with_its_packages() {
    let sandbox = Sandbox::with_fake_docker("[[ $1 != launch-agent-look-* ]] || exit 125");
    sandbox.write("proj/train.py", "pass\n");
    // Conda's own packages are installed where that is possible.
    sandbox.write("proj/environment.yml", "dependencies: [numpy]\n");
    sandbox.queue("q", "{}");
    let code = ["--code", "proj", "-E", "python train.py"];
    sandbox.ok(&[&["push", "-q", "q", "-p", "p"], &code[..]].concat());
    sandbox.once(&[]).code(0);
    let runs = sandbox.calls("run");
    let look = runs.iter().find(|run| run.contains("not-installed"));
    let look = look.expect("a look at what was left out");
    for part in ["'--network' 'none'", "'PATH=/usr/local/bin:/usr/bin:/bin'"] {
        assert!(look.contains(part), "{look}");
    }
    // The look failed, and whatever may be left of it is removed.
    let removed = sandbox.calls("rm");
    assert!(
        removed.iter().any(|rm| rm.contains("'launch-agent-look-")),
        "{removed:?}"
    );
}

#[test]
fn what_is_closed_to_the_agents_user_is_not_mounted_by_docker_for_a_job() {
    use std::os::unix::fs::PermissionsExt;
    let mut sandbox = Sandbox::with_fake_docker("true");
    // Below the sandbox's own folder, which is a home, everything would be judged as what is in one.
    let data = tempfile::tempdir().expect("a folder");
    let data = data.path();
    std::fs::set_permissions(data, PermissionsExt::from_mode(0o755)).expect("open");
    for (name, mode) in [("open", 0o755), ("closed", 0o700)] {
        let folder = data.join(name);
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(mode)).expect("its mode");
    }
    let check = |sandbox: &Sandbox, name: &str| {
        let config = json!({"volume": format!("{}:/x", data.join(name).display())});
        let file = sandbox.write("queue.json", &config.to_string());
        let file = file.to_str().expect("UTF-8");
        sandbox.run(&[
            "policy",
            "check",
            "--queue-config",
            file,
            "--image",
            "job:1",
        ])
    };
    // Root may look everywhere.
    check(&sandbox, "closed").code(0);
    sandbox.give_to(1234);
    for name in ["open", "new"] {
        check(&sandbox, name).code(0);
    }
    let ran = check(&sandbox, "closed").code(2);
    assert!(
        ran.stdout.contains("is closed to the agent's own user"),
        "{}",
        ran.stdout
    );
}
