//! Items in hand, kept on disk, so that a restart loses none and doubles none. One file an item, for the agent's user
//! alone; what is in it is written before what it says is done. It decides nothing and talks to nobody.
//!
//! A spec is kept whole, with the key of its submitter where it carries one: a job that begins again after a restart
//! must run as the person who sent it, and the key is nowhere else. The file goes when the job has ended. The agent's
//! own key is in no file of the journal.

mod slot;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::failure::{Error, Failure, Kind, Result, Stage};
use crate::host::files;
use crate::launch::plan::Removal;
use crate::queue::{Ended, Exit, Outcome, StopReason};
pub use slot::Journal;

/// The version of an entry's file. Older ones are read for ever; a newer one is left where it is.
const VERSION: u64 = 1;

/// What is known of one item in hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The item's name in its queue.
    pub item: String,
    /// The queue.
    pub queue: String,
    /// The launch spec as it was taken.
    pub spec: Value,
    /// The agent whose item it is, by the name that the queue gave it. While it is taken over, several: nobody knows
    /// how far that came.
    pub agents: Vec<String>,
    /// The run that the item becomes.
    pub run_id: String,
    /// The how manieth try this is: what docker or the machine interrupted begins again.
    pub attempt: u32,
    /// How far it came.
    pub step: Step,
    /// What was started for it, as long as that may be there.
    pub started: Option<Started>,
}

/// How far an item came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It was popped, and may be acknowledged.
    Taken,
    /// It is ours; its image is being provided.
    Preparing,
    /// Its command has begun, or is about to.
    Running,
    /// Docker or the machine interrupted it, and it begins again: this is said of it once what is left is cleared up.
    Again(String),
    /// It has ended, and the queue may not know yet.
    Ended(Report),
}

/// What was started for an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The container; `None` is a process of this machine.
    pub container: Option<Container>,
    /// When it was started, or just before.
    pub at: Timestamp,
    /// The machine's boot in which it was.
    pub boot: String,
    /// Where in the job's log the output of this try begins, in bytes of the whole output.
    pub log_from: u64,
    /// The engine was seen to have been started anew under the container, which did not outlive that. Kept, because the
    /// engine's memory, from which this is known, is short.
    #[serde(default)]
    pub engine_restarted: bool,
}

/// A container, as far as a restarted agent needs to know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Where docker writes its id.
    pub cidfile: PathBuf,
    /// Who removes it: `docker`, `agent` or `nobody`.
    #[serde(with = "removal")]
    pub removal: Removal,
}

/// An end, as it lies on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    outcome: Word,
    seconds: Option<f64>,
    details: String,
    /// Nobody stopped it, and docker ran it: then `--rm` has removed its container.
    pub by_itself: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Exited {
        code: i32,
        oom_killed: bool,
    },
    Stopped(StopReason),
    Failed {
        stage: String,
        message: String,
        hint: Option<String>,
    },
}

impl Report {
    /// An end to be kept.
    pub fn new(ended: &Ended, by_itself: bool) -> Report {
        Report {
            outcome: match &ended.outcome {
                Outcome::Exited(exit) => Word::Exited {
                    code: exit.code,
                    oom_killed: exit.oom_killed,
                },
                Outcome::Stopped(reason) => Word::Stopped(*reason),
                Outcome::Failed(Failure { stage, cause }) => Word::Failed {
                    stage: stage.as_str().to_owned(),
                    message: cause.message.clone(),
                    hint: cause.hint.clone(),
                },
            },
            seconds: ended.duration.map(|duration| duration.as_secs_f64()),
            details: ended.details.clone(),
            by_itself,
        }
    }

    /// The end as it was.
    pub fn ended(&self) -> Ended {
        Ended {
            outcome: match &self.outcome {
                Word::Exited { code, oom_killed } => Outcome::Exited(Exit {
                    code: *code,
                    oom_killed: *oom_killed,
                }),
                Word::Stopped(reason) => Outcome::Stopped(*reason),
                Word::Failed {
                    stage,
                    message,
                    hint,
                } => Outcome::Failed(Failure {
                    stage: Stage::named(stage).unwrap_or(Stage::Run),
                    cause: Error {
                        kind: Kind::Input,
                        message: message.clone(),
                        hint: hint.clone(),
                    },
                }),
            },
            duration: self
                .seconds
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            details: self.details.clone(),
        }
    }
}

