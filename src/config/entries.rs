//! The configuration as `launch-agent config show` and W&B see it. Holds no secret.

use std::time::Duration;

use serde_json::Value;

use super::file::Builder;
use super::{AgentConfig, Backend, Setting};

impl AgentConfig {
    /// Each setting as `(key, value, origin)`, in the order of the file's documentation. Holds no secret.
    pub fn entries(&self) -> Vec<(&'static str, Value, String)> {
        fn entry<T>(
            key: &'static str,
            setting: &Setting<T>,
            show: impl Fn(&T) -> Value,
        ) -> (&'static str, Value, String) {
            (key, show(&setting.value), setting.origin.to_string())
        }
        let limit = |limit: &Option<usize>| limit.map_or(Value::from(-1), Value::from);
        let seconds = |duration: &Duration| Value::from(duration.as_secs());
        let mut entries = vec![
            entry("backend", &self.backend, |backend| match backend {
                Backend::Local(path) => Value::from(format!("local {}", path.display())),
                Backend::Wandb => Value::from("wandb"),
                Backend::Unset => Value::Null,
            }),
            entry("base_url", &self.base_url, |url| Value::from(url.as_str())),
            entry("entity", &self.entity, |entity| Value::from(entity.clone())),
            entry("queues", &self.queues, |queues| Value::from(queues.clone())),
            entry("max_jobs", &self.max_jobs, limit),
            entry("max_schedulers", &self.max_schedulers, limit),
            entry("stopped_run_timeout", &self.stopped_run_timeout, seconds),
            entry("stop_grace", &self.stop_grace, seconds),
            entry("timeout", &self.timeout, |limit| {
                limit.as_ref().map_or(Value::Null, seconds)
            }),
            entry("max_retries", &self.max_retries, |most| Value::from(*most)),
            entry("on_signal", &self.on_signal, |action| {
                Value::from(action.word())
            }),
            entry("log_max_bytes", &self.log_max_bytes, |bytes| {
                Value::from(*bytes)
            }),
            entry("min_free_disk", &self.min_free_disk, |bytes| {
                Value::from(*bytes)
            }),
            entry("engine", &self.engine, |engine| Value::from(engine.word())),
            entry("log_file", &self.log_file, |path| {
                path.as_ref()
                    .map_or(Value::Null, |path| Value::from(path.display().to_string()))
            }),
            entry("verbosity", &self.verbosity, |level| Value::from(*level)),
            entry("secure_mode", &self.secure_mode, |on| Value::from(*on)),
            entry("policy.env_macros", &self.env_macros, |names| {
                Value::from(names.clone())
            }),
            entry("pull_policy", &self.pull_policy, |policy| {
                policy.word().map_or(Value::Null, Value::from)
            }),
            entry("transfer_timeout", &self.transfer_timeout, seconds),
        ];
        entries.extend(self.policy.entries());
        entries.extend([
            entry("builder", &self.builder, |builder| {
                builder.as_ref().map_or(Value::Null, Builder::to_json)
            }),
            entry("network", &self.network, |network| {
                serde_json::json!({
                    "ca_bundle": network.ca_bundle,
                    "proxy": network.proxy.as_ref().map(|_| "[redacted]"),
                })
            }),
            entry("registry", &self.registry, Value::clone),
            entry("environment", &self.environment, Value::clone),
        ]);
        if let Some(key) = &self.api_key {
            entries.push(("api_key", Value::from("[redacted]"), key.origin.to_string()));
        }
        entries
    }
}
