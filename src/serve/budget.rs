//! What one request may cost: rows, bytes of long texts, and time. A short document can ask for a lot, many times over;
//! when one of the three is used up, the rest of it is refused.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::access::{Answer, refuse};

/// Values that one request can have in all, where each of its rows may have each of its fields. A value takes some
/// hundred bytes until the answer is sent.
const VALUES: usize = 1_000_000;

/// A document of fewer words counts as one of so many.
const WORDS: usize = 50;

/// Bytes of long texts that one request can have: lines, configs, summaries. No value counts them.
const BYTES: usize = 128 * 1024 * 1024;

/// How long one request may look for rows: what takes longer keeps others from their turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is left for one request.
pub struct Budget {
    rows: AtomicUsize,
    listed: AtomicUsize,
    bytes: AtomicUsize,
    until: Instant,
}

impl Budget {
    /// All that a request can have, from now on. Nothing is granted before it is [weighed](Budget::weigh).
    pub fn new() -> Budget {
        Budget {
            rows: AtomicUsize::new(0),
            listed: AtomicUsize::new(0),
            bytes: AtomicUsize::new(BYTES),
            until: Instant::now() + PATIENCE,
        }
    }

    /// Says how many words the request's document has: the longer it is, the fewer rows it gets, however many pages
    /// it asks for.
    pub fn weigh(&self, words: usize) {
        let rows = VALUES / words.max(WORDS);
        self.rows.store(rows, Ordering::Relaxed);
        self.listed.store(rows, Ordering::Relaxed);
    }

    /// Takes so many rows of a page out of the budget.
    pub fn rows(&self, rows: usize) -> Answer<()> {
        self.take_rows(&self.rows, rows)
    }

    /// Takes so many rows of a list without pages out of the budget. What comes beside the rows of a large page does
    /// not make that page too large, so these are counted by themselves.
    pub fn listed(&self, rows: usize) -> Answer<()> {
        self.take_rows(&self.listed, rows)
    }

    fn take_rows(&self, from: &AtomicUsize, rows: usize) -> Answer<()> {
        self.time()?;
        take(from, rows).or_else(|left| {
            refuse(format!(
                "the request asks for {rows} rows where it can have {left} more: ask for smaller pages or fewer fields"
            ))
        })
    }

    /// Takes so many bytes of long texts out of the budget.
    pub fn bytes(&self, bytes: usize) -> Answer<()> {
        take(&self.bytes, bytes).or_else(|left| {
            refuse(format!(
                "the request asks for {bytes} bytes where it can have {left} more: ask for smaller pages or fewer fields"
            ))
        })
    }

    /// Is there time left?
    pub fn time(&self) -> Answer<()> {
        if Instant::now() < self.until {
            return Ok(());
        }
        refuse(format!(
            "the request takes longer than {} seconds: ask for smaller pages or fewer fields",
            PATIENCE.as_secs()
        ))
    }
}

/// Takes from what is left, or says how much that is.
fn take(from: &AtomicUsize, wanted: usize) -> Result<(), usize> {
    let take = |left: usize| left.checked_sub(wanted);
    from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_document_gets_fewer_rows() {
        for (words, rows) in [(0, 20_000), (50, 20_000), (1_000, 1_000)] {
            let budget = Budget::new();
            assert!(budget.rows(1).is_err(), "not weighed yet");
            budget.weigh(words);
            assert!(budget.rows(rows).is_ok(), "{words}");
            assert!(budget.rows(1).is_err(), "{words}");
            assert!(budget.rows(0).is_ok());
            assert!(budget.listed(rows).is_ok() && budget.listed(1).is_err());
        }
    }

    #[test]
    fn what_is_taken_is_not_there_any_more() {
        let budget = Budget::new();
        assert!(budget.bytes(BYTES - 1).is_ok());
        assert!(budget.bytes(2).is_err());
        assert!(budget.bytes(1).is_ok());
    }

    #[test]
    fn nothing_is_granted_when_the_time_is_over() {
        let late = Budget {
            until: Instant::now(),
            ..Budget::new()
        };
        late.weigh(1);
        assert!(late.time().is_err() && late.rows(1).is_err());
        assert!(Budget::new().time().is_ok());
    }
}
