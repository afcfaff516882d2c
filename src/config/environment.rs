//! The environment of this process, read once at the start, and the folders that it names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::failure::{Error, Kind, Result};

/// The environment of this process, read once at the start.
#[derive(Debug, Clone, Default)]
pub struct Environment(pub(super) BTreeMap<String, String>);

impl Environment {
    /// Reads the environment. Variables that are not UTF-8 cannot be named in a config and are left out; docker's
    /// client inherits them all the same.
    pub fn read() -> Self {
        Environment(
            std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        )
    }

    /// An environment of these variables alone.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Environment(
            variables
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// The value of a variable; an empty one is as good as none, as everywhere in W&B's client.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// All variables.
    pub fn all(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    pub(super) fn home(&self) -> Result<PathBuf> {
        self.get("HOME").map(PathBuf::from).ok_or_else(|| {
            Error::new(
                Kind::Config,
                "`HOME` is not set, so there is no place for the agent's files",
            )
            .hint("set HOME, or both XDG_STATE_HOME and XDG_CONFIG_HOME")
        })
    }

    /// A folder of the XDG base directories: `variable`, or else `fallback` under the home folder.
    pub(super) fn folder(&self, variable: &str, fallback: &str) -> Result<PathBuf> {
        match self.get(variable) {
            Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
            _ => Ok(self.home()?.join(fallback)),
        }
    }
}
