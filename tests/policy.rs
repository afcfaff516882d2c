//! The owner's policy: the table of hostile specs, what holds for all mounts, and `policy check` from outside.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use launch_agent::cli::BackendArgs;
use launch_agent::config::{AgentConfig, Environment};
use launch_agent::launch::policy::{Asked, Check, Guard, Limits, Machine, Policy, cleaned};
use launch_agent::launch::resource_args::options_or_ask;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::common::sandbox::Sandbox;

/// The machine that `policy/hostile.md` describes.
const TABLE_MACHINE: Machine = Machine {
    real_path: |path| {
        let path = cleaned(&Path::new("/data").join(path));
        if path.starts_with("/locked") {
            return Err("/locked/x: Permission denied".to_owned());
        }
        let links = [
            ("/data/link", "/etc"),
            ("/data/nvidia0", "/dev/sda"),
            ("/var/run", "/run"),
            ("/proc/1/root", "/"),
        ];
        let led = links
            .iter()
            .find_map(|(link, target)| Some(Path::new(target).join(path.strip_prefix(link).ok()?)));
        // An empty rest would leave a slash at the end.
        Ok(cleaned(&led.unwrap_or(path)))
    },
    agent_of: |container| match container {
        "mine" => Some("a".to_owned()),
        "others" => Some("b".to_owned()),
        _ => None,
    },
    engine_address: || Some("unix:///var/run/docker.sock".to_owned()),
    engine_folder: || Some("/big/docker".into()),
};

/// The policy that `launch-config.yaml` makes of these keys, for the owner of the table's machine.
fn policy(keys: &Value) -> Policy {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("launch-config.yaml");
    std::fs::write(&file, json!({"policy": keys}).to_string()).expect("written");
    let args = BackendArgs {
        local: Some("/srv/queues/queue.db".into()),
        agent_config: Some(file),
        base_url: None,
    };
    let environment = Environment::of([("HOME", "/home/owner")]);
    let config = AgentConfig::for_command(&args, &environment).expect("a good config");
    let mut policy = config.policy.settled;
    // The file is where this test put it, which is no part of the table's machine.
    policy
        .own_places
        .retain(|place| !place.path.starts_with(folder.path()));
    policy
}

/// The verdict on everything that a config asks for; an error for one that is none.
fn judgement(policy: &Policy, machine: Machine, config: &Value) -> Result<Vec<Check>, String> {
    let config = config.as_object().expect("an object");
    let newer = || Some("Options:\n      --brand-new string   A newer option\n".to_owned());
    let options = options_or_ask(config, &newer).map_err(|error| error.message)?;
    let guard = Guard { policy, machine };
    let asked = Asked {
        image: "job:1",
        options: &options,
        builder: config.contains_key("builder"),
        agent: "a",
    };
    let checks = guard.judge(&asked);
    let is_refused = checks.iter().any(|check| !check.is_allowed());
    assert_eq!(guard.check(&asked).is_err(), is_refused);
    Ok(checks)
}

/// The first refusal, if there is one.
fn refusal(policy: &Policy, machine: Machine, config: &Value) -> Option<String> {
    let checks = match judgement(policy, machine, config) {
        Ok(checks) => checks,
        Err(message) => return Some(message),
    };
    let mut refusals = checks.into_iter().filter_map(|check| check.verdict.err());
    refusals.next().map(|refusal| {
        assert!(!refusal.hint.is_empty(), "{refusal:?}");
        refusal.rule
    })
}

fn json_of(cell: &str) -> Value {
    serde_json::from_str(cell.trim().trim_matches('`'))
        .unwrap_or_else(|error| panic!("{cell}: {error}"))
}

fn yes_or_no(refusal: Option<&String>) -> &'static str {
    if refusal.is_some() { "no" } else { "yes" }
}

fn with_reason(refusal: Option<String>) -> String {
    refusal.map_or("yes".to_owned(), |rule| format!("no: {rule}"))
}

/// A row of the table with the verdicts that the code gives.
fn judged(line: &str) -> String {
    let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
    match cells.as_slice() {
        [config, _, _, _, docker] if config.contains('{') => {
            let verdict = |preset: &str| {
                refusal(
                    &policy(&json!({"preset": preset})),
                    TABLE_MACHINE,
                    &json_of(config),
                )
            };
            let standard = verdict("standard");
            let strict = verdict("strict");
            let open = verdict("open");
            assert!(docker.trim().len() > 5, "what would docker do? {line}");
            assert!(
                standard.is_none() || strict.is_some(),
                "strict takes what standard refuses: {line}"
            );
            assert!(
                open.is_none() || standard.is_some(),
                "standard takes what open refuses: {line}"
            );
            format!(
                "|{config}| {} | {} | {} |{docker}|",
                with_reason(standard),
                yes_or_no(strict.as_ref()),
                yes_or_no(open.as_ref())
            )
        }
        [keys, config, _] if keys.contains('{') => {
            let verdict = refusal(&policy(&json_of(keys)), TABLE_MACHINE, &json_of(config));
            format!("|{keys}|{config}| {} |", with_reason(verdict))
        }
        _ => line.to_owned(),
    }
}

