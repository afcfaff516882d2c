//! The value of one option: what it may be depends on what the option takes. Pure.

use serde_json::Value;

use super::{Given, refusal};
use crate::failure::{Error, Result};
use crate::launch::docker_options::{Kind, KnownOption};
use crate::launch::spec::kind_of;

/// The error for text with a NUL character in it.
pub(super) fn nul(key: &str) -> Error {
    Error::input(format!(
        "`{}` holds a NUL character, which no program can be given",
        key.replace('\0', "\\0")
    ))
}

/// Reads the value of one option.
pub(super) struct Reader<'a> {
    /// As the config has it, for the errors.
    pub(super) key: &'a str,
    /// What docker knows of it.
    pub(super) known: &'a KnownOption,
}

impl Reader<'_> {
    /// Each time that the option is to be given.
    pub(super) fn read(&self, value: &Value) -> Result<Vec<Given>> {
        if self.known.kind == Kind::Flag {
            return match value {
                Value::Bool(on) => Ok(vec![Given::Flag(*on)]),
                other => Err(self.no_boolean(other)),
            };
        }
        match value {
            Value::Array(list) if list.len() > 1 && self.known.kind == Kind::Value => {
                Err(Error::input(format!(
                    "`{}` takes one value, but the list has {}",
                    self.key,
                    list.len()
                ))
                .hint("docker would take the last; keep one"))
            }
            Value::Array(list) => list.iter().map(|value| self.one(value)).collect(),
            Value::Object(pairs) if self.known.kind == Kind::KeyValue => pairs
                .iter()
                .map(|(name, value)| self.pair(name, value))
                .collect(),
            one => Ok(vec![self.one(one)?]),
        }
    }

    fn no_boolean(&self, value: &Value) -> Error {
        let error = Error::input(format!(
            "`{}` is true or false, not {}",
            self.key,
            kind_of(value)
        ));
        match value {
            Value::String(text) if text == "true" || text == "false" => {
                error.hint(format!("write {text} without quotes"))
            }
            _ => error,
        }
    }

    fn one(&self, value: &Value) -> Result<Given> {
        match value {
            Value::String(text) if text.contains('\0') => Err(nul(self.key)),
            Value::String(text) => Ok(Given::Value(text.clone())),
            Value::Number(number) => Ok(Given::Value(number.to_string())),
            Value::Bool(_) => Err(Error::input(format!(
                "`{}` takes a value, not true or false",
                self.key
            ))
            .hint(refusal::right_form(self.known))),
            other => Err(Error::input(format!(
                "`{}` takes text or a number, not {}",
                self.key,
                kind_of(other)
            ))
            .hint(refusal::right_form(self.known))),
        }
    }

    /// One `KEY=VALUE` of a mapping.
    fn pair(&self, name: &str, value: &Value) -> Result<Given> {
        let place = format!("{}.{name}", self.key);
        if name.is_empty() || name.contains('=') {
            return Err(Error::input(format!(
                "`{place}`: a name is not empty and has no `=`"
            )));
        }
        if name.contains('\0') {
            return Err(nul(&place));
        }
        let text = match value {
            Value::String(text) if text.contains('\0') => return Err(nul(&place)),
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(on) => on.to_string(),
            Value::Null if ["env", "label"].contains(&self.known.name.as_str()) => {
                return Ok(Given::Value(name.to_owned()));
            }
            Value::Null => {
                return Err(Error::input(format!(
                    "`{place}` is null, but `{}` always takes a value",
                    self.known.name
                )));
            }
            other => {
                return Err(Error::input(format!(
                    "`{place}` takes text, a number, true or false, not {}",
                    kind_of(other)
                )));
            }
        };
        Ok(Given::Value(format!("{name}={text}")))
    }
}
