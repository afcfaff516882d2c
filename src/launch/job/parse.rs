//! Reading `wandb-job.json`. Pure.

use serde_json::Value;

use super::{ArtifactName, Job, JobSource, plain_path, script_of};
use crate::failure::{Error, Result};
use crate::launch::git;
use crate::launch::image;
use crate::launch::spec::{Object, kind_of};

/// The versions of the shape that W&B's client writes.
const VERSIONS: [&str; 2] = ["v0", "0.17.0"];

/// What a job holds beside what is read here: what it takes and gives, and what is for other runners.
const KNOWN_BUT_UNUSED: [&str; 6] = [
    "_version",
    "_partial",
    "input_types",
    "output_types",
    "services",
    "source_info",
];

impl Job {
    /// Reads the `wandb-job.json` of the job `name`. Gives the job, and a warning for each thing that was left out.
    pub fn parse(name: &str, text: &str) -> Result<(Job, Vec<String>)> {
        let place = || format!("job `{name}`: wandb-job.json");
        let value: Value = serde_json::from_str(text).map_err(|cause| {
            Error::input(format!("{}: not JSON: {cause}", place()))
                .hint("create the job again: `wandb job create`")
        })?;
        let mut reader = Reader {
            name,
            warnings: Vec::new(),
        };
        let job = reader.job(&value).map_err(|error| {
            let error = error.within(place());
            if error.hint.is_some() {
                return error;
            }
            error.hint("create the job again: `wandb job create`")
        })?;
        Ok((job, reader.warnings))
    }
}

struct Reader<'a> {
    name: &'a str,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn job(&mut self, value: &Value) -> Result<Job> {
        let job = object(value, "the job")?;
        self.look_at_version(job);
        self.warn_about_others(
            job,
            &[&["source_type", "source", "runtime"], &KNOWN_BUT_UNUSED[..]].concat(),
            "",
        );
        let source = object(
            job.get("source")
                .ok_or_else(|| Error::input("it has no `source`"))?,
            "`source`",
        )?;
        let kind =
            text(job, "source_type")?.ok_or_else(|| Error::input("it has no `source_type`"))?;
        self.warn_about_others(
            source,
            &[
                "image",
                "artifact",
                "git",
                "entrypoint",
                "notebook",
                "base_image",
                "dockerfile",
                "build_context",
            ],
            "source.",
        );
        let dockerfile = path_in_code(source, "dockerfile")?;
        let job = Job {
            name: self.name.to_owned(),
            source: job_source(&kind, source)?,
            entry_point: entry_point(source, dockerfile.is_some())?,
            is_notebook: flag(source, "notebook")?,
            python: self.python(job)?,
            base_image: base_image(source)?,
            dockerfile,
            build_context: path_in_code(source, "build_context")?,
        };
        let is_image = matches!(job.source, JobSource::Image(_));
        if job.entry_point.is_empty() && job.dockerfile.is_none() && !is_image {
            return Err(Error::input("it has no entry point").hint(
                "create the job again with `wandb job create -E \"python train.py\"`, or push it with `-E`",
            ));
        }
        Ok(job)
    }

    fn look_at_version(&mut self, job: &Object) {
        let version = job.get("_version").and_then(Value::as_str);
        if let Some(version) = version.filter(|version| !VERSIONS.contains(version)) {
            self.warnings.push(format!(
                "job `{}` is of version `{version}`, which is not known here: it is read like `{}`",
                self.name, VERSIONS[1]
            ));
        }
    }

    fn warn_about_others(&mut self, object: &Object, known: &[&str], within: &str) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            self.warnings.push(format!(
                "job `{}`: the key `{within}{key}` is not known: left out",
                self.name
            ));
        }
    }

    /// `3.11` of `3.11`, `3.11.4` or `python-3.11`; what says no version is left to the default.
    fn python(&mut self, job: &Object) -> Result<Option<String>> {
        let Some(runtime) = text(job, "runtime")? else {
            return Ok(None);
        };
        let python = python_version(&runtime);
        if python.is_none() {
            self.warnings.push(format!(
                "job `{}`: `runtime` is `{}`, which is no version of Python: left out",
                self.name,
                runtime.escape_debug()
            ));
        }
        Ok(python)
    }
}

