//! Whatever is read from people and servers, read from anything at all: specs, queue configs, templates, macros, the
//! agent's own config. Nothing panics, and what comes out of it holds together.
//!
//! `tests/corpus` keeps the inputs that were worth a look; each goes through every reader. When an arbitrary input
//! fails, the smallest one that still does is printed: put it there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use launch_agent::cli::BackendArgs;
use launch_agent::config::{AgentConfig, Environment};
use launch_agent::failure::Kind;
use launch_agent::host::machine::machine;
use launch_agent::launch::build::{Settings, decide};
use launch_agent::launch::builder::Builder;
use launch_agent::launch::command::{CommandLine, Secret};
use launch_agent::launch::document;
use launch_agent::launch::macros::Macros;
use launch_agent::launch::network::Network;
use launch_agent::launch::plan::{Context, Plan, Server, plan, resolve, scheduler};
use launch_agent::launch::policy::{Guard, Limits, Policy, Preset};
use launch_agent::launch::resource_args::merge;
use launch_agent::launch::spec::{LaunchSpec, Object};
use launch_agent::launch::template::{self, Schemas};
use launch_agent::launch::transfer::Transfers;
use launch_agent::queue::local::check_definition;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::common::sandbox::Sandbox;

const KEY: &str = "canary-of-the-agent";

/// The plan of a spec, if it has one.
fn planned(spec: &Value, server: bool) -> Option<Plan> {
    let environment: BTreeMap<String, String> = [
        ("A", "${B} {{a}}"),
        ("B_TOKEN", "canary-of-a-macro"),
        ("C", "x\ny"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let server = server.then(|| Server {
        base_url: "http://localhost:1".to_owned(),
        api_key: Secret::new(KEY),
    });
    let open = Policy::of(Preset::Open);
    let context = Context {
        item: "i",
        queue: "q",
        agent: "a",
        queue_entity: None,
        generated_run_id: "r",
        server: server.as_ref(),
        environment: &environment,
        env_macros: &["B_TOKEN".to_owned()],
        secure_mode: false,
        guard: Guard {
            policy: &open,
            machine: machine(),
        },
        cidfile: Path::new("/cid"),
        network: &Network::default(),
        transfers: &Transfers::default(),
    };
    let (spec, _) = LaunchSpec::parse(spec).ok()?;
    if spec.is_scheduler {
        return scheduler(&spec, &context).ok();
    }
    let settings = Settings {
        builder: &Builder::default(),
        network: &Network::default(),
        has_buildx: &|| false,
        folder: Path::new("/state"),
        limits: &Limits::default(),
    };
    let program = decide(&spec, None, &settings).ok()?;
    let launch = resolve(&spec, &program, &context, &|| None).ok()?;
    Some(plan(&launch, &context))
}

/// What holds for every plan, however odd the spec.
fn check_plan(plan: &Plan) {
    let line = plan.to_string();
    assert_eq!(line.lines().count(), 1, "{line:?}");
    assert!(
        !line.contains(KEY) && !line.contains("canary-of-a-macro"),
        "{line}"
    );
    assert!(
        !plan
            .run
            .argv
            .iter()
            .any(|word| word.contains(KEY) || word.contains('\0')),
        "{line}"
    );
    let again = shlex::split(&line);
    // shlex knows no `$'..'`, which stands for what a terminal would act on; bash is asked about those elsewhere.
    if !line.contains("$'") {
        assert_eq!(again.as_ref(), Some(&plan.shown().argv), "{line}");
    }
}

/// Everything that reads a value.
fn read_value(value: &Value) {
    for server in [false, true] {
        if let Some(plan) = planned(value, server) {
            check_plan(&plan);
        }
    }
    let Value::Object(object) = value else { return };
    let empty = Object::new();
    let _ = check_definition(object, &empty, &|| None);
    let _ = check_definition(&empty, object, &|| None);
    let _ = check_definition(object, object, &|| None);
    if let Ok(schemas) = Schemas::parse(object) {
        let _ = template::fill(object, &schemas, object);
    }
    let _ = merge(object, object);
    let spec = json!({"project": "p", "image_uri": "i:1", "resource_args": {"docker": object}});
    if let Some(plan) = planned(&spec, true) {
        check_plan(&plan);
    }
}

/// Everything that reads text.
fn read_text(text: &str) {
    read_agent_file(text);
    for name in ["t", "t.json", "t.yaml"] {
        if let Ok(value) = document::parse(text, name) {
            read_value(&value);
        }
    }
    let environment = BTreeMap::from([(text.to_owned(), text.to_owned())]);
    let macros = Macros {
        job: [
            "project_name",
            "entity_name",
            "run_id",
            "run_name",
            "image_uri",
            "author",
        ]
        .map(|name| (name, Some(text))),
        environment: &environment,
        allowed: &[],
    };
    let object = |value: Value| value.as_object().cloned().expect("an object");
    let _ = macros.fill(&object(json!({text: text, "x": [text, {"y": text}]})));
    let schemas = object(json!({"a": {"schema": {"type": "string"}}}));
    let schemas = Schemas::parse(&schemas).expect("good");
    let _ = template::parse_assignment(text, &schemas);
    let _ = template::fill(
        &object(json!({"x": text})),
        &schemas,
        &object(json!({"a": text})),
    );
    read_value(
        &json!({"project": text, "image_uri": text, "run_id": text, "name": text, "entity": text, "job": text}),
    );
    read_value(
        &json!({"project": "p", "image_uri": "i:1", "resource_args": {"docker": {"env": [text], "label": text, text: text}}}),
    );
    let line = CommandLine::new("docker")
        .arg(text.replace('\0', ""))
        .to_string();
    assert_eq!(line.lines().count(), 1, "{line:?}");
}

/// A spec with the right keys and anything in them, which gets further than anything at all.
fn spec() -> impl Strategy<Value = Value> {
    const KEYS: [&str; 18] = [
        "project",
        "entity",
        "job",
        "docker",
        "image_uri",
        "uri",
        "resource",
        "resource_args",
        "overrides",
        "name",
        "run_id",
        "author",
        "sweep_id",
        "_wandb_api_key",
        "_resume_count",
        "docker_image",
        "local-container",
        "args",
    ];
    let text = prop_oneof![
        Just("p".to_owned()),
        Just("placeholder-uri-scheduler".to_owned()),
        Just("local-container".to_owned()),
        "\\$\\{[a-zA-Z_]{0,9}\\}?",
        "\\{\\{ ?[a-z-]{0,5} ?\\}?\\}?",
        any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    let key = prop_oneof![
        3 => prop::sample::select(&KEYS[..]).prop_map(str::to_owned),
        1 => prop::sample::select(&["env", "volume", "rm", "gpus", "entry_point", "run_config", "files"][..]).prop_map(str::to_owned),
        1 => text,
    ];
    let inner = leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    });
    prop::collection::vec((prop::sample::select(&KEYS[..]), inner), 0..8).prop_map(|pairs| {
        let mut spec = Object::new();
        spec.insert("project".to_owned(), Value::from("p"));
        spec.extend(
            pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value)),
        );
        Value::Object(spec)
    })
}

