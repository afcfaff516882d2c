//! W&B's `settings` files: INI, the section `[default]`. They are W&B's, so whatever we do not know in them is left
//! alone. Pure: text in, values out.

/// The value of `key` in the section `[default]`, when it is there and not empty. As in W&B's client the last one
/// written wins, and keys are found whatever their capitals.
pub fn value(text: &str, key: &str) -> Option<String> {
    let mut in_default = false;
    let mut found = None;
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            in_default = section.trim_end_matches(']').trim() == "default";
            continue;
        }
        let Some((name, value)) = line.split_once(['=', ':']) else {
            continue;
        };
        if in_default && name.trim().eq_ignore_ascii_case(key) {
            found = Some(value.trim().to_owned());
        }
    }
    found.filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_default_section_alone() {
        let text = "# ours\nbase_url = no\n[default]\nentity = me\n; entity = no\nBase_URL: https://w.example:8080\nempty =\n\
                    [other]\nentity = no\n";
        assert_eq!(value(text, "entity").as_deref(), Some("me"));
        assert_eq!(
            value(text, "base_url").as_deref(),
            Some("https://w.example:8080")
        );
        assert_eq!(value(text, "empty"), None);
        assert_eq!(value(text, "project"), None);
        assert_eq!(value("", "entity"), None);
    }
}
