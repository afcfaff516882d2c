//! Image references: is this the name of an image? Pure. Docker would say it too, but only when the job is running
//! already; and a name that starts with a dash would be an option.
//!
//! Source: the reference grammar of the OCI distribution project, `[registry[:port]/]path[:tag][@digest]`.

use crate::failure::{Error, Result};

/// Checks that `image` is an image reference.
pub fn check(image: &str) -> Result<()> {
    match problem(image) {
        None => Ok(()),
        Some(why) => Err(Error::input(format!("`{}` is not an image: {why}", image.escape_debug()))
            .hint("an image is `[registry/]name[:tag]` or `[registry/]name@sha256:..`, such as `python:3.12`")),
    }
}

fn problem(image: &str) -> Option<String> {
    if image.is_empty() {
        return Some("it is empty".to_owned());
    }
    if image.starts_with('-') {
        return Some("it starts with `-`".to_owned());
    }
    if image.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("it holds blanks or control characters".to_owned());
    }
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    if let Some(digest) = digest.filter(|digest| !is_digest(digest)) {
        return Some(format!("`{digest}` is no digest"));
    }
    let (name, tag) = split_tag(rest);
    if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
        return Some(format!("`{tag}` is no tag"));
    }
    name_problem(name)
}

/// The colon of a tag comes after the last slash; one before it belongs to a registry's port.
pub(super) fn split_tag(text: &str) -> (&str, Option<&str>) {
    let start = text.rfind('/').map_or(0, |slash| slash + 1);
    match text[start..].find(':') {
        Some(colon) => (&text[..start + colon], Some(&text[start + colon + 1..])),
        None => (text, None),
    }
}

/// The registry that a name begins with, if it names one; `localhost:5000/x` does, `library/x` does not.
pub(super) fn registry_part(image: &str) -> Option<&str> {
    let (first, _) = image.split_once('/')?;
    looks_like_registry(first).then_some(first)
}

fn name_problem(name: &str) -> Option<String> {
    if name.len() > 255 {
        return Some("its name is longer than 255 characters".to_owned());
    }
    let path = match name.split_once('/') {
        Some((registry, path)) if looks_like_registry(registry) => {
            if !is_registry(registry) {
                return Some(format!("`{registry}` is no registry"));
            }
            path
        }
        _ => name,
    };
    for part in path.split('/') {
        if part.is_empty() {
            return Some("a part of its name is empty".to_owned());
        }
        if part.chars().any(|c| c.is_ascii_uppercase()) {
            return Some(format!("`{part}` has upper-case letters"));
        }
        if !is_path_part(part) {
            return Some(format!(
                "`{part}` is not lower-case letters and digits, with single `.`, `_`, `__` or dashes between them"
            ));
        }
    }
    None
}

/// Docker's rule for telling `localhost/x` and `ghcr.io/x` from `library/x`.
fn looks_like_registry(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':']) || part.chars().any(|c| c.is_ascii_uppercase())
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let is_v6 = |inner: &str| inner.chars().all(|c| c.is_ascii_hexdigit() || c == ':');
    let is_host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(inner) => is_v6(inner),
        None => host.split('.').all(is_label),
    };
    is_host && port.is_none_or(is_port)
}

fn is_path_part(part: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut separator = String::new();
    for c in part.chars() {
        if !is_word(c) {
            separator.push(c);
            continue;
        }
        let is_allowed =
            separator.chars().all(|c| c == '-') || ["_", "__", "."].contains(&separator.as_str());
        if !is_allowed {
            return false;
        }
        separator.clear();
    }
    part.starts_with(is_word) && separator.is_empty()
}

fn is_tag(tag: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128
        && tag.starts_with(is_word)
        && tag.chars().all(|c| is_word(c) || c == '.' || c == '-')
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.starts_with(|c: char| c.is_ascii_alphabetic())
            && algorithm
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+._-".contains(c))
            && hex.len() >= 32
            && hex.chars().all(|c| c.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_images() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        for image in [
            "alpine",
            "python:3.12",
            "library/python:3.12-slim_x.y",
            "ghcr.io/me/a__b--c.d:V1",
            "localhost:5000/x:tag",
            "localhost/x",
            "REGISTRY/x",
            "[::1]:5000/x",
            "10.0.0.1:80/a/b/c",
            &format!("x@{digest}"),
            &format!("ghcr.io/x:1@{digest}"),
            &"ab".repeat(32),
        ] {
            assert_eq!(check(image), Ok(()), "{image}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_others() {
        for (image, message) in [
            ("", "`` is not an image: it is empty"),
            ("-v", "`-v` is not an image: it starts with `-`"),
            (
                "a b",
                "`a b` is not an image: it holds blanks or control characters",
            ),
            (
                "a\nb",
                "`a\\nb` is not an image: it holds blanks or control characters",
            ),
            (
                "Python",
                "`Python` is not an image: `Python` has upper-case letters",
            ),
            (
                "a//b",
                "`a//b` is not an image: a part of its name is empty",
            ),
            ("a/", "`a/` is not an image: a part of its name is empty"),
            ("a:", "`a:` is not an image: `` is no tag"),
            ("a:b:c", "`a:b:c` is not an image: `b:c` is no tag"),
            (
                "a@sha256:1",
                "`a@sha256:1` is not an image: `sha256:1` is no digest",
            ),
            (
                "x:port/y",
                "`x:port/y` is not an image: `x:port` is no registry",
            ),
            (
                "${x}",
                "`${x}` is not an image: `${x}` is not lower-case letters and digits, with single `.`, `_`, `__` or dashes between them",
            ),
            (
                "a..b",
                "`a..b` is not an image: `a..b` is not lower-case letters and digits, with single `.`, `_`, `__` or dashes between them",
            ),
        ] {
            assert_eq!(check(image).expect_err("no image").message, message);
        }
    }
}
