//! Many agents and pushers on one file: each item is handed to exactly one, and none is lost.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use launch_agent::queue::Queue;
use launch_agent::queue::local::{LocalQueue, Times};

use super::contract::{Admin, agent_of, exited, poll};
use super::local::open;

const PUSHERS: usize = 4;
const AGENTS: usize = 4;
const ITEMS: usize = 2_000;

/// When one of the processes has failed, the others wait in vain for its items.
const LONGEST: Duration = Duration::from_secs(240);

/// What one of the other processes does, and on which file: `push PATH` or `work PATH`.
const ROLE: &str = "QUEUE_TEST_ROLE";

/// What the other processes do: this test starts its own binary again, with [`ROLE`] set.
fn play(role: &str) {
    let (role, path) = role.split_once(' ').expect("a role and a path");
    let queue = LocalQueue::open_with(Path::new(path), patient()).expect("a queue");
    match role {
        "push" => {
            for _ in 0..ITEMS / PUSHERS {
                Admin::push(&queue, "plain", "a:1", None);
            }
        }
        _ => work(&queue),
    }
}

/// On a machine that does much else, eight writers wait longer for each other than a command should.
fn patient() -> Times {
    Times {
        busy: Duration::from_secs(60),
        ..Times::default()
    }
}

/// Takes items until all have ended, and prints each that it was given.
fn work(queue: &LocalQueue) {
    let deadline = Instant::now() + LONGEST;
    let agent = agent_of(queue);
    let (wake, woken) = channel();
    let wake = Box::new(move || {
        let _ = wake.send(());
    });
    queue.watch(&agent, wake).expect("watched");
    let mut given = std::io::stderr().lock();
    loop {
        while let Some(item) = poll(queue, &agent, "plain") {
            writeln!(given, "given {}", item.id).expect("written");
            let run = format!("run{}", item.id);
            assert!(queue.ack(&agent, &item.id, &run).expect("an ack"));
            assert!(
                queue
                    .finish(&agent, &item.id, &exited(0))
                    .expect("a finish")
            );
        }
        if queue.queue("plain").expect("a queue").ended == ITEMS as u64 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "the others do not come to an end"
        );
        let _ = woken.recv_timeout(Duration::from_millis(500));
    }
}

fn start(role: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args([
            "--exact",
            "queue::many_processes::eight_processes_share_two_thousand_items_without_losing_or_doubling_one",
            "--nocapture",
        ])
        .env(ROLE, format!("{role} {}", path.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started")
}

#[test]
#[expect(
    clippy::print_stdout,
    reason = "the time it took is worth seeing with --nocapture"
)]
fn eight_processes_share_two_thousand_items_without_losing_or_doubling_one() {
    if let Ok(role) = std::env::var(ROLE) {
        return play(&role);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let queue = open(folder.path(), Times::default());
    let start_time = Instant::now();
    let children: Vec<Child> = std::iter::repeat_n("work", AGENTS)
        .chain(std::iter::repeat_n("push", PUSHERS))
        .map(|role| start(role, queue.path()))
        .collect();
    let readers = children
        .into_iter()
        .map(|child| std::thread::spawn(|| child.wait_with_output().expect("an end")));
    let mut given = Vec::new();
    for reader in readers.collect::<Vec<_>>() {
        let output = reader.join().expect("a reader");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {text}", output.status);
        given.extend(
            text.lines()
                .filter_map(|line| line.strip_prefix("given "))
                .map(str::to_owned),
        );
    }
    println!(
        "{PUSHERS} pushers and {AGENTS} agents, {ITEMS} items: {:.1} s",
        start_time.elapsed().as_secs_f64()
    );
    let once: BTreeSet<&String> = given.iter().collect();
    assert_eq!(given.len(), ITEMS, "an item was handed out twice, or never");
    assert_eq!(once.len(), ITEMS, "an item was handed out twice");
    let status = queue.queue("plain").expect("a queue");
    assert_eq!((status.pending, status.running), (0, 0));
    assert_eq!(status.ended, ITEMS as u64);
}
