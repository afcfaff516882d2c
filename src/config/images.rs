//! The keys about building images and about the network that builds and jobs have, read out of the file's form.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Environment;
use super::file::{self, File, wrong};
use crate::failure::{Error, Result};
use crate::launch::builder::{Builder, BuilderKind};
use crate::launch::command::Secret;
use crate::launch::image;
use crate::launch::network::Network;
use crate::launch::registry::Destination;

/// The builder, as it is for a queue that says nothing about it.
pub fn builder(file: &File, path: &Path, destination: Option<&Destination>) -> Result<Builder> {
    let Some(keys) = file.builder(path)? else {
        // The older `registry` key may name a destination all the same.
        return Ok(Builder {
            destination: destination.map(|it| it.name.clone()),
            ..Builder::default()
        });
    };
    if keys.timeout == Some(0) {
        return Err(wrong(path, "`builder.timeout` is 0")
            .hint("it is how many seconds the build of an image may take"));
    }
    if let Some(base) = &keys.base_image {
        image::check(base).map_err(|error| {
            wrong(path, error.within("`builder.base_image`"))
                .hint("name an image, such as `python:3.12-slim`")
        })?;
    }
    let secrets = keys.secrets.clone().unwrap_or_default();
    for (id, secret) in &secrets {
        let is_id = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if id.is_empty() || !id.chars().all(is_id) {
            return Err(wrong(path, format!("`builder.secrets`: `{id}` is no id"))
                .hint("an id is letters, digits, `.`, `_` and dashes"));
        }
        readable(&format!("builder.secrets.{id}"), secret, path)?;
    }
    Ok(Builder {
        kind: match keys.kind.as_deref() {
            Some("noop") => BuilderKind::Noop,
            _ => BuilderKind::Docker,
        },
        destination: destination.map(|it| it.name.clone()),
        platform: keys.platform.clone(),
        base_image: keys.base_image.clone(),
        build_args: build_args(&keys, path)?,
        timeout: keys.timeout.map(file::seconds),
        secrets,
    })
}

fn build_args(keys: &file::Builder, path: &Path) -> Result<BTreeMap<String, String>> {
    let all = keys.build_args.iter().flatten();
    all.map(|(name, value)| {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let text = match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            _ => None,
        };
        match text {
            Some(text) if !name.is_empty() && name.chars().all(is_name) => Ok((name.clone(), text)),
            _ => Err(wrong(
                path,
                format!("`builder.build_args.{name}` is no build argument"),
            )
            .hint("write `NAME: value`, with a text, a number, true or false")),
        }
    })
    .collect()
}

/// How builds and jobs reach the world; nothing of it is set unless the owner says so.
pub fn network(file: &File, path: &Path, environment: &Environment) -> Result<Option<Network>> {
    let Some(keys) = &file.network else {
        return Ok(None);
    };
    if let Some(bundle) = &keys.ca_bundle {
        let text = readable("network.ca_bundle", bundle, path)?;
        if !text.contains("-----BEGIN ") {
            return Err(wrong(
                path,
                format!(
                    "`network.ca_bundle`: {} holds no certificates",
                    bundle.display()
                ),
            )
            .hint("it is a file in PEM form, with `-----BEGIN CERTIFICATE-----` in it"));
        }
    }
    if let Some(proxy) = &keys.proxy {
        let is_proxy = ["http://", "https://"]
            .iter()
            .any(|scheme| proxy.len() > scheme.len() && proxy.starts_with(scheme))
            && !proxy.contains(char::is_whitespace);
        if !is_proxy {
            return Err(wrong(path, "`network.proxy` is no address of a proxy")
                .hint("a proxy looks like `http://proxy.example:3128`"));
        }
    }
    Ok(Some(Network {
        ca_bundle: keys.ca_bundle.clone(),
        proxy: keys.proxy.clone().map(Secret::new),
        no_proxy: ["NO_PROXY", "no_proxy"]
            .iter()
            .find_map(|name| environment.get(name))
            .map(str::to_owned),
    }))
}

/// The text of a file that must be there: better said at the start than by the first build.
fn readable(key: &str, file: &PathBuf, path: &Path) -> Result<String> {
    if !file.is_absolute() {
        return Err(wrong(path, format!("`{key}` is `{}`", file.display()))
            .hint("give the whole path, from `/` on"));
    }
    let bytes = std::fs::read(file).map_err(|cause| -> Error {
        wrong(
            path,
            format!("`{key}`: cannot read {}: {cause}", file.display()),
        )
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Builder, Network)> {
        let path = Path::new("c.yaml");
        let file = File::parse(text, path)?;
        Ok((
            builder(&file, path, None)?,
            network(&file, path, &Environment::default())?.unwrap_or_default(),
        ))
    }

    #[test]
    fn reads_builder_and_network() {
        let folder = tempfile::tempdir().expect("a folder");
        let pem = folder.path().join("ca.pem");
        std::fs::write(&pem, "-----BEGIN CERTIFICATE-----\n").expect("written");
        let pem = pem.display();
        let (builder, network) = read(&format!(
            "builder:\n  type: noop\n  base_image: base:1\n  platform: linux/arm64\n  build_args: {{A: 1, B: x}}\n  timeout: 60\n  \
             secrets: {{pip.conf: {pem}}}\nnetwork: {{ca_bundle: {pem}, proxy: 'http://me:sesame@p:1'}}\n"
        ))
        .expect("good");
        assert_eq!(builder.kind, BuilderKind::Noop);
        assert_eq!(builder.base_image.as_deref(), Some("base:1"));
        assert_eq!(builder.build_args["A"], "1");
        assert_eq!(builder.timeout, Some(file::seconds(60)));
        assert!(builder.secrets.contains_key("pip.conf"));
        assert!(network.ca_bundle.is_some());
        assert!(!format!("{network:?}").contains("sesame"));
        assert_eq!(
            read("entity: me\n").expect("good"),
            (Builder::default(), Network::default())
        );
    }

    #[test]
    fn what_cannot_work_is_said_at_the_start() {
        for (text, message) in [
            (
                "builder: {base_image: Base}",
                "c.yaml: `builder.base_image`: `Base` is not an image: `Base` has upper-case letters",
            ),
            ("builder: {timeout: 0}", "c.yaml: `builder.timeout` is 0"),
            (
                "builder: {build_args: {A: [1]}}",
                "c.yaml: `builder.build_args.A` is no build argument",
            ),
            (
                "builder: {secrets: {a: ./x}}",
                "c.yaml: `builder.secrets.a` is `./x`",
            ),
            (
                "builder: {secrets: {'a,b': /x}}",
                "c.yaml: `builder.secrets`: `a,b` is no id",
            ),
            (
                "network: {ca_bundle: /nowhere/ca.pem}",
                "c.yaml: `network.ca_bundle`: cannot read /nowhere/ca.pem: No such file or directory (os error 2)",
            ),
            (
                "network: {ca_bundle: /dev/null}",
                "c.yaml: `network.ca_bundle`: /dev/null holds no certificates",
            ),
            (
                "network: {proxy: 'socks5://me:pw@p:1'}",
                "c.yaml: `network.proxy` is no address of a proxy",
            ),
            (
                "network: {ca_bundel: /x}",
                "c.yaml:1: unknown key `ca_bundel`",
            ),
        ] {
            assert_eq!(read(text).expect_err("bad").message, message);
        }
    }
}
