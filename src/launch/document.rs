//! JSON or YAML text to a value, for every file that a person hands in: queue configs, launch specs, schemas.
//! Text in, value out; reading the file is the caller's.
//!
//! Numbers keep the text that they were written with, because `cpus: 1.10` must reach docker as `1.10`. Keys keep
//! their order. Where JSON and YAML readers differ from each other in silence, this one refuses: a key written
//! twice, a tag, a number that JSON cannot hold.

mod budget;
mod merge_keys;

use std::fmt;
use std::path::Path;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

use crate::failure::{Error, Result};
use crate::launch::spec::{Object, kind_of};
use budget::Budget;

/// Reads one document. `name` is what the errors call it, with line and column: `queue.yaml:3:7: ..`.
///
/// Text that starts with `{` or `[` is JSON; in a file named `.yaml` or `.yml` it may be YAML's flow style too. YAML's
/// merge key `<<` is applied; other keys that are not text become text (`8080: x`).
pub fn parse(text: &str, name: &str) -> Result<Value> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !text.trim_start().starts_with(['{', '[']) {
        return yaml(text).map_err(|problem| problem.into_error(name));
    }
    // YAML's flow style takes some broken JSON for something else (`{"a": }` is a null), so it is tried only where
    // the name says YAML, and its complaints about broken JSON are beside the point.
    let may_be_yaml = Path::new(name)
        .extension()
        .is_some_and(|it| it == "yaml" || it == "yml");
    json(text).or_else(|problem| {
        may_be_yaml
            .then(|| yaml(text).ok())
            .flatten()
            .ok_or_else(|| problem.into_error(name))
    })
}

/// Reads one document that must be an object.
pub fn parse_object(text: &str, name: &str) -> Result<Object> {
    match parse(text, name)? {
        Value::Object(object) => Ok(object),
        Value::Null => {
            Err(Error::input(format!("{name}: is empty"))
                .hint("an empty object is written as `{}`"))
        }
        other => Err(Error::input(format!(
            "{name}: must be an object, not {}",
            kind_of(&other)
        ))),
    }
}

/// What is wrong, and where if the parser says so.
struct Problem {
    message: String,
    /// Line and column, from 1.
    place: Option<(usize, usize)>,
    /// What to look at.
    hint: Option<&'static str>,
}

impl Problem {
    /// The parsers put the place at the end of some messages, and in the middle of others.
    fn new(message: &str, place: Option<(usize, usize)>) -> Self {
        let mut message = message.to_owned();
        if let Some((line, column)) = place {
            message = message.replacen(&format!(" at line {line} column {column}"), "", 1);
        }
        Problem {
            message,
            place,
            hint: None,
        }
    }

    fn into_error(self, name: &str) -> Error {
        let message = match self.place {
            Some((line, column)) => format!("{name}:{line}:{column}: {}", self.message),
            None => format!("{name}: {}", self.message),
        };
        let error = Error::input(message);
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

fn json(text: &str) -> Result<Value, Problem> {
    let problem = |error: serde_json::Error| {
        let place = (error.line() > 0).then(|| (error.line(), error.column()));
        Problem::new(&error.to_string(), place)
    };
    // serde_json lets the last of two equal keys win without a word; this reading only looks for them.
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut draft = || {
        Draft(&Budget::of(text)).deserialize(&mut reader)?;
        reader.end()
    };
    draft().map_err(problem)?;
    serde_json::from_str(text).map_err(problem)
}

/// YAML is read twice. The first reading says what each scalar is, the second asks for the text of each number:
/// the parser hands out either the one or the other.
fn yaml(text: &str) -> Result<Value, Problem> {
    let problem = |error: serde_yaml::Error| {
        let place = error.location().map(|place| (place.line(), place.column()));
        let message = error.to_string();
        Problem {
            hint: yaml_hint(&message),
            ..Problem::new(&message, place)
        }
    };
    let draft = Draft(&Budget::of(text))
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(problem)?;
    let mut value = AsWritten(&draft)
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(problem)?;
    merge_keys::apply(&mut value).map_err(|message| Problem::new(&message, None))?;
    Ok(value)
}

/// What is behind the parser's words for text that is no YAML.
fn yaml_hint(message: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["cannot start any token"]) {
        return Some(
            "YAML takes no tab before a key, and text that begins with `@`, `%` or a backquote needs quotes",
        );
    }
    if says(&["a key that is text"]) {
        return Some(
            "text that begins with `{`, such as a template variable, needs quotes: \"{{name}}\"",
        );
    }
    says(&["did not find expected", "mapping values are not allowed", "while scanning"]).then_some(
        "look there and in the lines before it: what belongs together begins in one column, brackets and quotes are closed, and text that holds `: ` needs quotes",
    )
}

/// The first reading: everything but the text of the numbers. Refuses what has no place in JSON.
#[derive(Clone, Copy)]
struct Draft<'a>(&'a Budget);

