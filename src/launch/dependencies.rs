//! Which Python packages a job needs, from the files that came with its code. Pure.
//!
//! The first of `requirements.txt`, `pyproject.toml`, `environment.yml` and `requirements.frozen.txt` that says
//! anything decides. The first two and the pip part of the third are what the author asked for: all of it is needed.
//! A frozen list is everything that was on the author's machine, and conda's packages are not all on `PyPI`: of those
//! what cannot be installed is left out, and said.

mod requires_python;

use serde_json::Value;

use crate::failure::{Error, Result};
use crate::launch::job::Source;
pub use requires_python::RequiresPython;

/// What is to be installed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dependencies {
    /// The file that was read, for people; `None` when there is nothing to install.
    pub from: Option<String>,
    /// The path in the build context of a requirements file, which pip reads itself.
    pub file: Option<String>,
    /// Requirements that must all be installed, and pip's options for them: `--extra-index-url=..`.
    pub needed: Vec<String>,
    /// These name other files of the code, so pip needs all of it.
    pub needs_code: bool,
    /// Requirements of which each may fail.
    pub wanted: Vec<String>,
    /// The Python that the file asks for, as `3.11`.
    pub python: Option<String>,
    /// The Pythons that a file allows.
    pub requires_python: Option<RequiresPython>,
    /// What was left out, a sentence each.
    pub warnings: Vec<String>,
}

impl Dependencies {
    /// The Python of an image that is chosen for the job, which was made with `own` where that is known. The author had
    /// that one at work, so it is used also where a file does not allow it, which is said.
    pub fn python_of_image(&mut self, own: Option<String>) -> Result<Option<String>> {
        let own = own.or_else(|| self.python.clone());
        let Some(requires) = &self.requires_python else {
            return Ok(own);
        };
        let RequiresPython { from, words } = requires;
        match own {
            Some(own) => {
                if !requires.allows(&own) {
                    self.warnings.push(format!(
                        "`{from}` asks for Python `{words}`, and the job is made for {own}, which is used"
                    ));
                }
                Ok(Some(own))
            }
            None => match requires.choice() {
                Some(choice) => Ok(Some(choice.to_owned())),
                None => Err(Error::input(format!(
                    "`{from}` asks for Python `{words}`, which no image here has"
                ))
                .hint("correct it, or choose a base image with such a Python")),
            },
        }
    }
}

/// Chooses. `context` is the folder of the code that a build sees, `""` for all of it.
pub fn find(source: &Source, context: &str) -> Dependencies {
    let text = |name: &str| {
        let path = if context.is_empty() {
            name.to_owned()
        } else {
            format!("{context}/{name}")
        };
        source.files.get(&path).map(String::as_str)
    };
    let mut found = first_that_says(source, text);
    // It is about the code, whichever file has the packages.
    found.requires_python = found
        .requires_python
        .or_else(|| text("pyproject.toml").and_then(required));
    found
}

/// What the first file says that says anything. `text` gives the files.
fn first_that_says<'a>(source: &'a Source, text: impl Fn(&str) -> Option<&'a str>) -> Dependencies {
    if let Some(requirements) = text("requirements.txt") {
        return Dependencies {
            from: Some("requirements.txt".to_owned()),
            file: Some("requirements.txt".to_owned()),
            needs_code: requirements.lines().any(names_a_file),
            ..Dependencies::default()
        };
    }
    let mut passed = Vec::new();
    for (name, read) in [
        ("pyproject.toml", pyproject as fn(&str) -> Result<_, String>),
        ("environment.yml", environment),
    ] {
        match text(name).map(read) {
            None => {}
            Some(Ok(found)) => {
                return Dependencies {
                    from: Some(name.to_owned()),
                    warnings: [passed, found.warnings.clone()].concat(),
                    ..found
                };
            }
            Some(Err(why)) => passed.push(format!("`{name}` was passed over: {why}")),
        }
    }
    let frozen = text("requirements.frozen.txt").or(source.frozen.as_deref());
    let mut found = frozen.map(frozen_list).unwrap_or_default();
    found.warnings.splice(..0, passed);
    found
}

/// What an archive's name holds that pip installs.
const ARCHIVES: [&str; 4] = [".whl", ".zip", ".tar", ".tgz"];

