//! The file itself: its versions, its permissions, and what a machine can do to it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use launch_agent::failure::{Error, Kind};
use launch_agent::queue::local::{LocalQueue, Times};
use launch_agent::queue::{ItemId, ItemState, Priority};
use rusqlite::Connection;

use super::contract::Admin;
use super::local::open;

fn refused(path: &Path) -> Error {
    let times = Times {
        busy: Duration::from_millis(50),
        ..Times::default()
    };
    match LocalQueue::open_with(path, times) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

/// A folder, and a queue file in it that nobody has open.
fn closed() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let queue = open(folder.path(), Times::default());
    for _ in 0..200 {
        Admin::push(&queue, "plain", "a:1", None);
    }
    let path = queue.path().to_owned();
    drop(queue);
    (folder, path)
}

/// A queue of a sample that is kept for ever: whatever comes later must read it.
fn sample(folder: &Path, sql: &str) -> LocalQueue {
    let path = folder.join("queue.db");
    Connection::open(&path)
        .expect("a database")
        .execute_batch(sql)
        .expect("the sample");
    LocalQueue::open(&path).expect("a queue")
}

#[test]
fn a_database_of_the_first_version_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let queue = sample(folder.path(), include_str!("../fixtures/queue-v1.sql"));

    let [train] = queue.queues().expect("queues").try_into().expect("one");
    assert_eq!(train.definition.name, "train");
    assert_eq!(train.definition.config["shm-size"], "{{shm}}");
    assert!(train.definition.prioritization && !train.definition.paused);
    assert_eq!((train.pending, train.running, train.ended), (1, 1, 3));
    let items = queue.items(None).expect("items");
    let states: Vec<_> = items
        .iter()
        .map(|item| (item.id.0.clone(), item.state.word()))
        .collect();
    let expected = [
        ("1", "FINISHED"),
        ("2", "FAILED"),
        ("3", "STOPPED"),
        ("4", "CLAIMED"),
        ("5", "PENDING"),
    ];
    assert_eq!(states, expected.map(|(id, word)| (id.to_owned(), word)));
    let failed = queue.item(&ItemId("2".to_owned())).expect("an item");
    assert!(
        matches!(&failed.state, ItemState::Failed { message, .. } if message.contains("no such image"))
    );
    assert_eq!(failed.priority, Some(Priority::High));
    assert_eq!(
        failed.warnings,
        ["`resource_args.kubernetes` is not for docker: left out"]
    );
    assert_eq!(Admin::push(&queue, "train", "a:1", None).0, "6");
}

#[test]
fn what_was_made_before_there_were_entities_belongs_to_local() {
    let folder = tempfile::tempdir().expect("a folder");
    let queue = sample(folder.path(), include_str!("../fixtures/queue-v1.sql"));
    let names = |entity: &str| -> Vec<String> {
        let queues = queue.queues_of(entity).expect("queues").into_iter();
        queues.map(|status| status.definition.name).collect()
    };
    assert_eq!(names("local"), ["train"]);
    assert_eq!(names("lab"), [""; 0]);
    assert!(
        queue
            .agents()
            .expect("agents")
            .iter()
            .all(|agent| agent.entity == "local" && !agent.stop_polling)
    );
    assert_eq!(queue.keys().expect("keys"), []);
}

#[test]
fn a_database_of_the_second_version_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let queue = sample(folder.path(), include_str!("../fixtures/queue-v2.sql"));
    let key = format!("{}c0de", "5".repeat(36));
    let ada = queue.caller(&key).expect("an answer").expect("a caller");
    assert_eq!((ada.user.as_str(), ada.entities.len()), ("ada", 2));
    let [gpu] = queue
        .queues_of("lab")
        .expect("queues")
        .try_into()
        .expect("one");
    assert_eq!(gpu.definition.name, "lab/gpu");
    assert_eq!(gpu.created_by, "ada");
    assert_eq!((gpu.pending, gpu.running, gpu.ended), (0, 1, 2));
    assert_eq!(queue.queues_of("local").expect("queues").len(), 1);
    let run = queue.run("lab", "Vision", "k2j4h6g8").expect("an answer");
    assert_eq!(run.expect("a run").state, "finished");
    let next = Admin::push(&queue, "lab/gpu", "a:1", None);
    assert_eq!(next.0, "9");
}

