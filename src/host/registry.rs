//! Logs docker in to a registry, and asks one what it has.
//!
//! A login is kept in a docker configuration of the agent's own, so that the user's never holds it. That folder is the
//! user's configuration with one login more: his settings, credential helpers and logins are copied each time, his
//! plugins, contexts and builders are linked. A token goes from the cloud's CLI to docker's standard input, and is in
//! no argv, no environment and no log.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::images::{Trouble, turns};
use crate::failure::{Error, Kind, Result};
use crate::host::engine;
use crate::host::logs::JobLog;
use crate::host::process::{self, Output};
use crate::host::stop::{Activity, Stop};
use crate::launch::command::{CommandLine, Secret};
use crate::launch::docker;
use crate::launch::network::Network;
use crate::launch::registry::{Destination, Login, Registry, Service};
use crate::launch::transfer::Transfer;

/// A cloud's CLI starts slowly, and asks servers; a registry that answers does so in seconds.
const ANSWER: Duration = Duration::from_secs(60);

/// The name of docker's configuration in its folder.
const CONFIG: &str = "config.json";

/// When this process last got a token, by the folder that docker keeps it in.
static LOGINS: LazyLock<Mutex<BTreeMap<PathBuf, Timestamp>>> = LazyLock::new(Mutex::default);

/// The login of the registry that built images go to, where it is the agent's to do: not where docker's own
/// configuration has one, and not where no cloud's CLI gives one.
pub fn login(
    destination: &Destination,
    state_folder: &Path,
    environment: &BTreeMap<String, String>,
) -> Option<Login> {
    let user_folder = docker_folder(environment);
    let registry = &destination.registry;
    if is_known(&read(&user_folder.join(CONFIG)), registry) {
        return None;
    }
    Login::new(registry, &state_folder.join("docker"), &user_folder)
}

/// The folder of docker's configuration, as docker finds it.
fn docker_folder(environment: &BTreeMap<String, String>) -> PathBuf {
    let named = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    match named("DOCKER_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(named("HOME").map_or("/", String::as_str)).join(".docker"),
    }
}

/// Does docker's configuration have a login for this registry, or a helper that gives one?
fn is_known(config: &Map<String, Value>, registry: &Registry) -> bool {
    let has = |key: &str| {
        let hosts = config.get(key).and_then(Value::as_object);
        hosts.is_some_and(|hosts| hosts.keys().any(|name| host_of(name) == registry.host))
    };
    // A store for everything names the hosts that it has under `auths`; one that is made for a cloud need not.
    let made_for: &[&str] = match registry.service {
        Service::Elastic { .. } => &["ecr-login"],
        Service::Artifact | Service::Container => &["gcloud", "gcr"],
        Service::Azure { .. } => &["acr-env", "acr-login", "acr"],
        Service::DockerHub | Service::Other => &[],
    };
    let store = config.get("credsStore").and_then(Value::as_str);
    has("credHelpers") || has("auths") || store.is_some_and(|store| made_for.contains(&store))
}

/// The host in a key of docker's configuration: older ones are addresses.
fn host_of(key: &str) -> &str {
    let key = key.strip_prefix("https://").unwrap_or(key);
    key.split('/').next().unwrap_or(key)
}

/// Docker's configuration. One that is not there or not understood says nothing, as to docker itself.
fn read(path: &Path) -> Map<String, Value> {
    let text = fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Makes sure that docker is logged in, with a token that is not about to end; `renew` asks for a new one whatever
/// there is. Gives whether the token is new.
pub fn ensure_login(login: &Login, renew: bool, log: &mut JobLog, stop: &Stop) -> Result<bool> {
    let mut is_new = false;
    let work = || {
        let place = |cause: Error| {
            cause.within(format_args!(
                "cannot log in to the registry `{}`",
                login.host
            ))
        };
        let config = AgentsConfig::open(login).map_err(place)?;
        config.update().map_err(place)?;
        if !renew && is_fresh(login) {
            return Ok(());
        }
        is_new = true;
        log.note(login);
        let asked = Timestamp::now();
        let token = token(login, stop).map_err(place)?;
        log_in(login, &token, stop).map_err(place)?;
        logins().insert(login.folder.clone(), asked);
        Ok(())
    };
    turns::once(&format!("login {}", login.folder.display()), stop, work)?;
    Ok(is_new)
}

fn logins() -> std::sync::MutexGuard<'static, BTreeMap<PathBuf, Timestamp>> {
    LOGINS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// By the clock on the wall, because a token ends while the machine sleeps, too.
fn is_fresh(login: &Login) -> bool {
    let asked = logins().get(&login.folder).copied();
    asked.is_some_and(|asked| {
        let age = Timestamp::now().duration_since(asked);
        Duration::try_from(age).is_ok_and(|age| age < login.renew_after)
    })
}

/// Asks the cloud's CLI.
fn token(login: &Login, stop: &Stop) -> Result<Secret> {
    let program = login.token.argv.first().map_or("", String::as_str);
    if which::which(program).is_err() {
        return Err(Error::new(
            Kind::Config,
            format!("`{program}` is not installed, or not on the PATH"),
        )
        .hint(login.set_up));
    }
    let output = run(&login.token, &Secret::new(""), stop)?;
    let token = output.stdout.trim();
    if output.is_success() && !token.is_empty() {
        return Ok(Secret::new(token));
    }
    let why = match last_line(&output) {
        Some(line) if !output.is_success() => line.to_owned(),
        _ if output.is_success() => "it printed no token".to_owned(),
        _ => output.ending.to_string(),
    };
    Err(Error::new(Kind::Config, format!("`{}`: {why}", login.token)).hint(login.set_up))
}

fn log_in(login: &Login, token: &Secret, stop: &Stop) -> Result<()> {
    let output = run(&login.login, token, stop)?;
    if output.is_success() {
        return Ok(());
    }
    let why = engine::explain(last_line(&output).unwrap_or_default());
    Err(engine::engine_trouble(&why)
        .unwrap_or_else(|| Error::new(Kind::Config, format!("`{}`: {why}", login.login))))
}

fn run(command: &CommandLine, input: &Secret, stop: &Stop) -> Result<Output> {
    stop.check()?;
    let started = |group| stop.now(Activity::Command(group));
    let output = process::output_with_input(command, input, ANSWER, started);
    stop.now(Activity::Between);
    stop.check()?;
    output
}

/// What a program that failed said last is its reason; a stack or advice comes before it.
fn last_line(output: &Output) -> Option<&str> {
    let mut lines = output.stderr.lines().rev().map(str::trim);
    lines.find(|line| !line.is_empty())
}

/// The agent's docker configuration for one registry, locked: agents that share a state folder share it.
struct AgentsConfig<'a> {
    login: &'a Login,
    /// Held as long as this lives.
    _lock: File,
}

