//! Builds the image of a job, as its plan says.

use std::path::Path;
use std::time::Duration;

use super::transfer::Refused;
use super::{Trouble, context, pull, push, turns};
use crate::failure::{Error, Kind, Result};
use crate::host::engine;
use crate::host::files;
use crate::host::logs::JobLog;
use crate::host::process::{self, Ending};
use crate::host::registry;
use crate::host::stop::{Activity, Stop};
use crate::launch::build::Build;
use crate::launch::build_output::BuildOutput;
use crate::launch::docker;
use crate::launch::plan::Remote;
use crate::launch::transfer::PullPolicy;

/// How much of a build's output is kept to find out what went wrong, in bytes. What went wrong is said at the end.
const KEPT: usize = 4 << 20;

/// How long docker may take for an image that holds one file.
const ONE_FILE: Duration = Duration::from_secs(120);

/// Makes sure that the image is on this machine, and at the registry that it goes to; builds it when it is at neither.
/// Gives what the job's owner should know, a sentence each.
pub fn provide(
    build: &Build,
    remote: Option<&Remote>,
    log: &mut JobLog,
    stop: &Stop,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let mut is_new = false;
    turns::once(&build.image, stop, || {
        let local = engine::local_image(&build.image)?;
        let Some(remote) = remote else {
            match local {
                None => {
                    warnings = make(build, log, stop)?;
                    is_new = true;
                }
                Some(_) => not_built(build, "on this machine", log),
            }
            return Ok(());
        };
        match local {
            Some(local) if local.is_of_a_registry() => {
                not_built(build, "on this machine and at its registry", log);
                return Ok(());
            }
            // It was built, and could not be pushed then.
            Some(_) => {}
            None if registry::exists(&remote.push, &remote.network, log, stop)? => {
                not_built(build, "at its registry", log);
                is_new = true;
                warnings = pull::provide(PullPolicy::Missing, &remote.pull, log, stop)?;
                return Ok(());
            }
            None => {
                warnings = make(build, log, stop)?;
                is_new = true;
            }
        }
        push::push(&remote.push, log, stop)
    })?;
    warnings.extend(left_out(build, is_new));
    Ok(warnings)
}

fn make(build: &Build, log: &mut JobLog, stop: &Stop) -> Result<Vec<String>> {
    let warnings = context::check(&build.context, &build.code)?
        .into_iter()
        .collect();
    check_script(build)?;
    if build.dockerfile.is_generated {
        write(&build.dockerfile.path, &build.dockerfile.text)?;
        if !build.is_buildkit {
            make_ca_image(build)?;
        }
    }
    for trial in 1.. {
        stop.check()?;
        let Some(refused) = attempt(build, log, stop)? else {
            break;
        };
        let Some(pause) = refused.trouble.pause_before(trial + 1) else {
            return Err(refused.error);
        };
        log.note(format_args!(
            "[launch-agent: {}; trying again in {} s]",
            refused.error,
            pause.as_secs()
        ));
        stop.pause(pause)?;
    }
    Ok(warnings)
}

/// Builds once; `None` when the image is made, otherwise what a registry did not give. An error is about all else.
fn attempt(build: &Build, log: &mut JobLog, stop: &Stop) -> Result<Option<Refused>> {
    log.note(&build.command);
    let mut output = Vec::new();
    let ending = process::stream_within(
        &build.command,
        build.limit,
        |group| stop.now(Activity::Command(group)),
        |bytes| {
            output.extend_from_slice(bytes);
            if output.len() > 2 * KEPT {
                output.drain(..output.len() - KEPT);
            }
            log.output(bytes);
        },
    );
    stop.now(Activity::Between);
    stop.check()?;
    match ending? {
        Some(Ending::Code(0)) => return Ok(None),
        Some(_) => {}
        // The engine ends what it runs for a client that is gone.
        None => {
            let seconds = build.limit.as_secs();
            let what = format!("the build was not done after {seconds} s and was ended");
            return Err(Error::input(what)
                .hint("`builder.timeout` in launch-config.yaml sets how long it may take"));
        }
    }
    let text = String::from_utf8_lossy(&output);
    let output = BuildOutput::new(&text);
    let last = output.last_of_docker();
    if let Some(error) = engine::engine_trouble(last).or_else(|| broken_off(last)) {
        return Err(error);
    }
    let refused = output.refused_image().map(|said| {
        let trouble = Trouble::of(said);
        let error = trouble.error_in_build(said);
        Refused { trouble, error }
    });
    // What the disk has no room for is said as of any step.
    match refused.filter(|refused| refused.trouble != Trouble::NoSpace) {
        None => Err(output.explain(build)),
        refused => Ok(refused),
    }
}

