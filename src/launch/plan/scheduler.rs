//! A sweep scheduler: the one job that is no container. `wandb launch-sweep` pushes it as an item of its own, and
//! W&B's agent runs its command on the agent's machine. So that nothing else ever is, the command must be the one
//! that `wandb launch-sweep` writes.

use super::settle::check_entry_point;
use super::{Context, Place, Plan};
use crate::failure::{Error, Result};
use crate::launch::command::{CommandLine, Secret};
use crate::launch::job_env::{self, Variable};
use crate::launch::spec::LaunchSpec;

/// The command of a scheduler, its sweep left out.
const COMMAND: [&str; 2] = ["wandb", "scheduler"];

/// Decides how a sweep scheduler runs. Its variables go into its environment, not onto its line.
pub fn scheduler(spec: &LaunchSpec, context: &Context<'_>) -> Result<Plan> {
    let Some(server) = context.server else {
        return Err(Error::input(
            "a sweep scheduler needs W&B's server, and this agent polls an embedded queue",
        ));
    };
    check_entry_point(spec, context)?;
    let command = &spec.overrides.entry_point;
    if command.len() < 3 || command[..2] != COMMAND {
        return Err(Error::input(format!(
            "a sweep scheduler runs `wandb scheduler SWEEP`, not `{}`",
            CommandLine::new("")
                .args(command)
                .to_string()
                .trim_start_matches("'' ")
        ))
        .hint("push it with `wandb launch-sweep`"));
    }
    let run_id = spec
        .run_id
        .clone()
        .unwrap_or_else(|| context.generated_run_id.to_owned());
    let mut run = CommandLine::new(COMMAND[0])
        .args(&command[1..])
        .args(&spec.overrides.args);
    for variable in job_env::variables(spec, context, &run_id, None, true) {
        let (name, value) = match variable {
            Variable::Plain(name, value) => (name, Secret::new(value)),
            Variable::ByName(name, value) => (name, value),
        };
        run.env.insert(name, value);
    }
    Ok(Plan {
        run,
        place: Place::Process,
        secrets: [Some(server.api_key.clone()), spec.api_key.clone()]
            .into_iter()
            .flatten()
            .collect(),
        env_from_agent: Vec::new(),
        warnings: Vec::new(),
        run_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::machine::machine;
    use crate::launch::plan::Server;
    use crate::launch::policy::{Guard, Policy, Preset};
    use crate::launch::transfer::Transfers;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;
    use std::path::Path;

    fn planned(entry_point: &Value, server: Option<&Server>) -> Result<Plan> {
        planned_in(false, entry_point, server)
    }

    fn planned_in(secure_mode: bool, entry_point: &Value, server: Option<&Server>) -> Result<Plan> {
        let spec = json!({
            "uri": "placeholder-uri-scheduler", "resource": "local-process", "project": "p", "entity": "e",
            "run_id": "sweep1", "overrides": {"entry_point": entry_point, "args": ["--queue", "q"]}
        });
        let (spec, _) = LaunchSpec::parse(&spec)?;
        assert!(spec.is_scheduler);
        let context = Context {
            item: "i1",
            queue: "q",
            agent: "a",
            queue_entity: Some("e"),
            generated_run_id: "unused",
            server,
            environment: &BTreeMap::new(),
            env_macros: &[],
            secure_mode,
            guard: Guard {
                policy: &Policy::of(Preset::Open),
                machine: machine(),
            },
            cidfile: Path::new("/cid"),
            network: &crate::launch::network::Network::default(),
            transfers: &Transfers::default(),
        };
        scheduler(&spec, &context)
    }

    #[test]
    fn runs_wandbs_own_command_with_the_key_out_of_sight() {
        let server = Server {
            base_url: "http://w".to_owned(),
            api_key: Secret::new("sesame-open"),
        };
        let plan =
            planned(&json!(["wandb", "scheduler", "sweep1"]), Some(&server)).expect("a plan");
        assert_eq!(plan.to_string(), "wandb scheduler sweep1 --queue q");
        assert_eq!(plan.run.env["WANDB_API_KEY"].expose(), "sesame-open");
        assert_eq!(plan.run.env["WANDB_RUN_ID"].expose(), "sweep1");
        assert!(!plan.run.env.contains_key("WANDB_DOCKER"));
        assert_eq!(plan.place, Place::Process);
    }

    #[test]
    fn runs_nothing_else_on_the_machine() {
        let server = Server {
            base_url: "http://w".to_owned(),
            api_key: Secret::new("sesame-open"),
        };
        for command in [
            json!([]),
            json!(["wandb", "scheduler"]),
            json!(["sh", "-c", "id"]),
            json!(["wandb", "launch", "x"]),
        ] {
            let error = planned(&command, Some(&server)).expect_err("refused");
            assert!(
                error
                    .message
                    .starts_with("a sweep scheduler runs `wandb scheduler SWEEP`, not `"),
                "{error}"
            );
        }
        assert!(planned(&json!(["wandb", "scheduler", "s"]), None).is_err());
    }

    #[test]
    fn secure_mode_refuses_it_as_under_wandbs_own_agent() {
        let server = Server {
            base_url: "http://w".to_owned(),
            api_key: Secret::new("sesame-open"),
        };
        let command = json!(["wandb", "scheduler", "sweep1"]);
        let error = planned_in(true, &command, Some(&server)).expect_err("refused");
        assert!(error.message.contains("secure mode"), "{error}");
    }
}
