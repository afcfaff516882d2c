//! The values of the GraphQL schema: `juniper`'s own know neither JSON objects nor whole numbers beyond 32 bits, and
//! a memory limit is both.

use std::borrow::Cow;

use derive_more::{Display, From, TryInto};
use juniper::{GraphQLScalar, ScalarValue};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// Any scalar on its way in or out.
#[derive(Clone, Debug, Display, From, PartialEq, ScalarValue, TryInto)]
pub enum Scalar {
    /// A whole number of 32 bits.
    #[value(to_float, to_int)]
    Int(i32),
    /// A longer whole number.
    Long(i64),
    /// A number with a fraction.
    #[value(to_float)]
    Float(f64),
    /// A text.
    #[value(as_str, to_string)]
    String(String),
    /// True or false.
    #[value(to_bool)]
    Boolean(bool),
    /// Any JSON, its keys in their order and its numbers as they were written.
    Json(Value),
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Scalar::Int(number) => number.serialize(serializer),
            Scalar::Long(number) => number.serialize(serializer),
            Scalar::Float(number) => number.serialize(serializer),
            Scalar::String(text) => text.serialize(serializer),
            Scalar::Boolean(truth) => truth.serialize(serializer),
            Scalar::Json(value) => value.serialize(serializer),
        }
    }
}

/// Variables come through [`from_json`]; `juniper` wants this to be there all the same.
impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(Value::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("not a scalar"))
    }
}

fn scalar(value: Value) -> Option<Scalar> {
    Some(match value {
        Value::Bool(truth) => Scalar::Boolean(truth),
        Value::String(text) => Scalar::String(text),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => i32::try_from(whole).map_or(Scalar::Long(whole), Scalar::Int),
            (None, Some(float)) => Scalar::Float(float),
            (None, None) => return None,
        },
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    })
}

/// The most values of a JSON document that comes in. Each takes up to fifty times its place in the text when it is read.
pub const MOST_VALUES: usize = 1_000_000;

/// How many values a JSON document has at the most: counted by its signs, before anything is made of it.
pub fn count_values(text: &[u8]) -> usize {
    let (mut count, mut is_quoted, mut is_escaped) = (1, false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            b',' | b'[' | b'{' if !is_quoted => count += 1,
            _ => {}
        }
    }
    count
}

/// JSON as the client writes it. A loss of `nan` comes as the bare word `NaN`, which is not JSON: like W&B's server, this
/// one makes a text of it. To refuse it would end the upload of the whole run.
pub fn strict(text: &str) -> Cow<'_, str> {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    if !WORDS[1..].iter().any(|word| text.contains(word)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    let (mut rest, mut is_quoted, mut is_escaped) = (text, false, false);
    while let Some(next) = rest.chars().next() {
        if !is_quoted && let Some(word) = WORDS.into_iter().find(|word| rest.starts_with(word)) {
            out.extend(["\"", word, "\""]);
            rest = &rest[word.len()..];
            continue;
        }
        match next {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = is_quoted,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        out.push(next);
        rest = &rest[next.len_utf8()..];
    }
    Cow::Owned(out)
}

/// The variables of a request. `serde` would show `juniper` a number of arbitrary precision as an object.
pub fn variables(object: Map<String, Value>) -> juniper::Variables<Scalar> {
    object
        .into_iter()
        .map(|(name, value)| (name, from_json(value)))
        .collect()
}

fn from_json(value: Value) -> juniper::InputValue<Scalar> {
    match value {
        Value::Array(list) => juniper::InputValue::list(list.into_iter().map(from_json).collect()),
        Value::Object(object) => juniper::InputValue::object(
            object
                .into_iter()
                .map(|(name, value)| (name, from_json(value)))
                .collect(),
        ),
        other => scalar(other).map_or(juniper::InputValue::Null, juniper::InputValue::Scalar),
    }
}

/// JSON as it is: an object stays an object on the wire.
#[derive(Clone, Debug, PartialEq, GraphQLScalar)]
#[graphql(name = "JSON", scalar = Scalar, with = json, parse_token(String))]
pub struct Json(pub Value);

