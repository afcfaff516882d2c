//! What becomes of the lines that a run streamed: pages, samples and tails of its history, and its console log.

use juniper::GraphQLObject;
use serde_json::{Map, Value};

use super::super::access::{Answer, Context, refuse};
use super::super::pages::{self, PageInfo};
use super::super::scalars::{Int64, Json, JsonString, Scalar};
use crate::queue::local::{Line, Stream};

/// The most lines of an answer.
const MOST: usize = 10_000;

/// How many lines a sample has when nobody says.
const USUAL: usize = 500;

/// How many lines are read at once where all are looked through.
const PAGE: usize = 2_000;

/// The lines that a client wants to see again when it goes on with a run.
const TAIL: i64 = 1;

pub fn count(context: &Context, run: i64, stream: Stream) -> Answer<i32> {
    context.budget.time()?;
    let count = context.told(context.queue.line_count(run, stream))?;
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}

pub fn tail(context: &Context, run: i64, stream: Stream) -> Answer<JsonString> {
    context.budget.time()?;
    let count = context.told(context.queue.line_count(run, stream))?;
    let from = count.saturating_sub(TAIL);
    let lines = context.told(context.queue.lines(run, stream, from, MOST))?;
    Ok(JsonString(texts(context, lines)?.into()))
}

/// Some of a stream, evenly spread.
pub fn sample(
    context: &Context,
    run: i64,
    stream: Stream,
    samples: Option<i32>,
) -> Answer<Vec<String>> {
    let most = context.grant(wanted(samples, USUAL))?;
    let lines = context.queue.sampled_lines(run, stream, most);
    texts(context, context.told(lines)?)
}

/// The history of some steps, or a sample of all.
pub fn page(
    context: &Context,
    run: i64,
    min_step: Option<Int64>,
    max_step: Option<Int64>,
    samples: Option<i32>,
) -> Answer<Vec<String>> {
    if min_step.is_none() && max_step.is_none() {
        return sample(context, run, Stream::History, samples);
    }
    let first = min_step.map_or(0, |step| step.0);
    let end = max_step.map_or(i64::MAX, |step| step.0);
    let most = context.grant(wanted(samples, 1_000))?;
    let lines = context.queue.history_between(run, first, end, most);
    texts(context, context.told(lines)?)
}

/// For each spec, lines that have all of its keys, and of them these keys alone; its last step is one of them.
pub fn sampled(context: &Context, run: i64, specs: &[JsonString]) -> Answer<Vec<Json>> {
    if specs.len() > 20 {
        return refuse("at most 20 samples are made at once");
    }
    specs
        .iter()
        .map(|spec| sampled_by(context, run, &spec.0).map(Json))
        .collect()
}

fn sampled_by(context: &Context, run: i64, spec: &Value) -> Answer<Value> {
    let keys = spec["keys"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
    let samples = spec["samples"].as_i64().and_then(|n| i32::try_from(n).ok());
    let most = wanted(samples, USUAL).max(1);
    // All lines are read, however few are wanted.
    context.grant(most.max(USUAL))?;
    let (min, max) = (spec["minStep"].as_i64(), spec["maxStep"].as_i64());
    let mut rows = Vec::new();
    let (mut from, mut seen, mut every) = (0, 0_usize, 1_usize);
    loop {
        context.budget.time()?;
        let lines = context.queue.lines(run, Stream::History, from, PAGE);
        let lines = context.told(lines)?;
        let Some(last) = lines.last() else {
            return Ok(Value::Array(rows));
        };
        from = last.number + 1;
        for line in &lines {
            let Some(row) = row(&line.text, &keys, min, max) else {
                continue;
            };
            if seen.is_multiple_of(every) {
                context.budget.bytes(line.text.len())?;
                rows.push(row);
            }
            seen += 1;
            // Twice as many as wanted: every other one goes, and of what follows as well.
            if rows.len() > most {
                let mut number = 0;
                rows.retain(|_| {
                    number += 1;
                    number % 2 == 1
                });
                every *= 2;
            }
        }
    }
}

fn row(line: &str, keys: &[&str], min: Option<i64>, max: Option<i64>) -> Option<Value> {
    let all: Map<String, Value> = serde_json::from_str(line).ok()?;
    let step = all.get("_step").and_then(Value::as_i64);
    let is_early = min.is_some_and(|min| step.is_none_or(|step| step < min));
    let is_late = max.is_some_and(|max| step.is_none_or(|step| step > max));
    if is_early || is_late {
        return None;
    }
    if keys.is_empty() {
        return Some(Value::Object(all));
    }
    let of_key = |key: &&str| Some(((*key).to_owned(), find(&all, key)?.clone()));
    keys.iter()
        .map(of_key)
        .collect::<Option<Map<_, _>>>()
        .map(Value::Object)
}

/// The value of a key, which may be one within an object: `a.b`.
fn find<'a>(all: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    all.get(key).or_else(|| {
        let (first, rest) = key.split_once('.')?;
        find(all.get(first)?.as_object()?, rest)
    })
}