/// The agent's own file with the right keys and anything in them.
fn agent_file() -> impl Strategy<Value = String> {
    const KEYS: [&str; 24] = [
        "queue",
        "queues",
        "entity",
        "max_jobs",
        "max_schedulers",
        "secure_mode",
        "stopped_run_timeout",
        "verbosity",
        "builder",
        "registry",
        "environment",
        "base_url",
        "backend",
        "stop_grace",
        "timeout",
        "max_retries",
        "on_signal",
        "log_max_bytes",
        "min_free_disk",
        "engine",
        "network",
        "pull_policy",
        "transfer_timeout",
        "policy",
    ];
    let value = prop_oneof![
        any::<u64>().prop_map(|number| number.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        Just(u64::MAX.to_string()),
        prop::sample::select(
            &[
                "true",
                "~",
                "docker",
                "drain",
                "always",
                "local",
                "{type: docker}",
                "{type: ecr, uri: x}",
                "{destination: 'h:5/x'}",
                "{preset: open, allow: [x=*], max_memory: 1g}",
                "{mounts: [\"/a:ro\", b]}",
                "[a, b]",
                "http://[::1",
                "https://h",
                "1e400",
                ".inf",
                "!!binary x",
                "&a [*a]",
            ][..]
        )
        .prop_map(str::to_owned),
        any::<String>().prop_map(|text| Value::from(text).to_string()),
    ];
    prop::collection::vec((prop::sample::select(&KEYS[..]), value), 0..6).prop_map(|pairs| {
        let lines = pairs.iter().map(|(key, value)| format!("{key}: {value}\n"));
        lines.collect()
    })
}

/// Reads it as the agent does: it is good, or it is refused as what it is.
fn read_agent_file(text: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("agent.yaml");
    fs::write(&path, text).expect("written");
    let home = folder.path().to_str().expect("UTF-8");
    let args = BackendArgs {
        agent_config: Some(path),
        ..BackendArgs::default()
    };
    match AgentConfig::for_command(&args, &Environment::of([("HOME", home)])) {
        // Times that are added to the clock, and to each other.
        Ok(config) => {
            for time in [
                config.stop_grace.value,
                config.stopped_run_timeout.value,
                config.transfer_timeout.value,
            ] {
                let sum = time.checked_mul(2).expect("a time");
                assert!(
                    std::time::Instant::now().checked_add(sum).is_some(),
                    "{text}"
                );
            }
            assert!(!config.entries().is_empty());
        }
        Err(error) => assert_eq!(error.kind, Kind::Config, "{error} {text:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_spec_makes_a_plan_that_does_not_hold(spec in spec()) {
        read_value(&spec);
    }

    #[test]
    fn no_file_of_the_agent_breaks_it(text in agent_file()) {
        read_agent_file(&text);
    }

    #[test]
    fn no_text_breaks_a_reader(text in any::<String>()) {
        read_text(&text);
    }

    #[test]
    fn no_bytes_break_a_reader(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        read_text(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_text_of_the_readers_own_signs_breaks_one(
        text in r#"(\$\{|\{\{|\}\}|\}|[a-z_]{1,3}|["'\\:,\[\]{}\n &*!|>%@`#?-]|<<: |: |- |1e9|\.5|0x1f|~|!!int ){0,40}"#
    ) {
        read_text(&text);
    }
}

#[test]
fn the_corpus_is_read_without_harm() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("a corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() >= 20, "{files:?}");
    let sandbox = Sandbox::new();
    for path in files {
        let bytes = fs::read(&path).expect("read");
        read_text(&String::from_utf8_lossy(&bytes));
        // As the agent's own config: it is good, or it is refused by name.
        let name = path.to_str().expect("UTF-8");
        let ran = sandbox.run(&["config", "show", "--json", "--config", name]);
        match ran.code {
            Some(0) => assert!(ran.stdout.starts_with('{'), "{name}: {}", ran.stdout),
            Some(3) => assert!(ran.stderr.contains(name), "{name}: {}", ran.stderr),
            other => panic!("{name}: {other:?} {}", ran.stderr),
        }
    }
}
