//! A place to build and run one job's image in: made of the library's own steps, removed with what it made.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use jiff::Timestamp;
use launch_agent::failure::{Error, Kind};
use launch_agent::host::logs::{JobLog, LogFile, Redactor, TerminalLines};
use launch_agent::host::machine::machine;
use launch_agent::host::runner::Labels;
use launch_agent::host::stop::Stop;
use launch_agent::host::{images, journal, runner};
use launch_agent::launch::build::{self, Settings};
use launch_agent::launch::builder::Builder;
use launch_agent::launch::command::Secret;
use launch_agent::launch::job::{ArtifactName, Code, Job, JobSource, Source};
use launch_agent::launch::network::Network;
use launch_agent::launch::plan::{self, Context, ImagePlan, Place, Plan};
use launch_agent::launch::policy::{Guard, Limits, Policy, Preset};
use launch_agent::launch::spec::LaunchSpec;
use launch_agent::launch::transfer::Transfers;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// How many plans were made: several benches run at once, and each container has a name of its own.
static PLANS: AtomicUsize = AtomicUsize::new(0);

/// Where the certificates of this machine are: a build reaches `PyPI` as this machine does.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The base image of `Dockerfile.base`, made once for all tests and kept for the next time.
pub fn base() -> String {
    static BASE: OnceLock<String> = OnceLock::new();
    BASE.get_or_init(|| script(&["base-image", "--from-apt", "launch-agent-base:test"]))
        .clone()
}

/// Debian without Python, from which the base image was made.
pub fn debian() -> String {
    base();
    "launch-agent-debian:bookworm".to_owned()
}

/// The Python of the base image.
pub fn python() -> String {
    let script = "import sys; print('%d.%d' % sys.version_info[:2])";
    let output = docker(&["run", "--rm", &base(), "python3", "-c", script]);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Where docker's buildx is, for `DOCKER_CONFIG`.
fn buildx() -> &'static str {
    static BUILDX: OnceLock<String> = OnceLock::new();
    BUILDX.get_or_init(|| script(&["buildx-plugin"]))
}

fn script(words: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts")
        .join(words[0]);
    let made = Command::new(path)
        .args(&words[1..])
        .output()
        .expect("the script runs");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    String::from_utf8_lossy(&made.stdout).trim().to_owned()
}

fn docker(arguments: &[&str]) -> Output {
    Command::new("docker")
        .args(arguments)
        .env("DOCKER_BUILDKIT", "0")
        .output()
        .expect("docker is installed")
}

/// Begins again what the engine broke off, as the agent does: other tests remove images meanwhile.
fn provide(image: &ImagePlan, log: &mut JobLog, stop: &Stop) -> Result<Vec<String>, Error> {
    let provided = images::provide(image, log, stop);
    match provided {
        Err(error) if error.kind == Kind::Docker => images::provide(image, log, stop),
        _ => provided,
    }
}

/// Code with these files, whose job has this entry point. It is no other code than that of another test.
pub fn code(files: &[(&str, &str)], entry_point: &[&str]) -> Code {
    // A run of a failed test can be looked at there, and `cargo clean` removes it.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a folder")
        .keep();
    let mut hash = Sha256::new();
    for (path, text) in files {
        let text = text.replace("FROM BASE\n", &format!("FROM {}\n", base()));
        hash.update(format!("{path}\n{text}\n"));
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("written");
    }
    let digest = hash.finalize();
    Code {
        job: Job {
            name: "me/demo/images-test:v0".to_owned(),
            source: JobSource::Artifact(ArtifactName::Id("x".to_owned())),
            entry_point: entry_point.iter().map(ToString::to_string).collect(),
            is_notebook: false,
            python: None,
            base_image: None,
            dockerfile: None,
            build_context: None,
        },
        source: Some(Source {
            identity: format!("artifact:{:02x?}", &digest[..8]),
            files: files
                .iter()
                .map(|(path, _)| {
                    let text = fs::read_to_string(folder.join(path)).expect("a file");
                    ((*path).to_owned(), text)
                })
                .collect(),
            folder,
            frozen: None,
        }),
        warnings: Vec::new(),
    }
}

/// What a job did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    /// The job's log: the build's output, and the job's own.
    pub output: String,
    pub warnings: Vec<String>,
}

pub struct Bench {
    pub builder: Builder,
    pub spec: Value,
    pub network: Network,
    has_buildx: bool,
    folder: TempDir,
    made: Vec<String>,
    runs: usize,
}

/// A terminal that nobody looks at.
struct Nowhere;

impl Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Bench {
    pub fn new(has_buildx: bool) -> Bench {
        Bench {
            builder: Builder {
                base_image: Some(base()),
                ..Builder::default()
            },
            spec: json!({"project": "demo", "job": "me/demo/images-test:v0"}),
            network: Network {
                ca_bundle: Some(CERTIFICATES.into()),
                ..Network::default()
            },
            has_buildx,
            folder: tempfile::tempdir().expect("a folder"),
            made: Vec::new(),
            runs: 0,
        }
    }

