//! Places that are given back when they are dropped: so many in all, and not all of them to one.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Places, by who holds them.
pub struct Places<W> {
    in_all: usize,
    of_one: usize,
    held: Mutex<HashMap<W, usize>>,
}

impl<W: Copy + Eq + Hash> Places<W> {
    /// So many places in all, and so many of one.
    pub fn new(in_all: usize, of_one: usize) -> Arc<Places<W>> {
        Arc::new(Places {
            in_all,
            of_one,
            held: Mutex::new(HashMap::new()),
        })
    }

    /// A place, unless there is none left or none left for this one.
    pub fn take(self: &Arc<Self>, who: W) -> Option<Place<W>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.values().sum::<usize>() >= self.in_all {
            return None;
        }
        let count = held.entry(who).or_default();
        if *count >= self.of_one {
            return None;
        }
        *count += 1;
        Some(Place {
            places: Arc::clone(self),
            who,
        })
    }
}

/// A place that somebody holds.
pub struct Place<W: Copy + Eq + Hash> {
    places: Arc<Places<W>>,
    who: W,
}

impl<W: Copy + Eq + Hash> Drop for Place<W> {
    fn drop(&mut self) {
        let held = self.places.held.lock();
        let mut held = held.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cannot_hold_all_places_and_each_comes_back() {
        let places = Places::new(3, 2);
        let mine = [places.take('a'), places.take('a')];
        assert!(mine.iter().all(Option::is_some));
        assert!(places.take('a').is_none(), "these are two");
        let last = places.take('b');
        assert!(last.is_some());
        assert!(places.take('c').is_none(), "these are three");
        drop(last);
        assert!(places.take('c').is_some());
        drop(mine);
        assert!(places.held.lock().expect("whole").is_empty());
    }
}
