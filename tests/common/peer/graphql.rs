//! As much of GraphQL as W&B's clients use: one operation with variables, fields with aliases, arguments and nested
//! fields. Strict where a real server is: every variable is declared, given when it must be, and used.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// A field of a document, its arguments filled in.
#[derive(Debug, Clone)]
pub struct Field {
    pub alias: String,
    pub name: String,
    pub arguments: Map<String, Value>,
    pub fields: Vec<Field>,
}

impl Field {
    pub fn text(&self, argument: &str) -> String {
        let value = self.arguments.get(argument).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    }

    /// The argument `input`, which mutations have.
    pub fn input(&self) -> Map<String, Value> {
        let input = self.arguments.get("input").and_then(Value::as_object);
        input.cloned().unwrap_or_default()
    }
}

/// The root fields of a document.
pub fn parse(text: &str, variables: &Value) -> Result<Vec<Field>, String> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        variables: variables.as_object().cloned().unwrap_or_default(),
        declared: BTreeSet::new(),
        used: BTreeSet::new(),
    };
    let kind = parser.next()?;
    if kind != "query" && kind != "mutation" {
        return Err(format!("Syntax Error: Unexpected `{kind}`"));
    }
    parser.next()?;
    if parser.peek() == "(" {
        parser.declarations()?;
    }
    let fields = parser.fields()?;
    if let Some(unused) = parser.declared.difference(&parser.used).next() {
        return Err(format!("Variable `${unused}` is never used"));
    }
    Ok(fields)
}

struct Parser {
    tokens: Vec<String>,
    at: usize,
    variables: Map<String, Value>,
    declared: BTreeSet<String>,
    used: BTreeSet<String>,
}

impl Parser {
    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn next(&mut self) -> Result<String, String> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token.ok_or_else(|| "Syntax Error: Unexpected <EOF>".to_owned())
    }

    fn expect(&mut self, wanted: &str) -> Result<(), String> {
        let token = self.next()?;
        if token == wanted {
            return Ok(());
        }
        Err(format!(
            "Syntax Error: Expected `{wanted}`, found `{token}`"
        ))
    }

    fn declarations(&mut self) -> Result<(), String> {
        self.expect("(")?;
        while self.peek() != ")" {
            self.expect("$")?;
            let name = self.next()?;
            self.expect(":")?;
            let mut kind = self.next()?;
            while !matches!(self.peek(), "$" | ")") {
                kind.push_str(&self.next()?);
            }
            let given = self
                .variables
                .get(&name)
                .is_some_and(|value| !value.is_null());
            if kind.ends_with('!') && !given {
                return Err(format!(
                    "Variable `${name}` of type `{kind}` must not be null"
                ));
            }
            self.declared.insert(name);
        }
        self.expect(")")
    }

    fn fields(&mut self) -> Result<Vec<Field>, String> {
        let mut fields = Vec::new();
        self.expect("{")?;
        while self.peek() != "}" {
            fields.push(self.field()?);
        }
        self.expect("}")?;
        Ok(fields)
    }

    fn field(&mut self) -> Result<Field, String> {
        let alias = self.next()?;
        let mut name = alias.clone();
        if self.peek() == ":" {
            self.next()?;
            name = self.next()?;
        }
        let mut arguments = Map::new();
        if self.peek() == "(" {
            self.next()?;
            arguments = self.pairs(")")?;
        }
        let fields = if self.peek() == "{" {
            self.fields()?
        } else {
            Vec::new()
        };
        Ok(Field {
            alias,
            name,
            arguments,
            fields,
        })
    }

    fn pairs(&mut self, end: &str) -> Result<Map<String, Value>, String> {
        let mut pairs = Map::new();
        while self.peek() != end {
            let name = self.next()?;
            self.expect(":")?;
            pairs.insert(name, self.value()?);
        }
        self.expect(end)?;
        Ok(pairs)
    }

    fn value(&mut self) -> Result<Value, String> {
        match self.next()?.as_str() {
            "$" => {
                let name = self.next()?;
                if !self.declared.contains(&name) {
                    return Err(format!("Variable `${name}` is not defined"));
                }
                let value = self.variables.get(&name).cloned().unwrap_or_default();
                self.used.insert(name);
                Ok(value)
            }
            "{" => Ok(Value::Object(self.pairs("}")?)),
            word => serde_json::from_str(word).map_err(|_| format!("Syntax Error: `{word}`")),
        }
    }
}

/// Names, numbers, texts and marks; commas are spaces.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        let Some(first) = rest.chars().next() else {
            return Ok(tokens);
        };
        let end = match first {
            '"' => {
                2 + rest[1..]
                    .find('"')
                    .ok_or("Syntax Error: Unterminated string")?
            }
            c if c.is_alphanumeric() || c == '_' => rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        tokens.push(rest[..end].to_owned());
        rest = &rest[end..];
    }
}
