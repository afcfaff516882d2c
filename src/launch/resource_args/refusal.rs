//! What a config may not say, and what to say instead. Pure: words.

use crate::launch::docker_options::{Kind, KnownOption};
use crate::launch::spec::DOCKER_RESOURCES;

/// Why an option is the agent's own business; `None` for all others.
pub(super) fn owned_by_agent(name: &str) -> Option<&'static str> {
    match name {
        "detach" => {
            Some("the agent stays with the container, to follow its log and learn its exit code")
        }
        "cidfile" => Some("the agent writes one itself, to know whether a container was made"),
        "interactive" => Some("nobody is there to type anything to a job"),
        "tty" => Some("a job's log is no terminal"),
        "attach" => Some("the agent reads both outputs of the job for its log"),
        "sig-proxy" => Some("the agent stops a container by `docker stop`, not through the client"),
        "help" => Some("docker would print its help instead of running the job"),
        _ => None,
    }
}

/// Why this value of an option is the agent's own business.
pub(super) fn value_owned_by_agent(name: &str, value: &str) -> Option<&'static str> {
    (name == "restart" && !["no", ""].contains(&value)).then_some(
        "docker would run a job again that has ended, also while no agent is there; the agent itself begins a job again that docker or the machine interrupted",
    )
}

/// Keys that hold the options elsewhere: a launch spec has them, a queue config has not.
pub(super) fn is_wrapping(key: &str) -> bool {
    DOCKER_RESOURCES.contains(&key) || ["resource_args", "resource_config", "config"].contains(&key)
}

/// The form that a value of this option has.
pub(super) fn right_form(option: &KnownOption) -> String {
    let name = option.name.as_str();
    let example = match name {
        "mount" => "type=bind,source=/host,target=/container",
        "volume" => "/host:/container",
        "publish" => "8080:80",
        "gpus" => "all",
        "device" => "/dev/fuse",
        "add-host" => "name:10.0.0.1",
        "tmpfs" => "/run:size=64m",
        "network" => "host",
        _ if option.kind == Kind::KeyValue => {
            return format!(r#"such as "{name}": ["A=1", "B=2"] or "{name}": {{"A": 1, "B": 2}}"#);
        }
        _ => return format!(r#"write its value as text: "{name}": "..""#),
    };
    format!(r#"such as "{name}": "{example}""#)
}
