//! `launch-agent policy check`: for each thing that a launch spec asks for, whether this machine's policy takes it,
//! and by which rule.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::table::escaped;
use super::{print, render};
use crate::agent;
use crate::cli::{PolicyArgs, PolicyCheckArgs, PolicyCommand};
use crate::config::{AgentConfig, Environment};
use crate::failure::{Error, Result};
use crate::host::engine;
use crate::host::machine::machine;
use crate::launch::build::decide;
use crate::launch::docker;
use crate::launch::network::Network;
use crate::launch::plan::{Context, redacted, resolve};
use crate::launch::policy::{Asked, Check, Guard, IMAGE, Policy, Preset, Refusal};
use crate::launch::spec::LaunchSpec;

/// The exit code of a spec that the policy refuses: that of any other wrong spec.
const REFUSED: u8 = 2;

pub fn run(args: &PolicyArgs, environment: &Environment) -> Result<ExitCode> {
    let PolicyCommand::Check(args) = &args.command;
    check(args, environment)
}

fn check(args: &PolicyCheckArgs, environment: &Environment) -> Result<ExitCode> {
    let config = AgentConfig::for_command(&args.launch.backend, environment)?;
    docker::choose(config.engine.value);
    if args.spec.is_none() && args.launch.queue_config.is_none() && args.launch.queue.is_none() {
        return Err(Error::input("nothing to check").hint(
            "name a launch spec, or a queue's config with `--queue-config FILE --image URI`",
        ));
    }
    let (value, mut spec, warnings) =
        render::launch_spec(args.spec.as_deref(), &args.launch, environment)?;
    super::warn(&warnings);
    let run_id = render::run_id(&value);
    let comes_as_code = agent::needs_code(&spec);
    if comes_as_code {
        // What a job asks of docker does not depend on the image that its code becomes.
        spec.image = Some("code".to_owned());
        super::say("note: the image is judged by the agent, once the job's code is there");
    }
    let mut checks = checks(&config, &spec, &run_id, environment)?;
    checks.retain(|check| !(comes_as_code && check.option == IMAGE));
    let allowed = checks.iter().all(Check::is_allowed);
    if args.json {
        print(as_json(&config, &checks))?;
    } else {
        for check in &checks {
            print_check(check)?;
        }
        let preset = config.policy.settled.preset.word();
        let verdict = if allowed { "allowed" } else { "refused" };
        print(format_args!(
            "{verdict} by this machine's policy (preset `{preset}`)"
        ))?;
    }
    Ok(if allowed {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    })
}

/// Settles the spec as the agent would, with nothing refused yet, and judges the result as a whole.
fn checks(
    config: &AgentConfig,
    spec: &LaunchSpec,
    run_id: &str,
    environment: &Environment,
) -> Result<Vec<Check>> {
    let open = Policy::of(Preset::Open);
    let context = Context {
        item: "check",
        queue: "check",
        agent: "check",
        queue_entity: config.entity.value.as_deref(),
        generated_run_id: run_id,
        // What the agent adds for a server on this machine is its own, and not judged.
        server: None,
        environment: environment.all(),
        env_macros: &config.env_macros.value,
        secure_mode: false,
        guard: Guard {
            policy: &open,
            machine: machine(),
        },
        cidfile: &config.state_folder.join("check.cid"),
        network: &Network::default(),
        transfers: &agent::transfers(config, environment.all()),
    };
    let folder = config.builds_folder();
    let settings = config.build_settings(&engine::has_buildx, &folder);
    let program = decide(spec, None, &settings)?;
    let launch = resolve(spec, &program, &context, &engine::run_help)?;
    let guard = Guard {
        policy: &config.policy.settled,
        machine: machine(),
    };
    let mut checks = guard.judge(&Asked {
        image: &launch.image,
        options: launch.options(),
        builder: spec.resource_args.contains_key("builder"),
        agent: context.agent,
    });
    if !spec.overrides.entry_point.is_empty() {
        checks.push(entry_point(config));
    }
    for check in &mut checks {
        let hide = |text: &mut String| *text = redacted(text, launch.secrets());
        hide(&mut check.given);
        if let Err(refusal) = &mut check.verdict {
            hide(&mut refusal.rule);
            hide(&mut refusal.hint);
        }
    }
    Ok(checks)
}

fn entry_point(config: &AgentConfig) -> Check {
    let name = "overrides.entry_point".to_owned();
    Check {
        option: name.clone(),
        given: name,
        verdict: if config.secure_mode.value {
            Err(Refusal {
                rule: "this agent runs in secure mode".to_owned(),
                hint:
                    "the machine's owner allows it with `secure_mode: false` in launch-config.yaml"
                        .to_owned(),
            })
        } else {
            Ok("the agent does not run in secure mode".to_owned())
        },
    }
}

/// One line for each thing: what a job asks for must not look like the next verdict.
fn print_check(check: &Check) -> Result<()> {
    let given = escaped(&check.given);
    match &check.verdict {
        Ok(rule) => print(format_args!("allowed  {given:<32}  {}", escaped(rule))),
        Err(refusal) => {
            let rule = escaped(&refusal.rule);
            print(format_args!("refused  {given:<32}  {rule}"))?;
            print(format_args!("         hint: {}", escaped(&refusal.hint)))
        }
    }
}

fn as_json(config: &AgentConfig, checks: &[Check]) -> Value {
    let checks_json: Vec<Value> = checks
        .iter()
        .map(|check| {
            let (rule, hint) = match &check.verdict {
                Ok(rule) => (rule, None),
                Err(refusal) => (&refusal.rule, Some(&refusal.hint)),
            };
            json!({
                "option": check.option,
                "given": check.given,
                "allowed": check.is_allowed(),
                "rule": rule,
                "hint": hint,
            })
        })
        .collect();
    json!({
        "allowed": checks.iter().all(Check::is_allowed),
        "preset": config.policy.settled.preset.word(),
        "checks": checks_json,
    })
}
