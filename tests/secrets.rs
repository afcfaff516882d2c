//! A secret of its own in every place that can hold one, and then a look at everything that the agent leaves behind:
//! argv, logs, errors, `--json`, the bytes of its files, and who may read them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::common::peer::{KEY, Peer};
use crate::common::sandbox::Sandbox;

const AGENTS_KEY: &str = "canary-agent-0001";
const SUBMITTERS_KEY: &str = "canary-submitter-0002";
const BY_NAME: &str = "canary+by/name=0003";
const BY_MACRO: &str = "canary-macro-0004";
const ON_THE_LINE: &str = "canary-line-0005";

/// Prints all that it was given, in every form that a program might.
const GOSSIP: &str = r#"
echo "$WANDB_API_KEY $HF_TOKEN $URL ${@: -1}"
echo "$HF_TOKEN" >&2
printf 'api:%s' "$HF_TOKEN" | base64 -w0; echo
printf 'x%s' "$URL" | base64 -w0; echo
printf '%s' "$HF_TOKEN" | python3 -c 'import sys, urllib.parse as u; print(u.quote(sys.stdin.read(), safe=""))'
printf '%s' "${URL:0:25}"; sleep 0.2; printf '%s\n' "${URL:25}"
exit 3
"#;

/// The command, started with a umask that hides nothing.
fn without_umask(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "umask 0; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir(command.get_current_dir().expect("a folder"));
    shell
}

/// Runs a command and gives everything it said, whatever came of it.
fn said(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = without_umask(&sandbox.command(arguments))
        .output()
        .expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(files(&path));
        }
        all.push(path);
    }
    all
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// The forms of a secret that must be nowhere, in base64 without the characters that it shares with its neighbours.
fn forms(secret: &str) -> [String; 3] {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("api:{secret}"));
    let url = secret
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let basic = &encoded[8..encoded.len() - 6];
    [secret.to_owned(), basic.to_owned(), url]
}

/// Nobody but the owner may look at anything that the agent made.
fn check_modes(state: &Path) {
    let all = files(state);
    assert!(all.len() > 3, "{all:?}");
    for path in all {
        let mode = fs::symlink_metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        // What docker's client writes is as docker makes it: the folder keeps others out.
        if path.extension().is_none_or(|it| it != "cid") {
            assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
        }
    }
}

/// A sandbox in which jobs with secrets were pushed, run, refused and looked at, and all that was said meanwhile.
fn told() -> (Sandbox, String) {
    let mut sandbox = Sandbox::with_fake_docker(GOSSIP);
    for (name, value) in [
        ("WANDB_API_KEY", AGENTS_KEY),
        ("HF_TOKEN", BY_NAME),
        ("DB_PASSWORD", BY_MACRO),
        ("LABEL_TOKEN", ON_THE_LINE),
    ] {
        sandbox.set(name, value);
    }
    sandbox.write(
        ".config/wandb/launch-config.yaml",
        "backend: local\nqueues: [q]\npolicy: {env_macros: [DB_PASSWORD, LABEL_TOKEN]}\n",
    );
    let config = json!({
        "env": ["WANDB_API_KEY", "HF_TOKEN", "URL=https://me:${DB_PASSWORD}@host"],
        "label": "a=${LABEL_TOKEN}"
    });
    let file = sandbox.write("q.json", &config.to_string());
    let file = file.to_str().expect("UTF-8");
    said(&sandbox, &["queue", "create", "q", "--config", file]);
    let spec = json!({"_wandb_api_key": SUBMITTERS_KEY}).to_string();
    let push = ["push", "-q", "q", "-p", "p", "-d", "job:1", "-c", &spec];
    // The pusher knows a secret of the agent's, and types it.
    let typed = [&push[..], &["--", BY_NAME]].concat();
    let mut all = said(&sandbox, &typed);
    all += &said(&sandbox, &["--dry-run"]);
    all += &said(
        &sandbox,
        &["render", "--queue-config", file, "--image", "job:1"],
    );
    let json = ["--image", "job:1", "--format", "json"];
    all += &said(
        &sandbox,
        &[&["render", "--queue-config", file], &json[..]].concat(),
    );
    all += &said(&sandbox, &["--once", "-vv", "--log-file", "agent.log"]);
    all += &sandbox.read("agent.log");
    assert!(all.contains("exit code 3"), "{all}");

    // What is refused is said without what is in it.
    let refused = json!({"env": ["PATH=${DB_PASSWORD}"], "label": "${LABEL_TOKEN}"});
    let bad = sandbox.write("bad.json", &refused.to_string());
    let bad = bad.to_str().expect("UTF-8");
    all += &said(
        &sandbox,
        &["render", "--queue-config", bad, "--image", "job:1"],
    );
    sandbox.write(
        "fake/refuse",
        &format!("docker: Error: no {BY_NAME} for {BY_MACRO}\n"),
    );
    all += &said(&sandbox, &push);
    all += &said(&sandbox, &["--once", "-vv"]);
    assert!(
        all.contains("docker could not run the container: no [redacted]"),
        "{all}"
    );
    for command in [
        &["item", "show", "1"][..],
        &["item", "show", "1", "--json"],
        &["item", "show", "2", "--json"],
        &["item", "logs", "1"],
        &["items"],
        &["items", "--json"],
        &["queue", "show", "q", "--json"],
        &["config", "show"],
        &["config", "show", "--json"],
        &["whoami"],
    ] {
        all += &said(&sandbox, command);
    }
    (sandbox, all)
}

