//! One request to W&B and what came of it: GraphQL over HTTP as PROTOCOL section 1 has it, and files by presigned
//! addresses. The only file that calls the HTTP library. It decides what an answer means, and repeats nothing but
//! what its caller says may be repeated.
//!
//! Every error of this room has one of these kinds, so that callers can tell them apart:
//! [`Kind::Queue`], the server could not be reached, asking again may help ([`is_unreachable`]);
//! [`Kind::Config`], the key was refused ([`is_refused`]);
//! [`Kind::Input`], the server answered and refused this one request; [`Kind::NotFound`], it does not know the name.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use jiff::Timestamp;
use serde_json::{Value, json};
use ureq::http::Response;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

use super::link::Link;
use super::proxy::Proxies;
use super::trouble::{Trouble, of_library, of_status};
use crate::config::identity::Address;
use crate::failure::{Error, Kind, Result};
use crate::launch::command::Secret;

pub use super::trouble::{is_refused, is_unreachable};

/// The most of an answer that is read, in bytes. An item's spec is a few kilobytes.
const LARGEST_ANSWER: u64 = 64 << 20;

/// How long things may take. Tests shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The transfer of one file of an artifact.
    pub file: Duration,
    /// One request, from the name's resolution to the last byte of the answer.
    pub call: Duration,
    /// The pause before the first repetition inside a call; it doubles each time.
    pub first_retry: Duration,
    /// How long a call goes on repeating.
    pub retries: Duration,
    /// The unit of the schedule by which a run is looked for after its container ended: 1, 2, 4, .. of these.
    pub run_check: Duration,
    /// The pause of the outbox after a delivery failed; it doubles up to 64 times this.
    pub redelivery: Duration,
    /// How long an item stays ours without an acknowledgement (PROTOCOL section 3).
    pub lease: Duration,
    /// How long [`close`](super::WandbQueue::close) waits for the outbox.
    pub flush: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            file: Duration::from_secs(600),
            call: Duration::from_secs(20),
            first_retry: Duration::from_secs(2),
            retries: Duration::from_secs(20),
            run_check: Duration::from_secs(1),
            redelivery: Duration::from_secs(1),
            lease: Duration::from_secs(60),
            flush: Duration::from_secs(10),
        }
    }
}

/// An answer of the server: GraphQL may give part of what was asked together with errors.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What was asked for; never null.
    pub data: Value,
    /// What went wrong on the server, in its own words.
    pub errors: Vec<String>,
}

impl Answer {
    /// All that was asked for, or the server's errors.
    fn whole(self) -> Result<Value, Trouble> {
        if self.errors.is_empty() {
            return Ok(self.data);
        }
        Err(Trouble::Rejected(self.errors.join("; ")))
    }
}

/// The way to one server, shared by all threads.
pub struct Transport {
    agent: Agent,
    address: Address,
    authorization: Secret,
    proxies: Proxies,
    /// Whether the server answers.
    pub link: Link,
    /// How long things may take.
    pub timing: Timing,
}

impl Transport {
    /// Prepares for requests; asks nothing yet. Refuses a proxy variable that is not an address.
    pub fn new(
        address: Address,
        key: &Secret,
        proxies: Proxies,
        ca_bundle: Option<&Path>,
        timing: Timing,
    ) -> Result<Transport> {
        let proxy = proxies.choose(&address).map(read_proxy).transpose()?;
        let login = format!("api:{}", key.expose());
        let encoded = base64::engine::general_purpose::STANDARD.encode(login);
        let agent = Agent::config_builder()
            .tls_config(
                TlsConfig::builder()
                    .root_certs(certificates(ca_bundle)?)
                    .build(),
            )
            .proxy(proxy)
            .http_status_as_error(false)
            // A redirect would turn a POST into a GET or carry the key elsewhere; it is a wrong base URL.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(timing.call))
            .user_agent(concat!("launch-agent/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Transport {
            agent,
            link: Link::new(address.url.clone()),
            address,
            authorization: Secret::new(format!("Basic {encoded}")),
            proxies,
            timing,
        })
    }

    /// The server's address, as it is used.
    pub fn base_url(&self) -> &str {
        &self.address.url
    }

    /// One document, asked once. All or nothing: the server's errors are this call's.
    pub fn once(&self, document: &str, variables: &Value) -> Result<Value> {
        self.partial(document, variables)
            .and_then(Answer::whole)
            .map_err(|trouble| self.error(trouble))
    }

    /// One document, asked again after a pause while the server cannot be reached. Only for what may be repeated.
    pub fn repeated(&self, document: &str, variables: &Value) -> Result<Value> {
        self.repeated_with(document, variables, || {})
    }

