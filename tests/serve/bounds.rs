//! What a client cannot make the server do: hold, wait or compute without end.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use launch_agent::serve::exchange::{Admission, Body, Content, Head, Limits, Response, Site};
use launch_agent::serve::{Server, Stopper};
use serde_json::json;

use super::repeated;
use crate::common::server::read_answer;

const MIB: u64 = 1024 * 1024;

/// More than the kernel takes from the server for a client that reads nothing.
const LARGE: u64 = 256 * MIB;

/// A site that says what it was sent.
struct Echo;

impl Site for Echo {
    type Pass = ();

    fn admit(&self, head: &Head) -> Result<(Admission, ()), Response> {
        match head.path.as_str() {
            "/echo" | "/file" | "/large" | "/panic" => Ok((Admission::Whole(4 * MIB), ())),
            "/stream" => {
                let key = head.query.parse().unwrap_or_default();
                Ok((Admission::Streamed(16 * MIB, key), ()))
            }
            _ => Err(Response::error(404, "nothing here")),
        }
    }

    fn answer(&self, head: &Head, (): (), mut body: Body) -> Response {
        match head.path.as_str() {
            "/file" => {
                let mut file = tempfile::tempfile().expect("a file");
                file.write_all(&vec![7; 300_000]).expect("written");
                std::io::Seek::rewind(&mut file).expect("rewound");
                Response {
                    status: 200,
                    headers: Vec::new(),
                    content: Content::File(file, 300_000),
                }
            }
            "/large" => {
                let file = tempfile::tempfile().expect("a file");
                file.set_len(LARGE).expect("a file without blocks");
                Response {
                    status: 200,
                    headers: Vec::new(),
                    content: Content::File(file, LARGE),
                }
            }
            "/panic" => panic!("as it was asked to"),
            _ => match std::io::copy(&mut body, &mut std::io::sink()) {
                Ok(length) => Response::json(200, &json!({"length": length})),
                Err(error) => Response::error(400, &error.to_string()),
            },
        }
    }
}

/// A server of [`Echo`] in this process.
pub struct Running {
    pub address: SocketAddr,
    pub stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn new(limits: Limits) -> Running {
        let server = Server::bind(([127, 0, 0, 1], 0).into(), limits).expect("a server");
        let (address, stopper) = (server.address().expect("an address"), server.stopper());
        let thread = std::thread::spawn(move || server.run(Arc::new(Echo)).expect("served"));
        Running {
            address,
            stopper,
            thread: Some(thread),
        }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("set");
        stream
    }

