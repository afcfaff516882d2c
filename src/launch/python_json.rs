//! JSON as Python's `json.dumps` writes it: what W&B's own agent puts into a job's environment, to the byte. Pure.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// The text of `json.dumps(value)`: `, ` and `: ` between, everything beyond printable ASCII escaped, floats as
/// Python's `repr`. Keys keep their order.
pub fn dumps(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(true) => text.push_str("true"),
        Value::Bool(false) => text.push_str("false"),
        Value::Number(number) => text.push_str(&number_text(number)),
        Value::String(string) => write_string(string, text),
        Value::Array(list) => {
            text.push('[');
            for (index, value) in list.iter().enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                write(value, text);
            }
            text.push(']');
        }
        Value::Object(object) => {
            text.push('{');
            for (index, (key, value)) in object.iter().enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                write_string(key, text);
                text.push_str(": ");
                write(value, text);
            }
            text.push('}');
        }
    }
}

fn write_string(string: &str, text: &mut String) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            ' '..='~' => text.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text.push('"');
}

/// Python reads a number with `.` or an exponent as a float and any other as an integer of any size.
fn number_text(number: &Number) -> String {
    let written = number.to_string();
    if written.contains(['.', 'e', 'E']) {
        return float_text(written.parse().unwrap_or(f64::NAN));
    }
    if written == "-0" {
        return "0".to_owned();
    }
    written
}

/// Python's `repr` of a float: the shortest digits that read back as the same float, with an exponent below 1e-4
/// and from 1e16 on.
fn float_text(float: f64) -> String {
    if float.is_nan() {
        return "NaN".to_owned();
    }
    if float.is_infinite() {
        let infinity = if float > 0.0 { "Infinity" } else { "-Infinity" };
        return infinity.to_owned();
    }
    let scientific = format!("{float:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = float.to_string();
        return if plain.contains('.') {
            plain
        } else {
            plain + ".0"
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_python_writes() {
        for (json, python) in [
            ("{}", "{}"),
            (
                r#"{"lr":0.1,"x":{"y":[1,2]}}"#,
                r#"{"lr": 0.1, "x": {"y": [1, 2]}}"#,
            ),
            ("[null,true,false,[],\"\"]", "[null, true, false, [], \"\"]"),
            (
                "\"é😀\u{7f}\\u0001/\\n\\\"\\\\\\b\\f\"",
                r#""\u00e9\ud83d\ude00\u007f\u0001/\n\"\\\b\f""#,
            ),
            ("1e-7", "1e-07"),
            ("1e16", "1e+16"),
            ("1e15", "1000000000000000.0"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1.50", "1.5"),
            ("2.0", "2.0"),
            ("1E5", "100000.0"),
            ("-0.0", "-0.0"),
            ("-0", "0"),
            ("1e999", "Infinity"),
            ("-1e999", "-Infinity"),
            ("1.5e300", "1.5e+300"),
            ("5e-324", "5e-324"),
            (
                "123456789012345678901234567890",
                "123456789012345678901234567890",
            ),
        ] {
            let value: Value = serde_json::from_str(json).expect("JSON");
            assert_eq!(dumps(&value), python, "{json}");
        }
    }
}
