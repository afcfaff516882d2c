//! One HTTP exchange in plain words: what came, what goes back, and within which bounds. No async and no library's
//! types: `http.rs` is on the other side of it.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

/// What the server grants to whom. The defaults are the product's; tests tighten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at one time; one more is answered 503.
    pub connections: usize,
    /// Connections at one time from one address. A proxy in front makes all of them one address.
    pub connections_of_peer: usize,
    /// From the end of an answer, or the start of a connection, to the end of the next request's head.
    pub head_time: Duration,
    /// Header lines of a request; more are answered 431.
    pub headers: usize,
    /// Bytes of a request's head; more are answered 431.
    pub head_bytes: usize,
    /// How long a body may take whatever its size.
    pub body_time: Duration,
    /// Bytes in a second that a body must bring beyond that.
    pub body_rate: u64,
    /// How long a client may take nothing of an answer that waits for it.
    pub stalled: Duration,
    /// Bytes of bodies that are held in memory at one time; beyond that the answer is 503.
    pub memory: usize,
    /// Requests that are carried out at one time; others wait for their turn.
    pub workers: usize,
    /// Uploads that are carried out at one time: each holds a worker for as long as its client sends.
    pub uploads: usize,
    /// Uploads of one key that are carried out at one time, however slow they are.
    pub uploads_of_one: usize,
    /// How long open requests may still take when the server ends.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 512,
            connections_of_peer: 256,
            head_time: Duration::from_secs(30),
            headers: 100,
            head_bytes: 32 * 1024,
            body_time: Duration::from_secs(30),
            body_rate: 16 * 1024,
            stalled: Duration::from_secs(60),
            memory: 256 * 1024 * 1024,
            workers: 48,
            uploads: 24,
            uploads_of_one: 16,
            farewell: Duration::from_secs(5),
        }
    }
}

/// The head of a request.
#[derive(Debug, Clone)]
pub struct Head {
    /// `GET`, `POST`, ..
    pub method: String,
    /// The path as it was sent, percent-encoding included.
    pub path: String,
    /// What follows the `?`; empty without one.
    pub query: String,
    /// The header lines in their order; names in lower case. A line that is not text is left out.
    pub headers: Vec<(String, String)>,
    /// Who sent it.
    pub peer: IpAddr,
}

impl Head {
    /// The first header line of that name, which is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// How much of a body is let in, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Up to so many bytes, read whole into memory before anything is done: a slow sender holds no worker.
    Whole(u64),
    /// Up to so many bytes, handed on as they come, for the key of this number.
    Streamed(u64, i64),
}

/// The body of a request. One that breaks off, or is too long or too slow, is an error of its reader.
pub enum Body {
    /// All of it.
    Whole(Vec<u8>),
    /// As it comes.
    Streamed(Box<dyn Read + Send>),
}

impl Body {
    /// The bytes of a body that was let in whole; none of another.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Body::Whole(bytes) => bytes,
            Body::Streamed(_) => &[],
        }
    }
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Body::Whole(bytes) => {
                let count = bytes.as_slice().read(into)?;
                bytes.drain(..count);
                Ok(count)
            }
            Body::Streamed(reader) => reader.read(into),
        }
    }
}

/// What goes back.
#[derive(Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// Further header lines; the length is added when it is sent.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub content: Content,
}

/// The body of an answer.
#[derive(Debug)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many bytes of this file, from where it stands.
    File(File, u64),
}

impl Response {
    /// A JSON document.
    pub fn json(status: u16, body: &Value) -> Response {
        Response {
            status,
            headers: vec![("content-type", "application/json".to_owned())],
            content: Content::Bytes(body.to_string().into_bytes()),
        }
    }

    /// An error in the form that W&B's clients look for: in a GraphQL answer, and beside it for everything else.
    pub fn error(status: u16, message: &str) -> Response {
        Response::json(
            status,
            &serde_json::json!({"errors": [{"message": message}], "error": message}),
        )
    }

    /// Nothing but a status.
    pub fn empty(status: u16) -> Response {
        Response {
            status,
            headers: Vec::new(),
            content: Content::Bytes(Vec::new()),
        }
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }
}

/// What answers the requests. Called on threads that may block.
pub trait Site: Send + Sync + 'static {
    /// What a request that was let in carries from its head to its answer.
    type Pass: Send + 'static;

    /// Looks at the head, before a byte of the body is read: who is it, and how much may they send?
    fn admit(&self, head: &Head) -> Result<(Admission, Self::Pass), Response>;

    /// Carries out a request that was let in.
    fn answer(&self, head: &Head, pass: Self::Pass, body: Body) -> Response;
}
