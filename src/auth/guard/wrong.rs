//! Passwords that were found wrong, so that a device which keeps trying one costs one argon2 and no more.

use std::sync::{Mutex, PoisonError};

/// How long one is remembered, in milliseconds.
const REMEMBERED: i64 = 24 * 3_600_000;

/// How many are remembered at most; each is 16 octets.
const ENTRIES: usize = 131_072;
const SHARDS: usize = 64;

/// What a name, a password and the state of the credential come to, and since when.
type Entry = (u64, i64);

/// Wrong passwords by a keyed hash; a newer one takes the place of an older.
pub(crate) struct WrongPasswords {
    shards: Vec<Mutex<Vec<Entry>>>,
}

impl Default for WrongPasswords {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl WrongPasswords {
    /// Remembers one.
    pub(crate) fn note(&self, hash: u64, now: i64) {
        self.of(hash, |place| *place = (hash, now));
    }

    /// Whether it was found wrong within that time.
    pub(crate) fn knows(&self, hash: u64, now: i64) -> bool {
        self.of(hash, |(known, at)| {
            *known == hash && (0..REMEMBERED).contains(&(now - *at))
        })
    }

    fn of<T>(&self, hash: u64, work: impl FnOnce(&mut Entry) -> T) -> T {
        let (shard, place) = (
            hash as usize % SHARDS,
            (hash >> 32) as usize % (ENTRIES / SHARDS),
        );
        let mut shard = self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if shard.is_empty() {
            shard.resize(ENTRIES / SHARDS, (0, i64::MIN / 2));
        }
        work(&mut shard[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_remembered_for_a_day_and_as_itself() {
        let wrong = WrongPasswords::default();
        assert!(!wrong.knows(7, 0) && !wrong.knows(0, 0));
        wrong.note(7, 1000);
        assert!(wrong.knows(7, 1000) && wrong.knows(7, 1000 + REMEMBERED - 1));
        assert!(!wrong.knows(7, 1000 + REMEMBERED) && !wrong.knows(8, 1000));
        // A newer one in the same place.
        wrong.note(7 + SHARDS as u64, 1000);
        assert!(!wrong.knows(7, 1000));
    }
}
