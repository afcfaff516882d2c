//! The queue's config and a job's `resource_args`, made into docker's options. Pure.

use crate::launch::docker_options::OptionTable;
use crate::launch::spec::Object;

/// Merges a queue's config with the `resource_args` of a job, option by option.
///
/// The job's value wins and takes the place of the queue's; options that only the job has come after. Options are
/// the same when docker takes them for the same, so that a job's `e` replaces a queue's `env`. A `null` of the job
/// removes the queue's option.
pub fn merge(queue: &Object, job: &Object) -> Object {
    let table = OptionTable::docker_28();
    let canonical = |key: &str| table.canonical(key);
    let mut merged = Object::new();
    for (key, value) in queue {
        let name = canonical(key);
        let mut replaced = false;
        for (key, value) in job.iter().filter(|(key, _)| canonical(key) == name) {
            replaced = true;
            merged.insert(key.clone(), value.clone());
        }
        if !replaced {
            merged.insert(key.clone(), value.clone());
        }
    }
    for (key, value) in job {
        merged.insert(key.clone(), value.clone());
    }
    merged.retain(|_, value| !value.is_null());
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(value: &Value) -> Object {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn merges_option_by_option() {
        for (queue, job, merged) in [
            (json!({"rm": true}), json!({}), json!({"rm": true})),
            (
                json!({"env": ["A=1"], "rm": true}),
                json!({"cpus": 2, "e": ["B=2"]}),
                json!({"e": ["B=2"], "rm": true, "cpus": 2}),
            ),
            (
                json!({"network": "host", "shm_size": "1g", "--rm": true}),
                json!({"shm-size": "2g", "net": "none", "rm": null}),
                json!({"net": "none", "shm-size": "2g"}),
            ),
            (
                json!({"e": ["A=1"], "rm": true, "env": ["B=1"]}),
                json!({"env": ["C=1"]}),
                json!({"env": ["C=1"], "rm": true}),
            ),
            (json!({"rm": null}), json!({"init": null}), json!({})),
            (
                json!({"builder": {"type": "x"}, "init": true}),
                json!({"builder": {"type": "y"}}),
                json!({"builder": {"type": "y"}, "init": true}),
            ),
        ] {
            let result = Value::Object(merge(&object(&queue), &object(&job)));
            assert_eq!(result.to_string(), merged.to_string());
        }
    }
}
