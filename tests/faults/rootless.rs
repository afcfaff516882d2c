//! An engine without root's rights, and an agent of the same user.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::Signal;

use crate::common::sandbox::Sandbox;
use crate::docker::image;

/// `nobody`.
const USER: u32 = 65534;

/// An engine of that user, which is gone with its containers when the value is dropped.
struct Engine {
    sandbox: Sandbox,
    process: Child,
}

impl Engine {
    fn start() -> Engine {
        let mut sandbox = Sandbox::new();
        sandbox.give_to(USER);
        let folder = sandbox.path("engine");
        fs::create_dir(&folder).expect("a folder");
        sandbox.set(
            "DOCKER_HOST",
            &format!("unix://{}/docker.sock", folder.display()),
        );
        let log = fs::File::create(sandbox.path("engine.log")).expect("a file");
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/rootless-engine");
        let process = Command::new(program)
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the file"))
            .stderr(log)
            .spawn()
            .expect("scripts/rootless-engine runs");
        let mut engine = Engine { sandbox, process };
        engine.wait_until_it_answers();
        engine
    }

    fn wait_until_it_answers(&mut self) {
        // It may have to be installed first.
        for _ in 0..600 {
            if self.docker(&["version"]).status.success() {
                return;
            }
            let ended = self.process.try_wait().expect("waited");
            assert!(ended.is_none(), "{}", self.sandbox.read("engine.log"));
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        panic!("no answer in vain\n{}", self.sandbox.read("engine.log"));
    }

    fn docker(&self, arguments: &[&str]) -> Output {
        Command::new("docker")
            .arg("--host")
            .arg(format!(
                "unix://{}",
                self.sandbox.path("engine/docker.sock").display()
            ))
            .args(arguments)
            .output()
            .expect("docker runs")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn jobs_are_built_run_stopped_and_taken_up_on_an_engine_without_roots_rights() {
    let engine = Engine::start();
    let sandbox = &engine.sandbox;
    let saved = sandbox.path("image.tar");
    let saved = saved.to_str().expect("UTF-8");
    assert!(
        crate::docker::docker(&["save", "--output", saved, image()])
            .status
            .success()
    );
    let loaded = engine.docker(&["load", "--input", saved]);
    assert!(loaded.status.success(), "{loaded:?}");
    sandbox.write(".config/wandb/launch-config.yaml", "stop_grace: 1\n");
    sandbox.queue("q", r#"{"network": "none", "rm": true}"#);

    let counts = "n=0; while [ $n -lt 40 ]; do n=$((n+1)); echo $n; sleep 0.1; done; exit 9";
    let counting = sandbox.push(image(), &["--", "sh", "-c", counts]);
    let missing = sandbox.push(image(), &["--", "no-such-program"]);
    let stopped = sandbox.push(image(), &["--timeout", "1", "--", "sleep", "600"]);
    let data = sandbox.path("data");
    fs::create_dir(&data).expect("a folder");
    std::os::unix::fs::chown(&data, Some(USER), Some(USER)).expect("given");
    let mount = format!(
        r#"{{"local-container": {{"volume": "{}:/data"}}}}"#,
        data.display()
    );
    let writing = sandbox.push(
        image(),
        &["-R", &mount, "--", "sh", "-c", "echo x >/data/file"],
    );
    sandbox.write("code/run.sh", "cat built; exit 4\n");
    sandbox.write(
        "code/Dockerfile.wandb",
        &format!(
            "FROM {}\nCOPY . /code\nWORKDIR /code\nRUN echo by the build >built\n",
            image()
        ),
    );
    let code = sandbox.path("code");
    let code = code.to_str().expect("UTF-8");
    let pushed = [
        "push",
        "-q",
        "q",
        "-p",
        "demo",
        "--code",
        code,
        "-E",
        "sh run.sh",
    ];
    let built = sandbox.ok(&pushed);

    let mut agent = sandbox.start_agent(&[]);
    sandbox.wait_for("a line", || sandbox.log(&counting).contains("\n10\n"));
    agent.signal(Signal::SIGKILL);
    assert_eq!(agent.wait(sandbox), None);
    sandbox.once(&[]).code(1);

    for (id, state, code) in [
        (counting.as_str(), "FINISHED", Some(9)),
        (&missing, "FAILED", None),
        (&stopped, "STOPPED", None),
        (&writing, "FINISHED", Some(0)),
        (built.trim(), "FINISHED", Some(4)),
    ] {
        let item = sandbox.item(id);
        assert_eq!(
            (&item["state"], &item["exit_code"]),
            (&state.into(), &code.into()),
            "{item}\n{}",
            sandbox.log(id)
        );
    }
    let log = sandbox.log(&counting);
    let lines = log.lines().filter(|line| line.parse::<u32>().is_ok());
    let expected: Vec<String> = (1..=40).map(|n: u32| n.to_string()).collect();
    assert_eq!(lines.collect::<Vec<_>>(), expected, "{log}");
    assert!(sandbox.log(built.trim()).contains("\nby the build\n"));
    let written = fs::metadata(data.join("file")).expect("the job wrote a file");
    assert_eq!(written.uid(), USER, "root in the container is the user");
    let left = engine.docker(&["ps", "--all", "--quiet"]);
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "{left:?}");
}
