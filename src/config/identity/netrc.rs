//! The netrc file, read as curl and Python read it: tokens, quoted or bare; `machine`, `default`, `login`, `account`,
//! `password`, `macdef`; comments. Pure: text in, password out.

/// The password of the first of `machines` that the file knows, else that of its `default` entry. A later entry of
/// the same machine is overlooked, as everywhere.
pub fn password(text: &str, machines: &[String]) -> Option<String> {
    let entries = entries(text);
    let of = |wanted: Option<&str>| {
        entries
            .iter()
            .find(|entry| entry.machine.as_deref() == wanted)
            .and_then(|entry| entry.password.clone())
            .filter(|password| !password.is_empty())
    };
    machines
        .iter()
        .find_map(|machine| of(Some(machine)))
        .or_else(|| of(None))
}

#[derive(Debug, Default)]
struct Entry {
    /// In small letters; `None` is `default`.
    machine: Option<String>,
    password: Option<String>,
}

fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut rest = text;
    while let Some(word) = next_token(&mut rest) {
        match word.as_str() {
            "machine" => {
                let name = next_token(&mut rest).unwrap_or_default();
                entries.push(Entry {
                    machine: Some(name.to_ascii_lowercase()),
                    password: None,
                });
            }
            "default" => entries.push(Entry::default()),
            "password" => {
                let password = next_token(&mut rest);
                if let Some(entry) = entries.last_mut() {
                    entry.password = password;
                }
            }
            "login" | "user" | "account" => {
                next_token(&mut rest);
            }
            // A macro runs to the first empty line, whatever its words are.
            "macdef" => rest = rest.split_once("\n\n").map_or("", |(_, after)| after),
            _ => {}
        }
    }
    entries
}

/// The next word. `#` begins a comment where a word would begin; inside a word it is a character, so that a password
/// may hold one.
fn next_token(rest: &mut &str) -> Option<String> {
    loop {
        *rest = rest.trim_start();
        match rest.strip_prefix('#') {
            Some(comment) => *rest = comment.split_once('\n').map_or("", |(_, after)| after),
            None => break,
        }
    }
    if rest.is_empty() {
        return None;
    }
    let quoted = rest.starts_with('"');
    let mut token = String::new();
    let mut chars = rest.char_indices().skip(usize::from(quoted));
    let mut end = rest.len();
    while let Some((index, character)) = chars.next() {
        match character {
            '\\' => token.extend(chars.next().map(|(_, escaped)| escaped)),
            '"' if quoted => {
                end = index + 1;
                break;
            }
            space if !quoted && space.is_whitespace() => {
                end = index;
                break;
            }
            other => token.push(other),
        }
    }
    *rest = &rest[end..];
    Some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_password_of_a_machine_in_every_form() {
        let one = ["api.wandb.ai".to_owned()];
        for (text, expected) in [
            (
                "machine api.wandb.ai\n  login user\n  password k1\n",
                Some("k1"),
            ),
            ("machine api.wandb.ai login user password k1", Some("k1")),
            ("machine api.wandb.ai password k1 login user", Some("k1")),
            (
                "# password no\nmachine api.wandb.ai # a comment\nlogin user\npassword k#1",
                Some("k#1"),
            ),
            (
                "machine \"api.wandb.ai\" login \"a user\" password \"k 1\"",
                Some("k 1"),
            ),
            (r#"machine api.wandb.ai password "k\"1\\""#, Some(r#"k"1\"#)),
            ("machine API.wandb.ai password k1", Some("k1")),
            (
                "machine other password no\ndefault login x password k2",
                Some("k2"),
            ),
            (
                "default password k2\nmachine api.wandb.ai password k1",
                Some("k1"),
            ),
            (
                "machine other\nmacdef init\nmachine api.wandb.ai password no\n\nmachine api.wandb.ai password k1",
                Some("k1"),
            ),
            (
                "machine other macdef x\nmachine api.wandb.ai password no",
                None,
            ),
            ("machine api.wandb.ai login user\n", None),
            ("machine api.wandb.ai password \"\"", None),
            ("machine other login machine password api.wandb.ai", None),
            ("machine", None),
            ("password", None),
            ("", None),
        ] {
            assert_eq!(password(text, &one).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn the_name_with_the_port_goes_first() {
        let both = ["host:8080".to_owned(), "host".to_owned()];
        let text = "machine host password a\nmachine host:8080 password b\n";
        assert_eq!(password(text, &both).as_deref(), Some("b"));
        assert_eq!(
            password("machine host password a", &both).as_deref(),
            Some("a")
        );
    }
}
