//! Jobs of the embedded queue: `push --code` and `-j`, and what an agent makes of them.

use std::collections::BTreeMap;

use launch_agent::queue::local::{LocalQueue, NewFile};
use serde_json::json;

use super::{Fetched, fetch_job, fetch_spec};
use crate::common::sandbox::{Ran, Sandbox};

/// The embedded queue of a sandbox, in this process.
pub fn queue_of(sandbox: &Sandbox) -> LocalQueue {
    LocalQueue::open_existing(&sandbox.path(".local/state/launch-agent/queue.db")).expect("a queue")
}

fn push(sandbox: &Sandbox, arguments: &[&str]) -> Ran {
    sandbox.run(&[&["push", "-q", "q", "-p", "demo"], arguments].concat())
}

/// The name of the job that a push made.
pub fn job_of(sandbox: &Sandbox, ran: &Ran) -> String {
    let item = sandbox.item(ran.stdout.trim());
    item["spec"]["job"].as_str().expect("a job").to_owned()
}

fn fetch(sandbox: &Sandbox, job: &str) -> Fetched {
    let queue = queue_of(sandbox);
    fetch_job(
        &queue.artifacts_for_owner(),
        job,
        &sandbox.path("cache"),
        &BTreeMap::new(),
    )
}

/// Keeps a job of this description, and gives its name.
pub fn keep_job(queue: &LocalQueue, name: &str, job: &str, more: &[(&str, &str)]) -> String {
    let files = [("wandb-job.json", job)]
        .into_iter()
        .chain(more.iter().copied());
    let files = files.map(|(path, text)| {
        Ok(NewFile {
            path: path.to_owned(),
            content: Box::new(text.as_bytes()),
        })
    });
    let kept = queue
        .keep_artifact("local", "demo", name, "job", files)
        .expect("kept");
    format!("local/demo/{name}:v{}", kept.version.expect("a version"))
}

#[test]
fn a_folder_becomes_a_job_that_is_fetched_as_it_was() {
    let sandbox = Sandbox::new();
    sandbox.queue("q", "{}");
    sandbox.write("proj/train.py", "print(1)\n");
    sandbox.write("proj/pkg/go.sh", "#!/bin/sh\n");
    sandbox.write("proj/requirements.txt", "wandb\n");
    sandbox.write("proj/.python-version", "3.11.4\n");
    sandbox.write("proj/.gitignore", "data/\n");
    sandbox.write("proj/data/large", "x");
    let code = ["--code", "proj", "-E", "python train.py --lr '0 1'"];
    let ran = push(&sandbox, &code)
        .code(0)
        .says("left out: data/ (.gitignore)")
        .says("job local/demo/proj:v0");
    let job = job_of(&sandbox, &ran);
    assert_eq!(job, "local/demo/proj:v0");

    let fetched = fetch(&sandbox, &job);
    assert_eq!(
        fetched.code().job.entry_point,
        ["python", "train.py", "--lr", "0 1"]
    );
    assert_eq!(fetched.code().job.python.as_deref(), Some("3.11"));
    assert_eq!(fetched.read("train.py"), "print(1)\n");
    assert!(!fetched.scratch.code().join("data").exists());
    let source = fetched.code().source.as_ref().expect("a source");
    assert_eq!(source.files["requirements.txt"], "wandb\n");
    assert!(
        source.identity.starts_with("artifact:") && source.identity.len() == 73,
        "{}",
        source.identity
    );
    assert!(fetched.said.contains(&source.identity), "{}", fetched.said);

    let again = push(&sandbox, &code).code(0);
    assert_eq!(
        job_of(&sandbox, &again),
        job,
        "the same content is the same version"
    );
    sandbox.write("proj/train.py", "print(2)\n");
    let other = job_of(&sandbox, &push(&sandbox, &code).code(0));
    assert_eq!(other, "local/demo/proj:v1");
    assert_ne!(fetch(&sandbox, &other).identity(), fetched.identity());
    let by_alias = push(&sandbox, &["-j", "proj"]).code(0);
    assert_eq!(job_of(&sandbox, &by_alias), "local/demo/proj:latest");
    assert_eq!(
        fetch(&sandbox, "local/demo/proj:latest").read("train.py"),
        "print(2)\n"
    );
}

