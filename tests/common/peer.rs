//! A test peer that speaks W&B's wire: HTTP/1.1 and GraphQL on a port of its own, with a model of queues, agents,
//! runs and files behind it. It records every request and fails on command.

mod graphql;
mod model;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

pub use model::Model;

/// The key that the peer takes.
pub const KEY: &str = "sesame-sesame-sesame";

/// `api:KEY` in base64.
const AUTHORIZATION: &str = "Basic YXBpOnNlc2FtZS1zZXNhbWUtc2VzYW1l";

/// How an answer goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// This status, these header lines, this body.
    Status(u16, &'static str, &'static str),
    /// The connection ends without an answer.
    Drop,
    /// The answer comes after this long.
    Delay(Duration),
    /// Status 200 with GraphQL errors.
    Errors(&'static str),
    /// `{"data": null}`
    NoData,
    /// Status 200 with a web page.
    Page,
    /// Half of the right answer.
    Truncated,
}

/// A fault that is to happen.
#[derive(Debug, Clone)]
struct Fault {
    /// A root field; `*` is every request, `upload` every upload.
    field: String,
    how: How,
    /// Is the request carried out all the same?
    executes: bool,
    /// How often it is still to happen.
    times: usize,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// The root fields, each once; `upload` is a file.
    pub fields: Vec<String>,
    pub operation: String,
    pub variables: Value,
    pub headers: Vec<String>,
}

struct Shared {
    model: Mutex<Model>,
    faults: Mutex<Vec<Fault>>,
    requests: Mutex<Vec<Request>>,
    ending: AtomicBool,
}

pub struct Peer {
    pub url: String,
    shared: Arc<Shared>,
    port: u16,
}

impl Peer {
    /// A peer with these queues for entity `me`.
    pub fn new(queues: &[&str]) -> Peer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let url = format!("http://127.0.0.1:{port}");
        let mut model = Model::new(url.clone());
        for queue in queues {
            model.add_queue(queue);
        }
        let shared = Arc::new(Shared {
            model: Mutex::new(model),
            faults: Mutex::default(),
            requests: Mutex::default(),
            ending: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &for_thread));
        Peer { url, shared, port }
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.shared.model.lock().expect("no panic")
    }

    /// The next `times` requests with this root field fail before they are carried out.
    pub fn fail(&self, field: &str, how: How, times: usize) {
        self.fault(field, how, false, times);
    }

    /// The next `times` requests with this root field are carried out, and their answer goes wrong.
    pub fn lose(&self, field: &str, how: How, times: usize) {
        self.fault(field, how, true, times);
    }

    fn fault(&self, field: &str, how: How, executes: bool, times: usize) {
        self.shared.faults.lock().expect("no panic").push(Fault {
            field: field.to_owned(),
            how,
            executes,
            times,
        });
    }

    /// All is well again.
    pub fn heal(&self) {
        self.shared.faults.lock().expect("no panic").clear();
    }

    /// The requests that came so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().expect("no panic").clone()
    }

    /// How many requests had this root field.
    pub fn count(&self, field: &str) -> usize {
        let requests = self.requests();
        let with = requests
            .iter()
            .filter(|request| request.fields.iter().any(|name| name == field));
        with.count()
    }

    /// Waits until the model fulfils a condition; on failure shows every request.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&mut Model) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition(&mut self.model()) {
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}; items {:#?}; requests {:#?}",
                self.model().items,
                self.requests()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.ending.load(Ordering::SeqCst) {
            return;
        }
        let (Ok(stream), shared) = (stream, Arc::clone(shared)) else {
            continue;
        };
        // An answer goes out at once, as a real server's does.
        let _ = stream.set_nodelay(true);
        std::thread::spawn(move || while serve(&stream, &shared).unwrap_or(false) {});
    }
}

/// One request and its answer. Gives whether the connection lives on.
fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<bool> {
    let Some((head, body)) = read_request(stream)? else {
        return Ok(false);
    };
    let mut words = head[0].split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let (request, document) = understand(method, &head, &body);
    shared
        .requests
        .lock()
        .expect("no panic")
        .push(request.clone());
    let fault = take_fault(shared, &request.fields);
    let executes = fault
        .as_ref()
        .is_none_or(|fault| fault.executes || matches!(fault.how, How::Delay(_) | How::Truncated));
    let answer = if executes {
        carry_out(shared, method, path, &head, body, &document)
    } else {
        (200, String::new())
    };
    let how = fault.map(|fault| fault.how);
    respond(stream, answer, how.as_ref())
}