    /// The same; `uncertain` is called each time when the server may have done what was asked and the answer is lost.
    pub fn repeated_with(
        &self,
        document: &str,
        variables: &Value,
        mut uncertain: impl FnMut(),
    ) -> Result<Value> {
        let begun = Instant::now();
        let mut pause = self.timing.first_retry;
        loop {
            let trouble = match self.partial(document, variables).and_then(Answer::whole) {
                Ok(data) => return Ok(data),
                Err(trouble) => trouble,
            };
            if trouble.may_have_been_done() {
                uncertain();
            }
            let wait = self.link.quiet_for().unwrap_or_default().max(pause);
            if !trouble.is_passing() || begun.elapsed() + wait > self.timing.retries {
                return Err(self.error(trouble));
            }
            std::thread::sleep(wait);
            pause *= 2;
        }
    }

    /// One document, asked once, with whatever part of it came back.
    pub fn partial(&self, document: &str, variables: &Value) -> Result<Answer, Trouble> {
        if let Some(left) = self.link.quiet_for() {
            return Err(Trouble::NotAsked(format!(
                "the server asked for {} s of silence",
                left.as_secs() + 1
            )));
        }
        let answer = self.exchange(document, variables);
        match &answer {
            Ok(_) | Err(Trouble::Rejected(_)) => self.link.answered(),
            Err(Trouble::Refused(why)) => self.link.refused(why),
            Err(Trouble::NotSent(why)) => self.link.failed(why, None),
            Err(Trouble::NotAsked(_)) => {}
            Err(Trouble::Lost { why, after }) => self.link.failed(why, *after),
        }
        answer
    }

    fn exchange(&self, document: &str, variables: &Value) -> Result<Answer, Trouble> {
        let body = json!({
            "query": document,
            "variables": variables,
            "operationName": operation_name(document),
        });
        let response = self
            .agent
            .post(format!("{}/graphql", self.address.url))
            .header("Authorization", self.authorization.expose())
            .header("Content-Type", "application/json")
            .send(body.to_string())
            .map_err(|error| self.by_proxy(of_library(&error)))?;
        read_answer(response)
    }

    /// A connection that did not come to be may be the proxy's fault: it is named.
    fn by_proxy(&self, trouble: Trouble) -> Trouble {
        match (trouble, self.proxies.choose(&self.address)) {
            (Trouble::NotSent(why), Some(proxy)) => Trouble::NotSent(format!(
                "{why} (by the proxy `{}`)",
                without_password(proxy)
            )),
            (trouble, _) => trouble,
        }
    }

    /// Opens what is at a presigned address, as the server's storage wants it: without our key. Asked again after a
    /// pause while the storage cannot be reached.
    pub fn download(&self, url: &str) -> Result<impl Read + use<>> {
        let (url, host, proxy) = self.storage(url, "download")?;
        let begun = Instant::now();
        let mut pause = self.timing.first_retry;
        loop {
            let request = self.agent.get(&url).config().proxy(proxy.clone());
            // Storage sends on to where the file is; a large file takes longer than an answer may.
            let request = request
                .max_redirects(5)
                .timeout_global(Some(self.timing.file))
                .timeout_connect(Some(self.timing.call))
                .timeout_recv_response(Some(self.timing.call))
                .build();
            let trouble = match request.call() {
                Ok(response) => match response.status().as_u16() {
                    200..300 => return Ok(response.into_body().into_reader()),
                    status @ (408 | 425 | 429 | 500..) => Trouble::Lost {
                        why: format!("status {status}"),
                        after: None,
                    },
                    status => {
                        return Err(Error::input(format!(
                            "download from {host}: status {status}"
                        )));
                    }
                },
                Err(error) => of_library(&error),
            };
            if !trouble.is_passing() || begun.elapsed() + pause > self.timing.retries {
                return Err(trouble.into_error(&host).within("download"));
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
    }

    /// Address, host and proxy of a presigned address, which may begin at the server's own.
    fn storage(&self, url: &str, what: &str) -> Result<(String, String, Option<Proxy>)> {
        let url = if url.starts_with('/') {
            format!("{}{url}", self.address.url)
        } else {
            url.to_owned()
        };
        // The query of a presigned address is its secret, and no part of what the choice of a proxy needs.
        let place = url.split(['?', '#']).next().unwrap_or_default();
        let address = Address::parse(place, &format!("the address of a {what}"))
            .map_err(|error| Error::input(error.message))?;
        let proxy = self.proxies.choose(&address).map(read_proxy).transpose()?;
        Ok((url, address.host, proxy))
    }

    /// Uploads a file to a presigned address, as the server's storage wants it: without our key.
    pub fn upload(&self, url: &str, headers: &[(String, String)], body: &[u8]) -> Result<()> {
        let (url, host, proxy) = self.storage(url, "upload")?;
        let mut request = self.agent.put(&url).config().proxy(proxy).build();
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request
            .send(body)
            .map_err(|error| self.error(of_library(&error)).within("upload"))?;
        let status = response.status().as_u16();
        match status {
            200..300 => Ok(()),
            408 | 425 | 429 | 500.. => Err(Error::new(
                Kind::Queue,
                format!("upload to {host}: status {status}"),
            )),
            _ => Err(Error::input(format!("upload to {host}: status {status}"))),
        }
    }

    /// The trouble as the rest of the program knows it.
    pub fn error(&self, trouble: Trouble) -> Error {
        trouble.into_error(self.base_url())
    }
}

/// Certificates are those of the machine, so that a company's own authority and `SSL_CERT_FILE` count; or those of the
/// owner's file.
fn certificates(ca_bundle: Option<&Path>) -> Result<RootCerts> {
    let Some(path) = ca_bundle else {
        return Ok(RootCerts::PlatformVerifier);
    };
    let wrong = |cause: &dyn std::fmt::Display| {
        let place = path.display();
        Error::new(
            Kind::Config,
            format!("`network.ca_bundle`: {place}: {cause}"),
        )
    };
    let text = std::fs::read(path).map_err(|cause| wrong(&cause))?;
    let mut all = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.map_err(|cause| wrong(&cause))? {
            all.push(certificate);
        }
    }
    if all.is_empty() {
        return Err(wrong(&"it holds no certificates"));
    }
    Ok(RootCerts::new_with_certs(&all))
}

fn read_proxy(proxy: &str) -> Result<Proxy> {
    let wrong = |cause: &dyn std::fmt::Display| {
        Error::new(
            Kind::Config,
            format!(
                "the proxy variable holds `{}`: {cause}",
                without_password(proxy)
            ),
        )
        .hint("a proxy looks like `http://proxy.example:3128`")
    };
    // The library takes such an address and then connects without it, past whatever the proxy is there for.
    if proxy.to_ascii_lowercase().starts_with("socks") {
        return Err(wrong(&"SOCKS is not known here"));
    }
    Proxy::new(proxy).map_err(|cause| wrong(&cause))
}

fn without_password(proxy: &str) -> &str {
    proxy.rsplit_once('@').map_or(proxy, |(_, host)| host)
}

/// The name after `query` or `mutation`, by which servers log what was asked.
fn operation_name(document: &str) -> Option<&str> {
    let rest = document.trim_start();
    let rest = rest
        .strip_prefix("query ")
        .or_else(|| rest.strip_prefix("mutation "))?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric())?;
    Some(&rest[..end])
}