#[test]
fn what_cannot_become_a_job_is_told_at_the_push() {
    let sandbox = Sandbox::new();
    sandbox.queue("q", "{}");
    sandbox.write("proj/src/train.py", "");
    sandbox.write("proj/local.py", "");
    sandbox.write("proj/.gitignore", "local.py\n");
    for (arguments, said) in [
        (&["--code", "proj"][..], "--entry-point"),
        (
            &["--code", "proj", "-E", "python src/trian.py"],
            "did you mean `src/train.py`?",
        ),
        (
            &["--code", "proj", "-E", "python local.py"],
            "is left out of the code: local.py (.gitignore)",
        ),
        (
            &["--code", "proj", "-E", "python ../x.py"],
            "leads out of the job's code",
        ),
        (
            &["--code", "nowhere", "-E", "python x.py"],
            "cannot read nowhere",
        ),
        (
            &["--git", "http://host/r", "-E", "python x.py"],
            "is not a remote that a job may have",
        ),
        (
            &["--git=-u@x:y", "-E", "python x.py"],
            "is not a remote that a job may have",
        ),
        (
            &["-j", "nobody:v3"],
            "has no artifact `local/demo/nobody:v3`\nhint: check entity, project, name and alias; `push --code`",
        ),
        (&["-j", "a/b/c/d"], "is not the name of an artifact"),
    ] {
        let ran = push(&sandbox, arguments);
        assert_ne!(ran.code, Some(0), "{arguments:?}");
        ran.says(said);
    }
    assert_eq!(sandbox.ok(&["items", "--json"]).trim(), "[]");
    sandbox
        .run(&[
            "push",
            "-q",
            "nope",
            "-p",
            "demo",
            "--code",
            "proj",
            "-E",
            "python src/train.py",
        ])
        .code(6);
}

#[test]
fn over_wandb_the_way_to_make_a_job_is_named() {
    let mut sandbox = Sandbox::new();
    sandbox.set("WANDB_API_KEY", "sesame-sesame-sesame");
    sandbox.set("WANDB_BASE_URL", "http://127.0.0.1:9");
    sandbox.write("proj/train.py", "");
    push(&sandbox, &["--code", "proj", "-E", "python train.py"])
        .code(2)
        .says("`wandb job create -n NAME -E \"python train.py\" code proj`");
}

#[test]
fn a_notebook_runs_as_the_script_of_its_cells() {
    let sandbox = Sandbox::new();
    sandbox.queue("q", "{}");
    let notebook = json!({"cells": [
        {"cell_type": "code", "source": ["%matplotlib inline\n", "x = 1\n"]},
        {"cell_type": "code", "source": "%%bash\nls"},
        {"cell_type": "code", "source": "print(x)"}]});
    sandbox.write("proj/nb/train.ipynb", &notebook.to_string());
    sandbox.write("proj/nb/train.py", "the author's own\n");
    let ran = push(
        &sandbox,
        &["--code", "proj", "-E", "python nb/train.ipynb 5"],
    )
    .code(0);
    let fetched = fetch(&sandbox, &job_of(&sandbox, &ran));
    let code = fetched.code();
    assert_eq!(
        code.job.entry_point,
        ["python", "nb/train_notebook.py", "5"]
    );
    assert!(
        fetched
            .read("nb/train_notebook.py")
            .contains("x = 1\n\n\nprint(x)\n")
    );
    assert_eq!(fetched.read("nb/train.py"), "the author's own\n");
    assert_eq!(
        code.warnings,
        [
            "the notebook `nb/train.ipynb` runs as a script without what only a notebook understands: `%matplotlib inline`, `%%bash`"
        ]
    );
}

#[test]
fn a_notebook_may_have_blanks_in_its_name() {
    let sandbox = Sandbox::new();
    sandbox.queue("q", "{}");
    let notebook = json!({"cells": [{"cell_type": "code", "source": "print(1)"}]});
    sandbox.write("proj/Untitled 1.ipynb", &notebook.to_string());
    for (entry_point, words) in [
        (
            "python 'Untitled 1.ipynb' 5",
            &["python", "Untitled 1.py", "5"][..],
        ),
        (
            "sh -lc 'jupyter run Untitled\\ 1.ipynb'",
            &["sh", "-lc", "jupyter run Untitled\\ 1.ipynb"],
        ),
    ] {
        let ran = push(&sandbox, &["--code", "proj", "-E", entry_point]).code(0);
        let fetched = fetch(&sandbox, &job_of(&sandbox, &ran));
        assert_eq!(fetched.code().job.entry_point, words);
    }
    let ran = push(
        &sandbox,
        &["--code", "proj", "-E", "python 'Untitled 2.ipynb'"],
    )
    .code(2);
    assert!(
        ran.stderr.contains("did you mean `Untitled 1.ipynb`?"),
        "{}",
        ran.stderr
    );
}