impl<'de> DeserializeSeed<'de> for Draft<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.spend(0)?;
        deserializer.deserialize_any(self)
    }
}

/// A number of any size, by the text that it prints as.
fn number<E: de::Error>(text: &str) -> Result<Value, E> {
    serde_json::from_str::<Number>(text)
        .map(Value::Number)
        .map_err(|_| E::custom(format!("`{text}` is not a number that JSON can hold")))
}

impl<'de> Visitor<'de> for Draft<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value without a tag")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    /// How the parser calls the nothing of an empty document.
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Value, E> {
        number(&value.to_string())
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Value, E> {
        number(&value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom(format!("`{value}` is not a number that JSON can hold")))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        self.0.spend(value.len())?;
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Object::new();
        while let Some(key) = map.next_key_seed(NewKey(&object))? {
            self.0.spend(key.len())?;
            let value = map.next_value_seed(self)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// A key that the object does not have yet. A seed, so that the error is placed at the key itself.
struct NewKey<'a>(&'a Object);

impl<'de> DeserializeSeed<'de> for NewKey<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NewKey<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is text")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<String, E> {
        if self.0.contains_key(key) {
            return Err(E::custom(format!("the key `{key}` is there twice")));
        }
        Ok(key.to_owned())
    }
}

/// The second reading: the same value, with the numbers as they were written.
struct AsWritten<'a>(&'a Value);

impl<'de> DeserializeSeed<'de> for AsWritten<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.0 {
            Value::Number(_) => deserializer.deserialize_str(self),
            Value::Array(_) => deserializer.deserialize_seq(self),
            Value::Object(_) => deserializer.deserialize_map(self),
            same => deserializer
                .deserialize_ignored_any(IgnoredAny)
                .map(|_| same.clone()),
        }
    }
}

