//! `push --code` and `push --git`: makes a job of a folder or of a commit and keeps it in the embedded queue, in the
//! shapes of `wandb job create` (PROTOCOL section 5), so that there is one way to fetch a job.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use super::say;
use crate::cli::PushArgs;
use crate::config::{AgentConfig, Environment};
use crate::failure::{Error, Kind, Result};
use crate::host::source::{pin, snapshot};
use crate::launch::git;
use crate::launch::job::{ArtifactName, check_entry_point, plain_path, python_version, script_of};
use crate::launch::network::Network;
use crate::queue::local::{LOCAL_ENTITY, LocalQueue, NewFile, artifact_id, split_name};

/// How much of what was left out is named.
const NAMED: usize = 10;

/// An error where jobs cannot be kept.
pub fn over_wandb(args: &PushArgs) -> Error {
    let (flag, kind, what) = match &args.code {
        Some(folder) => ("--code", "code", folder.display().to_string()),
        None => ("--git", "git", args.git.clone().unwrap_or_default()),
    };
    let entry_point = args.entry_point.as_deref().unwrap_or("python train.py");
    Error::new(
        Kind::Input,
        format!("`{flag}` is for the embedded queue, which keeps the code itself; over W&B a job is made first"),
    )
    .hint(format!(
        "`wandb job create -n NAME -E \"{entry_point}\" {kind} {what}`, then `launch-agent push -j NAME`"
    ))
}

/// Makes the job that the flags describe in the project of the run. Gives its name: `entity/project/name:v0`.
pub fn make(
    args: &PushArgs,
    queue: &LocalQueue,
    project: &str,
    entry_point: &[String],
    config: &AgentConfig,
    environment: &Environment,
) -> Result<String> {
    check_entry_point(entry_point).map_err(|error| error.within("--entry-point"))?;
    check_project(project)?;
    // Whoever may take from the queue may read what belongs to its entity.
    let (entity, _) = split_name(&args.queue);
    let (source_type, mut source, name, runtime) = match (&args.code, &args.git) {
        (Some(folder), _) => {
            let (source, name) = code(args, queue, (entity, project), folder, entry_point)?;
            ("artifact", source, name, python_of(folder))
        }
        (None, Some(text)) => {
            let (source, name) = commit(text, &config.network.value, environment)?;
            ("repo", source, name, None)
        }
        (None, None) => return Err(Error::input("neither a folder nor a repository is named")),
    };
    source["entrypoint"] = entry_point.to_vec().into();
    source["notebook"] = Value::from(
        script_of(entry_point).is_some_and(|script| script.to_lowercase().ends_with("ipynb")),
    );
    let types = json!({"wb_type": "typedDict", "params": {"type_map": {}}});
    let job = json!({
        "_version": "v0",
        "source_type": source_type,
        "source": source,
        "input_types": types,
        "output_types": types,
        "runtime": runtime.unwrap_or_default(),
    });
    let text = job.to_string();
    let file = NewFile {
        path: "wandb-job.json".to_owned(),
        content: Box::new(text.as_bytes()),
    };
    let kept = queue.keep_artifact(entity, project, &name, "job", [Ok(file)])?;
    let name = ArtifactName::Path {
        entity: entity.to_owned(),
        project: kept.collection.project,
        name,
        alias: format!("v{}", kept.version.unwrap_or_default()),
    };
    say(format_args!("job {name}"));
    Ok(name.to_string())
}

