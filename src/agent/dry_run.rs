//! `--dry-run`: decides what would be taken next, and takes nothing.

use std::collections::BTreeMap;

use super::{agent_info, job};
use crate::config::AgentConfig;
use crate::failure::Result;
use crate::launch::plan::Plan;
use crate::launch::spec::LaunchSpec;
use crate::queue::local::LocalQueue;
use crate::queue::{AgentId, RunQueueItem};

/// The plan of the item that the agent would take next; `None` when there is nothing to take.
pub fn next_plan(
    config: &AgentConfig,
    environment: &BTreeMap<String, String>,
    queue: &LocalQueue,
) -> Result<Option<(RunQueueItem, Plan)>> {
    for name in &agent_info(config)?.queues {
        if let Some(item) = queue.peek(name)? {
            let (spec, warnings) = LaunchSpec::parse(&item.spec)?;
            let agent = AgentId("dry-run".to_owned());
            let mut plan = job::plan_of(config, environment, &agent, &item, &spec, None)
                .map_err(|failure| failure.cause)?;
            plan.warnings.splice(..0, warnings);
            return Ok(Some((item, plan)));
        }
    }
    Ok(None)
}