#[test]
fn hostile_specs_get_the_verdicts_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy/hostile.md");
    let text = std::fs::read_to_string(&path).expect("the table");
    let rewritten: String = text.lines().map(|line| judged(line) + "\n").collect();
    let rows = text.lines().filter(|line| line.starts_with("| `{")).count();
    assert!(rows >= 200, "only {rows} rows");
    if std::env::var_os("GOLDEN_REWRITE").is_some() {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI does not rewrite answers"
        );
        std::fs::write(&path, rewritten).expect("written");
        return;
    }
    let mut problems = String::new();
    for (written, judged) in text.lines().zip(rewritten.lines()) {
        if written != judged {
            let _ = writeln!(problems, "- {written}\n+ {judged}");
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
}

/// The keys that a hint says the owner would write.
fn advised(hint: &str) -> Option<Value> {
    let (_, advice) = hint.split_once("in launch-config.yaml with `policy: ")?;
    let (yaml, _) = advice.split_once("}`")?;
    Some(
        serde_yaml::from_str(&format!("{yaml}}}"))
            .unwrap_or_else(|error| panic!("{hint}: {error}")),
    )
}

/// The keys with what the advice adds to them.
fn with_advice(keys: &Value, advice: &Value) -> Value {
    let mut keys = keys.clone();
    for (key, value) in advice.as_object().expect("an object") {
        match (keys.get_mut(key).and_then(Value::as_array_mut), value) {
            (Some(list), Value::Array(more)) => list.extend(more.clone()),
            _ => keys[key] = value.clone(),
        }
    }
    keys
}

#[test]
fn what_a_hint_says_to_write_opens_what_was_refused() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy/hostile.md");
    let text = std::fs::read_to_string(path).expect("the table");
    let mut followed = 0;
    for line in text.lines().filter(|line| line.starts_with("| `{")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let (all_keys, config) = match cells.as_slice() {
            [config, _, _, _, _] => (
                vec![json!({"preset": "standard"}), json!({"preset": "strict"})],
                json_of(config),
            ),
            [keys, config, _] => (vec![json_of(keys)], json_of(config)),
            _ => panic!("{line}"),
        };
        for mut keys in all_keys {
            let refused = |keys: &Value| {
                let checks = judgement(&policy(keys), TABLE_MACHINE, &config).unwrap_or_default();
                checks.into_iter().find_map(|check| {
                    let hint = check.verdict.err()?.hint;
                    Some((check.given, advised(&hint)?))
                })
            };
            // One that `strict` does not have may also be one that depends on its value; and there may be several.
            let mut steps = Vec::new();
            while let Some((given, advice)) = refused(&keys) {
                assert!(
                    !steps.contains(&(given.clone(), advice.clone())),
                    "`{given}` stays refused with {advice}: {line}"
                );
                keys = with_advice(&keys, &advice);
                steps.push((given, advice));
            }
            followed += steps.len();
        }
    }
    assert!(followed > 150, "only {followed}");
}

/// The same path in another spelling, from the agent's folder `/data` on where it is not a whole one.
fn respelled(path: &'static str) -> impl Strategy<Value = String> {
    let separator = prop::sample::select(vec![
        "/",
        "//",
        "/./",
        "/x/../",
        "/x/y/../../",
        "/../data/../",
    ]);
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let start = prop::sample::select(vec![
        "/",
        "//",
        "../",
        "./../",
        "../../",
        "/../",
        "/data/../",
        "/none/.././",
    ]);
    let end = prop::sample::select(vec!["", "/", "/.", "/x/.."]);
    (start, prop::collection::vec(separator, parts.len()), end).prop_map(
        move |(start, separators, end)| {
            let mut text = start.to_owned();
            for (index, part) in parts.iter().enumerate() {
                // "/../data/../" leaves what is before it, so it only stands where that is `/`.
                let separator = match separators[index] {
                    "/../data/../" => "/",
                    other => other,
                };
                text.push_str(if index == 0 { "" } else { separator });
                text.push_str(part);
            }
            text + end
        },
    )
}

