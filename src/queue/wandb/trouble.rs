//! What can go wrong between here and W&B, and which of it passes by itself. Pure.

use std::time::Duration;

use serde_json::Value;

use crate::failure::{Error, Kind};

/// Why a request did not give what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The server wanted to be left alone, so nothing was asked.
    NotAsked(String),
    /// No connection came to be: the server cannot have done what was asked.
    NotSent(String),
    /// The answer is lost, or is none of W&B's: what was asked may have been done or not.
    Lost {
        /// What came instead.
        why: String,
        /// How long the server wants to be left alone.
        after: Option<Duration>,
    },
    /// The key was refused.
    Refused(String),
    /// The server understood the request and refused it, in its own words.
    Rejected(String),
}

impl Trouble {
    /// May the same request succeed later, with nothing changed on this side?
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Trouble::NotAsked(_) | Trouble::NotSent(_) | Trouble::Lost { .. }
        )
    }

    /// May the server have done what was asked, although nobody said so?
    pub fn may_have_been_done(&self) -> bool {
        matches!(self, Trouble::Lost { .. })
    }

    /// The trouble as an error with the kind that the rest of the program tells it apart by.
    pub fn into_error(self, server: &str) -> Error {
        match self {
            Trouble::NotAsked(why) | Trouble::NotSent(why) | Trouble::Lost { why, .. } => {
                Error::new(Kind::Queue, format!("{server} cannot be reached: {why}"))
                    .hint("proxies are taken from `HTTPS_PROXY` and `NO_PROXY`, certificates from the system or `SSL_CERT_FILE`")
            }
            Trouble::Refused(why) => Error::new(Kind::Config, format!("{server}: {why}"))
                .hint("run `wandb login` or set `WANDB_API_KEY` to a key of this server"),
            Trouble::Rejected(why) => Error::input(format!("{server} refused it: {why}")),
        }
    }
}

/// Could the server not be reached, so that asking again may help?
pub fn is_unreachable(error: &Error) -> bool {
    error.kind == Kind::Queue
}

/// Was the key refused? A running agent then takes no more jobs, and goes on reporting what can be reported.
pub fn is_refused(error: &Error) -> bool {
    error.kind == Kind::Config
}

/// An error of the HTTP library: was the request on its way already?
pub fn of_library(error: &ureq::Error) -> Trouble {
    let why = match error {
        ureq::Error::HostNotFound => "the host's name is not known".to_owned(),
        ureq::Error::Timeout(what) => format!("no answer in time ({what})"),
        ureq::Error::Io(cause) => cause.to_string(),
        other => other.to_string(),
    };
    // What the TLS library says of an answer in the clear.
    let why = if why.contains("InvalidContentType") {
        "it answers without TLS; is its address `http://`?".to_owned()
    } else {
        why
    };
    // The standard library gives a failed name resolution no kind of its own.
    let refused_to_connect = |error: &std::io::Error| {
        matches!(
            error.kind(),
            std::io::ErrorKind::ConnectionRefused
                | std::io::ErrorKind::HostUnreachable
                | std::io::ErrorKind::NetworkUnreachable
        ) || error.to_string().contains("failed to lookup address")
    };
    match error {
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_)
        | ureq::Error::ConnectProxyFailed(_)
        | ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
            Trouble::NotSent(why)
        }
        ureq::Error::Io(cause) if refused_to_connect(cause) => Trouble::NotSent(why),
        _ => Trouble::Lost { why, after: None },
    }
}

/// What a status means that is not success (PROTOCOL section 1). `json` is the body, where it is a JSON object.
pub fn of_status(
    status: u16,
    after: Option<Duration>,
    json: Option<&Value>,
    content_type: &str,
) -> Option<Trouble> {
    let said = json.map(errors_of).unwrap_or_default().join("; ");
    let with = |text: String| {
        if said.is_empty() {
            text
        } else {
            format!("{text}: {said}")
        }
    };
    match status {
        200..300 => None,
        401 => Some(Trouble::Refused(with(
            "the API key is refused (status 401)".to_owned(),
        ))),
        403 => Some(Trouble::Refused(with(
            "the API key may not do this (status 403)".to_owned(),
        ))),
        // These ask to be asked again; so does whatever shows a person a page where a program wants JSON.
        407 | 408 | 425 | 429 | 500.. => Some(Trouble::Lost {
            why: with(format!("status {status}")),
            after,
        }),
        300..=399 => Some(Trouble::Lost {
            why: format!("status {status}, a redirect; is the base URL right?"),
            after,
        }),
        _ if json.is_none() && content_type.contains("html") => Some(Trouble::Lost {
            why: format!("status {status} with a web page, perhaps a proxy's"),
            after,
        }),
        _ if said.is_empty() => Some(Trouble::Rejected(format!("status {status}"))),
        _ => Some(Trouble::Rejected(said)),
    }
}

/// The messages of GraphQL's `errors`, or of the `error` that some answers have instead; with both, they say the same.
pub fn errors_of(json: &Value) -> Vec<String> {
    let listed = json.get("errors").and_then(Value::as_array);
    let listed = listed.filter(|errors| !errors.is_empty());
    listed
        .into_iter()
        .flatten()
        .chain(json.get("error").filter(|_| listed.is_none()))
        .map(|error| match error.get("message").unwrap_or(error) {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_in_the_clear_is_called_so() {
        let cause = std::io::Error::other("received corrupt message of type InvalidContentType");
        let error = of_library(&ureq::Error::Io(cause)).into_error("https://s");
        assert_eq!(
            error.message,
            "https://s cannot be reached: it answers without TLS; is its address `http://`?"
        );
    }

    #[test]
    fn a_status_is_passing_refused_or_final() {
        let errors = json!({"errors": [{"message": "no"}, "worse"]});
        for (status, json, kind, expected) in [
            (200, None, "", None),
            (401, None, "", Some(Kind::Config)),
            (403, Some(&errors), "", Some(Kind::Config)),
            (400, Some(&errors), "", Some(Kind::Input)),
            (404, Some(&errors), "", Some(Kind::Input)),
            (404, None, "text/plain", Some(Kind::Input)),
            (404, None, "text/html", Some(Kind::Queue)),
            (302, None, "text/html", Some(Kind::Queue)),
            (407, None, "", Some(Kind::Queue)),
            (408, None, "", Some(Kind::Queue)),
            (429, Some(&errors), "", Some(Kind::Queue)),
            (500, Some(&errors), "", Some(Kind::Queue)),
            (503, None, "text/html", Some(Kind::Queue)),
        ] {
            let trouble = of_status(status, None, json, kind);
            let found = trouble.map(|trouble| trouble.into_error("s").kind);
            assert_eq!(found, expected, "{status} {kind}");
        }
        assert_eq!(errors_of(&errors), ["no", "worse"]);
        assert_eq!(errors_of(&json!({"error": "gone"})), ["gone"]);
        // As `serve` refuses a key.
        let both = json!({"error": "no", "errors": [{"message": "no"}]});
        assert_eq!(errors_of(&both), ["no"]);
    }
}