#[test]
fn no_secret_of_the_embedded_queue_is_anywhere_but_where_it_must_be() {
    let (sandbox, all) = told();
    // What a pusher typed is shown as what the pusher typed, and nowhere else.
    let typed = [
        format!("\"{BY_NAME}\""),
        format!("arguments:      '{BY_NAME}'"),
    ];
    let (spec, shown): (Vec<&str>, Vec<&str>) = all.lines().partition(|line| {
        typed
            .iter()
            .any(|typed| line.trim().starts_with(typed.as_str()))
    });
    assert_eq!(spec.len(), 3, "{spec:?}");
    let shown = shown.join("\n");
    for secret in [AGENTS_KEY, SUBMITTERS_KEY, BY_NAME, BY_MACRO, ON_THE_LINE] {
        for form in forms(secret) {
            assert!(!shown.contains(&form), "{form} in\n{shown}");
        }
    }

    let calls: Vec<String> = sandbox
        .read("fake/calls")
        .lines()
        .map(|call| call.replace(&format!("'{BY_NAME}'"), "(typed)"))
        .collect();
    let calls = calls.join("\n");
    for secret in [AGENTS_KEY, SUBMITTERS_KEY, BY_NAME, BY_MACRO] {
        assert!(!calls.contains(secret), "{secret} in\n{calls}");
    }
    assert!(
        calls.contains(ON_THE_LINE),
        "a label can be given in no other way: {calls}"
    );

    let state = sandbox.path(".local/state/launch-agent");
    for path in files(&state).into_iter().filter(|path| path.is_file()) {
        let bytes = fs::read(&path).expect("read");
        let is_database = path.file_name().is_some_and(|name| {
            ["queue.db", "queue.db-wal"].contains(&name.to_str().expect("UTF-8"))
        });
        for secret in [AGENTS_KEY, BY_MACRO, ON_THE_LINE] {
            assert!(!holds(&bytes, secret), "{secret} in {}", path.display());
        }
        // The spec is kept as it was pushed, its key and its arguments too.
        for secret in [SUBMITTERS_KEY, BY_NAME] {
            assert!(
                is_database || !holds(&bytes, secret),
                "{secret} in {}",
                path.display()
            );
        }
    }
    check_modes(&state);
    let mode = fs::metadata(sandbox.path("agent.log"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn no_secret_of_w_and_b_is_anywhere_on_the_machine() {
    let peer = Peer::new(&["q"]);
    let mut sandbox = Sandbox::with_fake_docker(
        "until [ -e $FAKE/go ]; do read -t 0.02 <> <(:) || true; done\n\
         echo \"$WANDB_API_KEY\"; printf 'api:%s' \"$WANDB_API_KEY\" | base64 -w0; exit 1",
    );
    sandbox.set("WANDB_BASE_URL", &peer.url);
    sandbox.set("WANDB_API_KEY", KEY);
    let spec = |key: Option<&str>| {
        json!({
            "entity": "me", "project": "p", "docker": {"docker_image": "job:1"}, "_wandb_api_key": key,
            "resource_args": {"local-container": {}}
        })
    };
    let items = [None, Some(SUBMITTERS_KEY)].map(|key| peer.model().add_item("q", spec(key)));
    let log = fs::File::create(sandbox.path("agent.err")).expect("a file");
    let command = sandbox.command(&["-q", "q", "--once", "-vv", "-j", "2"]);
    let agent = without_umask(&command)
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .spawn()
        .expect("the agent starts");
    sandbox.wait_for("two containers", || sandbox.calls("run").len() == 2);
    // Ctrl-\ would write what the agent knows into a file.
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.id())).expect("limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.expect("a limit").split_whitespace().collect();
    assert_eq!(core[4], "0", "{limits}");
    // Nobody sees the key among the processes, and the client that has it in its environment is the agent's own user's.
    for entry in fs::read_dir("/proc").expect("processes").flatten() {
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        for secret in [KEY, SUBMITTERS_KEY] {
            assert!(
                !holds(&arguments, secret),
                "{}",
                String::from_utf8_lossy(&arguments)
            );
        }
    }
    for item in &items {
        let run = peer.model().item(item).run.clone().expect("a run");
        peer.model().set_run("me", "p", &run, "running");
    }
    sandbox.write("fake/go", "");
    let status = agent.wait_with_output().expect("an end").status;
    assert_eq!(status.code(), Some(1));
    let said = sandbox.read("agent.err");
    assert!(said.contains("[redacted]"), "{said}");
    let state = sandbox.path(".local/state/launch-agent");
    for path in files(&state)
        .into_iter()
        .filter(|path| path.is_file())
        .chain([sandbox.path("agent.err"), sandbox.path("fake/calls")])
    {
        let bytes = fs::read(&path).expect("read");
        for form in [KEY, SUBMITTERS_KEY].into_iter().flat_map(forms) {
            assert!(!holds(&bytes, &form), "{form} in {}", path.display());
        }
    }
    check_modes(&state);
}

#[test]
fn what_a_failed_command_said_is_reported_without_secrets() {
    // What `curl -v` shows of a proxy.
    let basic = "echo \"Proxy-Authorization: Basic $(printf me:sesame-open | base64)\"";
    let sandbox = Sandbox::with_fake_docker(basic);
    sandbox.write(
        ".config/wandb/launch-config.yaml",
        "network: {proxy: 'http://me:sesame-open@proxy:3128'}\n",
    );
    sandbox.queue("q", "{}");
    let said = "Error response from daemon: denied: by http://me:sesame-open@proxy:3128\n";
    sandbox.write("fake/refusals", &said.repeat(2));
    sandbox.write("fake/registry", "");
    sandbox.write("fake/images", "ghcr.io/team/here:1\n");
    sandbox.write("fake/digests", "");
    let here = sandbox.push("ghcr.io/team/here:1", &[]);
    let away = sandbox.push("ghcr.io/team/away:1", &[]);
    let ran = sandbox.once(&[]).code(1);
    let log = sandbox.log(&here);
    assert!(log.contains("Basic bWU6"), "{log}");
    assert!(!log.contains("bWU6c2VzYW1l"), "{log}");
    let items = [sandbox.item(&here), sandbox.item(&away)].map(|item| item.to_string());
    for text in [&items[0], &items[1], &ran.stdout, &ran.stderr] {
        assert!(text.contains("denied: by [redacted]"), "{text}");
        assert!(!text.contains("sesame"), "{text}");
    }
}

#[test]
fn a_job_that_the_owner_would_refuse_by_now_is_followed_without_its_secrets() {
    let mut sandbox = Sandbox::with_fake_docker(
        "echo begun; until [ -e $FAKE/go ]; do sleep 0.02; done; echo token $HF_TOKEN",
    );
    sandbox.set("HF_TOKEN", BY_NAME);
    sandbox.queue("q", r#"{"env": ["HF_TOKEN"]}"#);
    let id = sandbox.push("job:1", &[]);
    let mut agent = sandbox.start_agent(&[]);
    sandbox.wait_for("its first line", || sandbox.log(&id).contains("begun"));
    agent.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(agent.wait(&sandbox), None);
    sandbox.write(
        ".config/wandb/launch-config.yaml",
        "policy: {deny: [env], images: [other]}\n",
    );
    let mut agent = sandbox.start_agent(&["--once"]);
    sandbox.wait_for("it to be followed", || !sandbox.calls("logs").is_empty());
    sandbox.write("fake/go", "");
    assert_eq!(agent.wait(&sandbox), Some(0));
    let log = sandbox.log(&id);
    assert!(log.contains("token [redacted]"), "{log}");
    assert!(!log.contains(BY_NAME), "{log}");
}

#[test]
fn what_is_made_for_builds_and_logins_is_its_owners_alone() {
    let mut sandbox = Sandbox::with_fake_docker("true");
    sandbox.write_program("aws", "#!/bin/bash\necho token-of-aws\n");
    sandbox.write(
        ".config/wandb/launch-config.yaml",
        "backend: local\nqueues: [q]\nbuilder: {destination: 123.dkr.ecr.eu-west-1.amazonaws.com/r}\n",
    );
    sandbox.write("fake/registry", "");
    sandbox.write(
        "fake/manifest",
        "no such manifest: 123.dkr.ecr.eu-west-1.amazonaws.com/r\n",
    );
    sandbox.write("proj/train.py", "pass\n");
    sandbox.queue("q", "{}");
    let code = ["--code", "proj", "-E", "python train.py"];
    said(
        &sandbox,
        &[&["push", "-q", "q", "-p", "p"], &code[..]].concat(),
    );
    let all = said(&sandbox, &["--once"]);
    assert!(sandbox.read("fake/calls").contains("'push'"), "{all}");
    let state = sandbox.path(".local/state/launch-agent");
    let made = files(&state);
    for name in ["builds", "lock"] {
        assert!(made.iter().any(|path| path.ends_with(name)), "{made:?}");
    }
    check_modes(&state);
}
