//! What one template variable may be. Pure: it reads a schema and judges values.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Number, Value};

use crate::failure::{Error, Result};
use crate::launch::spec::{Object, kind_of};

/// The type of a template variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Any text.
    String,
    /// A number without fraction.
    Integer,
    /// Any number; also written `float`.
    Number,
}

impl Type {
    fn parse(word: &str) -> Option<Type> {
        match word {
            "string" => Some(Type::String),
            "integer" | "int" => Some(Type::Integer),
            "number" | "float" => Some(Type::Number),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
        }
    }

    fn holds(self, value: &Value) -> bool {
        match (self, value) {
            (Type::String, Value::String(_)) | (Type::Number, Value::Number(_)) => true,
            (Type::Integer, Value::Number(number)) => is_integer(number),
            _ => false,
        }
    }
}

/// What one template variable may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    kind: Type,
    /// The only values allowed, where there is such a list.
    choices: Option<Vec<Value>>,
    minimum: Option<Number>,
    maximum: Option<Number>,
    default: Option<Value>,
}

impl Schema {
    /// Reads `{"schema": {..}}`, or what is inside of it. Refuses a schema that no value could satisfy.
    pub(super) fn parse(value: &Value) -> Result<Schema> {
        let object = as_object(value)?;
        let Some(inner) = object.get("schema") else {
            return Schema::read_object(object);
        };
        if let Some(other) = object.keys().find(|key| *key != "schema") {
            return Err(Error::input(format!(
                "`{other}` stands beside `schema` and has no meaning there"
            )));
        }
        Schema::read_object(as_object(inner)?)
    }

    fn read_object(object: &Object) -> Result<Schema> {
        const KEYS: [&str; 5] = ["type", "enum", "minimum", "maximum", "default"];
        if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let error = Error::input(format!("the schema's key `{key}` is not known"));
            return Err(match error.clone().closest(key, KEYS) {
                with if with.hint.is_some() => with,
                _ => error.hint("the keys are `type`, `enum`, `minimum`, `maximum` and `default`"),
            });
        }
        let schema = Schema {
            kind: kind(object)?,
            choices: choices(object)?,
            minimum: bound(object, "minimum")?,
            maximum: bound(object, "maximum")?,
            default: object.get("default").filter(|it| !it.is_null()).cloned(),
        };
        schema.check()?;
        Ok(schema)
    }

    /// Refuses what contradicts itself, so that a queue is not saved to which nothing can be pushed.
    fn check(&self) -> Result<()> {
        for (key, bound) in [("minimum", &self.minimum), ("maximum", &self.maximum)] {
            let Some(bound) = bound else { continue };
            if !self.kind.holds(&Value::Number(bound.clone())) {
                return Err(Error::input(format!(
                    "the schema's `{key}` is {bound}, but the type is {}",
                    self.kind.as_str()
                )));
            }
        }
        if let (Some(minimum), Some(maximum)) = (&self.minimum, &self.maximum)
            && compare(minimum, maximum) == Ordering::Greater
        {
            return Err(Error::input(format!(
                "the schema's `minimum` {minimum} is more than its `maximum` {maximum}"
            )));
        }
        let without_choices = Schema {
            choices: None,
            ..self.clone()
        };
        for choice in self.choices.iter().flatten() {
            if let Some(why) = without_choices.reason(choice) {
                return Err(Error::input(format!(
                    "the schema's `enum` holds {choice}, but {why}"
                )));
            }
        }
        match self.default.as_ref().map(|it| (it, self.reason(it))) {
            Some((default, Some(why))) => Err(Error::input(format!(
                "the schema's `default` is {default}, but {why}"
            ))),
            _ => Ok(()),
        }
    }

    /// The type of the variable.
    pub fn kind(&self) -> Type {
        self.kind
    }

    /// The value when none is given.
    pub fn default(&self) -> Option<&Value> {
        self.default.as_ref()
    }

    /// Why a value is not allowed, with what is; `None` when it is allowed.
    pub(super) fn refuse(&self, value: &Value) -> Option<String> {
        self.reason(value).map(|why| format!("{why} ({self})"))
    }

    fn reason(&self, value: &Value) -> Option<String> {
        if !self.kind.holds(value) {
            return Some(match value {
                Value::Number(_) if self.kind == Type::Integer => {
                    "it is not a whole number".to_owned()
                }
                other => format!("it is {}", kind_of(other)),
            });
        }
        if let Value::Number(number) = value {
            if let Some(minimum) = &self.minimum
                && compare(number, minimum) == Ordering::Less
            {
                return Some(format!("it is less than {minimum}"));
            }
            if let Some(maximum) = &self.maximum
                && compare(number, maximum) == Ordering::Greater
            {
                return Some(format!("it is more than {maximum}"));
            }
        }
        match &self.choices {
            Some(choices) if !choices.iter().any(|choice| is_same(choice, value)) => {
                Some("it is not in the list".to_owned())
            }
            _ => None,
        }
    }

    /// Reads the text of a command line as the variable's type; `None` when it is no such thing.
    pub(super) fn read(&self, text: &str) -> Option<Value> {
        if self.kind == Type::String {
            return Some(Value::from(text));
        }
        let number = serde_json::from_str::<Number>(text.trim()).ok()?;
        Some(Value::Number(number)).filter(|value| self.kind.holds(value))
    }

    /// A value that is allowed.
    pub(super) fn sample(&self) -> Value {
        let bound = |bound: &Option<Number>| bound.clone().map(Value::Number);
        self.default
            .clone()
            .or_else(|| self.choices.as_ref()?.first().cloned())
            .or_else(|| bound(&self.minimum))
            .or_else(|| bound(&self.maximum))
            .unwrap_or_else(|| match self.kind {
                Type::String => Value::from("x"),
                Type::Integer | Type::Number => Value::from(1),
            })
    }
}

