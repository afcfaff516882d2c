//! What a build said: which packages it went on without, and why it failed, in words that the job's owner can act on.
//! Pure.
//!
//! Read are pip's own lines, the marks that a generated Dockerfile prints, and docker's messages, of the classic
//! builder and of BuildKit.

use crate::failure::{Error, Kind};
use crate::launch::build::Build;
use crate::launch::dockerfile::{MARK, NOT_INSTALLED};

/// How many of a tool's own lines go into a message.
const QUOTED: usize = 6;

/// The packages of a frozen list that could not be installed.
pub fn not_installed(output: &str) -> Vec<&str> {
    marks(output)
        .filter_map(|mark| mark.strip_prefix(NOT_INSTALLED))
        .collect()
}

/// The warning about them; `None` when there are none.
pub fn warning(output: &str) -> Option<String> {
    let packages = not_installed(output);
    (!packages.is_empty()).then(|| {
        format!(
            "could not be installed, and the image was built without: `{}`",
            packages.join("`, `")
        )
    })
}

/// Why a build failed.
pub fn explain(build: &Build, output: &str) -> Error {
    let lines: Vec<&str> = output.lines().map(plain).collect();
    no_room(&lines)
        .or_else(|| base(build, output))
        .or_else(|| no_image(&lines))
        .or_else(|| packages(&lines))
        .or_else(|| dockerfile(build, &lines))
        .unwrap_or_else(|| Error::input(format!("the build failed: {}", last_words(&lines))))
}

/// A line without what BuildKit puts in front: `#9 3.214 `.
fn plain(line: &str) -> &str {
    let Some((number, rest)) = line.strip_prefix('#').and_then(|it| it.split_once(' ')) else {
        return line;
    };
    let is_number = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    if !is_number(number) {
        return line;
    }
    match rest.split_once(' ') {
        Some((seconds, rest)) if is_number(seconds) => rest,
        _ => rest,
    }
}

/// The lines that a generated Dockerfile prints for the agent.
fn marks(output: &str) -> impl Iterator<Item = &str> {
    output
        .lines()
        .filter_map(|line| plain(line).strip_prefix(MARK))
}

fn no_room(lines: &[&str]) -> Option<Error> {
    let said = lines
        .iter()
        .any(|line| line.to_lowercase().contains("no space left on device"));
    said.then(|| {
        Error::new(Kind::System, "the build failed: no space left on the engine's disk")
            .hint("`docker system df` shows what takes it; `docker builder prune` and `docker image prune` free it")
    })
}

/// A base image that the generated Dockerfile cannot work with.
fn base(build: &Build, output: &str) -> Option<Error> {
    let base = build.base.as_ref()?;
    let image = &base.image;
    let wanted = match &base.python {
        Some(version) => format!("Python {version}"),
        None => "Python".to_owned(),
    };
    let has = |found: &str| match found {
        "none" => "has none".to_owned(),
        version => format!("has Python {version}"),
    };
    for mark in marks(output) {
        if let Some(found) = mark.strip_prefix("no apt-get, found ") {
            return Some(
                Error::input(format!(
                    "the base image `{image}` is not Debian-compatible: the job wants {wanted}, and the image {} and no `apt-get` to install it",
                    has(found)
                ))
                .hint("choose a base image of Debian or Ubuntu, or one with the wanted Python"),
            );
        }
        if let Some(found) = mark.strip_prefix("no python, found ") {
            let offers = match found {
                "none" => "offers none".to_owned(),
                version => format!("offers Python {version}"),
            };
            return Some(
                Error::input(format!(
                    "the base image `{image}` has no {wanted}, and its `apt-get` {offers}"
                ))
                .hint("choose a base image with the wanted Python, or make the job with the Python of the base image"),
            );
        }
        if mark == "apt-get failed" {
            let said: Vec<&str> = output
                .lines()
                .map(plain)
                .filter(|line| line.starts_with("E: "))
                .take(QUOTED)
                .collect();
            return Some(
                Error::input(format!(
                    "the base image `{image}` has no {wanted}, and `apt-get` could not install it: {}",
                    said.join("; ")
                ))
                .hint("a build reaches the world through `network.proxy` and `network.ca_bundle` of launch-config.yaml"),
            );
        }
    }
    let no_shell = ["/bin/sh\": stat /bin/sh: no such file", "exec: \"/bin/sh\""]
        .iter()
        .any(|words| output.contains(words));
    no_shell.then(|| {
        Error::input(format!(
            "the base image `{image}` is not Debian-compatible: it has no shell"
        ))
        .hint("choose a base image of Debian or Ubuntu")
    })
}