impl<'de> Visitor<'de> for AsWritten<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} again", kind_of(self.0))
    }

    /// YAML knows numbers that JSON does not, such as `0x1F` and `.5`: those keep their value instead.
    fn visit_str<E: de::Error>(self, written: &str) -> Result<Value, E> {
        Ok(serde_json::from_str::<Number>(written).map_or_else(|_| self.0.clone(), Value::Number))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        for drafted in self.0.as_array().into_iter().flatten() {
            values.extend(list.next_element_seed(AsWritten(drafted))?);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Object::new();
        while let Some(key) = map.next_key::<String>()? {
            let drafted = self.0.get(&key).unwrap_or(&Value::Null);
            let value = map.next_value_seed(AsWritten(drafted))?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        parse(text, "f.yaml").expect("a good document").to_string()
    }

    fn error(text: &str) -> String {
        parse(text, "f.yaml").expect_err("a bad document").message
    }

    #[test]
    fn numbers_keep_their_text_in_both_languages() {
        for number in [
            "1",
            "1.10",
            "2.0",
            "0.5",
            "-3",
            "100000000000000000000000000000000000000000000",
            "1.00000000000000000000000001",
            "18446744073709551616",
        ] {
            assert_eq!(
                shown(&format!("a: {number}")),
                format!("{{\"a\":{number}}}")
            );
            assert_eq!(
                shown(&format!("{{\"a\": {number}}}")),
                format!("{{\"a\":{number}}}")
            );
        }
        assert_eq!(shown("[1.10, {x: [2.0]}]"), r#"[1.10,{"x":[2.0]}]"#);
    }

    #[test]
    fn numbers_that_only_yaml_knows_keep_their_value() {
        assert_eq!(shown("[0x1F, 0o17, .5, +1]"), "[31,15,0.5,1]");
        assert_eq!(shown("a: 007"), r#"{"a":"007"}"#);
        assert_eq!(
            error("a: .inf"),
            "f.yaml:1:4: a: `inf` is not a number that JSON can hold"
        );
        assert!(error("[.nan]").starts_with("f.yaml:1:"));
    }

    #[test]
    fn yaml_becomes_what_its_author_means() {
        for (text, json) in [
            ("z: 1\na: 2", r#"{"z":1,"a":2}"#),
            (
                "8080: x\ntrue: y\n1.10: z",
                r#"{"8080":"x","true":"y","1.10":"z"}"#,
            ),
            ("a: \"1.10\"", r#"{"a":"1.10"}"#),
            (
                "a: yes\nb: true\nc: ~\nd:",
                r#"{"a":"yes","b":true,"c":null,"d":null}"#,
            ),
            ("x: &x [1.50]\ny: *x", r#"{"x":[1.50],"y":[1.50]}"#),
            ("- a\n- b: 1.0", r#"["a",{"b":1.0}]"#),
            ("{a: 1, b: [x,],}", r#"{"a":1,"b":["x"]}"#),
            ("\u{feff}{\"a\": 1}", r#"{"a":1}"#),
            ("", "null"),
            ("5.0", "5.0"),
        ] {
            assert_eq!(shown(text), json, "{text:?}");
        }
    }

    #[test]
    fn says_where_it_is_wrong() {
        for (text, message) in [
            (
                "{\"a\": 1,\n \"a\": 2}",
                "f.yaml:2:4: the key `a` is there twice",
            ),
            (
                "a: 1\nb: {c: 1, c: 2}",
                "f.yaml:2:11: b: the key `c` is there twice",
            ),
            (
                "8080: 1\n\"8080\": 2",
                "f.yaml:2:1: the key `8080` is there twice",
            ),
            ("{\"a\": }x", "f.yaml:1:7: expected value"),
            ("{\"a\": [1, 2}", "f.yaml:1:12: expected `,` or `]`"),
        ] {
            assert_eq!(error(text), message, "{text:?}");
        }
        assert!(error("a: !thing 5").contains("a plain value without a tag"));
        assert!(error("? [1]\n: 2").contains("a key that is text"));
        assert!(error("a: 1\n--- \nb: 2").contains("more than one document"));
    }

    #[test]
    fn depth_and_repetition_are_bounded() {
        for text in [
            "[".repeat(10_000),
            "[".repeat(10_000) + &"]".repeat(10_000),
            "{\"a\":".repeat(10_000),
            "- ".repeat(10_000),
        ] {
            assert!(parse(&text, "deep").is_err());
        }
        let mut laughs = vec!["a0: &a0 [x,x,x,x,x,x,x,x,x]".to_owned()];
        for level in 1..12 {
            let before = format!("*a{},", level - 1).repeat(9);
            laughs.push(format!("a{level}: &a{level} [{before}]"));
        }
        assert!(error(&laughs.join("\n")).contains("too large"));
        let long = format!(
            "a: &a [{}]\nb: [{}]",
            "x,".repeat(10_000),
            "*a,".repeat(10_000)
        );
        assert!(error(&long).contains("its aliases make it too large"));
        assert!(parse(&"- xxx\n".repeat(30_000), "long").is_ok());
    }

    #[test]
    fn what_is_no_yaml_has_a_hint() {
        for (text, part) in [
            ("env:\n\t- A=1", "no tab"),
            ("label: @x", "needs quotes"),
            ("volume: {{x}}", "\"{{name}}\""),
            ("env:\n  - A=1\n - B", "begins in one column"),
            ("a: b: c", "holds `: `"),
            ("a: [1\nb: 2", "brackets and quotes"),
            ("a: 'x", "brackets and quotes"),
        ] {
            let hint = parse(text, "q.yaml").expect_err(text).hint;
            assert!(hint.is_some_and(|hint| hint.contains(part)), "{text}");
        }
        let doubled = parse("a: 1\na: 2", "q.yaml").expect_err("doubled");
        assert_eq!(doubled.hint, None, "{doubled}");
    }

    #[test]
    fn an_object_is_asked_for_by_name() {
        assert!(parse_object("a: 1", "q.yaml").is_ok());
        let error = |text| parse_object(text, "q.yaml").expect_err("no object").message;
        assert_eq!(error("[1]"), "q.yaml: must be an object, not a list");
        assert_eq!(error("# nothing"), "q.yaml: is empty");
    }
}
