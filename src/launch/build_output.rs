//! What a build said: why it failed, in words that the job's owner can act on. Pure.
//!
//! Read are pip's own lines, the marks that a generated Dockerfile prints, and docker's messages, of the classic
//! builder and of `BuildKit`.

mod pip;

use crate::failure::{Error, Kind};
use crate::launch::build::Build;
use crate::launch::dockerfile::MARK;

/// How many of a tool's own lines go into a message.
const QUOTED: usize = 6;

/// What `BuildKit` says of an image that a registry does not give it.
const IMAGE_REFUSED: [&str; 9] = [
    "/v2/",
    "failed to authorize",
    "failed to copy: ",
    "failed to do request: ",
    "failed to resolve reference",
    "failed to resolve source metadata",
    "manifest unknown",
    "pull access denied",
    "toomanyrequests",
];

/// What `BuildKit` puts in front of the reason.
const WAY: [&str; 4] = [
    "failed to solve: ",
    "rpc error: code = Unknown desc = ",
    "failed to solve with frontend dockerfile.v0: ",
    "failed to create LLB definition: ",
];

/// What a build said, a line each, without colours and without what `BuildKit` puts in front.
#[derive(Debug)]
pub struct BuildOutput(Vec<String>);

impl BuildOutput {
    /// Reads the output as docker printed it.
    pub fn new(output: &str) -> Self {
        let lines = output.lines().map(without_colours);
        BuildOutput(lines.map(|line| plain(&line).to_owned()).collect())
    }

    /// What docker itself said last. What a command of the Dockerfile printed may have the same words.
    pub fn last_of_docker(&self) -> &str {
        let last = self.0.iter().rev().find(|line| !line.trim().is_empty());
        let last = last.map_or("", String::as_str);
        failed_command(last).map_or(last, |_| "")
    }

    /// Docker's words about an image that the build starts from, or copies from, and that was not to be had.
    pub fn refused_image(&self) -> Option<&str> {
        let last = self.last_of_docker().trim_start_matches("ERROR: ");
        let is_refused = if last.starts_with("failed to solve: ") {
            IMAGE_REFUSED.iter().any(|words| last.contains(words))
        } else {
            // The classic builder says no more than the reason, about the step that it began last.
            let mut steps = self.0.iter().rev();
            let step = steps.find(|line| line.starts_with("Step "))?;
            !last.is_empty()
                && (step.contains(" : FROM ") || last.starts_with("invalid from flag value "))
        };
        is_refused.then(|| without_way(last))
    }

    /// Why the build failed.
    pub fn explain(&self, build: &Build) -> Error {
        let lines: Vec<&str> = self.0.iter().map(String::as_str).collect();
        no_room(&lines)
            .or_else(|| self.base(build))
            .or_else(|| pip::explain(of_failed_step(&lines)?))
            .or_else(|| dockerfile(build, &lines))
            .unwrap_or_else(|| Error::input(format!("the build failed: {}", last_words(&lines))))
    }

    /// The lines that a generated Dockerfile prints for the agent.
    fn marks(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|line| line.strip_prefix(MARK))
    }

    /// A base image that the generated Dockerfile cannot work with.
    fn base(&self, build: &Build) -> Option<Error> {
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
        for mark in self.marks() {
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
                let errors = self.0.iter().filter(|line| line.starts_with("E: "));
                let said: Vec<&str> = errors.take(QUOTED).map(String::as_str).collect();
                return Some(
                Error::input(format!(
                    "the base image `{image}` has no {wanted}, and `apt-get` could not install it: {}",
                    said.join("; ")
                ))
                .hint("a build reaches the world through `network.proxy` and `network.ca_bundle` of launch-config.yaml"),
            );
            }
        }
        let no_shell = self
            .0
            .iter()
            .any(|line| line.contains("exec: \"/bin/sh\"") || line.contains("unable to find user"));
        no_shell.then(|| {
            Error::input(format!(
                "the base image `{image}` is not Debian-compatible: it has no shell"
            ))
            .hint("choose a base image of Debian or Ubuntu")
        })
    }
}

/// What `BuildKit` says without the way that led there.
fn without_way(said: &str) -> &str {
    let mut rest = said;
    while let Some(after) = WAY.iter().find_map(|words| rest.strip_prefix(words)) {
        rest = after;
    }
    rest
}

/// Docker's classic builder prints a command's standard error in red.
fn without_colours(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        text.push_str(before);
        rest = after
            .find(|c: char| c.is_ascii_alphabetic())
            .map_or("", |end| &after[end + 1..]);
    }
    text + rest
}

