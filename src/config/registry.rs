//! Where built images go: `builder.destination`, the older `registry` block, and the `environment` that W&B's own agent
//! wants beside it. Checked as there; what this agent has no use for is known all the same.

use std::path::Path;

use serde_json::{Map, Value};

use super::file::{File, wrong};
use crate::failure::{Error, Result};
use crate::launch::registry::Destination;

/// What the file says about registries, settled.
#[derive(Debug, Default)]
pub struct Registries {
    /// Where built images go.
    pub destination: Option<Destination>,
    /// What the owner should know, a sentence each.
    pub warnings: Vec<String>,
}

impl Registries {
    /// Reads the three keys; `path` is for messages.
    pub fn read(file: &File, path: &Path) -> Result<Registries> {
        let mut warnings = check_environment(file.environment.as_ref(), path)?;
        let of_block = of_block(file.registry.as_ref(), path, &mut warnings)?;
        let builder = file.builder.as_ref();
        let destination = match builder.and_then(|builder| builder.destination.as_deref()) {
            None => of_block,
            Some(text) => {
                if of_block.is_some() {
                    warnings
                        .push("`builder.destination` is used, and `registry` is not".to_owned());
                }
                Some(parse(text, "builder.destination", path)?)
            }
        };
        warnings.extend(destination.as_ref().and_then(Destination::warning));
        Ok(Registries {
            destination,
            warnings,
        })
    }
}

fn parse(text: &str, key: &str, path: &Path) -> Result<Destination> {
    Destination::parse(text)
        .map_err(|error| error.within(format_args!("{}: `{key}`", path.display())))
}

/// The keys of a block and what they may hold: text, all of them.
struct Block<'a> {
    name: &'static str,
    values: &'a Map<String, Value>,
    path: &'a Path,
}

impl<'a> Block<'a> {
    fn of(name: &'static str, value: Option<&'a Value>, path: &'a Path) -> Result<Option<Self>> {
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(values)) => Ok(Some(Block { name, values, path })),
            Some(_) => Err(wrong(path, format!("`{name}` is no mapping"))
                .hint("write `key: value` on lines of their own below it")),
        }
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            // An account number is written without quotes.
            Some(other) => Err(self
                .wrong(format!(
                    "`{}.{key}` is `{other}`, which is no text",
                    self.name
                ))
                .hint("put it in quotes")),
        }
    }

    fn kind(&self, known: &[&str]) -> Result<Option<&'a str>> {
        let Some(kind) = self.text("type")? else {
            return Ok(None);
        };
        if known.contains(&kind) {
            return Ok(Some(kind));
        }
        Err(self
            .wrong(format!("`{}.type` is `{kind}`", self.name))
            .hint(format!("it is `{}`", known.join("`, `"))))
    }

    fn required(&self, key: &str) -> Result<&'a str> {
        self.text(key)?
            .ok_or_else(|| self.wrong(format!("`{}` has no `{key}`", self.name)))
    }

    fn wrong(&self, message: String) -> Error {
        wrong(self.path, message)
    }
}

/// The destination that a `registry` block names, by its address or by its parts.
fn of_block(
    value: Option<&Value>,
    path: &Path,
    warnings: &mut Vec<String>,
) -> Result<Option<Destination>> {
    let Some(block) = Block::of("registry", value, path)? else {
        return Ok(None);
    };
    let Some(kind) = block.kind(&["ecr", "acr", "gcr"])? else {
        warnings.push(
            "`registry` has no `type`, so that images go nowhere: write `builder.destination`"
                .to_owned(),
        );
        return Ok(None);
    };
    let known: &[&str] = match kind {
        "ecr" => &[
            "type",
            "uri",
            "account_id",
            "region",
            "repo_name",
            "repository",
        ],
        "gcr" => &[
            "type",
            "uri",
            "project",
            "region",
            "repository",
            "image-name",
        ],
        _ => &["type", "uri"],
    };
    if let Some(key) = block
        .values
        .keys()
        .find(|key| !known.contains(&key.as_str()))
    {
        return Err(block
            .wrong(format!("`registry` has the unknown key `{key}`"))
            .hint(format!("for {kind} its keys are {}", known.join(", ")))
            .closest(key, known.iter().copied()));
    }
    let name = match (block.text("uri")?, kind) {
        (Some(uri), _) => uri.to_owned(),
        (None, "ecr") => {
            let name = match block.text("repo_name")? {
                Some(name) => name,
                None => block.required("repository")?,
            };
            let (account, region) = (block.required("account_id")?, block.required("region")?);
            format!("{account}.dkr.ecr.{region}.amazonaws.com/{name}")
        }
        (None, "gcr") => format!(
            "{}-docker.pkg.dev/{}/{}/{}",
            block.required("region")?,
            block.required("project")?,
            block.required("repository")?,
            block.required("image-name")?
        ),
        (None, _) => block.required("uri")?.to_owned(),
    };
    let destination = parse(&name, "registry", path)?;
    warnings.push(format!(
        "`registry` is the older way to say `builder: {{destination: {}}}`",
        destination.name
    ));
    Ok(Some(destination))
}

/// Checks an `environment` block. A registry's own address says all that a login needs, so that nothing else is done
/// with it.
fn check_environment(value: Option<&Value>, path: &Path) -> Result<Vec<String>> {
    let Some(block) = Block::of("environment", value, path)? else {
        return Ok(Vec::new());
    };
    let kind = block.kind(&["aws", "gcp", "azure"])?;
    let region = block.text("region")?;
    if kind.is_none() && !block.values.is_empty() {
        return Err(block
            .wrong("`environment` has no `type`".to_owned())
            .hint("it is `aws`, `gcp` or `azure`"));
    }
    if let (Some(kind @ ("aws" | "gcp")), None) = (kind, region) {
        return Err(block.wrong(format!("`environment` of type `{kind}` has no `region`")));
    }
    let mut keys = block.values.keys().map(String::as_str);
    let extra = keys
        .by_ref()
        .filter(|key| !["type", "region"].contains(key));
    Ok(extra
        .map(|key| format!("`environment.{key}` is unknown, and nothing is done with it"))
        .collect())
}
