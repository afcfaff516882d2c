//! Options that depend on their value, mounts and GPUs aside. Pure.

use std::borrow::Cow;

use super::{Asked, Guard, Judgement, Refusal, exact, patterns};
use crate::launch::resource_args::DockerOption;

fn value(option: &DockerOption) -> &str {
    option.value().unwrap_or_default()
}

/// Refused unless the owner allows this very value.
fn refused(option: &DockerOption, why: &str) -> Judgement {
    Err(Refusal::unless_allowed(why, &exact(option)))
}

/// The one spelling of a value that docker takes in several.
pub fn canonical(option: &str, value: &str) -> String {
    match option {
        "network" => network_name(value).unwrap_or_else(|| value.to_owned()),
        "cap-add" => {
            let upper = value.to_ascii_uppercase();
            upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
        }
        "security-opt" if !value.contains('=') => value.replacen(':', "=", 1),
        _ => value.to_owned(),
    }
}

/// The fields that a network has in docker's long form.
const NETWORK_FIELDS: [&str; 8] = [
    "alias",
    "driver-opt",
    "gw-priority",
    "ip",
    "ip6",
    "link-local-ip",
    "mac-address",
    "name",
];

/// The network that a value of `network` names: by itself, or as `name=..` among other fields, whose case docker does
/// not keep, or before a colon and fields, as podman has it. `None` for what cannot be read here for certain.
pub fn network_name(value: &str) -> Option<String> {
    if !value.contains('=') || takes_orders(value) {
        return Some(value.to_owned());
    }
    let fields = patterns::csv(value)?;
    let pairs = fields.iter().map(|field| field.split_once('='));
    let pairs: Vec<(String, &str)> = pairs
        .map(|pair| pair.map(|(key, text)| (key.trim().to_lowercase(), text.trim())))
        .collect::<Option<_>>()?;
    if let Some((name, _)) = pairs[0].0.split_once(':') {
        return Some(name.to_owned());
    }
    if !pairs
        .iter()
        .all(|(key, _)| NETWORK_FIELDS.contains(&key.as_str()))
    {
        return None;
    }
    let name = pairs.iter().rev().find(|(key, _)| key == "name");
    Some(name.map_or_else(|| value.to_owned(), |(_, name)| name.to_lowercase()))
}

/// Is it a network of podman's that reads or writes files of the host, as its value says?
fn takes_orders(value: &str) -> bool {
    ["ns:", "pasta:"]
        .iter()
        .any(|start| value.trim_start().starts_with(start))
}

/// Decides about `--network`.
pub fn network(guard: &Guard<'_>, asked: &Asked<'_>, option: &DockerOption) -> Judgement {
    let Some(name) = network_name(value(option)) else {
        return refused(option, "which network it means cannot be told");
    };
    if name.to_ascii_lowercase().contains("container:")
        || value(option).to_ascii_lowercase().contains("container:")
    {
        return container(guard, asked, option, name.strip_prefix("container:"));
    }
    if takes_orders(&name) {
        return refused(option, "it names files of the host, to read or to write");
    }
    Ok("networks are in the documentation, the host's included".to_owned())
}

/// Decides about `--ipc`.
pub fn ipc(guard: &Guard<'_>, asked: &Asked<'_>, option: &DockerOption) -> Judgement {
    match value(option) {
        "" | "none" | "private" | "shareable" | "host" => {
            Ok("shared memory is in the documentation, the host's included".to_owned())
        }
        other => container(guard, asked, option, other.strip_prefix("container:")),
    }
}

/// Decides about `--pid`.
pub fn pid(guard: &Guard<'_>, asked: &Asked<'_>, option: &DockerOption) -> Judgement {
    match value(option) {
        "" | "private" => Ok("processes of its own".to_owned()),
        "host" => refused(
            option,
            "it shows the job every process of the host, with their files and variables",
        ),
        other => container(guard, asked, option, other.strip_prefix("container:")),
    }
}

/// Decides about `--uts`, `--userns` and `--cgroupns`.
pub fn own_namespace(_: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    match value(option) {
        "" | "private" => Ok("a namespace of its own".to_owned()),
        _ => refused(option, "the job would share a namespace of the host"),
    }
}

