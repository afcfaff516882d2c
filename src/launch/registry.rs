//! Registries: which one an image's name means, where built images go, and how docker is logged in there. Pure.
//!
//! Sources: the reference's checks of `builder.destination` (REFERENCE 1.2); the addresses and the logins are those
//! of each cloud's own documentation, named beside them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::{Error, Kind, Result};
use crate::launch::command::CommandLine;
use crate::launch::network::Network;
use crate::launch::{docker, image};

/// The host that a name without one means.
const DOCKER_HUB: &str = "docker.io";

/// A registry: its host, with the port where it has one, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// As docker's configuration names it.
    pub host: String,
    /// Whose it is.
    pub service: Service,
}

/// Whose registry it is: each cloud has its own shape of names and its own login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// Amazon's Elastic Container Registry.
    Elastic {
        /// Where it is, which its login must be asked for.
        region: String,
    },
    /// Google's Artifact Registry, `REGION-docker.pkg.dev`.
    Artifact,
    /// Google's older Container Registry, `gcr.io`.
    Container,
    /// Azure's Container Registry.
    Azure {
        /// The first part of its host.
        name: String,
    },
    /// Docker's own.
    DockerHub,
    /// Any other.
    Other,
}

impl Registry {
    /// The registry that an image comes from.
    pub fn of_image(image: &str) -> Registry {
        match image::registry_part(image) {
            None | Some("docker.io" | "index.docker.io" | "registry-1.docker.io") => Registry {
                host: DOCKER_HUB.to_owned(),
                service: Service::DockerHub,
            },
            Some(host) => Registry {
                host: host.to_owned(),
                service: service(host),
            },
        }
    }

    /// Is it on this very machine? Docker takes such a registry without TLS, as it does no other.
    pub fn is_loopback(&self) -> bool {
        let name = self
            .host
            .rsplit_once(':')
            .map_or(&*self.host, |(name, _)| name);
        name == "localhost" || name == "[::1]" || name.starts_with("127.")
    }
}

fn service(host: &str) -> Service {
    let host = host.to_ascii_lowercase();
    if let Some(region) = elastic_region(&host) {
        Service::Elastic {
            region: region.to_owned(),
        }
    } else if host.ends_with("-docker.pkg.dev") {
        Service::Artifact
    } else if host == "gcr.io" || host.ends_with(".gcr.io") {
        Service::Container
    } else if let Some(name) = host.strip_suffix(".azurecr.io") {
        Service::Azure {
            name: name.to_owned(),
        }
    } else {
        Service::Other
    }
}

/// `ACCOUNT.dkr.ecr.REGION.amazonaws.com` (in China `.amazonaws.com.cn`), and for both versions of IP
/// `ACCOUNT.dkr-ecr.REGION.on.aws`. Source: the ECR user guide, "private registry" and "IPv6".
fn elastic_region(host: &str) -> Option<&str> {
    let is_ours = |word: &str, product: [&str; 2]| product.contains(&word);
    let suffixes = [".amazonaws.com", ".amazonaws.com.cn"];
    if let Some(rest) = suffixes.iter().find_map(|suffix| host.strip_suffix(suffix)) {
        let (_account, rest) = rest.split_once(".dkr.")?;
        let (product, region) = rest.split_once('.')?;
        return is_ours(product, ["ecr", "ecr-fips"]).then_some(region);
    }
    let suffixes = [".on.aws", ".on.amazonwebservices.com.cn"];
    let rest = suffixes
        .iter()
        .find_map(|suffix| host.strip_suffix(suffix))?;
    let (_account, rest) = rest.split_once('.')?;
    let (product, region) = rest.split_once('.')?;
    is_ours(product, ["dkr-ecr", "dkr-ecr-fips"]).then_some(region)
}

/// Where built images go: the name of an image without a tag, which each build adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The name, without `https://` in front.
    pub name: String,
    /// Its registry.
    pub registry: Registry,
}

