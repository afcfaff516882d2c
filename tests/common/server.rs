//! `launch-agent serve` on a port of its own, and a client of a few lines that says exactly what it is told to.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};

/// How long an answer may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs; it is ended when the value is dropped.
pub struct Server {
    folder: PathBuf,
    child: Child,
    pub address: String,
}

impl Server {
    /// Starts a server on the database of a folder.
    pub fn start(folder: &Path) -> Server {
        Server::start_at(folder, "127.0.0.1:0")
    }

    /// [`Server::start`] at an address.
    pub fn start_at(folder: &Path, address: &str) -> Server {
        Server::start_with(folder, &["--listen", address])
    }

    /// [`Server::start`] with these arguments, which say where it listens.
    pub fn start_with(folder: &Path, arguments: &[&str]) -> Server {
        let mut log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("serve.err"))
            .expect("a file");
        let mut child = command(folder, &[&["serve"], arguments].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut said = String::new();
        let address = loop {
            let start = said.len();
            assert!(
                lines.read_line(&mut said).expect("a line") > 0,
                "the server did not start: {said}"
            );
            if let Some((_, address)) = said[start..].split_once(" at http://") {
                break address.trim().to_owned();
            }
        };
        log.write_all(said.as_bytes()).expect("written");
        std::thread::spawn(move || std::io::copy(&mut lines, &mut log));
        Server {
            folder: folder.to_owned(),
            child,
            address,
        }
    }

    /// A new key for a user who is a member of these entities.
    pub fn key(&self, user: &str, entities: &[&str]) -> String {
        let mut arguments = vec!["serve", "key", "create", user];
        for entity in entities {
            arguments.extend(["--entity", entity]);
        }
        run(&self.folder, &arguments).trim().to_owned()
    }

    /// Runs `launch-agent` with these arguments on the server's own database, and gives what it prints.
    pub fn cli(&self, arguments: &[&str]) -> String {
        run(&self.folder, arguments)
    }

    pub fn client(&self, key: &str) -> Client {
        Client {
            address: self.address.clone(),
            key: key.to_owned(),
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("serve.err")).unwrap_or_default()
    }

    /// Ends the server with a signal, and gives its exit code; `None` when the signal itself ended it.
    pub fn end(mut self, signal: nix::sys::signal::Signal) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).expect("the server lives");
        self.child.wait().expect("waited").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_launch-agent"));
    command
        .args(arguments)
        .arg("--local")
        .arg(folder.join("queue.db"))
        .env_clear()
        .env("HOME", folder)
        .stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> String {
    let output = command(folder, arguments).output().expect("it runs");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A client with a key. Each request is a connection of its own.
#[derive(Clone)]
pub struct Client {
    pub address: String,
    pub key: String,
}

impl Client {
    /// Sends a request and reads the answer: its status and its body.
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
        self.try_request(method, path, headers, body)
            .expect("an answer")
    }

    /// [`Client::request`], where the server may be gone.
    pub fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> std::io::Result<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let key = base64::engine::general_purpose::STANDARD.encode(format!("api:{}", self.key));
        let authorization = if self.key.is_empty() {
            String::new()
        } else {
            format!("Authorization: Basic {key}\r\n")
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{authorization}{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        read_answer(&mut BufReader::new(stream))
    }

    /// A GraphQL request: the whole answer.
    pub fn graphql(&self, query: &str, variables: &Value) -> Value {
        self.try_graphql(query, variables).expect("an answer").1
    }

    /// A GraphQL request: the status and the whole answer.
    pub fn try_graphql(&self, query: &str, variables: &Value) -> std::io::Result<(u16, Value)> {
        let body = json!({"query": query, "variables": variables, "operationName": ""}).to_string();
        let json = "Content-Type: application/json\r\n";
        let (status, body) = self.try_request("POST", "/graphql", json, body.as_bytes())?;
        Ok((status, serde_json::from_slice(&body)?))
    }

    /// The `data` of a GraphQL request that must succeed.
    #[track_caller]
    pub fn data(&self, query: &str, variables: &Value) -> Value {
        let answer = self.graphql(query, variables);
        assert!(
            answer.get("errors").is_none() && answer["data"].is_object(),
            "{query}\n{variables}\n{answer}"
        );
        answer["data"].clone()
    }

    /// The message of a GraphQL request that must fail.
    #[track_caller]
    pub fn error(&self, query: &str, variables: &Value) -> String {
        let answer = self.graphql(query, variables);
        let message = answer["errors"][0]["message"].as_str();
        message
            .unwrap_or_else(|| panic!("no error\n{query}\n{variables}\n{answer}"))
            .to_owned()
    }
}

/// Reads one answer: its status and its body, which must have a length.
pub fn read_answer(from: &mut impl BufRead) -> std::io::Result<(u16, Vec<u8>)> {
    let (mut status, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if status.is_none() {
            status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        } else if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok((status.unwrap_or(0), body))
}
