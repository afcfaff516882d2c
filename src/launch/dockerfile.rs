//! The text of a generated Dockerfile. Pure: the same recipe gives the same text.
//!
//! Three stages: the base, with a Python in it; the virtual environment, made in that very base, because one that was
//! made elsewhere points to an interpreter that is not there; and the image of the job, which gets the environment
//! but none of what was needed to make it. No heredocs: the classic builder does not know them.

use std::fmt::Write as _;

use crate::launch::dependencies::Dependencies;
use crate::launch::network::{CA_IN_CONTAINER, CA_VARIABLES};

/// Where the code is in a built image, and the home folder of its user.
pub const HOME: &str = "/home/launch";

/// The user that a built image runs as.
const USER: &str = "1000:0";

/// What a line of a build's output begins with that is meant for the agent.
pub const MARK: &str = "launch-agent: ";

/// Where an image keeps the names of packages that could not be installed and were not needed, one a line. In the
/// image, because a step that comes out of the builder's cache prints nothing.
pub const NOT_INSTALLED: &str = "/env/not-installed";

/// The id under which a build is given the certificates.
pub const CA_SECRET: &str = "ca_bundle";

/// How `grep` finds in pip's log that the network gave out, after as many trials as pip makes, or the disk. Not in all the
/// words of a full disk: docker repeats a command that failed, and they are looked for in what it prints.
const GAVE_OUT: &str = "-e 'Retry(total=0,' -e 'No space left'";

/// The script that looks for a Python in a base image, or installs one.
const FIND_PYTHON: &str = include_str!("dockerfile/python.sh");

/// What a generated Dockerfile is made of.
#[derive(Debug, Clone)]
pub struct Recipe<'a> {
    /// The image that everything starts from.
    pub base: &'a str,
    /// It is one of the `python` images: it has the wanted Python, by the name `python3`.
    pub is_python_image: bool,
    /// The wanted Python, as `3.11`; any when `None`.
    pub python: Option<&'a str>,
    /// What is installed.
    pub dependencies: &'a Dependencies,
    /// The program and its leading arguments.
    pub entry_point: &'a [String],
    /// Ids of the secrets that pip may need.
    pub secrets: &'a [&'a str],
    /// The build reaches the world with certificates of its own.
    pub has_ca_bundle: bool,
}

/// Who builds. The image is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flavor {
    /// With mounts: for caches, certificates and secrets.
    BuildKit,
    /// Without. The certificates come out of an image that holds them alone, where they are needed.
    Classic {
        /// Its name.
        ca_image: Option<String>,
    },
}

/// Writes the Dockerfile.
pub fn text(recipe: &Recipe<'_>, flavor: &Flavor) -> String {
    let mut text = format!("FROM {} AS base\n", recipe.base);
    if !recipe.is_python_image {
        // By number: an image without a list of users has no `root`.
        text.push_str("USER 0:0\n");
    }
    if let Flavor::Classic {
        ca_image: Some(image),
    } = flavor
    {
        let _ = writeln!(text, "COPY --from={image} /ca-bundle.pem {CA_IN_CONTAINER}");
    }
    if !recipe.is_python_image {
        find_python(&mut text, recipe, flavor);
    }
    text.push_str("\nFROM base AS environment\n");
    environment(&mut text, recipe, flavor);
    text.push_str("\nFROM base\n");
    image(&mut text, recipe);
    text
}

fn find_python(text: &mut String, recipe: &Recipe<'_>, flavor: &Flavor) {
    let mut script = format!("wanted={}; ", recipe.python.unwrap_or("''"));
    script.push_str(if recipe.has_ca_bundle {
        "apt='-o Acquire::https::CAInfo="
    } else {
        "apt=''; "
    });
    if recipe.has_ca_bundle {
        let _ = write!(script, "{CA_IN_CONTAINER}'; ");
    }
    script.push_str(&one_line(FIND_PYTHON));
    // In BuildKit the package lists are in a cache that is mounted, not in the image.
    if *flavor != Flavor::BuildKit {
        script = format!("({script}) && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb");
    }
    let mounts = match flavor {
        Flavor::BuildKit => {
            "--mount=type=cache,target=/var/cache/apt,sharing=locked \\\n    \
             --mount=type=cache,target=/var/lib/apt,sharing=locked \\\n    "
        }
        Flavor::Classic { .. } => "",
    };
    let ca = ca_mount(recipe, flavor);
    let _ = writeln!(text, "RUN {mounts}{ca}{script}");
}

