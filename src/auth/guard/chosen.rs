//! Passwords that people chose can be guessed, so guesses at one are counted wherever they come from (NIST SP 800-63B: no
//! more than 100 in a row). Generated ones cannot, and are not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many failures in a row are worth a word in the log.
pub const SUSPICIOUS: u32 = 20;

/// After so many in a row, only those are heard who were there before.
pub const LIMIT: u32 = 100;

/// For how long, in milliseconds.
const CLOSED: i64 = 3_600_000;

/// How many credentials are watched at a time.
const ENTRIES: usize = 65_536;

/// Failures in a row, by the credential's key.
#[derive(Default)]
pub struct ChosenPasswords {
    /// How many are watched, since there are almost always none.
    count: AtomicUsize,
    failures: Mutex<HashMap<i64, Failures>>,
}

#[derive(Clone, Copy, Default)]
struct Failures {
    in_a_row: u32,
    closed_until: i64,
}

impl ChosenPasswords {
    /// Counts a failure, and returns how many there were in a row.
    pub fn failed(&self, credential: i64, now: i64) -> u32 {
        let mut failures = self.lock();
        if failures.len() >= ENTRIES && !failures.contains_key(&credential) {
            failures.retain(|_, failures| failures.in_a_row >= SUSPICIOUS);
        }
        let entry = failures.entry(credential).or_default();
        entry.in_a_row = entry.in_a_row.saturating_add(1);
        let in_a_row = entry.in_a_row;
        // Also after that hour: until the right password comes, there is one guess an hour.
        if in_a_row >= LIMIT {
            entry.closed_until = now + CLOSED;
        }
        self.count.store(failures.len(), Ordering::Release);
        in_a_row
    }

    /// Forgets the failures: the right password was given.
    pub fn succeeded(&self, credential: i64) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut failures = self.lock();
            failures.remove(&credential);
            self.count.store(failures.len(), Ordering::Release);
        }
    }

    /// Whether only those are heard who logged in from where they are before.
    pub fn is_closed(&self, credential: i64, now: i64) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && self
                .lock()
                .get(&credential)
                .is_some_and(|failures| now < failures.closed_until)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_failures_in_a_row_close_it_for_an_hour() {
        let chosen = ChosenPasswords::default();
        for count in 1..LIMIT {
            assert_eq!(chosen.failed(1, 0), count);
            assert!(!chosen.is_closed(1, 0));
        }
        assert_eq!(chosen.failed(1, 0), LIMIT);
        assert!(chosen.is_closed(1, CLOSED - 1) && !chosen.is_closed(2, 0));
        assert!(!chosen.is_closed(1, CLOSED));
        chosen.failed(1, CLOSED);
        assert!(chosen.is_closed(1, CLOSED));
        chosen.succeeded(1);
        assert!(!chosen.is_closed(1, CLOSED));
        assert_eq!(chosen.failed(1, CLOSED), 1);
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let chosen = ChosenPasswords::default();
        for _ in 0..LIMIT {
            chosen.failed(-1, 0);
        }
        for credential in 0..ENTRIES as i64 + 10 {
            chosen.failed(credential, 0);
        }
        assert!(chosen.lock().len() <= 12);
        assert!(chosen.is_closed(-1, 0));
    }
}
