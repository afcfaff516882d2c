//! Images that are really built, on the engine, with packages that really come from `PyPI`: by the classic builder and
//! by `BuildKit`. Without an engine or without a network these tests fail.
//!
//! They begin where code has been fetched: with a folder and what its job says of it.

mod bench;

use std::time::{Duration, Instant};

use bench::{Bench, base, code, python};
use launch_agent::launch::builder::BuilderKind;
use launch_agent::launch::command::Secret;

/// Prints which of these modules there are, and who runs it from where.
const LOOK: &str = "
import importlib.util, os, sys
found = [name for name in ('six', 'attr', 'idna') if importlib.util.find_spec(name)]
print('packages', *found)
print('user', os.getuid(), os.getcwd(), os.stat('train.py').st_uid, os.access('.', os.W_OK))
print('args', *sys.argv[1:])
";

#[test]
fn requirements_of_pypi_with_either_builder_and_no_second_build() {
    for has_buildx in [false, true] {
        let mut bench = Bench::new(has_buildx);
        let code = code(
            &[
                ("train.py", LOOK),
                ("requirements.txt", "six==1.16.0\n-r more.txt\n"),
                ("more.txt", "idna\n"),
            ],
            &["python", "train.py", "--epochs", "3"],
        );
        let ran = bench.run(&code);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(
            ran.output.ends_with(
                "packages six idna\nuser 1000 /home/launch 1000 True\nargs --epochs 3\n"
            ),
            "{ran:?}"
        );
        assert!(ran.output.contains("docker build"), "{ran:?}");
        assert_eq!(ran.warnings, [""; 0]);

        let again = bench.run(&code);
        assert_eq!(again.code, 0, "{again:?}");
        assert!(
            again.output.starts_with("[launch-agent: the image ")
                && again.output.ends_with(
                    " is on this machine, and is not built again]\npackages six idna\nuser 1000 /home/launch 1000 True\nargs --epochs 3\n"
                ),
            "{again:?}"
        );
        bench.remove_images();
    }
}

#[test]
fn what_is_installed_to_be_edited_is_found_when_the_job_runs() {
    let mut bench = Bench::new(false);
    let code = code(
        &[
            ("requirements.txt", "-e .\n"),
            (
                "pyproject.toml",
                "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n\
                 [project]\nname = 'mine'\nversion = '1'\n",
            ),
            ("src/mine/__init__.py", "WHO = 'mine'"),
            ("train.py", "import mine; print(mine.WHO, mine.__file__)"),
        ],
        &["python", "train.py"],
    );
    let ran = bench.run(&code);
    assert!(
        ran.output
            .ends_with("mine /home/launch/src/mine/__init__.py\n"),
        "{ran:?}"
    );
}

#[test]
fn pyproject_names_the_packages() {
    let mut bench = Bench::new(false);
    let code = code(
        &[
            (
                "src/train.py",
                "import attr; print('attrs', attr.__version__)",
            ),
            (
                "pyproject.toml",
                "[project]\nname = 'x'\ndependencies = [\"attrs==23.2.0; python_version > '3'\"]\n",
            ),
        ],
        &["python", "src/train.py"],
    );
    let ran = bench.run(&code);
    assert!(ran.output.ends_with("attrs 23.2.0\n"), "{ran:?}");
}

#[test]
fn a_frozen_list_goes_on_without_its_broken_package() {
    for (has_buildx, broken) in [
        (false, "launch-agent-no-such-package==1.0"),
        (true, "gone @ https://launch-agent.invalid/gone-1.0.whl"),
    ] {
        let mut bench = Bench::new(has_buildx);
        let mut code = code(&[("train.py", LOOK)], &["python3", "train.py"]);
        code.source.as_mut().expect("code").frozen =
            Some(format!("six==1.16.0\n{broken}\nidna==3.7\n"));
        // What is missing is said to each job that the image is for.
        for is_built in [true, false] {
            let ran = bench.run(&code);
            assert_eq!(ran.output.contains("docker build"), is_built, "{ran:?}");
            assert!(ran.output.contains("packages six idna\n"), "{ran:?}");
            assert_eq!(
                ran.warnings,
                [format!(
                    "could not be installed, and the image was built without: `{broken}`"
                )]
            );
        }
    }
}

