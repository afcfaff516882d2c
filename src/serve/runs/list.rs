//! The runs of a project, a page at a time. They are listed by their age and not filtered: a client that wants
//! anything else is told so.

use juniper::GraphQLObject;
use serde_json::json;

use super::super::access::{Answer, Context, refuse};
use super::super::pages::{self, PageInfo};
use super::super::scalars::{JsonString, Scalar};
use super::Run;

/// A page of runs.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
pub struct RunConnection {
    edges: Vec<RunEdge>,
    page_info: PageInfo,
    total_count: i32,
}

/// A run on a page.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
struct RunEdge {
    node: Run,
    cursor: String,
}

/// A page of a project's runs.
pub fn of_project(
    context: &Context,
    (entity, project): (&str, &str),
    filters: Option<JsonString>,
    order: Option<String>,
    after: Option<&str>,
    first: Option<i32>,
) -> Answer<RunConnection> {
    let total_count = count(context, (entity, project), filters)?;
    let newest_first = match order.as_deref() {
        None | Some("" | "+created_at" | "created_at") => false,
        Some("-created_at") => true,
        Some(other) => {
            return refuse(format!(
                "this server orders runs by `created_at` or `-created_at`, not by `{}`",
                other.escape_debug()
            ));
        }
    };
    let size = pages::granted(context, first, 50)?;
    let after = pages::after(after)?;
    let found = context
        .queue
        .runs_of_project(entity, project, newest_first, after, size);
    let (found, has_next_page) = context.told(found)?;
    Ok(RunConnection {
        page_info: PageInfo {
            end_cursor: found.last().map(|run| run.id.to_string()),
            has_next_page,
        },
        edges: found
            .into_iter()
            .map(|run| RunEdge {
                cursor: run.id.to_string(),
                node: Run(run),
            })
            .collect(),
        total_count,
    })
}

/// How many runs a project has.
pub fn count(
    context: &Context,
    (entity, project): (&str, &str),
    filters: Option<JsonString>,
) -> Answer<i32> {
    if filters.is_some_and(|filters| filters.0 != json!({}) && !filters.0.is_null()) {
        return refuse("this server does not filter runs");
    }
    let count = context.told(context.queue.run_count(entity, project))?;
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}
