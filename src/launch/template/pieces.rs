//! Where the templates of a string are. Pure.

/// A string, cut at its templates.
pub(super) enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// Cuts a string at its templates. What only looks like one (`{{.ID}}`, which docker's log options know) is text.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    let mut pending = None;
    std::iter::from_fn(move || {
        if let Some(name) = pending.take() {
            return Some(Piece::Variable(name));
        }
        if rest.is_empty() {
            return None;
        }
        let whole = rest;
        let Some((start, name, after)) = first_template(whole) else {
            rest = "";
            return Some(Piece::Text(whole));
        };
        rest = after;
        if start == 0 {
            return Some(Piece::Variable(name));
        }
        pending = Some(name);
        Some(Piece::Text(&whole[..start]))
    })
}

/// Where the first template starts, its name, and the text after it.
fn first_template(text: &str) -> Option<(usize, &str, &str)> {
    text.match_indices("{{").find_map(|(start, _)| {
        // `{{{name}}}` is a template in braces: the innermost pair counts.
        let start = start + usize::from(text[start..].starts_with("{{{"));
        let inner = text.get(start + 2..)?.trim_start();
        let name = &inner[..inner.find(|c| !is_name(c)).unwrap_or(inner.len())];
        let after = inner[name.len()..].trim_start().strip_prefix("}}")?;
        (!name.is_empty()).then_some((start, name, after))
    })
}

/// What a variable's name is made of.
pub(super) fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '-' || c == '_'
}