/// Keeps the files of a folder. Gives the job's source, and its name: that of the folder.
fn code(
    args: &PushArgs,
    queue: &LocalQueue,
    (entity, project): (&str, &str),
    folder: &Path,
    entry_point: &[String],
) -> Result<(Value, String)> {
    let found = snapshot::take(folder, args.code_limit)?;
    if !found.left_out.is_empty() {
        let mut named = found.left_out.clone();
        let more = named.len().saturating_sub(NAMED);
        named.truncate(NAMED);
        let rest = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        say(format_args!("left out: {}{rest}", named.join(", ")));
    }
    if let Some(script) = script_of(entry_point).map(plain_path)
        && !found.files.iter().any(|file| file.path == script)
    {
        let out = found.left_out.iter().find(|out| {
            let path = out.split(" (").next().unwrap_or_default();
            script == path || (path.ends_with('/') && script.starts_with(path))
        });
        let error = Error::input(match out {
            Some(out) => {
                format!("the entry point's file `{script}` is left out of the code: {out}")
            }
            None => format!(
                "the entry point's file `{script}` is not in {}",
                folder.display()
            ),
        })
        .hint("name it by its path in the folder, such as `-E \"python src/train.py\"`");
        return Err(error.closest(script, found.files.iter().map(|file| file.path.as_str())));
    }
    let name = folder
        .canonicalize()
        .ok()
        .and_then(|folder| Some(folder.file_name()?.to_string_lossy().into_owned()));
    let name = plain_name(&name.unwrap_or_default());
    let files = found.files.iter().map(|file| {
        Ok(NewFile {
            path: file.path.clone(),
            content: Box::new(snapshot::open(file)?) as Box<dyn Read>,
        })
    });
    let kept = queue.keep_artifact(entity, project, &format!("code-{name}"), "code", files)?;
    let address = ArtifactName::Id(artifact_id(kept.id)).to_string();
    Ok((json!({"artifact": address}), name))
}

/// Finds the commit that is meant. Gives the job's source, and its name: that of the repository.
fn commit(text: &str, network: &Network, environment: &Environment) -> Result<(Value, String)> {
    let (remote, reference) = git::split_ref(text);
    let commit = pin(remote, reference, environment.all(), network)
        .map_err(|error| error.within("--git"))?;
    let name = remote.trim_end_matches('/').rsplit(['/', ':']).next();
    let name = name.unwrap_or_default().trim_end_matches(".git");
    let source = json!({"git": {"remote": remote, "commit": commit}});
    Ok((source, plain_name(name)))
}

/// A name as artifacts may have it.
fn plain_name(name: &str) -> String {
    let name: String = name
        .chars()
        .take(100)
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    if name.is_empty() {
        "job".to_owned()
    } else {
        name
    }
}

/// The characters that W&B has no place for in the name of a project either.
fn check_project(project: &str) -> Result<()> {
    if project.is_empty() || project.contains(|c: char| "/\\#?%:".contains(c) || c.is_control()) {
        return Err(Error::input(format!(
            "a job cannot be kept in the project `{}`",
            project.escape_debug()
        ))
        .hint("its name holds none of `/ \\ # ? % :`"));
    }
    Ok(())
}

/// The version of Python that a folder asks for, as W&B's client finds it.
fn python_of(folder: &Path) -> Option<String> {
    ["runtime.txt", ".python-version"].iter().find_map(|name| {
        let text = fs::read_to_string(folder.join(name)).ok()?;
        python_version(text.lines().next()?)
    })
}

/// The full name of the job that `-j` names: `entity/project/name:alias`, of which the first two may be left out.
pub fn full_name(job: &str, entity: &str, project: &str) -> Result<ArtifactName> {
    let missing = match job.matches('/').count() {
        0 => format!("{entity}/{project}/"),
        1 => format!("{entity}/"),
        _ => String::new(),
    };
    ArtifactName::parse(&format!("{missing}{job}")).map_err(|error| error.within("--job"))
}

/// The entity whose jobs are meant when none is named: over the embedded queue that of the queue itself.
pub fn entity_of_queue(queue: &str) -> &str {
    let (entity, _) = split_name(queue);
    if entity.is_empty() {
        LOCAL_ENTITY
    } else {
        entity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_named_in_full_or_by_what_the_run_says_already() {
        for (job, name) in [
            ("train", "me/p/train:latest"),
            ("train:v3", "me/p/train:v3"),
            ("q/train:best", "me/q/train:best"),
            ("you/q/train", "you/q/train:latest"),
        ] {
            assert_eq!(full_name(job, "me", "p").expect(job).to_string(), name);
        }
        full_name("a/b/c/d", "me", "p").expect_err("too many parts");
        full_name("", "me", "p").expect_err("nothing");
    }

    #[test]
    fn names_are_made_plain() {
        for (name, plain) in [
            ("my job", "my_job"),
            ("", "job"),
            ("a.b-c_d", "a.b-c_d"),
            ("ü/x", "__x"),
        ] {
            assert_eq!(plain_name(name), plain);
        }
    }
}
