//! From a job and its code to what runs: which image, with which entry point, and how that image comes to be. Pure.
//!
//! The choice of a Dockerfile is W&B's: `overrides.dockerfile`, the job's own, `Dockerfile.wandb` beside the entry
//! point, and otherwise a generated one. `build_context` is the folder that all other paths of the job start from.

mod choice;
mod made;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::{Error, Result};
use crate::launch::builder::{Builder, BuilderKind};
use crate::launch::command::CommandLine;
use crate::launch::dependencies::{self, minor_version};
use crate::launch::dockerfile::HOME;
use crate::launch::image;
use crate::launch::job::{Code, Job, JobSource, Source};
use crate::launch::network::Network;
use crate::launch::policy::Limits;
use crate::launch::resource_args::DockerOption;
use crate::launch::spec::LaunchSpec;
use choice::{chosen_dockerfile, inside};
use made::Makes;

/// Where code is mounted that is not built. W&B's own place.
const MOUNT: &str = "/mnt/wandb";

/// The Python of a job that does not say which it wants.
const DEFAULT_PYTHON: &str = "3.12";

/// What decides about a build, beside the job.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// The agent's builder with what the queue says.
    pub builder: &'a Builder,
    /// How a build reaches the world.
    pub network: &'a Network,
    /// Has docker the plugin that builds with `BuildKit`? Asked for a build alone, because the question costs a process.
    pub has_buildx: &'a dyn Fn() -> bool,
    /// Where generated Dockerfiles are written.
    pub folder: &'a Path,
    /// How much a job may have, and so its build.
    pub limits: &'a Limits,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The image.
    pub image: String,
    /// Replaces the image's entry point when it is not empty.
    pub entry_point: Vec<String>,
    /// Options of `docker run` that the program needs.
    pub options: Vec<DockerOption>,
    /// How the image is built; `None` for one that is pulled.
    pub build: Option<Build>,
    /// What the job's owner should know. One sentence each.
    pub warnings: Vec<String>,
}

impl Program {
    /// Is it an image as somebody named it, with no code of ours in it or mounted?
    pub fn is_named_image(&self) -> bool {
        self.build.is_none() && self.options.is_empty()
    }

    /// The image that the owner's policy judges: of one that is built from a generated Dockerfile, what it starts from.
    /// What a Dockerfile of somebody's own starts from only docker can tell, so there it is the name of the result.
    pub fn judged_image(&self) -> &str {
        let base = self.build.as_ref().and_then(|build| build.base.as_ref());
        base.map_or(&self.image, |base| &base.image)
    }
}

/// How an image is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Its name, with a tag that is a hash over everything that makes it.
    pub image: String,
    /// `docker build`, for docker's client as it is installed here.
    pub command: CommandLine,
    /// The Dockerfile.
    pub dockerfile: Dockerfile,
    /// The folder of the job's code.
    pub code: PathBuf,
    /// The folder in it that the build sees.
    pub context: PathBuf,
    /// A script of the entry point, by its path in the context: without it there is no use in building.
    pub script: Option<String>,
    /// The image that a generated Dockerfile starts from, and the Python that it must have.
    pub base: Option<Base>,
    /// Some packages may be left out; the image has a list of them then.
    pub may_leave_out: bool,
    /// A file of certificates for the build.
    pub ca_bundle: Option<PathBuf>,
    /// The image is pushed to where its name says.
    pub is_pushed: bool,
    /// `BuildKit` builds it.
    pub is_buildkit: bool,
    /// How long it may take.
    pub limit: Duration,
}

/// What a generated Dockerfile starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The image.
    pub image: String,
    /// The Python that the job wants, as `3.11`.
    pub python: Option<String>,
}

/// The Dockerfile of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// Where it is, or will be.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// It is generated: it must be written before the build.
    pub is_generated: bool,
}