    /// Makes an image out of a Dockerfile's text, and removes it in the end.
    pub fn image(&mut self, name: &str, dockerfile: &str) -> String {
        let context = tempfile::tempdir().expect("a folder");
        fs::write(context.path().join("Dockerfile"), dockerfile).expect("written");
        let image = format!("launch-agent-test-{name}:{}", std::process::id());
        let output = docker(&[
            "build",
            // While the classic builder looks for what it has, it fails when another test removes an image.
            "--no-cache",
            "--tag",
            &image,
            "--label",
            "launch-agent.example=test",
            &context.path().to_string_lossy(),
        ]);
        assert!(output.status.success(), "{output:?}");
        self.made.push(image.clone());
        image
    }

    pub fn prepared(&mut self, dockerfile: &str) -> String {
        self.image("base", dockerfile)
    }

    /// Builds the image where it is missing, runs the job, and gives what came of it.
    pub fn run(&mut self, code: &Code) -> Ran {
        let plan = self.plan(code).expect("a plan");
        let mut log = self.open_log();
        let stop = Stop::default();
        let mut warnings = plan.warnings.clone();
        let Place::Container(container) = &plan.place else {
            panic!("no container: {plan:?}");
        };
        if let ImagePlan::Build { .. } = container.image {
            let provided = provide(&container.image, &mut log, &stop);
            warnings.extend(
                provided.unwrap_or_else(|error| panic!("{error} {:?}\n{}", error.hint, self.log())),
            );
        }
        let started = journal::Started {
            container: Some(journal::Container {
                name: container.name.clone(),
                cidfile: container.cidfile.clone(),
                removal: container.removal,
            }),
            at: Timestamp::now(),
            boot: runner::boot(),
            log_from: log.position(),
            engine_restarted: false,
        };
        let end = runner::run(&plan.run, &started, &mut log, &stop).expect("a run");
        let labels = Labels {
            agent: "images-test",
            item: &self.item(),
            run: &plan.run_id,
        };
        runner::clean_up(&started, labels, true);
        log.finish();
        Ran {
            code: end.exit.code,
            output: self.log(),
            warnings,
        }
    }

    /// The item of the run that is planned last.
    fn item(&self) -> String {
        format!("images-{}-{}", std::process::id(), self.runs)
    }

    /// The error of an image that cannot be built.
    pub fn refused(&mut self, code: &Code) -> Error {
        let plan = match self.plan(code) {
            Ok(plan) => plan,
            Err(error) => return error,
        };
        let mut log = self.open_log();
        let Place::Container(container) = &plan.place else {
            panic!("no container: {plan:?}");
        };
        provide(&container.image, &mut log, &Stop::default()).expect_err("no image")
    }

    /// The log of the last run.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> std::path::PathBuf {
        self.folder.path().join(format!("{}.log", self.runs))
    }

    fn open_log(&mut self) -> JobLog {
        self.runs += 1;
        let file = LogFile::create(&self.log_path(), 10_000_000).expect("a log");
        let terminal = TerminalLines::new(Arc::new(Mutex::new(Nowhere)), "1");
        JobLog::new(Redactor::new(&[]), file, terminal)
    }

    fn plan(&mut self, code: &Code) -> Result<Plan, Error> {
        let (spec, _) = LaunchSpec::parse(&self.spec)?;
        let settings = Settings {
            builder: &self.builder,
            network: &self.network,
            has_buildx: &|| self.has_buildx,
            folder: &self.folder.path().join("builds"),
            limits: &Limits::default(),
        };
        let mut program = build::decide(&spec, Some(code), &settings)?;
        if let Some(build) = &mut program.build {
            // No image of one run of the tests may stand in for one of another.
            build.image = format!("{}-{}", build.image, std::process::id());
            program.image.clone_from(&build.image);
            for word in &mut build.command.argv {
                if build.image.starts_with(word.as_str()) {
                    word.clone_from(&build.image);
                }
            }
            if self.has_buildx {
                build
                    .command
                    .env
                    .insert("DOCKER_CONFIG".to_owned(), Secret::new(buildx()));
            }
            self.made.push(build.image.clone());
        }
        let number = PLANS.fetch_add(1, Ordering::Relaxed);
        let item = format!("images-{}-{number}", std::process::id());
        let context = Context {
            item: &item,
            queue: "q",
            agent: "images-test",
            queue_entity: None,
            generated_run_id: &item,
            server: None,
            environment: &BTreeMap::new(),
            env_macros: &[],
            secure_mode: false,
            guard: Guard {
                policy: &Policy::of(Preset::Open),
                machine: machine(),
            },
            cidfile: &self.folder.path().join("cid"),
            network: &self.network,
            transfers: &Transfers::default(),
        };
        Ok(plan::plan(
            &plan::resolve(&spec, &program, &context, &|| None)?,
            &context,
        ))
    }

    pub fn remove_images(&mut self) {
        for image in self.made.drain(..) {
            docker(&["image", "rm", "--force", &image]);
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.remove_images();
    }
}
