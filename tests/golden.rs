//! Worked examples: each folder of `tests/golden` is one, and says what `launch-agent render` prints for it.
//!
//! A folder holds a launch spec (`item.json` or `item.yaml`), a queue's config (`queue.json`, `queue.yaml`), or both;
//! and, where they matter, an agent's configuration (`agent.yaml`), the agent's environment (`env.txt`), and further
//! words of the command line (`flags.txt`). `plan.txt` is the answer, an option a line, and `error.txt` is the answer
//! of an example that is refused.
//!
//! `GOLDEN_REWRITE=1 cargo test golden` writes the answers anew; read the difference before you commit it. CI
//! never does: with `CI` set the variable is refused.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use launch_agent::launch::command::CommandLine;
use launch_agent::launch::docker_options::{Kind, OptionTable};

/// Words longer than this are cut in `plan.txt`, so that it can be read.
const LONGEST_WORD: usize = 300;

fn render(folder: &Path, format: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_launch-agent"));
    command
        .current_dir(folder)
        .env_clear()
        .env("HOME", "/home/agent")
        .args(["render", "--format", format]);
    for (flag, names) in [
        ("--spec", ["item.json", "item.yaml"]),
        ("--queue-config", ["queue.json", "queue.yaml"]),
        ("--agent-config", ["agent.yaml", "agent.yaml"]),
    ] {
        if let Some(name) = names.iter().find(|name| folder.join(name).exists()) {
            command.args([flag, name]);
        }
    }
    let lines = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    for line in lines("env.txt").lines() {
        let (name, value) = line.split_once('=').expect("NAME=VALUE in env.txt");
        command.env(name, value);
    }
    command.args(lines("flags.txt").split_whitespace());
    command.output().expect("launch-agent runs")
}

/// What the folder's answer should be: the file's name and its text.
fn answer(folder: &Path) -> (&'static str, String) {
    let shell = render(folder, "shell");
    let talk = String::from_utf8(shell.stderr).expect("UTF-8");
    if !shell.status.success() {
        assert_eq!(shell.status.code(), Some(2), "{talk}");
        assert!(shell.stdout.is_empty());
        return ("error.txt", talk);
    }
    let json = render(folder, "json");
    let answer: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let argv = words(&answer["run"]).expect("a list");
    let lines = String::from_utf8(shell.stdout).expect("UTF-8");
    let pull = words(&answer["pull"]).map(|argv| format!("{}\n", command_line(&argv)));
    let pull = pull.unwrap_or_default();
    let same = command_line(&argv);
    assert_eq!(
        lines,
        format!("{pull}{same}\n"),
        "both formats say the same"
    );

    let warnings = answer["warnings"].as_array().expect("a list").len();
    assert_eq!(talk.lines().count(), warnings, "{talk}");
    let mut text = pull + &an_option_a_line(&argv, answer["image"].as_str().expect("text"));
    if let Some(names) = answer["env_from_agent"]
        .as_array()
        .filter(|it| !it.is_empty())
    {
        let _ = write!(text, "\nby name: {}\n", serde_json::json!(names));
    }
    if !talk.is_empty() {
        let _ = write!(text, "\n{talk}");
    }
    ("plan.txt", text)
}

/// The words of an argv, where there is one.
fn words(argv: &serde_json::Value) -> Option<Vec<String>> {
    let words = argv.as_array()?.iter();
    Some(
        words
            .map(|word| word.as_str().expect("text").to_owned())
            .collect(),
    )
}

fn command_line(argv: &[String]) -> CommandLine {
    CommandLine::new(&argv[0]).args(&argv[1..])
}

/// The command with each option on a line of its own, found as docker would find them. Checks by the way that the
/// image is where docker looks for it.
fn an_option_a_line(argv: &[String], image: &str) -> String {
    let table = OptionTable::docker_28();
    let mut command = CommandLine::new(&argv[0]).arg(&argv[1]);
    let mut rest = argv[2..].iter().map(|word| cut(word));
    while let Some(word) = rest.next() {
        if !word.starts_with('-') {
            assert_eq!(word, image, "docker would run this image");
            return command.part([word]).args(rest).wrapped() + "\n";
        }
        let name = word.split('=').next().unwrap_or(&word);
        let known = table.find(name).expect("an option of docker");
        command = if known.kind == Kind::Flag {
            command.part([word])
        } else {
            let value = rest.next().expect("a value");
            command.part([word, value])
        };
    }
    panic!("no image in {argv:?}")
}

fn cut(word: &str) -> String {
    let length = word.chars().count();
    if length <= LONGEST_WORD {
        return word.to_owned();
    }
    let start: String = word.chars().take(60).collect();
    format!("{start}.. ({length} characters)")
}

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut folders: Vec<PathBuf> = fs::read_dir(root)
        .expect("tests/golden")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    folders.sort();
    folders
}

/// The lines that differ, with those around them left out.
fn difference(expected: &str, actual: &str) -> String {
    let mut text = String::new();
    let (mut old, mut new) = (expected.lines(), actual.lines());
    loop {
        match (old.next(), new.next()) {
            (None, None) => return text,
            (old, new) if old == new => {}
            (old, new) => {
                for (sign, line) in [('-', old), ('+', new)] {
                    if let Some(line) = line {
                        let _ = writeln!(text, "  {sign} {line}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_example_is_answered_as_written() {
    let rewrite = std::env::var_os("GOLDEN_REWRITE").is_some();
    assert!(
        !(rewrite && std::env::var_os("CI").is_some()),
        "CI does not rewrite answers"
    );
    let folders = folders();
    assert!(folders.len() >= 25, "only {} examples", folders.len());
    let mut problems = String::new();
    for folder in folders {
        let (name, actual) = answer(&folder);
        let file = folder.join(name);
        let other = folder.join(if name == "plan.txt" {
            "error.txt"
        } else {
            "plan.txt"
        });
        if rewrite {
            let _ = fs::remove_file(other);
            fs::write(&file, &actual).expect("written");
            continue;
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if expected != actual {
            let _ = writeln!(
                problems,
                "{}:\n{}",
                file.display(),
                difference(&expected, &actual)
            );
        } else if other.exists() {
            let _ = writeln!(problems, "{}: no longer true", other.display());
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
}