impl Destination {
    /// Reads `builder.destination`.
    pub fn parse(text: &str) -> Result<Destination> {
        let wrong = |why: String| {
            Err(
                Error::new(Kind::Config, format!("`{text}` is no destination for images: {why}"))
                    .hint("it is `REGISTRY/NAME` without a tag: the agent gives each image a tag made from its content"),
            )
        };
        let name = text.strip_prefix("https://").unwrap_or(text);
        if let Some((scheme, _)) = name.split_once("://") {
            return wrong(format!("it begins with `{scheme}://`"));
        }
        if let Some((_, digest)) = name.split_once('@') {
            return wrong(format!("it has the digest `@{digest}`"));
        }
        let (bare, tag) = image::split_tag(name);
        let is_host = |word: &str| word == "localhost" || word.contains('.');
        if !bare.contains('/') && is_host(bare) {
            return wrong("it has no name of an image after the registry".to_owned());
        }
        if let Some(tag) = tag {
            return wrong(format!("it has the tag `:{tag}`"));
        }
        let (registry, path) = match image::registry_part(name) {
            Some(host) => (
                Registry::of_image(name),
                name[host.len()..].trim_matches('/'),
            ),
            None => (Registry::of_image(name), name),
        };
        let least = registry.service.least_parts();
        if path.split('/').filter(|part| !part.is_empty()).count() < least.len() {
            return wrong(format!(
                "it has no name of an image; here it is `{}/{}`",
                registry.host,
                least.join("/")
            ));
        }
        if let Err(error) = image::check(name) {
            return wrong(error.message);
        }
        Ok(Destination {
            name: name.to_owned(),
            registry,
        })
    }

    /// The image with this tag there.
    pub fn image(&self, tag: &str) -> String {
        format!("{}:{tag}", self.name)
    }

    /// What the owner should know: the agent can log in to the clouds alone.
    pub fn warning(&self) -> Option<String> {
        (self.registry.service == Service::Other).then(|| {
            format!(
                "the agent knows no login of its own for the registry `{0}`: where it wants one, run `docker login {0}` as the agent's user",
                self.registry.host
            )
        })
    }
}

impl Service {
    /// The parts that a name must have after the host.
    fn least_parts(&self) -> &'static [&'static str] {
        match self {
            Service::Artifact => &["PROJECT", "REPOSITORY", "IMAGE"],
            Service::Container => &["PROJECT", "IMAGE"],
            Service::DockerHub => &["USER", "IMAGE"],
            Service::Elastic { .. } | Service::Azure { .. } => &["REPOSITORY"],
            Service::Other => &["IMAGE"],
        }
    }
}

/// How docker gets into a cloud's registry: the cloud's own CLI prints a token, and docker keeps it in a folder of
/// the agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The registry's host.
    pub host: String,
    /// Prints the token, and nothing else.
    pub token: CommandLine,
    /// Takes the token from its standard input.
    pub login: CommandLine,
    /// The agent's own docker configuration for this registry, which `docker --config` is given.
    pub folder: PathBuf,
    /// The user's docker configuration, which the agent's is made from.
    pub user_folder: PathBuf,
    /// How long a token is used before another is asked for.
    pub renew_after: Duration,
    /// What installs and sets up the cloud's CLI.
    pub set_up: &'static str,
}

impl Login {
    /// The login of a registry, if it is one of a cloud's. `folders` holds the agent's docker configurations.
    pub fn new(registry: &Registry, folders: &Path, user_folder: &Path) -> Option<Login> {
        let (token, user, renew_after, set_up) = registry.service.token()?;
        let folder = folders.join(registry.host.replace(':', "_"));
        let login = docker::login(&folder, user, &registry.host);
        Some(Login {
            host: registry.host.clone(),
            token,
            login,
            folder,
            user_folder: user_folder.to_owned(),
            renew_after,
            set_up,
        })
    }

    /// The same for a machine that reaches the world this way.
    #[must_use]
    pub fn through(mut self, network: &Network) -> Login {
        let variables = network.variables().into_iter();
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        self.token.env.extend(variables);
        self
    }
}

