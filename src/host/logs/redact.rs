//! Takes secrets out of a job's output, by value, also where a secret is split over two reads, and in the forms that
//! programs give it by themselves: base64 (which is how HTTP's `Authorization: Basic` has it), URLs, JSON, Python.

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::launch::command::Secret;
use crate::launch::python_json::dumps;

/// What stands in a secret's place.
const REDACTED: &[u8] = b"[redacted]";

/// Shorter values are words that occur by chance; hiding them would hide the log.
const LEAST_BYTES: usize = 6;

/// Replaces every occurrence of its secrets in a stream of bytes.
#[derive(Default)]
pub struct Redactor {
    /// What is hidden, by its first byte; longest first, so that a secret that contains another goes as a whole.
    hidden: Vec<Vec<Vec<u8>>>,
    /// The end of what came, where it may be the start of a secret.
    held: Vec<u8>,
}

impl Redactor {
    /// A redactor for these values; those under six bytes are left alone.
    pub fn new(secrets: &[Secret]) -> Redactor {
        let mut redactor = Redactor::default();
        redactor.add(secrets);
        redactor
    }

    /// Hides these values too from now on.
    pub fn add(&mut self, secrets: &[Secret]) {
        let mut all: Vec<Vec<u8>> = secrets
            .iter()
            .flat_map(|secret| forms(secret.expose()))
            .filter(|form| form.len() >= LEAST_BYTES)
            .chain(std::mem::take(&mut self.hidden).into_iter().flatten())
            .collect();
        if all.is_empty() {
            return;
        }
        all.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        all.dedup();
        self.hidden.resize(256, Vec::new());
        for form in all {
            self.hidden[usize::from(form[0])].push(form);
        }
    }

    /// Another one for the same values.
    #[must_use]
    pub fn anew(&self) -> Redactor {
        Redactor {
            hidden: self.hidden.clone(),
            held: Vec::new(),
        }
    }

    /// Takes more output and gives what may be shown of it so far.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.hidden.is_empty() {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        self.show(false)
    }

    /// What was held back, once nothing more comes.
    pub fn finish(&mut self) -> Vec<u8> {
        // The longer secret did not come after all: what was held for it may hold a shorter one.
        self.show(true)
    }

    /// Moves on through what is held: all of it at the end, otherwise up to what may be the start of a secret.
    fn show(&mut self, is_end: bool) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        let mut shown = Vec::with_capacity(held.len());
        let mut rest = held.as_slice();
        while !rest.is_empty() {
            // Most bytes begin no secret: they go over in runs, or a chatty job would pay for each of them.
            let plain = rest
                .iter()
                .position(|byte| !self.hidden[usize::from(*byte)].is_empty())
                .unwrap_or(rest.len());
            shown.extend_from_slice(&rest[..plain]);
            rest = &rest[plain..];
            let Some(&byte) = rest.first() else { break };
            // The first that fits decides: a longer one whose end has not come yet goes before one that it contains.
            let fits = self.hidden[usize::from(byte)]
                .iter()
                .find(|form| rest.starts_with(form) || (!is_end && form.starts_with(rest)));
            match fits {
                Some(form) if form.len() > rest.len() => break,
                Some(form) => {
                    shown.extend_from_slice(REDACTED);
                    rest = &rest[form.len()..];
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
}

/// What programs leave as it is in a part of a URL, beside letters, digits and `-_.~`: the strictest, Python's `quote`,
/// JavaScript's `encodeURIComponent`, Go's passwords, JavaScript's `encodeURI`.
const PLAIN_IN_URLS: [&str; 5] = ["", "/", "!'()*", "$&+,;=", "!'()*$&+,;=/?:@#"];

/// A value as programs write it: itself, in Python, as a part of a URL, inside JSON, and inside any base64.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    if secret.len() < LEAST_BYTES {
        return Vec::new();
    }
    let mut forms = vec![
        secret.as_bytes().to_vec(),
        // `echo` and `$(..)` leave the white space of the end behind.
        secret.trim().as_bytes().to_vec(),
        // As Python prints it in a list or a dictionary.
        secret.replace('\\', "\\\\").into_bytes(),
    ];
    forms.extend(in_json(secret));
    for plain in PLAIN_IN_URLS {
        for blank in ["%20", "+"] {
            forms.push(in_url(secret, plain, blank, |byte| format!("%{byte:02X}")));
            forms.push(in_url(secret, plain, blank, |byte| format!("%{byte:02x}")));
        }
    }
    for alphabet in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        forms.extend((0..3).map(|before| in_base64(secret.as_bytes(), before, alphabet)));
    }
    forms
}

