//! Users and entities as GraphQL shows them: who the key's user is, and what they belong to.

use juniper::{GraphQLObject, ID, graphql_object};

use super::access::{Answer, Context};
use super::configs::{self, ResourceConfig};
use super::ids::{self, Kind};
use super::scalars::{DateTime, Scalar};
use crate::queue::local::Key;

/// The key's user.
pub struct User {
    name: String,
    entities: Vec<String>,
}

/// The user whose key it is.
pub fn viewer(context: &Context) -> User {
    User {
        name: context.caller.user.clone(),
        entities: context.caller.entities.clone(),
    }
}

#[graphql_object(context = Context, scalar = Scalar)]
impl User {
    fn id(&self) -> ID {
        ids::encode(Kind::User, &self.name)
    }

    fn username(&self) -> &str {
        &self.name
    }

    fn name(&self) -> &str {
        &self.name
    }

    /// The entity that is meant when none is named.
    fn entity(&self) -> &str {
        &self.name
    }

    /// Nobody is asked for an address here, and an invented one could be somebody's.
    fn email() -> Option<String> {
        None
    }

    fn admin() -> bool {
        false
    }

    fn deleted_at() -> Option<DateTime> {
        None
    }

    fn flags() -> &'static str {
        "{}"
    }

    /// The user's valid keys, each by its last characters: what a key is nobody can read back.
    fn api_keys(&self, context: &Context) -> Answer<Option<ApiKeyConnection>> {
        if self.name != context.caller.user {
            return Ok(None);
        }
        let mut keys = context.told(context.queue.keys())?;
        keys.retain(|key| key.user == self.name && key.revoked_at.is_none());
        Ok(Some(ApiKeyConnection(keys)))
    }

    fn teams(&self) -> EntityConnection {
        EntityConnection(self.entities.clone())
    }
}

/// A page of entities: all of a user's.
pub struct EntityConnection(Vec<String>);

#[graphql_object(context = Context, scalar = Scalar)]
impl EntityConnection {
    fn edges(&self) -> Vec<EntityEdge> {
        self.0.iter().cloned().map(EntityEdge).collect()
    }
}

/// An entity on a page.
pub struct EntityEdge(String);

#[graphql_object(context = Context, scalar = Scalar)]
impl EntityEdge {
    fn node(&self) -> Entity {
        Entity(self.0.clone())
    }
}

/// A page of keys: all of a user's.
pub struct ApiKeyConnection(Vec<Key>);

#[graphql_object(context = Context, scalar = Scalar)]
impl ApiKeyConnection {
    fn edges(&self) -> Vec<ApiKeyEdge> {
        self.0.iter().cloned().map(ApiKeyEdge).collect()
    }
}

/// A key on a page.
pub struct ApiKeyEdge(Key);

#[graphql_object(context = Context, scalar = Scalar)]
impl ApiKeyEdge {
    fn node(&self) -> ApiKey {
        ApiKey(self.0.clone())
    }
}

/// A key, without the key.
pub struct ApiKey(Key);

#[graphql_object(context = Context, scalar = Scalar)]
impl ApiKey {
    fn id(&self) -> ID {
        ids::encode(Kind::ApiKey, self.0.id)
    }

    fn name(&self) -> String {
        format!("..{}", self.0.ending)
    }

    fn description() -> Option<String> {
        None
    }
}

/// An entity that the caller is a member of.
pub struct Entity(pub String);

/// The entity of that name, or the caller's own; `None` when it is not theirs to see.
pub fn entity(context: &Context, name: Option<String>) -> Option<Entity> {
    let name = name
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| context.caller.user.clone());
    context.is_member(&name).then_some(Entity(name))
}

#[graphql_object(context = Context, scalar = Scalar)]
impl Entity {
    fn id(&self) -> ID {
        ids::encode(Kind::Entity, &self.0)
    }

    fn name(&self) -> &str {
        &self.0
    }

    fn default_resource_config(&self, context: &Context, id: ID) -> Answer<Option<ResourceConfig>> {
        configs::shown(context, &self.0, id)
    }

    /// There are no organizations here. The client asks, and repeats a question that is not understood.
    fn organization() -> Option<Organization> {
        None
    }

    fn is_team(&self, context: &Context) -> Answer<bool> {
        context.told(context.queue.is_team(&self.0))
    }
}

/// What entities belong to elsewhere.
#[derive(GraphQLObject)]
#[graphql(context = Context, scalar = Scalar)]
struct Organization {
    name: String,
    org_entity: Option<Entity>,
    core_weave_organization_id: Option<String>,
}

/// What this server is.
pub struct ServerInfo;

#[graphql_object(context = Context, scalar = Scalar)]
impl ServerInfo {
    /// The client asks for features by name and takes those not named for missing.
    fn features() -> Vec<ServerFeature> {
        Vec::new()
    }
}

/// A feature that a server may have.
pub struct ServerFeature(&'static str);

#[graphql_object(context = Context, scalar = Scalar)]
impl ServerFeature {
    fn name(&self) -> &str {
        self.0
    }

    fn is_enabled() -> bool {
        true
    }
}
