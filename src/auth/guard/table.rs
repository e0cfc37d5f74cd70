//! A bounded table of penalties, in shards so that logins rarely wait for a lock.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::penalty::Penalty;
use super::prefix::Prefix;

/// The most entries of a shard: the number at which its map would double.
const SHARD_ENTRIES: usize = 224;

type Shard = HashMap<Prefix, Penalty>;

/// Penalties by prefix. A full table drops the lowest penalty, and never a ban.
pub(crate) struct Table {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// The number of entries; nearly always zero, so most logins skip the locks.
    len: AtomicUsize,
    /// The shard at which the last partial pass ended.
    next: AtomicUsize,
}

impl Table {
    pub(crate) fn new(entries: usize) -> Self {
        let shards = (entries / SHARD_ENTRIES).max(1);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            len: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(crate) fn with<T>(&self, prefix: Prefix, look: impl FnOnce(&Penalty) -> T) -> Option<T> {
        if self.len() == 0 {
            return None;
        }
        self.shard(prefix).get(&prefix).map(look)
    }

    /// Changes an entry, new or present. `None` if the table is full of bans.
    pub(crate) fn change<T>(
        &self,
        prefix: Prefix,
        now: i64,
        change: impl FnOnce(&mut Penalty) -> T,
    ) -> Option<T> {
        let mut shard = self.shard(prefix);
        if !shard.contains_key(&prefix) {
            if shard.len() >= SHARD_ENTRIES && !self.make_room(&mut shard, now) {
                return None;
            }
            shard.insert(prefix, Penalty::new(now));
            self.len.fetch_add(1, Ordering::Relaxed);
        }
        shard.get_mut(&prefix).map(change)
    }

    /// Removes the entries that `unwanted` selects, and returns their prefixes.
    pub(crate) fn remove(&self, unwanted: impl Fn(Prefix, &Penalty) -> bool) -> Vec<Prefix> {
        let mut removed = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            let before = removed.len();
            removed.extend(
                shard
                    .extract_if(|prefix, penalty| unwanted(*prefix, penalty))
                    .map(|(prefix, _)| prefix),
            );
            self.len
                .fetch_sub(removed.len() - before, Ordering::Relaxed);
        }
        removed
    }

    pub(crate) fn for_each(&self, mut look: impl FnMut(Prefix, &mut Penalty)) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            for (prefix, penalty) in shard.iter_mut() {
                look(*prefix, penalty);
            }
        }
    }

    /// Passes entries to `look` until `look` returns false. Begins at the shard where the last pass
    /// ended, so that every entry has its turn.
    pub(crate) fn resume(&self, mut look: impl FnMut(Prefix, &mut Penalty) -> bool) {
        let first = self.next.load(Ordering::Relaxed);
        for step in 0..self.shards.len() {
            let at = (first + step) % self.shards.len();
            let mut shard = self.shards[at].lock();
            if !shard
                .iter_mut()
                .all(|(prefix, penalty)| look(*prefix, penalty))
            {
                self.next.store(at, Ordering::Relaxed);
                return;
            }
        }
    }

    fn shard(&self, prefix: Prefix) -> MutexGuard<'_, Shard> {
        let at = self.hasher.hash_one(prefix) as usize % self.shards.len();
        self.shards[at].lock()
    }

    /// Drops the lowest penalty. Returns whether there was one without a ban.
    fn make_room(&self, shard: &mut Shard, now: i64) -> bool {
        let least = shard
            .iter()
            .filter(|(_, penalty)| penalty.banned_until(now).is_none())
            .min_by(|(_, one), (_, other)| one.score(now).total_cmp(&other.score(now)))
            .map(|(prefix, _)| *prefix);
        let Some(least) = least else {
            return false;
        };
        shard.remove(&least);
        self.len.fetch_sub(1, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::super::penalty::{CLIENT_BAN, Failure};
    use super::*;

    fn client(number: u32) -> Prefix {
        Prefix::client(IpAddr::V4(Ipv4Addr::from_bits(0x0100_0000 + number)))
    }

    fn guess(table: &Table, number: u32, times: u32) {
        for mark in 0..times {
            table.change(client(number), 0, |penalty| {
                penalty.add(Failure::Guess(mark), 0);
                penalty.ban(CLIENT_BAN, true, 0);
            });
        }
    }

    #[test]
    fn a_hundred_thousand_networks_do_not_outgrow_it_and_push_no_ban_out() {
        let table = Table::new(16_384);
        for number in 0..1000 {
            guess(&table, number, 10);
        }
        for number in 1000..101_000 {
            guess(&table, number, 1);
        }
        assert!(table.len() <= 16_384, "{}", table.len());
        let mut counted = 0;
        table.for_each(|_, _| counted += 1);
        assert_eq!(counted, table.len());
        for number in 0..1000 {
            let banned = table.with(client(number), |penalty| penalty.banned_until(0).is_some());
            assert_eq!(banned, Some(true), "{number}");
        }
    }

    #[test]
    fn the_least_goes_first_and_among_bans_there_is_no_room() {
        let table = Table::new(SHARD_ENTRIES);
        guess(&table, 0, 1);
        for number in 1..SHARD_ENTRIES as u32 {
            guess(&table, number, 2);
        }
        guess(&table, 1000, 3);
        assert_eq!(table.with(client(0), |_| ()), None);
        assert_eq!(table.with(client(1), |_| ()), Some(()));
        for number in 0..2 * SHARD_ENTRIES as u32 {
            guess(&table, 5000 + number, 10);
        }
        assert_eq!(table.len(), SHARD_ENTRIES);
        assert_eq!(table.change(client(9_999_999), 0, |_| ()), None);
        let removed = table.remove(|_, penalty| penalty.banned_until(0).is_some());
        assert_eq!((removed.len(), table.len()), (SHARD_ENTRIES, 0));
    }

    #[test]
    fn a_stopped_pass_resumes_with_the_other_entries() {
        let table = Table::new(16_384);
        for number in 0..2000 {
            guess(&table, number, 1);
        }
        // All entries have changed again before each pass.
        let mut shown = std::collections::HashSet::new();
        for _ in 0..10 {
            let mut left = 500;
            table.resume(|prefix, _| {
                shown.insert(prefix);
                left -= 1;
                left > 0
            });
        }
        assert_eq!(shown.len(), 2000);
    }
}
