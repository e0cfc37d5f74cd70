//! Limits guesses at human-chosen passwords from all addresses together (NIST SP 800-63B: at most
//! 100 failures in a row, then none for an hour). Generated passwords cannot be guessed and are not
//! counted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::store::Login;

/// So many failures in a row are logged.
pub(crate) const SUSPICIOUS: u32 = 20;

/// After so many failures in a row, only known clients may log in.
pub(crate) const LIMIT: u32 = 100;

/// In milliseconds.
const CLOSED: i64 = 3_600_000;

/// The most credentials with an entry.
const ENTRIES: usize = 65_536;

#[derive(Default)]
pub(crate) struct ImportedGuessLimiter {
    /// The number of entries; nearly always zero, so most logins skip the lock.
    count: AtomicUsize,
    failures: Mutex<HashMap<i64, Failures>>,
}

/// One state of a credential; another version may have another password.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Target {
    pub(crate) key: i64,
    pub(crate) version: i64,
}

impl Target {
    /// Stands for unknown usernames; keys begin at 1.
    pub(crate) const UNKNOWN: Self = Self { key: 0, version: 0 };

    pub(crate) fn of(login: &Login) -> Self {
        Self {
            key: login.key,
            version: login.version,
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Failures {
    version: i64,
    in_a_row: u32,
    closed_until: i64,
}

impl ImportedGuessLimiter {
    /// Counts a failure and returns the number in a row. `None` while the credential is closed: no
    /// password is compared then, and the hour must end.
    pub(crate) fn failed(&self, target: Target, now: i64) -> Option<u32> {
        let mut failures = self.lock();
        if failures.len() >= ENTRIES && !failures.contains_key(&target.key) {
            failures.retain(|_, failures| failures.in_a_row >= SUSPICIOUS);
        }
        let entry = failures.entry(target.key).or_default();
        if entry.version != target.version {
            *entry = Failures {
                version: target.version,
                ..Failures::default()
            };
        }
        if now < entry.closed_until {
            return None;
        }
        // Counts from zero after the hour: one guess an hour must not keep the credential closed.
        if entry.closed_until != 0 {
            (entry.in_a_row, entry.closed_until) = (0, 0);
        }
        entry.in_a_row = entry.in_a_row.saturating_add(1);
        let in_a_row = entry.in_a_row;
        if in_a_row >= LIMIT {
            entry.closed_until = now + CLOSED;
        }
        self.count.store(failures.len(), Ordering::Release);
        Some(in_a_row)
    }

    /// Forgets the failures after a right password.
    pub(crate) fn succeeded(&self, credential: i64) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut failures = self.lock();
            failures.remove(&credential);
            self.count.store(failures.len(), Ordering::Release);
        }
    }

    /// Whether only known clients may log in.
    pub(crate) fn is_closed(&self, target: Target, now: i64) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && self.lock().get(&target.key).is_some_and(|failures| {
                failures.version == target.version && now < failures.closed_until
            })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Failures>> {
        self.failures.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(key: i64) -> Target {
        Target { key, version: 1 }
    }

    #[test]
    fn a_hundred_failures_in_a_row_close_it_for_an_hour() {
        let chosen = ImportedGuessLimiter::default();
        for count in 1..LIMIT {
            assert_eq!(chosen.failed(target(1), 0), Some(count));
            assert!(!chosen.is_closed(target(1), 0));
        }
        assert_eq!(chosen.failed(target(1), 0), Some(LIMIT));
        assert_eq!(chosen.failed(target(1), CLOSED - 1), None);
        assert!(chosen.is_closed(target(1), CLOSED - 1) && !chosen.is_closed(target(2), 0));
        assert!(!chosen.is_closed(target(1), CLOSED));
        // The next hour costs as many again.
        for count in 1..LIMIT {
            assert_eq!(chosen.failed(target(1), CLOSED), Some(count));
            assert!(!chosen.is_closed(target(1), CLOSED));
        }
        assert_eq!(chosen.failed(target(1), CLOSED), Some(LIMIT));
        assert!(chosen.is_closed(target(1), CLOSED));
        chosen.succeeded(1);
        assert!(!chosen.is_closed(target(1), CLOSED));
        assert_eq!(chosen.failed(target(1), CLOSED), Some(1));
    }

    #[test]
    fn another_password_begins_anew() {
        let chosen = ImportedGuessLimiter::default();
        for _ in 0..LIMIT {
            chosen.failed(target(1), 0);
        }
        let rotated = Target { key: 1, version: 2 };
        assert!(chosen.is_closed(target(1), 0) && !chosen.is_closed(rotated, 0));
        assert_eq!(chosen.failed(rotated, 0), Some(1));
        assert!(!chosen.is_closed(rotated, 0));
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let chosen = ImportedGuessLimiter::default();
        for _ in 0..LIMIT {
            chosen.failed(target(-1), 0);
        }
        for credential in 0..ENTRIES as i64 + 10 {
            chosen.failed(target(credential), 0);
        }
        assert!(chosen.lock().len() <= 12);
        assert!(chosen.is_closed(target(-1), 0));
    }
}