/// Decides what a spec runs. `code` is what was fetched for its job; `None` for a spec that names an image itself. An
/// error belongs to the stage `build`.
pub fn decide(spec: &LaunchSpec, code: Option<&Code>, settings: &Settings<'_>) -> Result<Program> {
    let builder = settings.builder.for_queue(&spec.resource_args)?;
    let settings = Settings {
        builder: &builder,
        ..*settings
    };
    let Some(code) = code else {
        return image_program(named_image(spec)?, spec.overrides.entry_point.clone());
    };
    let mut program = match (&code.job.source, &code.source) {
        (JobSource::Image(image), _) => image_program(image, spec.overrides.entry_point.clone())?,
        (_, Some(source)) => code_program(spec, &code.job, source, &settings)?,
        (_, None) => {
            let what = format!("the code of the job `{}` is not here", code.job.name);
            return Err(Error::input(what));
        }
    };
    program.warnings.splice(..0, code.warnings.clone());
    Ok(program)
}

/// The image that a spec names.
fn named_image(spec: &LaunchSpec) -> Result<&str> {
    spec.image.as_deref().ok_or_else(|| match &spec.job {
        Some(job) => Error::input(format!("the job `{job}` was not fetched"))
            .hint("name an image in `docker.docker_image` of the launch spec"),
        None => Error::input("the launch spec names no image").hint(
            r#"name it as {"docker": {"docker_image": "python:3.12"}} or {"image_uri": "python:3.12"}"#,
        ),
    })
}

fn image_program(image: &str, entry_point: Vec<String>) -> Result<Program> {
    image::check(image)?;
    Ok(Program {
        image: image.to_owned(),
        entry_point,
        options: Vec::new(),
        build: None,
        warnings: Vec::new(),
    })
}

fn code_program(
    spec: &LaunchSpec,
    job: &Job,
    source: &Source,
    settings: &Settings<'_>,
) -> Result<Program> {
    if let Some(image) = &job.base_image {
        image::check(image).map_err(|error| error.within("the job's `base_image`"))?;
        return mounted(spec, job, source, image.clone());
    }
    if settings.builder.kind == BuilderKind::Docker {
        return built(spec, job, source, settings);
    }
    check_entry_point(job)?;
    let mut found = dependencies::find(source, "");
    let image = match &settings.builder.base_image {
        Some(image) => image.clone(),
        None => python_image(found.python_of_image(job.python.clone())?.as_deref()),
    };
    let mut program = mounted(spec, job, source, image)?;
    if let Some(file) = found.from {
        program.warnings.push(format!(
            "`{file}` was not installed: the agent's `builder.type` is `noop`, so the job runs in `{}` as that is",
            program.image
        ));
    }
    Ok(program)
}

/// Runs the code as it is, mounted into an image that is there already.
fn mounted(spec: &LaunchSpec, job: &Job, source: &Source, image: String) -> Result<Program> {
    let folder = match &spec.overrides.working_dir {
        Some(folder) => format!(
            "{MOUNT}/{}",
            inside(folder).map_err(|error| error.within("`overrides.working_dir`"))?
        ),
        None => MOUNT.to_owned(),
    };
    Ok(Program {
        image,
        entry_point: job.entry_point.clone(),
        options: vec![
            DockerOption::with_value("volume", &format!("{}:{MOUNT}", source.folder.display())),
            DockerOption::with_value("workdir", folder.trim_end_matches('/')),
        ],
        build: None,
        warnings: Vec::new(),
    })
}

