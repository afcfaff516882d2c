//! A notebook's code cells as a script, without Jupyter. Pure.
//!
//! What only a notebook understands (`!command`, `%magic`) is left out, with a `pass` in its place so that an `if`
//! around it stays whole. Source of the shape: the notebook format, version 4.

use std::fmt::Write;

use serde_json::Value;

use crate::failure::{Error, Result};
use crate::launch::spec::kind_of;

/// Cell magics whose cell is Python all the same.
const PYTHON_CELLS: [&str; 3] = ["%%time", "%%capture", "%%timeit"];

/// A script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Its text.
    pub text: String,
    /// What was left out: lines as they were written, and the first lines of whole cells.
    pub left_out: Vec<String>,
}

/// The script of the notebook `name`, whose text is `notebook`.
pub fn script(name: &str, notebook: &str) -> Result<Script> {
    let wrong = |why: String| {
        Error::input(format!("`{name}` is no notebook that can be run: {why}"))
            .hint("save it with a current Jupyter, or make the job from a script")
    };
    let notebook: Value =
        serde_json::from_str(notebook).map_err(|cause| wrong(format!("not JSON: {cause}")))?;
    let cells = notebook
        .get("cells")
        .and_then(Value::as_array)
        .ok_or_else(|| wrong("it has no `cells`".to_owned()))?;
    let language = [
        "/metadata/language_info/name",
        "/metadata/kernelspec/language",
    ]
    .iter()
    .find_map(|pointer| notebook.pointer(pointer)?.as_str());
    if let Some(language) = language.filter(|language| !language.eq_ignore_ascii_case("python")) {
        return Err(wrong(format!("its language is {language}, not Python")));
    }
    let mut script = Script {
        text: format!("# The code cells of {name}.\n"),
        left_out: Vec::new(),
    };
    for cell in cells.iter().filter(|cell| cell["cell_type"] == "code") {
        script.add(&source(cell).map_err(wrong)?);
    }
    Ok(script)
}

/// The text of a cell: a string, or a list of lines that keep their ends.
fn source(cell: &Value) -> Result<String, String> {
    match &cell["source"] {
        Value::String(text) => Ok(text.clone()),
        Value::Array(lines) => lines
            .iter()
            .map(|line| {
                line.as_str()
                    .ok_or_else(|| format!("a line of it is {}", kind_of(line)))
            })
            .collect(),
        other => Err(format!("a cell's `source` is {}", kind_of(other))),
    }
}

impl Script {
    fn add(&mut self, cell: &str) {
        let first = cell.lines().find(|line| !line.trim().is_empty());
        let Some(first) = first.map(str::trim) else {
            return;
        };
        self.text.push('\n');
        let is_python = |magic: &str| {
            PYTHON_CELLS.contains(&magic.split_whitespace().next().unwrap_or_default())
        };
        if first.starts_with("%%") && !is_python(first) {
            self.left_out.push(first.to_owned());
            return;
        }
        let mut state = State::default();
        let mut drops = false;
        for line in cell.lines() {
            if state.is_fresh() && !drops && is_for_the_notebook(line) {
                let indent = &line[..line.len() - line.trim_start().len()];
                let _ = writeln!(self.text, "{indent}pass  # left out: {}", line.trim());
                self.left_out.push(line.trim().to_owned());
                drops = line.trim_end().ends_with('\\');
                continue;
            }
            if drops {
                let _ = writeln!(self.text, "# {line}");
                drops = line.trim_end().ends_with('\\');
                continue;
            }
            state.read(line);
            self.text.push_str(line);
            self.text.push('\n');
        }
    }
}

/// Is this logical line for the notebook, and not for Python?
fn is_for_the_notebook(line: &str) -> bool {
    let text = line.trim();
    if text.starts_with(['!', '%', '?']) {
        return true;
    }
    let is_name = |c: char| c.is_alphanumeric() || "_., ".contains(c);
    // `files = !ls`, `t = %timeit -o f()`: what follows `=` is no Python either.
    if let Some((names, value)) = text.split_once('=')
        && names.chars().all(is_name)
        && value.trim_start().starts_with(['!', '%'])
    {
        return true;
    }
    // `name?` shows help.
    text.ends_with('?') && text.trim_end_matches('?').chars().all(is_name)
}

/// Where in Python's grammar a line begins, as far as that decides whether a magic may stand there.
#[derive(Debug, Default)]
struct State {
    /// Open brackets.
    depth: usize,
    /// The quote that a string goes on until: three, or one after a line that ended with a backslash.
    quote: Option<&'static str>,
    /// The line before ended with a backslash.
    continued: bool,
}

impl State {
    /// Does a new logical line begin here?
    fn is_fresh(&self) -> bool {
        self.depth == 0 && self.quote.is_none() && !self.continued
    }

