//! The rooms' rules, checked on the text of the source: what a file may not name, and where. Comments and the test
//! module at the bottom of a file are not code of the room and do not count.

use std::fs;
use std::path::Path;

/// What may not be named, and where it may be after all.
struct Rule {
    /// The rule is about the files whose path starts so.
    within: &'static str,
    /// Files whose path starts so are excepted.
    except: &'static [&'static str],
    /// What may not be named.
    words: &'static [&'static str],
    /// What to tell whoever did.
    why: &'static str,
}

const RULES: [Rule; 9] = [
    Rule {
        within: "src/launch/",
        except: &[],
        words: &[
            "std::fs",
            "std::env",
            "std::process",
            "std::net",
            "std::thread",
            "std::{",
            "SystemTime",
            "Instant",
            "jiff",
            ".exists()",
            ".is_file()",
            ".is_dir()",
            ".canonicalize()",
        ],
        why: "launch/ is pure: values in, values out",
    },
    Rule {
        within: "src/",
        except: &["src/queue/"],
        words: &["ureq"],
        why: "only queue/ talks to a server",
    },
    Rule {
        within: "src/",
        except: &["src/queue/local"],
        words: &["rusqlite"],
        why: "only the embedded queue says SQL",
    },
    Rule {
        within: "src/",
        except: &["src/host/process.rs"],
        words: &["Command::new"],
        why: "only host/process.rs spawns",
    },
    Rule {
        within: "src/",
        except: &["src/commands/"],
        words: &["print!", "println!"],
        why: "only commands/ print",
    },
    Rule {
        within: "src/",
        except: &["src/serve/http"],
        words: &["async", ".await", "tokio", "hyper", "hyper_util"],
        why: "only serve/http.rs is async",
    },
    Rule {
        within: "src/",
        except: &["src/serve/"],
        words: &["juniper"],
        why: "only serve/ says GraphQL",
    },
    Rule {
        within: "src/serve/",
        except: &[],
        words: &["rusqlite", "host::", "docker::", "wandb::"],
        why: "serve/ calls the embedded queue: no SQL, no docker, no other queue",
    },
    Rule {
        within: "src/serve/http",
        except: &[],
        words: &["queue::", "juniper", "serde_json"],
        why: "serve/http.rs knows connections, not what is served",
    },
];

/// Every rule that a file breaks, with the line.
fn broken(path: &str, text: &str) -> Vec<String> {
    let code = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text);
    let mut problems = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let line = line.split("//").next().unwrap_or(line);
        for rule in &RULES {
            let applies = path.starts_with(rule.within)
                && !rule.except.iter().any(|except| path.starts_with(except));
            for word in rule
                .words
                .iter()
                .filter(|word| applies && names(line, word))
            {
                let number = index + 1;
                problems.push(format!("{path}:{number}: `{word}`: {}", rule.why));
            }
        }
    }
    problems
}

/// Whether a line has the word, not only as a part of a longer one (`Instantiate`, or a header's `use-async-stream`).
fn names(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let ends_in_word = word.ends_with(is_part);
    line.match_indices(word).any(|(start, _)| {
        let after = line[start + word.len()..].chars().next();
        !(ends_in_word && after.is_some_and(is_part))
    })
}

fn visit(folder: &Path, root: &Path, problems: &mut Vec<String>, files: &mut usize) {
    for entry in fs::read_dir(folder).expect("a folder of the source") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            visit(&path, root, problems, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *files += 1;
            let name = path.strip_prefix(root).expect("under the root");
            let text = fs::read_to_string(&path).expect("source is text");
            problems.extend(broken(&name.to_string_lossy(), &text));
        }
    }
}

#[test]
fn every_room_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut problems, mut files) = (Vec::new(), 0);
    visit(&root.join("src"), root, &mut problems, &mut files);
    assert!(files > 20, "only {files} files were found");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_check_can_fail() {
    for (path, text, count) in [
        (
            "src/launch/plan.rs",
            "use std::fs;\nlet now = Instant::now();",
            2,
        ),
        ("src/launch/plan.rs", "use std::{fs, env};", 1),
        ("src/launch/plan/settle.rs", "if path.exists() {", 1),
        (
            "src/launch/plan.rs",
            "// std::fs is not for here\nInstantiate",
            0,
        ),
        (
            "src/launch/plan.rs",
            "fn f() {}\n#[cfg(test)]\nmod tests {\n use std::fs;\n}",
            0,
        ),
        ("src/agent/mod.rs", "ureq::get(url)", 1),
        (
            "src/queue/wandb/mod.rs",
            "ureq::get(url); rusqlite::open()",
            1,
        ),
        ("src/queue/local/schema.rs", "use rusqlite::Connection;", 0),
        ("src/host/runner.rs", "Command::new(\"docker\")", 1),
        ("src/host/runner.rs", "CommandLine::new(\"docker\")", 0),
        ("src/host/process.rs", "Command::new(program)", 0),
        ("src/host/logs.rs", "println!(\"x\"); eprint!(\"y\");", 2),
        ("src/commands/push.rs", "println!(\"x\");", 0),
        ("src/agent/mod.rs", "async fn f() { g().await }", 2),
        ("src/serve/routes.rs", "use tokio::net; use rusqlite::X;", 3),
        ("src/serve/routes.rs", "\"x-use-async-stream\"", 0),
        ("src/serve/http.rs", "async fn f() { juniper::x() }", 1),
        ("src/serve/http/incoming.rs", "use tokio::time;", 0),
    ] {
        let problems = broken(path, text);
        assert_eq!(problems.len(), count, "{path}: {text}: {problems:?}");
    }
}

#[test]
fn without_serve_there_is_no_async_runtime_in_the_tree() {
    let tree = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO"))
            .args([
                "tree",
                "--locked",
                "--offline",
                "--prefix=none",
                "-e",
                "normal",
            ])
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let has = |tree: &str, name: &str| {
        tree.lines()
            .any(|line| line.split(' ').next() == Some(name))
    };
    let (with, without) = (tree(&[]), tree(&["--no-default-features"]));
    for name in ["tokio", "hyper", "hyper-util", "juniper", "futures"] {
        assert!(!has(&without, name), "{name}\n{without}");
    }
    assert!(has(&with, "tokio") && has(&without, "rusqlite"));
}
