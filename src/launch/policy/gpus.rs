//! GPUs: what `gpus` and `device` ask for, and how many that is. Pure.
//!
//! Source: docker/cli `opts/gpus.go`; device names of the NVIDIA, AMD and Intel drivers.

use std::path::Path;

use super::{Asked, Guard, Judgement, Refusal, exact, patterns};
use crate::launch::resource_args::DockerOption;

/// The variable that says which devices the runtime of NVIDIA hands out, by the names of any description too.
pub const VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";

/// What one value of `--gpus` asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// How many; `None` is all there are.
    pub count: Option<u64>,
    /// Whose driver.
    driver: String,
    /// A device by the name in its vendor's description, which is no GPU.
    other: Option<String>,
}

/// Reads a value of `--gpus`; `None` for what docker would not understand.
pub fn request(value: &str) -> Option<Request> {
    let count_of = |text: &str| match text {
        "all" => Some(None),
        number => number
            .parse::<i64>()
            .ok()
            // Docker's -1 is all there are.
            .map(|count| u64::try_from(count).ok()),
    };
    let (mut count, mut devices, mut driver) = (None, None, String::new());
    let mut other = None;
    for field in patterns::csv(value)? {
        match field.split_once('=') {
            None => count = Some(count_of(&field)?),
            Some(("count", text)) => count = Some(count_of(text)?),
            Some(("device", list)) => {
                let all = list.split(',').any(|device| device == "all");
                other = other.or_else(|| other_device(list));
                devices = Some((!all).then_some(list.split(',').count() as u64));
            }
            Some(("driver", name)) => name.clone_into(&mut driver),
            Some(("capabilities" | "options", _)) => {}
            Some(_) => return None,
        }
    }
    let count = match (count, devices) {
        (None, None) => Some(1),
        (Some(one), None) | (None, Some(one)) => one,
        // Docker refuses both at once; until it does, the larger one counts.
        (Some(a), Some(b)) => a.zip(b).map(|(a, b)| a.max(b)),
    };
    Some(Request {
        count,
        driver,
        other,
    })
}

/// The first device of a list that is described under another name than a GPU's. A name of a description is
/// `VENDOR/CLASS=NAME`; the numbers and ids of GPUs have no `=`.
fn other_device(list: &str) -> Option<String> {
    let mut devices = list.split(',').map(str::trim);
    devices
        .find(|device| device.contains('=') && !is_described_gpu(device))
        .map(str::to_owned)
}

/// Is this a GPU by the name in its vendor's description? With more slashes it is a path, to docker before it knew
/// descriptions.
fn is_described_gpu(device: &str) -> bool {
    ["nvidia.com/gpu=", "amd.com/gpu=", "intel.com/gpu="]
        .iter()
        .filter_map(|vendor| device.strip_prefix(vendor))
        .any(|name| !name.is_empty() && !name.contains(['/', ':']))
}

/// Does a value of `--gpus` ask for all there are, in whatever words?
pub fn is_all(value: &str) -> bool {
    request(value).is_none_or(|request| request.count.is_none())
}

/// Decides about `--gpus`.
pub fn option(_: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    let value = option.value().unwrap_or_default();
    match request(value) {
        Some(request) if !["", "nvidia", "amd"].contains(&request.driver.as_str()) => {
            Err(Refusal::unless_allowed(
                format!(
                    "the driver `{}` hands out other devices than GPUs",
                    request.driver
                ),
                &exact(option),
            ))
        }
        Some(request) => match request.other {
            Some(device) => Err(no_gpu(&device, &exact(option))),
            None => Ok("GPUs are in the documentation".to_owned()),
        },
        None => Err(Refusal::new(
            "what it asks for cannot be told",
            r#"write `"gpus": "all"`, a number, or `"gpus": "\"device=0,1\""`"#,
        )),
    }
}

