//! Specs and files that are too large, too deep, or full of what no text should hold: each runs, or is refused with
//! words, and the agent goes on.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::common::sandbox::Sandbox;
use rusqlite::Connection;
use serde_json::json;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_fake_docker("echo \"$WANDB_NAME\"");
    sandbox.queue("q", "{}");
    sandbox
}

fn push(spec: &str) -> Vec<&str> {
    vec!["push", "-q", "q", "-p", "p", "-d", "job:1", "-c", spec]
}

#[test]
fn a_spec_of_ten_megabytes_is_taken_and_told_that_no_kernel_takes_it() {
    let sandbox = sandbox();
    let config: serde_json::Map<_, _> = (0..100_000)
        .map(|n| (format!("key{n}"), json!("x".repeat(90))))
        .collect();
    let spec = json!({"overrides": {"run_config": config}}).to_string();
    assert!(spec.len() > 10_000_000);
    let file = sandbox.write("spec.json", &spec);
    let id = sandbox
        .ok(&push(file.to_str().expect("UTF-8")))
        .trim()
        .to_owned();
    let next = sandbox.push("job:1", &[]);
    let start = Instant::now();
    sandbox.once(&[]).code(1);
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
    let item = sandbox.item(&id);
    let message = item["message"].as_str().expect("a message");
    assert!(
        message.contains("more than this machine's kernel takes"),
        "{message}"
    );
    assert!(
        message.contains("hint: make the job's config or arguments smaller"),
        "{message}"
    );
    assert_eq!(sandbox.item(&next)["state"], "FINISHED");
}

#[test]
fn what_is_nested_too_deep_is_refused_with_words() {
    let sandbox = sandbox();
    let lists = format!("{{\"a\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let flow = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    let mut blocks = String::new();
    for depth in 0..2_000 {
        let _ = writeln!(blocks, "{}a:", " ".repeat(depth));
    }
    for (name, text) in [
        ("lists.json", &lists),
        ("objects.json", &objects),
        ("flow.yaml", &flow),
        ("blocks.yaml", &blocks),
    ] {
        let file = sandbox.write(name, text);
        let file = file.to_str().expect("UTF-8");
        // Every command reads files in one way; one that is quick to read shows it for all of them.
        let mut commands = vec![vec!["queue", "check", file]];
        if name == "lists.json" {
            commands.push(push(file));
            commands.push(vec!["queue", "create", "deep", "--config", file]);
            commands.push(vec!["render", "--spec", file]);
        }
        for command in commands {
            sandbox
                .run(&command)
                .code(2)
                .says(name)
                .says("recursion limit exceeded");
        }
        sandbox
            .run(&["config", "show", "--config", file])
            .code(3)
            .says(name);
    }
}

/// A push refuses such a spec: only somebody who writes into the database can bring one.
#[test]
fn a_stored_spec_that_no_push_would_take_is_named() {
    let sandbox = sandbox();
    let id = sandbox.push("job:1", &[]);
    // As deep as the database's own JSON goes, which is far deeper than the reader's.
    let deep = format!("{}{}", "[".repeat(900), "]".repeat(900));
    let spec = format!(
        r#"{{"project": "p", "image_uri": "job:1", "overrides": {{"run_config": {{"a": {deep}}}}}}}"#
    );
    Connection::open(sandbox.path(".local/state/launch-agent/queue.db"))
        .expect("a database")
        .execute("UPDATE items SET spec = ?1 WHERE id = 1", [spec])
        .expect("changed");
    sandbox
        .once(&[])
        .code(5)
        .says(&format!("item {id}"))
        .says("recursion limit exceeded");
}

#[test]
fn control_characters_are_run_or_refused_and_never_reach_a_terminal() {
    let sandbox = sandbox();
    let mut ids = Vec::new();
    for code in (1..32).chain([127, 0x85, 0x9b, 0x200b, 0x202e, 0x2028, 0xfeff]) {
        let character = char::from_u32(code).expect("a character");
        let spec = json!({
            "name": format!("a{character}b"), "run_id": format!("r{code}{character}"),
            "overrides": {"args": [format!("x{character}y")], "run_config": {format!("k{character}"): character}}
        });
        let file = sandbox.write("spec.json", &spec.to_string());
        ids.push(
            sandbox
                .ok(&push(file.to_str().expect("UTF-8")))
                .trim()
                .to_owned(),
        );
    }
    for (spec, place) in [
        (r#"{"name": "a\u0000b"}"#, "`name`"),
        (r#"{"run_id": "a\u0000b"}"#, "`run_id`"),
        (r#"{"overrides": {"args": ["a\u0000b"]}}"#, "`args`"),
        (
            r#"{"resource_args": {"local-container": {"env": ["A=\u0000"]}}}"#,
            "`env`",
        ),
    ] {
        sandbox.run(&push(spec)).code(2).says(place).says("NUL");
    }
    let ran = sandbox.once(&[]).code(0);
    for id in &ids {
        assert_eq!(sandbox.item(id)["state"], "FINISHED");
    }
    let shown = sandbox.ok(&["items"])
        + &ids
            .iter()
            .map(|id| sandbox.ok(&["item", "show", id]))
            .collect::<String>();
    for text in [&shown, &ran.stderr] {
        let bad = text
            .chars()
            .find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(bad, None, "{text:?}");
    }
}

#[test]
fn aliases_that_unfold_without_end_are_refused_at_once() {
    let sandbox = sandbox();
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        let _ = writeln!(bomb, "a{level}: &a{level} [{aliases}]");
    }
    let own = sandbox.write("agent.yaml", &format!("{bomb}registry: *a11\n"));
    let known = sandbox.write("registry.yaml", &{
        let mut text = String::from("registry:\n");
        for line in bomb.lines() {
            let _ = writeln!(text, "  {line}");
        }
        text
    });
    let queue = sandbox.write("queue.yaml", &bomb);
    let start = Instant::now();
    for path in [own, known] {
        let path = path.to_str().expect("UTF-8");
        sandbox
            .run(&["config", "show", "--config", path])
            .code(3)
            .says(".yaml");
        sandbox
            .run(&["--local", "-q", "q", "--once", "--config", path])
            .code(3);
    }
    let queue = queue.to_str().expect("UTF-8");
    sandbox
        .run(&["queue", "check", queue])
        .code(2)
        .says("queue.yaml");
    sandbox.run(&push(queue)).code(2).says("queue.yaml");
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}
