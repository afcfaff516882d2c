//! Jobs of git repositories, from a real git on the other side: `ssh` is a script that runs what it is asked for on
//! this machine, as sshd would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use launch_agent::host::source::pin;
use launch_agent::launch::network::Network;
use serde_json::json;

use super::local::{job_of, keep_job, queue_of};
use super::{Fetched, fetch_job};
use crate::common::sandbox::Sandbox;

/// Answers as a host would: `closed` lets nobody in.
const SSH: &str = r#"#!/bin/bash
while [ $# -gt 0 ]; do
  case "$1" in -o|-p) shift 2 ;; -*) shift ;; *) break ;; esac
done
host=$1; shift
case "$host" in
  *closed) echo "git@closed: Permission denied (publickey)." >&2; exit 255 ;;
esac
exec sh -c "$*"
"#;

/// Git repositories of a sandbox, and the embedded queue that has jobs of them.
pub struct Place {
    pub sandbox: Sandbox,
    environment: BTreeMap<String, String>,
}

impl Place {
    pub fn new() -> Place {
        let mut sandbox = Sandbox::new();
        sandbox.write_program("ssh", SSH);
        let ssh = sandbox.path("bin/ssh").display().to_string();
        sandbox.set("GIT_SSH_COMMAND", &ssh);
        sandbox.queue("q", "{}");
        let environment = [("GIT_SSH_COMMAND".to_owned(), ssh)].into();
        Place {
            sandbox,
            environment,
        }
    }

