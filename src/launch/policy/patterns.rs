//! The patterns of a policy: entries of `allow` and `deny`, `mounts`, `images`; and fields as docker splits them. Pure.

use std::fmt;

use super::values::canonical;
use crate::launch::docker_options::OptionTable;

/// An entry of `allow` or `deny`: an option, or an option with the values that are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The option by its one name.
    pub option: String,
    /// The values, `*` standing for anything; `None` where the entry is the option alone.
    pub value: Option<String>,
}

impl Entry {
    /// Reads `option` or `option=value`, in any spelling of the option.
    pub fn parse(text: &str) -> Entry {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        Entry {
            option: OptionTable::docker_28().canonical(name),
            value,
        }
    }

    /// Is this a value, in its one spelling, that the entry means?
    pub fn takes(&self, value: &str) -> bool {
        self.value
            .as_ref()
            .is_none_or(|pattern| is_like(&canonical(&self.option, pattern), value))
    }

    /// The same for an entry of `allow`: there a `*` in a path does not mean the way out of a folder, which docker
    /// would go.
    pub fn allows(&self, value: &str) -> bool {
        let is_part = |pattern: &String| pattern.contains('*') && pattern != "*";
        let leaves = || value.split(['/', ':', '=', ',']).any(|part| part == "..");
        self.takes(value) && !(self.value.as_ref().is_some_and(is_part) && leaves())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.option),
            None => f.write_str(&self.option),
        }
    }
}

/// An entry of `mounts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// A folder or a file with everything below it; or, where it has no `/`, volumes by a pattern of their names.
    pub source: String,
    /// May jobs write there?
    pub writable: bool,
}

impl Mount {
    /// Reads `SOURCE`, `SOURCE:rw` or `SOURCE:ro`. `None` for what is neither a whole path nor the name of a volume.
    pub fn parse(text: &str) -> Option<Mount> {
        let (source, writable) = match text.rsplit_once(':') {
            Some((source, "ro")) => (source, false),
            Some((source, "rw")) => (source, true),
            _ => (text, true),
        };
        let is_volume = source
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-*".contains(c))
            && !source.starts_with('.');
        let is_good = !source.contains(':') && (source.starts_with('/') || is_volume);
        (is_good && !source.is_empty()).then(|| Mount {
            source: source.to_owned(),
            writable,
        })
    }

    /// Is it a path, not the name of a volume?
    pub fn is_path(&self) -> bool {
        self.source.starts_with('/')
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        f.write_str(if self.writable { "" } else { ":ro" })
    }
}

/// Is `text` what the pattern means? `*` is any text, everything else is itself.
pub fn is_like(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(found) = text.find(part) else {
            return false;
        };
        text = &text[found + part.len()..];
    }
    text.ends_with(end)
}

/// Is this image among those that the pattern means? A pattern without a tag means every tag and digest. One with a
/// tag does not mean an image by digest: docker takes the digest and does not look at the tag.
pub fn is_image(pattern: &str, image: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let (pattern, image) = (whole_name(pattern), whole_name(image));
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image.as_str(), None),
    };
    let (repository, tag) = split_tag(name);
    if pattern.contains('@') {
        return is_like(&pattern, &image);
    }
    match split_tag(&pattern) {
        (pattern, None) => is_like(pattern, repository),
        _ if digest.is_some() => false,
        _ => is_like(
            &pattern,
            &format!("{repository}:{}", tag.unwrap_or("latest")),
        ),
    }
}

/// The name with the registry and the folder that docker adds to a short one, so that a pattern without a registry
/// never means another registry.
fn whole_name(image: &str) -> String {
    let is_registry = |part: &str| {
        part == "localhost"
            || part.contains(['.', ':'])
            || part.chars().any(|c| c.is_ascii_uppercase())
    };
    match image.split_once('/') {
        Some((registry, rest)) if is_registry(registry) => match (registry, rest.contains('/')) {
            ("docker.io" | "index.docker.io", false) => format!("docker.io/library/{rest}"),
            ("index.docker.io", true) => format!("docker.io/{rest}"),
            _ => image.to_owned(),
        },
        Some(_) => format!("docker.io/{image}"),
        None => format!("docker.io/library/{image}"),
    }
}

fn split_tag(name: &str) -> (&str, Option<&str>) {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[last..].find(':') {
        Some(colon) => (&name[..last + colon], Some(&name[last + colon + 1..])),
        None => (name, None),
    }
}

