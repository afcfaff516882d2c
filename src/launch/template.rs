//! Templates of a queue config: `{{name}}` in its values, and the schema that says what each may be. A queue's
//! owner writes both; whoever pushes a job chooses the values within the schemas.
//!
//! The shape of a schema is W&B's: `{"cpus": {"schema": {"type": "integer", "minimum": 1, "maximum": 4}}}`.

mod pieces;
mod schema;

use serde_json::Value;

use crate::failure::{Error, Result};
use crate::launch::spec::Object;
use pieces::{Piece, is_name, pieces};
pub use schema::{Schema, Type};

/// The schemas of a queue's variables, in the order in which they were written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schemas(Vec<(String, Schema)>);

impl Schemas {
    /// Reads `{"name": {"schema": {..}}}`; `{"name": {..}}` without the wrapping is forgiven.
    pub fn parse(object: &Object) -> Result<Schemas> {
        object
            .iter()
            .map(|(name, value)| {
                let place = format!("template variable `{name}`");
                if name.is_empty() || !name.chars().all(is_name) {
                    return Err(Error::input(format!(
                        "{place}: the name is not one of letters, digits, `-` and `_`"
                    )));
                }
                let schema = Schema::parse(value).map_err(|error| error.within(place))?;
                Ok((name.clone(), schema))
            })
            .collect::<Result<_>>()
            .map(Schemas)
    }

    /// Each variable with its schema.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Schema)> {
        self.0.iter().map(|(name, schema)| (name.as_str(), schema))
    }

    /// The schema of one variable.
    pub fn get(&self, name: &str) -> Option<&Schema> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, schema)| schema)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One allowed value for each variable, to see what a config looks like when it is filled.
    pub fn sample(&self) -> Object {
        self.iter()
            .map(|(name, schema)| (name.to_owned(), schema.sample()))
            .collect()
    }

    /// The value of each variable: the given one, or else the default. Names every problem in one error.
    fn values(&self, given: &Object) -> Result<Object> {
        let mut problems = Vec::new();
        for name in given.keys().filter(|name| self.get(name).is_none()) {
            problems.push(self.unknown(name));
        }
        let mut values = Object::new();
        for (name, schema) in self.iter() {
            // `null` is how the W&B client says that nothing was chosen.
            let given = given.get(name).filter(|value| !value.is_null());
            match given.or(schema.default()) {
                Some(value) => match schema.refuse(value) {
                    None => drop(values.insert(name.to_owned(), value.clone())),
                    Some(why) => problems.push(Error::input(format!(
                        "template variable `{name}` cannot be {}: {why}",
                        quoted(value)
                    ))),
                },
                None => problems.push(
                    Error::input(format!(
                        "template variable `{name}` needs a value: {schema}"
                    ))
                    .hint(format!("give it with `--set-var {name}=VALUE`")),
                ),
            }
        }
        all_or(problems, values)
    }

    fn unknown(&self, name: &str) -> Error {
        let error = Error::input(format!("the queue has no template variable `{name}`"));
        if self.is_empty() {
            return error.hint("its config has none at all");
        }
        error.closest(name, self.iter().map(|(known, _)| known))
    }
}

/// The names of the variables in a config, in the order in which they first appear.
pub fn variables(config: &Object) -> Vec<String> {
    let mut names = Vec::new();
    for value in config.values() {
        collect(value, &mut names);
    }
    names
}

fn collect(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            for piece in pieces(text) {
                if let Piece::Variable(name) = piece
                    && !names.iter().any(|known| known == name)
                {
                    names.push(name.to_owned());
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, names)),
        Value::Object(object) => object.values().for_each(|value| collect(value, names)),
        _ => {}
    }
}

/// Checks that config and schemas fit: each variable has a schema and each schema is used. Names every problem in
/// one error.
pub fn check(config: &Object, schemas: &Schemas) -> Result<()> {
    let used = variables(config);
    let mut problems = Vec::new();
    check_keys(config, &mut problems);
    for name in used.iter().filter(|name| schemas.get(name).is_none()) {
        problems.push(
            Error::input(format!(
                "the config's `{{{{{name}}}}}` has no schema"
            ))
            .hint(format!(
                r#"add it to the template variables: {{"{name}": {{"schema": {{"type": "string"}}}}}}"#
            )),
        );
    }
    for (name, _) in schemas.iter() {
        if !used.iter().any(|used| used == name) {
            problems.push(Error::input(format!(
                "template variable `{name}` is not in the config"
            )));
        }
    }
    all_or(problems, ())
}

