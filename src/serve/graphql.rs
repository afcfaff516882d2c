//! One GraphQL request: read, checked against the schema and its limits, carried out, and answered in the words that
//! W&B's clients look for.

use juniper::parser::{Lexer, Token};
use juniper::{EmptySubscription, GraphQLError, RootNode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::access::Context;
use super::exchange::{Content, Response};
use super::root::{Mutation, Query};
use super::scalars::{MOST_VALUES, Scalar, count_values, variables};

/// How deep the fields of a request may nest. The client's deepest has eleven levels.
const DEPTH: usize = 24;
/// Words and signs of a document. The client's longest has under two thousand.
const TOKENS: usize = 8_000;
/// Fields of a document once its fragments are written out. The client's largest has under four hundred.
const FIELDS: usize = 1_000;

/// Errors of an answer. Each row that is refused may be one, and who reads them has understood by then.
const ERRORS: usize = 100;

/// The schema.
pub type Schema = RootNode<Query, Mutation, EmptySubscription<Context>, Scalar>;

/// The schema, with its limits.
pub fn schema() -> Schema {
    RootNode::new_with_scalar_value(Query, Mutation, EmptySubscription::new())
        .limit_depth(DEPTH)
        .limit_tokens(TOKENS)
        .limit_fields(FIELDS)
}

/// The body of a request. Unknown keys (`extensions`) have no effect.
#[derive(Deserialize)]
struct Request {
    query: String,
    #[serde(rename = "operationName")]
    operation_name: Option<String>,
    variables: Option<Map<String, Value>>,
}

/// Carries out the request in `body`.
pub fn answer(schema: &Schema, context: &Context, body: &[u8]) -> Response {
    if count_values(body) > MOST_VALUES {
        let refusal = format!("the request has more than {MOST_VALUES} values");
        return Response::error(413, &refusal);
    }
    let request: Request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => {
            return Response::error(400, &format!("the body is not a GraphQL request: {error}"));
        }
    };
    if is_about_the_schema_too_often(&request.query) {
        return Response::error(
            400,
            "a question about the schema asks for `fields` and its like once each",
        );
    }
    // The Python client sends an empty name and means none.
    let name = request.operation_name.filter(|name| !name.is_empty());
    // The interop script makes its table of operations out of these lines.
    let log = |answer: &str| {
        log::debug!(
            "{}: operation {} answered {answer}",
            context.caller.user,
            name.as_deref()
                .unwrap_or_else(|| name_of(&request.query))
                .escape_debug(),
        );
    };
    if let Some(unknown) = unknown_type_with_a_default(schema, &request.query) {
        let refusal = format!("Unknown type \"{unknown}\".");
        log(&format!("400 {refusal:?}"));
        return Response::error(400, &refusal);
    }
    context.budget.weigh(words(&request.query));
    let variables = variables(request.variables.unwrap_or_default());
    let done = juniper::execute_sync(&request.query, name.as_deref(), schema, &variables, context);
    log(&in_short(done.as_ref()));
    match done {
        Err(error) => Response::json(400, &json!({"errors": refused(&error)})),
        Ok((data, errors)) => {
            if context.is_troubled() && is_nothing(&data) {
                // A client repeats a request that was answered so, and nothing of this one was done.
                return Response::error(503, &errors_text(&errors));
            }
            let mut whole = json!({});
            if !errors.is_empty() {
                whole["errors"] = errors.iter().take(ERRORS).map(failed).collect();
            }
            whole["data"] = serde_json::to_value(&data).unwrap_or_default();
            Response {
                status: 200,
                headers: vec![("content-type", "application/json".to_owned())],
                content: Content::Bytes(whole.to_string().into_bytes()),
            }
        }
    }
}

