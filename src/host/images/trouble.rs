//! What docker's words about a registry mean, whether trying again is worth it, and what a person can do. Nothing here
//! runs anything.

use std::time::Duration;

use crate::failure::{Error, Kind};
use crate::host::engine;
use crate::launch::registry::{Login, Registry, Service};

/// Why an image could not be pulled, pushed or asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The engine itself does not answer, or not to this user.
    Engine,
    /// The registry has no such image, or no such repository.
    NotFound,
    /// It wants a login, or the one that there is may not do this.
    Denied,
    /// The image is there, but not for this platform.
    NoPlatform,
    /// This machine's disk is full.
    NoSpace,
    /// It has had enough requests for now.
    TooManyRequests,
    /// The network does not lead to it.
    Unreachable,
    /// It answered that something is wrong with it, or the connection broke.
    Passing,
    /// Something else.
    Other,
}

/// The first line that fits decides, so that what is certain stands before what could be many things: a denied login
/// is also an `unexpected status`.
const WORDS: &[(Trouble, &[&str])] = &[
    (Trouble::NoSpace, &["no space left on device"]),
    (
        Trouble::TooManyRequests,
        &["toomanyrequests", "too many requests", "rate limit"],
    ),
    (
        Trouble::NoPlatform,
        &[
            "no matching manifest for",
            "does not match the specified platform",
            "does not provide the specified platform",
            "no match for platform",
        ],
    ),
    (
        Trouble::Denied,
        &[
            "access denied",
            "access is denied",
            "access to the resource is denied",
            "denied:",
            "unauthorized",
            "no basic auth credentials",
            "authentication required",
            "authorization failed",
            "authorization token has expired",
            "insufficient_scope",
            "403 forbidden",
            "credentials are not",
            "error getting credentials",
        ],
    ),
    (
        Trouble::NotFound,
        &[
            "manifest unknown",
            "no such manifest",
            "name unknown",
            "name_unknown",
            "not found: does not exist",
            "repository does not exist",
            "404 not found",
            ": not found",
        ],
    ),
    (
        Trouble::Unreachable,
        &[
            "no such host",
            "server misbehaving",
            "name resolution",
            "connection refused",
            "no route to host",
            "network is unreachable",
            "i/o timeout",
            "client.timeout exceeded",
            "context deadline exceeded",
            "tls handshake timeout",
            "proxyconnect",
            "operation timed out",
        ],
    ),
    (
        Trouble::Passing,
        &[
            ": eof",
            "unexpected eof",
            "connection reset",
            "broken pipe",
            "use of closed network connection",
            "500 internal",
            "502 bad",
            "503 service",
            "504 gateway",
            "internal server error",
            "bad gateway",
            "service unavailable",
            "gateway time",
            "unexpected status",
            "received unexpected http status: 5",
        ],
    ),
];

impl Trouble {
    /// What docker's words mean.
    pub fn of(said: &str) -> Trouble {
        if engine::engine_trouble(said).is_some() {
            return Trouble::Engine;
        }
        let said = said.to_lowercase();
        WORDS
            .iter()
            .find(|(_, words)| words.iter().any(|word| said.contains(word)))
            .map_or(Trouble::Other, |(trouble, _)| *trouble)
    }

    /// How long to wait before trial `next` (the second is 2), when another is worth it. What a registry says for
    /// certain it says again.
    pub fn pause_before(self, next: u32) -> Option<Duration> {
        const TRIALS: u32 = 3;
        let first = match self {
            Trouble::Unreachable | Trouble::Passing => 1,
            Trouble::TooManyRequests => 5,
            _ => return None,
        };
        (next <= TRIALS).then(|| Duration::from_secs(first * 4_u64.pow(next.saturating_sub(2))))
    }