/// The image of a `FROM` that is not to be had.
fn no_image(lines: &[&str]) -> Option<Error> {
    let said = lines.iter().find(|line| {
        [
            "pull access denied for ",
            "manifest for ",
            "manifest unknown",
            "failed to resolve source metadata",
            "failed to resolve reference",
            "repository does not exist",
        ]
        .iter()
        .any(|words| line.contains(words))
            || (line.contains("Get \"https://") && line.contains("/v2/"))
    })?;
    let said = said
        .trim_start_matches("ERROR: ")
        .trim_start_matches("failed to solve: ");
    Some(
        Error::input(format!("the image to start from could not be pulled: {said}"))
            .hint("check the name after `FROM`; for a private registry run `docker login` as the agent's user"),
    )
}

/// pip's own words.
fn packages(lines: &[&str]) -> Option<Error> {
    let mut said: Vec<&str> = Vec::new();
    for line in lines {
        let line = line.trim();
        // BuildKit begins its own errors with the same word.
        let is_pips = line.starts_with("ERROR: ")
            && !line.starts_with("ERROR: failed to ")
            && !line.starts_with("ERROR: process ");
        if is_pips && !said.contains(&line) {
            said.push(line);
        }
    }
    if said.is_empty() {
        return None;
    }
    let all = lines.join("\n");
    let has = |words: &[&str]| words.iter().any(|word| all.contains(word));
    let hint = if has(&["CERTIFICATE_VERIFY_FAILED", "SSLCertVerificationError"]) {
        "the package index shows a certificate that the image does not know: name your company's certificates in `network.ca_bundle` of launch-config.yaml"
    } else if has(&[
        "NewConnectionError",
        "Temporary failure in name resolution",
        "ConnectTimeoutError",
        "ProxyError",
    ]) {
        "the package index could not be reached from the build: name the proxy in `network.proxy` of launch-config.yaml"
    } else if has(&[
        "gcc' failed",
        "command 'cc' failed",
        "No such file or directory: 'gcc'",
        "Unknown compiler",
    ]) {
        "the package must be compiled: choose a base image with a compiler, or bring a Dockerfile"
    } else {
        "correct the requirement; a package may also have no version for this Python"
    };
    said.truncate(QUOTED);
    let said: Vec<&str> = said
        .iter()
        .map(|line| line.trim_start_matches("ERROR: "))
        .collect();
    Some(
        Error::input(format!(
            "the packages could not be installed: {}",
            said.join("; ")
        ))
        .hint(hint),
    )
}

/// A Dockerfile that is wrong, or that docker could not carry out.
fn dockerfile(build: &Build, lines: &[&str]) -> Option<Error> {
    let path = build.dockerfile.path.strip_prefix(&build.context);
    let name = match path {
        Ok(path) => path.display().to_string(),
        Err(_) => build.dockerfile.path.display().to_string(),
    };
    if let Some((line, why)) = lines.iter().find_map(|line| parse_error(line)) {
        return Some(
            Error::input(format!("`{name}`, line {line}: {why}"))
                .hint("correct the Dockerfile; `docker build` shows the same error"),
        );
    }
    if let Some((command, code)) = lines.iter().find_map(|line| failed_command(line)) {
        let place = line_of(&build.dockerfile.text, command)
            .map_or(String::new(), |line| format!(", line {line}"));
        let said = before_the_end(lines);
        return Some(
            Error::input(format!(
                "`{name}`{place}: the command ended with exit code {code}: {said}"
            ))
            .hint("the whole output of the build is in the job's log"),
        );
    }
    let missing = lines.iter().find_map(|line| missing_file(line))?;
    let place = line_of(&build.dockerfile.text, missing)
        .map_or(String::new(), |line| format!(", line {line}"));
    Some(
        Error::input(format!(
            "`{name}`{place}: `{missing}` is not in the build's folder, or `.dockerignore` leaves it out"
        ))
        .hint("paths of `COPY` start at the build context"),
    )
}

