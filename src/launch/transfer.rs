//! Images between this machine and registries: when one is pulled, and the commands that pull and push. Pure.

use std::path::Path;
use std::time::Duration;

use crate::launch::command::CommandLine;
use crate::launch::docker;
use crate::launch::registry::{Login, Registry};

/// When an image is pulled: `pull_policy` of the agent's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Nothing was said: it is pulled, and when that fails the one that is here is used, as the reference does.
    #[default]
    IfPossible,
    /// Before every job.
    Always,
    /// When it is not here.
    Missing,
    /// It must be here.
    Never,
}

impl PullPolicy {
    /// The words of the configuration; [`PullPolicy::IfPossible`] is what no word means.
    pub const WORDS: [(&'static str, PullPolicy); 3] = [
        ("always", PullPolicy::Always),
        ("missing", PullPolicy::Missing),
        ("never", PullPolicy::Never),
    ];

    /// Its word, if it has one.
    pub fn word(self) -> Option<&'static str> {
        let mut words = PullPolicy::WORDS.iter();
        words
            .find(|(_, policy)| *policy == self)
            .map(|(word, _)| *word)
    }
}

/// What the owner decided about pulls and pushes.
#[derive(Debug, Clone, Default)]
pub struct Transfers {
    /// When an image is pulled.
    pub pull_policy: PullPolicy,
    /// How long one pull or push may take.
    pub limit: Duration,
    /// The login of the registry that built images go to, where the agent does it.
    pub login: Option<Login>,
}

impl Transfers {
    /// The pull of `image`, for `platform` where the job wants a certain one.
    pub fn pull(&self, image: &str, platform: Option<&str>) -> Transfer {
        self.transfer(image, |config| docker::pull(config, platform, image))
    }

    /// The push of `image`, whose name says where to.
    pub fn push(&self, image: &str) -> Transfer {
        self.transfer(image, |config| docker::push(config, image))
    }

    fn transfer(
        &self,
        image: &str,
        command: impl FnOnce(Option<&Path>) -> CommandLine,
    ) -> Transfer {
        let login = self.login_for(image);
        Transfer {
            image: image.to_owned(),
            command: command(login.as_ref().map(|login| login.folder.as_path())),
            login,
            limit: self.limit,
        }
    }

    /// The agent's login for the registry of `image`, if that is the one it logs in to.
    pub fn login_for(&self, image: &str) -> Option<Login> {
        let host = Registry::of_image(image).host;
        self.login.clone().filter(|login| login.host == host)
    }
}

/// One image's way to this machine or from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// The image.
    pub image: String,
    /// `docker pull` or `docker push`.
    pub command: CommandLine,
    /// The login that comes before it, where the agent does it.
    pub login: Option<Login>,
    /// How long it may take.
    pub limit: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_login_is_for_its_registry_alone() {
        let ours = "team.azurecr.io/train:1";
        let login = Login::new(
            &Registry::of_image(ours),
            Path::new("/state"),
            Path::new("/home/.docker"),
        );
        let transfers = Transfers {
            login,
            ..Transfers::default()
        };
        let push = transfers.push(ours);
        let pull = transfers.pull("other.azurecr.io/train:1", Some("linux/arm64"));
        assert_eq!(
            push.command.to_string(),
            "docker --config /state/team.azurecr.io push team.azurecr.io/train:1"
        );
        assert_eq!(
            pull.command.to_string(),
            "docker pull --platform linux/arm64 other.azurecr.io/train:1"
        );
        assert!(push.login.is_some() && pull.login.is_none());
    }
}