    /// The error for a person, in docker's words: `said` about `image`.
    pub fn error(self, image: &str, login: Option<&Login>, said: &str) -> Error {
        if let Some(error) = engine::engine_trouble(said) {
            return error;
        }
        let kind = match self {
            Trouble::NoSpace => Kind::System,
            _ => Kind::Input,
        };
        let error = Error::new(kind, said);
        match self.hint(image, login) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// The error about an image that a build starts from, in docker's words. Which image that is they say themselves.
    pub fn error_in_build(self, said: &str) -> Error {
        let (what, hint) = match self {
            Trouble::Unreachable => (
                "the registry of the image to start from could not be reached",
                "see that this machine's docker engine reaches it: network, DNS, and a proxy in the engine's own configuration; `network.proxy` of launch-config.yaml is for the agent, for what a build runs, and for jobs",
            ),
            Trouble::Passing => (
                "the registry of the image to start from has trouble of its own",
                "try again later",
            ),
            Trouble::TooManyRequests => (
                "the registry of the image to start from has had too many requests",
                "try again later; a login has a higher limit: run `docker login` as the agent's user",
            ),
            _ => (
                "the image to start from could not be pulled",
                "check the name after `FROM`; for a private registry run `docker login` as the agent's user",
            ),
        };
        Error::input(format!("{what}: {said}")).hint(hint)
    }

    fn hint(self, image: &str, login: Option<&Login>) -> Option<String> {
        let registry = Registry::of_image(image);
        let host = &registry.host;
        let hint = match self {
            Trouble::Engine | Trouble::Other => return None,
            Trouble::NotFound => match &registry.service {
                Service::Elastic { region } => format!(
                    "check its name; ECR wants each repository made first: `aws ecr create-repository --region {region} --repository-name {}`",
                    repository(image)
                ),
                Service::Artifact => "check its name; Artifact Registry wants each repository made first: `gcloud artifacts repositories create`".to_owned(),
                _ => "check its name and its tag".to_owned(),
            },
            Trouble::Denied => match (login, &registry.service) {
                (Some(login), _) => format!("the agent logged in with `{}`: see that this account may use the repository", login.token),
                (None, Service::DockerHub) => "check its name; for a private image run `docker login` as the agent's user".to_owned(),
                (None, Service::Other) => format!("check its name; for a registry that wants a login run `docker login {host}` as the agent's user"),
                // A token that somebody left in docker's configuration is the likeliest reason, and stands in the way.
                (None, _) => format!("check its name; a token from docker's configuration may have ended: log in to `{host}` again, or use its credential helper"),
            },
            Trouble::NoPlatform => "the image is not made for this machine's kind of processor; `platform` in the queue's config asks for another".to_owned(),
            Trouble::NoSpace => "make room where docker keeps its images: `docker system df` shows what takes it".to_owned(),
            Trouble::TooManyRequests => format!("try again later; a login to `{host}` has a higher limit"),
            Trouble::Unreachable => format!("see that this machine's docker engine reaches `{host}`: network, DNS, proxy"),
            Trouble::Passing => format!("the registry `{host}` has trouble of its own; try again later"),
        };
        Some(hint)
    }
}

/// The part of an image's name that a registry calls the repository.
fn repository(image: &str) -> &str {
    let path = image.split_once('/').map_or(image, |(_, path)| path);
    let end = path.find([':', '@']).unwrap_or(path.len());
    &path[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_dockers_words() {
        for (said, trouble) in [
            (
                "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
                Trouble::Engine,
            ),
            (
                "manifest for 127.0.0.1:5000/x:2 not found: manifest unknown: manifest unknown",
                Trouble::NotFound,
            ),
            ("no such manifest: 127.0.0.1:5000/x:2", Trouble::NotFound),
            (
                "name unknown: The repository with name 'x' does not exist in the registry with id '1'",
                Trouble::NotFound,
            ),
            (
                "failed to resolve reference \"docker.io/library/x:1\": docker.io/library/x:1: not found",
                Trouble::NotFound,
            ),
            (
                "pull access denied for x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
                Trouble::Denied,
            ),
            (
                "Head \"http://127.0.0.1:5000/v2/x/manifests/1\": no basic auth credentials",
                Trouble::Denied,
            ),
            (
                "denied: Your authorization token has expired. Reauthenticate and try again.",
                Trouble::Denied,
            ),
            (
                "unexpected status from HEAD request to https://x/v2/y/manifests/1: 403 Forbidden",
                Trouble::Denied,
            ),
            (
                "no matching manifest for linux/arm64/v8 in the manifest list entries",
                Trouble::NoPlatform,
            ),
            (
                "image with reference x was found but does not match the specified platform: wanted linux/arm64, actual: linux/amd64",
                Trouble::NoPlatform,
            ),
            (
                "failed to register layer: write /x: no space left on device",
                Trouble::NoSpace,
            ),
            (
                "toomanyrequests: You have reached your pull rate limit.",
                Trouble::TooManyRequests,
            ),
            (
                "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io on 10.0.0.1:53: no such host",
                Trouble::Unreachable,
            ),
            (
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                Trouble::Unreachable,
            ),
            (
                "Get \"https://x/v2/\": net/http: TLS handshake timeout",
                Trouble::Unreachable,
            ),
            (
                "Get \"https://x/v2/\": net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)",
                Trouble::Unreachable,
            ),
            (
                "received unexpected HTTP status: 502 Bad Gateway",
                Trouble::Passing,
            ),
            ("unexpected EOF", Trouble::Passing),
            (
                "read tcp 1.2.3.4:5->6.7.8.9:443: read: connection reset by peer",
                Trouble::Passing,
            ),
            ("something nobody has seen", Trouble::Other),
        ] {
            assert_eq!(Trouble::of(said), trouble, "{said}");
        }
    }

    #[test]
    fn a_builds_image_is_not_to_be_had_for_different_reasons() {
        for (said, message, hint) in [
            (
                "Get \"https://x/v2/\": dial tcp: lookup x: no such host",
                "the registry of the image to start from could not be reached: Get",
                "`network.proxy`",
            ),
            (
                "Get \"https://x/v2/\": net/http: TLS handshake timeout",
                "the registry of the image to start from could not be reached: Get",
                "the engine's own configuration",
            ),
            (
                "received unexpected HTTP status: 503 Service Unavailable",
                "the registry of the image to start from has trouble of its own: received",
                "try again later",
            ),
            (
                "toomanyrequests: You have reached your pull rate limit.",
                "the registry of the image to start from has had too many requests: toomanyrequests",
                "`docker login`",
            ),
            (
                "pull access denied for nope, repository does not exist or may require 'docker login'",
                "the image to start from could not be pulled: pull access denied for nope",
                "check the name after `FROM`",
            ),
        ] {
            let error = Trouble::of(said).error_in_build(said);
            assert!(error.message.starts_with(message), "{error:?}");
            assert!(
                error.hint.as_ref().is_some_and(|it| it.contains(hint)),
                "{error:?}"
            );
        }
    }

    #[test]
    fn what_is_certain_is_not_tried_again() {
        for trouble in [
            Trouble::Engine,
            Trouble::NotFound,
            Trouble::Denied,
            Trouble::NoPlatform,
            Trouble::NoSpace,
            Trouble::Other,
        ] {
            assert_eq!(trouble.pause_before(2), None, "{trouble:?}");
        }
        let pauses = |trouble: Trouble| {
            (2..10)
                .map_while(|next| Some(trouble.pause_before(next)?.as_secs()))
                .collect::<Vec<_>>()
        };
        assert_eq!(pauses(Trouble::Unreachable), [1, 4]);
        assert_eq!(pauses(Trouble::Passing), [1, 4]);
        assert_eq!(pauses(Trouble::TooManyRequests), [5, 20]);
    }

    #[test]
    fn the_hint_is_about_the_registry_of_the_image() {
        let hint = |trouble: Trouble, image: &str| {
            let error = trouble.error(image, None, "because");
            assert_eq!(error.message, "because");
            error.hint.expect("a hint")
        };
        let image = "1.dkr.ecr.eu-west-1.amazonaws.com/team/train:a1";
        assert!(hint(Trouble::NotFound, image).ends_with(
            "`aws ecr create-repository --region eu-west-1 --repository-name team/train`"
        ));
        assert!(hint(Trouble::Denied, "me/train").contains("`docker login` as"));
        assert!(
            hint(Trouble::Denied, "localhost:5000/train").contains("`docker login localhost:5000`")
        );
        assert!(hint(Trouble::Unreachable, "train").contains("`docker.io`"));
    }
}
