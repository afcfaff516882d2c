//! Which proxy a request goes through. The HTTP library's own choice overlooks the scheme, networks in `NO_PROXY` and
//! that this machine needs none, so the choice is made here, for each address. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::identity::{Address, split_port};
use crate::launch::command::Secret;

/// The proxy variables of the environment.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    http: Option<String>,
    https: Option<String>,
    none_for: Vec<String>,
}

impl Proxies {
    /// Reads `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`. The small letters win, as in curl; an empty
    /// variable is as good as none.
    pub fn read(environment: &BTreeMap<String, String>) -> Proxies {
        let get = |name: &str| {
            [name.to_ascii_lowercase(), name.to_owned()]
                .iter()
                .find_map(|name| environment.get(name))
                .map(|value| value.trim())
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
        };
        let all = get("ALL_PROXY");
        Proxies {
            http: get("HTTP_PROXY").or_else(|| all.clone()),
            https: get("HTTPS_PROXY").or(all),
            none_for: get("NO_PROXY")
                .unwrap_or_default()
                .split([',', ' '])
                .filter(|entry| !entry.is_empty())
                .map(str::to_ascii_lowercase)
                .collect(),
        }
    }

    /// The same with the proxy that the owner chose, where he chose one. What needs none stays as it is.
    #[must_use]
    pub fn or_all(mut self, proxy: Option<&Secret>) -> Proxies {
        if let Some(proxy) = proxy {
            self.http = Some(proxy.expose().to_owned());
            self.https = Some(proxy.expose().to_owned());
        }
        self
    }

    /// The proxy for `address`; `None` is a direct connection. This machine itself is never reached by a proxy.
    pub fn choose(&self, address: &Address) -> Option<&str> {
        let proxy = if address.secure {
            self.https.as_deref()
        } else {
            self.http.as_deref()
        }?;
        let exempt = address.is_loopback()
            || self
                .none_for
                .iter()
                .any(|entry| exempts(entry, &address.host, address.effective_port()));
        (!exempt).then_some(proxy)
    }
}

/// Does an entry of `NO_PROXY` name this host? `*`, a name with all that ends in it, a number, a network such as
/// `10.0.0.0/8`; each with `:port` or without.
fn exempts(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((network, bits)) = entry.split_once('/') {
        return in_network(host, network, bits);
    }
    let (name, only_port) = split_port(entry);
    if only_port.is_some_and(|only| only.parse() != Ok(port)) {
        return false;
    }
    if let (Ok(entry), Ok(host)) = (name.parse::<IpAddr>(), host.parse::<IpAddr>()) {
        return entry == host;
    }
    let name = name.trim_start_matches('*').trim_start_matches('.');
    !name.is_empty()
        && (host == name
            || host
                .strip_suffix(name)
                .is_some_and(|rest| rest.ends_with('.')))
}

fn in_network(host: &str, network: &str, bits: &str) -> bool {
    let (Ok(host), Ok(network), Ok(bits)) = (
        host.parse::<IpAddr>(),
        network.parse::<IpAddr>(),
        bits.parse::<u32>(),
    ) else {
        return false;
    };
    // Both as numbers of 128 bits; the prefix is counted from the top of the family's own width.
    let (host, network, width) = match (host, network) {
        (IpAddr::V4(host), IpAddr::V4(network)) => (
            u128::from(host.to_bits()),
            u128::from(network.to_bits()),
            32,
        ),
        (IpAddr::V6(host), IpAddr::V6(network)) => (host.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    let Some(ignored) = u32::checked_sub(width, bits) else {
        return false;
    };
    (host ^ network).checked_shr(ignored).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let address = Address::parse(url, "test").expect(url);
        Proxies::read(&variables)
            .choose(&address)
            .map(str::to_owned)
    }

    #[test]
    fn the_scheme_decides_which_variable_counts() {
        let both = [("HTTPS_PROXY", "http://s:1"), ("HTTP_PROXY", "http://h:1")];
        for (variables, url, expected) in [
            (&both[..], "https://x.example", Some("http://s:1")),
            (&both[..], "http://x.example", Some("http://h:1")),
            (&both[..1], "http://x.example", None),
            (&both[1..], "https://x.example", None),
            (
                &[("ALL_PROXY", "http://a:1")][..],
                "https://x.example",
                Some("http://a:1"),
            ),
            (
                &[("ALL_PROXY", "http://a:1"), ("https_proxy", "http://l:1")][..],
                "https://x.example",
                Some("http://l:1"),
            ),
            (
                &[("HTTPS_PROXY", "http://u:1"), ("https_proxy", "http://l:1")][..],
                "https://x.example",
                Some("http://l:1"),
            ),
            (&[("HTTPS_PROXY", "")][..], "https://x.example", None),
            (&both[..], "http://localhost:8080", None),
            (&both[..], "https://127.0.0.1", None),
            (&both[..], "https://[::1]:8080", None),
        ] {
            assert_eq!(
                chosen(variables, url).as_deref(),
                expected,
                "{variables:?} {url}"
            );
        }
    }

    #[test]
    fn no_proxy_names_hosts_domains_networks_and_ports() {
        for (none_for, url, exempt) in [
            ("*", "https://x.example", true),
            ("x.example", "https://x.example", true),
            ("X.Example", "https://x.EXAMPLE", true),
            ("example", "https://x.example", true),
            (".example", "https://x.example", true),
            ("*.example", "https://x.example", true),
            ("ample", "https://x.example", false),
            ("y.example, x.example", "https://x.example", true),
            ("x.example:443", "https://x.example", true),
            ("x.example:8443", "https://x.example", false),
            ("x.example:8443", "https://x.example:8443", true),
            ("10.0.0.0/8", "https://10.1.2.3", true),
            ("10.0.0.0/8", "https://11.1.2.3", false),
            ("10.1.2.3/32", "https://10.1.2.3", true),
            ("0.0.0.0/0", "https://9.9.9.9", true),
            ("10.0.0.0/40", "https://10.0.0.0", false),
            ("10.0.0.0/8", "https://x.example", false),
            ("fd00::/8", "https://[fd12::1]", true),
            ("fd00::/8", "https://[fe80::1]", false),
            ("10.1.2.3", "https://10.1.2.3:8443", true),
            ("10.1.2.3:1", "https://10.1.2.3:8443", false),
            ("", "https://x.example", false),
            (",", "https://x.example", false),
        ] {
            let variables = [("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", none_for)];
            assert_eq!(
                chosen(&variables, url).is_none(),
                exempt,
                "{none_for} {url}"
            );
        }
    }
}
