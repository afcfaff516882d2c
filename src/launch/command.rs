//! An argv that prints as what it runs. One value, two readings: [`Display`](std::fmt::Display) for people and
//! bash, and the fields for `host/process.rs`. There is no second rendering that could drift.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;

/// A value that must not be seen: `Debug` prints `[redacted]`, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value itself. The only way in; each caller is worth a look.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// One command: the program and its arguments, and what its environment gets on top of the agent's own.
///
/// Secrets live in `env`, never in `argv`: they are absent from `Display`, from `ps` and from every log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandLine {
    /// The program and its arguments. Never empty once built, never holds a NUL byte.
    pub argv: Vec<String>,
    /// Variables set for the program, beside those that it inherits.
    pub env: BTreeMap<String, Secret>,
    /// The folder it runs in; the agent's own when `None`.
    pub cwd: Option<PathBuf>,
    /// Where the parts that belong on one line begin, as indexes of `argv`; see [`CommandLine::part`].
    parts: Vec<usize>,
}

impl CommandLine {
    /// A command that runs `program`.
    pub fn new(program: impl Into<String>) -> Self {
        CommandLine {
            argv: vec![program.into()],
            ..CommandLine::default()
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.argv.push(argument.into());
        self
    }

    /// Adds arguments in their order.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds arguments that belong together, such as an option and its value: they share a line in
    /// [`CommandLine::wrapped`].
    #[must_use]
    pub fn part<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.parts.push(self.argv.len());
        self.args(arguments)
    }

    /// Hands a variable to the container by name: `--env NAME` in argv and the value in the environment of the
    /// docker client. Both halves in one place, because docker silently drops a name that it cannot find.
    #[must_use]
    pub fn pass_env(mut self, name: &str, value: Secret) -> Self {
        self.env.insert(name.to_owned(), value);
        self.part(["--env", name])
    }

    /// The command as people may see it. A value of `secrets` is in an argument only where somebody wrote it there, or
    /// allowed a macro to; what runs has it all the same.
    #[must_use]
    pub fn hiding(&self, secrets: &[Secret]) -> CommandLine {
        let hide = |argument: &String| {
            let values = secrets.iter().map(Secret::expose);
            values.fold(argument.clone(), |text, value| {
                text.replace(value, "[redacted]")
            })
        };
        CommandLine {
            argv: self.argv.iter().map(hide).collect(),
            ..self.clone()
        }
    }

    /// The command over several lines for a terminal, each part on a line of its own, joined by `\`.
    pub fn wrapped(&self) -> String {
        let mut text = String::new();
        for (index, argument) in self.argv.iter().enumerate() {
            match index {
                0 => {}
                _ if self.parts.contains(&index) => text.push_str(" \\\n  "),
                _ => text.push(' '),
            }
            text.push_str(&quote(argument));
        }
        text
    }
}

/// One line that bash runs as exactly this argv. Variables and the folder are not part of it.
impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, argument) in self.argv.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(&quote(argument))?;
        }
        Ok(())
    }
}

/// Quotes one argument for bash, on one line and without anything that a terminal would act on.
///
/// Plain quoting is `shlex`'s. An argument with control characters, or with the characters that reorder text on
/// screen, is written as `$'..'`, so that a newline cannot fake a second command in a log and an escape sequence
/// cannot rewrite what the reader sees.
fn quote(argument: &str) -> String {
    if argument.chars().any(is_deceptive) {
        return ansi_c_quote(argument);
    }
    // shlex also quotes `A=1`, because it would be an assignment as the first word of a line. After a program it
    // is a plain word, and `--env A=1` is how everybody writes it.
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    match shlex::try_quote(argument) {
        Ok(quoted) => quoted.into_owned(),
        // Only a NUL byte is refused, and a NUL is a control character.
        Err(_) => ansi_c_quote(argument),
    }
}

/// Characters that bash gives no meaning to, in any place but the first word.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c)
}

/// Control characters, line separators, and the characters that change the direction of text.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn ansi_c_quote(argument: &str) -> String {
    let mut text = String::from("$'");
    for c in argument.chars() {
        match c {
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            '\'' => text.push_str("\\'"),
            '\\' => text.push_str("\\\\"),
            c if is_deceptive(c) => {
                // Bytes, not \u: what \u gives depends on the locale of the shell that reads it.
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(text, "\\x{byte:02x}");
                }
            }
            c => text.push(c),
        }
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_one_line_that_a_terminal_cannot_be_fooled_by() {
        for (argument, printed) in [
            ("plain", "plain"),
            ("A=1", "A=1"),
            ("A=~/x", "'A=~/x'"),
            ("two words", "'two words'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
            ("it's", "\"it's\""),
            ("a\nb", r"$'a\nb'"),
            ("\u{1b}[2J", r"$'\x1b[2J'"),
            ("caf\u{e9}", "'caf\u{e9}'"),
            ("a\u{202e}b", r"$'a\xe2\x80\xaeb'"),
        ] {
            assert_eq!(
                CommandLine::new(argument).to_string(),
                printed,
                "{argument:?}"
            );
        }
    }

    #[test]
    fn a_secret_is_in_neither_reading() {
        let command = CommandLine::new("docker")
            .arg("run")
            .pass_env("WANDB_API_KEY", Secret::new("sesame"));
        assert_eq!(command.to_string(), "docker run --env WANDB_API_KEY");
        assert!(!format!("{command:?}").contains("sesame"));
        assert_eq!(command.env["WANDB_API_KEY"].expose(), "sesame");
    }

    #[test]
    fn wrapped_gives_each_part_a_line() {
        let command = CommandLine::new("docker")
            .arg("run")
            .part(["--env", "A=1"])
            .part(["--rm"])
            .part(["image:1", "sh", "-c", "echo hi"]);
        assert_eq!(
            command.wrapped(),
            "docker run \\\n  --env A=1 \\\n  --rm \\\n  image:1 sh -c 'echo hi'"
        );
    }
}
