//! The address of a server, as far as this program reads one: scheme, host, port. Pure.

use std::net::IpAddr;

use crate::failure::{Error, Kind, Result};

/// A checked `http://` or `https://` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// As it is used: without a slash at the end.
    pub url: String,
    /// `https` rather than `http`.
    pub secure: bool,
    /// The host's name or number in small letters, without brackets.
    pub host: String,
    /// The port, when the address names one.
    pub port: Option<u16>,
}

impl Address {
    /// Reads an address; `place` is where it was written, for messages.
    pub fn parse(text: &str, place: &str) -> Result<Address> {
        let url = text.trim().trim_end_matches('/');
        let wrong = |why: &str| {
            Error::new(
                Kind::Config,
                format!("{place}: `{text}` is not the address of a server: {why}"),
            )
            .hint("it looks like `https://api.wandb.ai`")
        };
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| wrong("it does not begin with `https://` or `http://`"))?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(wrong("it does not begin with `https://` or `http://`")),
        };
        if rest.contains(['?', '#', ' ']) {
            return Err(wrong("it holds more than scheme, host, port and path"));
        }
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.contains('@') {
            return Err(wrong(
                "it holds a user name; the key is given apart from it",
            ));
        }
        let (host, port) = split_port(authority);
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        let port = match port {
            None => None,
            Some(port) => Some(
                port.parse()
                    .map_err(|_| wrong("its port is not a number"))?,
            ),
        };
        Ok(Address {
            url: url.to_owned(),
            secure,
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// The port that is meant, named or not.
    pub fn effective_port(&self) -> u16 {
        self.port.unwrap_or(if self.secure { 443 } else { 80 })
    }

    /// Is it this very machine?
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.ends_with(".localhost")
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|number| number.is_loopback())
    }

    /// The names under which a netrc may know it: W&B's client writes the port too, where there is one.
    pub fn machines(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        if let Some(port) = self.port {
            names.push(format!("{}:{port}", self.host));
        }
        names.push(self.host.clone());
        names
    }
}

/// `host:port`, `host`, `[::1]:port` or `[::1]`, taken apart.
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').unwrap_or((rest, ""));
        return (host, after.strip_prefix(':'));
    }
    match authority.rsplit_once(':') {
        // More than one colon without brackets is a bare IPv6 number.
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_scheme_host_and_port() {
        for (text, url, secure, host, port, loopback) in [
            (
                "https://api.wandb.ai",
                "https://api.wandb.ai",
                true,
                "api.wandb.ai",
                None,
                false,
            ),
            (
                "https://W.Example/wandb/ ",
                "https://W.Example/wandb",
                true,
                "w.example",
                None,
                false,
            ),
            (
                "http://localhost:8080/",
                "http://localhost:8080",
                false,
                "localhost",
                Some(8080),
                true,
            ),
            (
                "HTTP://127.0.0.9",
                "HTTP://127.0.0.9",
                false,
                "127.0.0.9",
                None,
                true,
            ),
            (
                "http://[::1]:81",
                "http://[::1]:81",
                false,
                "::1",
                Some(81),
                true,
            ),
        ] {
            let address = Address::parse(text, "x").expect(text);
            assert_eq!(
                (
                    address.url.as_str(),
                    address.secure,
                    address.host.as_str(),
                    address.port
                ),
                (url, secure, host, port)
            );
            assert_eq!(address.is_loopback(), loopback, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_an_address() {
        for text in [
            "api.wandb.ai",
            "ftp://x",
            "https://",
            "https://:80",
            "https://user@x",
            "https://x:port",
            "https://x?y",
        ] {
            let error = Address::parse(text, "`WANDB_BASE_URL`").expect_err(text);
            assert_eq!(error.kind, Kind::Config);
            assert!(error.message.starts_with("`WANDB_BASE_URL`: `"), "{error}");
        }
    }
}
