//! Images in a real registry on this machine, with a password: pushed, asked for and pulled by the real engine.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use launch_agent::failure::Error;
use launch_agent::host::images::push::push;
use launch_agent::host::logs::{JobLog, LogFile, Redactor, TerminalLines};
use launch_agent::host::registry::{ensure_login, exists};
use launch_agent::host::stop::Stop;
use launch_agent::launch::command::CommandLine;
use launch_agent::launch::docker;
use launch_agent::launch::network::Network;
use launch_agent::launch::registry::Login;
use launch_agent::launch::transfer::Transfers;

use crate::common::sandbox::Sandbox;

const PASSWORD: &str = "sesame-open";

/// `me` with the password, as `htpasswd -B` writes it.
const USERS: &str = "me:$2y$04$abcdefghijklmnopqrstuuR0KC3k3.wb6.D.0bk8fdpTS7zapWW8a\n";

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let found = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/registry"))
            .output()
            .expect("scripts/registry runs");
        assert!(found.status.success(), "{found:?}");
        PathBuf::from(String::from_utf8(found.stdout).expect("UTF-8").trim())
    })
}

/// A registry with one image of its own. Both are gone when the value is dropped.
struct Registry {
    sandbox: Sandbox,
    host: String,
    /// The image's name there.
    image: String,
    server: Option<Child>,
}

impl Registry {
    fn start() -> Registry {
        Registry::with_image_of(0)
    }

    /// A registry whose image has this many bytes beside a few of its own.
    fn with_image_of(bytes: usize) -> Registry {
        let sandbox = Sandbox::new();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let host = free.local_addr().expect("an address").to_string();
        drop(free);
        let users = sandbox.write("users", USERS);
        let config = serde_json::json!({
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": sandbox.path("data")}},
            "http": {"addr": host},
            "auth": {"htpasswd": {"realm": "test", "path": users}},
        });
        sandbox.write("registry.yml", &config.to_string());
        let image = format!("{host}/registries/small:1");
        // Bytes that cannot be compressed, and no two images with the same layer: the engine would not send it.
        let mut content = host.clone().into_bytes();
        content.extend(std::iter::repeat_with(|| fastrand::u8(..)).take(bytes));
        fs::create_dir(sandbox.path("context")).expect("a folder");
        fs::write(sandbox.path("context/file"), content).expect("written");
        sandbox.write(
            "context/Dockerfile",
            "FROM scratch\nCOPY file /\nLABEL example.registries=1 launch-agent.example=registries\n",
        );
        // Without the cache: while the builder looks there, it fails when another test removes an image.
        let built = Command::new("docker")
            .env("DOCKER_BUILDKIT", "0")
            .args(["build", "--quiet", "--no-cache", "--tag", &image])
            .arg(sandbox.path("context"))
            .output()
            .expect("docker");
        assert!(built.status.success(), "{built:?}");
        let mut registry = Registry {
            sandbox,
            host,
            image,
            server: None,
        };
        registry.serve();
        registry
    }

    fn serve(&mut self) {
        let server = Command::new(program())
            .arg("serve")
            .arg(self.sandbox.path("registry.yml"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.sandbox.path("registry.log")).expect("a file"))
            .spawn()
            .expect("the registry starts");
        self.server = Some(server);
        self.sandbox.wait_for("the registry to listen", || {
            TcpStream::connect(&self.host).is_ok()
        });
    }