/// Decides about `--link`, whose value is `CONTAINER` or `CONTAINER:ALIAS`.
pub fn link(guard: &Guard<'_>, asked: &Asked<'_>, option: &DockerOption) -> Judgement {
    container(guard, asked, option, value(option).split(':').next())
}

/// Decides about `--volumes-from`, whose value is `CONTAINER` or `CONTAINER:MODE`.
pub fn volumes_from(guard: &Guard<'_>, asked: &Asked<'_>, option: &DockerOption) -> Judgement {
    container(guard, asked, option, value(option).split(':').next())
}

/// A container that a job may be joined to: a job of the same agent.
fn container(
    guard: &Guard<'_>,
    asked: &Asked<'_>,
    option: &DockerOption,
    name: Option<&str>,
) -> Judgement {
    let agent = name
        .filter(|name| !name.is_empty())
        .and_then(guard.machine.agent_of);
    if agent.is_some_and(|agent| agent == asked.agent) {
        return Ok("the container is a job of this agent".to_owned());
    }
    refused(option, "the container is no job of this agent")
}

/// Decides about `--group-add`.
pub fn group(_: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    if value(option).trim().eq_ignore_ascii_case("keep-groups") {
        return refused(
            option,
            "podman would leave the job in the agent's own groups, such as those of disks",
        );
    }
    Ok(
        "groups are those of the container; on the host they matter only for what is mounted"
            .to_owned(),
    )
}

/// Decides about `--oom-score-adj`.
pub fn oom_score(_: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    match value(option).parse::<i32>() {
        Ok(score) if score >= 0 => Ok("the job offers itself to be killed first".to_owned()),
        _ => refused(
            option,
            "when memory runs out, the kernel would kill something else than the job",
        ),
    }
}

/// Decides about `--publish`: `[IP:][HOST_PORT:]PORT[/PROTOCOL]`, where ports may be ranges.
pub fn publish(_: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    let short = short_publish(value(option));
    let ports = short.split('/').next().unwrap_or_default();
    let Some((before, _)) = ports.rsplit_once(':') else {
        return Ok("docker chooses a free port".to_owned());
    };
    let host_port = match before.rsplit_once(':') {
        Some((_, port)) => port,
        // An address without a port: docker chooses one.
        None if before.contains('.') => "",
        None => before,
    };
    if host_port.is_empty() || host_port == "0" {
        return Ok("docker chooses a free port".to_owned());
    }
    match host_port
        .split('-')
        .next()
        .unwrap_or_default()
        .parse::<u16>()
    {
        Ok(first) if first >= 1024 => Ok("a port that is no well-known service's".to_owned()),
        Ok(_) => refused(
            option,
            "ports below 1024 are where others expect the machine's own services",
        ),
        Err(_) => refused(option, "the port of the host cannot be told"),
    }
}

/// The short form of a port that may be written as `published=8080,target=80`, put together as docker's client does it.
fn short_publish(value: &str) -> Cow<'_, str> {
    if !value.contains('=') {
        return Cow::Borrowed(value);
    }
    let field = |name: &str| {
        let mut fields = value.rsplit(',').filter_map(|field| field.split_once('='));
        fields
            .find(|(key, _)| *key == name)
            .map_or("", |(_, it)| it)
    };
    Cow::Owned(format!("{}:{}", field("published"), field("target")))
}

/// Decides about `--sysctl`.
pub fn sysctl(_: &Guard<'_>, asked: &Asked<'_>, option: &DockerOption) -> Judgement {
    let name = value(option).split('=').next().unwrap_or_default();
    let shares = |namespace: &str| {
        asked
            .options
            .iter()
            .filter(|other| other.name == namespace)
            .filter_map(DockerOption::value)
            .any(|value| network_name(value).is_none_or(|name| name == "host"))
    };
    let of_network = name.starts_with("net.") && !shares("network");
    let of_ipc = (name.starts_with("kernel.shm")
        || name.starts_with("kernel.msg")
        || name.starts_with("fs.mqueue.")
        || name == "kernel.sem")
        && !shares("ipc");
    if of_network || of_ipc {
        return Ok("the kernel keeps this setting for each container".to_owned());
    }
    refused(option, "it is a setting of the whole host")
}

