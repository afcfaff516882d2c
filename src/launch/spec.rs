//! The launch spec: what a submitter asked for, as it travels through a queue. The shape is W&B's (`runSpec` of
//! `popFromRunQueue`); unknown keys are kept out and named as warnings, because the server may be newer.

use serde_json::{Map, Value};

use crate::failure::{Error, Result};
use crate::launch::command::Secret;

/// A JSON object that keeps the order in which its keys were written.
pub type Object = Map<String, Value>;

/// The names under which a queue item or `resource_args` may mean docker on this machine. The first is W&B's.
pub const DOCKER_RESOURCES: [&str; 3] = ["local-container", "docker", "local"];

/// The `uri` of a sweep scheduler, as `wandb launch-sweep` writes it.
const SCHEDULER_URI: &str = "placeholder-uri-scheduler";

/// The key under which a spec says what only this agent understands. W&B's client passes it on from its `-c FILE`.
pub const OWN_KEY: &str = "launch_agent";

/// Every key that W&B's client or server is known to put into a spec, beside those read here.
const KNOWN_BUT_UNUSED: [&str; 8] = [
    "git",
    "builder",
    "registry",
    "template_variables",
    "python_version",
    "queue_entity",
    "cuda",
    "parameters",
];

/// What a submitter asked for, checked for shape but not yet decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LaunchSpec {
    /// The entity that the run will belong to.
    pub entity: Option<String>,
    /// The project that the run will belong to; may be empty, never missing.
    pub project: String,
    /// `entity/project/name:alias` of a job artifact.
    pub job: Option<String>,
    /// The image of an image job: `docker.docker_image`, or else `image_uri`.
    pub image: Option<String>,
    /// The option mapping for docker: `resource_args["local-container"]`.
    pub resource_args: Object,
    /// What the submitter changes about the job.
    pub overrides: Overrides,
    /// The display name of the run.
    pub name: Option<String>,
    /// The name of the run, when the submitter chose it.
    pub run_id: Option<String>,
    /// The submitter's user name. `Some(None)` is a key with the value `null`, which W&B treats as an empty name.
    pub author: Option<Option<String>>,
    /// The sweep that the run belongs to.
    pub sweep_id: Option<String>,
    /// The submitter's own key: it takes the place of the agent's key in the container.
    pub api_key: Option<Secret>,
    /// How often the run was resumed after an interruption.
    pub resume_count: u64,
    /// How long the job may run, in seconds from the start of its container: `launch_agent.timeout`.
    pub timeout: Option<u64>,
    /// The item is a sweep scheduler: a `wandb` command on the agent's machine, not a container.
    pub is_scheduler: bool,
}

/// `overrides` of a launch spec.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// Words after the image, after those of the entry point.
    pub args: Vec<String>,
    /// Replaces the image's entry point: the program, then leading arguments.
    pub entry_point: Vec<String>,
    /// The run's config, for `WANDB_CONFIG`.
    pub run_config: Object,
    /// For `WANDB_ARTIFACTS`.
    pub artifacts: Object,
    /// For `WANDB_LAUNCH_FILE_OVERRIDES`.
    pub files: Object,
    /// The Dockerfile to build with, by its path in the code.
    pub dockerfile: Option<String>,
    /// The folder that the job starts in, by its path in the code.
    pub working_dir: Option<String>,
}

