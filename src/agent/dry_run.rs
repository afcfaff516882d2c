//! `--dry-run`: decides what would be taken next, and takes nothing.

use std::collections::BTreeMap;

use super::agent_info;
use super::decide::{Identity, new_run_id, plan_of};
use crate::config::AgentConfig;
use crate::failure::Result;
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
            let run_id = new_run_id();
            let id = Identity {
                item: &item.id.0,
                queue: &item.queue,
                run_id: &run_id,
                agent: "dry-run",
            };
            let mut plan = plan_of(config, environment, id, &spec)?;
            plan.warnings.splice(..0, warnings);
            return Ok(Some((item, plan)));
        }
    }
    Ok(None)
}