fn built(
    spec: &LaunchSpec,
    job: &Job,
    source: &Source,
    settings: &Settings<'_>,
) -> Result<Program> {
    let context = match &job.build_context {
        Some(folder) => {
            inside(folder).map_err(|error| error.within("the job's `build_context`"))?
        }
        None => String::new(),
    };
    let chosen = chosen_dockerfile(spec, job, source, &context)?;
    let makes = Makes {
        job,
        source,
        settings,
        is_buildkit: (settings.has_buildx)(),
    };
    let (mut program, folder_in_image) = match chosen {
        Some(own) => (makes.with_own_dockerfile(own), None),
        None => (makes.generated(&context)?, Some(HOME)),
    };
    if let Some(folder) = &spec.overrides.working_dir {
        let path = match folder_in_image {
            _ if folder.starts_with('/') => folder.clone(),
            Some(home) => format!(
                "{home}/{}",
                inside(folder).map_err(|error| error.within("`overrides.working_dir`"))?
            ),
            None => {
                return Err(Error::input(format!(
                    "`overrides.working_dir` is `{folder}`, and the job has a Dockerfile of its own"
                ))
                .hint("give the whole path of the folder in the image, such as `/app/data`"));
            }
        };
        program
            .options
            .push(DockerOption::with_value("workdir", &path));
    }
    Ok(program)
}

/// The image that holds nothing but the certificates, for the classic builder, which has no other way to hand a file
/// to a build that is not in its context.
pub const CA_IMAGE: &str = "launch-agent/ca-bundle:latest";

fn python_image(python: Option<&str>) -> String {
    let version = python.and_then(minor_version);
    format!(
        "python:{}-slim",
        version.as_deref().unwrap_or(DEFAULT_PYTHON)
    )
}