fn understand(method: &str, head: &[String], body: &[u8]) -> (Request, Value) {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let query = document["query"].as_str().unwrap_or_default();
    let mut fields: Vec<String> = graphql::parse(query, &document["variables"])
        .unwrap_or_default()
        .into_iter()
        .map(|field| field.name)
        .collect();
    fields.dedup();
    if method == "PUT" {
        fields.push("upload".to_owned());
    }
    let request = Request {
        fields,
        operation: document["operationName"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        variables: document["variables"].clone(),
        headers: head.to_vec(),
    };
    (request, document)
}

fn take_fault(shared: &Shared, fields: &[String]) -> Option<Fault> {
    let mut faults = shared.faults.lock().expect("no panic");
    let matches = |fault: &&mut Fault| {
        fault.times > 0 && (fault.field == "*" || fields.contains(&fault.field))
    };
    let fault = faults.iter_mut().find(matches)?;
    fault.times -= 1;
    Some(fault.clone())
}

fn carry_out(
    shared: &Shared,
    method: &str,
    path: &str,
    head: &[String],
    body: Vec<u8>,
    document: &Value,
) -> (u16, String) {
    let mut model = shared.model.lock().expect("no panic");
    let authorized = head.iter().any(|line| {
        line.split_once(": ").is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("authorization") && value == AUTHORIZATION
        })
    });
    match (method, path) {
        ("PUT", path) if path.starts_with("/storage/") => {
            // A presigned address refuses a second kind of authorization, and wants the headers it was signed with.
            let wanted = head
                .iter()
                .any(|line| line.eq_ignore_ascii_case("x-storage: yes:1"));
            let stored = wanted && !authorized && model.store(path, body);
            (if stored { 200 } else { 400 }, String::new())
        }
        ("POST", "/graphql") if !authorized => (
            401,
            r#"{"errors":[{"message":"user is not logged in"}]}"#.to_owned(),
        ),
        ("POST", "/graphql") => answer(&mut model, document),
        _ => (404, r#"{"error":"no such place"}"#.to_owned()),
    }
}

fn answer(model: &mut Model, document: &Value) -> (u16, String) {
    let query = document["query"].as_str().unwrap_or_default();
    let fields = match graphql::parse(query, &document["variables"]) {
        Ok(fields) => fields,
        Err(error) => return (400, json!({"errors": [{"message": error}]}).to_string()),
    };
    let mut data = Map::new();
    let mut errors = Vec::new();
    for field in fields {
        let value = model.execute(&field).unwrap_or_else(|error| {
            errors.push(json!({"message": error, "path": [field.alias]}));
            Value::Null
        });
        data.insert(field.alias, value);
    }
    let mut whole = json!({"data": data});
    if !errors.is_empty() {
        whole["errors"] = Value::Array(errors);
    }
    (200, whole.to_string())
}

fn respond(
    mut stream: &TcpStream,
    answer: (u16, String),
    how: Option<&How>,
) -> std::io::Result<bool> {
    let (status, body) = answer;
    let json = "Content-Type: application/json\r\n";
    let (status, headers, body, sent) = match how {
        None => (status, json, body.clone(), body.len()),
        Some(How::Delay(pause)) => {
            std::thread::sleep(*pause);
            (status, json, body.clone(), body.len())
        }
        Some(How::Drop) => {
            stream.shutdown(Shutdown::Both)?;
            return Ok(false);
        }
        Some(How::Status(status, headers, body)) => {
            (*status, *headers, (*body).to_owned(), body.len())
        }
        Some(How::Errors(message)) => {
            let body = json!({"errors": [{"message": message}], "data": null}).to_string();
            (200, json, body.clone(), body.len())
        }
        Some(How::NoData) => (200, json, r#"{"data":null}"#.to_owned(), 13),
        Some(How::Page) => {
            let body = "<html><body>Please sign in to the network</body></html>";
            (
                200,
                "Content-Type: text/html\r\n",
                body.to_owned(),
                body.len(),
            )
        }
        Some(How::Truncated) => (status, json, body.clone(), body.len() / 2),
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body.as_bytes()[..sent]].concat())?;
    if sent < body.len() {
        stream.shutdown(Shutdown::Both)?;
    }
    Ok(sent == body.len())
}

/// The lines of the head and the body; `None` when the other side has closed the connection.
fn read_request(stream: &TcpStream) -> std::io::Result<Option<(Vec<String>, Vec<u8>)>> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        head.push(line.to_owned());
    }
    let length = head
        .iter()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some((head, body)))
}
