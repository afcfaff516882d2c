//! Takes secrets out of a job's output, by value, also where a secret is split over two reads.

use crate::launch::command::Secret;

/// What stands in a secret's place.
const REDACTED: &[u8] = b"[redacted]";

/// Shorter values are words that occur by chance; hiding them would hide the log.
const LEAST_BYTES: usize = 6;

/// Replaces every occurrence of its secrets in a stream of bytes.
#[derive(Debug, Default)]
pub struct Redactor {
    /// Longest first, so that a secret that contains another goes as a whole.
    secrets: Vec<Secret>,
    /// The end of what came, where it may be the start of a secret.
    held: Vec<u8>,
}

impl Redactor {
    /// A redactor for these values; those under six bytes are left alone.
    pub fn new(secrets: &[Secret]) -> Redactor {
        let mut secrets: Vec<Secret> = secrets
            .iter()
            .filter(|secret| secret.expose().len() >= LEAST_BYTES)
            .cloned()
            .collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        Redactor {
            secrets,
            held: Vec::new(),
        }
    }

    /// Another one for the same values.
    #[must_use]
    pub fn anew(&self) -> Redactor {
        Redactor {
            secrets: self.secrets.clone(),
            held: Vec::new(),
        }
    }

    /// Takes more output and gives what may be shown of it so far.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.secrets.is_empty() {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut shown = Vec::with_capacity(held.len());
        let mut rest = held.as_slice();
        while !rest.is_empty() {
            // Most bytes begin no secret: they go over in runs, or a chatty job would pay for each of them.
            let plain = rest
                .iter()
                .position(|byte| self.begins_a_secret(*byte))
                .unwrap_or(rest.len());
            shown.extend_from_slice(&rest[..plain]);
            rest = &rest[plain..];
            let Some(&byte) = rest.first() else { break };
            // The first that fits decides: a longer one whose end has not come yet goes before one that it contains.
            let fits = self.secrets.iter().map(Secret::expose).find(|secret| {
                rest.starts_with(secret.as_bytes()) || secret.as_bytes().starts_with(rest)
            });
            match fits {
                Some(secret) if secret.len() > rest.len() => break,
                Some(secret) => {
                    shown.extend_from_slice(REDACTED);
                    rest = &rest[secret.len()..];
                }
                None => {
                    shown.push(byte);
                    rest = &rest[1..];
                }
            }
        }
        self.held = rest.to_vec();
        shown
    }

    fn begins_a_secret(&self, byte: u8) -> bool {
        self.secrets
            .iter()
            .any(|secret| secret.expose().as_bytes().first() == Some(&byte))
    }

    /// What was held back, once nothing more comes.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.held);
        let mut shown = Vec::new();
        // The longer secret did not come after all: what was held for it may hold a shorter one.
        while !rest.is_empty() {
            let whole = self.secrets.iter().map(Secret::expose);
            let mut whole = whole.filter(|secret| rest.starts_with(secret.as_bytes()));
            let (length, text) = match whole.next() {
                Some(secret) => (secret.len(), REDACTED),
                None => (1, &rest[..1]),
            };
            shown.extend_from_slice(text);
            rest.drain(..length);
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redact(secrets: &[&str], chunks: &[&str]) -> String {
        let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::new(*secret)).collect();
        let mut redactor = Redactor::new(&secrets);
        let mut shown = Vec::new();
        for chunk in chunks {
            shown.extend(redactor.push(chunk.as_bytes()));
        }
        shown.extend(redactor.finish());
        String::from_utf8(shown).expect("UTF-8")
    }

    #[test]
    fn hides_a_secret_wherever_the_reads_split_it() {
        let text = "key=sesame-open, again sesame-open sesame-";
        for split in 0..text.len() {
            let (before, after) = text.split_at(split);
            assert_eq!(
                redact(&["sesame-open"], &[before, after]),
                "key=[redacted], again [redacted] sesame-",
                "split at {split}"
            );
        }
    }

    #[test]
    fn the_longer_of_two_secrets_goes_first() {
        assert_eq!(
            redact(&["secret", "secret-long"], &["secret-long secret"]),
            "[redacted] [redacted]"
        );
    }

    #[test]
    fn the_end_of_a_longer_secret_that_comes_later_is_hidden_too() {
        let secrets = ["secret", "secret-long"];
        assert_eq!(redact(&secrets, &["secret", "-long."]), "[redacted].");
        assert_eq!(
            redact(&secrets, &["secret", "-lo", "st."]),
            "[redacted]-lost."
        );
        assert_eq!(redact(&secrets, &["a secret-lo"]), "a [redacted]-lo");
        assert_eq!(redact(&secrets, &["a secret"]), "a [redacted]");
    }

    #[test]
    fn short_values_and_other_text_are_left_alone() {
        assert_eq!(redact(&["none", ""], &["none of it"]), "none of it");
    }
}

#[cfg(test)]
mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_secret_survives_any_chunking(
            secret in "[a-c]{6,9}", before in "[a-c]{0,20}", after in "[a-c]{0,20}", size in 1usize..8
        ) {
            let text = format!("{before}{secret}{after}");
            let mut redactor = Redactor::new(&[Secret::new(secret.clone())]);
            let mut shown = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                shown.extend(redactor.push(chunk));
            }
            shown.extend(redactor.finish());
            let shown = String::from_utf8(shown).expect("UTF-8");
            prop_assert!(!shown.contains(&secret), "{shown}");
        }
    }
}
