//! Who is refused although the store does not say so yet: a revocation counts from the moment it is asked for, also when the
//! disk is full and it cannot be written.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Usernames that are refused. Administrators add to it one at a time, and what is written leaves it.
#[derive(Debug, Default)]
pub struct Denials {
    /// How many there are, since there are almost always none.
    count: AtomicUsize,
    usernames: Mutex<HashSet<String>>,
}

impl Denials {
    /// Refuses this username from now on.
    pub fn deny(&self, username: &str) {
        self.change(|usernames| {
            usernames.insert(username.to_owned());
        });
    }

    /// Leaves it to the store again.
    pub fn lift(&self, username: &str) {
        self.change(|usernames| {
            usernames.remove(username);
        });
    }

    /// Whether this username is refused.
    pub fn contains(&self, username: &str) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && self
                .usernames
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(username)
    }

    /// How many revocations are not written yet.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether every revocation is written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn change(&self, work: impl FnOnce(&mut HashSet<String>)) {
        let mut usernames = self
            .usernames
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        work(&mut usernames);
        self.count.store(usernames.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_holds_until_it_is_lifted() {
        let denials = Denials::default();
        assert!(!denials.contains("smtp_a"));
        denials.deny("smtp_a");
        denials.deny("smtp_a");
        assert!(denials.contains("smtp_a") && !denials.contains("smtp_b"));
        assert_eq!(denials.len(), 1);
        denials.lift("smtp_a");
        assert!(!denials.contains("smtp_a") && denials.is_empty());
    }
}