/// The fields of a line of CSV, as Go's `encoding/csv` reads them for docker; `None` for what it refuses, and for
/// more lines than one.
pub fn csv(text: &str) -> Option<Vec<String>> {
    if text.contains(['\n', '\r']) {
        return None;
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_field(quoted)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        };
        if !rest.starts_with('"') && field.contains('"') {
            return None;
        }
        fields.push(field);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => return after.is_empty().then_some(fields),
        }
    }
}

/// The text up to the closing quote, `""` being a quote, and what comes after it.
fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Some((field, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "a", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "ac", false),
            ("a*a", "a", false),
            ("*x", "x/y", false),
            ("a**b", "ab", true),
        ] {
            assert_eq!(is_like(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_star_is_no_way_out_of_a_folder_that_is_allowed() {
        for (entry, value, expected) in [
            ("device=/dev/infiniband/*", "/dev/infiniband/uverbs0", true),
            ("device=/dev/infiniband/*", "/dev/infiniband/..hidden", true),
            ("device=/dev/infiniband/*", "/dev/infiniband/../sda", false),
            ("device=/dev/*:/dev/x", "/dev/..:/dev/x", false),
            ("security-opt=seccomp=/p/*", "seccomp=/p/../../tmp/x", false),
            ("device=/dev/a/../b", "/dev/a/../b", true),
            ("device=*", "/dev/a/../b", true),
            ("device", "/dev/a/../b", true),
        ] {
            assert_eq!(
                Entry::parse(entry).allows(value),
                expected,
                "{entry} {value}"
            );
        }
    }

    #[test]
    fn a_pattern_of_images_means_no_other_registry() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        for (pattern, image, expected) in [
            ("python", "python", true),
            ("python", "python:3.12", true),
            ("python", "docker.io/library/python:3.12", true),
            ("python", "index.docker.io/library/python", true),
            ("python", "docker.io/python", true),
            ("python", "evil/python", false),
            ("python*", "python.evil.com/x", false),
            ("python*", "python-slim:1", true),
            ("python:3.*", "python:3.12", true),
            ("python:3.*", "python", false),
            ("python:latest", "python", true),
            ("python:3.12", &format!("python:3.12@{digest}"), false),
            ("python", &format!("python:3.12@{digest}"), true),
            (
                &format!("python@{digest}"),
                &format!("python@{digest}"),
                true,
            ),
            ("ghcr.io/me/*", "ghcr.io/me/a/b:1", true),
            ("ghcr.io/me/*", "ghcr.io/mean/b:1", false),
            ("ghcr.io/me/*", "evil.com/ghcr.io/me/b:1", false),
            ("localhost:5000/*", "localhost:5000/x:tag", true),
            ("localhost:5000/*", "localhost:5001/x:tag", false),
            ("*", "anything:1", true),
        ] {
            assert_eq!(is_image(pattern, image), expected, "{pattern} {image}");
        }
    }

    #[test]
    fn fields_are_split_as_go_splits_them() {
        let fields = |text: &str| csv(text).map(|fields| fields.join("|"));
        for (text, expected) in [
            ("a,b", Some("a|b")),
            ("", Some("")),
            ("a,", Some("a|")),
            (r#""a,b",c"#, Some("a,b|c")),
            (r#""a""b""#, Some("a\"b")),
            (r#"a"b"#, None),
            (r#""a"b"#, None),
            (r#""a"#, None),
            ("a\nb", None),
        ] {
            assert_eq!(fields(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn entries_and_mounts_are_read() {
        for (text, option, value) in [
            ("v", "volume", None),
            ("--cap_add=SYS_PTRACE", "cap-add", Some("SYS_PTRACE")),
            ("env=A=1", "env", Some("A=1")),
        ] {
            let entry = Entry::parse(text);
            assert_eq!(
                (entry.option.as_str(), entry.value.as_deref()),
                (option, value)
            );
        }
        for (text, expected) in [
            ("/a", Some("/a")),
            ("/a:ro", Some("/a:ro")),
            ("/a:rw", Some("/a")),
            ("cache-*", Some("cache-*")),
            ("cache:ro", Some("cache:ro")),
            ("./a", None),
            ("a/b", None),
            ("/a:/b", None),
            ("", None),
            (":ro", None),
        ] {
            assert_eq!(
                Mount::parse(text).map(|it| it.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }
}