mod removal {
    use super::Removal;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const WORDS: [(Removal, &str); 3] = [
        (Removal::ByDocker, "docker"),
        (Removal::ByAgent, "agent"),
        (Removal::Kept, "nobody"),
    ];

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde calls it with a reference"
    )]
    pub fn serialize<S: Serializer>(removal: &Removal, serializer: S) -> Result<S::Ok, S::Error> {
        let word = WORDS.iter().find(|(known, _)| known == removal);
        serializer.serialize_str(word.map_or("", |(_, word)| word))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Removal, D::Error> {
        let text = String::deserialize(deserializer)?;
        let known = WORDS.iter().find(|(_, word)| *word == text);
        known
            .map(|(removal, _)| *removal)
            .ok_or_else(|| D::Error::custom(format!("nobody called `{text}` removes containers")))
    }
}

/// Where the entry of an item is. The hash keeps items apart whose names differ in what a file's name cannot hold.
fn path_of(folder: &Path, item: &str) -> PathBuf {
    let hash = Sha256::digest(item.as_bytes());
    let digits = u32::from_be_bytes(std::array::from_fn(|index| hash[index]));
    let name: String = item
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(60)
        .collect();
    folder.join(format!("{name}-{digits:08x}.json"))
}

fn write(folder: &Path, entry: &Entry) -> Result<()> {
    let text = json!({"version": VERSION, "entry": entry}).to_string();
    files::write_whole(&path_of(folder, &entry.item), text.as_bytes())
}

/// All entries of a folder, and a sentence about each file that is not understood.
fn read_all(folder: &Path) -> Result<(Vec<Entry>, Vec<Error>)> {
    let refused = |cause| {
        Error::system(
            format_args!("cannot read the folder {}", folder.display()),
            cause,
        )
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(refused)? {
        let path = entry.map_err(refused)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            paths.push(path);
        }
    }
    paths.sort();
    let (mut entries, mut troubles) = (Vec::new(), Vec::new());
    for path in paths {
        match read(&path) {
            Ok(entry) => entries.push(entry),
            Err(error) => troubles.push(error),
        }
    }
    Ok((entries, troubles))
}