/// Between the quotes: as it must be, with slashes escaped, as Go writes it for web pages, and in ASCII, as Python does.
fn in_json(secret: &str) -> impl Iterator<Item = Vec<u8>> {
    let value = serde_json::Value::from(secret);
    let least = value.to_string();
    let for_pages = least
        .replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e");
    let all = [least.replace('/', "\\/"), for_pages, dumps(&value), least];
    all.into_iter()
        .map(|json| json.as_bytes()[1..json.len() - 1].to_vec())
}

/// As a part of a URL, with what is in `plain` left as it is.
fn in_url(secret: &str, plain: &str, blank: &str, escaped: impl Fn(u8) -> String) -> Vec<u8> {
    let is_plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || plain.as_bytes().contains(&byte)
    };
    let text: String = secret
        .bytes()
        .map(|byte| match byte {
            b' ' => blank.to_owned(),
            byte if is_plain(byte) => char::from(byte).to_string(),
            byte => escaped(byte),
        })
        .collect();
    text.into_bytes()
}

/// The characters of a base64 that the secret alone decides, when so many bytes (modulo 3) stand before it. Those at
/// its two ends share their bits with its neighbours, and give away four bits of it at most.
fn in_base64(secret: &[u8], before: usize, alphabet: &GeneralPurpose) -> Vec<u8> {
    let whole = [&[0; 3][..before], secret].concat();
    let text = alphabet.encode(&whole).into_bytes();
    let first = (before * 8).div_ceil(6);
    let end = whole.len() * 8 / 6;
    text[first..end].to_vec()
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
    fn the_forms_that_programs_give_a_secret_are_hidden_too() {
        let secret = "s3cr/t k\u{e9}y+\"end\"";
        for before in ["", "a", "ab", "api:", "user:x", "longer name:"] {
            for after in ["", "!", "!!", "and more"] {
                for alphabet in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                    let whole = format!("{before}{secret}{after}");
                    let shown = redact(&[secret], &[&alphabet.encode(&whole)]);
                    let (left, right) = shown.split_once("[redacted]").expect("hidden");
                    // What is left of the secret are the characters that it shares with its neighbours.
                    assert!(left.len() <= before.len() * 4 / 3 + 1, "{whole}: {shown}");
                    assert!(right.len() <= after.len() * 4 / 3 + 2, "{whole}: {shown}");
                }
            }
        }
        for form in [
            "s3cr%2Ft%20k%C3%A9y%2B%22end%22",
            "s3cr%2ft%20k%c3%a9y%2b%22end%22",
            "s3cr%2Ft+k%C3%A9y%2B%22end%22",
            "s3cr/t k\u{e9}y+\\\"end\\\"",
            "s3cr/t%20k%C3%A9y%2B%22end%22",
            "s3cr%2Ft%20k%C3%A9y+%22end%22",
            "s3cr/t%20k%C3%A9y+%22end%22",
            "s3cr\\/t k\u{e9}y+\\\"end\\\"",
            "s3cr/t k\\u00e9y+\\\"end\\\"",
        ] {
            assert_eq!(redact(&[secret], &[form]), "[redacted]", "{form}");
        }
        let (pages, function) = ("a\\u003cb\\u0026c\\u003e-open", "a%3Cb%26c%3E-open!");
        assert_eq!(redact(&["a<b&c>-open"], &[pages]), "[redacted]");
        assert_eq!(redact(&["a<b&c>-open!"], &[function]), "[redacted]");
        assert_eq!(redact(&["sesame-open\n"], &["sesame-open."]), "[redacted].");
        let python = r#"{'password': 'a\\b"open'}"#;
        assert_eq!(
            redact(&[r#"a\b"open"#], &[python]),
            "{'password': '[redacted]'}"
        );
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

        #[test]
        fn no_base64_of_a_secret_survives_any_chunking(
            secret in "[!-~]{6,40}", before in "[!-~]{0,9}", after in "[!-~]{0,9}", size in 1usize..8
        ) {
            let encoded = STANDARD_NO_PAD.encode(format!("{before}{secret}{after}"));
            let mut redactor = Redactor::new(&[Secret::new(secret.clone())]);
            let mut shown = Vec::new();
            for chunk in encoded.as_bytes().chunks(size) {
                shown.extend(redactor.push(chunk));
            }
            shown.extend(redactor.finish());
            let shown = String::from_utf8(shown).expect("UTF-8");
            prop_assert!(shown.contains("[redacted]"), "{shown}");
        }
    }
}
