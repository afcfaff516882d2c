//! Reading and writing the name of an artifact. Pure.

use std::fmt;

use super::ArtifactName;
use crate::failure::{Error, Result};

/// The scheme of a reference to an artifact. May be left out.
const SCHEME: &str = "wandb-artifact://";

impl ArtifactName {
    /// Reads `entity/project/name:alias` or `_id/ID`, each with or without `wandb-artifact://`.
    pub fn parse(text: &str) -> Result<ArtifactName> {
        let path = text.strip_prefix(SCHEME).unwrap_or(text);
        if let Some(id) = path.strip_prefix("_id/") {
            return match id {
                "" => Err(wrong(text)),
                id => Ok(ArtifactName::Id(id.to_owned())),
            };
        }
        let parts: Vec<&str> = path.split('/').collect();
        let [entity, project, name] = parts.as_slice() else {
            return Err(wrong(text));
        };
        let (name, alias) = name.split_once(':').unwrap_or((name, "latest"));
        if [*entity, *project, name, alias]
            .iter()
            .any(|part| part.is_empty() || part.contains(':') || part.chars().any(char::is_control))
        {
            return Err(wrong(text));
        }
        Ok(ArtifactName::Path {
            entity: (*entity).to_owned(),
            project: (*project).to_owned(),
            name: name.to_owned(),
            alias: alias.to_owned(),
        })
    }
}

fn wrong(text: &str) -> Error {
    Error::input(format!(
        "`{}` is not the name of an artifact",
        text.escape_debug()
    ))
    .hint(
        "it looks like `ENTITY/PROJECT/NAME:ALIAS`, as `wandb job list` and `push --code` print it",
    )
}

impl fmt::Display for ArtifactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArtifactName::Id(id) => write!(f, "{SCHEME}_id/{id}"),
            ArtifactName::Path {
                entity,
                project,
                name,
                alias,
            } => write!(f, "{entity}/{project}/{name}:{alias}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, written) in [
            ("me/proj/job:v3", "me/proj/job:v3"),
            ("me/proj/job", "me/proj/job:latest"),
            ("wandb-artifact://me/proj/job:best", "me/proj/job:best"),
            (
                "wandb-artifact://_id/QXJ0aWZhY3Q6NQ==",
                "wandb-artifact://_id/QXJ0aWZhY3Q6NQ==",
            ),
            ("_id/5", "wandb-artifact://_id/5"),
        ] {
            let name = ArtifactName::parse(text).expect(text);
            assert_eq!(name.to_string(), written);
            assert_eq!(ArtifactName::parse(&name.to_string()).expect("again"), name);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "job",
            "proj/job",
            "a/b/c/d",
            "a//c",
            "a/b/",
            "a/b/:v1",
            "a/b/c:",
            "a/b/c:d:e",
            "_id/",
            "a/b/c\n:v1",
            "s3://a/b",
        ] {
            let error = ArtifactName::parse(text).expect_err(text);
            assert!(error.message.contains("is not the name"), "{error}");
        }
    }
}