/// `3.11` of what people write for a version of Python; `None` when it says none.
pub fn python_version(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_prefix("python-").unwrap_or(text);
    let mut parts = text.split('.');
    let is_number = |part: &&str| {
        !part.is_empty() && part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let (major, minor) = (
        parts.next().filter(is_number)?,
        parts.next().filter(is_number)?,
    );
    Some(format!("{major}.{minor}"))
}

fn job_source(kind: &str, source: &Object) -> Result<JobSource> {
    let need = |key: &str| {
        text(source, key)?.ok_or_else(|| {
            Error::input(format!(
                "a job of type `{kind}` needs `source.{key}`, and it has none"
            ))
        })
    };
    match kind {
        "image" => {
            let image = need("image")?;
            image::check(&image)?;
            Ok(JobSource::Image(image))
        }
        "artifact" => Ok(JobSource::Artifact(
            ArtifactName::parse(&need("artifact")?)
                .map_err(|error| error.within("`source.artifact`"))?,
        )),
        "repo" => {
            let git = object(source.get("git").unwrap_or(&Value::Null), "`source.git`")?;
            let need = |key: &str| {
                text(git, key)?
                    .ok_or_else(|| Error::input(format!("`source.git.{key}` is not there")))
            };
            let (remote, commit) = (need("remote")?, need("commit")?);
            git::check_remote(&remote).map_err(|error| error.within("`source.git.remote`"))?;
            git::check_commit(&commit).map_err(|error| error.within("`source.git.commit`"))?;
            Ok(JobSource::Git { remote, commit })
        }
        other => Err(Error::input(format!(
            "its `source_type` is `{other}`, which is not known here"
        ))
        .hint("it is `image`, `artifact` or `repo`")),
    }
}

/// With a Dockerfile of its own a job's script may be anywhere in the image.
fn entry_point(source: &Object, has_dockerfile: bool) -> Result<Vec<String>> {
    let words = match source.get("entrypoint") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(words)) => words,
        Some(other) => {
            return Err(Error::input(format!(
                "`source.entrypoint` must be a list of words, not {}",
                kind_of(other)
            )));
        }
    };
    let words = words.iter().map(|word| match word {
        Value::String(word) if word.contains('\0') => Err(Error::input(
            "`source.entrypoint` holds a NUL character, which no program can be given",
        )),
        Value::String(word) => Ok(word.clone()),
        other => Err(Error::input(format!(
            "`source.entrypoint` must be a list of words, but one is {}",
            kind_of(other)
        ))),
    });
    let words: Vec<String> = words.collect::<Result<_>>()?;
    if !has_dockerfile {
        check_entry_point(&words).map_err(|error| error.within("`source.entrypoint`"))?;
    }
    Ok(words)
}

/// An error when the file that an entry point names is not in the code, wherever that will be.
pub fn check_entry_point(words: &[String]) -> Result<()> {
    match script_of(words) {
        Some(script) => check_path(script).map_err(|error| {
            error.hint("name the file by its path in the job's code, such as `python src/train.py`")
        }),
        None => Ok(()),
    }
}

/// An error unless it is a path that stays in the folder that it is taken in.
fn check_path(path: &str) -> Result<()> {
    let climbs = path.split('/').any(|step| step == "..");
    if path.starts_with('/') || climbs || path.chars().any(char::is_control) {
        return Err(Error::input(format!(
            "`{}` leads out of the job's code",
            path.escape_debug()
        )));
    }
    Ok(())
}

fn path_in_code(source: &Object, key: &str) -> Result<Option<String>> {
    let Some(path) = text(source, key)? else {
        return Ok(None);
    };
    check_path(&path).map_err(|error| error.within(format_args!("`source.{key}`")))?;
    let path = plain_path(&path).trim_end_matches('/');
    Ok(Some(path.to_owned()).filter(|path| !path.is_empty() && path != "."))
}

fn base_image(source: &Object) -> Result<Option<String>> {
    let image = text(source, "base_image")?;
    if let Some(image) = &image {
        image::check(image).map_err(|error| error.within("`source.base_image`"))?;
    }
    Ok(image)
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Object> {
    value
        .as_object()
        .ok_or_else(|| Error::input(format!("{what} must be an object, not {}", kind_of(value))))
}

/// The text under a key; an empty one is as good as none.
fn text(object: &Object, key: &str) -> Result<Option<String>> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(other) => Err(Error::input(format!(
            "`{key}` must be a string, not {}",
            kind_of(other)
        ))),
    }
}