/// The schema in one line: `integer, 1 to 4, default 2`.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        match (&self.minimum, &self.maximum) {
            (Some(minimum), Some(maximum)) => write!(f, ", {minimum} to {maximum}")?,
            (Some(minimum), None) => write!(f, ", at least {minimum}")?,
            (None, Some(maximum)) => write!(f, ", at most {maximum}")?,
            (None, None) => {}
        }
        if let Some(choices) = &self.choices {
            let choices: Vec<String> = choices.iter().map(super::quoted).collect();
            write!(f, ", one of {}", choices.join(", "))?;
        }
        match &self.default {
            Some(Value::String(text)) => write!(f, ", default `{text}`"),
            Some(default) => write!(f, ", default {default}"),
            None => Ok(()),
        }
    }
}

fn as_object(value: &Value) -> Result<&Object> {
    value.as_object().ok_or_else(|| {
        Error::input(format!(
            "the schema must be an object, not {}",
            kind_of(value)
        ))
        .hint(r#"such as {"schema": {"type": "integer", "minimum": 1, "maximum": 4}}"#)
    })
}

fn kind(object: &Object) -> Result<Type> {
    const HINT: &str = "the types are `string`, `integer` and `number`";
    match object.get("type") {
        None => Err(Error::input("the schema has no `type`").hint(HINT)),
        Some(Value::String(word)) => Type::parse(word)
            .ok_or_else(|| Error::input(format!("the type `{word}` is not known")).hint(HINT)),
        Some(other) => Err(Error::input(format!(
            "the schema's `type` must be a string, not {}",
            kind_of(other)
        ))
        .hint(HINT)),
    }
}

fn choices(object: &Object) -> Result<Option<Vec<Value>>> {
    match object.get("enum") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) if list.is_empty() => {
            Err(Error::input("the schema's `enum` is empty"))
        }
        Some(Value::Array(list)) => Ok(Some(list.clone())),
        Some(other) => Err(Error::input(format!(
            "the schema's `enum` must be a list, not {}",
            kind_of(other)
        ))),
    }
}

fn bound(object: &Object, key: &str) -> Result<Option<Number>> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => Ok(Some(number.clone())),
        Some(other) => Err(Error::input(format!(
            "the schema's `{key}` must be a number, not {}",
            kind_of(other)
        ))),
    }
}

