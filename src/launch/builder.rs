//! How images are built for one job: what the agent's owner says, and over it what the queue's config says under
//! `builder`. Pure.
//!
//! Source of the queue's keys: W&B's documentation of `builder.accelerator.base_image`, and its agent, which still
//! reads the older `cuda`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::failure::{Error, Result};
use crate::launch::image;
use crate::launch::spec::Object;

/// The key of a queue's config that is no option of docker.
pub const KEY: &str = "builder";

const QUEUE_KEYS: [&str; 3] = ["accelerator", "cuda", "base_image"];

/// The most that a build takes where the owner says nothing: some packages are compiled for hours, and a mirror that
/// gives no answer must not hold a job's place for ever.
pub const TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// How images are built, settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Builder {
    /// Whether anything is built.
    pub kind: BuilderKind,
    /// The repository that built images are pushed to; `None` keeps them on this machine.
    pub destination: Option<String>,
    /// `linux/amd64` or another that docker knows.
    pub platform: Option<String>,
    /// The image that a generated Dockerfile starts from, and in which code runs that is not built.
    pub base_image: Option<String>,
    /// Build arguments, for every build.
    pub build_args: BTreeMap<String, String>,
    /// How long a build may take.
    pub timeout: Option<Duration>,
    /// Files that a build may read and that no image keeps, by their id.
    pub secrets: BTreeMap<String, PathBuf>,
}

/// `builder.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BuilderKind {
    /// Docker builds an image.
    #[default]
    Docker,
    /// Nothing is built: code runs in a base image, mounted.
    Noop,
}

impl Builder {
    /// The same with what a queue's config or a job's `resource_args` say under `builder`.
    pub fn for_queue(&self, config: &Object) -> Result<Builder> {
        let mut settled = self.clone();
        if let Some(image) = queue_base_image(config)? {
            settled.base_image = Some(image);
        }
        Ok(settled)
    }
}

/// The base image that a queue chooses. The accelerator's is for its hardware, so it wins.
fn queue_base_image(config: &Object) -> Result<Option<String>> {
    let builder = match config.get(KEY) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(builder)) => builder,
        Some(_) => {
            return Err(Error::input("`builder` must be an object")
                .hint(r#"write {"builder": {"accelerator": {"base_image": "..."}}}"#));
        }
    };
    check_keys(builder, KEY, &QUEUE_KEYS)?;
    for accelerator in ["accelerator", "cuda"] {
        let place = format!("{KEY}.{accelerator}");
        match builder.get(accelerator) {
            None | Some(Value::Null) => {}
            Some(Value::Object(inner)) => {
                check_keys(inner, &place, &["base_image"])?;
                if let Some(image) = image_in(inner, &place)? {
                    return Ok(Some(image));
                }
            }
            Some(_) => {
                return Err(Error::input(format!("`{place}` must be an object"))
                    .hint(r#"write {"base_image": "..."}"#));
            }
        }
    }
    image_in(builder, KEY)
}

fn check_keys(object: &Object, place: &str, known: &[&str]) -> Result<()> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(
            Error::input(format!("`{place}.{key}` is not known in a queue's config"))
                .hint(format!("the keys are `{}`", known.join("`, `")))
                .closest(key, known.iter().copied()),
        ),
    }
}

fn image_in(object: &Object, place: &str) -> Result<Option<String>> {
    match object.get("base_image") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => {
            image::check(text)
                .map_err(|error| error.within(format_args!("`{place}.base_image`")))?;
            Ok(Some(text.clone()))
        }
        Some(_) => Err(Error::input(format!(
            "`{place}.base_image` must be the name of an image"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base(config: &Value) -> Result<Option<String>> {
        let agents = Builder {
            base_image: Some("agents:1".to_owned()),
            ..Builder::default()
        };
        let config = config.as_object().expect("an object");
        Ok(agents.for_queue(config)?.base_image)
    }

    #[test]
    fn the_queues_base_image_wins_and_the_accelerators_over_it() {
        for (config, expected) in [
            (json!({"gpus": "all"}), "agents:1"),
            (json!({"builder": null}), "agents:1"),
            (json!({"builder": {"base_image": "queues:1"}}), "queues:1"),
            (
                json!({"builder": {"accelerator": {"base_image": "tensorflow/tensorflow:latest-gpu"}, "base_image": "q:1"}}),
                "tensorflow/tensorflow:latest-gpu",
            ),
            (json!({"builder": {"cuda": {"base_image": "nv:1"}}}), "nv:1"),
            (
                json!({"builder": {"accelerator": {"base_image": ""}}}),
                "agents:1",
            ),
        ] {
            assert_eq!(
                base(&config).expect("good").as_deref(),
                Some(expected),
                "{config}"
            );
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (config, message) in [
            (json!({"builder": "x"}), "`builder` must be an object"),
            (
                json!({"builder": {"accelarator": {}}}),
                "`builder.accelarator` is not known in a queue's config",
            ),
            (
                json!({"builder": {"accelerator": {"image": "x"}}}),
                "`builder.accelerator.image` is not known in a queue's config",
            ),
            (
                json!({"builder": {"accelerator": "x:1"}}),
                "`builder.accelerator` must be an object",
            ),
            (
                json!({"builder": {"base_image": "-x"}}),
                "`builder.base_image`: `-x` is not an image: it starts with `-`",
            ),
            (
                json!({"builder": {"base_image": 5}}),
                "`builder.base_image` must be the name of an image",
            ),
        ] {
            assert_eq!(base(&config).expect_err("bad").message, message);
        }
        let error = base(&json!({"builder": {"accelarator": {}}})).expect_err("bad");
        assert_eq!(error.hint.as_deref(), Some("did you mean `accelerator`?"));
    }
}
