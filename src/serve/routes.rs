//! The paths that are served: who is let in, how much they may send, and who answers.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::access::Context;
use super::exchange::{Admission, Body, Head, Response, Site};
use super::file_stream::{self, Place};
use super::graphql::{self, Schema};
use super::signed::{Address, Signer};
use super::store::Store;
use crate::failure::{Error, Result as FailureResult};
use crate::queue::local::{Caller, LocalQueue};

/// The largest GraphQL request: a launch spec with its files, and an artifact's list of files.
const GRAPHQL_BYTES: u64 = 16 * 1024 * 1024;

/// Where the client leaves what it measures of itself, without a key. It tells its user of any answer but that there is
/// no such place.
const TELEMETRY: &str = "/sdk/otel/";

/// What the client sends with all that it says of a run in its shared mode. Each process counts its lines from 0 then:
/// they would take the places of those of the others.
const SHARED: &str = "x-wandb-use-async-filestream";

/// The site that is served.
pub struct Launch {
    queue: Arc<LocalQueue>,
    schema: Schema,
    public_url: Option<String>,
    store: Store,
    signer: Signer,
}

/// A request that was let in.
pub enum Pass {
    /// The server lives.
    Health,
    /// A GraphQL request of this user.
    Graphql(Caller),
    /// What a run reports, whose entity the caller is a member of.
    FileStream(Place),
    /// A signed address, by the method that goes with it.
    File(Address),
}

impl Launch {
    /// The site of a queue, whose files may take `quota` bytes. `public_url` is its address as clients see it, when
    /// their requests do not tell.
    pub fn new(
        queue: Arc<LocalQueue>,
        public_url: Option<String>,
        quota: u64,
    ) -> FailureResult<Launch> {
        Ok(Launch {
            signer: Signer::new(queue.signing_secret()?),
            store: Store::new(Arc::clone(&queue), quota),
            queue,
            schema: graphql::schema(),
            public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
        })
    }

    /// Lets in whoever has a signed address: it stands for the key for as long as that one is valid.
    fn file(&self, head: &Head) -> Result<(Admission, Pass), Response> {
        let Some((key, address)) = self.signer.read(&head.path) else {
            return Err(Response::error(
                403,
                "this address was not given out by this server, or it has expired",
            ));
        };
        if !self
            .queue
            .is_key_valid(key)
            .map_err(|error| unreadable(&error))?
        {
            return Err(Response::error(
                403,
                "the key that this address was given out for is revoked",
            ));
        }
        match (head.method.as_str(), address.is_upload()) {
            ("PUT", true) => {
                let room = self.store.room(head)?;
                Ok((Admission::Streamed(room, key), Pass::File(address)))
            }
            ("GET", false) => Ok((Admission::Whole(0), Pass::File(address))),
            (_, true) => {
                Err(Response::error(405, "this address takes a file in").header("allow", "PUT"))
            }
            (_, false) => {
                Err(Response::error(405, "this address gives a file out").header("allow", "GET"))
            }
        }
    }

    /// Whom the key in the head lets in.
    fn caller(&self, head: &Head) -> Result<Caller, Response> {
        let unknown = || {
            Response::error(
                401,
                "user is not logged in: the API key is missing or not valid",
            )
            .header("www-authenticate", "Basic realm=\"launch-agent\"")
        };
        let key = key(head).ok_or_else(unknown)?;
        match self.queue.caller(&key) {
            Ok(Some(caller)) => Ok(caller),
            Ok(None) => Err(unknown()),
            Err(error) => Err(unreadable(&error)),
        }
    }

    fn base_url(&self, head: &Head) -> String {
        match (&self.public_url, head.header("host")) {
            (Some(url), _) => url.clone(),
            (None, Some(host)) => format!("http://{host}"),
            (None, None) => "http://localhost".to_owned(),
        }
    }
}

fn nothing() -> Response {
    Response::error(404, "there is nothing here")
}

fn unreadable(error: &Error) -> Response {
    log::error!("{error}");
    Response::error(503, "the server cannot read its files")
}

/// The password of `Basic`, or the token of `Bearer`.
fn key(head: &Head) -> Option<String> {
    let (scheme, rest) = head.header("authorization")?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    Some(text.split_once(':')?.1.to_owned())
}

impl Site for Launch {
    type Pass = Pass;

    fn admit(&self, head: &Head) -> Result<(Admission, Pass), Response> {
        if head.path == "/healthz" {
            return Ok((Admission::Whole(0), Pass::Health));
        }
        if head.path.starts_with("/storage/") {
            return self.file(head);
        }
        if head.path.starts_with(TELEMETRY) {
            return Err(nothing());
        }
        let caller = self.caller(head)?;
        if head.header(SHARED).is_some() {
            return Err(Response::error(
                400,
                "this server does not take one run from several processes: leave out `mode=\"shared\"`, \
                 and give each process a run of its own, all in one `group`",
            ));
        }
        if let Some(place) = Place::read(&head.path) {
            if head.method != "POST" {
                return Err(Response::error(405, "a run reports by POST").header("allow", "POST"));
            }
            if !place.is_of(&caller) {
                return Err(Response::error(404, "there is no such run"));
            }
            return Ok((
                Admission::Whole(file_stream::BYTES),
                Pass::FileStream(place),
            ));
        }
        match (head.method.as_str(), head.path.as_str()) {
            ("POST", "/graphql") => Ok((Admission::Whole(GRAPHQL_BYTES), Pass::Graphql(caller))),
            (_, "/graphql") => {
                Err(Response::error(405, "a GraphQL request is a POST").header("allow", "POST"))
            }
            _ => Err(nothing()),
        }
    }

    fn answer(&self, head: &Head, pass: Pass, body: Body) -> Response {
        match pass {
            Pass::Health => Response::json(200, &json!({"ok": true})),
            Pass::Graphql(caller) => {
                let context = Context::new(
                    Arc::clone(&self.queue),
                    caller,
                    self.base_url(head),
                    self.signer.clone(),
                    self.store.quota(),
                );
                graphql::answer(&self.schema, &context, body.bytes())
            }
            Pass::FileStream(place) => {
                file_stream::answer(&self.queue, &self.store, &place, body.bytes())
            }
            Pass::File(address) if address.is_upload() => self.store.take_in(&address, head, body),
            Pass::File(address) => self.store.give_out(&address),
        }
    }
}