/// A template in a key would let a value choose the option, so keys are never filled.
fn check_keys(object: &Object, problems: &mut Vec<Error>) {
    for (key, value) in object {
        if pieces(key).any(|piece| matches!(piece, Piece::Variable(_))) {
            problems.push(Error::input(format!(
                "the key `{key}` holds a template, which only a value can"
            )));
        }
        check_keys_within(value, problems);
    }
}

fn check_keys_within(value: &Value, problems: &mut Vec<Error>) {
    match value {
        Value::Object(object) => check_keys(object, problems),
        Value::Array(list) => list
            .iter()
            .for_each(|value| check_keys_within(value, problems)),
        _ => {}
    }
}

/// Fills a config. A template that is a whole value keeps the type of what it is filled with; inside a longer
/// string it becomes text. What was filled in is not looked at again.
pub fn fill(config: &Object, schemas: &Schemas, values: &Object) -> Result<Object> {
    check(config, schemas)?;
    let values = schemas.values(values)?;
    Ok(filled_object(config, &values))
}

fn filled_object(object: &Object, values: &Object) -> Object {
    object
        .iter()
        .map(|(key, value)| (key.clone(), filled(value, values)))
        .collect()
}

fn filled(value: &Value, values: &Object) -> Value {
    match value {
        Value::String(text) => filled_text(text, values),
        Value::Array(list) => list.iter().map(|value| filled(value, values)).collect(),
        Value::Object(object) => Value::Object(filled_object(object, values)),
        other => other.clone(),
    }
}

fn filled_text(text: &str, values: &Object) -> Value {
    let mut result = String::new();
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => result.push_str(text),
            Piece::Variable(name) => match values.get(name) {
                Some(value) if is_whole(text) => return value.clone(),
                Some(Value::String(value)) => result.push_str(value),
                Some(value) => result.push_str(&value.to_string()),
                None => {}
            },
        }
    }
    Value::String(result)
}

fn is_whole(text: &str) -> bool {
    let mut pieces = pieces(text);
    matches!(
        (pieces.next(), pieces.next()),
        (Some(Piece::Variable(_)), None)
    )
}

/// Reads `name=value` of `--set-var`. The value is everything after the first `=`, as the type of the variable
/// says; whether it is in range is [`fill`]'s to say.
pub fn parse_assignment(text: &str, schemas: &Schemas) -> Result<(String, Value)> {
    let (name, value) = text.split_once('=').ok_or_else(|| {
        Error::input(format!("`--set-var {text}` has no value"))
            .hint("write it as `--set-var NAME=VALUE`")
    })?;
    let schema = schemas.get(name).ok_or_else(|| schemas.unknown(name))?;
    let value = schema.read(value).ok_or_else(|| {
        Error::input(format!(
            "template variable `{name}` cannot be `{value}`: it is {schema}"
        ))
    })?;
    Ok((name.to_owned(), value))
}

