//! A container's name, out of what people may call a run. Pure.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// The longest name. A container's name is also a host name in docker's networks, and a part of one ends at 63.
const LONGEST: usize = 63;

/// `launch-RUN-ITEM` in the characters that docker allows in a name. Where that loses something, a few digits of a
/// hash keep names apart that would have become the same.
pub(super) fn container_name(run_id: &str, item: &str) -> String {
    let wanted = format!("launch-{run_id}-{item}");
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let clean: String = wanted
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .collect();
    if clean == wanted && clean.len() <= LONGEST {
        return clean;
    }
    let hash = Sha256::digest(wanted.as_bytes());
    let mut name = clean;
    name.truncate(LONGEST - 9);
    name.push('-');
    for byte in hash.iter().take(4) {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_what_docker_allows() {
        assert_eq!(container_name("r1", "item1"), "launch-r1-item1");
        for (run_id, item) in [
            ("a run/with 😀", "UnVuUXVldWU6MQ=="),
            (&*"x".repeat(500), "i"),
            ("$(touch x)", "\n"),
        ] {
            let name = container_name(run_id, item);
            assert!(name.len() <= LONGEST, "{name}");
            assert!(
                name.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)),
                "{name}"
            );
        }
        assert_ne!(container_name("a b", "i"), container_name("a/b", "i"));
    }
}
