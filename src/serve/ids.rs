//! Ids as W&B's clients know them: a kind and a name, in base64. Opaque to clients and spelled in one way only. An
//! agent's id alone is its plain name, because people read it in the agent's log.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use juniper::ID;

/// What an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    User,
    ApiKey,
    Entity,
    Project,
    ProjectInternalId,
    RunQueue,
    RunQueueItem,
    ResourceConfig,
    Run,
    RunFile,
    Artifact,
    ArtifactType,
    ArtifactCollection,
    ArtifactMembership,
    ArtifactAlias,
    ArtifactManifest,
    ArtifactFile,
    ManifestFile,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::User => "User",
            Kind::ApiKey => "ApiKey",
            Kind::Entity => "Entity",
            Kind::Project => "Project",
            Kind::ProjectInternalId => "ProjectInternalId",
            Kind::RunQueue => "RunQueue",
            Kind::RunQueueItem => "RunQueueItem",
            Kind::ResourceConfig => "DefaultResourceConfig",
            Kind::Run => "Run",
            Kind::RunFile => "RunFile",
            Kind::Artifact => "Artifact",
            Kind::ArtifactType => "ArtifactType",
            Kind::ArtifactCollection => "ArtifactCollection",
            Kind::ArtifactMembership => "ArtifactMembership",
            Kind::ArtifactAlias => "ArtifactAlias",
            Kind::ArtifactManifest => "ArtifactManifest",
            Kind::ArtifactFile => "ArtifactFile",
            Kind::ManifestFile => "ManifestFile",
        }
    }
}

/// The id of something.
pub fn encode(kind: Kind, name: impl std::fmt::Display) -> ID {
    ID::new(STANDARD.encode(format!("{}:{name}", kind.word())))
}

/// The name in an id of that kind; `None` for an id of another kind, and for anything else.
pub fn decode(kind: Kind, id: &str) -> Option<String> {
    let text = String::from_utf8(STANDARD.decode(id).ok()?).ok()?;
    let (word, name) = text.split_once(':')?;
    (word == kind.word()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_as_its_own_kind_only() {
        let id = encode(Kind::RunQueueItem, 5);
        assert_eq!(decode(Kind::RunQueueItem, &id).as_deref(), Some("5"));
        assert_eq!(decode(Kind::RunQueue, &id), None);
        for other in ["5", "", "!!", "UnVu", "//8="] {
            assert_eq!(decode(Kind::RunQueueItem, other), None, "{other}");
        }
    }
}