impl Service {
    /// What prints a token, the user that it is for, how long it is used, and what sets the CLI up.
    fn token(&self) -> Option<(CommandLine, &'static str, Duration, &'static str)> {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let command = |program: &str, arguments: &[&str]| {
            CommandLine::new(program).args(arguments.iter().copied())
        };
        match self {
            // A token lasts 12 hours. Source: the ECR user guide, "private registry authentication".
            Service::Elastic { region } => Some((
                command("aws", &["ecr", "get-login-password", "--region", region]),
                "AWS",
                Duration::from_secs(11 * HOUR),
                "install the AWS CLI and give it credentials: `aws configure`",
            )),
            // A token lasts an hour, but gcloud hands out one that it has until four minutes before its end.
            // Source: Artifact Registry, "configure authentication to Docker"; google-auth's REFRESH_THRESHOLD.
            Service::Artifact | Service::Container => Some((
                command("gcloud", &["auth", "print-access-token"]),
                "oauth2accesstoken",
                Duration::from_secs(3 * MINUTE),
                "install the Google Cloud CLI and log in: `gcloud auth login`",
            )),
            // A token lasts 3 hours, and its user is this one for everybody. Source: Azure Container Registry,
            // "authenticate with a registry", `az acr login --expose-token`.
            Service::Azure { name } => Some((
                command("az", &["acr", "login", "--name", name, "--expose-token"]).args([
                    "--output",
                    "tsv",
                    "--query",
                    "accessToken",
                ]),
                "00000000-0000-0000-0000-000000000000",
                Duration::from_secs(2 * HOUR + 30 * MINUTE),
                "install the Azure CLI and log in: `az login`",
            )),
            Service::DockerHub | Service::Other => None,
        }
    }
}