fn read_answer(mut response: Response<Body>) -> Result<Answer, Trouble> {
    let status = response.status().as_u16();
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let after = header("retry-after").and_then(|text| retry_after(&text, Timestamp::now()));
    let kind = header("content-type").unwrap_or_default();
    let body = response
        .body_mut()
        .with_config()
        .limit(LARGEST_ANSWER)
        .read_to_vec()
        .map_err(|error| Trouble::Lost {
            why: format!("the answer broke off: {error}"),
            after: None,
        })?;
    let json = serde_json::from_slice::<Value>(&body)
        .ok()
        .filter(Value::is_object);
    if let Some(trouble) = of_status(status, after, json.as_ref(), &kind) {
        return Err(trouble);
    }
    let lost = |why: String| Trouble::Lost { why, after: None };
    let json = json.ok_or_else(|| lost(not_json(status, &kind, &body)))?;
    let errors = super::trouble::errors_of(&json);
    match json.get("data") {
        Some(data) if !data.is_null() => Ok(Answer {
            data: data.clone(),
            errors,
        }),
        _ if !errors.is_empty() => Err(Trouble::Rejected(errors.join("; "))),
        _ => Err(lost("the answer holds no data".to_owned())),
    }
}

fn not_json(status: u16, kind: &str, body: &[u8]) -> String {
    if kind.contains("html") {
        return format!("status {status} with a web page, perhaps a proxy's");
    }
    format!(
        "status {status} with {} bytes that are not JSON",
        body.len()
    )
}

/// `Retry-After` is seconds or a date (RFC 9110).
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text.trim())
        .ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        for (text, seconds) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Thu, 01 Jan 2026 00:00:30 GMT", Some(30)),
            ("Wed, 31 Dec 2025 00:00:00 GMT", Some(0)),
            ("soon", None),
            ("-3", None),
        ] {
            assert_eq!(
                retry_after(text, now),
                seconds.map(Duration::from_secs),
                "{text}"
            );
        }
    }

    #[test]
    fn the_operation_is_named_as_in_the_document() {
        assert_eq!(
            operation_name("query Viewer { viewer { id } }"),
            Some("Viewer")
        );
        assert_eq!(operation_name("\nmutation Poll($a: ID!) {}"), Some("Poll"));
        assert_eq!(operation_name("{ viewer { id } }"), None);
    }

    #[test]
    fn a_bad_proxy_is_named_without_its_password() {
        for proxy in [
            "ftp://me:secret@h:1",
            "socks5://me:secret@h:1",
            "SOCKS5H://h:1",
        ] {
            let error = read_proxy(proxy).expect_err(proxy);
            assert!(!error.message.contains("secret"), "{error}");
        }
        for proxy in ["http://me:secret@h:1", "https://h:1", "h:1"] {
            read_proxy(proxy).expect(proxy);
        }
    }
}
