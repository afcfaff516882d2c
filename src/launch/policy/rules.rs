//! Each option of `docker run`, decided once, with the reason. Pure: a table.

use super::{Asked, Guard, Judgement, gpus, mounts, values};
use crate::launch::resource_args::DockerOption;

/// What the preset `standard` makes of an option.
#[derive(Clone, Copy)]
pub enum OptionRule {
    /// Taken with any value.
    Allowed(&'static str),
    /// Taken with no value.
    Refused(&'static str),
    /// It depends on the value, and this is what decides.
    ByValue(Judge, &'static str),
}

/// Decides about one value.
pub type Judge = fn(&Guard<'_>, &Asked<'_>, &DockerOption) -> Judgement;

/// The options of W&B's own agent since 0.28.1 (`_DOCKER_ALLOWED_RESOURCE_ARGS`), each under the one name that all
/// its spellings have. It also lists `command` and `cpu`, which docker does not have.
const STRICT: [&str; 17] = [
    "cpu-period",
    "cpu-quota",
    "cpu-shares",
    "cpus",
    "cpuset-cpus",
    "cpuset-mems",
    "env",
    "gpus",
    "memory",
    "memory-reservation",
    "memory-swap",
    "name",
    "pids-limit",
    "platform",
    "shm-size",
    "ulimit",
    "workdir",
];

/// Does the preset `strict` have this option?
pub fn is_strict(name: &str) -> bool {
    STRICT.contains(&name)
}

/// What `standard` makes of an option, by its one name; `None` for one that docker 28 does not have.
pub fn option_rule(name: &str) -> Option<&'static OptionRule> {
    RULES
        .iter()
        .find(|(names, _)| names.contains(&name))
        .map(|(_, rule)| rule)
}

use OptionRule::{Allowed, ByValue, Refused};

const RULES: &[(&[&str], OptionRule)] = &[
    // What the job itself is: nothing of the host is in it.
    (
        &[
            "entrypoint",
            "workdir",
            "user",
            "init",
            "hostname",
            "domainname",
            "stop-signal",
            "stop-timeout",
        ],
        Allowed("it is about the job's own process"),
    ),
    (
        &["env"],
        ByValue(
            gpus::variable,
            "one variable asks for devices, and is held to what `device` may ask for",
        ),
    ),
    (
        &[
            "name",
            "rm",
            "platform",
            "pull",
            "quiet",
            "isolation",
            "restart",
            "detach-keys",
        ],
        Allowed("it is about the container's life, which the agent ends in any case"),
    ),
    (
        &[
            "health-cmd",
            "health-interval",
            "health-retries",
            "health-start-interval",
            "health-start-period",
            "health-timeout",
            "no-healthcheck",
        ],
        Allowed("it runs inside the container"),
    ),
    // How much of the machine: more or less of what each job has anyway.
    (
        &[
            "cpus",
            "cpu-count",
            "cpu-percent",
            "cpu-period",
            "cpu-quota",
            "cpu-shares",
            "cpuset-cpus",
            "cpuset-mems",
            "memory",
            "memory-reservation",
            "memory-swap",
            "memory-swappiness",
            "kernel-memory",
            "shm-size",
            "pids-limit",
            "ulimit",
            "blkio-weight",
            "blkio-weight-device",
            "device-read-bps",
            "device-read-iops",
            "device-write-bps",
            "device-write-iops",
            "io-maxbandwidth",
            "io-maxiops",
        ],
        Allowed("it says how much of the machine the job gets"),
    ),
    (
        &["cpu-rt-period", "cpu-rt-runtime"],
        Refused("real-time processes can keep everything else on the machine from running"),
    ),
    (
        &["oom-kill-disable"],
        Refused("the machine hangs when such a job runs out of memory"),
    ),
    (
        &["oom-score-adj"],
        ByValue(
            values::oom_score,
            "a job may offer itself to be killed first, not others",
        ),
    ),
    (
        &["gpus"],
        ByValue(
            gpus::option,
            "GPUs are what jobs are for; other devices are not asked for this way",
        ),
    ),
    (
        &["device"],
        ByValue(gpus::device, "GPUs; any other device can be a disk"),
    ),
    // Namespaces: the container's own, or a job's of this agent.
    (
        &["network"],
        ByValue(
            values::network,
            "any network, the host's included; another container's only when it is a job of this agent",
        ),
    ),
    (
        &["ipc"],
        ByValue(
            values::ipc,
            "shared memory, the host's included; another container's only when it is a job of this agent",
        ),
    ),
    (
        &["pid"],
        ByValue(values::pid, "a job sees no processes of the host"),
    ),
    (
        &["uts", "userns", "cgroupns"],
        ByValue(values::own_namespace, "a job has namespaces of its own"),
    ),
    (
        &["link"],
        ByValue(
            values::link,
            "a link hands over the other container's variables",
        ),
    ),
    (
        &["volumes-from"],
        ByValue(
            values::volumes_from,
            "only the volumes of jobs of this agent",
        ),
    ),
    (
        &[
            "add-host",
            "dns",
            "dns-opt",
            "dns-option",
            "dns-search",
            "expose",
            "ip",
            "ip6",
            "link-local-ip",
            "mac-address",
            "net-alias",
            "network-alias",
            "publish-all",
        ],
        Allowed("it is about the container's own place in its network"),
    ),
    (
        &["publish"],
        ByValue(
            values::publish,
            "ports below 1024 are where others expect the machine's own services",
        ),
    ),
    (
        &["sysctl"],
        ByValue(
            values::sysctl,
            "only those that the kernel keeps for each container",
        ),
    ),
    // Rights over the host.
    (
        &["privileged"],
        Refused("it takes away every wall between the job and the host"),
    ),
    (
        &["cap-add"],
        Refused("capabilities beyond docker's own open ways to the host"),
    ),
    (
        &["cap-drop", "read-only"],
        Allowed("it takes rights from the job"),
    ),
    (
        &["security-opt"],
        ByValue(values::security_opt, "only what makes the walls higher"),
    ),
    (
        &["group-add"],
        ByValue(
            values::group,
            "groups are those of the container, but podman's way to keep the agent's own",
        ),
    ),
    (
        &["device-cgroup-rule"],
        Refused("it opens devices of the host by number, disks included"),
    ),
    (
        &["cgroup-parent"],
        Refused("the job would leave the limits that the machine sets for containers"),
    ),
    (
        &["runtime"],
        ByValue(
            values::runtime,
            "a runtime decides how much of a wall there is",
        ),
    ),
    (
        &["annotation"],
        Refused("runtimes take orders from annotations, such as programs of the host to run"),
    ),
    (
        &["use-api-socket"],
        Refused("whoever reaches docker's socket is root on the host"),
    ),
    (
        &["disable-content-trust"],
        Refused("it skips the check of signatures that the owner may have turned on"),
    ),
    // The host's files.
    (
        &["volume"],
        ByValue(
            mounts::volume,
            "folders of the host that are nobody's secret",
        ),
    ),
    (
        &["mount"],
        ByValue(
            mounts::mount,
            "folders of the host that are nobody's secret",
        ),
    ),
    (
        &["volume-driver"],
        ByValue(
            values::volume_driver,
            "a driver's options can name any path",
        ),
    ),
    (&["tmpfs"], Allowed("it is memory of the job's own")),
    (
        &["env-file", "label-file"],
        Refused(
            "docker would read a file of the host with the agent's rights, and show it to the job",
        ),
    ),
    (
        &["storage-opt"],
        ByValue(
            values::storage_opt,
            "only the size of the container's own disk",
        ),
    ),
    (
        &["log-driver"],
        ByValue(
            values::log_driver,
            "other drivers send the log elsewhere with docker's rights",
        ),
    ),
    (
        &["log-opt"],
        ByValue(
            values::log_opt,
            "other settings send the log elsewhere, or read files of the host",
        ),
    ),
    (
        &["label"],
        ByValue(
            values::label,
            "the agent knows its own containers by its own labels",
        ),
    ),
    // `resource_args` refuses these before a policy is asked.
    (
        &[
            "attach",
            "cidfile",
            "detach",
            "help",
            "interactive",
            "sig-proxy",
            "tty",
        ],
        Refused("it is the agent's own"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::docker_options::OptionTable;

    #[test]
    fn every_option_of_docker_is_decided_once() {
        let table = OptionTable::docker_28();
        let decided: Vec<&str> = RULES
            .iter()
            .flat_map(|(names, _)| names.iter().copied())
            .collect();
        for name in table.names() {
            let count = decided
                .iter()
                .filter(|decided| **decided == table.canonical(name))
                .count();
            assert_eq!(count, 1, "{name}");
        }
        for name in &decided {
            assert!(table.find(name).is_some(), "{name} is no option of docker");
        }
        for name in STRICT {
            assert_eq!(table.canonical(name), name);
        }
    }
}