#[test]
fn without_a_package_index_no_image_is_made() {
    for is_frozen in [false, true] {
        let mut bench = Bench::new(false);
        bench.network.proxy = Some(Secret::new("http://127.0.0.1:9"));
        let mut files = vec![("train.py", LOOK)];
        if !is_frozen {
            files.push(("requirements.txt", "idna\n"));
        }
        let mut code = code(&files, &["python3", "train.py"]);
        if is_frozen {
            code.source.as_mut().expect("code").frozen =
                Some("idna==3.7\nsix==1.16.0\n".to_owned());
        }
        let error = bench.refused(&code);
        assert!(
            error.message.starts_with(
                "the package index could not be reached from the build: ProxyError('Cannot connect to proxy.', "
            ),
            "{error:?}\n{}",
            bench.log()
        );
        assert!(error.hint.expect("a hint").contains("`network.proxy`"));
    }
}

#[test]
fn a_build_that_takes_too_long_is_ended_with_what_it_runs() {
    for has_buildx in [false, true] {
        let mut bench = Bench::new(has_buildx);
        // Long enough for a busy engine to begin the step.
        bench.builder.timeout = Some(Duration::from_secs(30));
        let mark = format!("6{}{}", std::process::id(), u8::from(has_buildx));
        let dockerfile = format!("FROM {}\nRUN echo begun; sleep {mark}\n", base());
        let mut code = code(&[("Dockerfile", &dockerfile)], &["true"]);
        code.job.dockerfile = Some("Dockerfile".to_owned());
        let error = bench.refused(&code);
        assert_eq!(
            (error.message.as_str(), error.hint.as_deref()),
            (
                "the build was not done after 30 s and was ended",
                Some("`builder.timeout` in launch-config.yaml sets how long it may take")
            ),
            "{}",
            bench.log()
        );
        assert!(bench.log().contains("begun"), "{}", bench.log());
        let began = Instant::now();
        while runs(&format!("sleep {mark}")) {
            assert!(began.elapsed() < Duration::from_secs(30), "it goes on");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Does any process of this machine have these words?
fn runs(words: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("a folder");
    processes.flatten().any(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim() == words
    })
}

#[test]
fn the_jobs_own_dockerfile_is_built_as_it_is() {
    for has_buildx in [false, true] {
        let mut bench = Bench::new(has_buildx);
        let dockerfile = format!(
            "FROM {}\nARG WHO\nRUN echo \"made for $WHO\" >/tmp/made\nCOPY app.py /app.py\nENTRYPOINT [\"false\"]\n",
            base()
        );
        let mut code = code(
            &[
                ("docker/Job.Dockerfile", &dockerfile),
                (
                    "app.py",
                    "import os; print(open('/tmp/made').read(), os.listdir('/code') if os.path.exists('/code') else '')",
                ),
            ],
            &["python3", "/app.py"],
        );
        code.job.dockerfile = Some("docker/Job.Dockerfile".to_owned());
        bench
            .builder
            .build_args
            .insert("WHO".to_owned(), "a test".to_owned());
        let ran = bench.run(&code);
        assert!(ran.output.contains("made for a test"), "{ran:?}");
    }
}

#[test]
fn a_build_sees_no_folder_but_the_jobs() {
    for has_buildx in [false, true] {
        let mut bench = Bench::new(has_buildx);
        let dockerfile = format!("FROM {}\nCOPY . /taken/\n", base());
        let mut code = code(&[("Dockerfile", &dockerfile)], &["ls", "/taken"]);
        code.job.dockerfile = Some("Dockerfile".to_owned());
        let owners = tempfile::tempdir().expect("a folder");
        std::fs::write(owners.path().join("key"), "sesame").expect("written");
        let folder = &code.source.as_ref().expect("code").folder;
        std::os::unix::fs::symlink(owners.path(), folder.join("link")).expect("a link");
        for (context, message) in [
            (
                "link",
                "the job's `build_context` is `link`, a symbolic link that leads out of its code",
            ),
            (
                "nowhere",
                "the job's `build_context` is `nowhere`, and its code has no such folder",
            ),
        ] {
            code.job.build_context = Some(context.to_owned());
            assert_eq!(bench.refused(&code).message, message);
        }
    }
}

#[test]
fn the_queues_accelerator_base_keeps_its_own_packages() {
    let mut bench = Bench::new(false);
    let framework = bench.image(
        "framework",
        &format!(
            "FROM {}\nUSER root\nRUN mkdir -p /usr/local/lib/python3.11/dist-packages && \
             echo \"name = 'built for its accelerator'\" >/usr/local/lib/python3.11/dist-packages/framework.py\n",
            base()
        ),
    );
    bench.builder.base_image = None;
    bench.spec["resource_args"] = serde_json::json!({"local-container": {"builder": {"accelerator": {"base_image": framework}}}});
    let code = code(
        &[
            (
                "train.py",
                "import framework, six; print(framework.name, six.__version__)",
            ),
            ("requirements.txt", "six==1.16.0\n"),
        ],
        &["python", "train.py"],
    );
    let ran = bench.run(&code);
    assert!(
        ran.output.ends_with("built for its accelerator 1.16.0\n"),
        "{ran:?}"
    );
}

#[test]
fn python_is_installed_into_a_base_that_has_none() {
    let mut bench = Bench::new(true);
    bench.builder.base_image = Some(bench::debian());
    let code = code(
        &[("train.py", "import sys; print(sys.version_info[:2])")],
        &["python", "train.py"],
    );
    let ran = bench.run(&code);
    assert!(ran.output.ends_with("(3, 11)\n"), "{ran:?}");
}

#[test]
fn without_a_builder_the_code_is_mounted() {
    let mut bench = Bench::new(false);
    bench.builder.kind = BuilderKind::Noop;
    let code = code(
        &[
            ("train.py", "import os; print(os.getcwd(), os.listdir())"),
            ("requirements.txt", "six\n"),
        ],
        &["python3", "train.py"],
    );
    let ran = bench.run(&code);
    assert!(ran.output.contains("/mnt/wandb ["), "{ran:?}");
    assert!(
        ran.warnings[0].starts_with("`requirements.txt` was not installed"),
        "{ran:?}"
    );
}

#[test]
fn what_went_wrong_is_said_in_words_by_the_classic_builder() {
    what_went_wrong_is_said(false);
}

#[test]
fn what_went_wrong_is_said_in_words_by_buildkit() {
    what_went_wrong_is_said(true);
}

fn what_went_wrong_is_said(has_buildx: bool) {
    for case in cases() {
        let mut bench = Bench::new(has_buildx);
        if let Some(image) = case.base {
            bench.builder.base_image = Some(bench.prepared(image));
        }
        let mut code = code(&case.files, &["python", "train.py"]);
        code.job.python = case.python.map(str::to_owned);
        if case.files.iter().any(|(name, _)| *name == "Dockerfile") {
            code.job.dockerfile = Some("Dockerfile".to_owned());
        }
        let error = bench.refused(&code);
        let whole = format!("{} / {}", error.message, error.hint.unwrap_or_default());
        for words in case.says {
            assert!(
                whole.contains(words),
                "no `{words}` in\n{whole}\n{}",
                bench.log()
            );
        }
    }
}

struct Case {
    base: Option<&'static str>,
    python: Option<&'static str>,
    files: Vec<(&'static str, &'static str)>,
    says: Vec<&'static str>,
}

fn cases() -> Vec<Case> {
    let script = ("train.py", "print()");
    vec![
        Case {
            base: None,
            python: None,
            files: vec![script, ("requirements.txt", "six==99.0\n")],
            says: vec![
                "the packages could not be installed: Could not find a version that satisfies the requirement six==99.0",
                "No matching distribution found for six==99.0 / correct the requirement",
            ],
        },
        Case {
            base: None,
            python: None,
            files: vec![("requirements.txt", "six\n")],
            says: vec!["the entry point names `train.py`, which is not in the job's code"],
        },
        Case {
            base: None,
            python: Some("3.9"),
            files: vec![script],
            says: vec!["has no Python 3.9, and its `apt-get` offers Python 3.11"],
        },
        Case {
            base: Some("FROM scratch\nCOPY Dockerfile /x\n"),
            python: None,
            files: vec![script],
            says: vec!["is not Debian-compatible: it has no shell"],
        },
        Case {
            base: None,
            python: None,
            files: vec![script, ("Dockerfile", "FROM scratch\n\nCOPI a b\n")],
            says: vec!["`Dockerfile`, line 3: unknown instruction: COPI"],
        },
        Case {
            base: None,
            python: None,
            files: vec![
                script,
                ("Dockerfile", "FROM BASE\n\nRUN echo useless; exit 7\n"),
            ],
            says: vec!["`Dockerfile`, line 3: the command ended with exit code 7: useless"],
        },
        Case {
            base: None,
            python: None,
            files: vec![script, ("Dockerfile", "FROM scratch\nCOPY nowhere.txt /\n")],
            says: vec!["`Dockerfile`, line 2: `nowhere.txt` is not in the build's folder"],
        },
        Case {
            base: None,
            python: None,
            files: vec![
                script,
                ("Dockerfile", "FROM localhost:9/launch-agent/nowhere:1\n"),
            ],
            says: vec![
                "the registry of the image to start from could not be reached: ",
                "connection refused / see that this machine's docker engine reaches it",
            ],
        },
    ]
}

#[test]
fn the_python_of_this_base_is_what_the_tests_say() {
    assert_eq!(python(), "3.11");
}