    pub fn git(&self, repository: &str, arguments: &[&str]) -> String {
        let folder = self.sandbox.path(repository);
        std::fs::create_dir_all(&folder).expect("a folder");
        let output = Command::new("git")
            .args([
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@example.invalid",
                "-c",
                "protocol.file.allow=always",
            ])
            .args(arguments)
            .current_dir(folder)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .expect("git runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Makes a repository, or a further commit in it. Gives the commit.
    pub fn commit(&self, repository: &str, files: &[(&str, &str)]) -> String {
        self.git(repository, &["init", "-q", "-b", "main"]);
        for (path, text) in files {
            self.sandbox.write(&format!("{repository}/{path}"), text);
        }
        self.git(repository, &["add", "-A"]);
        self.git(
            repository,
            &["commit", "-q", "--allow-empty", "-m", "A commit"],
        );
        self.git(repository, &["rev-parse", "HEAD"])
    }

    /// Makes `repo` with this script and the submodule `lib`. Gives the commit.
    pub fn commit_with_submodule(&self, script: &str) -> String {
        self.commit("lib", &[("lib.py", "lib\n")]);
        self.commit("repo", &[("train.py", script)]);
        let lib = self.sandbox.path("lib").display().to_string();
        self.git("repo", &["submodule", "add", "-q", &lib, "lib"]);
        let url = format!("git@host:{lib}");
        self.git(
            "repo",
            &["config", "-f", ".gitmodules", "submodule.lib.url", &url],
        );
        self.commit("repo", &[])
    }

    pub fn remote(&self, repository: &str) -> String {
        format!("ssh://git@host{}", self.sandbox.path(repository).display())
    }

    fn fetch(&self, remote: &str, commit: &str, more: &[(&str, &str)]) -> Fetched {
        let job = json!({"source_type": "repo", "runtime": "3.11",
            "source": {"git": {"remote": remote, "commit": commit}, "entrypoint": ["python", "train.py"], "notebook": false}});
        let queue = queue_of(&self.sandbox);
        let name = keep_job(&queue, "repo", &job.to_string(), more);
        fetch_job(
            &queue.artifacts_for_owner(),
            &name,
            &self.cache(),
            &self.environment,
        )
    }

    fn cache(&self) -> PathBuf {
        self.sandbox.path("cache")
    }
}

#[test]
fn the_exact_commit_is_fetched_with_its_submodules_and_its_patch() {
    let place = Place::new();
    let commit = place.commit_with_submodule("one\ntwo\nthree\n");
    place.commit("repo", &[("train.py", "later\n")]);

    let remote = place.remote("repo");
    let plain = place.fetch(
        &remote,
        &commit,
        &[("requirements.frozen.txt", "wandb==1\n")],
    );
    assert_eq!(plain.identity(), format!("git:{remote}@{commit}"));
    assert_eq!(plain.read("train.py"), "one\ntwo\nthree\n");
    assert_eq!(plain.read("lib/lib.py"), "lib\n");
    assert_eq!(
        plain
            .code()
            .source
            .as_ref()
            .expect("a source")
            .frozen
            .as_deref(),
        Some("wandb==1\n")
    );
    assert!(
        !plain.scratch.code().join(".git").exists()
            && !plain.scratch.code().join("lib/.git").exists()
    );
    assert!(plain.said.contains("--depth 1"), "{}", plain.said);

    let patch = "diff --git a/train.py b/train.py\n--- a/train.py\n+++ b/train.py\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n";
    let patched = place.fetch(&remote, &commit, &[("diff.patch", patch)]);
    assert_eq!(patched.read("train.py"), "one\nTWO\nthree\n");
    let prefix = format!("git:{remote}@{commit}+");
    assert!(
        patched.identity().starts_with(&prefix) && patched.identity().len() == prefix.len() + 64
    );
    let wrong = patch.replace("-two", "-2");
    let error = place
        .fetch(&remote, &commit, &[("diff.patch", &wrong)])
        .error();
    assert_eq!(error, "the job's `diff.patch` does not apply: train.py:1");
    let climbing = patch.replace("train.py", "../train.py");
    let error = place
        .fetch(&remote, &commit, &[("diff.patch", &climbing)])
        .error();
    assert!(
        error.starts_with("the job's `diff.patch` does not apply"),
        "{error}"
    );
}

#[test]
fn branches_tags_and_short_names_are_fetched_too() {
    let place = Place::new();
    let commit = place.commit("repo", &[("train.py", "1\n")]);
    place.git("repo", &["tag", "-a", "v1", "-m", "A tag"]);
    place.commit("repo", &[("train.py", "2\n")]);
    let remote = place.remote("repo");
    for (name, text) in [("main", "2\n"), ("v1", "1\n"), (&commit[..12], "1\n")] {
        let fetched = place.fetch(&remote, name, &[]);
        assert_eq!(fetched.read("train.py"), text, "{name}\n{}", fetched.said);
    }
    assert_eq!(
        place.fetch(&remote, "v1", &[]).identity(),
        format!("git:{remote}@{commit}")
    );
}

/// A server that speaks git's older protocol gives by itself only what a branch or a tag names.
#[test]
fn an_older_commit_of_a_submodule_comes_from_a_server_that_gives_no_commit_alone() {
    let mut place = Place::new();
    place.sandbox.write_program(
        "ssh",
        &SSH.replace("exec sh", "unset GIT_PROTOCOL\nexec sh"),
    );
    let commit = place.commit_with_submodule("1\n");
    place.commit("lib", &[("lib.py", "later\n")]);
    let fetched = place.fetch(&place.remote("repo"), &commit, &[]);
    assert_eq!(fetched.read("lib/lib.py"), "lib\n", "{}", fetched.said);
}

#[test]
fn what_cannot_be_fetched_says_why() {
    let place = Place::new();
    place.commit("repo", &[("other.py", "1\n")]);
    let commit = place.git("repo", &["rev-parse", "HEAD"]);
    let remote = place.remote("repo");
    let nowhere = "a".repeat(40);
    for (remote, commit, message) in [
        (
            remote.as_str(),
            nowhere.as_str(),
            format!("{remote} has no commit `{nowhere}`"),
        ),
        (
            &remote,
            "nope",
            format!("{remote} has no commit, branch or tag `nope`"),
        ),
        (
            &remote,
            &commit,
            "its code has no file `train.py`".to_owned(),
        ),
        (
            "git@closed:repo",
            &commit,
            "the repository needs a login, and the agent has none that it takes".to_owned(),
        ),
        (
            "git@host:/nowhere/at/all",
            &commit,
            "there is no such repository".to_owned(),
        ),
    ] {
        let fetched = place.fetch(remote, commit, &[]);
        let error = fetched.error();
        assert!(error.contains(&message), "{error}\n{}", fetched.said);
        assert!(
            fetched.code.expect_err("an error").hint.is_some(),
            "{error}"
        );
    }
}

#[test]
fn a_repository_runs_nothing_and_reaches_no_other_transport() {
    let place = Place::new();
    let mark = place.sandbox.path("ran");
    let secret = place.commit("secret", &[("x", "sesame\n")]);
    place.commit(
        "repo",
        &[
            ("train.py", "1\n"),
            (".gitattributes", "*.py filter=evil\n"),
        ],
    );
    place.git(
        "repo",
        &[
            "submodule",
            "add",
            "-q",
            &place.sandbox.path("secret").display().to_string(),
            "sub",
        ],
    );
    let commit = place.commit("repo", &[]);
    assert_eq!(secret.len(), 40);
    let remote = place.remote("repo");
    let error = place.fetch(&remote, &commit, &[]).error();
    assert!(
        error.contains("a transport that a job may not use"),
        "{error}"
    );
    let touch = format!("touch {}", mark.display());
    let good = place.remote("secret");
    for (key, value) in [
        ("url", format!("ext::sh -c \"{touch}\"")),
        ("url", format!("fd::7;{touch}")),
        (
            "url",
            format!("file://{}", place.sandbox.path("secret").display()),
        ),
        ("url", "../secret".to_owned()),
        ("url", format!("--upload-pack={touch}")),
        ("url", format!("ssh://-oProxyCommand={touch}/x")),
        ("url", format!("-oProxyCommand={touch}:x")),
        ("url", "http://127.0.0.1:9/x".to_owned()),
        ("path", "-x".to_owned()),
        ("path", "../out".to_owned()),
        ("path", ".git/hooks".to_owned()),
        ("update", format!("!{touch}")),
    ] {
        let url = if key == "url" { &value } else { &good };
        place
            .sandbox
            .write("repo/.gitmodules", "[submodule \"sub\"]\n\tpath = sub\n");
        let set = |key: &str, value: &str| {
            let key = format!("submodule.sub.{key}");
            place.git("repo", &["config", "-f", ".gitmodules", &key, value]);
        };
        set("url", url);
        set(key, &value);
        let commit = place.commit("repo", &[]);
        let fetched = place.fetch(&remote, &commit, &[]);
        // What starts at the remote's own address is of the remote's own transport.
        assert_eq!(
            fetched.code.is_ok(),
            value == "../secret",
            "{key} {value}: {}",
            fetched.said
        );
        assert!(!mark.exists(), "{key} {value}");
    }
}

#[test]
fn a_push_pins_the_commit_of_a_branch() {
    let place = Place::new();
    let commit = place.commit("repo", &[("train.py", "1\n")]);
    let remote = place.remote("repo");
    let push = |url: &str| {
        place.sandbox.run(&[
            "push",
            "-q",
            "q",
            "-p",
            "demo",
            "--git",
            url,
            "-E",
            "python train.py",
        ])
    };
    let ran = push(&format!("{remote}@main"))
        .code(0)
        .says("job local/demo/repo:v0");
    let job = job_of(&place.sandbox, &ran);
    place.commit("repo", &[("train.py", "2\n")]);
    let queue = queue_of(&place.sandbox);
    let fetched = fetch_job(
        &queue.artifacts_for_owner(),
        &job,
        &place.cache(),
        &place.environment,
    );
    assert_eq!(fetched.identity(), format!("git:{remote}@{commit}"));
    assert_eq!(fetched.read("train.py"), "1\n");
    push(&format!("{remote}@mian"))
        .code(2)
        .says("did you mean `main`?");
    push("git@closed:repo").code(2).says("needs a login");
    assert_eq!(
        pin(
            &remote,
            Some(&commit),
            &place.environment,
            &Network::default()
        )
        .expect("a commit"),
        commit
    );
    assert!(Path::new(&place.sandbox.path("cache")).is_dir());
}