impl LaunchSpec {
    /// Reads a spec. Gives the spec, and a warning for each thing that was left out.
    pub fn parse(value: &Value) -> Result<(LaunchSpec, Vec<String>)> {
        let object = value.as_object().ok_or_else(|| {
            Error::input(format!(
                "a launch spec is a JSON object, not {}",
                kind_of(value)
            ))
            .hint(r#"the least is {"project": "..", "docker": {"docker_image": ".."}}"#)
        })?;
        let mut reader = Reader {
            object,
            warnings: Vec::new(),
        };
        let spec = reader.spec()?;
        Ok((spec, reader.warnings))
    }
}

struct Reader<'a> {
    object: &'a Object,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn spec(&mut self) -> Result<LaunchSpec> {
        let is_scheduler = self.is_scheduler()?;
        if !is_scheduler {
            self.check_resource()?;
        }
        let spec = LaunchSpec {
            entity: text(self.object, "entity")?,
            project: text(self.object, "project")?.ok_or_else(|| {
                Error::input("the launch spec has no `project`")
                    .hint("name the project that the run belongs to")
            })?,
            job: text(self.object, "job")?,
            image: self.image()?,
            resource_args: self.resource_args()?,
            overrides: self.overrides()?,
            name: text(self.object, "name")?,
            run_id: self.run_id()?,
            author: match self.object.get("author") {
                None => None,
                Some(_) => Some(text(self.object, "author")?),
            },
            sweep_id: text(self.object, "sweep_id")?,
            api_key: text(self.object, "_wandb_api_key")?
                .filter(|key| !key.is_empty())
                .map(Secret::new),
            resume_count: count(self.object, "_resume_count")?,
            timeout: self.timeout()?,
            is_scheduler,
        };
        self.warn_about_unknown_keys();
        Ok(spec)
    }

    /// A sweep scheduler is marked by its `uri`; with a resource of its own it is an ordinary job.
    fn is_scheduler(&self) -> Result<bool> {
        Ok(text(self.object, "uri")?.as_deref() == Some(SCHEDULER_URI)
            && text(self.object, "resource")?.as_deref() == Some("local-process"))
    }

    fn check_resource(&self) -> Result<()> {
        match text(self.object, "resource")?.as_deref() {
            None | Some("") => Ok(()),
            Some(resource) if DOCKER_RESOURCES.contains(&resource) => Ok(()),
            Some(resource) => Err(Error::input(format!(
                "the job wants the resource `{resource}`, but this agent runs docker jobs"
            ))
            .hint("push it to a queue of that resource, or with `local-container`")),
        }
    }

    /// An empty image name is as good as none; which of the two keys wins is W&B's rule.
    fn image(&self) -> Result<Option<String>> {
        let docker = object(self.object, "docker")?;
        let named = text(&docker, "docker_image").map_err(|error| error.within("`docker`"))?;
        let image = match named {
            Some(image) if !image.is_empty() => Some(image),
            _ => text(self.object, "image_uri")?,
        };
        Ok(image.filter(|image| !image.is_empty()))
    }

    /// A run's name goes into an option, a label and a container's name, so an empty one is no name.
    fn run_id(&self) -> Result<Option<String>> {
        Ok(text(self.object, "run_id")?.filter(|run_id| !run_id.is_empty()))
    }

    fn resource_args(&mut self) -> Result<Object> {
        let all = object(self.object, "resource_args")?;
        let mut found = Object::new();
        for (resource, value) in &all {
            if !DOCKER_RESOURCES.contains(&resource.as_str()) {
                self.warnings.push(format!(
                    "`resource_args.{resource}` is not for docker: left out"
                ));
                continue;
            }
            match value {
                Value::Object(options) => found.clone_from(options),
                Value::Null => {}
                other => {
                    return Err(Error::input(format!(
                        "`resource_args.{resource}` must be an object of docker options, not {}",
                        kind_of(other)
                    )));
                }
            }
        }
        Ok(found)
    }

    fn overrides(&mut self) -> Result<Overrides> {
        let from = object(self.object, "overrides")?;
        for key in from.keys() {
            let known = [
                "args",
                "entry_point",
                "run_config",
                "artifacts",
                "files",
                "dockerfile",
                "working_dir",
            ];
            if !known.contains(&key.as_str()) {
                self.warnings
                    .push(format!("`overrides.{key}` is not known: left out"));
            }
        }
        let within = |error: Error| error.within("`overrides`");
        let path = |key: &str| -> Result<Option<String>> {
            let path = text(&from, key).map_err(within)?;
            Ok(path.filter(|path| !path.is_empty()))
        };
        Ok(Overrides {
            args: words(&from, "args").map_err(within)?,
            entry_point: words(&from, "entry_point").map_err(within)?,
            run_config: object(&from, "run_config").map_err(within)?,
            artifacts: object(&from, "artifacts").map_err(within)?,
            files: object(&from, "files").map_err(within)?,
            dockerfile: path("dockerfile")?,
            working_dir: path("working_dir")?,
        })
    }

    fn timeout(&mut self) -> Result<Option<u64>> {
        let own = object(self.object, OWN_KEY)?;
        for key in own.keys().filter(|key| *key != "timeout") {
            self.warnings
                .push(format!("`{OWN_KEY}.{key}` is not known: left out"));
        }
        match own.get("timeout") {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().filter(|seconds| *seconds > 0) {
                Some(seconds) => Ok(Some(seconds)),
                None => Err(Error::input(format!(
                    "`{OWN_KEY}`: `timeout` must be a whole number of seconds from 1 on, not {value}"
                ))),
            },
        }
    }

    fn warn_about_unknown_keys(&mut self) {
        let read = [
            "entity",
            "project",
            "job",
            "docker",
            "image_uri",
            "uri",
            "resource",
            "resource_args",
            "overrides",
            "name",
            "run_id",
            "author",
            "sweep_id",
            "_wandb_api_key",
            "_resume_count",
            OWN_KEY,
        ];
        for key in self.object.keys() {
            if !read.contains(&key.as_str()) && !KNOWN_BUT_UNUSED.contains(&key.as_str()) {
                self.warnings.push(format!(
                    "the launch spec's key `{key}` is not known: left out"
                ));
            }
        }
    }
}

/// The text under `key`; `null` is as good as absent.
fn text(object: &Object, key: &str) -> Result<Option<String>> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.contains('\0') => Err(Error::input(format!(
            "`{key}` holds a NUL character, which no program can be given"
        ))),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(Error::input(format!(
            "`{key}` must be a string, not {}",
            kind_of(other)
        ))),
    }
}