/// A script on the one line that a `RUN` is: its lines end where a shell's may, so that `; ` can join them.
fn one_line(script: &str) -> String {
    let mut text = String::new();
    let lines = script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        if !text.is_empty() {
            let opens = ["then", "do", "{", ";"]
                .iter()
                .any(|end| text.ends_with(end));
            text.push_str(if opens { " " } else { "; " });
        }
        text.push_str(line);
    }
    text
}

fn environment(text: &mut String, recipe: &Recipe<'_>, flavor: &Flavor) {
    let python = if recipe.is_python_image {
        "python3 -m venv /env".to_owned()
    } else {
        // What the base brings, such as a framework that was built for its accelerator, stays in sight.
        "\"$(cat /etc/launch-agent/python)\" -m venv --system-site-packages /env".to_owned()
    };
    let _ = writeln!(text, "RUN {python}");
    let found = recipe.dependencies;
    let copied = match &found.file {
        _ if found.needs_code => Some("."),
        file => file.as_deref(),
    };
    if let Some(copied) = copied {
        // Where the code will be: what `-e .` installs is a note of this place.
        let _ = writeln!(text, "WORKDIR {HOME}\nCOPY {copied} ./");
    }
    if let Some(file) = &found.file {
        install(text, recipe, flavor, &format!("pip install -r {file}"));
    }
    if !found.needed.is_empty() {
        let all = format!("pip install \\\n      {}", listed(&found.needed));
        install(text, recipe, flavor, &all);
    }
    if !found.wanted.is_empty() {
        // What cannot be installed is told from a network or a disk that gave out: an image without all that it should
        // have would be used again and again. A package with an address of its own may be gone from there.
        let each = format!(
            "set -- \\\n      {} \\\n && {{ pip install \"$@\" || for package in \"$@\"; do \\\n      \
             rm -f /tmp/pip.log; pip install --log /tmp/pip.log \"$package\" && continue; \\\n      \
             [ \"$package\" = \"${{package#*://}}\" ] && grep -q {GAVE_OUT} /tmp/pip.log && exit 1; \\\n      \
             echo \"$package\" >>{NOT_INSTALLED}; \\\n    done; }}",
            listed(&found.wanted)
        );
        install(text, recipe, flavor, &each);
    }
}

/// One step of pip, with its cache, its certificates and its secrets.
fn install(text: &mut String, recipe: &Recipe<'_>, flavor: &Flavor, what: &str) {
    let mut mounts = String::new();
    let no_cache = match flavor {
        Flavor::BuildKit => {
            mounts.push_str("--mount=type=cache,target=/root/.cache/pip \\\n    ");
            for id in recipe.secrets {
                let target = secret_target(id);
                let _ = write!(mounts, "--mount=type=secret,id={id}{target} \\\n    ");
            }
            ""
        }
        Flavor::Classic { .. } => " PIP_NO_CACHE_DIR=1",
    };
    mounts.push_str(&ca_mount(recipe, flavor));
    let mut variables = format!(
        "PATH=/env/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore{no_cache}"
    );
    if recipe.has_ca_bundle {
        for name in CA_VARIABLES {
            let _ = write!(variables, " \\\n    {name}={CA_IN_CONTAINER}");
        }
    }
    let _ = writeln!(text, "RUN {mounts}export {variables} \\\n && {what}");
}

fn ca_mount(recipe: &Recipe<'_>, flavor: &Flavor) -> String {
    if recipe.has_ca_bundle && *flavor == Flavor::BuildKit {
        format!("--mount=type=secret,id={CA_SECRET},target={CA_IN_CONTAINER} \\\n    ")
    } else {
        String::new()
    }
}

/// pip and its helpers look for two files at fixed places; the others are where every secret is.
fn secret_target(id: &str) -> &'static str {
    match id {
        "pip.conf" => ",target=/etc/pip.conf",
        "netrc" => ",target=/root/.netrc",
        _ => "",
    }
}

fn listed(requirements: &[String]) -> String {
    let quoted: Vec<String> = requirements
        .iter()
        .map(|one| format!("'{}'", one.replace('\'', r"'\''")))
        .collect();
    quoted.join(" \\\n      ")
}

