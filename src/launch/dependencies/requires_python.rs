//! Which Python an author asks for, as `requires-python` and conda write it: `>=3.9,<3.13`. Pure.

/// What a file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequiresPython {
    /// The file, for people.
    pub from: &'static str,
    /// Its words.
    pub words: String,
}

/// The Pythons that images are made with, in the order in which one is chosen: the default, then what is newer, then
/// what is older.
const CHOICE: [&str; 7] = ["3.12", "3.13", "3.14", "3.11", "3.10", "3.9", "3.8"];

/// More than any release of a Python has as its third number: an image has the last one.
const LAST: u32 = 1000;

impl RequiresPython {
    /// The Python of a job that says no more; `None` where no image has a fitting one.
    pub fn choice(&self) -> Option<&'static str> {
        CHOICE.into_iter().find(|python| self.allows(python))
    }

    /// Does a Python fit, such as `3.11`? What is not understood fits.
    pub fn allows(&self, python: &str) -> bool {
        let mut version = numbers(python).0;
        version.resize(2, 0);
        version.push(LAST);
        let clauses = self.words.split(',').map(str::trim);
        clauses
            .filter(|clause| !clause.is_empty())
            .all(|clause| is_met(clause, &version).unwrap_or(true))
    }
}

/// Does a version meet one clause, such as `>=3.9`? `None` where the clause is not understood.
fn is_met(clause: &str, version: &[u32]) -> Option<bool> {
    let end = clause.find(|c: char| !"<>=!~".contains(c))?;
    let (operator, text) = clause.split_at(end);
    let (named, is_any) = numbers(text);
    if named.is_empty() {
        return None;
    }
    let mut whole = named.clone();
    whole.resize(3.max(named.len()), 0);
    let is_like = |length: usize| named.iter().zip(version).take(length).all(|(a, b)| a == b);
    Some(match operator {
        ">=" => *version >= *whole,
        ">" => *version > *whole,
        "<=" => *version <= *whole,
        "<" => *version < *whole,
        // An image is of the last release, whatever the third number that is asked for.
        "==" | "===" | "=" | "" => is_like(2),
        "!=" => !(is_any && is_like(named.len())),
        "~=" if named.len() > 1 => *version >= *whole && is_like(named.len() - 1),
        _ => return None,
    })
}

/// The numbers of a version, and whether `.*` follows them: `3.11` of `3.11.*` and of `3.11rc1`.
fn numbers(text: &str) -> (Vec<u32>, bool) {
    let mut all = Vec::new();
    for part in text.trim().split('.') {
        if part == "*" {
            return (all, true);
        }
        let end = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        let Ok(number) = part[..end].parse() else {
            break;
        };
        all.push(number);
        if end < part.len() {
            break;
        }
    }
    (all, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_python_that_is_chosen_fits_what_is_asked_for() {
        for (words, choice) in [
            (">=3.9", Some("3.12")),
            (">=3.9,<4", Some("3.12")),
            (">=3.8, <3.12", Some("3.11")),
            ("<=3.11", Some("3.10")),
            (">=3.13", Some("3.13")),
            (">3.12", Some("3.12")),
            (">=3.14", Some("3.14")),
            ("==3.10.*", Some("3.10")),
            ("==3.10", Some("3.10")),
            ("==3.10.4", Some("3.10")),
            ("~=3.9", Some("3.12")),
            ("~=3.9.2", Some("3.9")),
            (">=3.9,!=3.12.*", Some("3.13")),
            (">=3.9,!=3.12.1", Some("3.12")),
            (">=3.10.1,<3.11", Some("3.10")),
            ("<3.12.0rc1,>=3.10", Some("3.11")),
            ("=3.9", Some("3.9")),
            ("3.9.*", Some("3.9")),
            (">= 3.13", Some("3.13")),
            ("==3.*", Some("3.12")),
            ("any", Some("3.12")),
            ("", Some("3.12")),
            (">=4", None),
            ("<3", None),
            ("==2.7.*", None),
        ] {
            let requires = RequiresPython {
                from: "pyproject.toml",
                words: words.to_owned(),
            };
            assert_eq!(requires.choice(), choice, "{words}");
        }
    }
}
