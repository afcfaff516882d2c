//! A job: what a job artifact's `wandb-job.json` describes, and the code that belongs to it once that is on this
//! machine. Pure.
//!
//! Source of the shapes: PROTOCOL section 5.

mod artifact_name;
mod parse;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use parse::{check_entry_point, python_version};

/// What is to run, as its author described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// `entity/project/name:v3`: the version behind the alias that was asked for.
    pub name: String,
    /// Where it comes from.
    pub source: JobSource,
    /// The program and its leading arguments; empty for an image job, whose image has its own.
    pub entry_point: Vec<String>,
    /// The entry point names a notebook.
    pub is_notebook: bool,
    /// The Python that it was made with, as `3.11`; `None` when it does not say.
    pub python: Option<String>,
    /// Run the code in this image as it is, mounted, without a build.
    pub base_image: Option<String>,
    /// The path of its own Dockerfile in the code.
    pub dockerfile: Option<String>,
    /// The folder in the code that a build with its own Dockerfile sees.
    pub build_context: Option<String>,
}

/// Where a job comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobSource {
    /// An image, as it is.
    Image(String),
    /// The files of a code artifact.
    Artifact(ArtifactName),
    /// A commit of a git repository.
    Git {
        /// `https://..`, `ssh://..` or `user@host:path`.
        remote: String,
        /// The commit's full name, or a branch or tag where the author pinned none.
        commit: String,
    },
}

/// How an artifact is named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ArtifactName {
    /// `wandb-artifact://_id/ID`
    Id(String),
    /// `entity/project/name:alias`, with or without `wandb-artifact://` before it.
    Path {
        /// The entity that it belongs to.
        entity: String,
        /// The project that it belongs to.
        project: String,
        /// Its collection.
        name: String,
        /// A version (`v3`) or an alias; `latest` where none was written.
        alias: String,
    },
}

/// The code of a job, on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The folder that holds the job's files and nothing else.
    pub folder: PathBuf,
    /// What makes it this code and no other; part of the tag of an image built from it. `artifact:<digest>`, or
    /// `git:<remote>@<commit>`, with `+<SHA-256 of the patch>` where there is one.
    pub identity: String,
    /// Those files of the folder that decide how it is built (see [`deciding_files`]), by their path in it, with
    /// their text.
    pub files: BTreeMap<String, String>,
    /// `requirements.frozen.txt` of the job artifact: every package of the author's machine.
    pub frozen: Option<String>,
}

/// A job with the code that belongs to it: everything that is known before it is decided how it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// The job. Its entry point is the one that will run: that of the launch spec where it has one, and the script in
    /// place of a notebook.
    pub job: Job,
    /// Its code; `None` for a job of type image.
    pub source: Option<Source>,
    /// What the job's owner should know. One sentence each.
    pub warnings: Vec<String>,
}

/// The word of an entry point that names a file of the code: its script, or a program of its own.
pub fn script_of(entry_point: &[String]) -> Option<&str> {
    // `sh -c "python train.py"` is a text for a shell, not a path; but notebooks are called `Untitled 1.ipynb`.
    let is_text = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| entry_point.get(before));
        let is_for_a_shell =
            before.is_some_and(|word| word.starts_with('-') && word.ends_with('c'));
        is_for_a_shell || !entry_point[at].ends_with(NOTEBOOK)
    };
    let is_script = |(at, word): &(usize, &String)| {
        SCRIPTS.iter().any(|end| word.ends_with(end))
            && !word.starts_with('-')
            && !(word.contains(char::is_whitespace) && is_text(*at))
    };
    let script = entry_point.iter().enumerate().find(is_script);
    let script = script.map(|(_, word)| word);
    let program = entry_point.first().filter(|word| word.starts_with('.'));
    script.or(program).map(String::as_str)
}

/// How the name of a notebook ends.
const NOTEBOOK: &str = ".ipynb";

/// How the names of scripts end.
const SCRIPTS: [&str; 3] = [".py", NOTEBOOK, ".sh"];

/// A path as artifacts and git write it: without `./` in front.
pub fn plain_path(path: &str) -> &str {
    let mut rest = path;
    while let Some(after) = rest.strip_prefix("./") {
        rest = after.trim_start_matches('/');
    }
    rest
}

/// The paths in the code that decide how it is built, whether they are there or not.
pub fn deciding_files(job: &Job, dockerfile: Option<&str>) -> Vec<String> {
    let mut paths = [
        "requirements.txt",
        "pyproject.toml",
        "environment.yml",
        "requirements.frozen.txt",
    ]
    .map(str::to_owned)
    .to_vec();
    let folder_of_script = script_of(&job.entry_point)
        .and_then(|script| plain_path(script).rsplit_once('/'))
        .map_or(String::new(), |(folder, _)| format!("{folder}/"));
    paths.push(format!("{folder_of_script}Dockerfile.wandb"));
    paths.extend(job.dockerfile.clone());
    paths.extend(dockerfile.map(str::to_owned));
    if let Some(context) = &job.build_context {
        let context = plain_path(context).trim_end_matches('/');
        let inside: Vec<String> = paths
            .iter()
            .map(|path| format!("{context}/{path}"))
            .collect();
        paths.extend(inside);
    }
    paths
}
