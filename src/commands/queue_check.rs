//! `launch-agent queue check`: what a config asks for and what it lacks, before it is saved. Needs no queue.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{input, print, print_error};
use crate::cli::QueueCheckArgs;
use crate::failure::{Error, Result};
use crate::host::engine;
use crate::launch::spec::Object;
use crate::launch::template::{self, Schemas};
use crate::queue::local::check_definition;

pub fn run(args: &QueueCheckArgs) -> Result<ExitCode> {
    let config = input::object_in(&args.config)?;
    let variables = match &args.template_variables {
        Some(path) => input::object_in(path)?,
        None => Object::new(),
    };
    let outcome = check_definition(&config, &variables, &engine::run_help);
    let problem = outcome.as_ref().err();
    let found = describe(&config, &variables);
    let place = input::place(&args.config);
    if args.json {
        print(format_args!("{:#}", to_json(&found, problem)))?;
    } else {
        for variable in &found {
            print(format_args!(
                "{}: {}",
                super::table::escaped(&variable.name),
                variable.text()
            ))?;
        }
    }
    match problem {
        Some(error) => {
            print_error(&error.clone().within(place));
            Ok(ExitCode::from(error.kind.exit_code()))
        }
        None if !args.json => {
            super::say(format_args!("{place} is a good config"));
            Ok(ExitCode::SUCCESS)
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

/// A template variable of the config, with its schema or what is the matter with it.
struct Variable {
    name: String,
    schema: Result<String>,
    definition: Value,
}

impl Variable {
    fn text(&self) -> String {
        match &self.schema {
            Ok(schema) => schema.clone(),
            Err(problem) => format!("MISSING: {problem}"),
        }
    }
}

fn describe(config: &Object, variables: &Object) -> Vec<Variable> {
    template::variables(config)
        .into_iter()
        .map(|name| Variable {
            schema: schema(&name, variables),
            definition: variables.get(&name).cloned().unwrap_or_default(),
            name,
        })
        .collect()
}

/// The schema of one variable in words. Each is read by itself, so that a wrong one does not hide the others.
fn schema(name: &str, variables: &Object) -> Result<String> {
    let definition = variables
        .get(name)
        .ok_or_else(|| Error::input("no schema"))?;
    let alone = Object::from_iter([(name.to_owned(), definition.clone())]);
    let schemas = Schemas::parse(&alone)?;
    schemas
        .get(name)
        .map(ToString::to_string)
        .ok_or_else(|| Error::input("no schema"))
}

fn to_json(found: &[Variable], problem: Option<&Error>) -> Value {
    let variables: Vec<Value> = found
        .iter()
        .map(|variable| {
            json!({
                "name": variable.name,
                "schema": variable.definition,
                "problem": variable.schema.as_ref().err().map(ToString::to_string),
            })
        })
        .collect();
    json!({
        "ok": problem.is_none(),
        "template_variables": variables,
        "problem": problem.map(ToString::to_string),
    })
}