/// A source that no job of the preset `standard` may have.
fn refused_source() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "etc",
        "etc/shadow",
        "data/link",
        "data/link/cron.d",
        "root/.ssh",
        "run/docker.sock",
        "var/run/docker.sock",
        "var/lib/docker/volumes",
        "proc/1/root",
        "dev",
        "sys/fs/cgroup",
        "home",
        "home/owner",
        "home/owner/.netrc",
        "home/owner/.docker/config.json",
        "home/owner/.config/wandb",
        "home/owner/.local/state/launch-agent",
        "home/bob/.ssh/id_ed25519",
        "srv",
        "srv/queues",
        "srv/queues/queue.db",
        "srv/queues/queue.logs/1.log",
        "tmp",
    ])
    .prop_flat_map(respelled)
}

/// A key as docker takes it, in upper or lower case.
fn key(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    (prop::sample::select(names.to_vec()), any::<bool>()).prop_map(|(name, upper)| {
        if upper {
            name.to_uppercase()
        } else {
            name.to_owned()
        }
    })
}

/// A `mount` of this source in any spelling.
fn mount_of(source: String) -> impl Strategy<Value = Value> {
    let bind = (
        key(&["type"]),
        prop::sample::select(vec!["bind", "BIND", "Bind"]),
    )
        .prop_map(|(key, value)| format!("{key}={value}"));
    let from = key(&["source", "src"]).prop_map(move |key| format!("{key}={source}"));
    let to = key(&["target", "dst", "destination"]).prop_map(|key| format!("{key}=/x"));
    let more = prop::sample::subsequence(
        vec![
            "readonly",
            "ro=1",
            "bind-propagation=rslave",
            "consistency=cached",
            "bind-recursive=disabled",
        ],
        0..3,
    );
    ((bind, from, to), more, any::<u64>(), any::<bool>()).prop_flat_map(
        |((bind, from, to), more, quotes, blank)| {
            let mut fields = vec![bind, from, to];
            fields.extend(more.into_iter().map(str::to_owned));
            Just(fields).prop_shuffle().prop_map(move |fields| {
                let fields: Vec<String> = fields
                    .iter()
                    .enumerate()
                    .map(|(index, field)| {
                        if quotes >> index & 1 == 1 {
                            format!("\"{field}\"")
                        } else {
                            field.clone()
                        }
                    })
                    .collect();
                let start = if blank { "\n" } else { "" };
                json!({"mount": format!("{start}{}", fields.join(","))})
            })
        },
    )
}

/// A `volume` of this source in any spelling.
fn volume_of(source: String) -> impl Strategy<Value = Value> {
    let option = prop::sample::select(vec!["volume", "v", "-v", "--volume"]);
    let mode = prop::sample::select(vec![
        "",
        ":ro",
        ":rw",
        ":z",
        ":ro,Z",
        ":rslave",
        ":nocopy",
        ":cached,ro",
        ":what",
    ]);
    (option, mode, any::<bool>()).prop_map(move |(option, mode, list)| {
        let value = format!("{source}:/x{mode}");
        if list {
            json!({option: ["/data:/d", value]})
        } else {
            json!({option: value})
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_spelling_of_a_refused_source_passes(
        config in refused_source().prop_flat_map(|source| {
            prop_oneof![volume_of(source.clone()).boxed(), mount_of(source).boxed()]
        }),
    ) {
        let policy = standard();
        prop_assert!(refusal(policy, TABLE_MACHINE, &config).is_some(), "{}", config);
    }

    #[test]
    fn no_value_makes_the_policy_panic(
        option in prop::sample::select(vec!["volume", "mount", "gpus", "device", "publish", "network", "memory", "cpus"]),
        text in r#"[-/.:=,"~a-zA-Z0-9 \n*]{0,30}|[^\x00]{0,20}"#,
    ) {
        let limited = Policy {
            limits: Limits { memory: Some(1), cpus: Some(1.0), gpus: Some(1), shm_size: Some(1) },
            ..standard().clone()
        };
        let _ = refusal(&limited, TABLE_MACHINE, &json!({option: text}));
    }
}

/// The policy of an owner who wrote nothing.
fn standard() -> &'static Policy {
    static STANDARD: OnceLock<Policy> = OnceLock::new();
    STANDARD.get_or_init(|| policy(&json!({})))
}

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
    let readme = include_str!("../README.md");
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
    let shown: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
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
    let sandbox = Sandbox::with_fake_docker("[[ $1 != launch-agent-look-* ]]");
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