/// The type of a variable that has a default value, when the schema lacks it. `juniper` looks for such a type before it
/// knows that it is there, and panics; the client repeats for minutes what nobody answered, and ends its run so late.
fn unknown_type_with_a_default<'a>(schema: &Schema, query: &'a str) -> Option<&'a str> {
    let mut last = None;
    for token in Lexer::new(query).map_while(Result::ok) {
        match token.item {
            Token::Name(name) => last = Some(name),
            // No other place of a document has this sign, and nothing but `!` and `]` is between it and the type.
            Token::Equals => {
                let unknown = last.filter(|name| schema.schema.type_by_name(name).is_none());
                if unknown.is_some() {
                    return unknown;
                }
            }
            _ => {}
        }
    }
    None
}

/// The name of the first operation in a document, as far as it can be told without reading it all.
fn name_of(query: &str) -> &str {
    let words = query.split(['{', '(']).next().unwrap_or_default();
    words.split_whitespace().last().unwrap_or_default()
}

/// How many words a document has, which is no less than the fields of its answer. Fragments may be written out many
/// times: with them it counts as the longest that is carried out.
fn words(query: &str) -> usize {
    let is_sign = |letter: char| !letter.is_alphanumeric() && letter != '_';
    let words = query.split(is_sign).filter(|word| !word.is_empty()).count();
    if query.contains("...") { FIELDS } else { words }
}

/// Types lead to types by way of their fields, and each step multiplies what there is to say: a document of some hundred
/// words would be a gigabyte. A fragment is written out once on any way down, so who asks for a word once gets it at
/// one level.
fn is_about_the_schema_too_often(query: &str) -> bool {
    let is_sign = |letter: char| !letter.is_alphanumeric() && letter != '_';
    let count = |wanted: &str| query.split(is_sign).filter(|word| *word == wanted).count();
    let nests = ["fields", "inputFields", "interfaces", "possibleTypes"];
    count("__schema") + count("__type") > 0 && nests.into_iter().any(|word| count(word) > 1)
}

/// How a request was answered, in a few words.
fn in_short(
    done: Result<&(juniper::Value<Scalar>, Vec<juniper::ExecutionError<Scalar>>), &GraphQLError>,
) -> String {
    match done {
        Err(error) => refused(error)
            .first()
            .map_or_else(String::new, |first| format!("400 {}", first["message"])),
        Ok((_, errors)) if !errors.is_empty() => format!("error {:?}", errors_text(errors)),
        Ok((data, _)) if is_nothing(data) => "null".to_owned(),
        Ok(_) => "data".to_owned(),
    }
}

fn is_nothing(data: &juniper::Value<Scalar>) -> bool {
    data.as_object_value()
        .is_none_or(|data| data.iter().all(|(_, value)| value.is_null()))
}

fn errors_text(errors: &[juniper::ExecutionError<Scalar>]) -> String {
    errors
        .iter()
        .take(ERRORS)
        .map(|error| error.error().message().to_owned())
        .collect::<Vec<_>>()
        .join("; ")
}

fn failed(error: &juniper::ExecutionError<Scalar>) -> Value {
    let place = error.location();
    json!({
        "message": error.error().message(),
        "path": error.path(),
        "locations": [{"line": place.line() + 1, "column": place.column() + 1}],
    })
}

/// The errors of a document that was not carried out.
fn refused(error: &GraphQLError) -> Vec<Value> {
    let GraphQLError::ValidationError(problems) = error else {
        return vec![json!({"message": error.to_string()})];
    };
    problems
        .iter()
        .map(|problem| {
            let places: Vec<Value> = problem
                .locations()
                .iter()
                .map(|place| json!({"line": place.line() + 1, "column": place.column() + 1}))
                .collect();
            json!({"message": in_their_words(problem.message()), "locations": places})
        })
        .collect()
}

/// The client takes an older way when a server says in these very words that it lacks a field.
fn in_their_words(message: &str) -> String {
    match message.strip_prefix("Unknown field ") {
        Some(rest) => format!("Cannot query field {rest}."),
        None => message.to_owned(),
    }
}
