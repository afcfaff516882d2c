//! How a job's image is made: its Dockerfile, the `docker build` line, and its name, whose tag is a hash over all that
//! makes the image what it is.

use std::fmt::Write as _;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::choice::Own;
use super::{
    Base, Build, CA_IMAGE, Dockerfile, Program, Settings, check_entry_point, python_image,
};
use crate::failure::Result;
use crate::launch::builder::TIMEOUT;
use crate::launch::command::{CommandLine, Secret};
use crate::launch::dependencies::{self, minor_version};
use crate::launch::docker;
use crate::launch::dockerfile::{self, CA_SECRET, Flavor, Recipe};
use crate::launch::job::{Job, Source, plain_path, script_of};

/// What an image is made of, and how.
pub struct Makes<'a> {
    /// The job.
    pub job: &'a Job,
    /// Its code.
    pub source: &'a Source,
    /// What the agent and the queue say of builds.
    pub settings: &'a Settings<'a>,
    /// Does `BuildKit` build?
    pub is_buildkit: bool,
}

impl Makes<'_> {
    /// The image of a Dockerfile that came with the code.
    pub fn with_own_dockerfile(&self, own: Own) -> Program {
        let identity = &self.source.identity;
        let image = self.name(&["own", identity, &own.path, &own.context, &own.text]);
        let dockerfile = Dockerfile {
            path: self.source.folder.join(&own.path),
            text: own.text,
            is_generated: false,
        };
        let build = Build {
            // The Dockerfile may make the script, or put it elsewhere.
            script: None,
            base: None,
            ..self.build(image, dockerfile, &own.context)
        };
        Program {
            image: build.image.clone(),
            entry_point: own.entry_point,
            options: Vec::new(),
            build: Some(build),
            warnings: Vec::new(),
        }
    }

    /// The image of a generated Dockerfile.
    pub fn generated(&self, context: &str) -> Result<Program> {
        check_entry_point(self.job)?;
        let mut found = dependencies::find(self.source, context);
        let chosen = self.settings.builder.base_image.clone();
        let is_python_image = chosen.is_none();
        let own = self.job.python.as_deref().and_then(minor_version);
        // A base that was chosen has the Python that it has, unless the job wants a certain one.
        let python = if is_python_image {
            found.python_of_image(own)?
        } else {
            own.or_else(|| found.python.clone())
        };
        let base = Base {
            image: chosen.unwrap_or_else(|| python_image(python.as_deref())),
            python,
        };
        let secrets: Vec<&str> = self
            .settings
            .builder
            .secrets
            .keys()
            .map(String::as_str)
            .collect();
        let recipe = Recipe {
            base: &base.image,
            is_python_image,
            python: base.python.as_deref(),
            dependencies: &found,
            entry_point: &self.job.entry_point,
            secrets: &secrets,
            has_ca_bundle: self.settings.network.ca_bundle.is_some(),
        };
        // What the image is made of does not depend on who builds it, nor on how the build reached the world.
        let canonical = dockerfile::text(
            &Recipe {
                secrets: &[],
                has_ca_bundle: false,
                ..recipe
            },
            &Flavor::Classic { ca_image: None },
        );
        let image = self.name(&["generated", &self.source.identity, context, &canonical]);
        let flavor = if self.is_buildkit {
            Flavor::BuildKit
        } else {
            let ca_image = recipe.has_ca_bundle.then(|| CA_IMAGE.to_owned());
            Flavor::Classic { ca_image }
        };
        let tag = image.rsplit(':').next().unwrap_or_default();
        let dockerfile = Dockerfile {
            path: self.settings.folder.join(format!("{tag}.Dockerfile")),
            text: dockerfile::text(&recipe, &flavor),
            is_generated: true,
        };
        let build = Build {
            script: script_of(&self.job.entry_point).map(|script| plain_path(script).to_owned()),
            base: Some(base),
            may_leave_out: !found.wanted.is_empty(),
            ..self.build(image, dockerfile, context)
        };
        Ok(Program {
            image: build.image.clone(),
            entry_point: Vec::new(),
            options: Vec::new(),
            build: Some(build),
            warnings: found.warnings,
        })
    }

    fn build(&self, image: String, dockerfile: Dockerfile, context: &str) -> Build {
        let folder = &self.source.folder;
        let context = if context.is_empty() {
            folder.clone()
        } else {
            folder.join(context)
        };
        Build {
            command: self.command(&image, &dockerfile.path, &context),
            image,
            dockerfile,
            code: folder.clone(),
            context,
            script: None,
            base: None,
            may_leave_out: false,
            ca_bundle: self.settings.network.ca_bundle.clone(),
            is_pushed: self.settings.builder.destination.is_some(),
            is_buildkit: self.is_buildkit,
            limit: self.settings.builder.timeout.unwrap_or(TIMEOUT),
        }
    }

    fn command(&self, image: &str, dockerfile: &Path, context: &Path) -> CommandLine {
        let settings = self.settings;
        let mut command = if self.is_buildkit {
            CommandLine::new(docker::program())
                .args(["buildx", "build"])
                .part(["--load"])
                .part(["--progress", "plain"])
        } else {
            // Without it, the container of a step that failed stays.
            let mut command = CommandLine::new(docker::program()).args(["build", "--force-rm"]);
            command
                .env
                .insert("DOCKER_BUILDKIT".to_owned(), Secret::new("0"));
            command
        };
        command = command
            .part(["--file".into(), dockerfile.to_string_lossy()])
            .part(["--tag", image]);
        for (key, value) in [("job", &self.job.name), ("source", &self.source.identity)] {
            command = command.part(["--label".to_owned(), format!("launch-agent.{key}={value}")]);
        }
        if let Some(platform) = &settings.builder.platform {
            command = command.part(["--platform", platform]);
        }
        for (key, value) in &settings.builder.build_args {
            command = command.part(["--build-arg".to_owned(), format!("{key}={value}")]);
        }
        for (key, value) in settings.network.proxy_variables() {
            command.env.insert(key.to_owned(), value);
            command = command.part(["--build-arg", key]);
        }
        for (key, value) in settings.network.no_proxy_variables() {
            command = command.part(["--build-arg".to_owned(), format!("{key}={value}")]);
        }
        if self.is_buildkit {
            let certificates = settings
                .network
                .ca_bundle
                .iter()
                .map(|path| (CA_SECRET, path));
            let own = settings
                .builder
                .secrets
                .iter()
                .map(|(id, path)| (id.as_str(), path));
            for (id, path) in certificates.chain(own) {
                command = command.part([
                    "--secret".to_owned(),
                    format!("id={id},src={}", path.display()),
                ]);
            }
        } else {
            for (option, value) in settings.limits.of_a_build() {
                command = command.part([option.to_owned(), value]);
            }
        }
        command.part([context.to_string_lossy()])
    }

    /// The image's name: where it goes, and a tag over all that makes it what it is.
    fn name(&self, makes: &[&str]) -> String {
        let builder = self.settings.builder;
        let mut hash = Sha256::new();
        let arguments: Vec<String> = builder
            .build_args
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let platform = builder.platform.as_deref().unwrap_or_default();
        let all = makes
            .iter()
            .copied()
            .chain([platform])
            .chain(arguments.iter().map(String::as_str));
        for part in all {
            // The length keeps `ab` + `c` apart from `a` + `bc`.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut tag = String::new();
        for byte in hash.finalize().iter().take(6) {
            let _ = write!(tag, "{byte:02x}");
        }
        match &builder.destination {
            Some(destination) => format!("{destination}:{tag}"),
            None => format!("launch-agent/{}:{tag}", image_part(&self.job.name)),
        }
    }
}

/// `entity/project/name:v3` as a part of an image's name.
fn image_part(job: &str) -> String {
    let name = job.rsplit('/').next().unwrap_or(job);
    let name = name.split(':').next().unwrap_or(name);
    let mut text = String::new();
    for c in name.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            text.push(c);
        } else if !text.is_empty() && !text.ends_with('-') {
            text.push('-');
        }
    }
    let text: String = text.chars().take(100).collect();
    match text.trim_end_matches('-') {
        "" => "job".to_owned(),
        text => text.to_owned(),
    }
}