/// What a person would type for it.
impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {}", self.token, self.login)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_registry_of_an_image() {
        let elastic = |region: &str| Service::Elastic {
            region: region.to_owned(),
        };
        let azure = |name: &str| Service::Azure {
            name: name.to_owned(),
        };
        for (image, host, service) in [
            ("python:3.12", "docker.io", Service::DockerHub),
            ("me/train", "docker.io", Service::DockerHub),
            ("docker.io/me/train:1", "docker.io", Service::DockerHub),
            ("localhost:5000/x:1", "localhost:5000", Service::Other),
            ("localhost/x", "localhost", Service::Other),
            ("ghcr.io/me/x@sha256:aa", "ghcr.io", Service::Other),
            ("[::1]:5000/x", "[::1]:5000", Service::Other),
            ("gcr.io/p/x", "gcr.io", Service::Container),
            ("eu.gcr.io/p/x", "eu.gcr.io", Service::Container),
            (
                "us-east1-docker.pkg.dev/p/r/x",
                "us-east1-docker.pkg.dev",
                Service::Artifact,
            ),
            ("team.azurecr.io/x", "team.azurecr.io", azure("team")),
            ("azurecr.io/x", "azurecr.io", Service::Other),
            (
                "1.dkr.ecr.eu-west-1.amazonaws.com/x",
                "1.dkr.ecr.eu-west-1.amazonaws.com",
                elastic("eu-west-1"),
            ),
            (
                "1.dkr.ecr-fips.us-gov-west-1.amazonaws.com/x",
                "1.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
                elastic("us-gov-west-1"),
            ),
            (
                "1.dkr.ecr.cn-north-1.amazonaws.com.cn/x",
                "1.dkr.ecr.cn-north-1.amazonaws.com.cn",
                elastic("cn-north-1"),
            ),
            (
                "1.dkr-ecr.eu-west-1.on.aws/x",
                "1.dkr-ecr.eu-west-1.on.aws",
                elastic("eu-west-1"),
            ),
            (
                "1.dkr.s3.eu-west-1.amazonaws.com/x",
                "1.dkr.s3.eu-west-1.amazonaws.com",
                Service::Other,
            ),
            ("public.ecr.aws/a/x", "public.ecr.aws", Service::Other),
        ] {
            let expected = Registry {
                host: host.to_owned(),
                service,
            };
            assert_eq!(Registry::of_image(image), expected, "{image}");
        }
    }

    #[test]
    fn knows_this_machine() {
        for (image, is_loopback) in [
            ("localhost:5000/x", true),
            ("127.0.0.1:5000/x", true),
            ("[::1]:5000/x", true),
            ("localhost.example.org/x", false),
            ("registry:5000/x", false),
            ("x", false),
        ] {
            assert_eq!(
                Registry::of_image(image).is_loopback(),
                is_loopback,
                "{image}"
            );
        }
    }

    #[test]
    fn takes_a_name_without_a_tag_as_the_destination() {
        for text in [
            "localhost:5000/x",
            "https://team.azurecr.io/train",
            "team.azurecr.io/models/train",
            "1.dkr.ecr.eu-west-1.amazonaws.com/team/train.v2",
            "us-east1-docker.pkg.dev/project/repository/a/b",
            "gcr.io/project/train",
            "me/train",
            "docker.io/me/train",
            "ghcr.io/me/train",
            "registry:5000/train",
        ] {
            let destination = Destination::parse(text).expect(text);
            let name = text.strip_prefix("https://").unwrap_or(text);
            assert_eq!(destination.name, name);
            assert_eq!(destination.image("a1"), format!("{name}:a1"));
            let is_other = destination.registry.service == Service::Other;
            assert_eq!(destination.warning().is_some(), is_other, "{text}");
        }
    }

    #[test]
    fn says_why_a_name_is_no_destination() {
        for (text, why) in [
            ("localhost:5000/x:v1", "it has the tag `:v1`"),
            ("me/train:", "it has the tag `:`"),
            ("me/train@sha256:aa", "it has the digest `@sha256:aa`"),
            (
                "localhost:5000",
                "it has no name of an image after the registry",
            ),
            (
                "team.azurecr.io",
                "it has no name of an image after the registry",
            ),
            (
                "localhost:5000/",
                "it has no name of an image; here it is `localhost:5000/IMAGE`",
            ),
            (
                "train",
                "it has no name of an image; here it is `docker.io/USER/IMAGE`",
            ),
            (
                "team.azurecr.io/",
                "it has no name of an image; here it is `team.azurecr.io/REPOSITORY`",
            ),
            (
                "gcr.io/project",
                "it has no name of an image; here it is `gcr.io/PROJECT/IMAGE`",
            ),
            (
                "us-docker.pkg.dev/project/repository",
                "it has no name of an image; here it is `us-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE`",
            ),
            (
                "",
                "it has no name of an image; here it is `docker.io/USER/IMAGE`",
            ),
            (
                "me/Train",
                "`me/Train` is not an image: `Train` has upper-case letters",
            ),
            (
                "ghcr.io/a b",
                "`ghcr.io/a b` is not an image: it holds blanks or control characters",
            ),
            ("-v/x", "`-v/x` is not an image: it starts with `-`"),
            ("http://localhost:5000/x", "it begins with `http://`"),
        ] {
            let error = Destination::parse(text).expect_err(text);
            let expected = format!("`{text}` is no destination for images: {why}");
            assert_eq!(error.message, expected);
        }
    }

    #[test]
    fn each_cloud_prints_its_token_and_docker_takes_it() {
        let printed = |image: &str| {
            let folders = Path::new("/state/docker");
            Login::new(
                &Registry::of_image(image),
                folders,
                Path::new("/home/.docker"),
            )
            .map(|login| login.to_string())
        };
        let docker = "docker --config /state/docker/";
        for (image, line) in [
            (
                "1.dkr.ecr.eu-west-1.amazonaws.com/x",
                format!(
                    "aws ecr get-login-password --region eu-west-1 | {docker}1.dkr.ecr.eu-west-1.amazonaws.com \
                     login --username AWS --password-stdin 1.dkr.ecr.eu-west-1.amazonaws.com"
                ),
            ),
            (
                "eu.gcr.io/p/x",
                format!(
                    "gcloud auth print-access-token | {docker}eu.gcr.io login --username oauth2accesstoken \
                     --password-stdin eu.gcr.io"
                ),
            ),
            (
                "team.azurecr.io/x",
                format!(
                    "az acr login --name team --expose-token --output tsv --query accessToken | {docker}team.azurecr.io \
                     login --username 00000000-0000-0000-0000-000000000000 --password-stdin team.azurecr.io"
                ),
            ),
        ] {
            assert_eq!(printed(image), Some(line));
        }
        for image in ["x", "ghcr.io/me/x", "localhost:5000/x"] {
            assert_eq!(printed(image), None);
        }
    }
}
