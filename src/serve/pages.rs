//! Pages of long lists: how many there may be on one, and where the next begins.

use juniper::GraphQLObject;

use super::access::{Answer, Context, refuse};
use super::scalars::Scalar;

/// No page has more than this, whatever a request asks for.
const MOST: usize = 1_000;

/// Where a page ends.
#[derive(GraphQLObject)]
#[graphql(scalar = Scalar)]
pub struct PageInfo {
    pub end_cursor: Option<String>,
    pub has_next_page: bool,
}

/// How many a page has, granted to the request: what is asked for, or else `usual`, and never too many.
pub fn granted(context: &Context, first: Option<i32>, usual: usize) -> Answer<usize> {
    context.grant(size(first, usual))
}

/// Refuses a request that names more things than it could be shown on a page.
pub fn check_count(what: &str, count: usize) -> Answer<()> {
    if count <= MOST {
        return Ok(());
    }
    refuse(format!("one request names at most {MOST} {what}"))
}

fn size(first: Option<i32>, usual: usize) -> usize {
    let wanted = first.map_or(usual, |first| usize::try_from(first).unwrap_or(0));
    wanted.min(MOST)
}

/// The number behind which a page begins; cursors are numbers.
pub fn after(cursor: Option<&str>) -> Answer<i64> {
    match cursor.filter(|cursor| !cursor.is_empty()) {
        None => Ok(0),
        Some(cursor) => match cursor.parse() {
            Ok(number) => Ok(number),
            Err(_) => refuse(format!("`{}` is not a cursor", cursor.escape_debug())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_is_endless() {
        for (first, expected) in [
            (None, 100),
            (Some(5), 5),
            (Some(0), 0),
            (Some(-1), 0),
            (Some(i32::MAX), MOST),
        ] {
            assert_eq!(size(first, 100), expected, "{first:?}");
        }
    }
}
