//! What a job runs in: its container, and how the image of it comes to this machine.

use std::fmt;
use std::path::PathBuf;

use crate::launch::build::Build;
use crate::launch::network::Network;
use crate::launch::transfer::{PullPolicy, Transfer};

/// What a job runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A container, which is every job but one kind.
    Container(Container),
    /// A process of this machine: a sweep scheduler.
    Process,
}

/// For a sentence about what is left of a job.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Container(container) => write!(f, "the container {}", container.name),
            Place::Process => f.write_str("its log"),
        }
    }
}

/// The container of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// How its image comes to this machine.
    pub image: ImagePlan,
    /// Where docker writes its id.
    pub cidfile: PathBuf,
    /// Who removes it.
    pub removal: Removal,
}

/// How the image comes to this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagePlan {
    /// It is pulled from its registry, if the policy says so.
    Pull {
        /// When.
        policy: PullPolicy,
        /// How.
        transfer: Box<Transfer>,
    },
    /// The options have a `pull`, so `docker run` does it.
    LeftToDocker,
    /// It is built, when it is not here already.
    Build {
        /// How.
        build: Box<Build>,
        /// Where else it is kept, when it is.
        remote: Option<Box<Remote>>,
    },
}

/// A registry's copy of an image that is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Brings it here.
    pub pull: Transfer,
    /// Brings it there.
    pub push: Transfer,
    /// How this machine reaches the registry to ask what it has.
    pub network: Network,
}

/// Who removes the container when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Docker: the options say `rm: true`.
    ByDocker,
    /// The agent, once the exit code is recorded: the options do not say.
    ByAgent,
    /// Nobody: the options say `rm: false`.
    Kept,
}
