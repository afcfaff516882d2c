//! `--dry-run`: decides what would be taken next, and takes nothing.

use std::collections::BTreeMap;

use super::decide::{Identity, needs_code, new_run_id, plan_of};
use super::{agent_info, code};
use crate::config::AgentConfig;
use crate::failure::Result;
use crate::host::source::{Scratch, Silence};
use crate::host::stop::Stop;
use crate::launch::job::Code;
use crate::launch::plan::Plan;
use crate::launch::spec::LaunchSpec;
use crate::queue::RunQueueItem;
use crate::queue::local::LocalQueue;

/// The plan of the item that the agent would take next; `None` when there is nothing to take.
pub fn next_plan(
    config: &AgentConfig,
    environment: &BTreeMap<String, String>,
    queue: &LocalQueue,
) -> Result<Option<(RunQueueItem, Plan)>> {
    for name in &agent_info(config)?.queues {
        if let Some(item) = queue.peek(name)? {
            let (spec, warnings) = LaunchSpec::parse(&item.spec)?;
            let code = if needs_code(&spec) {
                Some(fetch(config, environment, queue, &item, &spec)?)
            } else {
                None
            };
            let run_id = new_run_id();
            let id = Identity {
                item: &item.id.0,
                queue: &item.queue,
                run_id: &run_id,
                agent: "dry-run",
            };
            let mut plan = plan_of(config, environment, id, &spec, code.as_ref())
                .map_err(|failure| failure.cause)?;
            plan.warnings.splice(..0, warnings);
            return Ok(Some((item, plan)));
        }
    }
    Ok(None)
}

/// Fetches the code of the job, which says what would run, and forgets it again: the printed paths of it are gone.
fn fetch(
    config: &AgentConfig,
    environment: &BTreeMap<String, String>,
    queue: &LocalQueue,
    item: &RunQueueItem,
    spec: &LaunchSpec,
) -> Result<Code> {
    let scratch = Scratch::make(&config.cache_folder)?;
    let from = code::Fetch {
        artifacts: &queue.artifacts_for_item(&item.id)?,
        cache: &config.cache_folder,
        scratch: &scratch,
        environment,
        network: &config.network.value,
        stop: &Stop::default(),
    };
    code::fetch(spec, &from, &mut Silence)
}
