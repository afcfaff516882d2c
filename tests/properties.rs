//! What holds for all values, not only for those that somebody thought of.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use launch_agent::host::machine::machine;
use launch_agent::launch::build::{Settings, decide};
use launch_agent::launch::builder::Builder;
use launch_agent::launch::command::CommandLine;
use launch_agent::launch::docker_options::{Kind, OptionTable};
use launch_agent::launch::macros::Macros;
use launch_agent::launch::network::Network;
use launch_agent::launch::plan::{Context, plan, resolve};
use launch_agent::launch::policy::{Guard, Limits, Policy, Preset};
use launch_agent::launch::resource_args::options;
use launch_agent::launch::spec::{LaunchSpec, Object};
use launch_agent::launch::template::{Schemas, fill};
use launch_agent::launch::{document, python_json};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

/// Text that a program can be given: anything but NUL. Mixes the harmless, the special, and all of Unicode.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,8}",
        r#"[-=$`'"\\ !*?~#&|;<>(){}\[\]\n\t\r\x1b^%:,A-Z0-9]{0,12}"#,
        "[^\\x00]{0,12}",
        Just("--privileged".to_owned()),
        Just("$(touch x)".to_owned()),
        Just("--".to_owned()),
    ]
}

/// The words that bash makes out of a line, the program left out.
fn words_by_bash(line: &str, locale: &str) -> Vec<String> {
    let script = format!(
        "docker() {{ local word; for word in \"$@\"; do printf '%s\\0' \"$word\"; done; }}\n{line}"
    );
    let output = Command::new("bash")
        .args(["--norc", "-c", &script])
        .env("LC_ALL", locale)
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{line}: {output:?}");
    let mut words: Vec<String> = String::from_utf8(output.stdout)
        .expect("UTF-8")
        .split('\0')
        .map(str::to_owned)
        .collect();
    assert_eq!(words.pop().as_deref(), Some(""));
    words
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("a number of JSON", |float| float.is_finite())
            .prop_map(Value::from),
        "[0-9]{1,40}".prop_map(|digits| {
            let digits = digits.trim_start_matches('0');
            serde_json::from_str(if digits.is_empty() { "0" } else { digits }).expect("a number")
        }),
        any::<String>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// A value that an option may well take.
fn option_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => word().prop_map(Value::from),
        2 => any::<bool>().prop_map(Value::from),
        2 => prop::collection::vec(word(), 0..4).prop_map(Value::from),
        2 => prop::collection::vec(("[A-Z]{1,3}", word()), 0..3)
            .prop_map(|pairs| pairs.into_iter().collect::<BTreeMap<_, _>>())
            .prop_map(|pairs| json!(pairs)),
        1 => value(),
    ]
}

fn config() -> impl Strategy<Value = Object> {
    let names: Vec<String> = OptionTable::docker_28()
        .names()
        .map(str::to_owned)
        .collect();
    let key = (prop::sample::select(names), 0..4).prop_map(|(name, spelling)| match spelling {
        0 => format!("--{name}"),
        1 => name.replace('-', "_"),
        _ => name,
    });
    // Most configs of arbitrary values are refused as a whole; half of these keep only what is not refused by itself.
    (
        prop::collection::vec((key, option_value()), 0..8),
        any::<bool>(),
    )
        .prop_map(|(pairs, only_good)| {
            let table = OptionTable::docker_28();
            let is_good = |pair: &(String, Value)| {
                options(&Object::from_iter([pair.clone()]), &table).is_ok()
            };
            pairs
                .into_iter()
                .filter(|pair| !only_good || is_good(pair))
                .collect()
        })
}

/// The options that docker would see, and the index of the image: the first word that is neither an option nor the
/// value of one.
fn as_docker_reads(argv: &[String]) -> (Vec<(String, Option<String>)>, usize) {
    let table = OptionTable::docker_28();
    let mut options = Vec::new();
    let mut index = 2;
    while argv[index].starts_with('-') {
        let word = &argv[index];
        assert_ne!(word, "--");
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let known = table.find(name).expect("an option of docker");
        index += 1;
        let value = if known.kind == Kind::Flag || attached.is_some() {
            attached
        } else {
            index += 1;
            Some(argv[index - 1].clone())
        };
        options.push((known.name.clone(), value));
    }
    (options, index)
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        other => panic!("not an object: {other}"),
    }
}

