//! A bound on what a document unfolds to. Pure.

use std::cell::Cell;

use serde::de;

/// How large a document may become, in values and bytes of text. The parser bounds how often aliases are followed,
/// but not how much each of them brings along.
pub(super) struct Budget(Cell<usize>);

impl Budget {
    /// Ten times the text leaves room for every honest use of aliases.
    pub(super) fn of(text: &str) -> Self {
        Budget(Cell::new(text.len().saturating_mul(10).max(100_000)))
    }

    /// Takes one value with `amount` bytes of text out of the budget.
    pub(super) fn spend<E: de::Error>(&self, amount: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(amount + 1);
        self.0.set(left.unwrap_or(0));
        left.map(|_| ())
            .ok_or_else(|| E::custom("its aliases make it too large"))
    }
}