fn read(path: &Path) -> Result<Entry> {
    let wrong = |what: String| {
        Error::new(Kind::System, format!("{}: {what}", path.display())).hint(
            "the file stays; look after its item with `docker ps --filter label=launch-agent.item`, then remove it",
        )
    };
    let text = fs::read_to_string(path).map_err(|cause| wrong(cause.to_string()))?;
    let mut file: Value = serde_json::from_str(&text)
        .map_err(|cause| wrong(format!("not an entry of the journal: {cause}")))?;
    match file["version"].as_u64() {
        Some(VERSION) => {}
        version => {
            let version = version.map_or("none".to_owned(), |version| version.to_string());
            return Err(wrong(format!(
                "an item in hand was kept by another launch-agent (version {version}; this one knows {VERSION})"
            ))
            .hint("update launch-agent; until then the item is left as it is"));
        }
    }
    serde_json::from_value(file["entry"].take())
        .map_err(|cause| wrong(format!("not an entry of the journal: {cause}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(item: &str) -> Entry {
        Entry {
            item: item.to_owned(),
            queue: "q".to_owned(),
            spec: json!({"project": "p", "docker": {"docker_image": "i:1"}}),
            agents: vec!["a1".to_owned()],
            run_id: "r1".to_owned(),
            attempt: 2,
            step: Step::Running,
            started: Some(Started {
                container: Some(Container {
                    name: "launch-r1-7".to_owned(),
                    cidfile: PathBuf::from("/run/7.cid"),
                    removal: Removal::ByDocker,
                }),
                at: "2026-11-22T05:00:00Z".parse().expect("a time"),
                boot: "b1".to_owned(),
                log_from: 120,
                engine_restarted: false,
            }),
        }
    }

    fn open(folder: &Path, queues: &[&str]) -> Journal {
        let queues: Vec<String> = queues.iter().map(|queue| (*queue).to_owned()).collect();
        Journal::open(folder, "local /queue.db", &queues).expect("a journal")
    }

    #[test]
    fn what_is_kept_is_there_after_a_restart_and_goes_when_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = open(folder.path(), &["q"]);
        let name = journal.name().to_owned();
        for item in ["7", "a/b", "a+b"] {
            journal.keep(&entry(item)).expect("kept");
        }
        drop(journal);
        let journal = open(folder.path(), &["q"]);
        assert_eq!(journal.name(), name);
        journal.forget("a/b").expect("forgotten");
        journal.forget("never there").expect("no error");
        let (mut entries, troubles) = journal.entries().expect("readable");
        entries.sort_by(|a, b| a.item.cmp(&b.item));
        assert_eq!(entries, [entry("7"), entry("a+b")]);
        assert!(troubles.is_empty());
    }

    #[test]
    fn two_agents_have_two_journals_and_each_gets_its_own_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (a, b) = (open(folder.path(), &["a"]), open(folder.path(), &["b"]));
        let names = (a.name().to_owned(), b.name().to_owned());
        assert_ne!(names.0, names.1);
        drop((a, b));
        let (b, a) = (open(folder.path(), &["b"]), open(folder.path(), &["a"]));
        assert_eq!((a.name(), b.name()), (names.0.as_str(), names.1.as_str()));
        // Other queues: what is in hand is not forgotten.
        b.keep(&entry("7")).expect("kept");
        drop((a, b));
        assert_eq!(open(folder.path(), &["c"]).name(), names.1);
        // Items of another server are another agent's.
        let other = Journal::open(folder.path(), "wandb", &["b".to_owned()]).expect("a journal");
        assert!(other.name() != names.0 && other.name() != names.1);
    }

    /// The first version of an entry. It is read for ever.
    #[test]
    fn an_entry_of_version_1_is_read() {
        let path = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/journal-v1.json"
        ));
        assert_eq!(read(path).expect("an entry"), entry("7"));
    }

    #[test]
    fn every_step_is_read_as_it_was_written() {
        let exited = Outcome::Exited(Exit {
            code: 137,
            oom_killed: true,
        });
        let stopped = Outcome::Stopped(StopReason::Requested);
        let failed = Outcome::Failed(Failure {
            stage: Stage::Build,
            cause: Error::input("no such image").hint("check its name"),
        });
        for outcome in [exited, stopped, failed] {
            let ended = Ended {
                outcome,
                duration: Some(Duration::from_millis(1500)),
                details: "the last line".to_owned(),
            };
            let step = Step::Ended(Report::new(&ended, true));
            let text = serde_json::to_string(&step).expect("JSON");
            let Step::Ended(report) = serde_json::from_str(&text).expect("a step") else {
                panic!("{text}");
            };
            assert_eq!(report.ended(), ended);
        }
    }

    #[test]
    fn what_is_not_understood_is_said_and_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = open(folder.path(), &["q"]);
        journal.keep(&entry("7")).expect("kept");
        let items = folder.path().join("agents/0/items");
        for (name, text) in [
            ("1.json", "{\"version\":2}"),
            ("2.json", "{"),
            ("3.json", "[]"),
        ] {
            fs::write(items.join(name), text).expect("written");
        }
        let (entries, troubles) = journal.entries().expect("readable");
        assert_eq!(entries, [entry("7")]);
        let said: Vec<String> = troubles.iter().map(Error::to_string).collect();
        assert!(said[0].contains("1.json: an item in hand was kept by another launch-agent (version 2; this one knows 1)"), "{said:?}");
        assert!(
            said[1].contains("2.json") && said[2].contains("3.json"),
            "{said:?}"
        );
        assert!(items.join("1.json").exists());
    }
}