    /// Sends these bytes, and gives the status of the answer.
    pub fn status(&self, bytes: &[u8]) -> u16 {
        let mut stream = self.connect();
        // A server that has said no may close before it has read all.
        let _ = stream.write_all(bytes);
        read_answer(&mut BufReader::new(stream)).map_or(0, |(status, _)| status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Limits that a test need not wait long for.
fn tight() -> Limits {
    Limits {
        head_time: Duration::from_millis(400),
        body_time: Duration::from_millis(400),
        body_rate: MIB,
        farewell: Duration::from_millis(500),
        ..Limits::default()
    }
}

pub fn post(path: &str, length: usize) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

/// How long the server keeps a connection to which `drip` is sent byte by byte, and what it says in the end.
fn dripped(server: &Running, start: &[u8]) -> (Duration, u16) {
    let mut stream = server.connect();
    let begin = Instant::now();
    stream.write_all(start).expect("sent");
    let mut reader = BufReader::new(stream.try_clone().expect("cloned"));
    let dripping = std::thread::spawn(move || {
        while stream.write_all(b"x").is_ok() && begin.elapsed() < Duration::from_secs(15) {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let status = read_answer(&mut reader).map_or(0, |(status, _)| status);
    let held = begin.elapsed();
    drop(reader);
    dripping.join().expect("no panic");
    (held, status)
}

#[test]
fn ten_thousand_headers_and_a_huge_one_are_431() {
    let server = Running::new(Limits::default());
    let lines = repeated(10_000, |n| format!("x-{n}: 1\r\n"));
    for lines in [lines, format!("x: {}\r\n", "y".repeat(200_000))] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: 0\r\n\r\n");
        assert_eq!(server.status(request.as_bytes()), 431);
    }
    assert_eq!(server.status(&post("/echo", 0)), 200);
}

#[test]
fn a_body_beyond_its_cap_is_413_before_it_is_sent() {
    let server = Running::new(Limits::default());
    for path in ["/echo", "/stream"] {
        let start = Instant::now();
        assert_eq!(server.status(&post(path, 100 * 1024 * 1024)), 413, "{path}");
        assert!(start.elapsed() < Duration::from_secs(2));
        // `Expect` is a question, and the answer is no.
        let expects = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 104857600\r\n\r\n"
        );
        assert_eq!(server.status(expects.as_bytes()), 413, "{path}");
    }
    // Without a declared length it is counted.
    let mut chunked =
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..5 {
        chunked.extend_from_slice(b"100000\r\n");
        chunked.extend_from_slice(&vec![b'x'; 1024 * 1024]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(server.status(&chunked), 413);
}

#[test]
fn bodies_arrive_whole_and_streamed_alike() {
    let server = Running::new(Limits::default());
    for path in ["/echo", "/stream"] {
        for length in [0, 1, 3_000_000] {
            let mut request = post(path, length);
            request.extend(std::iter::repeat_n(b'x', length));
            let mut stream = server.connect();
            stream.write_all(&request).expect("sent");
            let (status, body) = read_answer(&mut BufReader::new(stream)).expect("an answer");
            assert_eq!(status, 200);
            assert_eq!(
                body,
                json!({"length": length}).to_string().into_bytes(),
                "{path}"
            );
        }
    }
}

#[test]
fn a_slow_head_is_cut_off_and_a_slow_body_is_408() {
    let server = Running::new(tight());
    let (held, _) = dripped(&server, b"GET /echo HTTP/1.1\r\nx: ");
    assert!(held < Duration::from_secs(5), "{held:?}");
    let (held, status) = dripped(&server, &post("/echo", 1_000_000));
    assert!(held < Duration::from_secs(5), "{held:?}");
    assert_eq!(status, 408);
    let (held, status) = dripped(&server, &post("/stream", 1_000_000));
    assert!(held < Duration::from_secs(5), "{held:?}");
    assert_eq!(status, 400, "the site is told that the body broke off");
    // Who says nothing at all is not waited for either.
    let start = Instant::now();
    let mut rest = Vec::new();
    let _ = server.connect().read_to_end(&mut rest);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn slow_clients_in_all_places_are_503_for_the_next_and_soon_over() {
    let server = Running::new(Limits {
        connections: 4,
        ..tight()
    });
    let slow: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"POST /echo HT").expect("sent");
            stream
        })
        .collect();
    let mut statuses = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while statuses.last() != Some(&200) && Instant::now() < deadline {
        let status = server.status(&post("/echo", 0));
        if statuses.last() != Some(&status) {
            statuses.push(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(statuses, [503, 200]);
    drop(slow);
}

#[test]
fn one_peer_cannot_have_all_places() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd;

    let server = Running::new(Limits {
        connections_of_peer: 2,
        ..Limits::default()
    });
    let _mine = [server.connect(), server.connect()];
    // A connection counts from when it is taken, which is a moment after it is made.
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.status(&post("/echo", 0)) != 503 {
        assert!(Instant::now() < deadline, "there is always a place");
    }
    let other = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::empty(),
        None,
    );
    let other = other.expect("a socket");
    bind(other.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 2, 0)).expect("another address");
    let to = SockaddrIn::new(127, 0, 0, 1, server.address.port());
    connect(other.as_raw_fd(), &to).expect("a connection");
    let mut other = TcpStream::from(other);
    other.write_all(&post("/echo", 0)).expect("sent");
    assert_eq!(
        read_answer(&mut BufReader::new(other))
            .expect("an answer")
            .0,
        200
    );
}

#[test]
fn bodies_in_memory_are_bounded_in_all() {
    let server = Running::new(Limits {
        memory: 2 * 1024 * 1024,
        ..Limits::default()
    });
    let full = |length: usize| {
        let mut request = post("/echo", length);
        request.extend(std::iter::repeat_n(b'x', length));
        request
    };
    assert_eq!(server.status(&full(3 * 1024 * 1024)), 503);
    assert_eq!(server.status(&full(1024 * 1024)), 200);
    assert_eq!(
        server.status(&full(1024 * 1024)),
        200,
        "the room is given back"
    );
}

#[test]
fn three_requests_in_one_go_are_three_answers() {
    let server = Running::new(Limits::default());
    let mut stream = server.connect();
    let mut all = Vec::new();
    for length in [1, 2, 3] {
        all.extend(post("/echo", length));
        all.extend(std::iter::repeat_n(b'x', length));
    }
    stream.write_all(&all).expect("sent");
    let mut reader = BufReader::new(stream);
    for length in [1, 2, 3] {
        let (status, body) = read_answer(&mut reader).expect("an answer");
        assert_eq!(status, 200);
        assert_eq!(body, format!("{{\"length\":{length}}}").into_bytes());
    }
}

#[test]
fn a_request_that_two_readers_could_read_differently_is_refused() {
    let server = Running::new(Limits::default());
    for lines in [
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 1, 2",
        "Content-Length: +1",
        "Content-Length: -1",
        "Transfer-Encoding: gzip",
    ] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\nx");
        assert_eq!(server.status(request.as_bytes()), 400, "{lines}");
    }
    // Both a length and chunks: what follows the chunks is not taken for a second request.
    let request = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let mut stream = server.connect();
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answers = String::new();
    let _ = stream.read_to_string(&mut answers);
    assert!(answers.matches("HTTP/1.1").count() <= 1, "{answers}");
    assert_eq!(server.status(b"nonsense\r\n\r\n"), 400);
}

#[test]
fn files_are_sent_whole_and_a_panic_is_one_answer() {
    let server = Running::new(Limits::default());
    let mut stream = server.connect();
    stream.write_all(&post("/file", 0)).expect("sent");
    let (status, body) = read_answer(&mut BufReader::new(stream)).expect("an answer");
    assert_eq!((status, body), (200, vec![7; 300_000]));
    assert_eq!(server.status(&post("/panic", 0)), 500);
    assert_eq!(server.status(&post("/echo", 0)), 200);
}