#[test]
fn a_newer_database_is_refused_and_left_as_it_is() {
    let (_folder, path) = closed();
    let version = |set: Option<i64>| {
        let database = Connection::open(&path).expect("a database");
        if let Some(version) = set {
            database
                .pragma_update(None, "user_version", version)
                .expect("set");
        }
        database
            .pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
            .expect("a version")
    };
    version(Some(99));
    let error = refused(&path);
    assert_eq!(error.kind, Kind::Queue);
    assert!(
        error
            .message
            .contains("written by a newer launch-agent (version 99"),
        "{error}"
    );
    assert_eq!(version(None), 99);
}

#[test]
fn what_is_not_a_queue_database_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "just some notes\n".repeat(100)).expect("written");
    let error = refused(&path);
    assert_eq!(
        error.message,
        format!("{} is not a queue database", path.display())
    );

    let path = folder.path().join("other.db");
    Connection::open(&path)
        .expect("a database")
        .execute_batch("CREATE TABLE songs (title TEXT)")
        .expect("made");
    let error = refused(&path);
    assert_eq!(
        error.message,
        format!("{} is a database of another program", path.display())
    );

    let error = refused(folder.path());
    assert!(
        error.message.ends_with("is a folder, not a queue database"),
        "{error}"
    );
    let error = refused(&path.join("queue.db"));
    assert!(
        error.message.contains("cannot make the queue database"),
        "{error}"
    );
}

#[test]
fn a_locked_database_is_told_after_the_wait() {
    let (_folder, path) = closed();
    let other = Connection::open(&path).expect("a database");
    other
        .execute_batch("BEGIN IMMEDIATE; UPDATE queues SET paused = 1")
        .expect("locked");
    let times = Times {
        busy: Duration::from_millis(50),
        ..Times::default()
    };
    let queue = LocalQueue::open_with(&path, times).expect("reading goes on");
    assert_eq!(queue.items(None).expect("items").len(), 200);
    let error = queue.set_paused("plain", true).expect_err("locked");
    assert_eq!(error.kind, Kind::Queue);
    assert_eq!(
        error.message,
        format!("{} is locked by another process", path.display())
    );
    drop(other);
    assert!(!queue.queue("plain").expect("a queue").definition.paused);
}

#[test]
fn a_damaged_database_is_told_as_such() {
    let (_folder, path) = closed();
    let mut bytes = std::fs::read(&path).expect("read");
    for byte in bytes.iter_mut().skip(4_096) {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, bytes).expect("written");
    let error = LocalQueue::open(&path)
        .and_then(|queue| queue.items(None).map(drop))
        .expect_err("damaged");
    assert_eq!(error.kind, Kind::Queue);
    assert!(error.message.contains("is damaged"), "{error}");
    assert!(error.hint.expect("a hint").contains(".recover"));
}

#[test]
fn a_database_that_cannot_be_written_is_told_as_such() {
    let (folder, path) = closed();
    let readonly = |mode| {
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode))
            .expect("set");
    };
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).expect("set");
    readonly(0o500);
    let outcome = LocalQueue::open(&path).and_then(|queue| queue.set_paused("plain", true));
    let root = std::fs::write(folder.path().join("probe"), "").is_ok();
    readonly(0o700);
    match outcome {
        // No permission stops the superuser.
        Ok(()) => assert!(root),
        Err(error) => {
            assert_eq!(error.kind, Kind::Queue);
            assert!(
                error.hint.expect("a hint").contains("writable"),
                "{}",
                error.message
            );
        }
    }
}

#[test]
fn the_file_and_its_folders_are_for_their_owner_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let deep = folder.path().join("state/launch-agent");
    std::fs::create_dir(folder.path().join("state")).expect("made");
    let queue = open(&deep, Times::default());
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&deep), 0o700);
    for file in ["queue.db", "queue.db-wal", "queue.db-shm"] {
        assert_eq!(mode(&deep.join(file)), 0o600, "{file}");
    }
    let logs = queue.logs_folder().expect("a folder");
    assert_eq!(logs, deep.join("queue.logs"));
    assert_eq!(mode(&logs), 0o700);
}

#[test]
fn many_can_open_a_new_file_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new/queue.db");
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| LocalQueue::open(&path).map(drop)))
            .collect();
        for thread in threads {
            thread.join().expect("a thread").expect("a queue");
        }
    });
    let mode: String = Connection::open(&path)
        .expect("a database")
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .expect("a mode");
    assert_eq!(mode, "wal");
}

#[test]
fn looking_at_a_queue_that_is_not_there_makes_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.db");
    let error = LocalQueue::open_existing(&path)
        .err()
        .expect("nothing there");
    assert_eq!(error.kind, Kind::NotFound);
    assert_eq!(
        error.message,
        format!("no queues yet in {}", path.display())
    );
    assert!(!path.exists());
}
