//! How much a job may have. Pure. A limit that a job can leave out would be none, and the agent adds nothing of its
//! own to a queue's options: where docker's default is more than the limit, a job has to name its share.

use super::{Check, Guard, Judgement, Refusal, gpus};
use crate::launch::resource_args::DockerOption;

/// How much a job may have; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// Bytes of memory; with swap it may be twice that, docker's own default.
    pub memory: Option<u64>,
    /// Processors.
    pub cpus: Option<f64>,
    /// GPUs.
    pub gpus: Option<u64>,
    /// Bytes of shared memory.
    pub shm_size: Option<u64>,
}

impl Limits {
    /// The options of `docker build` that hold the steps of the classic builder to the same. `BuildKit` has none: its
    /// steps run below docker's daemon.
    pub fn of_a_build(&self) -> Vec<(&'static str, String)> {
        let mut options = Vec::new();
        if let Some(memory) = self.memory {
            options.push(("--memory", spelled(memory)));
            options.push(("--memory-swap", spelled(memory.saturating_mul(2))));
        }
        if let Some(cpus) = self.cpus {
            options.push(("--cpu-period", DEFAULT_PERIOD.to_string()));
            options.push(("--cpu-quota", (cpus * DEFAULT_PERIOD).floor().to_string()));
        }
        options
    }
}

/// Docker's default period of `--cpu-quota`, in microseconds.
const DEFAULT_PERIOD: f64 = 100_000.0;

/// A size in docker's units: bytes, or with `k`, `m`, `g`, `t`, `p`, of 1024 each. `None` for anything else.
pub fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let end = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let unit = unit.strip_suffix('b').unwrap_or(unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "docker makes its sizes so; a number too large becomes the largest"
    )]
    decimal(number).map(|number| (number * 1024_f64.powi(power)) as u64)
}

/// A plain decimal number.
fn decimal(text: &str) -> Option<f64> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    plain.then(|| text.parse().ok()).flatten()
}

fn beyond(what: &str, key: &str, limit: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        format!("{what}, and this machine's limit is `{key}: {limit}`"),
        format!(
            "ask for less, or let the machine's owner raise `policy.{key}` in launch-config.yaml"
        ),
    )
}

fn last<'a>(options: &'a [DockerOption], name: &str) -> Option<&'a str> {
    options
        .iter()
        .rev()
        .find(|option| option.name == name)
        .and_then(DockerOption::value)
}

/// A size as a person writes it.
fn spelled(bytes: u64) -> String {
    let units = [("g", 30), ("m", 20), ("k", 10)];
    units
        .iter()
        .find(|(_, bits)| bytes > 0 && bytes.trailing_zeros() >= *bits)
        .map_or_else(
            || bytes.to_string(),
            |(unit, bits)| format!("{}{unit}", bytes >> bits),
        )
}

impl Guard<'_> {
    /// Holds an option that is taken to the limits; `rule` is why it is taken.
    pub(super) fn within_limits(
        &self,
        option: &DockerOption,
        all: &[DockerOption],
        rule: String,
    ) -> Judgement {
        let limits = self.policy.limits;
        let value = option.value().unwrap_or_default();
        let refusal = match option.name.as_str() {
            "memory" => limits
                .memory
                .and_then(|limit| over(value, limit, "max_memory")),
            "memory-swap" => limits.memory.and_then(|limit| {
                let twice = limit.saturating_mul(2);
                size(value).is_none_or(|bytes| bytes > twice).then(|| {
                    let what = format!(
                        "with swap a job may have twice the memory, which is {}",
                        spelled(twice)
                    );
                    beyond(&what, "max_memory", spelled(limit))
                })
            }),
            "shm-size" if value != "0" => limits
                .shm_size
                .and_then(|limit| over(value, limit, "max_shm_size")),
            "ipc" if value != "private" && value != "none" => limits.shm_size.map(|limit| {
                beyond(
                    "shared memory that is not its own has no limit",
                    "max_shm_size",
                    spelled(limit),
                )
            }),
            "tmpfs" | "mount" if is_memory_at_shm(option) => limits.shm_size.map(|limit| {
                beyond(
                    "it is shared memory by another name",
                    "max_shm_size",
                    spelled(limit),
                )
            }),
            "cpus" => limits
                .cpus
                .and_then(|limit| too_many_cpus(decimal(value), limit)),
            "cpu-quota" if last(all, "cpus").is_none() => limits
                .cpus
                .and_then(|limit| too_many_cpus(by_quota(all), limit)),
            "gpus" => limits.gpus.and_then(|limit| too_many_gpus(all, limit)),
            "device" | "runtime" | "env" => limits
                .gpus
                .filter(|_| self.gets_around_gpus(option))
                .map(|limit| beyond("how many GPUs it gets cannot be told", "max_gpus", limit)),
            _ => None,
        };
        refusal.map_or(Ok(rule), Err)
    }

    /// The other ways to GPUs, which nobody counts.
    fn gets_around_gpus(&self, option: &DockerOption) -> bool {
        let value = option.value().unwrap_or_default();
        match option.name.as_str() {
            "env" => value.split('=').next() == Some(gpus::VISIBLE),
            "runtime" => value.contains("nvidia"),
            _ => !self.is_other_device(value),
        }
    }

    /// Is this for certain no GPU? Of a device that its vendor describes, and of all devices together, nobody knows.
    fn is_other_device(&self, value: &str) -> bool {
        let path = value.split(':').next().unwrap_or_default();
        path.starts_with('/')
            && self.real(path).is_ok_and(|real| {
                let is_one = real
                    .parent()
                    .is_some_and(|folder| folder.starts_with("/dev"));
                is_one && !gpus::is_gpu_node(&real)
            })
    }

    /// What a job has to ask for, where a limit is set, and does not.
    pub(super) fn missing_limits(&self, all: &[DockerOption]) -> Vec<Check> {
        let limits = self.policy.limits;
        let has = |name: &str| last(all, name).is_some();
        let missing = |name: &str, key: &str, limit: String| Check {
            option: name.to_owned(),
            given: name.to_owned(),
            verdict: Err(Refusal::new(
                format!(
                    "it is missing, and without it a job has no limit; this machine's is `{key}: {limit}`"
                ),
                format!(r#"write "{name}" into the queue's config, at most {limit}"#),
            )),
        };
        let memory = limits
            .memory
            .filter(|_| !has("memory"))
            .map(|limit| missing("memory", "max_memory", spelled(limit)));
        let cpus = limits
            .cpus
            .filter(|_| !has("cpus") && !has("cpu-quota"))
            .map(|limit| missing("cpus", "max_cpus", limit.to_string()));
        memory.into_iter().chain(cpus).collect()
    }
}

