//! Who you are for W&B: the address of its server, the key, and the entity; each from the places where W&B's own
//! client looks for it, with its origin. Reads files, asks nobody.

mod address;
mod netrc;
mod settings;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub use address::{Address, split_port};

use super::{Environment, Origin, Setting};
use crate::failure::{Error, Kind, Result};
use crate::launch::command::Secret;

/// W&B's own server.
const DEFAULT_BASE_URL: &str = "https://api.wandb.ai";

/// What the command line and `launch-config.yaml` say about who you are.
#[derive(Debug, Default)]
pub struct Said {
    /// `--base-url`.
    pub base_url_flag: Option<String>,
    /// `base_url` of the file.
    pub base_url_file: Option<String>,
    /// `--entity`.
    pub entity_flag: Option<String>,
    /// `entity` of the file.
    pub entity_file: Option<String>,
}

/// Who you are, as far as files and variables say.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The server.
    pub address: Address,
    /// Where its address comes from.
    pub base_url: Setting<String>,
    /// The entity; `None` is the key's own.
    pub entity: Setting<Option<String>>,
    /// The key, where there is one.
    pub api_key: Option<Setting<Secret>>,
    /// Where the key was looked for, in order, with what was wrong there.
    pub looked: Vec<String>,
    /// What the owner should know, a sentence each.
    pub warnings: Vec<String>,
}

impl Identity {
    /// Finds out. `file` is where `launch-config.yaml` is, for the origins.
    pub fn find(said: &Said, environment: &Environment, file: &Path) -> Result<Identity> {
        let settings = SettingsFiles::read(environment)?;
        let base_url = base_url(said, environment, file, &settings);
        let address = Address::parse(&base_url.value, &base_url.origin.to_string())?;
        let mut warnings = Vec::new();
        if !address.secure && !address.is_loopback() {
            warnings.push(format!(
                "{} is not encrypted: the key travels in clear; use `https://`",
                address.url
            ));
        }
        let mut search = Search {
            environment,
            looked: Vec::new(),
            warnings,
        };
        let api_key = search.key(&address)?;
        Ok(Identity {
            base_url: Setting {
                value: address.url.clone(),
                origin: base_url.origin,
            },
            entity: entity(said, environment, file, &settings),
            address,
            api_key,
            looked: search.looked,
            warnings: search.warnings,
        })
    }
}

/// That there is no key, `looked` being where it was looked for.
pub fn no_key(looked: &[String]) -> Error {
    Error::new(
        Kind::Config,
        format!("no W&B key was found; looked in {}", looked.join(", ")),
    )
    .hint("run `wandb login` or set `WANDB_API_KEY`; for the embedded queue, which needs no key, add `--local`")
}

fn base_url(
    said: &Said,
    environment: &Environment,
    file: &Path,
    settings: &SettingsFiles,
) -> Setting<String> {
    let mut setting = Setting::default(DEFAULT_BASE_URL.to_owned());
    if let Some((value, path)) = settings.value("base_url") {
        setting = setting.or(Some(value), Origin::File(path));
    }
    setting
        .or(said.base_url_file.clone(), Origin::File(file.to_owned()))
        .or(
            environment.get("WANDB_BASE_URL").map(str::to_owned),
            Origin::Variable("WANDB_BASE_URL"),
        )
        .or(said.base_url_flag.clone(), Origin::Flag("--base-url"))
}

fn entity(
    said: &Said,
    environment: &Environment,
    file: &Path,
    settings: &SettingsFiles,
) -> Setting<Option<String>> {
    let mut setting = Setting::default(None);
    if let Some((value, path)) = settings.value("entity") {
        setting = setting.or(Some(Some(value)), Origin::File(path));
    }
    setting
        .or(
            said.entity_file.clone().map(Some),
            Origin::File(file.to_owned()),
        )
        .or(
            environment
                .get("WANDB_ENTITY")
                .map(|name| Some(name.to_owned())),
            Origin::Variable("WANDB_ENTITY"),
        )
        .or(said.entity_flag.clone().map(Some), Origin::Flag("--entity"))
}

/// W&B's settings of this user, and those of the working folder, which win.
struct SettingsFiles(Vec<(PathBuf, String)>);