/// The engine broke the build off, and the job has no part in it. Docker's clients have no better words for an engine
/// that went away: the classic builder's, and `BuildKit`'s. The classic builder also looks through all images for a
/// step that it has done before, and gives up when one of them is removed meanwhile.
fn broken_off(last: &str) -> Option<Error> {
    let is_lost = last.trim() == "unexpected EOF"
        || last.contains("failed to receive status: rpc error: code = Unavailable");
    let what = if is_lost {
        "the docker engine went away in the middle of a build"
    } else if last.contains("unable to find image \"sha256:") {
        "the docker engine broke a build off because another image was removed meanwhile"
    } else {
        return None;
    };
    Some(Error::new(Kind::Docker, format!("{what}: {last}")))
}

fn not_built(build: &Build, place: &str, log: &mut JobLog) {
    log.note(format_args!(
        "[launch-agent: the image {} is {place}, and is not built again]",
        build.image
    ));
}

/// The warning about packages that the image was built without. What an image says of itself is kept beside its
/// Dockerfile, because each later job is to be told too, and a file costs it less than a container.
fn left_out(build: &Build, is_new: bool) -> Option<String> {
    if !build.may_leave_out {
        return None;
    }
    let kept = build.dockerfile.path.with_extension("not-installed");
    let known = std::fs::read_to_string(&kept).ok().filter(|_| !is_new);
    let packages = if let Some(packages) = known {
        packages
    } else {
        let packages = ask_left_out(build)?;
        if let Err(error) = write(&kept, &packages) {
            log::warn!("{error}");
        }
        packages
    };
    let packages: Vec<&str> = packages.lines().collect();
    (!packages.is_empty()).then(|| {
        format!(
            "could not be installed, and the image was built without: `{}`",
            packages.join("`, `")
        )
    })
}

/// What the image has of packages that it was built without, one a line; `None` where docker does not say.
fn ask_left_out(build: &Build) -> Option<String> {
    let container = format!("launch-agent-look-{:016x}", fastrand::u64(..));
    let command = docker::packages_left_out(&build.image, &container);
    let output = process::output(&command, ONE_FILE).ok();
    match output.as_ref().map(|output| output.ending) {
        Some(Ending::Code(0)) => output.map(|output| output.stdout),
        // It has no such list.
        Some(Ending::Code(1)) => Some(String::new()),
        _ => {
            // What took too long goes on without its client.
            let _ = engine::remove_container(&container);
            None
        }
    }
}

/// Building for minutes what cannot run helps nobody.
fn check_script(build: &Build) -> Result<()> {
    match &build.script {
        Some(script) if !build.context.join(script).is_file() => Err(Error::input(format!(
            "the entry point names `{script}`, which is not in the job's code"
        ))
        .hint("give its path from the top of the code, or from the job's `build_context`")),
        _ => Ok(()),
    }
}

/// The classic builder takes files from the context and from images alone, and the context is the job's.
fn make_ca_image(build: &Build) -> Result<()> {
    let Some(bundle) = &build.ca_bundle else {
        return Ok(());
    };
    let failed = |cause| Error::system("cannot prepare the certificates for the build", cause);
    let folder = tempfile::tempdir().map_err(failed)?;
    std::fs::copy(bundle, folder.path().join("ca-bundle.pem")).map_err(failed)?;
    write(
        &folder.path().join("Dockerfile"),
        "FROM scratch\nCOPY ca-bundle.pem /ca-bundle.pem\nLABEL launch-agent.job=\"\"\n",
    )?;
    let command = docker::build_ca_image(&folder.path().to_string_lossy());
    let output = process::output(&command, ONE_FILE)?;
    if output.is_success() {
        return Ok(());
    }
    let said = engine::explain(&output.stderr);
    Err(Error::new(
        Kind::Docker,
        format!("`{command}` failed: {said}"),
    ))
}

fn write(path: &Path, text: &str) -> Result<()> {
    files::make_folder(path.parent().unwrap_or(Path::new("/")))?;
    files::write_whole(path, text.as_bytes())
}
