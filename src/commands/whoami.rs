//! `launch-agent whoami`: who you are for W&B, and where that comes from. Starts nothing.

use std::process::ExitCode;

use serde_json::json;

use super::{input, print};
use crate::cli::WhoamiArgs;
use crate::config::{AgentConfig, Environment};
use crate::failure::Result;

pub fn run(args: &WhoamiArgs, environment: &Environment) -> Result<ExitCode> {
    let config = AgentConfig::for_command(&args.backend, environment)?;
    super::warn(&config.identity_warnings);
    let client = input::wandb_client(&config, None, environment)?;
    let viewer = client.viewer()?;
    // The entity is a setting with an origin, or else what the server says of the key.
    let (entity, entity_origin) = match &config.entity.value {
        Some(entity) => (Some(entity.clone()), config.entity.origin.to_string()),
        None => (viewer.entity.clone(), "the key's own".to_owned()),
    };
    let key_origin = config
        .api_key
        .as_ref()
        .map(|key| key.origin.to_string())
        .unwrap_or_default();
    if args.json {
        print(json!({
            "user": viewer.username,
            "entity": {"value": entity, "origin": entity_origin},
            "teams": viewer.teams,
            "base_url": {"value": client.base_url(), "origin": config.base_url.origin.to_string()},
            "api_key": {"origin": key_origin},
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(format_args!("user:     {}", viewer.username))?;
    print(format_args!(
        "entity:   {}  # {entity_origin}",
        entity.as_deref().unwrap_or("none")
    ))?;
    print(format_args!("teams:    {}", viewer.teams.join(", ")))?;
    print(format_args!(
        "base_url: {}  # {}",
        client.base_url(),
        config.base_url.origin
    ))?;
    print(format_args!("api_key:  [redacted]  # {key_origin}"))?;
    Ok(ExitCode::SUCCESS)
}