/// `dockerfile parse error line 3: unknown instruction: FRM`, and BuildKit's `.. on line 3: ..`.
fn parse_error(line: &str) -> Option<(u32, &str)> {
    let start = line.to_lowercase().find("parse error")?;
    let rest = &line[start..];
    let rest = &rest[rest.find("line ")? + "line ".len()..];
    let (number, why) = rest.split_once(": ")?;
    Some((number.parse().ok()?, why))
}

/// The command of a `RUN` that failed, and its exit code.
fn failed_command(line: &str) -> Option<(&str, &str)> {
    if let Some((_, rest)) = line.split_once("The command '") {
        let (command, code) = rest.rsplit_once("' returned a non-zero code: ")?;
        return Some((without_shell(command), code));
    }
    let (_, rest) = line.split_once("process \"")?;
    let (command, code) = rest.rsplit_once("\" did not complete successfully: exit code: ")?;
    Some((without_shell(command), code))
}

fn without_shell(command: &str) -> &str {
    command.strip_prefix("/bin/sh -c ").unwrap_or(command)
}

fn missing_file(line: &str) -> Option<&str> {
    if line.contains("file not found in build context") || line.contains("COPY failed: ") {
        let (_, rest) = line.rsplit_once("stat ")?;
        let path = rest.split(':').next()?;
        return Some(
            path.rsplit_once("/docker-builder")
                .map_or(path, |(_, rest)| rest),
        );
    }
    let (_, rest) = line
        .split_once("failed to calculate checksum of ref ")
        .or_else(|| line.split_once("failed to compute cache key: "))?;
    let (before, _) = rest.split_once("\": not found")?;
    before.rsplit_once("\"/").map(|(_, path)| path)
}

/// The line of a Dockerfile with these words, from 1. Lines that are continued are compared by their first piece.
fn line_of(dockerfile: &str, words: &str) -> Option<usize> {
    let words = words.trim();
    let found = dockerfile.lines().position(|line| {
        let piece = line.trim().trim_end_matches('\\').trim();
        let argument = piece.split_once(' ').map_or("", |(_, rest)| rest).trim();
        !argument.is_empty()
            && (words.starts_with(argument) || argument.split(' ').any(|word| word == words))
    })?;
    Some(found + 1)
}

/// What a failed command said last: the lines before docker's own.
fn before_the_end(lines: &[&str]) -> String {
    let is_dockers = |line: &str| {
        failed_command(line).is_some()
            || line.starts_with("ERROR: ")
            || line.starts_with("Removing intermediate container")
            || line.starts_with("------")
            || line.starts_with(" > ")
    };
    let end = lines
        .iter()
        .position(|line| failed_command(line).is_some())
        .unwrap_or(lines.len());
    let mut said: Vec<&str> = lines[..end]
        .iter()
        .rev()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty() && !is_dockers(line))
        .take_while(|line| !line.starts_with("---> ") && !line.starts_with("Step "))
        .take(QUOTED)
        .collect();
    said.reverse();
    said.join("; ")
}

fn last_words(lines: &[&str]) -> String {
    let said = lines
        .iter()
        .rev()
        .map(|line| line.trim().trim_start_matches("ERROR: "))
        .find(|line| !line.is_empty());
    said.unwrap_or("docker gave no reason").to_owned()
}
