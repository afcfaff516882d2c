//! The configs of queues, in the form of the wire: `{"resource_args": {"local-container": {..}}}` with the schemas of
//! the template variables beside it. A client saves one first and makes a queue of it then.

use juniper::{GraphQLInputObject, GraphQLObject, ID};
use serde_json::{Value, json};

use super::access::{Answer, Context, refuse};
use super::ids::{self, Kind};
use super::scalars::{Json, JsonString, Scalar};
use crate::launch::spec::{DOCKER_RESOURCES, Object};
use crate::queue::local::{SavedConfig, check_definition, split_name};

/// A config as it is shown.
#[derive(GraphQLObject)]
#[graphql(name = "DefaultResourceConfig", scalar = Scalar)]
pub struct ResourceConfig {
    id: ID,
    config: Json,
    resource: String,
    template_variables: Vec<TemplateVariable>,
}

/// A template variable with its schema.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
pub struct TemplateVariable {
    name: String,
    schema: JsonString,
}

/// Docker is not asked which options it knows: the one beside this server is not the one that runs the jobs.
pub fn ask_nobody() -> Option<String> {
    None
}

/// The id of the config of a queue.
pub fn id_of_queue(queue: &str) -> ID {
    ids::encode(Kind::ResourceConfig, format_args!("queue:{queue}"))
}

/// A queue's config when its maker gives none.
pub fn plain() -> SavedConfig {
    SavedConfig {
        resource: DOCKER_RESOURCES[0].to_owned(),
        config: Object::new(),
        template_variables: Object::new(),
    }
}

/// The config with that id, if it is the entity's.
pub fn find(context: &Context, entity: &str, id: &ID) -> Answer<Option<SavedConfig>> {
    let name = ids::decode(Kind::ResourceConfig, id);
    let Some((kind, name)) = name.as_deref().and_then(|name| name.split_once(':')) else {
        return Ok(None);
    };
    if kind == "queue" {
        if split_name(name).0 != entity {
            return Ok(None);
        }
        let queue = context.found(context.queue.queue(name))?;
        return Ok(queue.map(|status| SavedConfig {
            resource: status.resource.unwrap_or_default(),
            config: status.definition.config,
            template_variables: status.definition.template_variables,
        }));
    }
    match name.parse() {
        Ok(number) => context.found(context.queue.saved_config(entity, number)),
        Err(_) => Ok(None),
    }
}

/// [`find`], where nothing can be done without it.
pub fn need(context: &Context, entity: &str, id: &ID) -> Answer<SavedConfig> {
    match find(context, entity, id)? {
        Some(saved) => Ok(saved),
        None => refuse(format!("no resource config `{}`", id.escape_debug())),
    }
}

/// The config with that id as it is shown.
pub fn shown(context: &Context, entity: &str, id: ID) -> Answer<Option<ResourceConfig>> {
    let Some(saved) = find(context, entity, &id)? else {
        return Ok(None);
    };
    let variables = saved.template_variables.into_iter();
    Ok(Some(ResourceConfig {
        id,
        config: Json(json!({"resource_args": {saved.resource.as_str(): saved.config}})),
        resource: saved.resource,
        template_variables: variables
            .map(|(name, value)| TemplateVariable {
                name,
                schema: JsonString(value.get("schema").cloned().unwrap_or(value)),
            })
            .collect(),
    }))
}

/// A config in the form of the wire, checked as a queue's config is.
pub fn read(
    context: &Context,
    resource: &str,
    config: &Value,
    variables: &Value,
) -> Answer<SavedConfig> {
    if !DOCKER_RESOURCES.contains(&resource) {
        return refuse(format!(
            "a queue of the resource `{resource}` is not possible: the agents of this server run docker jobs; use `{}`",
            DOCKER_RESOURCES[0]
        ));
    }
    let found = &config["resource_args"][resource];
    let config = match found {
        Value::Object(options) => options.clone(),
        Value::Null => Object::new(),
        _ => {
            return refuse(format!(
                "`resource_args.{resource}` of the queue's config must be an object of docker options"
            ));
        }
    };
    let template_variables = match variables {
        Value::Object(variables) => variables.clone(),
        Value::Null => Object::new(),
        _ => {
            return refuse(
                "the template variables must be an object: {\"name\": {\"schema\": {..}}}",
            );
        }
    };
    context.told(check_definition(&config, &template_variables, &ask_nobody))?;
    Ok(SavedConfig {
        resource: DOCKER_RESOURCES[0].to_owned(),
        config,
        template_variables,
    })
}

/// What saves a config.
#[derive(GraphQLInputObject)]
#[graphql(scalar = Scalar)]
pub struct CreateDefaultResourceConfigInput {
    entity_name: String,
    resource: String,
    config: JsonString,
    template_variables: Option<JsonString>,
    client_mutation_id: Option<String>,
}

/// A config that was saved.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
pub struct CreateDefaultResourceConfigPayload {
    #[graphql(name = "defaultResourceConfigID")]
    default_resource_config_id: ID,
    success: bool,
    client_mutation_id: Option<String>,
}

/// Checks a config and keeps it until a queue is made of it.
pub fn create(
    context: &Context,
    input: CreateDefaultResourceConfigInput,
) -> Answer<CreateDefaultResourceConfigPayload> {
    context.need_member(&input.entity_name)?;
    context.need_room()?;
    let variables = input
        .template_variables
        .map_or(Value::Null, |variables| variables.0);
    let saved = read(context, &input.resource, &input.config.0, &variables)?;
    let number = context.told(context.queue.save_config(&input.entity_name, &saved))?;
    Ok(CreateDefaultResourceConfigPayload {
        default_resource_config_id: ids::encode(
            Kind::ResourceConfig,
            format_args!("saved:{number}"),
        ),
        success: true,
        client_mutation_id: input.client_mutation_id,
    })
}