fn image(text: &mut String, recipe: &Recipe<'_>) {
    // Written by hand: `useradd` is not in every image, and a user of this number may be there.
    let _ = write!(
        text,
        "COPY --from=environment /env /env\n\
         RUN mkdir -p {HOME} && chown {USER} {HOME} \\\n \
         && {{ grep -q '^[^:]*:[^:]*:1000:' /etc/passwd || echo 'launch:x:1000:0::{HOME}:/bin/sh' >>/etc/passwd; }}\n\
         ENV PATH=/env/bin:$PATH HOME={HOME} PYTHONUNBUFFERED=1\n\
         WORKDIR {HOME}\n\
         COPY --chown={USER} . ./\n\
         USER {USER}\n"
    );
    let words: Vec<String> = recipe
        .entry_point
        .iter()
        .map(|word| serde_json::json!(word).to_string())
        .collect();
    let _ = writeln!(text, "ENTRYPOINT [{}]", words.join(", "));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dependencies: &Dependencies, flavor: &Flavor) -> String {
        let entry_point = ["python", "train.py", "--name=it's, \"x\""].map(str::to_owned);
        text(
            &Recipe {
                base: "python:3.11-slim",
                is_python_image: true,
                python: Some("3.11"),
                dependencies,
                entry_point: &entry_point,
                secrets: &["pip.conf", "token"],
                has_ca_bundle: true,
            },
            flavor,
        )
    }

    #[test]
    fn the_two_builders_differ_in_mounts_alone() {
        let dependencies = Dependencies {
            needed: vec!["six>=1".to_owned()],
            ..Dependencies::default()
        };
        let with_mounts = written(&dependencies, &Flavor::BuildKit);
        insta::assert_snapshot!(with_mounts, @r#"
        FROM python:3.11-slim AS base

        FROM base AS environment
        RUN python3 -m venv /env
        RUN --mount=type=cache,target=/root/.cache/pip \
            --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
            --mount=type=secret,id=token \
            --mount=type=secret,id=ca_bundle,target=/etc/launch-agent/ca-bundle.pem \
            export PATH=/env/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore \
            SSL_CERT_FILE=/etc/launch-agent/ca-bundle.pem \
            REQUESTS_CA_BUNDLE=/etc/launch-agent/ca-bundle.pem \
            CURL_CA_BUNDLE=/etc/launch-agent/ca-bundle.pem \
            PIP_CERT=/etc/launch-agent/ca-bundle.pem \
            GIT_SSL_CAINFO=/etc/launch-agent/ca-bundle.pem \
         && pip install \
              'six>=1'

        FROM base
        COPY --from=environment /env /env
        RUN mkdir -p /home/launch && chown 1000:0 /home/launch \
         && { grep -q '^[^:]*:[^:]*:1000:' /etc/passwd || echo 'launch:x:1000:0::/home/launch:/bin/sh' >>/etc/passwd; }
        ENV PATH=/env/bin:$PATH HOME=/home/launch PYTHONUNBUFFERED=1
        WORKDIR /home/launch
        COPY --chown=1000:0 . ./
        USER 1000:0
        ENTRYPOINT ["python", "train.py", "--name=it's, \"x\""]
        "#);
        let classic = Flavor::Classic {
            ca_image: Some("launch-agent/ca:1".to_owned()),
        };
        let without: Vec<String> = with_mounts
            .lines()
            .filter(|line| !line.trim_start().starts_with("--mount"))
            .map(|line| match line {
                "FROM python:3.11-slim AS base" => format!(
                    "{line}\nCOPY --from=launch-agent/ca:1 /ca-bundle.pem {CA_IN_CONTAINER}"
                ),
                line if line.starts_with("RUN --mount") => "RUN ".to_owned(),
                line => line.replace("=ignore", "=ignore PIP_NO_CACHE_DIR=1"),
            })
            .collect();
        let without = without.join("\n").replace("RUN \n    ", "RUN ") + "\n";
        assert_eq!(written(&dependencies, &classic), without);
    }

    #[test]
    fn requirements_that_name_files_see_all_of_the_code() {
        for (needs_code, copy) in [(true, "COPY . ./"), (false, "COPY requirements.txt ./")] {
            let dependencies = Dependencies {
                file: Some("requirements.txt".to_owned()),
                needs_code,
                ..Dependencies::default()
            };
            let text = written(&dependencies, &Flavor::BuildKit);
            assert!(
                text.contains(&format!("WORKDIR /home/launch\n{copy}\n")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_requirement_is_one_word_for_the_shell() {
        let odd = "x; echo it's $HOME \"here\"".to_owned();
        let quoted = listed(std::slice::from_ref(&odd));
        assert_eq!(shlex::split(&quoted).expect("a word"), [odd]);
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the rule is about the agent; a test may ask a shell"
    )]
    #[test]
    fn the_script_that_finds_python_is_one_line_of_shell() {
        let line = one_line(FIND_PYTHON);
        assert!(!line.contains('\n') && !line.contains("# "), "{line}");
        let parsed = std::process::Command::new("sh")
            .args(["-n", "-c", &line])
            .output()
            .expect("a shell");
        assert!(parsed.status.success(), "{parsed:?}");
    }
}