impl SettingsFiles {
    fn read(environment: &Environment) -> Result<SettingsFiles> {
        // Without a home folder there are no settings of the user, which is no error.
        let user = match environment.get("WANDB_CONFIG_DIR") {
            Some(folder) => Some(expand(folder, environment)?),
            None => environment
                .home()
                .ok()
                .map(|home| home.join(".config/wandb")),
        };
        let work = PathBuf::from(environment.get("WANDB_DIR").unwrap_or(".")).join("wandb");
        Ok(SettingsFiles(
            std::iter::once(work)
                .chain(user)
                .map(|folder| folder.join("settings"))
                .filter_map(|path| Some((path.clone(), std::fs::read_to_string(path).ok()?)))
                .collect(),
        ))
    }

    fn value(&self, key: &str) -> Option<(String, PathBuf)> {
        self.0
            .iter()
            .find_map(|(path, text)| Some((settings::value(text, key)?, path.clone())))
    }
}

struct Search<'a> {
    environment: &'a Environment,
    looked: Vec<String>,
    warnings: Vec<String>,
}

impl Search<'_> {
    /// The key. A file that somebody named and that gives none ends the search: a key from elsewhere would be
    /// somebody else's.
    fn key(&mut self, address: &Address) -> Result<Option<Setting<Secret>>> {
        if let Some(key) = self.environment.get("WANDB_API_KEY") {
            return Ok(Some(found(key, Origin::Variable("WANDB_API_KEY"))));
        }
        self.looked.push("`WANDB_API_KEY`".to_owned());
        if let Some(path) = self.environment.get("WANDB_API_KEY_FILE") {
            let path = expand(path, self.environment)?;
            return Ok(self.key_in_file(&path));
        }
        self.looked.push("`WANDB_API_KEY_FILE`".to_owned());
        self.key_in_netrc(address)
    }

    fn key_in_file(&mut self, path: &Path) -> Option<Setting<Secret>> {
        let place = format!("`WANDB_API_KEY_FILE` ({})", path.display());
        match std::fs::read_to_string(path) {
            Ok(text) if !text.trim().is_empty() => {
                self.check_permissions(path);
                Some(found(&text, Origin::File(path.to_owned())))
            }
            Ok(_) => {
                self.looked.push(format!("{place}, which is empty"));
                None
            }
            Err(cause) => {
                self.looked.push(format!("{place}: {cause}"));
                None
            }
        }
    }

    fn key_in_netrc(&mut self, address: &Address) -> Result<Option<Setting<Secret>>> {
        let Some(path) = self.netrc()? else {
            return Ok(None);
        };
        let machines = address.machines();
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                if let Some(key) = netrc::password(&text, &machines) {
                    self.check_permissions(&path);
                    return Ok(Some(found(&key, Origin::File(path))));
                }
                self.looked.push(format!(
                    "{} (no password for `{}`)",
                    path.display(),
                    machines.join("` or `")
                ));
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                self.looked
                    .push(format!("{} (which is not there)", path.display()));
            }
            Err(cause) => self.looked.push(format!("{}: {cause}", path.display())),
        }
        Ok(None)
    }

    /// The netrc: the one that was named, else the first of the two usual names that exists. None without a home.
    fn netrc(&self) -> Result<Option<PathBuf>> {
        if let Some(path) = self.environment.get("NETRC") {
            return expand(path, self.environment).map(Some);
        }
        let Ok(home) = self.environment.home() else {
            return Ok(None);
        };
        let other = home.join("_netrc");
        let usual = home.join(".netrc");
        Ok(Some(if !usual.exists() && other.exists() {
            other
        } else {
            usual
        }))
    }

    fn check_permissions(&mut self, path: &Path) {
        let others_may = std::fs::metadata(path)
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o044 != 0);
        if others_may {
            let path = path.display();
            self.warnings.push(format!(
                "{path} holds a key and can be read by other users of this machine; `chmod 600 {path}` ends that"
            ));
        }
    }
}

fn found(key: &str, origin: Origin) -> Setting<Secret> {
    Setting {
        value: Secret::new(key.trim()),
        origin,
    }
}

/// `~/` is the home folder: variables that a service manager sets went through no shell.
fn expand(path: &str, environment: &Environment) -> Result<PathBuf> {
    match path.strip_prefix("~/") {
        Some(rest) => Ok(environment.home()?.join(rest)),
        None => Ok(PathBuf::from(path)),
    }
}
