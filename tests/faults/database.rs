//! The queue's database while somebody else has it, and when it is broken.

use std::time::{Duration, Instant};

use crate::common::sandbox::Sandbox;
use rusqlite::Connection;

fn database(sandbox: &Sandbox) -> Connection {
    Connection::open(sandbox.path(".local/state/launch-agent/queue.db")).expect("a database")
}

/// The agent's own patience is ten seconds; this is longer than that, twice.
const LONG: Duration = Duration::from_secs(21);

#[test]
fn a_database_that_is_busy_for_long_loses_no_report_and_fails_no_job() {
    let sandbox = Sandbox::with_fake_docker(
        "until [ -e $FAKE/go ]; do read -t 0.02 <> <(:) || true; done; echo done; exit 6",
    );
    sandbox.queue("q", "{}");
    let ends = sandbox.push("job:1", &[]);
    let _agent = sandbox.start_agent(&["-j", "2"]);
    sandbox.wait_for("a container", || sandbox.calls("run").len() == 1);
    let begins = sandbox.push("job:1", &[]);
    let other = database(&sandbox);
    other
        .busy_timeout(Duration::from_secs(10))
        .expect("a timeout");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    // One job ends while nobody can write; the other is on its way.
    sandbox.write("fake/go", "");
    let start = Instant::now();
    sandbox.wait_for("the agent to say so", || {
        sandbox
            .read("agent.err")
            .contains("is locked by another process")
    });
    sandbox.wait_for("the lock to have been held for long", || {
        start.elapsed() > LONG
    });
    other.execute_batch("ROLLBACK").expect("unlocked");
    for id in [ends, begins] {
        let item = sandbox.item_in(&id, &["FINISHED", "FAILED", "STOPPED"]);
        assert_eq!(
            (&item["state"], &item["exit_code"]),
            (&"FINISHED".into(), &6.into()),
            "{item}"
        );
        assert!(
            sandbox.log(&id).contains("\ndone\n"),
            "{}",
            sandbox.log(&id)
        );
    }
    assert_eq!(sandbox.calls("run").len(), 2);
}

#[test]
fn a_database_that_cannot_be_used_ends_every_command_with_5() {
    let sandbox = Sandbox::with_fake_docker("");
    sandbox.queue("q", "{}");
    sandbox.push("job:1", &[]);
    let path = sandbox.path(".local/state/launch-agent/queue.db");
    let whole = std::fs::read(&path).expect("read");
    let mut damaged = whole.clone();
    for byte in damaged.iter_mut().skip(100) {
        *byte ^= 0x5a;
    }
    let notes = b"these are notes of mine\n".repeat(400);
    for (bytes, message) in [
        (&damaged, "is damaged"),
        (&notes, "is not a queue database"),
    ] {
        std::fs::write(&path, bytes).expect("written");
        for command in [
            &["items"][..],
            &["item", "show", "1"],
            &["queue", "list"],
            &["push", "-q", "q", "-p", "p", "-d", "job:1"],
            &["--local", "-q", "q", "--once"],
        ] {
            sandbox.run(command).code(5).says(message).says("hint: ");
        }
        assert_eq!(&std::fs::read(&path).expect("read"), bytes, "left as it is");
    }
}

/// The clock is wrong when an item is taken, and right again when it is given back.
#[test]
fn a_lease_that_the_clock_has_made_endless_ends() {
    let sandbox = Sandbox::with_fake_docker("");
    sandbox.queue("q", "{}");
    let id = sandbox.push("job:1", &[]);
    database(&sandbox)
        .execute(
            "UPDATE items SET state = 'LEASED', agent = 'gone', leased_until = ?1",
            [4_000_000_000_000_i64],
        )
        .expect("changed");
    assert_eq!(sandbox.item(&id)["state"], "PENDING");
    sandbox.once(&[]).code(0);
    assert_eq!(sandbox.item(&id)["state"], "FINISHED");
    assert_eq!(sandbox.calls("run").len(), 1);
}