/// Decides about `--security-opt`.
pub fn security_opt(_: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    match value(option) {
        "no-new-privileges" | "no-new-privileges=true" | "no-new-privileges:true" => {
            Ok("it takes rights from the job".to_owned())
        }
        _ => refused(
            option,
            "it takes down walls that docker puts up, or reads a file of the host",
        ),
    }
}

/// Decides about `--runtime`.
pub fn runtime(_: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    match value(option) {
        "runc" | "crun" | "nvidia" => {
            Ok("docker's usual runtimes, and the one for GPUs".to_owned())
        }
        _ => refused(option, "the runtime is none of `runc`, `crun` and `nvidia`"),
    }
}

/// Decides about `--volume-driver`.
pub fn volume_driver(_: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    match value(option) {
        "" | "local" => Ok("docker's own driver".to_owned()),
        _ => refused(
            option,
            "a driver can name any path, and its work is done as root",
        ),
    }
}

/// Decides about `--storage-opt`.
pub fn storage_opt(_: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    match value(option).split_once('=') {
        Some(("size", _)) => Ok("the size of the container's own disk".to_owned()),
        _ => refused(option, "only `size` is about the container alone"),
    }
}

/// Decides about `--log-driver`.
pub fn log_driver(_: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    match value(option) {
        "" | "none" | "local" | "json-file" | "journald" => {
            Ok("the log stays on this machine".to_owned())
        }
        _ => refused(
            option,
            "the driver sends the log elsewhere, with docker's rights",
        ),
    }
}

/// Decides about `--log-opt`.
pub fn log_opt(_: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    const LOCAL: [&str; 10] = [
        "compress",
        "env",
        "env-regex",
        "labels",
        "labels-regex",
        "max-buffer-size",
        "max-file",
        "max-size",
        "mode",
        "tag",
    ];
    let name = value(option).split('=').next().unwrap_or_default();
    if LOCAL.contains(&name) {
        return Ok("it is about the log's size and form".to_owned());
    }
    refused(
        option,
        "it says where the log goes, or names a file of the host",
    )
}

/// Decides about `--label`.
pub fn label(_: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    if value(option).starts_with("launch-agent.") {
        return refused(
            option,
            "the agent knows its own containers by its labels `launch-agent.*`",
        );
    }
    Ok("labels are in the documentation".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_one_name_in_both_spellings() {
        for (value, name) in [
            ("host", "host"),
            ("name=host", "host"),
            ("alias=x,name=host", "host"),
            ("Name = host ,alias=x", "host"),
            ("name=a,name=b", "b"),
            ("name=HOST", "host"),
            ("\"name=host\",alias=x", "host"),
            ("alias=x", "alias=x"),
            ("net:alias=x,ip=10.0.0.1", "net"),
            ("pasta:--pcap=/x,name=host", "pasta:--pcap=/x,name=host"),
        ] {
            assert_eq!(network_name(value).as_deref(), Some(name), "{value}");
        }
        for value in [
            "\nname=host",
            "alias=x\n,name=host",
            "\"name=host",
            "name=host,x",
            "name=host,x=y",
        ] {
            assert_eq!(network_name(value), None, "{value}");
        }
    }

    #[test]
    fn what_docker_takes_in_several_spellings_has_one() {
        for (option, value, one) in [
            ("cap-add", "CAP_SYS_ADMIN", "SYS_ADMIN"),
            ("cap-add", "sys_admin", "SYS_ADMIN"),
            ("cap-add", "cap_all", "ALL"),
            ("security-opt", "seccomp:unconfined", "seccomp=unconfined"),
            ("security-opt", "seccomp=a:b", "seccomp=a:b"),
            ("security-opt", "no-new-privileges", "no-new-privileges"),
            ("runtime", "NVIDIA", "NVIDIA"),
        ] {
            assert_eq!(canonical(option, value), one, "{value}");
        }
    }
}