/// A line of a command without what `BuildKit` puts in front: `#9 3.214 `. Its own lines, which have no time, stay as
/// they are: `#9 ERROR: ..`.
fn plain(line: &str) -> &str {
    let is_number = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    let mut words = line.splitn(3, ' ');
    let step = words.next().and_then(|word| word.strip_prefix('#'));
    match (step, words.next(), words.next()) {
        (Some(step), Some(seconds), Some(rest)) if is_number(step) && is_number(seconds) => rest,
        _ => line,
    }
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

/// The lines of the command that failed; all where it cannot be told; `None` when it does not call pip. A step before it
/// may have said much that was no harm.
fn of_failed_step<'a, 'b>(lines: &'a [&'b str]) -> Option<&'a [&'b str]> {
    let Some(end) = lines.iter().position(|line| failed_command(line).is_some()) else {
        return Some(lines);
    };
    let (command, _) = failed_command(lines[end])?;
    let is_begin = |line: &&str| begins_a_step(line.trim());
    let begin = lines[..end].iter().rposition(is_begin).unwrap_or(0);
    command.contains("pip").then_some(&lines[begin..end])
}

/// A Dockerfile that is wrong, or that docker could not carry out.
fn dockerfile(build: &Build, lines: &[&str]) -> Option<Error> {
    let path = build.dockerfile.path.strip_prefix(&build.context);
    let name = match path {
        Ok(path) => path.display().to_string(),
        Err(_) => build.dockerfile.path.display().to_string(),
    };
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
    if let Some((line, why)) = lines.iter().find_map(|line| parse_error(line)) {
        return Some(
            Error::input(format!("`{name}`, line {line}: {why}"))
                .hint("correct the Dockerfile; `docker build` shows the same error"),
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

/// `dockerfile parse error line 3: unknown instruction: FRM`, and `BuildKit`'s `.. on line 3: ..`.
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
    // The BuildKit of engines before 23.
    if let Some((_, rest)) = line.split_once("executor failed running [") {
        let (command, code) = rest.rsplit_once("]: exit code: ")?;
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
    let (_, rest) = line.split_once("failed to compute cache key: ")?;
    let (_, rest) = rest.split_once("\"/")?;
    let (path, end) = rest.split_once('"')?;
    end.contains("not found").then_some(path)
}

/// The line of a Dockerfile with these words, from 1. Lines that are continued are compared by their first piece.
fn line_of(dockerfile: &str, words: &str) -> Option<usize> {
    let words = words.trim();
    let found = dockerfile.lines().position(|line| {
        let piece = line.trim().trim_end_matches('\\').trim();
        let mut argument = piece.split_once(' ').map_or("", |(_, rest)| rest).trim();
        // A builder repeats the command without its flags, such as `--mount`.
        while let Some(flag) = argument.strip_prefix("--") {
            argument = flag.split_once(' ').map_or("", |(_, rest)| rest).trim();
        }
        !argument.is_empty()
            && (words.starts_with(argument) || argument.split(' ').any(|word| word == words))
    })?;
    Some(found + 1)
}

/// What a failed command said last: the lines before docker's own.
fn before_the_end(lines: &[&str]) -> String {
    let is_dockers = |line: &str| {
        failed_command(line).is_some()
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
        .take_while(|line| !begins_a_step(line))
        .take(QUOTED)
        .collect();
    said.reverse();
    said.join("; ")
}

/// The line with which a builder begins the step of a command.
fn begins_a_step(line: &str) -> bool {
    line.starts_with("---> ")
        || line.starts_with("Step ")
        || (line.starts_with('#') && line.contains("] RUN "))
}

fn last_words(lines: &[&str]) -> String {
    let said = lines
        .iter()
        .rev()
        .map(|line| line.trim().trim_start_matches("ERROR: "))
        .find(|line| !line.is_empty());
    said.unwrap_or("docker gave no reason").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::build::{Base, Dockerfile};
    use crate::launch::command::CommandLine;

    fn build(dockerfile: &str) -> Build {
        Build {
            image: "i:1".to_owned(),
            command: CommandLine::new("docker"),
            dockerfile: Dockerfile {
                path: "/code/Dockerfile".into(),
                text: dockerfile.to_owned(),
                is_generated: false,
            },
            code: "/code".into(),
            context: "/code".into(),
            script: None,
            base: Some(Base {
                image: "base:1".to_owned(),
                python: Some("3.9".to_owned()),
            }),
            may_leave_out: false,
            ca_bundle: None,
            is_pushed: false,
            is_buildkit: false,
            limit: crate::launch::builder::TIMEOUT,
        }
    }

    fn explained(dockerfile: &str, output: &str) -> String {
        BuildOutput::new(output).explain(&build(dockerfile)).message
    }

    #[test]
    fn pips_own_lines_say_what_could_not_be_installed() {
        for output in [
            "Collecting six==99\n\u{1b}[91mERROR: Could not find a version (from versions: 1.0)\n\u{1b}[0m\u{1b}[91mERROR: No matching distribution found for six==99\n\u{1b}[0mThe command '/bin/sh -c pip install -r requirements.txt' returned a non-zero code: 1\n",
            "#5 37.76 ERROR: Could not find a version (from versions: 1.0)\n#5 37.76 ERROR: No matching distribution found for six==99\n#5 ERROR: executor failed running [/bin/sh -c pip]: exit code: 1\n------\n#5 37.76 ERROR: No matching distribution found for six==99\nERROR: failed to solve: executor failed\n",
        ] {
            assert_eq!(
                explained("", output),
                "the packages could not be installed: Could not find a version (from versions: 1.0); No matching distribution found for six==99"
            );
        }
    }

    #[test]
    fn what_an_earlier_step_printed_is_not_why_the_build_failed() {
        let text = "FROM a\nRUN pip install six\nRUN make\n";
        for (earlier, own) in [
            (
                "ERROR: pip's dependency resolver does not look at all",
                "it broke",
            ),
            ("manifest for six not found", "it broke"),
            ("parse error at line 9: x", "it broke"),
            ("useful", "ERROR: no rule to make"),
        ] {
            for output in [
                format!(
                    "Step 2/3 : RUN pip install six\n ---> Running in 1\n{earlier}\nStep 3/3 : RUN make\n ---> Running in 2\n{own}\nThe command '/bin/sh -c make' returned a non-zero code: 2\n"
                ),
                format!(
                    "#5 [2/3] RUN pip install six\n#5 0.1 {earlier}\n#6 [3/3] RUN make\n#6 0.3 {own}\n#6 ERROR: process \"/bin/sh -c make\" did not complete successfully: exit code: 2\n"
                ),
            ] {
                assert_eq!(
                    explained(text, &output),
                    format!("`Dockerfile`, line 3: the command ended with exit code 2: {own}")
                );
            }
        }
    }

    #[test]
    fn docker_itself_speaks_last() {
        let lost =
            "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?";
        for (output, last) in [
            (format!("Step 1/2 : FROM a\n{lost}\n\n"), lost),
            (
                format!(
                    "{lost}\nThe command '/bin/sh -c echo {lost}' returned a non-zero code: 1\n"
                ),
                "",
            ),
            (String::new(), ""),
        ] {
            assert_eq!(BuildOutput::new(&output).last_of_docker(), last);
        }
    }

    #[test]
    fn an_image_that_is_not_to_be_had_is_told_from_what_a_command_says_of_one() {
        let denied = "pull access denied for nope, repository does not exist";
        let lost = "dial tcp: lookup registry.example on 10.0.0.1:53: no such host";
        for (output, said) in [
            (format!("Step 1/2 : FROM nope\n{denied}\n"), denied),
            (
                format!("Step 1/3 : FROM a\n ---> 1\nStep 2/3 : RUN x\nmanifest unknown\n ---> 2\nStep 3/3 : FROM b\nGet \"https://registry.example/v2/\": {lost}\n"),
                "Get \"https://registry.example/v2/\": dial tcp: lookup registry.example on 10.0.0.1:53: no such host",
            ),
            (
                "Step 2/2 : COPY --from=nope /x /x\ninvalid from flag value nope: manifest unknown\n".to_owned(),
                "invalid from flag value nope: manifest unknown",
            ),
            (
                format!("#3 ERROR: x\n------\nERROR: failed to solve: rpc error: code = Unknown desc = failed to solve with frontend dockerfile.v0: failed to create LLB definition: failed to do request: Head \"https://registry.example/v2/x/manifests/1\": {lost}\n"),
                "failed to do request: Head \"https://registry.example/v2/x/manifests/1\": dial tcp: lookup registry.example on 10.0.0.1:53: no such host",
            ),
            (
                "ERROR: failed to solve: x:1: failed to resolve source metadata for docker.io/library/x:1: unexpected status code [manifests 1]: 503 Service Unavailable\n".to_owned(),
                "x:1: failed to resolve source metadata for docker.io/library/x:1: unexpected status code [manifests 1]: 503 Service Unavailable",
            ),
            ("Step 2/2 : COPY --from=a /no /no\nCOPY failed: stat no: file does not exist\n".to_owned(), ""),
            (format!("Step 2/2 : RUN docker pull x\n{denied}\nThe command '/bin/sh -c docker pull x' returned a non-zero code: 1\n"), ""),
            (format!("#5 0.1 {denied}\nERROR: failed to solve: process \"/bin/sh -c docker pull x/v2/\" did not complete successfully: exit code: 1\n"), ""),
            ("ERROR: failed to solve: dockerfile parse error on line 3: unknown instruction: COPI\n".to_owned(), ""),
            (String::new(), ""),
        ] {
            let output = BuildOutput::new(&output);
            assert_eq!(output.refused_image().unwrap_or_default(), said, "{output:?}");
        }
    }

    #[test]
    fn a_base_that_cannot_be_used_is_named_with_what_it_has() {
        for (output, message) in [
            (
                "#7 0.4 launch-agent: no python, found 3.11\n",
                "the base image `base:1` has no Python 3.9, and its `apt-get` offers Python 3.11",
            ),
            (
                "launch-agent: no apt-get, found none\n",
                "the base image `base:1` is not Debian-compatible: the job wants Python 3.9, and the image has none and no `apt-get` to install it",
            ),
            (
                "E: Unable to fetch some archives\nlaunch-agent: apt-get failed\n",
                "the base image `base:1` has no Python 3.9, and `apt-get` could not install it: E: Unable to fetch some archives",
            ),
            (
                "OCI runtime create failed: exec: \"/bin/sh\": stat /bin/sh: no such file or directory: unknown\n",
                "the base image `base:1` is not Debian-compatible: it has no shell",
            ),
            (
                "write /x: no space left on device\n",
                "the build failed: no space left on the engine's disk",
            ),
        ] {
            assert_eq!(explained("", output), message);
        }
    }

    #[test]
    fn a_broken_dockerfile_is_shown_with_its_line() {
        let text = "FROM a\n\nRUN echo useless; exit 7\nCOPY nowhere.txt /\n";
        for (output, message) in [
            (
                "Error response from daemon: dockerfile parse error line 3: unknown instruction: COPI\n",
                "`Dockerfile`, line 3: unknown instruction: COPI",
            ),
            (
                "ERROR: failed to solve: dockerfile parse error on line 3: unknown instruction: COPI\n",
                "`Dockerfile`, line 3: unknown instruction: COPI",
            ),
            (
                " ---> Running in 1\nuseless\nThe command '/bin/sh -c echo useless; exit 7' returned a non-zero code: 7\n",
                "`Dockerfile`, line 3: the command ended with exit code 7: useless",
            ),
            (
                "#4 CACHED\n#5 [2/2] RUN echo useless; exit 7\n#5 0.3 useless\n#5 ERROR: process \"/bin/sh -c echo useless; exit 7\" did not complete successfully: exit code: 7\n",
                "`Dockerfile`, line 3: the command ended with exit code 7: useless",
            ),
            (
                "COPY failed: file not found in build context or excluded by .dockerignore: stat nowhere.txt: file does not exist\n",
                "`Dockerfile`, line 4: `nowhere.txt` is not in the build's folder, or `.dockerignore` leaves it out",
            ),
            (
                "ERROR: failed to solve: failed to compute cache key: \"/nowhere.txt\" not found: not found\n",
                "`Dockerfile`, line 4: `nowhere.txt` is not in the build's folder, or `.dockerignore` leaves it out",
            ),
            (
                "ERROR: failed to solve: failed to compute cache key: failed to calculate checksum of ref x::y: \"/nowhere.txt\": not found\n",
                "`Dockerfile`, line 4: `nowhere.txt` is not in the build's folder, or `.dockerignore` leaves it out",
            ),
            ("something new\n", "the build failed: something new"),
        ] {
            assert_eq!(explained(text, output), message);
        }
        let text = "FROM a\nRUN --mount=type=cache,target=/x --network=none false\n";
        let output = "#5 ERROR: executor failed running [/bin/sh -c false]: exit code: 1\n";
        let message = explained(text, output);
        assert!(message.starts_with("`Dockerfile`, line 2: "), "{message}");
    }
}