/// `-r other.txt`, `-c constraints.txt`, `-e .`, `./wheel.whl`, `libs/mine`: only there beside the rest of the code.
fn names_a_file(line: &str) -> bool {
    // Editors of Windows begin a file with a mark, which pip leaves out too.
    let line = line.trim_start_matches('\u{feff}').trim();
    let line = line.split(" #").next().unwrap_or(line);
    let is_option = ["-r", "-c", "-e", "--", ".", "/"]
        .iter()
        .any(|start| line.starts_with(start));
    let is_address = line.contains("://") || line.starts_with('#');
    let is_path = line.contains('/')
        || line.starts_with("-f")
        || ARCHIVES.iter().any(|end| line.contains(end));
    is_option || line.contains(".whl") || line.contains("file:") || (is_path && !is_address)
}

/// PEP 621's `project.dependencies`.
fn pyproject(text: &str) -> Result<Dependencies, String> {
    let table: toml::Table = text
        .parse()
        .map_err(|cause: toml::de::Error| format!("it is not TOML: {}", cause.message()))?;
    let is_poetrys = || {
        table
            .get("tool")
            .is_some_and(|tool| tool.get("poetry").is_some())
    };
    let project = match table.get("project").and_then(toml::Value::as_table) {
        Some(project) => project,
        None if is_poetrys() => {
            return Err(
                "it has Poetry's own list of packages, which `poetry export` writes to requirements.txt"
                    .to_owned(),
            );
        }
        None => return Err("it has no `project` table".to_owned()),
    };
    let is_dynamic = || {
        let dynamic = project.get("dynamic").and_then(toml::Value::as_array);
        let mut names = dynamic.into_iter().flatten();
        names.any(|name| name.as_str() == Some("dependencies"))
    };
    let listed = match project.get("dependencies") {
        Some(listed) => listed,
        None if is_dynamic() => {
            return Err("its dependencies are dynamic; a requirements.txt with `.` in it has pip find and install them with the project".to_owned());
        }
        None => return Err("it has no `project.dependencies`".to_owned()),
    };
    let listed = listed
        .as_array()
        .ok_or("`project.dependencies` is no list")?;
    let needed = listed
        .iter()
        .map(|one| one.as_str().map(str::to_owned))
        .collect::<Option<Vec<String>>>()
        .ok_or("`project.dependencies` holds something other than text")?;
    Ok(Dependencies {
        needed: needed.into_iter().filter(|one| is_one_line(one)).collect(),
        ..Dependencies::default()
    })
}

/// PEP 621's `project.requires-python`.
fn required(pyproject: &str) -> Option<RequiresPython> {
    let table: toml::Table = pyproject.parse().ok()?;
    let words = table.get("project")?.get("requires-python")?.as_str()?;
    Some(RequiresPython {
        from: "pyproject.toml",
        words: words.to_owned(),
    })
}

/// Conda's `environment.yml`: its pip part as it is, and those of conda's packages that pip may know.
fn environment(text: &str) -> Result<Dependencies, String> {
    let value: Value =
        serde_yaml::from_str(text).map_err(|cause| format!("it is not YAML: {cause}"))?;
    let listed = value
        .get("dependencies")
        .and_then(Value::as_array)
        .ok_or("it has no list of `dependencies`")?;
    let mut found = Dependencies::default();
    let mut left_out = Vec::new();
    for entry in listed {
        match entry {
            Value::String(spec) => match conda_package(spec) {
                Conda::Python(words) if words.starts_with(['<', '>', '!', '~']) => {
                    let from = "environment.yml";
                    found.requires_python = Some(RequiresPython { from, words });
                }
                Conda::Python(version) => found.python = minor_version(&version),
                Conda::Package(requirement) => found.wanted.push(requirement),
                Conda::Tool => {}
                Conda::Other => left_out.push(spec.clone()),
            },
            Value::Object(inner) => {
                let pip = inner.get("pip").and_then(Value::as_array);
                let lines = pip.into_iter().flatten().filter_map(Value::as_str);
                for line in lines.filter(|line| is_one_line(line)) {
                    match pip_word(line) {
                        Some(word) => {
                            let names_no_place = ["--pre", "--no-index", "--trusted-host"]
                                .iter()
                                .any(|option| word.starts_with(option));
                            found.needs_code |=
                                names_a_file(line) && !line.contains("://") && !names_no_place;
                            found.needed.push(word);
                        }
                        None => left_out.push(line.to_owned()),
                    }
                }
            }
            other => left_out.push(other.to_string()),
        }
    }
    if !left_out.is_empty() {
        found.warnings.push(format!(
            "of `environment.yml` was left out what pip cannot install: `{}`",
            left_out.join("`, `")
        ));
    }
    Ok(found)
}