/// A value as an error shows it.
fn quoted(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

/// `value`, or all problems as one error; a hint is worth showing when there is only one.
fn all_or<T>(mut problems: Vec<Error>, value: T) -> Result<T> {
    match problems.len() {
        0 => Ok(value),
        1 => Err(problems.remove(0)),
        _ => Err(Error::input(
            problems
                .iter()
                .map(|problem| problem.message.as_str())
                .collect::<Vec<_>>()
                .join("; "),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        match value {
            Value::Object(object) => object,
            other => panic!("not an object: {other}"),
        }
    }

    fn schemas() -> Schemas {
        Schemas::parse(&object(json!({
            "cpus": {"schema": {"type": "integer", "minimum": 1, "maximum": 4, "default": 2}},
            "shm-size": {"schema": {"type": "string", "enum": ["1g", "2g"]}},
            "swap": {"type": "float", "minimum": 0.5},
        })))
        .expect("good schemas")
    }

    fn config() -> Object {
        object(json!({
            "cpus": "{{cpus}}", "shm-size": "{{ shm-size }}",
            "env": ["N={{cpus}}:{{swap}}", {"A": "{{swap}}"}], "log-opt": "tag={{.ID}}",
        }))
    }

    #[test]
    fn finds_the_variables_in_their_order() {
        assert_eq!(variables(&config()), ["cpus", "shm-size", "swap"]);
        for (text, expected) in [
            ("{{a}}{{b}}", vec!["a", "b"]),
            ("{{{a}}}", vec!["a"]),
            ("{{a b}} {{}} {{.ID}} {{a} {a}}", vec![]),
            ("{{{{a}}", vec!["a"]),
            ("{{ {{a_b-1 }} }}", vec!["a_b-1"]),
        ] {
            assert_eq!(variables(&object(json!({"x": text}))), expected, "{text}");
        }
    }

    #[test]
    fn fills_once_and_keeps_the_type_of_a_whole_value() {
        let values = object(
            json!({"cpus": 3, "shm-size": "1g", "swap": serde_json::from_str::<Value>("1.50").expect("a number")}),
        );
        assert_eq!(
            Value::Object(fill(&config(), &schemas(), &values).expect("filled")).to_string(),
            r#"{"cpus":3,"shm-size":"1g","env":["N=3:1.50",{"A":1.50}],"log-opt":"tag={{.ID}}"}"#
        );
        let text = Schemas::parse(&object(
            json!({"a": {"type": "string"}, "b": {"type": "string"}}),
        ))
        .expect("good schemas");
        assert_eq!(
            fill(
                &object(json!({"x": "{{a}} {{b}}"})),
                &text,
                &object(json!({"a": "{{b}}", "b": "{{a}}"}))
            )
            .expect("filled"),
            object(json!({"x": "{{b}} {{a}}"}))
        );
    }

    #[test]
    fn refuses_values_by_name_value_and_range() {
        for (values, message) in [
            (
                json!({"cpus": 9, "shm-size": "1g", "swap": 1}),
                "template variable `cpus` cannot be `9`: it is more than 4 (integer, 1 to 4, default 2)",
            ),
            (
                json!({"cpus": "2", "shm-size": "1g", "swap": 1}),
                "template variable `cpus` cannot be `2`: it is a string (integer, 1 to 4, default 2)",
            ),
            (
                json!({"cpu": 1, "swap": 0.25}),
                "the queue has no template variable `cpu`; template variable `shm-size` needs a value: string, one of `1g`, `2g`; template variable `swap` cannot be `0.25`: it is less than 0.5 (number, at least 0.5)",
            ),
            (
                json!({"shm-size": "3g", "swap": 1}),
                "template variable `shm-size` cannot be `3g`: it is not in the list (string, one of `1g`, `2g`)",
            ),
        ] {
            let error = fill(&config(), &schemas(), &object(values)).expect_err("refused");
            assert_eq!(error.message, message);
        }
        let unknown = fill(
            &config(),
            &schemas(),
            &object(json!({"cpu": 1, "shm-size": "1g", "swap": 1})),
        )
        .expect_err("refused");
        assert_eq!(unknown.hint.as_deref(), Some("did you mean `cpus`?"));
    }

    #[test]
    fn config_and_schemas_must_fit() {
        let error = check(
            &object(json!({"a": "{{x}}", "{{y}}": 1, "b": [{"{{z}}": 1}]})),
            &schemas(),
        )
        .expect_err("they do not fit");
        assert_eq!(
            error.message,
            "the key `{{y}}` holds a template, which only a value can; \
             the key `{{z}}` holds a template, which only a value can; \
             the config's `{{x}}` has no schema; \
             template variable `cpus` is not in the config; \
             template variable `shm-size` is not in the config; \
             template variable `swap` is not in the config"
        );
        assert_eq!(check(&config(), &schemas()), Ok(()));
    }

    #[test]
    fn assignments_are_read_by_type() {
        let schemas = schemas();
        let read = |text| parse_assignment(text, &schemas);
        assert_eq!(read("cpus=3"), Ok(("cpus".to_owned(), json!(3))));
        assert_eq!(
            read("shm-size=a=b"),
            Ok(("shm-size".to_owned(), json!("a=b")))
        );
        assert_eq!(read("swap=2.50").expect("a number").1.to_string(), "2.50");
        for (text, message) in [
            ("cpus", "`--set-var cpus` has no value"),
            (
                "cpus=x",
                "template variable `cpus` cannot be `x`: it is integer, 1 to 4, default 2",
            ),
            (
                "cpus=1.5",
                "template variable `cpus` cannot be `1.5`: it is integer, 1 to 4, default 2",
            ),
            ("cpsu=1", "the queue has no template variable `cpsu`"),
        ] {
            assert_eq!(read(text).expect_err("refused").message, message);
        }
    }

    #[test]
    fn a_sample_is_allowed() {
        let sample = schemas().sample();
        assert_eq!(
            Value::Object(sample.clone()),
            json!({"cpus": 2, "shm-size": "1g", "swap": 0.5})
        );
        assert!(fill(&config(), &schemas(), &sample).is_ok());
    }
}
