//! How a connection ends that its client would keep, and how the server ends with requests under way.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use launch_agent::serve::exchange::Limits;

use super::bounds::{Running, post};
use crate::common::server::read_answer;

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until a new client is answered with this status.
fn wait_for(server: &Running, status: u16) {
    let deadline = Instant::now() + PATIENCE;
    while server.status(&post("/echo", 0)) != status {
        assert!(Instant::now() < deadline, "never {status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_client_that_reads_nothing_gives_its_place_back() {
    let server = Running::new(Limits {
        connections: 1,
        stalled: Duration::from_secs(1),
        ..Limits::default()
    });
    let mut silent = server.connect();
    silent.write_all(&post("/large", 0)).expect("sent");
    wait_for(&server, 503);
    wait_for(&server, 200);
    drop(silent);
}

#[test]
fn slow_uploads_of_one_key_leave_room_for_those_of_others() {
    let server = Running::new(Limits {
        uploads: 4,
        uploads_of_one: 3,
        ..Limits::default()
    });
    let upload = |path: &str| {
        let mut request = post(path, 10);
        request.extend_from_slice(b"1234567890");
        server.status(&request)
    };
    let begin = || {
        let mut slow: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
        for stream in &mut slow {
            stream.write_all(&post("/stream?1", 10)).expect("sent");
            stream.write_all(b"12345").expect("sent");
        }
        // A place is taken when the head has been read, which is a moment after it was sent.
        let deadline = Instant::now() + Duration::from_secs(1);
        while Instant::now() < deadline {
            // More than once: the place of the last upload that had one may not be back yet.
            if (0..20).all(|_| upload("/stream?1") == 503) {
                return Some(slow);
            }
        }
        // The upload that asks came before one of the three, which was turned away in its place.
        None
    };
    let mut tries = (0..20).map(|_| begin());
    let slow = tries.find_map(|slow| slow).expect("a key without a place");
    assert_eq!(upload("/stream?2"), 200);
    for mut stream in slow {
        stream.write_all(b"67890").expect("sent");
        let answer = read_answer(&mut BufReader::new(stream));
        assert_eq!(answer.expect("an answer").0, 200);
    }
    let deadline = Instant::now() + PATIENCE;
    while upload("/stream?1") != 200 {
        assert!(Instant::now() < deadline, "no place came back");
    }
}

#[test]
fn requests_under_way_are_answered_when_the_server_ends() {
    let server = Running::new(Limits {
        farewell: Duration::from_secs(15),
        ..Limits::default()
    });
    let mut idle = server.connect();
    let mut busy = [server.connect(), server.connect()];
    for (stream, path) in busy.iter_mut().zip(["/echo", "/stream"]) {
        stream.write_all(&post(path, 10)).expect("sent");
        stream.write_all(b"12345").expect("sent");
    }
    // Both are in the server's hands when a request that came after them is answered.
    assert_eq!(server.status(&post("/echo", 0)), 200);
    server.stopper.stop();
    let start = Instant::now();
    // Who asks for nothing is let go of, and nobody new gets in.
    assert_eq!(idle.read(&mut [0]).expect("the end"), 0);
    let deadline = start + PATIENCE;
    while TcpStream::connect(server.address).is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
    }
    for stream in &mut busy {
        stream.write_all(b"67890").expect("sent");
        let (status, body) = read_answer(&mut BufReader::new(stream)).expect("an answer");
        assert_eq!((status, body), (200, b"{\"length\":10}".to_vec()));
    }
    drop(server);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "nobody was waited for in vain"
    );
}

#[test]
fn a_request_that_never_ends_does_not_keep_the_server() {
    let server = Running::new(Limits {
        farewell: Duration::from_millis(300),
        ..Limits::default()
    });
    let mut busy = [server.connect(), server.connect()];
    for (stream, path) in busy.iter_mut().zip(["/echo", "/stream"]) {
        stream.write_all(&post(path, 10)).expect("sent");
    }
    assert_eq!(server.status(&post("/echo", 0)), 200);
    let start = Instant::now();
    drop(server);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
}