/// Those of pip's options that stand in a list of requirements, and their long names.
const PIP_OPTIONS: [(&str, &str); 13] = [
    ("-i", "--index-url"),
    ("--index-url", "--index-url"),
    ("--extra-index-url", "--extra-index-url"),
    ("--no-index", "--no-index"),
    ("-f", "--find-links"),
    ("--find-links", "--find-links"),
    ("--trusted-host", "--trusted-host"),
    ("--pre", "--pre"),
    ("-r", "--requirement"),
    ("--requirement", "--requirement"),
    ("-c", "--constraint"),
    ("-e", "--editable"),
    ("--editable", "--editable"),
];

/// A line of conda's list for pip as one word of pip's command line; `None` for an option that has no place there.
fn pip_word(line: &str) -> Option<String> {
    let line = line.trim();
    if !line.starts_with('-') {
        return Some(line.to_owned());
    }
    let end = line.find([' ', '=']).unwrap_or(line.len());
    let (option, value) = line.split_at(end);
    let value = value.trim_start_matches([' ', '=']);
    let (_, long) = PIP_OPTIONS.iter().find(|(known, _)| *known == option)?;
    Some(match value {
        "" => (*long).to_owned(),
        value => format!("{long}={value}"),
    })
}

enum Conda {
    /// Python itself, with what is asked of its version.
    Python(String),
    /// What pip may know, as a requirement.
    Package(String),
    /// A part of every virtual environment.
    Tool,
    /// No Python package, or a form that pip has no word for.
    Other,
}

fn conda_package(spec: &str) -> Conda {
    let spec: String = spec
        .rsplit("::")
        .next()
        .unwrap_or(spec)
        .split_whitespace()
        .collect();
    let end = spec
        .find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
        .unwrap_or(spec.len());
    let (name, version) = spec.split_at(end);
    let is_library = ["lib", "_", "cuda", "cudnn", "gcc", "gxx", "mkl", "nccl"]
        .iter()
        .any(|start| name.starts_with(start));
    match name {
        "" => Conda::Other,
        "python" => Conda::Python(version.to_owned()),
        "pip" | "setuptools" | "wheel" => Conda::Tool,
        _ if is_library => Conda::Other,
        _ => {
            // Conda has PyTorch under its own name, PyPI under the name that is imported.
            let name = if name == "pytorch" { "torch" } else { name };
            match pip_version(version) {
                Some(version) => Conda::Package(format!("{name}{version}")),
                None => Conda::Other,
            }
        }
    }
}

/// `=1.2` is conda's for any 1.2, `=1.2.3=build` and `==1.2.3` for just that version.
fn pip_version(version: &str) -> Option<String> {
    if !version
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "=<>!,.*+_-".contains(c))
    {
        return None;
    }
    if version.starts_with("==") || !version.starts_with('=') {
        return Some(version.to_owned());
    }
    let words: Vec<&str> = version[1..].split('=').collect();
    match words.as_slice() {
        [exact, _build] => Some(format!("=={exact}")),
        [any] if any.ends_with('*') => Some(format!("=={any}")),
        [any] => Some(format!("=={any}.*")),
        _ => None,
    }
}

/// `3.11` out of `=3.11.4`, `>=3.9`, `3.8`.
pub fn minor_version(text: &str) -> Option<String> {
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let mut parts = digits.split('.');
    let number = |part: &str| -> Option<u32> {
        let end = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        part[..end].parse().ok()
    };
    let major = number(parts.next()?)?;
    let minor = number(parts.next()?)?;
    Some(format!("{major}.{minor}"))
}