fn over(value: &str, limit: u64, key: &str) -> Option<Refusal> {
    let what = match size(value) {
        Some(0) => "0 is no limit".to_owned(),
        Some(bytes) if bytes <= limit => return None,
        Some(_) => format!("{value} is too much"),
        None => format!("how much `{value}` is cannot be told"),
    };
    Some(beyond(&what, key, spelled(limit)))
}

fn too_many_cpus(cpus: Option<f64>, limit: f64) -> Option<Refusal> {
    let what = match cpus {
        Some(cpus) if cpus > 0.0 && cpus <= limit => return None,
        Some(cpus) if cpus > 0.0 => format!("{cpus} is too much"),
        Some(_) => "0 is no limit".to_owned(),
        None => "how many processors it means cannot be told".to_owned(),
    };
    Some(beyond(&what, "max_cpus", limit))
}

fn by_quota(all: &[DockerOption]) -> Option<f64> {
    let quota = decimal(last(all, "cpu-quota")?)?;
    let period = match last(all, "cpu-period") {
        Some(period) => decimal(period)?,
        None => DEFAULT_PERIOD,
    };
    let period = if period > 0.0 { period } else { DEFAULT_PERIOD };
    Some(quota / period)
}

/// All values of `gpus` together.
fn too_many_gpus(all: &[DockerOption], limit: u64) -> Option<Refusal> {
    let mut sum = 0_u64;
    for option in all.iter().filter(|option| option.name == "gpus") {
        let Some(count) = gpus::request(option.value()?).and_then(|request| request.count) else {
            return Some(beyond("it may be every GPU there is", "max_gpus", limit));
        };
        sum = sum.saturating_add(count);
    }
    (sum > limit).then(|| beyond(&format!("{sum} is too much"), "max_gpus", limit))
}

/// Does it put memory of its own where shared memory is?
fn is_memory_at_shm(option: &DockerOption) -> bool {
    let value = option.value().unwrap_or_default().to_ascii_lowercase();
    value.contains("/shm") && (option.name == "tmpfs" || value.contains("tmpfs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (text, bytes) in [
            ("1024", Some(1024)),
            ("1k", Some(1024)),
            ("1.5g", Some(1_610_612_736)),
            ("2 GiB", Some(2 << 30)),
            ("2gb", Some(2 << 30)),
            ("2GB", Some(2 << 30)),
            ("0", Some(0)),
            ("-1", None),
            ("", None),
            ("1e9", None),
            ("1x", None),
            ("1  g", None),
            ("99999999999999p", Some(u64::MAX)),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn sizes_are_spelled_as_people_write_them() {
        for (bytes, text) in [
            (32 << 30, "32g"),
            (1536 << 20, "1536m"),
            (1000, "1000"),
            (0, "0"),
        ] {
            assert_eq!(spelled(bytes), text);
        }
    }
}
