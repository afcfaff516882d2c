//! Runs: what they report, as it is read back. How they are made and changed is in `runs/change.rs`, what becomes of
//! their lines in `runs/history.rs`.

mod change;
mod history;
pub mod list;

use juniper::{GraphQLObject, ID, graphql_object};
use serde_json::{Map, Value, json};

use super::access::{Answer, Context, refuse};
use super::artifacts::{self, ArtifactConnection};
use super::files::{self, FileConnection};
use super::ids::{self, Kind};
use super::projects::{self, Project};
use super::scalars::{DateTime, Int64, Json, JsonString, Scalar};
use crate::queue::local::{self, Stream};
use history::{LogLineConnection, ParquetHistory};

pub use change::*;

/// A run of an entity that the caller is a member of.
pub struct Run(pub local::Run);

/// The run of that name in a project.
pub fn named(context: &Context, entity: &str, project: &str, name: &str) -> Answer<Option<Run>> {
    if !context.is_member(entity) {
        return Ok(None);
    }
    let found = context.told(context.queue.run(entity, project, name))?;
    Ok(found.map(Run))
}

/// The run of that number, if it is in one of the caller's entities.
pub fn numbered(context: &Context, number: i64) -> Answer<Option<local::Run>> {
    let found = context.told(context.queue.run_of_number(number))?;
    Ok(found.filter(|run| context.is_member(&run.entity)))
}

/// The run with that id, if it is in one of the caller's entities.
pub fn find(context: &Context, id: &str) -> Answer<local::Run> {
    let number = ids::decode(Kind::Run, id).and_then(|name| name.parse().ok());
    let found = match number {
        Some(number) => numbered(context, number)?,
        None => None,
    };
    found.map_or_else(|| refuse(format!("no run `{}`", id.escape_debug())), Ok)
}

/// Who made a run. Not a `User`: of others than themselves nobody sees more than a name.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
pub struct Author {
    name: String,
    username: String,
}

#[graphql_object(context = Context, scalar = Scalar)]
impl Run {
    fn id(&self) -> ID {
        ids::encode(Kind::Run, self.0.id)
    }

    fn name(&self) -> &str {
        &self.0.name
    }

    fn display_name(&self) -> &str {
        self.0.display_name.as_deref().unwrap_or(&self.0.name)
    }

    fn state(&self) -> &str {
        &self.0.state
    }

    fn stopped(&self) -> bool {
        self.0.stopped
    }

    fn project(&self, context: &Context) -> Answer<Option<Project>> {
        let (project, entity) = (self.0.project.clone(), self.0.entity.clone());
        projects::project(context, Some(project), Some(entity))
    }

    /// A number, as the client wants it.
    fn project_id(&self, context: &Context) -> Answer<Option<i32>> {
        let found = context.told(context.queue.project(&self.0.entity, &self.0.project))?;
        Ok(found.and_then(|project| i32::try_from(project.id).ok()))
    }

    fn user(&self) -> Option<Author> {
        (!self.0.user.is_empty()).then(|| Author {
            name: self.0.user.clone(),
            username: self.0.user.clone(),
        })
    }

    fn config(&self, context: &Context) -> Answer<&str> {
        Ok(context.long(self.0.config.as_deref())?.unwrap_or("{}"))
    }

    fn summary_metrics(&self, context: &Context) -> Answer<&str> {
        Ok(context.long(self.0.summary.as_deref())?.unwrap_or("{}"))
    }

    /// The last that the machine measured.
    fn system_metrics(&self, context: &Context) -> Answer<JsonString> {
        context.budget.time()?;
        let count = context.told(context.queue.line_count(self.0.id, Stream::Events))?;
        let last = context.queue.lines(self.0.id, Stream::Events, count - 1, 1);
        let last = context.told(last)?.pop();
        context.long(last.as_ref().map(|line| line.text.as_str()))?;
        let last =
            last.and_then(|line| serde_json::from_str::<Map<String, Value>>(&line.text).ok());
        let measured = last.unwrap_or_default().into_iter();
        let measured = measured.filter(|(key, _)| key.starts_with("system."));
        Ok(JsonString(Value::Object(measured.collect())))
    }

    fn tags(&self) -> &[String] {
        &self.0.tags
    }

    fn notes(&self, context: &Context) -> Answer<Option<&str>> {
        context.long(self.0.notes.as_deref())
    }

    fn description(&self, context: &Context) -> Answer<Option<&str>> {
        context.long(self.0.description.as_deref())
    }

    fn group(&self) -> Option<&str> {
        self.0.group.as_deref()
    }

    fn job_type(&self) -> Option<&str> {
        self.0.job_type.as_deref()
    }

    /// There are no sweeps here.
    fn sweep_name() -> Option<String> {
        None
    }

