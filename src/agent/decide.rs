//! Where a job's plan comes from, for the agent and for `--dry-run`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::AgentConfig;
use crate::failure::{AtStage, Failure, Result, Stage};
use crate::host::machine::machine;
use crate::host::{engine, files, registry, runner, strays};
use crate::launch::build;
use crate::launch::command::Secret;
use crate::launch::job::Code;
use crate::launch::plan::{self, Context, Plan};
use crate::launch::policy::Guard;
use crate::launch::spec::LaunchSpec;
use crate::launch::transfer::Transfers;

/// What a job is known by.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The item.
    pub item: &'a str,
    /// Its queue.
    pub queue: &'a str,
    /// The run that it becomes, when its spec names none.
    pub run_id: &'a str,
    /// The agent, by its name on this machine.
    pub agent: &'a str,
}

/// Must a job's artifact be read before it is known what runs?
pub fn needs_code(spec: &LaunchSpec) -> bool {
    let is_named = spec.job.as_ref().is_some_and(|job| !job.is_empty());
    is_named && spec.image.is_none() && !spec.is_scheduler
}

/// Everything that is decided about an item, with nothing done. `code` is what was fetched for its job.
pub fn plan_of(
    config: &AgentConfig,
    environment: &BTreeMap<String, String>,
    id: Identity<'_>,
    spec: &LaunchSpec,
    code: Option<&Code>,
) -> Result<Plan, Failure> {
    let cidfile = cidfile(config, id).at(Stage::Agent)?;
    let server = config.server();
    let context = Context {
        item: id.item,
        queue: id.queue,
        agent: id.agent,
        queue_entity: config.entity.value.as_deref(),
        generated_run_id: id.run_id,
        server: server.as_ref(),
        environment,
        env_macros: &config.env_macros.value,
        secure_mode: config.secure_mode.value,
        guard: Guard {
            policy: &config.policy.settled,
            machine: machine(),
        },
        cidfile: &cidfile,
        network: &config.network.value,
        transfers: &transfers(config, environment),
    };
    if spec.is_scheduler {
        let mut plan = plan::scheduler(spec, &context).at(Stage::Agent)?;
        let mark = runner::process_mark(id.agent, id.item);
        plan.run
            .env
            .insert(strays::VARIABLE.to_owned(), Secret::new(mark));
        return Ok(plan);
    }
    let folder = config.builds_folder();
    let settings = config.build_settings(&engine::has_buildx, &folder);
    // What is wrong with a spec is the agent's to say; what is wrong with code is about its image.
    let stage = code.map_or(Stage::Agent, |_| Stage::Build);
    let program = build::decide(spec, code, &settings).at(stage)?;
    let launch = plan::resolve(spec, &program, &context, &engine::run_help).at(Stage::Agent)?;
    Ok(plan::plan(&launch, &context))
}

/// How images come to this machine and leave it.
pub fn transfers(config: &AgentConfig, environment: &BTreeMap<String, String>) -> Transfers {
    let destination = config.destination.as_ref();
    let login = destination.and_then(|to| registry::login(to, &config.state_folder, environment));
    config.transfers(login.map(|login| login.through(&config.network.value)))
}

/// Where docker writes the container's id: one file for each agent and item, so that two never share one, and an agent
/// that was started again knows it.
fn cidfile(config: &AgentConfig, id: Identity<'_>) -> Result<PathBuf> {
    let folder = config.state_folder.join("run");
    files::make_folder(&folder)?;
    Ok(folder.join(format!("{}-{}.cid", id.agent, file_name(id.item))))
}

/// An item's id as part of a file's name: ids are opaque, and may hold `/`.
pub fn file_name(id: &str) -> String {
    id.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '=' {
                c
            } else {
                '_'
            }
        })
        .collect()
}

/// A name for a run as W&B makes them: eight of `[a-z0-9]`.
pub fn new_run_id() -> String {
    let alphabet = b"abcdefghijklmnopqrstuvwxyz0123456789";
    (0..8)
        .map(|_| char::from(alphabet[fastrand::usize(..alphabet.len())]))
        .collect()
}