/// `pip freeze`, line by line. What was installed from a folder of the author's machine is nowhere else.
fn frozen_list(text: &str) -> Dependencies {
    let mut found = Dependencies {
        from: Some("requirements.frozen.txt".to_owned()),
        ..Dependencies::default()
    };
    let mut left_out = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('-') || line.contains("file:") || !is_one_line(line) {
            left_out.push(line.escape_debug().to_string());
        } else {
            found.wanted.push(line.to_owned());
        }
    }
    if !left_out.is_empty() {
        found.warnings.push(format!(
            "not installed, because only the author's machine has it: `{}`",
            left_out.join("`, `")
        ));
    }
    found
}

/// A requirement stands on one line of a Dockerfile.
fn is_one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)], frozen: Option<&str>) -> Dependencies {
        let source = Source {
            folder: "/code".into(),
            identity: "artifact:1".to_owned(),
            files: files
                .iter()
                .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
                .collect(),
            frozen: frozen.map(str::to_owned),
        };
        find(&source, "")
    }

    #[test]
    fn the_first_file_that_says_something_decides() {
        let all = [
            ("requirements.txt", "six\n"),
            ("pyproject.toml", "[project]\ndependencies = [\"a>=1\"]\n"),
            ("environment.yml", "dependencies: [{pip: [b]}]\n"),
            ("requirements.frozen.txt", "c==1\n"),
        ];
        let from = |files: &[(&str, &str)]| found(files, Some("d==1\n")).from.expect("something");
        assert_eq!(from(&all), "requirements.txt");
        assert_eq!(from(&all[1..]), "pyproject.toml");
        assert_eq!(from(&all[2..]), "environment.yml");
        assert_eq!(from(&all[3..]), "requirements.frozen.txt");
        assert_eq!(found(&all[3..], Some("d==1")).wanted, ["c==1"]);
        assert_eq!(found(&[], Some("d==1")).wanted, ["d==1"]);
        assert_eq!(found(&[], None), Dependencies::default());
    }

    #[test]
    fn a_requirements_file_that_names_files_needs_the_code() {
        for (text, needs_code) in [
            ("six\nnumpy>=1\n", false),
            ("-r base.txt\n", true),
            ("  -c c.txt\n", true),
            ("-e .\n", true),
            ("./wheels/x.whl\n", true),
            ("\u{feff}-r base.txt\n", true),
            ("libs/mine\n", true),
            ("mine[all] @ file:libs/mine\n", true),
            ("file:libs/mine\n", true),
            ("mine-1.0.tar.gz\n", true),
            ("-f wheels\nmine\n", true),
            ("-f https://example.com/whl/stable.html\n", false),
            ("# of a/b\nsix # or a/b\n", false),
            ("x @ https://example.com/x.tar.gz\n", false),
        ] {
            let found = found(&[("requirements.txt", text)], None);
            assert_eq!(found.needs_code, needs_code, "{text}");
        }
    }

    #[test]
    fn a_pyproject_without_dependencies_is_passed_over_and_said() {
        for (text, why) in [
            ("[tool.black]\n", "it has no `project` table"),
            (
                "[tool.poetry.dependencies]\nsix = \"^1.16\"\n",
                "it has Poetry's own list of packages, which `poetry export` writes to requirements.txt",
            ),
            (
                "[project]\nname = 'x'\n",
                "it has no `project.dependencies`",
            ),
            (
                "[project]\ndynamic = [\"dependencies\"]\n",
                "its dependencies are dynamic; a requirements.txt with `.` in it has pip find and install them with the project",
            ),
            (
                "[project]\ndependencies = 5\n",
                "`project.dependencies` is no list",
            ),
        ] {
            let found = found(&[("pyproject.toml", text)], Some("six==1\n"));
            assert_eq!(found.wanted, ["six==1"]);
            assert_eq!(
                found.warnings,
                [format!("`pyproject.toml` was passed over: {why}")]
            );
        }
    }

    #[test]
    fn condas_packages_become_pips_where_they_can() {
        let found = found(
            &[(
                "environment.yml",
                "name: x\ndependencies:\n- python=3.9\n- numpy=1.20\n- conda-forge::scipy=1.7.1=py39_0\n- pandas\n\
                 - pytorch>=2\n- cudatoolkit=11.3\n- pip\n- pip:\n  - six==1.16.0\n  - -r more.txt\n  - --odd\n",
            )],
            None,
        );
        assert_eq!(
            found.wanted,
            ["numpy==1.20.*", "scipy==1.7.1", "pandas", "torch>=2"]
        );
        assert_eq!(found.needed, ["six==1.16.0", "--requirement=more.txt"]);
        assert!(found.needs_code);
        assert_eq!(found.python.as_deref(), Some("3.9"));
        assert_eq!(
            found.warnings,
            [
                "of `environment.yml` was left out what pip cannot install: `cudatoolkit=11.3`, `--odd`"
            ]
        );
    }

    #[test]
    fn condas_list_for_pip_keeps_pips_options() {
        for (line, word, needs_code) in [
            (
                "--extra-index-url https://example.com/whl/cu118",
                "--extra-index-url=https://example.com/whl/cu118",
                false,
            ),
            (
                "-i https://example.com/simple",
                "--index-url=https://example.com/simple",
                false,
            ),
            (
                "--find-links=https://example.com/x.html",
                "--find-links=https://example.com/x.html",
                false,
            ),
            ("--pre", "--pre", false),
            ("-f wheels", "--find-links=wheels", true),
            ("-e .", "--editable=.", true),
            ("./libs/mine", "./libs/mine", true),
            (
                "x @ https://example.com/x.whl",
                "x @ https://example.com/x.whl",
                false,
            ),
        ] {
            let text = serde_json::json!({"dependencies": [{"pip": [line]}]}).to_string();
            let found = found(&[("environment.yml", &text)], None);
            assert_eq!(found.needed, [word]);
            assert_eq!(found.needs_code, needs_code, "{line}");
            assert!(found.warnings.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn an_image_has_a_python_that_the_files_allow() {
        let pyproject = |words: &str| format!("[project]\nrequires-python = '{words}'\n");
        let conda = |words: &str| format!("dependencies: ['python{words}']\n");
        let not_allowed = "`pyproject.toml` asks for Python `>=3.13`, and the job is made for 3.11, which is used";
        for (name, text, own, python, warning) in [
            ("pyproject.toml", pyproject(">=3.9"), None, "3.12", ""),
            ("pyproject.toml", pyproject(">=3.13"), None, "3.13", ""),
            ("pyproject.toml", pyproject(">=3.9,<3.12"), None, "3.11", ""),
            (
                "pyproject.toml",
                pyproject(">=3.9"),
                Some("3.11"),
                "3.11",
                "",
            ),
            (
                "pyproject.toml",
                pyproject(">=3.13"),
                Some("3.11"),
                "3.11",
                not_allowed,
            ),
            ("environment.yml", conda(">=3.8,<3.11"), None, "3.10", ""),
            ("environment.yml", conda(" <3.12"), None, "3.11", ""),
            ("environment.yml", conda("=3.9"), None, "3.9", ""),
            ("environment.yml", conda(" 3.9.*"), Some("3.11"), "3.11", ""),
        ] {
            let mut found = found(&[(name, &text)], None);
            let before = found.warnings.len();
            let chosen = found.python_of_image(own.map(str::to_owned));
            assert_eq!(chosen.expect("one").as_deref(), Some(python), "{text}");
            assert_eq!(found.warnings[before..].concat(), warning, "{text}");
        }
        let mut found = found(&[("pyproject.toml", &pyproject("<3"))], None);
        assert_eq!(
            found
                .python_of_image(None)
                .expect_err("no such image")
                .message,
            "`pyproject.toml` asks for Python `<3`, which no image here has"
        );
        assert_eq!(Dependencies::default().python_of_image(None), Ok(None));
    }

    #[test]
    fn a_frozen_list_leaves_out_what_is_on_the_authors_machine_alone() {
        let found = found(
            &[],
            Some(
                "# made by\nsix==1.16.0\n-e git+https://x\nmine @ file:///home/a\n\nnumpy==1.26.4\n",
            ),
        );
        assert_eq!(found.wanted, ["six==1.16.0", "numpy==1.26.4"]);
        assert_eq!(found.warnings.len(), 1);
        assert!(found.warnings[0].contains("`mine @ file:///home/a`"));
    }
}
