//! `POST /files/ENTITY/PROJECT/RUN/file_stream`: what a run reports while it lives, and how it learns that somebody
//! asked it to stop.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::exchange::Response;
use super::scalars::{count_values, strict};
use super::store::Store;
use crate::queue::local::{Caller, Chunk, LocalQueue, Post, Posted, Stream};

/// The largest report: the client gathers for 15 seconds, and the largest one seen had 3.3 MB.
pub const BYTES: u64 = 32 * 1024 * 1024;

/// The most values of a report: each of its files may be full.
const MOST_REPORTED: usize = 4 * LINES;

/// No line has a greater number.
const LAST_LINE: i64 = 1 << 48;

/// Which run reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    entity: String,
    project: String,
    run: String,
}

impl Place {
    /// The run in a path, if it is one of a file stream.
    pub fn read(path: &str) -> Option<Place> {
        let mut parts = path.strip_prefix("/files/")?.split('/');
        let mut next = || parts.next().and_then(decode);
        let place = Place {
            entity: next()?,
            project: next()?,
            run: next()?,
        };
        (next()? == "file_stream" && parts.next().is_none()).then_some(place)
    }

    /// May this caller report for it?
    pub fn is_of(&self, caller: &Caller) -> bool {
        caller.entities.contains(&self.entity)
    }
}

/// A part of a path without its percent signs; none when they do not stand for text.
fn decode(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// The most lines of a file in a report. The client sends at most 10 MB at once, and puts a time before each line.
const LINES: usize = 500_000;

/// A report. Unknown keys (`uploaded`, `preempting`, `dropped`) have no effect.
#[derive(Deserialize)]
struct Report {
    #[serde(default)]
    files: BTreeMap<String, File>,
    complete: Option<bool>,
    exitcode: Option<i32>,
}

/// Lines of a file from a number on.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    offset: i64,
    #[serde(default)]
    content: Lines,
}

/// Lines, counted as they are read: each empty one would take ten times its place in the body.
#[derive(Default)]
struct Lines(Vec<String>);

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Lines, D::Error> {
        deserializer.deserialize_seq(ReadLines)
    }
}

struct ReadLines;

impl<'de> Visitor<'de> for ReadLines {
    type Value = Lines;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "a list of lines")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Lines, A::Error> {
        let mut lines = Vec::new();
        while let Some(line) = list.next_element()? {
            if lines.len() == LINES {
                return Err(A::Error::custom(format_args!(
                    "more than {LINES} lines of one file"
                )));
            }
            lines.push(line);
        }
        Ok(Lines(lines))
    }
}

/// Writes down what a run reports.
pub fn answer(queue: &LocalQueue, store: &Store, place: &Place, body: &[u8]) -> Response {
    if count_values(body) > MOST_REPORTED {
        let refusal = format!("the report has more than {MOST_REPORTED} values");
        return Response::error(413, &refusal);
    }
    let post = match serde_json::from_slice::<Report>(body) {
        Err(error) => Err(format!("the body is not a report: {error}")),
        Ok(report) => post(report),
    };
    let post = match post {
        Ok(post) => post,
        Err(message) => return Response::error(400, &message),
    };
    let name = (
        place.entity.as_str(),
        place.project.as_str(),
        place.run.as_str(),
    );
    match queue.post_to_run(name, &post, store.quota()) {
        Ok(Posted::Done { stopped }) => Response::json(
            200,
            &json!({"exitcode": null, "limits": {}, "stopped": stopped}),
        ),
        Ok(Posted::NoRun) => Response::error(404, "there is no such run"),
        Ok(Posted::Full) => store.full(),
        Err(error) => {
            log::error!("{error}");
            Response::error(503, "the server cannot read or write its files")
        }
    }
}

fn post(report: Report) -> Result<Post, String> {
    let mut post = Post::default();
    for (name, file) in report.files {
        if !(0..LAST_LINE).contains(&file.offset) {
            let shown = name.escape_debug();
            return Err(format!("`{shown}` has no line {}", file.offset));
        }
        let (offset, mut lines) = (file.offset, file.content.0);
        let stream = match name.as_str() {
            "wandb-summary.json" => {
                post.summary = summary(&lines)?.or(post.summary);
                continue;
            }
            "wandb-history.jsonl" => Stream::History,
            "wandb-events.jsonl" => Stream::Events,
            "output.log" => Stream::Output,
            other => {
                return Err(format!(
                    "`{}` is not a file that a run streams",
                    other.escape_debug()
                ));
            }
        };
        if stream != Stream::Output {
            for line in &mut lines {
                if let Cow::Owned(text) = strict(line) {
                    *line = text;
                }
            }
        }
        post.chunks.push(Chunk {
            stream,
            offset,
            lines,
        });
    }
    if report.complete == Some(true) {
        post.exit_code = Some(report.exitcode.unwrap_or(0));
    }
    Ok(post)
}

/// The last one counts: each is the whole summary.
fn summary(lines: &[String]) -> Result<Option<String>, String> {
    let Some(last) = lines.last() else {
        return Ok(None);
    };
    let value: Value = serde_json::from_str(&strict(last))
        .map_err(|error| format!("`wandb-summary.json` is not JSON: {error}"))?;
    if !value.is_object() {
        return Err("`wandb-summary.json` is not an object".to_owned());
    }
    Ok(Some(value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_of_a_path_is_found_whatever_its_name() {
        let place = Place::read("/files/team/my%20project/r%2Bn/file_stream").expect("a place");
        assert_eq!(
            (&*place.entity, &*place.project, &*place.run),
            ("team", "my project", "r+n")
        );
        for other in [
            "/files/a/b/c",
            "/files/a/b/c/file_stream/d",
            "/files/a/b/c/other",
            "/files/%zz/b/c/file_stream",
            "/files/%ff/b/c/file_stream",
            "/files/%4/b/c/file_stream",
            "/x/a/b/c/file_stream",
        ] {
            assert_eq!(Place::read(other), None, "{other}");
        }
    }

    #[test]
    fn a_report_with_lines_where_none_can_be_is_refused() {
        let read = |value: Value| {
            serde_json::from_value(value)
                .map_err(|error| error.to_string())
                .and_then(post)
        };
        for file in [
            json!({"output.log": {"offset": -1, "content": []}}),
            json!({"output.log": {"offset": i64::MAX, "content": ["x"]}}),
            json!({"output.log": {"offset": 0, "content": [1]}}),
            json!({"wandb-summary.json": {"offset": 0, "content": ["[]"]}}),
            json!({"../x": {"offset": 0, "content": []}}),
        ] {
            let shown = file.to_string();
            assert!(read(json!({"files": file})).is_err(), "{shown}");
        }
        let many =
            |count: usize| read(json!({"files": {"output.log": {"content": vec![""; count]}}}));
        assert!(many(LINES).is_ok());
        let told = many(LINES + 1).expect_err("too many");
        assert!(told.contains("more than 500000 lines"), "{told}");
        let ended = read(json!({"complete": true, "exitcode": 3})).expect("a post");
        assert_eq!(ended.exit_code, Some(3));
        assert_eq!(
            read(json!({"complete": false})).expect("a post").exit_code,
            None
        );
    }
}