fn is_integer(number: &Number) -> bool {
    let text = number.to_string();
    let digits = text.strip_prefix('-').unwrap_or(&text);
    digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// By value: `2` and `2.0` are the same choice of a number.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => compare(one, other) == Ordering::Equal,
        _ => one == other,
    }
}

/// Whole numbers exactly, others as the floating-point numbers that every reader takes them for.
fn compare(one: &Number, other: &Number) -> Ordering {
    let whole = |number: &Number| number.to_string().parse::<i128>();
    if let (Ok(one), Ok(other)) = (whole(one), whole(other)) {
        return one.cmp(&other);
    }
    let float = |number: &Number| number.to_string().parse::<f64>().unwrap_or(f64::NAN);
    float(one).total_cmp(&float(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_what_is_allowed() {
        for (schema, shown) in [
            (json!({"type": "string"}), "string"),
            (
                json!({"schema": {"type": "integer", "minimum": 1, "maximum": 4, "default": 2}}),
                "integer, 1 to 4, default 2",
            ),
            (
                json!({"type": "float", "maximum": 0.5}),
                "number, at most 0.5",
            ),
            (
                json!({"type": "string", "enum": ["a", "b"], "default": "b"}),
                "string, one of `a`, `b`, default `b`",
            ),
            (
                json!({"type": "int", "enum": [1, 2]}),
                "integer, one of `1`, `2`",
            ),
        ] {
            let parsed = Schema::parse(&schema).expect("a good schema");
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(parsed.refuse(&parsed.sample()), None, "{schema}");
        }
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        for (schema, message) in [
            (json!("x"), "the schema must be an object, not a string"),
            (json!({}), "the schema has no `type`"),
            (
                json!({"type": "boolean"}),
                "the type `boolean` is not known",
            ),
            (
                json!({"type": 5}),
                "the schema's `type` must be a string, not a number",
            ),
            (
                json!({"type": "string", "minimun": 1}),
                "the schema's key `minimun` is not known",
            ),
            (
                json!({"schema": {"type": "string"}, "type": "string"}),
                "`type` stands beside `schema` and has no meaning there",
            ),
            (
                json!({"type": "string", "minimum": 1}),
                "the schema's `minimum` is 1, but the type is string",
            ),
            (
                json!({"type": "integer", "maximum": 1.5}),
                "the schema's `maximum` is 1.5, but the type is integer",
            ),
            (
                json!({"type": "number", "minimum": "1"}),
                "the schema's `minimum` must be a number, not a string",
            ),
            (
                json!({"type": "integer", "minimum": 4, "maximum": 1}),
                "the schema's `minimum` 4 is more than its `maximum` 1",
            ),
            (
                json!({"type": "string", "enum": []}),
                "the schema's `enum` is empty",
            ),
            (
                json!({"type": "string", "enum": "a"}),
                "the schema's `enum` must be a list, not a string",
            ),
            (
                json!({"type": "integer", "enum": [1, "2"]}),
                "the schema's `enum` holds \"2\", but it is a string",
            ),
            (
                json!({"type": "integer", "maximum": 4, "enum": [1, 8]}),
                "the schema's `enum` holds 8, but it is more than 4",
            ),
            (
                json!({"type": "integer", "maximum": 4, "default": 5}),
                "the schema's `default` is 5, but it is more than 4",
            ),
            (
                json!({"type": "integer", "default": 1.5}),
                "the schema's `default` is 1.5, but it is not a whole number",
            ),
            (
                json!({"type": "string", "enum": ["a"], "default": "b"}),
                "the schema's `default` is \"b\", but it is not in the list",
            ),
        ] {
            assert_eq!(
                Schema::parse(&schema).expect_err("a bad schema").message,
                message
            );
        }
    }

    #[test]
    fn compares_whole_numbers_exactly() {
        let number = |text| serde_json::from_str::<Number>(text).expect("a number");
        let compare = |one, other| compare(&number(one), &number(other));
        assert_eq!(
            compare("9007199254740993", "9007199254740992"),
            Ordering::Greater
        );
        assert_eq!(compare("2", "2.0"), Ordering::Equal);
        assert_eq!(compare("0.1", "-3"), Ordering::Greater);
    }
}