fn flag(object: &Object, key: &str) -> Result<bool> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(Error::input(format!(
            "`{key}` must be true or false, not {}",
            kind_of(other)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: &Value) -> Result<(Job, Vec<String>)> {
        Job::parse("me/p/j:v1", &value.to_string())
    }

    #[test]
    fn with_a_dockerfile_of_its_own_a_jobs_script_may_be_anywhere() {
        let job = json!({"source_type": "artifact", "source": {"artifact": "a/b/c:v0",
            "entrypoint": ["python", "/app/train.py"], "dockerfile": "Dockerfile"}});
        let (job, _) = Job::parse("a/b/j:v0", &job.to_string()).expect("a job");
        assert_eq!(job.entry_point, ["python", "/app/train.py"]);
    }

    #[test]
    fn jobs_of_each_type_as_the_client_writes_them() {
        let (job, warnings) = parse(&json!({
            "_version": "v0", "source_type": "image", "source": {"image": "bb:1"}, "input_types": {}, "output_types": {}, "runtime": ""
        })).expect("an image job");
        assert_eq!(job.source, JobSource::Image("bb:1".to_owned()));
        assert_eq!((job.python, job.entry_point.len()), (None, 0));
        assert_eq!(warnings, [""; 0]);

        let (job, warnings) = parse(&json!({
            "_version": "0.17.0", "_partial": "v0", "source_type": "artifact",
            "source": {"artifact": "wandb-artifact://_id/QXJ0aWZhY3Q6NQ==", "entrypoint": ["python3", "src/train.py"], "notebook": false,
                "base_image": "python:3.12", "dockerfile": "./docker/Dockerfile", "build_context": "src/"},
            "runtime": "3.11.4", "services": {}, "novelty": 1
        })).expect("a code job");
        assert_eq!(
            job.source,
            JobSource::Artifact(ArtifactName::Id("QXJ0aWZhY3Q6NQ==".to_owned()))
        );
        assert_eq!(job.entry_point, ["python3", "src/train.py"]);
        assert_eq!(job.python.as_deref(), Some("3.11"));
        assert_eq!(job.dockerfile.as_deref(), Some("docker/Dockerfile"));
        assert_eq!(job.build_context.as_deref(), Some("src"));
        assert_eq!(
            warnings,
            ["job `me/p/j:v1`: the key `novelty` is not known: left out"]
        );

        let (job, _) = parse(&json!({
            "source_type": "repo", "runtime": "3.9", "source": {"git": {"remote": "git@h:me/r.git", "commit": "a".repeat(40)},
                "entrypoint": ["python", "n.ipynb"], "notebook": true}
        })).expect("a git job");
        assert!(job.is_notebook);
        assert!(matches!(job.source, JobSource::Git { .. }));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_job_and_its_key() {
        let code = |source: Value| {
            let mut all = json!({"artifact": "a/b/c:v0", "entrypoint": ["python", "t.py"]});
            for (key, value) in source.as_object().expect("an object") {
                all[key] = value.clone();
            }
            json!({"source_type": "artifact", "source": all})
        };
        let git = |remote: &str, commit: &str| json!({"source_type": "repo", "source": {"git": {"remote": remote, "commit": commit}, "entrypoint": ["t.py"]}});
        let sha = "a".repeat(40);
        for (value, message) in [
            (json!([]), "the job must be an object, not a list"),
            (json!({}), "it has no `source`"),
            (json!({"source": {}}), "it has no `source_type`"),
            (
                json!({"source": 1, "source_type": "image"}),
                "`source` must be an object, not a number",
            ),
            (
                json!({"source": {}, "source_type": "image"}),
                "a job of type `image` needs `source.image`, and it has none",
            ),
            (
                json!({"source": {}, "source_type": "pip"}),
                "its `source_type` is `pip`, which is not known here",
            ),
            (
                code(json!({"artifact": "x"})),
                "`source.artifact`: `x` is not the name of an artifact",
            ),
            (
                code(json!({"entrypoint": "python t.py"})),
                "`source.entrypoint` must be a list of words, not a string",
            ),
            (
                code(json!({"entrypoint": ["python", 5]})),
                "`source.entrypoint` must be a list of words, but one is a number",
            ),
            (code(json!({"entrypoint": []})), "it has no entry point"),
            (
                code(json!({"entrypoint": ["python", "/etc/x.py"]})),
                "`source.entrypoint`: `/etc/x.py` leads out of the job's code",
            ),
            (
                code(json!({"entrypoint": ["python", "a/../../x.py"]})),
                "`source.entrypoint`: `a/../../x.py` leads out of the job's code",
            ),
            (
                code(json!({"entrypoint": ["../run"]})),
                "`source.entrypoint`: `../run` leads out of the job's code",
            ),
            (
                code(json!({"dockerfile": "../Dockerfile"})),
                "`source.dockerfile`: `../Dockerfile` leads out of the job's code",
            ),
            (
                code(json!({"build_context": "/"})),
                "`source.build_context`: `/` leads out of the job's code",
            ),
            (
                code(json!({"notebook": "yes"})),
                "`notebook` must be true or false, not a string",
            ),
            (
                git("http://h/r", &sha),
                "`source.git.remote`: `http://h/r` is not a remote that a job may have",
            ),
            (
                git("https://h/r", "--upload-pack=x"),
                "`source.git.commit`: `--upload-pack=x` is not the name of a commit",
            ),
        ] {
            let error = parse(&value).expect_err("wrong");
            assert_eq!(
                error.message,
                format!("job `me/p/j:v1`: wandb-job.json: {message}"),
                "{value}"
            );
            assert!(error.hint.is_some(), "{value}");
        }
        let error = Job::parse("j", "{").expect_err("not JSON");
        assert!(
            error
                .message
                .starts_with("job `j`: wandb-job.json: not JSON"),
            "{error}"
        );
    }

    #[test]
    fn versions_of_python_are_read_as_people_write_them() {
        for (text, version) in [
            ("3.11", Some("3.11")),
            ("3.11.4", Some("3.11")),
            ("python-3.10.2\n", Some("3.10")),
            ("3", None),
            ("3.x", None),
            ("latest", None),
            ("3.11; rm", None),
        ] {
            assert_eq!(python_version(text).as_deref(), version, "{text}");
        }
    }
}