/// Text that is no part of a macro or a template, so that pieces can be put together without making new ones.
fn plain_text() -> impl Strategy<Value = String> {
    "[^${}\\x00]{0,6}"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_is_what_bash_runs(words in prop::collection::vec(word(), 0..8), utf8 in any::<bool>()) {
        let command = CommandLine::new("docker").args(words.clone());
        let locale = if utf8 { "C.UTF-8" } else { "C" };
        prop_assert_eq!(&words_by_bash(&command.to_string(), locale), &words);
        let mut parts = CommandLine::new("docker");
        for word in &words {
            parts = parts.part([word]);
        }
        prop_assert_eq!(&words_by_bash(&parts.wrapped(), locale), &words);
        prop_assert_eq!(command.to_string().lines().count(), 1);
    }

    #[test]
    fn no_value_adds_an_option_or_moves_the_image(
        config in config(),
        args in prop::collection::vec(word(), 0..3),
        entry_point in prop::collection::vec(word(), 0..3),
        name in word(),
        run_id in word(),
    ) {
        let table = OptionTable::docker_28();
        let spec = json!({
            "project": "p", "image_uri": "the/image:1", "name": name, "run_id": run_id,
            "resource_args": {"local-container": config},
            "overrides": {"args": args, "entry_point": entry_point},
        });
        let (spec, _) = LaunchSpec::parse(&spec).expect("a good spec");
        let environment = BTreeMap::new();
        let open = Policy::of(Preset::Open);
        let guard = Guard { policy: &open, machine: machine() };
        let context = Context {
            item: "i", queue: "q", agent: "a", queue_entity: None, generated_run_id: "r", server: None,
            environment: &environment, env_macros: &[], secure_mode: false, guard, cidfile: Path::new("/cid"),
            network: &Network::default(),
            transfers: &launch_agent::launch::transfer::Transfers::default(),
        };
        let settings = Settings {
            builder: &Builder::default(),
            network: &Network::default(),
            has_buildx: &|| false,
            folder: Path::new("/state"),
            limits: &Limits::default(),
        };
        let program = decide(&spec, None, &settings);
        let Ok(launch) = program.and_then(|program| resolve(&spec, &program, &context, &|| None))
        else {
            return Ok(());
        };
        let argv = plan(&launch, &context).run.argv;
        let (seen, image) = as_docker_reads(&argv);
        prop_assert_eq!(&argv[image], "the/image:1");
        let words: Vec<String> = entry_point.iter().skip(1).chain(&args).cloned().collect();
        prop_assert_eq!(&argv[image + 1..], &words[..]);

        // Everything after the agent's own options is what the config says, and nothing else. Macros have been
        // filled in by then, so the words are compared where there are none.
        let Ok(asked) = options(&spec.resource_args, &table) else { return Ok(()) };
        let asked: Vec<String> = asked
            .iter()
            .filter(|option| entry_point.is_empty() || option.name != "entrypoint")
            .map(|option| table.find(&option.spelling).expect("known").name.clone())
            .chain((!entry_point.is_empty()).then(|| "entrypoint".to_owned()))
            .collect();
        let names: Vec<String> = seen.into_iter().map(|(name, _)| name).collect();
        prop_assert_eq!(&names[names.len() - asked.len()..], &asked[..]);
        let own = &names[..names.len() - asked.len()];
        prop_assert!(own.iter().all(|name| ["name", "label", "cidfile", "env"].contains(&name.as_str())));
    }

    #[test]
    fn macros_are_replaced_once(
        pieces in prop::collection::vec((plain_text(), 0..3usize), 0..6),
        values in prop::array::uniform3("[^\\x00]{0,4}(\\$\\{(A|B|run_id)\\})?[^\\x00]{0,4}"),
    ) {
        let names = ["A", "B", "run_id"];
        let environment: BTreeMap<String, String> =
            [("A", &values[0]), ("B", &values[1])].map(|(name, value)| (name.to_owned(), value.clone())).into();
        let macros = Macros {
            job: [
                ("project_name", None), ("entity_name", None), ("run_id", Some(&values[2])),
                ("run_name", None), ("image_uri", None), ("author", None),
            ],
            environment: &environment,
            allowed: &[],
        };
        let written: String = pieces.iter().map(|(text, index)| text.clone() + "${" + names[*index] + "}").collect();
        let expected: String = pieces.iter().map(|(text, index)| text.clone() + &values[*index]).collect();
        let filled = macros.fill(&object(json!({"x": [written]})));
        prop_assert_eq!(&filled.config["x"][0], &Value::from(expected));
        prop_assert!(filled.warnings.is_empty());
    }

    #[test]
    fn templates_are_filled_once(
        pieces in prop::collection::vec((plain_text(), 0..2usize), 0..6),
        values in prop::array::uniform2("[^\\x00]{0,4}(\\{\\{(a|b-1)\\}\\})?[^\\x00]{0,4}"),
    ) {
        let names = ["a", "b-1"];
        let schemas = Schemas::parse(&object(json!({"a": {"type": "string"}, "b-1": {"type": "string"}})))
            .expect("good schemas");
        let written: String = pieces.iter().map(|(text, index)| text.clone() + "{{" + names[*index] + "}}").collect();
        let expected: String = pieces.iter().map(|(text, index)| text.clone() + &values[*index]).collect();
        let config = object(json!({"x": [written], "both": "{{a}}{{b-1}}"}));
        let values = object(json!({"a": values[0], "b-1": values[1]}));
        let filled = fill(&config, &schemas, &values).expect("filled");
        prop_assert_eq!(&filled["x"][0], &Value::from(expected));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>(), bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = document::parse(&text, "t");
        let _ = document::parse(&String::from_utf8_lossy(&bytes), "t");
    }

    #[test]
    fn no_yaml_makes_the_reader_panic(text in r#"([-\[\]{},:?&*!|>'"%@` \n#~<a1.]|&a|\*a|: |- |<<: |\n  ){0,30}"#) {
        let _ = document::parse(&text, "t");
        let _ = document::parse(&format!("{{{text}"), "t");
    }

    #[test]
    fn json_is_read_as_it_was_written(value in value()) {
        let text = json!([value]).to_string();
        prop_assert_eq!(document::parse(&text, "t").expect("JSON").to_string(), text);
    }
}

/// One Python for all values: a process each would take minutes.
#[test]
fn json_for_python_is_what_python_writes() {
    let mut runner = TestRunner::deterministic();
    let values: Vec<Value> = (0..500)
        .map(|_| value().new_tree(&mut runner).expect("a value").current())
        .collect();
    let mut python = Command::new("python3")
        .args([
            "-c",
            "import json, sys\nfor line in sys.stdin.buffer:\n    print(json.dumps(json.loads(line)))",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut input = python.stdin.take().expect("a pipe");
    let lines: String = values
        .iter()
        .map(|value| value.to_string() + "\n")
        .collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = python.wait_with_output().expect("python3 ends");
    writer.join().expect("no panic").expect("written");
    let written = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(written.lines().count(), values.len());
    for (value, line) in values.iter().zip(written.lines()) {
        assert_eq!(python_json::dumps(value), line, "{value}");
    }
}