impl AgentsConfig<'_> {
    /// Makes the folder, which only its owner may read, and waits for its lock.
    fn open(login: &Login) -> Result<AgentsConfig<'_>> {
        let folder = &login.folder;
        let failed = |cause| not_written(folder, cause);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(folder.join("lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(AgentsConfig { login, _lock: lock })
    }

    /// Takes over what the user's configuration has by now.
    fn update(&self) -> Result<()> {
        let Login {
            folder,
            user_folder,
            host,
            ..
        } = self.login;
        let path = folder.join(CONFIG);
        let old = read(&path);
        let new = with_login(read(&user_folder.join(CONFIG)), &old, host);
        let failed = |cause| not_written(folder, cause);
        if new != old {
            let text = Value::Object(new).to_string();
            // A file beside it that takes its place: docker never reads half of one. It is its owner's alone.
            let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
            file.write_all(text.as_bytes()).map_err(failed)?;
            file.persist(&path).map_err(|cause| failed(cause.error))?;
        }
        link_others(user_folder, folder).map_err(failed)
    }
}

fn not_written(folder: &Path, cause: std::io::Error) -> Error {
    Error::system(
        format_args!(
            "cannot write docker's configuration in {}",
            folder.display()
        ),
        cause,
    )
}

/// The user's configuration with the login for `host` that `old` has. An empty name of a helper makes docker keep that
/// login in the file itself, also where the user has a store for all others.
fn with_login(
    user: Map<String, Value>,
    old: &Map<String, Value>,
    host: &str,
) -> Map<String, Value> {
    let mut new = user;
    let login = old.get("auths").and_then(|auths| auths.get(host)).cloned();
    for (key, value) in [("auths", login), ("credHelpers", Some(json!("")))] {
        let Some(value) = value else { continue };
        let hosts = new.entry(key).or_insert_with(|| json!({}));
        if !hosts.is_object() {
            *hosts = json!({});
        }
        hosts[host] = value;
    }
    new
}

/// Links everything else that the user's folder has: plugins, contexts, builders, keys.
fn link_others(user_folder: &Path, folder: &Path) -> std::io::Result<()> {
    // What is gone there must not stand in the way here.
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_symlink() && !path.exists() {
            fs::remove_file(path)?;
        }
    }
    let Ok(entries) = fs::read_dir(user_folder) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let link = folder.join(&name);
        let is_config = name.to_string_lossy().starts_with(CONFIG);
        if !is_config && !link.exists() {
            symlink(fs::canonicalize(entry.path())?, link)?;
        }
    }
    Ok(())
}

/// Does the registry have the image of this push? `false` is its own word, or that it does not tell: some, such as
/// Docker Hub, say "denied" of a repository that the first push will make, and then it is the push that is refused or
/// not. An error is that it could not be asked.
pub fn exists(push: &Transfer, network: &Network, log: &mut JobLog, stop: &Stop) -> Result<bool> {
    let (image, login) = (&push.image, push.login.as_ref());
    if let Some(login) = login {
        ensure_login(login, false, log, stop)?;
    }
    let registry = Registry::of_image(image);
    // Asked about a registry without TLS, docker's client says that there is no such image unless it is told.
    let insecure = registry.is_loopback() || engine::is_insecure_registry(&registry.host)?;
    let config = login.map(|login| login.folder.as_path());
    let mut command = docker::inspect_manifest(config, insecure, image);
    for (name, value) in network.variables() {
        command.env.insert(name.to_owned(), value);
    }
    for trial in 1.. {
        let output = run(&command, &Secret::new(""), stop)?;
        if output.is_success() {
            return Ok(true);
        }
        let why = engine::explain(last_line(&output).unwrap_or_default());
        let trouble = Trouble::of(&why);
        if trouble == Trouble::NotFound {
            return Ok(false);
        }
        if trouble == Trouble::Denied {
            log.note(format_args!(
                "[launch-agent: the registry does not say whether it has the image {image}: {why}]"
            ));
            return Ok(false);
        }
        let Some(pause) = trouble.pause_before(trial + 1) else {
            let error = trouble.error(image, login, &why);
            return Err(error.within(format_args!("cannot ask for the image `{image}`")));
        };
        stop.pause(pause)?;
    }
    Ok(false)
}