mod json {
    use super::{Json, Scalar, Value};

    pub(super) fn to_output(json: &Json) -> Scalar {
        Scalar::Json(json.0.clone())
    }

    pub(super) fn from_input(scalar: &Scalar) -> Result<Json, String> {
        match scalar {
            Scalar::String(text) => Ok(Json(Value::from(text.as_str()))),
            other => serde_json::to_value(other)
                .map(Json)
                .map_err(|error| error.to_string()),
        }
    }
}

/// A text that holds JSON.
#[derive(Clone, Debug, PartialEq, GraphQLScalar)]
#[graphql(name = "JSONString", scalar = Scalar, with = json_string, parse_token(String))]
pub struct JsonString(pub Value);

mod json_string {
    use super::{JsonString, MOST_VALUES, Scalar, count_values, strict};

    pub(super) fn to_output(json: &JsonString) -> String {
        json.0.to_string()
    }

    pub(super) fn from_input(scalar: &Scalar) -> Result<JsonString, String> {
        let Scalar::String(text) = scalar else {
            return Err("a JSONString is a string that holds JSON".to_owned());
        };
        if count_values(text.as_bytes()) > MOST_VALUES {
            return Err(format!("a JSONString of more than {MOST_VALUES} values"));
        }
        serde_json::from_str(&strict(text))
            .map(JsonString)
            .map_err(|error| format!("a JSONString that is not JSON: {error}"))
    }
}

/// A whole number of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, GraphQLScalar)]
#[graphql(name = "Int64", scalar = Scalar, with = int64, parse_token(i32))]
pub struct Int64(pub i64);

mod int64 {
    use super::{Int64, Scalar};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "juniper calls it with a reference"
    )]
    pub(super) fn to_output(number: &Int64) -> Scalar {
        i32::try_from(number.0).map_or(Scalar::Long(number.0), Scalar::Int)
    }

    pub(super) fn from_input(scalar: &Scalar) -> Result<Int64, String> {
        match scalar {
            Scalar::Int(number) => Ok(Int64((*number).into())),
            Scalar::Long(number) => Ok(Int64(*number)),
            _ => Err("an Int64 is a whole number".to_owned()),
        }
    }
}

/// A time, as ISO 8601.
#[derive(Clone, Copy, Debug, PartialEq, Eq, GraphQLScalar)]
#[graphql(name = "DateTime", scalar = Scalar, with = date_time, parse_token(String))]
pub struct DateTime(pub jiff::Timestamp);

mod date_time {
    use super::{DateTime, Scalar};

    pub(super) fn to_output(time: &DateTime) -> String {
        time.0.to_string()
    }

    pub(super) fn from_input(scalar: &Scalar) -> Result<DateTime, String> {
        match scalar {
            Scalar::String(text) => text
                .parse()
                .map(DateTime)
                .map_err(|error| format!("not a time: {error}")),
            _ => Err("a DateTime is a text".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_by_signs_outside_of_strings() {
        for (text, count) in [
            ("1", 1),
            ("[]", 2),
            ("[[],[],[]]", 7),
            (r#"{"a": 1, "b": "x"}"#, 3),
            (r#""a,b[c{d""#, 1),
            (r#"["\",", ",", 1]"#, 4),
            (r#"["\\", ",", 1]"#, 4),
            (r#"["\\\",", 1]"#, 3),
        ] {
            assert_eq!(count_values(text.as_bytes()), count, "{text}");
        }
    }

    #[test]
    fn numbers_that_json_lacks_become_texts_and_texts_stay() {
        for (text, wanted) in [
            (r#"{"a": 1}"#, r#"{"a": 1}"#),
            (
                r#"{"a":NaN,"b":[Infinity,-Infinity]}"#,
                r#"{"a":"NaN","b":["Infinity","-Infinity"]}"#,
            ),
            (
                r#"{"NaN \" Infinity\\":NaN,"ü":"NaN"}"#,
                r#"{"NaN \" Infinity\\":"NaN","ü":"NaN"}"#,
            ),
            ("xNaN", r#"x"NaN""#),
        ] {
            assert_eq!(strict(text), wanted);
        }
    }
}
