//! The owner's policy: the table of hostile specs, and what holds for all mounts.

mod program;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use launch_agent::cli::BackendArgs;
use launch_agent::config::{AgentConfig, Environment};
use launch_agent::launch::policy::{Asked, Check, Guard, Limits, Machine, Policy, cleaned};
use launch_agent::launch::resource_args::options_or_ask;
use proptest::prelude::*;
use serde_json::{Value, json};

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
    can_read: |path| !path.starts_with("/data/closed"),
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
fn homes_that_links_lead_to_are_guarded_where_they_are() {
    let machine = Machine {
        real_path: |path| {
            let led = [("/home", "/big/people"), ("/root", "/var/roothome")]
                .iter()
                .find_map(|(link, to)| Some(Path::new(to).join(path.strip_prefix(link).ok()?)));
            Ok(cleaned(&led.unwrap_or_else(|| path.to_owned())))
        },
        ..TABLE_MACHINE
    };
    for (folder, is_taken) in [
        ("/home/bob/.ssh", false),
        ("/big/people/bob/.ssh", false),
        ("/big/people/bob", false),
        ("/big/people", false),
        ("/big", false),
        ("/root/.docker", false),
        ("/var/roothome/.docker", false),
        ("/big/people/bob/data", true),
        ("/home/bob/data", true),
        ("/data", true),
    ] {
        let config = json!({"volume": format!("{folder}:/x")});
        let refused = refusal(&policy(&json!({})), machine, &config);
        assert_eq!(refused.is_none(), is_taken, "{folder}: {refused:?}");
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