    fn end(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("killed");
            server.wait().expect("waited");
        }
    }

    /// A login as a cloud has it, whose CLI prints this token.
    fn login(&self, token: &str) -> Login {
        let folder = self.sandbox.path("state/docker");
        Login {
            host: self.host.clone(),
            token: CommandLine::new("printf").args(["%s", token]),
            login: docker::login(&folder, "me", &self.host),
            folder,
            user_folder: self.sandbox.path("user"),
            renew_after: Duration::from_secs(600),
            set_up: "",
        }
    }

    fn transfers(&self, token: &str) -> Transfers {
        Transfers {
            limit: Duration::from_secs(120),
            login: Some(self.login(token)),
            ..Transfers::default()
        }
    }

    /// A job's log, and what it has by now.
    fn log(&self, name: &str) -> JobLog {
        let file = LogFile::create(&self.sandbox.path(name), 1_000_000).expect("a log");
        let nowhere = Arc::new(Mutex::new(std::io::sink()));
        JobLog::new(Redactor::default(), file, TerminalLines::new(nowhere, "1"))
    }

    fn push(&self, token: &str) -> Result<(), Error> {
        let stop = Stop::default();
        let transfer = self.transfers(token).push(&self.image);
        push(&transfer, &mut self.log("push.log"), &stop)
    }

    fn exists(&self, image: &str) -> Result<bool, Error> {
        exists(
            &self.transfers(PASSWORD).push(image),
            &Network::default(),
            &mut self.log("exists.log"),
            &Stop::default(),
        )
    }

    /// Takes the image off this machine.
    fn forget(&self) {
        let removed = docker(&["image", "rm", &self.image]);
        assert!(removed.status.success(), "{removed:?}");
    }

    /// Runs a job of this image with this agent's configuration, where the user of docker is logged in or not.
    fn run(&mut self, config: &str, is_logged_in: bool) -> (serde_json::Value, Duration) {
        let folder = self.sandbox.path("client");
        fs::create_dir_all(&folder).expect("a folder");
        let _ = fs::remove_file(folder.join("config.json"));
        if is_logged_in {
            fs::copy(
                self.sandbox.path("state/docker/config.json"),
                folder.join("config.json"),
            )
            .expect("copied");
        }
        self.sandbox
            .set("DOCKER_CONFIG", folder.to_str().expect("UTF-8"));
        self.sandbox
            .write(".config/wandb/launch-config.yaml", config);
        if !self
            .sandbox
            .path(".local/state/launch-agent/queue.db")
            .exists()
        {
            // Nothing in the image can be run: that docker says so shows that the image was there.
            self.sandbox.queue("q", "{}");
        }
        let id = self.sandbox.push(&self.image, &["--", "/file"]);
        let begun = Instant::now();
        self.sandbox.once(&[]).code(1);
        (self.sandbox.item(&id), begun.elapsed())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.end();
        docker(&["image", "rm", "--force", &self.image]);
    }
}

fn docker(arguments: &[&str]) -> Output {
    Command::new("docker")
        .args(arguments)
        .output()
        .expect("docker is installed")
}

fn text<'a>(item: &'a serde_json::Value, key: &str) -> &'a str {
    item[key].as_str().unwrap_or_default()
}

#[test]
fn what_is_pushed_exists_there_and_is_pulled_by_another() {
    let mut registry = Registry::start();
    assert_eq!(registry.exists(&registry.image), Ok(false));
    registry.push(PASSWORD).expect("pushed");
    assert_eq!(registry.exists(&registry.image), Ok(true));
    assert_eq!(
        registry.exists(&registry.image.replace(":1", ":2")),
        Ok(false)
    );
    let log = registry.sandbox.read("push.log");
    let pushed = format!(
        "docker --config {} push {}\n",
        registry.sandbox.path("state/docker").display(),
        registry.image
    );
    assert!(
        log.contains(&pushed) && log.contains("\n1: digest: sha256:"),
        "{log}"
    );

    registry.forget();
    let (item, _) = registry.run("pull_policy: missing\n", true);
    assert_eq!(text(&item, "stage"), "run", "the image was pulled: {item}");
    assert!(
        docker(&["image", "inspect", &registry.image])
            .status
            .success()
    );
}

#[test]
fn without_a_login_nothing_is_pulled_and_the_hint_names_the_registry() {
    let mut registry = Registry::start();
    registry.push(PASSWORD).expect("pushed");
    registry.forget();
    let (item, _) = registry.run("", false);
    assert_eq!(text(&item, "stage"), "build", "{item}");
    let message = text(&item, "message");
    assert!(message.contains("no basic auth credentials"), "{message}");
    assert!(
        message.contains(&format!("`docker login {}`", registry.host)),
        "{message}"
    );
}

#[test]
fn an_image_that_the_registry_does_not_have_is_said_at_once() {
    let mut registry = Registry::start();
    ensure_login(
        &registry.login(PASSWORD),
        false,
        &mut registry.log("x"),
        &Stop::default(),
    )
    .expect("a login");
    registry.forget();
    let (item, _) = registry.run("", true);
    assert_eq!(text(&item, "stage"), "build", "{item}");
    assert!(
        text(&item, "message").contains("manifest unknown"),
        "{item}"
    );
    let log = registry.sandbox.log(text(&item, "id"));
    assert_eq!(log.matches("docker pull").count(), 1, "{log}");
    // The image is gone already, and dropping the registry does not mind.
}

#[test]
fn a_wrong_password_is_refused_and_is_in_no_word_about_it() {
    let registry = Registry::start();
    let error = registry.push("open-wrong").expect_err("refused");
    assert!(
        error
            .message
            .contains("could not be pushed: cannot log in to the registry")
            && error.message.contains("401 Unauthorized"),
        "{error}"
    );
    // The token is on the line of the test's own CLI alone.
    let docker = error.message.split(" | ").last().expect("a command");
    assert!(!docker.contains("open-wrong"), "{error}");
}