/// Decides about `--device`: `PATH[:PATH[:RIGHTS]]`, or the name of a device that its vendor describes.
pub fn device(guard: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    let value = option.value().unwrap_or_default();
    let is_gpu = if value.starts_with('/') {
        let path = value.split(':').next().unwrap_or_default();
        is_gpu_node(&guard.real(path)?)
    } else {
        is_described_gpu(value)
    };
    if is_gpu {
        return Ok("a GPU".to_owned());
    }
    Err(Refusal::unless_allowed(
        "it is no GPU; other devices can be disks, or the host's memory",
        &exact(option),
    ))
}

/// Decides about `--env`: one variable is an order to the runtime of NVIDIA.
pub fn variable(_: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    let value = option.value().unwrap_or_default();
    let devices = value
        .strip_prefix(VISIBLE)
        .and_then(|it| it.strip_prefix('='));
    match devices.and_then(other_device) {
        Some(device) => Err(no_gpu(&device, &exact(option))),
        None => Ok("it is about the job's own process".to_owned()),
    }
}

fn no_gpu(device: &str, entry: &str) -> Refusal {
    Refusal::unless_allowed(
        format!("`{device}` is no GPU; other devices can be disks, or the host's memory"),
        entry,
    )
}

/// Is this where a GPU's driver has its devices?
pub fn is_gpu_node(path: &Path) -> bool {
    let Some(name) = path.to_str().and_then(|path| path.strip_prefix("/dev/")) else {
        return false;
    };
    let numbered = |start: &str| {
        name.strip_prefix(start)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    numbered("nvidia")
        || numbered("dri/card")
        || numbered("dri/renderD")
        || name.starts_with("nvidia-caps/")
        || [
            "nvidiactl",
            "nvidia-uvm",
            "nvidia-uvm-tools",
            "nvidia-modeset",
            "dri",
            "kfd",
        ]
        .contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_gpus_as_docker_does() {
        for (value, count) in [
            ("all", Some(None)),
            ("2", Some(Some(2))),
            ("count=3", Some(Some(3))),
            ("-1", Some(None)),
            ("device=1", Some(Some(1))),
            ("\"device=0,2\"", Some(Some(2))),
            ("device=all", Some(None)),
            ("\"device=0,all\"", Some(None)),
            ("capabilities=utility", Some(Some(1))),
            ("all,capabilities=utility", Some(None)),
            ("device=0,2", Some(Some(2))),
            ("two", None),
            ("what=1", None),
            ("\"2", None),
        ] {
            assert_eq!(
                request(value).map(|request| request.count),
                count,
                "{value}"
            );
        }
    }

    #[test]
    fn knows_the_names_of_gpus_in_descriptions() {
        for (list, other) in [
            ("0,1", None),
            ("GPU-8a3f,MIG-GPU-8a3f/1/0", None),
            ("nvidia.com/gpu=0,nvidia.com/gpu=all", None),
            ("amd.com/gpu=0", None),
            (
                "nvidia.com/gpu=0, vendor.com/disk=all",
                Some("vendor.com/disk=all"),
            ),
            (
                "nvidia.com/gpu=x/../../dev/sda",
                Some("nvidia.com/gpu=x/../../dev/sda"),
            ),
            ("nvidia.com/gpu=", Some("nvidia.com/gpu=")),
        ] {
            assert_eq!(other_device(list).as_deref(), other, "{list}");
        }
    }

    #[test]
    fn knows_the_devices_of_gpus() {
        for (path, expected) in [
            ("/dev/nvidia0", true),
            ("/dev/nvidiactl", true),
            ("/dev/dri/renderD128", true),
            ("/dev/dri", true),
            ("/dev/kfd", true),
            ("/dev/nvidia-caps/nvidia-cap1", true),
            ("/dev/nvidia0p1", false),
            ("/dev/nvidia", false),
            ("/dev/sda", false),
            ("/dev", false),
            ("/srv/nvidia0", false),
        ] {
            assert_eq!(is_gpu_node(Path::new(path)), expected, "{path}");
        }
    }
}
