//! Macros: `${name}` in the values of a job's options, replaced once, when the job is taken. Pure: the environment
//! is handed in.
//!
//! Six names are about the job and win over the environment; the reference lets the environment win, so that a
//! variable called `run_id` in the agent's shell would reach every job. All other names are variables of the agent,
//! except those that look secret: whoever pushes a job may write macros, and must not read the owner's keys. There
//! is no escape: in `$${x}` the first `$` is text, and `${x}` is a macro like any other.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::launch::command::Secret;
use crate::launch::spec::Object;

/// What the macros stand for.
pub struct Macros<'a> {
    /// The names about the job; `None` where the job does not have the thing.
    pub job: [(&'static str, Option<&'a str>); 6],
    /// The agent's environment.
    pub environment: &'a BTreeMap<String, String>,
    /// Names that look secret and may be used all the same.
    pub allowed: &'a [String],
}

/// The result of filling a config.
#[derive(Debug, Default)]
pub struct Filled {
    /// The config with its macros replaced.
    pub config: Object,
    /// One for each macro that stays as it is.
    pub warnings: Vec<String>,
    /// Values that came from variables with a secret name, for the log's redactor.
    pub secrets: Vec<Secret>,
}

/// Whether a variable's name says that its value is nobody's business.
pub fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL"]
        .iter()
        .any(|word| name.contains(word))
}

impl Macros<'_> {
    /// Replaces the macros in all string values, at every depth. Keys stay as they are.
    pub fn fill(&self, config: &Object) -> Filled {
        let mut filled = Filled::default();
        let object = self.object(config, &mut filled);
        Filled {
            config: object,
            ..filled
        }
    }

    fn object(&self, object: &Object, notes: &mut Filled) -> Object {
        object
            .iter()
            .map(|(key, value)| (key.clone(), self.value(value, notes)))
            .collect()
    }

    fn value(&self, value: &Value, notes: &mut Filled) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text, notes)),
            Value::Array(list) => list.iter().map(|value| self.value(value, notes)).collect(),
            Value::Object(object) => Value::Object(self.object(object, notes)),
            other => other.clone(),
        }
    }

    fn text(&self, text: &str, notes: &mut Filled) -> String {
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, name, after)) = first_macro(rest) {
            result.push_str(before);
            match self.meaning(name) {
                Ok(value) => {
                    result.push_str(value);
                    if looks_secret(name) {
                        notes.secrets.push(Secret::new(value));
                    }
                }
                Err(warning) => {
                    result.push_str(&rest[before.len()..rest.len() - after.len()]);
                    if !notes.warnings.contains(&warning) {
                        notes.warnings.push(warning);
                    }
                }
            }
            rest = after;
        }
        result + rest
    }

    /// What a macro stands for, or a warning when it stays as it is.
    fn meaning(&self, name: &str) -> Result<&str, String> {
        if let Some((_, value)) = self.job.iter().find(|(known, _)| *known == name) {
            return value.ok_or_else(|| {
                format!("`${{{name}}}` stays as it is: the launch spec does not say it")
            });
        }
        if looks_secret(name) && !self.allowed.iter().any(|allowed| allowed == name) {
            return Err(format!(
                "`${{{name}}}` stays as it is: the name looks secret; list it under `policy.env_macros` in launch-config.yaml to allow it"
            ));
        }
        self.environment.get(name).map(String::as_str).ok_or_else(|| {
            format!("`${{{name}}}` stays as it is: it is neither a macro nor set in the agent's environment")
        })
    }
}

/// The text before the first macro, its name, and the text after it.
fn first_macro(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices("${").find_map(|(start, _)| {
        let inner = &text[start + 2..];
        let end = inner.find(|c: char| !c.is_alphanumeric() && c != '_')?;
        let after = inner[end..].strip_prefix('}')?;
        (end > 0).then(|| (&text[..start], &inner[..end], after))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fill(config: &Value) -> Filled {
        let environment: BTreeMap<String, String> = [
            ("HOME_DIR", "/home/${run_id}"),
            ("run_id", "hijack"),
            ("AWS_SECRET_ACCESS_KEY", "sesame"),
            ("DATA_TOKEN", "open-sesame"),
            ("EMPTY", ""),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        Macros {
            job: [
                ("project_name", Some("p")),
                ("entity_name", Some("${project_name}")),
                ("run_id", Some("r1")),
                ("run_name", Some("a run")),
                ("image_uri", Some("img:1")),
                ("author", None),
            ],
            environment: &environment,
            allowed: &["DATA_TOKEN".to_owned()],
        }
        .fill(config.as_object().expect("an object"))
    }

    fn text(text: &str) -> String {
        match &fill(&json!({"x": text})).config["x"] {
            Value::String(text) => text.clone(),
            other => panic!("not text: {other}"),
        }
    }

    #[test]
    fn replaces_once() {
        for (before, after) in [
            ("${project_name}-${run_id}", "p-r1"),
            ("${entity_name}", "${project_name}"),
            ("${HOME_DIR}", "/home/${run_id}"),
            ("$${run_id}", "$r1"),
            ("${run_id", "${run_id"),
            (
                "${}${ run_id}${run-id}$run_id",
                "${}${ run_id}${run-id}$run_id",
            ),
            ("${${run_id}}", "${r1}"),
            ("${EMPTY}", ""),
            ("${author}", "${author}"),
            ("${AWS_SECRET_ACCESS_KEY}", "${AWS_SECRET_ACCESS_KEY}"),
            ("${DATA_TOKEN}", "open-sesame"),
        ] {
            assert_eq!(text(before), after, "{before}");
        }
    }

    #[test]
    fn goes_to_every_depth_but_not_into_keys() {
        let filled = fill(&json!({"env": ["A=${run_id}", {"${run_id}": "${run_id}"}], "cpus": 1}));
        assert_eq!(
            Value::Object(filled.config),
            json!({"env": ["A=r1", {"${run_id}": "r1"}], "cpus": 1})
        );
    }

    #[test]
    fn says_once_why_a_macro_stays() {
        let filled = fill(&json!({
            "a": "${author} ${author}", "b": "${API_KEY} ${nothing}", "c": "${DATA_TOKEN}"
        }));
        assert_eq!(
            filled.warnings,
            [
                "`${author}` stays as it is: the launch spec does not say it",
                "`${API_KEY}` stays as it is: the name looks secret; list it under `policy.env_macros` in launch-config.yaml to allow it",
                "`${nothing}` stays as it is: it is neither a macro nor set in the agent's environment",
            ]
        );
        assert_eq!(filled.secrets, [Secret::new("open-sesame")]);
    }
}