fn wanted(samples: Option<i32>, usual: usize) -> usize {
    samples
        .map_or(usual, |samples| usize::try_from(samples).unwrap_or(0))
        .min(MOST)
}

fn texts(context: &Context, lines: Vec<Line>) -> Answer<Vec<String>> {
    carry(context, &lines)?;
    Ok(lines.into_iter().map(|line| line.text).collect())
}

fn carry(context: &Context, lines: &[Line]) -> Answer<()> {
    let bytes = lines.iter().map(|line| line.text.len()).sum();
    context.budget.bytes(bytes)
}

/// A history in files of another format, and what of it is not in them yet.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
pub struct ParquetHistory {
    parquet_urls: Vec<String>,
    live_data: Vec<Json>,
}

impl ParquetHistory {
    /// There are no such files.
    pub fn none() -> ParquetHistory {
        ParquetHistory {
            parquet_urls: Vec::new(),
            live_data: Vec::new(),
        }
    }
}

/// A page of a console log.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
pub struct LogLineConnection {
    edges: Vec<LogLineEdge>,
    page_info: PageInfo,
}

/// A line on a page.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
struct LogLineEdge {
    node: LogLine,
    cursor: String,
}

/// A line of a console log.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
struct LogLine {
    number: i32,
    timestamp: Option<String>,
    level: Option<String>,
    label: Option<String>,
    line: String,
}

/// A page of the console log: the last lines when `last` says how many, or else those behind a cursor.
pub fn log_lines(
    context: &Context,
    run: i64,
    first: Option<i32>,
    after: Option<&str>,
    last: Option<i32>,
) -> Answer<LogLineConnection> {
    let count = context.told(context.queue.line_count(run, Stream::Output))?;
    let (from, most) = match last {
        Some(last) => {
            let most = context.grant(wanted(Some(last), 0))?;
            (count.saturating_sub_unsigned(most as u64).max(0), most)
        }
        // Cursors are one more than the number of a line: that of none is 0.
        None => (pages::after(after)?, pages::granted(context, first, 1_000)?),
    };
    let lines = context.queue.lines(run, Stream::Output, from, most);
    let lines = context.told(lines)?;
    carry(context, &lines)?;
    let end = lines.last().map_or(from, |line| line.number + 1);
    Ok(LogLineConnection {
        edges: lines.iter().map(edge).collect(),
        page_info: PageInfo {
            end_cursor: Some(end.to_string()),
            has_next_page: end < count,
        },
    })
}

fn edge(line: &Line) -> LogLineEdge {
    let (level, rest) = match line.text.strip_prefix("ERROR ") {
        Some(rest) => (Some("error"), rest),
        None => (None, line.text.as_str()),
    };
    // The client puts the time in front of each line.
    let (timestamp, level, text) = match rest.split_once(' ') {
        Some((time, text)) if is_time(time) => (Some(time.to_owned()), level, text),
        None if is_time(rest) => (Some(rest.to_owned()), level, ""),
        _ => (None, None, line.text.as_str()),
    };
    LogLineEdge {
        cursor: (line.number + 1).to_string(),
        node: LogLine {
            number: i32::try_from(line.number).unwrap_or(i32::MAX),
            timestamp,
            level: level.map(str::to_owned),
            label: None,
            line: text.to_owned(),
        },
    }
}

fn is_time(word: &str) -> bool {
    word.parse::<jiff::civil::DateTime>().is_ok() && word.contains('T')
}