#[test]
fn a_push_goes_on_when_the_registry_comes_back() {
    let mut registry = Registry::start();
    ensure_login(
        &registry.login(PASSWORD),
        false,
        &mut registry.log("x"),
        &Stop::default(),
    )
    .expect("a login");
    registry.end();
    let transfer = registry.transfers(PASSWORD).push(&registry.image);
    let mut log = registry.log("push.log");
    std::thread::scope(|scope| {
        let pushing = scope.spawn(move || push(&transfer, &mut log, &Stop::default()));
        registry.sandbox.wait_for("a second trial", || {
            registry
                .sandbox
                .read("push.log")
                .contains("trying again in 1 s")
        });
        registry.serve();
        pushing.join().expect("a result").expect("pushed");
    });
    assert_eq!(registry.exists(&registry.image), Ok(true));
}

#[test]
fn a_registry_that_ends_in_the_middle_of_a_push_is_no_harm_when_it_comes_back() {
    let mut registry = Registry::with_image_of(40_000_000);
    let transfer = registry.transfers(PASSWORD).push(&registry.image);
    let mut log = registry.log("push.log");
    std::thread::scope(|scope| {
        let pushing = scope.spawn(move || push(&transfer, &mut log, &Stop::default()));
        let uploads = registry
            .sandbox
            .path("data/docker/registry/v2/repositories/registries/small/_uploads");
        registry
            .sandbox
            .wait_for("the upload to begin", || uploads.exists());
        registry.end();
        let log = registry.sandbox.read("push.log");
        assert!(!log.contains("digest: "), "it was over: {log}");
        registry.serve();
        pushing.join().expect("a result").expect("pushed");
    });
    assert_eq!(registry.exists(&registry.image), Ok(true));
}

#[test]
fn without_the_registry_the_image_that_is_here_runs_and_without_delay() {
    let mut registry = Registry::start();
    registry.push(PASSWORD).expect("pushed");
    registry.end();
    let error = registry.exists(&registry.image).expect_err("nobody there");
    assert!(error.message.contains("connection refused"), "{error}");
    let (item, took) = registry.run("", true);
    assert_eq!(text(&item, "stage"), "run", "{item}");
    let warnings = item["warnings"].to_string();
    assert!(
        warnings.contains("so the one on this machine is used"),
        "{warnings}"
    );
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn dockers_plugins_contexts_and_logins_of_the_user_work_with_the_agents_configuration() {
    use std::os::unix::fs::PermissionsExt;
    let registry = Registry::start();
    let plugin = registry.sandbox.write(
        "user/cli-plugins/docker-hello",
        "#!/bin/sh\ncase $1 in docker-cli-plugin-metadata) echo '{\"SchemaVersion\":\"0.1.0\",\"Vendor\":\"x\",\"Version\":\"v1\"}' ;; *) echo hello from a plugin ;; esac\n",
    );
    fs::set_permissions(plugin, fs::Permissions::from_mode(0o755)).expect("executable");
    let user = registry.sandbox.path("user");
    let user = user.to_str().expect("UTF-8");
    let made = docker(&[
        "--config",
        user,
        "context",
        "create",
        "elsewhere",
        "--docker",
        "host=tcp://127.0.0.1:1",
    ]);
    assert!(made.status.success(), "{made:?}");
    // The user has a store of passwords that does not work, and a login of his own.
    registry.sandbox.write(
        "user/config.json",
        r#"{"auths": {"ghcr.io": {"auth": "eDp5"}}, "credsStore": "no-such-store"}"#,
    );
    registry.push(PASSWORD).expect("pushed");
    let ours = registry.sandbox.path("state/docker");
    let ours = ours.to_str().expect("UTF-8");
    let hello = docker(&["--config", ours, "hello"]);
    assert_eq!(hello.stdout, b"hello from a plugin\n", "{hello:?}");
    let contexts = docker(&["--config", ours, "context", "ls", "--format", "{{.Name}}"]);
    assert!(
        String::from_utf8_lossy(&contexts.stdout).contains("elsewhere"),
        "{contexts:?}"
    );
    let config: serde_json::Value =
        serde_json::from_str(&registry.sandbox.read("state/docker/config.json")).expect("JSON");
    assert_eq!(config["auths"]["ghcr.io"]["auth"], "eDp5");
    assert!(
        config["auths"][&registry.host]["auth"].is_string(),
        "{config}"
    );
    assert!(
        !registry
            .sandbox
            .read("user/config.json")
            .contains(&registry.host)
    );

    // A token is used again, and what the user changes meanwhile is taken over.
    registry
        .sandbox
        .write("user/config.json", r#"{"auths": {}}"#);
    let is_new = ensure_login(
        &registry.login(PASSWORD),
        false,
        &mut registry.log("x"),
        &Stop::default(),
    );
    assert_eq!(is_new, Ok(false));
    let config = registry.sandbox.read("state/docker/config.json");
    assert!(
        config.contains(&registry.host) && !config.contains("ghcr.io"),
        "{config}"
    );
}
