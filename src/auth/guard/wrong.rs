//! Passwords found wrong, so that a device with an old password costs one hash and no more.

use parking_lot::Mutex;

/// How long an entry counts, in milliseconds.
const REMEMBERED: i64 = 24 * 3_600_000;

/// The most entries, of 16 octets each.
const ENTRIES: usize = 131_072;
const SHARDS: usize = 64;

/// A mark of username, password and row state, and the time.
type Entry = (u64, i64);

/// Wrong passwords by mark; a new entry replaces an old entry in the same place.
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
    pub(crate) fn note(&self, hash: u64, now: i64) {
        self.of(hash, |place| *place = (hash, now));
    }

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
        let mut shard = self.shards[shard].lock();
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
        // A new entry in the same place.
        wrong.note(7 + SHARDS as u64, 1000);
        assert!(!wrong.knows(7, 1000));
    }
}