    fn commit(&self) -> Option<&str> {
        self.0.commit.as_deref()
    }

    fn exit_code(&self) -> Option<i32> {
        self.0.exit_code
    }

    fn read_only() -> bool {
        false
    }

    fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    fn heartbeat_at(&self) -> DateTime {
        DateTime(self.0.heartbeat_at)
    }

    /// A client that begins a run anew writes its history behind these; one that resumes it has asked before.
    fn history_line_count(&self, context: &Context) -> Answer<i32> {
        if self.0.is_blank {
            return Ok(0);
        }
        history::count(context, self.0.id, Stream::History)
    }

    fn events_line_count(&self, context: &Context) -> Answer<i32> {
        history::count(context, self.0.id, Stream::Events)
    }

    fn log_line_count(&self, context: &Context) -> Answer<i32> {
        history::count(context, self.0.id, Stream::Output)
    }

    fn history_tail(&self, context: &Context) -> Answer<JsonString> {
        history::tail(context, self.0.id, Stream::History)
    }

    fn events_tail(&self, context: &Context) -> Answer<JsonString> {
        history::tail(context, self.0.id, Stream::Events)
    }

    /// Of the keys only the last step is known without reading all lines.
    fn history_keys(&self, context: &Context) -> Answer<Option<Json>> {
        let last = context.told(context.queue.last_step(self.0.id))?;
        Ok(last.map(|last| Json(json!({"lastStep": last}))))
    }

    /// The client's own part of the config.
    fn wandb_config(&self, context: &Context, keys: Option<Vec<String>>) -> Answer<JsonString> {
        context.long(self.0.config.as_deref())?;
        let config: Value = self.0.config.as_deref().map_or(Value::Null, |text| {
            serde_json::from_str(text).unwrap_or_default()
        });
        let own = config["_wandb"]["value"].as_object().cloned();
        let mut own = own.unwrap_or_default();
        if let Some(keys) = keys {
            own.retain(|key, _| keys.contains(key));
        }
        Ok(JsonString(Value::Object(own)))
    }

    /// Lines of JSON: those of the steps from one on and before another, or else some of all.
    fn history(
        &self,
        context: &Context,
        min_step: Option<Int64>,
        max_step: Option<Int64>,
        samples: Option<i32>,
    ) -> Answer<Vec<String>> {
        history::page(context, self.0.id, min_step, max_step, samples)
    }

    fn events(&self, context: &Context, samples: Option<i32>) -> Answer<Vec<String>> {
        history::sample(context, self.0.id, Stream::Events, samples)
    }

    fn sampled_history(&self, context: &Context, specs: Vec<JsonString>) -> Answer<Vec<Json>> {
        history::sampled(context, self.0.id, &specs)
    }

    /// All of a history is live here: none of it is in files of another format.
    fn parquet_history(live_keys: Option<Vec<String>>) -> ParquetHistory {
        let _ = live_keys;
        ParquetHistory::none()
    }

    fn log_lines(
        &self,
        context: &Context,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        use_improved_pagination: Option<bool>,
    ) -> Answer<LogLineConnection> {
        let _ = use_improved_pagination;
        history::log_lines(context, self.0.id, first, after.as_deref(), last)
    }

    fn file_count(&self, context: &Context) -> Answer<i32> {
        context.budget.time()?;
        let count = context.told(context.queue.run_file_count(self.0.id))?;
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }

    fn files(
        &self,
        context: &Context,
        names: Option<Vec<Option<String>>>,
        after: Option<String>,
        first: Option<i32>,
        pattern: Option<String>,
    ) -> Answer<FileConnection> {
        let names = names.unwrap_or_default().into_iter().flatten().collect();
        files::of_run(context, self.0.id, names, pattern, after.as_deref(), first)
    }

    fn output_artifacts(
        &self,
        context: &Context,
        after: Option<String>,
        first: Option<i32>,
    ) -> Answer<ArtifactConnection> {
        artifacts::of_run(context, self.0.id, false, after.as_deref(), first)
    }

    fn input_artifacts(
        &self,
        context: &Context,
        after: Option<String>,
        first: Option<i32>,
    ) -> Answer<ArtifactConnection> {
        artifacts::of_run(context, self.0.id, true, after.as_deref(), first)
    }
}

/// W&B's own rule for the names of runs.
pub fn check_name(name: &str) -> Answer<()> {
    let is_bad = |letter: char| letter.is_control() || "/\\#?%:".contains(letter);
    if !name.is_empty() && name.chars().count() <= 128 && !name.contains(is_bad) {
        return Ok(());
    }
    refuse(format!(
        "`{}` cannot be the name of a run: it has up to 128 characters, and none of `/ \\ # ? % :`",
        name.escape_debug()
    ))
}