fn check_entry_point(job: &Job) -> Result<()> {
    if job.entry_point.is_empty() {
        return Err(
            Error::input(format!("the job `{}` has no entry point", job.name)).hint(
                "say what runs: `-E \"python train.py\"` when the job is made, or in `overrides.entry_point`",
            ),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::job::ArtifactName;
    use serde_json::{Value, json};

    /// A job and code with these files.
    fn code(files: &[(&str, &str)]) -> Code {
        Code {
            job: Job {
                name: "me/demo/My_Job:v3".to_owned(),
                source: JobSource::Artifact(ArtifactName::Id("x".to_owned())),
                entry_point: ["python", "src/train.py"].map(str::to_owned).into(),
                is_notebook: false,
                python: Some("3.11".to_owned()),
                base_image: None,
                dockerfile: None,
                build_context: None,
            },
            source: Some(Source {
                folder: "/code".into(),
                identity: "artifact:abc".to_owned(),
                files: files
                    .iter()
                    .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
                    .collect(),
                frozen: None,
            }),
            warnings: Vec::new(),
        }
    }

    fn decided(spec: &Value, code: &Code, builder: &Builder, has_buildx: bool) -> Result<Program> {
        decided_within(&Limits::default(), spec, code, builder, has_buildx)
    }

    fn decided_within(
        limits: &Limits,
        spec: &Value,
        code: &Code,
        builder: &Builder,
        has_buildx: bool,
    ) -> Result<Program> {
        let mut all = json!({"project": "p", "job": "me/demo/My_Job:v3"});
        for (key, value) in spec.as_object().expect("an object") {
            all[key] = value.clone();
        }
        let (spec, _) = LaunchSpec::parse(&all)?;
        let settings = Settings {
            builder,
            network: &Network::default(),
            has_buildx: &|| has_buildx,
            folder: Path::new("/state/builds"),
            limits,
        };
        decide(&spec, Some(code), &settings)
    }

    fn plain(code: &Code) -> Program {
        decided(&json!({}), code, &Builder::default(), false).expect("a program")
    }

    fn build(program: Program) -> Build {
        program.build.expect("a build")
    }

    #[test]
    fn the_line_of_a_build_with_either_builder() {
        let builder = Builder {
            platform: Some("linux/amd64".to_owned()),
            build_args: [("A".to_owned(), "b c".to_owned())].into(),
            secrets: [("netrc".to_owned(), "/home/a/.netrc".into())].into(),
            ..Builder::default()
        };
        let line = |has_buildx| {
            let program = decided(&json!({}), &code(&[]), &builder, has_buildx).expect("good");
            build(program).command.to_string()
        };
        let tag = line(true)
            .split_once("launch-agent/my-job:")
            .and_then(|(_, rest)| rest.split_once(' '))
            .expect("a tag")
            .0
            .to_owned();
        let common = format!(
            "--file /state/builds/{tag}.Dockerfile --tag launch-agent/my-job:{tag} \
             --label launch-agent.job=me/demo/My_Job:v3 --label launch-agent.source=artifact:abc \
             --platform linux/amd64 --build-arg 'A=b c'"
        );
        assert_eq!(
            line(true),
            format!(
                "docker buildx build --load --progress plain {common} --secret id=netrc,src=/home/a/.netrc /code"
            )
        );
        assert_eq!(
            line(false),
            format!("docker build --force-rm {common} /code")
        );
    }

    #[test]
    fn the_classic_builder_holds_a_build_to_the_limits_of_jobs() {
        let limits = Limits {
            memory: Some(3 << 30),
            cpus: Some(1.5),
            ..Limits::default()
        };
        let builder = Builder::default();
        let program = |has_buildx| {
            decided_within(&limits, &json!({}), &code(&[]), &builder, has_buildx).expect("good")
        };
        let line = build(program(false)).command.to_string();
        let asked = " --memory 3g --memory-swap 6g --cpu-period 100000 --cpu-quota 150000 /code";
        assert!(line.ends_with(asked), "{line}");
        assert!(
            !build(program(true))
                .command
                .to_string()
                .contains("--memory")
        );
        assert_eq!(program(false).image, plain(&code(&[])).image);
    }

    #[test]
    fn the_tag_is_over_all_that_makes_the_image_and_nothing_else() {
        let first = plain(&code(&[("requirements.txt", "six")])).image;
        assert!(first.starts_with("launch-agent/my-job:"), "{first}");
        let same = |program: Result<Program>| program.expect("good").image == first;
        let files = [("requirements.txt", "six")];
        let with = |builder: &Builder, buildx| decided(&json!({}), &code(&files), builder, buildx);
        let agents = Builder::default();
        assert!(same(with(&agents, true)), "who builds does not matter");
        let secrets = Builder {
            secrets: [("netrc".to_owned(), "/x".into())].into(),
            ..agents.clone()
        };
        assert!(same(with(&secrets, true)), "secrets are not in the image");
        let args = json!({"overrides": {"args": ["--epochs", "3"]}});
        assert!(same(decided(&args, &code(&files), &agents, true)));

        for builder in [
            Builder {
                platform: Some("linux/arm64".to_owned()),
                ..agents.clone()
            },
            Builder {
                base_image: Some("base:1".to_owned()),
                ..agents.clone()
            },
            Builder {
                build_args: [("A".to_owned(), "1".to_owned())].into(),
                ..agents.clone()
            },
        ] {
            assert!(!same(with(&builder, false)), "{builder:?}");
        }
        let mut other = code(&files);
        other.source.as_mut().expect("code").identity = "artifact:def".to_owned();
        assert_ne!(plain(&other).image, first);
        let mut other = code(&files);
        other.job.entry_point.push("--fast".to_owned());
        assert_ne!(plain(&other).image, first);
        let to = Builder {
            destination: Some("localhost:5000/team/jobs".to_owned()),
            ..agents
        };
        let pushed = build(with(&to, false).expect("good"));
        assert!(pushed.is_pushed && pushed.image.starts_with("localhost:5000/team/jobs:"));
    }

    #[test]
    fn the_dockerfile_is_chosen_in_wandbs_order() {
        let files = [
            ("other.Dockerfile", "FROM a"),
            ("job.Dockerfile", "FROM b"),
            ("src/Dockerfile.wandb", "FROM c"),
        ];
        let mut all = code(&files);
        all.job.dockerfile = Some("job.Dockerfile".to_owned());
        let overridden = json!({"overrides": {"dockerfile": "./other.Dockerfile"}});
        let chosen = decided(&overridden, &all, &Builder::default(), false).expect("good");
        assert_eq!(
            build(chosen).dockerfile.path,
            Path::new("/code/other.Dockerfile")
        );
        let own = plain(&all);
        assert_eq!(own.entry_point, ["python", "src/train.py"]);
        let own = build(own);
        assert_eq!(own.dockerfile.path, Path::new("/code/job.Dockerfile"));
        assert_eq!(own.context, Path::new("/code/"));

        all.job.dockerfile = None;
        let beside = plain(&all);
        assert_eq!(beside.entry_point, ["python", "train.py"]);
        let beside = build(beside);
        assert_eq!(
            beside.dockerfile.path,
            Path::new("/code/src/Dockerfile.wandb")
        );
        assert_eq!(beside.context, Path::new("/code/src"));

        let generated = plain(&code(&[]));
        assert!(generated.entry_point.is_empty());
        let generated = build(generated);
        assert!(generated.dockerfile.is_generated);
        assert_eq!(generated.script.as_deref(), Some("src/train.py"));
        assert!(
            generated
                .dockerfile
                .text
                .starts_with("FROM python:3.11-slim AS base\n")
        );
    }

    #[test]
    fn a_build_context_is_where_all_paths_start() {
        let mut job = code(&[
            ("part/Dockerfile", "FROM a"),
            ("part/requirements.txt", "six"),
        ]);
        job.job.build_context = Some("./part/".to_owned());
        let generated = build(plain(&job));
        assert_eq!(generated.context, Path::new("/code/part"));
        assert!(generated.dockerfile.text.contains("COPY requirements.txt"));
        job.job.dockerfile = Some("Dockerfile".to_owned());
        let own = build(plain(&job));
        assert_eq!(own.dockerfile.path, Path::new("/code/part/Dockerfile"));
        assert_eq!(own.context, Path::new("/code/part"));
    }

    #[test]
    fn a_base_image_or_no_builder_mounts_the_code() {
        let mut job = code(&[("requirements.txt", "six")]);
        let noop = Builder {
            kind: BuilderKind::Noop,
            ..Builder::default()
        };
        let mounted = decided(&json!({}), &job, &noop, false).expect("good");
        assert_eq!(mounted.image, "python:3.11-slim");
        assert_eq!(mounted.warnings.len(), 1);
        job.job.base_image = Some("theirs:1".to_owned());
        let spec = json!({"overrides": {"working_dir": "src"}});
        let mounted = decided(&spec, &job, &noop, false).expect("good");
        let options: Vec<String> = mounted
            .options
            .iter()
            .flat_map(DockerOption::words)
            .collect();
        assert_eq!(
            options.join(" "),
            "--volume /code:/mnt/wandb --workdir /mnt/wandb/src"
        );
        assert_eq!((mounted.image.as_str(), mounted.build), ("theirs:1", None));
        assert_eq!(mounted.entry_point, ["python", "src/train.py"]);
    }

    #[test]
    fn what_cannot_be_built_is_said() {
        let overrides = |key: &str, value: &str| json!({"overrides": {key: value}});
        let mut nothing = code(&[]);
        nothing.job.entry_point.clear();
        let mut outside = code(&[]);
        outside.job.build_context = Some("../x".to_owned());
        for (spec, job, message) in [
            (
                json!({}),
                nothing,
                "the job `me/demo/My_Job:v3` has no entry point",
            ),
            (
                json!({}),
                outside,
                "the job's `build_context`: `../x` leads out of the job's code",
            ),
            (
                overrides("dockerfile", "nope"),
                code(&[]),
                "`overrides.dockerfile` is `nope`, which is not in the job's code",
            ),
            (
                overrides("dockerfile", "/etc/passwd"),
                code(&[]),
                "`overrides.dockerfile`: `/etc/passwd` leads out of the job's code",
            ),
            (
                overrides("working_dir", "x"),
                code(&[("src/Dockerfile.wandb", "FROM a")]),
                "`overrides.working_dir` is `x`, and the job has a Dockerfile of its own",
            ),
        ] {
            let error = decided(&spec, &job, &Builder::default(), false).expect_err("bad");
            assert_eq!(error.message, message);
        }
    }
}
