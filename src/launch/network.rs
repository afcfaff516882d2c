//! How this machine reaches the world where that takes a company's certificates or a proxy: the agent, what is built
//! and what runs get the same. Pure.

use std::path::PathBuf;

use crate::launch::command::Secret;

/// Where a container finds the certificates.
pub const CA_IN_CONTAINER: &str = "/etc/launch-agent/ca-bundle.pem";

/// The variables by which programs find them: OpenSSL and Python, requests, curl, pip, git.
pub const CA_VARIABLES: [&str; 5] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
];

/// Those of the clouds' command lines, which read no other: aws, gcloud.
const CLOUDS_CA_VARIABLES: [&str; 2] = ["AWS_CA_BUNDLE", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"];

/// What a proxy is not for, where the agent's environment does not say.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

/// `network` of `launch-config.yaml`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// A file of certificates in PEM form, in place of the system's.
    pub ca_bundle: Option<PathBuf>,
    /// `http://[user:password@]host:port`. A secret, because it may hold a password.
    pub proxy: Option<Secret>,
    /// `NO_PROXY` of the agent's environment.
    pub no_proxy: Option<String>,
}

impl Network {
    /// What programs get that reach the world for the agent: git, a cloud's command line, docker's own client.
    pub fn variables(&self) -> Vec<(&'static str, Secret)> {
        let bundle = self.ca_bundle.iter();
        let certificates = bundle.flat_map(|bundle| {
            let names = CA_VARIABLES.into_iter().chain(CLOUDS_CA_VARIABLES);
            names.map(|name| (name, Secret::new(bundle.to_string_lossy())))
        });
        let no_proxy = self.no_proxy_variables().into_iter();
        certificates
            .chain(self.proxy_variables())
            .chain(no_proxy.map(|(name, value)| (name, Secret::new(value))))
            .collect()
    }

    /// The variables of the proxy, in both spellings: curl reads only small letters for `http`, others only large.
    pub fn proxy_variables(&self) -> Vec<(&'static str, Secret)> {
        let names = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];
        let proxy = self.proxy.iter();
        proxy
            .flat_map(|proxy| names.map(|name| (name, proxy.clone())))
            .collect()
    }

    /// The variables that say what the proxy is not for.
    pub fn no_proxy_variables(&self) -> Vec<(&'static str, &str)> {
        if self.proxy.is_none() {
            return Vec::new();
        }
        let none_for = self.no_proxy.as_deref().unwrap_or(NO_PROXY);
        vec![("NO_PROXY", none_for), ("no_proxy", none_for)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_the_agent_gets_certificates_and_proxy_where_there_are_some() {
        assert!(Network::default().variables().is_empty());
        let network = Network {
            ca_bundle: Some("/etc/company.pem".into()),
            proxy: Some(Secret::new("http://p:1")),
            no_proxy: None,
        };
        let variables = network.variables();
        let value = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.expose())
        };
        assert_eq!(value("GIT_SSL_CAINFO"), Some("/etc/company.pem"));
        assert_eq!(value("AWS_CA_BUNDLE"), Some("/etc/company.pem"));
        assert_eq!(value("https_proxy"), Some("http://p:1"));
        assert_eq!(value("no_proxy"), Some("localhost,127.0.0.1,::1"));
    }

    #[test]
    fn a_proxy_is_not_for_this_machine_unless_the_owner_says_so() {
        let mut network = Network {
            proxy: Some(Secret::new("http://p:1")),
            ..Network::default()
        };
        let proxies = network.proxy_variables();
        assert_eq!(proxies.len(), 4);
        assert!(
            proxies
                .iter()
                .all(|(_, value)| value.expose() == "http://p:1")
        );
        assert_eq!(
            network.no_proxy_variables(),
            [
                ("NO_PROXY", "localhost,127.0.0.1,::1"),
                ("no_proxy", "localhost,127.0.0.1,::1")
            ]
        );
        network.no_proxy = Some("inner.example".to_owned());
        assert_eq!(network.no_proxy_variables()[0].1, "inner.example");
        assert!(Network::default().proxy_variables().is_empty());
        assert!(Network::default().no_proxy_variables().is_empty());
    }
}