    fn read(&mut self, line: &str) {
        let mut rest = line;
        self.continued = false;
        while let Some(c) = rest.chars().next() {
            if let Some(quote) = self.quote {
                if rest.starts_with(quote) {
                    self.quote = None;
                    rest = &rest[quote.len()..];
                } else {
                    rest = skip(rest, if c == '\\' { 2 } else { 1 });
                }
                continue;
            }
            match c {
                '#' => return,
                '\\' if rest.len() == 1 => self.continued = true,
                '(' | '[' | '{' => self.depth += 1,
                ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
                '"' | '\'' => {
                    let triple = if c == '"' { "\"\"\"" } else { "'''" };
                    if rest.starts_with(triple) {
                        self.quote = Some(triple);
                        rest = &rest[triple.len()..];
                    } else {
                        let Some(after) = after_string(rest, c) else {
                            self.quote = Some(&triple[..1]);
                            return;
                        };
                        rest = after;
                    }
                    continue;
                }
                _ => {}
            }
            rest = skip(rest, 1);
        }
    }
}

fn skip(text: &str, characters: usize) -> &str {
    text.char_indices()
        .nth(characters)
        .map_or("", |(index, _)| &text[index..])
}

/// What follows a string of one line; `None` when a backslash at its end makes it go on in the next.
fn after_string(text: &str, quote: char) -> Option<&str> {
    let mut rest = skip(text, 1);
    while let Some(c) = rest.chars().next() {
        if rest == "\\" {
            return None;
        }
        rest = skip(rest, if c == '\\' { 2 } else { 1 });
        if c == quote {
            break;
        }
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of_cells(cells: &[&str]) -> Script {
        let cells: Vec<Value> = cells
            .iter()
            .map(|source| json!({"cell_type": "code", "source": source}))
            .collect();
        script("n.ipynb", &json!({"cells": cells}).to_string()).expect("a notebook")
    }

    #[test]
    fn code_cells_become_a_script_in_their_order() {
        let notebook = json!({
            "cells": [
                {"cell_type": "markdown", "source": "# Title"},
                {"cell_type": "code", "source": ["import os\n", "x = 1"], "outputs": []},
                {"cell_type": "raw", "source": "raw"},
                {"cell_type": "code", "source": ""},
                {"cell_type": "code", "source": "print(x)"}
            ],
            "metadata": {"language_info": {"name": "python"}}, "nbformat": 4
        });
        let script = script("n.ipynb", &notebook.to_string()).expect("a notebook");
        assert_eq!(
            script.text,
            "# The code cells of n.ipynb.\n\nimport os\nx = 1\n\nprint(x)\n"
        );
        assert_eq!(script.left_out, [""; 0]);
    }

    #[test]
    fn what_is_for_the_notebook_is_left_out_and_said() {
        let script = of_cells(&[
            "!pip install x \\\n   y\n%matplotlib inline\nif True:\n    !ls\nfiles = !ls\nhelp?",
            "%%bash\nrm -rf x",
            "\n%%time\nwork()",
        ]);
        assert_eq!(
            script.text,
            "# The code cells of n.ipynb.\n\npass  # left out: !pip install x \\\n#    y\npass  # left out: %matplotlib inline\n\
             if True:\n    pass  # left out: !ls\npass  # left out: files = !ls\npass  # left out: help?\n\n\n\npass  # left out: %%time\nwork()\n"
        );
        assert_eq!(
            script.left_out,
            [
                "!pip install x \\",
                "%matplotlib inline",
                "!ls",
                "files = !ls",
                "help?",
                "%%bash",
                "%%time"
            ]
        );
    }

    #[test]
    fn what_only_looks_like_a_magic_stays() {
        let code = "x = (7\n  % 2)\ns = '''\n!not a command\n%nor this\n'''\nt = \"%s # \\\" (\" \\\n  % x\nu = ['a'\n  ]  # (\ny = x % 2\nz = x != 2\nv = 'one \\\n%two \\\n!three' \\\n  % x";
        let script = of_cells(&[code]);
        assert_eq!(
            script.text,
            format!("# The code cells of n.ipynb.\n\n{code}\n")
        );
        assert_eq!(script.left_out, [""; 0]);
    }

    #[test]
    fn what_cannot_be_run_says_why() {
        for (text, why) in [
            ("{", "not JSON"),
            ("{}", "it has no `cells`"),
            (
                r#"{"cells": [], "metadata": {"kernelspec": {"language": "R"}}}"#,
                "its language is R, not Python",
            ),
            (
                r#"{"cells": [{"cell_type": "code", "source": 5}]}"#,
                "a cell's `source` is a number",
            ),
        ] {
            let error = script("n.ipynb", text).expect_err(text);
            assert!(error.message.contains(why), "{error}");
        }
    }
}
