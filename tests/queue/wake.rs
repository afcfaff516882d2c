//! An agent notices a change at once, and within a second even when the nudge got lost.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use launch_agent::queue::Queue;
use launch_agent::queue::local::{LocalQueue, Times};

use super::contract::{Admin, agent_of};
use super::local::open;

fn watched(queue: &LocalQueue) -> Receiver<()> {
    let (wake, woken) = channel();
    let agent = agent_of(queue);
    queue
        .watch(
            &agent,
            Box::new(move || {
                let _ = wake.send(());
            }),
        )
        .expect("watched");
    // What `watch` itself writes may wake the agent as well.
    while woken.recv_timeout(Duration::from_millis(1_200)).is_ok() {}
    woken
}

fn waited(queue: &LocalQueue, woken: &Receiver<()>) -> Duration {
    let start = Instant::now();
    Admin::push(queue, "plain", "a:1", None);
    woken.recv_timeout(Duration::from_secs(10)).expect("woken");
    start.elapsed()
}

#[test]
fn a_push_wakes_an_agent_at_once_and_a_lost_nudge_within_a_second() {
    let folder = tempfile::tempdir().expect("a folder");
    let mine = open(folder.path(), Times::default());
    let theirs = LocalQueue::open(mine.path()).expect("a queue");
    let woken = watched(&mine);
    let took = waited(&theirs, &woken);
    assert!(took < Duration::from_millis(250), "{took:?}");

    while woken.recv_timeout(Duration::from_millis(1_200)).is_ok() {}
    std::fs::remove_dir_all(folder.path().join("queue.wake")).expect("no sockets");
    let took = waited(&theirs, &woken);
    assert!(took < Duration::from_millis(1_500), "{took:?}");

    let start = Instant::now();
    drop(mine);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(
        woken.recv_timeout(Duration::from_secs(2)).is_err(),
        "the watcher has ended"
    );
}

#[test]
fn the_socket_is_private_and_goes_with_its_agent() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().expect("a folder");
    let sockets = || -> Vec<std::path::PathBuf> {
        std::fs::read_dir(folder.path().join("queue.wake"))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .collect()
    };
    let queue = open(folder.path(), Times::default());
    queue
        .watch(&agent_of(&queue), Box::new(|| {}))
        .expect("watched");
    let [socket] = sockets().try_into().expect("one socket");
    let mode = std::fs::metadata(&socket)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(queue);
    assert!(sockets().is_empty());

    // What a killed agent leaves behind is removed by the next one.
    drop(std::os::unix::net::UnixDatagram::bind(&socket).expect("bound"));
    let queue = LocalQueue::open(&folder.path().join("queue.db")).expect("a queue");
    queue
        .watch(&agent_of(&queue), Box::new(|| {}))
        .expect("watched");
    assert!(!sockets().contains(&socket));
    assert_eq!(sockets().len(), 1);
}
