//! The WANDB_* variables of a job. Pure.
//!
//! Names, values and their order are those of W&B's own agent, to the byte, so that a job that runs under the one
//! runs under the other. The API key alone differs: it is handed over by name, never on the line.

use serde_json::Value;

use crate::launch::command::Secret;
use crate::launch::plan::Context;
use crate::launch::python_json::dumps;
use crate::launch::spec::{LaunchSpec, Object};

/// The longest value, in characters, of a variable that is cut into numbered ones when it is longer. W&B's client
/// puts the pieces together again.
const LONGEST: usize = 32_670;

/// One variable of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// On the line: `--env NAME=VALUE`.
    Plain(String, String),
    /// By name: `--env NAME`, the value in the environment of docker's client.
    ByName(String, Secret),
}

/// The variables of a job, in the order of W&B's agent. Without a server there is no address and no key, and, when
/// `is_mode_chosen` is false, `WANDB_MODE=offline` tells W&B's client so.
pub fn variables(
    spec: &LaunchSpec,
    context: &Context<'_>,
    run_id: &str,
    image: Option<&str>,
    is_mode_chosen: bool,
) -> Vec<Variable> {
    let mut list = List(Vec::new());
    if let Some(server) = context.server {
        list.add("WANDB_BASE_URL", &server.base_url);
        let key = spec.api_key.as_ref().unwrap_or(&server.api_key);
        list.0
            .push(Variable::ByName("WANDB_API_KEY".to_owned(), key.clone()));
    } else if !is_mode_chosen {
        list.add("WANDB_MODE", "offline");
    }
    list.add_some("WANDB_PROJECT", Some(spec.project.to_lowercase().as_str()));
    list.add_some("WANDB_ENTITY", spec.entity.as_deref());
    list.add("WANDB_LAUNCH", "True");
    list.add("WANDB_RUN_ID", run_id);
    list.add_some("WANDB_DOCKER", image);
    if let Some(name) = &spec.name {
        list.add("WANDB_NAME", name);
    }
    // A key of the submitter says who it is by itself.
    if let (Some(author), None) = (&spec.author, &spec.api_key) {
        list.add("WANDB_USERNAME", author.as_deref().unwrap_or(""));
    }
    list.add_some("WANDB_SWEEP_ID", spec.sweep_id.as_deref());
    if spec.resume_count > 0 {
        list.add("WANDB_RESUME", "allow");
    }
    list.add("WANDB_LAUNCH_QUEUE_NAME", context.queue);
    list.add_some("WANDB_LAUNCH_QUEUE_ENTITY", context.queue_entity);
    list.add("WANDB_LAUNCH_TRACE_ID", context.item);
    list.add_cut("WANDB_CONFIG", &spec.overrides.run_config);
    list.add_cut("WANDB_LAUNCH_FILE_OVERRIDES", &spec.overrides.files);
    list.add("WANDB_ARTIFACTS", &dumps(&Value::Object(artifacts(spec))));
    list.0
}

/// The job itself is an artifact of the run, beside those that the submitter names.
fn artifacts(spec: &LaunchSpec) -> Object {
    let mut artifacts = Object::new();
    if let Some(job) = &spec.job {
        artifacts.insert("_wandb_job".to_owned(), Value::from(job.as_str()));
    }
    artifacts.extend(spec.overrides.artifacts.clone());
    artifacts
}

struct List(Vec<Variable>);

impl List {
    fn add(&mut self, name: &str, value: &str) {
        self.0
            .push(Variable::Plain(name.to_owned(), value.to_owned()));
    }