fn object(object: &Object, key: &str) -> Result<Object> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(Object::new()),
        Some(Value::Object(inner)) => Ok(inner.clone()),
        Some(other) => Err(Error::input(format!(
            "`{key}` must be an object, not {}",
            kind_of(other)
        ))),
    }
}

fn count(object: &Object, key: &str) -> Result<u64> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => value.as_u64().ok_or_else(|| {
            Error::input(format!(
                "`{key}` must be a whole number, not {}",
                kind_of(value)
            ))
        }),
    }
}

/// A list of words for an argv. Numbers are forgiven, as `["--epochs", 3]` can mean only one thing; a single
/// string is not, because whether to split it would be a guess.
fn words(object: &Object, key: &str) -> Result<Vec<String>> {
    let list = match object.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(other) => {
            return Err(Error::input(format!(
                "`{key}` must be a list of strings, not {}",
                kind_of(other)
            ))
            .hint(format!(
                r#"write each word by itself: "{key}": ["--lr", "0.1"]"#
            )));
        }
    };
    list.iter()
        .map(|word| match word {
            Value::String(text) if text.contains('\0') => Err(Error::input(format!(
                "`{key}` holds a NUL character, which no program can be given"
            ))),
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            other => Err(Error::input(format!(
                "`{key}` must be a list of strings, but one is {}",
                kind_of(other)
            ))),
        })
        .collect()
}

/// What a JSON value is, for a sentence: ``must be an object, not a string``.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn error(value: &Value) -> String {
        LaunchSpec::parse(value).expect_err("a bad spec").message
    }

    #[test]
    fn reads_what_the_wandb_client_sends() {
        let (spec, warnings) = LaunchSpec::parse(&json!({
            "overrides": {"args": ["--a", "1"], "run_config": {"lr": 0.1}, "entry_point": ["sh", "-c", "echo hi"]},
            "run_id": "myrunid", "entity": "me", "project": "Proj", "docker": {"docker_image": "bb:1"},
            "resource": null, "git": {}, "author": null,
            "resource_args": {"local-container": {"env": ["A=1"], "cpus": 2}}
        }))
        .expect("a good spec");
        assert_eq!(spec.image.as_deref(), Some("bb:1"));
        assert_eq!(spec.project, "Proj");
        assert_eq!(spec.overrides.entry_point, ["sh", "-c", "echo hi"]);
        assert_eq!(spec.author, Some(None));
        assert_eq!(
            spec.resource_args.keys().collect::<Vec<_>>(),
            ["env", "cpus"]
        );
        assert_eq!(warnings, [""; 0]);
    }

    #[test]
    fn image_uri_stands_in_for_a_missing_docker_image() {
        let (spec, _) =
            LaunchSpec::parse(&json!({"project": "p", "docker": {}, "image_uri": "x:1"}))
                .expect("good");
        assert_eq!(spec.image.as_deref(), Some("x:1"));
    }

    #[test]
    fn says_which_key_is_wrong_and_how() {
        for (spec, message) in [
            (json!([]), "a launch spec is a JSON object, not a list"),
            (json!(null), "a launch spec is a JSON object, not null"),
            (json!({}), "the launch spec has no `project`"),
            (
                json!({"project": 5}),
                "`project` must be a string, not a number",
            ),
            (
                json!({"project": "p", "docker": "x"}),
                "`docker` must be an object, not a string",
            ),
            (
                json!({"project": "p", "docker": {"docker_image": 5}}),
                "`docker`: `docker_image` must be a string, not a number",
            ),
            (
                json!({"project": "p", "resource_args": {"local-container": []}}),
                "`resource_args.local-container` must be an object of docker options, not a list",
            ),
            (
                json!({"project": "p", "resource_args": "x"}),
                "`resource_args` must be an object, not a string",
            ),
            (
                json!({"project": "p", "overrides": {"args": "echo hi"}}),
                "`overrides`: `args` must be a list of strings, not a string",
            ),
            (
                json!({"project": "p", "resource": "kubernetes"}),
                "the job wants the resource `kubernetes`, but this agent runs docker jobs",
            ),
            (
                json!({"project": "p", "resource": 5}),
                "`resource` must be a string, not a number",
            ),
            (
                json!({"project": "p", "name": "a\u{0}b"}),
                "`name` holds a NUL character, which no program can be given",
            ),
        ] {
            assert_eq!(error(&spec), message, "{spec}");
        }
    }

    #[test]
    fn names_the_unknown_keys_it_leaves_out() {
        let (_, warnings) = LaunchSpec::parse(
            &json!({"project": "p", "newthing": 1, "overrides": {"x": 1}, "resource_args": {"kubernetes": {}}}),
        )
        .expect("good");
        assert_eq!(
            warnings,
            [
                "`resource_args.kubernetes` is not for docker: left out",
                "`overrides.x` is not known: left out",
                "the launch spec's key `newthing` is not known: left out",
            ]
        );
    }
}