#[test]
fn an_image_job_runs_as_its_image() {
    let sandbox = Sandbox::with_fake_docker("echo ran");
    sandbox.queue("q", "{}");
    let job =
        r#"{"_version": "v0", "source_type": "image", "source": {"image": "job:1"}, "novelty": 1}"#;
    let name = keep_job(&queue_of(&sandbox), "boxed", job, &[]);
    let id = push(&sandbox, &["-j", "boxed:v0"])
        .code(0)
        .stdout
        .trim()
        .to_owned();
    sandbox.once(&[]).code(0);
    let item = sandbox.item(&id);
    let command = item["command"].as_str().expect("a command");
    assert!(command.contains("--env WANDB_DOCKER=job:1 "), "{command}");
    assert!(
        command.contains(&format!(r#"{{"_wandb_job": "{name}"}}"#)),
        "{command}"
    );
    assert!(
        item["warnings"][0]
            .as_str()
            .expect("a warning")
            .contains("`novelty`")
    );
    assert!(
        sandbox
            .log(&id)
            .contains("[launch-agent: source image:job:1]")
    );
    let work = sandbox.path(".cache/launch-agent/work");
    assert_eq!(
        std::fs::read_dir(work).expect("a folder").count(),
        0,
        "the job's folder is gone"
    );
}

#[test]
fn a_job_that_cannot_be_fetched_fails_with_the_reason() {
    let sandbox = Sandbox::with_fake_docker("echo ran");
    sandbox.queue("q", "{}");
    let queue = queue_of(&sandbox);
    let code = r#"{"source_type": "artifact", "source": {"artifact": "wandb-artifact://_id/QXJ0aWZhY3Q6OTk5", "entrypoint": ["python", "t.py"]}}"#;
    for (job, message) in [
        (
            keep_job(&queue, "broken", "{", &[]),
            "wandb-job.json: not JSON",
        ),
        (
            keep_job(&queue, "odd", r#"{"source_type": "x", "source": {}}"#, &[]),
            "its `source_type` is `x`",
        ),
        (
            keep_job(&queue, "lost", code, &[]),
            "the code of job `local/demo/lost:v0`: ",
        ),
    ] {
        let id = push(&sandbox, &["-j", &job])
            .code(0)
            .stdout
            .trim()
            .to_owned();
        sandbox.once(&[]).code(1);
        let item = sandbox.item(&id);
        assert_eq!(
            (&item["state"], &item["stage"]),
            (&json!("FAILED"), &json!("build")),
            "{item}"
        );
        assert!(
            item["message"]
                .as_str()
                .expect("a message")
                .contains(message),
            "{item}"
        );
    }
    assert_eq!(sandbox.calls("run").len(), 0);
}

#[test]
fn an_entry_point_of_the_spec_goes_before_the_jobs() {
    let sandbox = Sandbox::new();
    sandbox.queue("q", "{}");
    sandbox.write("proj/a.py", "");
    sandbox.write("proj/b.py", "");
    sandbox.write("proj/ops/Dockerfile", "FROM scratch\n");
    let job = job_of(
        &sandbox,
        &push(&sandbox, &["--code", "proj", "-E", "python a.py"]).code(0),
    );
    let queue = queue_of(&sandbox);
    let fetched = |overrides| {
        let spec = json!({"project": "demo", "job": job, "overrides": overrides});
        let cache = sandbox.path("cache");
        fetch_spec(
            &queue.artifacts_for_owner(),
            &spec,
            &cache,
            &BTreeMap::new(),
        )
    };
    let other = fetched(json!({"entry_point": ["python", "b.py"], "dockerfile": "ops/Dockerfile"}));
    assert_eq!(other.code().job.entry_point, ["python", "b.py"]);
    assert_eq!(
        other.code().source.as_ref().expect("a source").files["ops/Dockerfile"],
        "FROM scratch\n"
    );
    let error = fetched(json!({"entry_point": ["python", "c.py"]})).error();
    assert!(error.contains("its code has no file `c.py`"), "{error}");
    // A Dockerfile that is named may make the script, or put it elsewhere.
    for script in ["c.py", "/app/c.py"] {
        let own = json!({"entry_point": ["python", script], "dockerfile": "ops/Dockerfile"});
        assert_eq!(fetched(own).code().job.entry_point, ["python", script]);
    }
}
