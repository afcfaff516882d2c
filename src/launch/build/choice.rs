//! Which Dockerfile of a job's code is built, in W&B's order: `overrides.dockerfile`, the job's own, `Dockerfile.wandb`
//! beside the entry point.

use crate::failure::{Error, Result};
use crate::launch::job::{Job, Source, plain_path, script_of};
use crate::launch::spec::LaunchSpec;

/// A Dockerfile that came with the code.
pub struct Own {
    /// Its path in the code.
    pub path: String,
    /// What it says.
    pub text: String,
    /// The folder of the code that the build sees.
    pub context: String,
    /// The job's entry point, as it is called from there.
    pub entry_point: Vec<String>,
}

/// The Dockerfile that the spec or the job names, or that lies beside the entry point; `None` where one is generated.
pub fn chosen_dockerfile(
    spec: &LaunchSpec,
    job: &Job,
    source: &Source,
    context: &str,
) -> Result<Option<Own>> {
    let own = |path: String, context: &str, entry_point: Vec<String>| {
        source.files.get(&path).map(|text| Own {
            text: text.clone(),
            path,
            context: context.to_owned(),
            entry_point,
        })
    };
    for (key, named) in [
        ("`overrides.dockerfile`", &spec.overrides.dockerfile),
        ("the job's `dockerfile`", &job.dockerfile),
    ] {
        let Some(named) = named else { continue };
        let path = inside(named).map_err(|error| error.within(key))?;
        return [joined(context, &path), path]
            .into_iter()
            .find_map(|path| own(path, context, job.entry_point.clone()))
            .map(Some)
            .ok_or_else(|| {
                Error::input(format!(
                    "{key} is `{named}`, which is not in the job's code"
                ))
                .hint("give its path in the code, or in `build_context` where the job has one")
            });
    }
    let script = script_of(&job.entry_point).unwrap_or_default();
    let place = plain_path(script);
    let (folder, name) = place.rsplit_once('/').unwrap_or(("", place));
    let beside = joined(context, folder);
    // W&B's agent lets a build with such a file see the file's own folder.
    let (seen, entry_point) = if job.build_context.is_some() {
        (context, job.entry_point.clone())
    } else {
        let renamed = |word: &String| if word == script { name } else { word }.to_owned();
        (
            beside.as_str(),
            job.entry_point.iter().map(renamed).collect(),
        )
    };
    Ok(own(joined(&beside, "Dockerfile.wandb"), seen, entry_point))
}

/// A path inside the code, without `.` and empty parts.
pub fn inside(path: &str) -> Result<String> {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if path.starts_with('/') || parts.contains(&"..") {
        return Err(
            Error::input(format!("`{path}` leads out of the job's code"))
                .hint("give a path inside the code, without `/` in front and without `..`"),
        );
    }
    Ok(parts.join("/"))
}

/// Two paths as one; either may be empty.
pub fn joined(folder: &str, path: &str) -> String {
    match (folder, path) {
        ("", path) => path.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, path) => format!("{folder}/{path}"),
    }
}
