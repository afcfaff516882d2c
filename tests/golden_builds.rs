//! Worked examples of jobs that are code: each folder of `tests/golden_builds` is one, and says which Dockerfile is built
//! of it, and by which line.
//!
//! A folder holds the job as `wandb job create` writes it (`wandb-job.json`, and `requirements.frozen.txt` where the
//! author's machine is known), the code (`source/`), and, where they matter, the launch spec (`item.json`, with the
//! queue's options in it) and the agent's builder (`builder.json`). `plan.txt` is the answer, or `error.txt`.
//!
//! `GOLDEN_REWRITE=1 cargo test golden` writes the answers anew, as in `tests/golden.rs`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use launch_agent::failure::Result;
use launch_agent::launch::build::{self, Program, Settings};
use launch_agent::launch::builder::{Builder, BuilderKind};
use launch_agent::launch::job::{Code, Job, Source};
use launch_agent::launch::network::Network;
use launch_agent::launch::policy::Limits;
use launch_agent::launch::resource_args::DockerOption;
use launch_agent::launch::spec::LaunchSpec;
use serde_json::{Value, json};

/// Where the code of every example is.
const CODE: &str = "/jobs/code";

fn read(folder: &Path, name: &str) -> Option<String> {
    fs::read_to_string(folder.join(name)).ok()
}

fn read_json(folder: &Path, name: &str) -> Option<Value> {
    read(folder, name).map(|text| serde_json::from_str(&text).expect("JSON"))
}

/// The files below a folder, by their path in it.
fn files(folder: &Path, prefix: &str, all: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            files(&path, &format!("{name}/"), all);
        } else {
            all.insert(name, fs::read_to_string(&path).expect("text"));
        }
    }
}

fn code(folder: &Path) -> Result<Code> {
    let text = read(folder, "wandb-job.json").expect("a job");
    let (job, warnings) = Job::parse("team/demo/example:v0", &text)?;
    let mut all = BTreeMap::new();
    files(&folder.join("source"), "", &mut all);
    Ok(Code {
        job,
        source: Some(Source {
            folder: PathBuf::from(CODE),
            identity: "artifact:example".to_owned(),
            files: all,
            frozen: read(folder, "requirements.frozen.txt"),
        }),
        warnings,
    })
}

fn builder(folder: &Path) -> Builder {
    let said = read_json(folder, "builder.json").unwrap_or_default();
    let text = |key: &str| said[key].as_str().map(str::to_owned);
    let pairs = |key: &str| {
        let pairs = said[key].as_object().into_iter().flatten();
        pairs.map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()))
    };
    Builder {
        kind: match said["type"].as_str() {
            Some("noop") => BuilderKind::Noop,
            _ => BuilderKind::Docker,
        },
        destination: text("destination"),
        platform: text("platform"),
        base_image: text("base_image"),
        build_args: pairs("build_args").collect(),
        timeout: None,
        secrets: pairs("secrets")
            .map(|(id, path)| (id, PathBuf::from(path)))
            .collect(),
    }
}

fn decide(folder: &Path, has_buildx: bool) -> Result<Program> {
    let mut spec = read_json(folder, "item.json").unwrap_or_else(|| json!({}));
    spec["project"] = "demo".into();
    spec["job"] = "team/demo/example:v0".into();
    let (spec, _) = LaunchSpec::parse(&spec).expect("a spec");
    build::decide(
        &spec,
        Some(&code(folder)?),
        &Settings {
            builder: &builder(folder),
            network: &Network::default(),
            has_buildx: &|| has_buildx,
            folder: Path::new("/home/agent/builds"),
            limits: &Limits::default(),
        },
    )
}

/// What the folder's answer should be: the file's name and its text.
fn answer(folder: &Path) -> (&'static str, String) {
    let program = match decide(folder, true) {
        Ok(program) => program,
        Err(error) => {
            let hint = error.hint.map(|hint| format!("hint: {hint}\n"));
            let text = format!("error: {}\n{}", error.message, hint.unwrap_or_default());
            return ("error.txt", text);
        }
    };
    let classic = decide(folder, false).expect("whoever builds");
    assert_eq!(program.image, classic.image, "the same image");
    let mut text = format!("image: {}\n", program.image);
    for (key, words) in [
        ("entry point", program.entry_point),
        (
            "options",
            program
                .options
                .iter()
                .flat_map(DockerOption::words)
                .collect(),
        ),
        ("warnings", program.warnings),
    ] {
        if !words.is_empty() {
            let _ = writeln!(text, "{key}: {}", json!(words));
        }
    }
    if let Some((build, classic)) = program.build.zip(classic.build) {
        let _ = write!(
            text,
            "\n{}\n{}\n\n{}",
            build.command, classic.command, build.dockerfile.text
        );
    }
    ("plan.txt", text)
}

#[test]
fn every_example_of_code_is_answered_as_written() {
    let rewrite = std::env::var_os("GOLDEN_REWRITE").is_some();
    assert!(
        !(rewrite && std::env::var_os("CI").is_some()),
        "CI does not rewrite answers"
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_builds");
    let mut folders: Vec<PathBuf> = fs::read_dir(root)
        .expect("tests/golden_builds")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    folders.sort();
    assert!(folders.len() >= 10, "only {} examples", folders.len());
    for folder in folders {
        let (name, actual) = answer(&folder);
        let file = folder.join(name);
        if rewrite {
            fs::write(&file, &actual).expect("written");
            continue;
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(expected, actual, "{}", file.display());
    }
}