    /// Leaves the variable out when there is nothing to say.
    fn add_some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.add(name, value);
        }
    }

    /// Adds an object as JSON; cut into `NAME_0`, `NAME_1` .. when it is too long for one variable.
    fn add_cut(&mut self, name: &str, object: &Object) {
        let mut rest = dumps(&Value::Object(object.clone()));
        if rest.len() <= LONGEST {
            self.add(name, &rest);
            return;
        }
        let mut index = 0;
        // The text is ASCII, so a cut cannot fall into a character.
        while !rest.is_empty() {
            let after = rest.split_off(rest.len().min(LONGEST));
            self.add(&format!("{name}_{index}"), &rest);
            rest = after;
            index += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::machine::machine;
    use crate::launch::plan::Server;
    use crate::launch::policy::{Guard, Policy, Preset};
    use crate::launch::transfer::Transfers;
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::path::Path;

    fn shown(spec: &Value, server: Option<&Server>) -> Vec<String> {
        let (spec, _) = LaunchSpec::parse(spec).expect("a good spec");
        let context = Context {
            item: "item1",
            queue: "q",
            agent: "a",
            queue_entity: Some("owner"),
            generated_run_id: "unused",
            server,
            environment: &BTreeMap::new(),
            env_macros: &[],
            secure_mode: false,
            guard: Guard {
                policy: &Policy::of(Preset::Open),
                machine: machine(),
            },
            cidfile: Path::new("/cid"),
            transfers: &Transfers::default(),
        };
        variables(&spec, &context, "r1", Some("img:1"), false)
            .into_iter()
            .map(|variable| match variable {
                Variable::Plain(name, value) => format!("{name}={value}"),
                Variable::ByName(name, secret) => format!("{name} ({})", secret.expose()),
            })
            .collect()
    }

    #[test]
    fn everything_in_wandbs_order() {
        let server = Server {
            base_url: "https://api.wandb.ai".to_owned(),
            api_key: Secret::new("agent-key"),
        };
        let spec = json!({
            "project": "Proj", "entity": "me", "name": "A name", "author": "bob", "sweep_id": "s1",
            "_resume_count": 2, "job": "me/p/j:v0",
            "overrides": {"run_config": {"lr": 1e-7}, "files": {"a": "é"}, "artifacts": {"d": "x:v1"}}
        });
        assert_eq!(
            shown(&spec, Some(&server)),
            [
                "WANDB_BASE_URL=https://api.wandb.ai",
                "WANDB_API_KEY (agent-key)",
                "WANDB_PROJECT=proj",
                "WANDB_ENTITY=me",
                "WANDB_LAUNCH=True",
                "WANDB_RUN_ID=r1",
                "WANDB_DOCKER=img:1",
                "WANDB_NAME=A name",
                "WANDB_USERNAME=bob",
                "WANDB_SWEEP_ID=s1",
                "WANDB_RESUME=allow",
                "WANDB_LAUNCH_QUEUE_NAME=q",
                "WANDB_LAUNCH_QUEUE_ENTITY=owner",
                "WANDB_LAUNCH_TRACE_ID=item1",
                "WANDB_CONFIG={\"lr\": 1e-07}",
                "WANDB_LAUNCH_FILE_OVERRIDES={\"a\": \"\\u00e9\"}",
                "WANDB_ARTIFACTS={\"_wandb_job\": \"me/p/j:v0\", \"d\": \"x:v1\"}",
            ]
        );
    }

    #[test]
    fn the_submitters_key_takes_the_place_of_the_agents_and_of_the_name() {
        let server = Server {
            base_url: "u".to_owned(),
            api_key: Secret::new("agent-key"),
        };
        let spec = json!({"project": "", "author": "bob", "_wandb_api_key": "bobs-key"});
        let shown = shown(&spec, Some(&server));
        assert_eq!(shown[1], "WANDB_API_KEY (bobs-key)");
        assert_eq!(shown[2], "WANDB_LAUNCH=True");
        assert!(!shown.iter().any(|line| line.starts_with("WANDB_USERNAME")));
    }

    #[test]
    fn without_a_server_the_client_is_told_so() {
        let shown = shown(
            &json!({"project": "p", "author": null, "_wandb_api_key": "k"}),
            None,
        );
        assert_eq!(shown[0], "WANDB_MODE=offline");
        assert!(!shown.iter().any(|line| line.contains("API_KEY")));
        let shown = self::shown(&json!({"project": "p", "author": null}), None);
        assert!(shown.contains(&"WANDB_USERNAME=".to_owned()));
    }

    #[test]
    fn long_values_are_cut() {
        let of_length = |length: usize| {
            // {"a": "xx.."} has 9 characters around the x.
            let value = "x".repeat(length - 9);
            shown(
                &json!({"project": "p", "overrides": {"run_config": {"a": value}}}),
                None,
            )
            .into_iter()
            .filter(|line| line.starts_with("WANDB_CONFIG"))
            .collect::<Vec<_>>()
        };
        assert_eq!(of_length(LONGEST).len(), 1);
        let cut = of_length(2 * LONGEST + 1);
        assert_eq!(cut.len(), 3);
        assert!(cut[0].starts_with("WANDB_CONFIG_0={\"a\": \"xx"));
        assert_eq!(cut[0].len(), "WANDB_CONFIG_0=".len() + LONGEST);
        assert_eq!(cut[2], "WANDB_CONFIG_2=}");
    }
}
