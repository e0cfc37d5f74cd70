//! Penalties by network, of bounded number, in shards so that logins hardly ever wait for each other.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::penalty::Penalty;
use super::prefix::Prefix;

/// How many entries a shard has room for: as many as its map holds before it would double.
const ROOM: usize = 224;

type Shard = HashMap<Prefix, Penalty>;

/// Who has run up what. When there is no room, the least is forgotten first, and a ban never.
pub(crate) struct Table {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// How many entries there are, since most of the time there are none.
    len: AtomicUsize,
    /// The shard where the last look ended that did not go through all.
    next: AtomicUsize,
}

impl Table {
    /// With room for at most `entries`.
    pub(crate) fn new(entries: usize) -> Self {
        let shards = (entries / ROOM).max(1);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            len: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
        }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Looks at an entry, if there is one.
    pub(crate) fn look<T>(&self, prefix: Prefix, look: impl FnOnce(&Penalty) -> T) -> Option<T> {
        if self.len() == 0 {
            return None;
        }
        self.shard(prefix).get(&prefix).map(look)
    }

    /// Changes an entry, made if need be. `None` if there is no room because all others are banned.
    pub(crate) fn change<T>(
        &self,
        prefix: Prefix,
        now: i64,
        change: impl FnOnce(&mut Penalty) -> T,
    ) -> Option<T> {
        let mut shard = self.shard(prefix);
        if !shard.contains_key(&prefix) {
            if shard.len() >= ROOM && !self.make_room(&mut shard, now) {
                return None;
            }
            shard.insert(prefix, Penalty::new(now));
            self.len.fetch_add(1, Ordering::Relaxed);
        }
        shard.get_mut(&prefix).map(change)
    }

    /// Forgets every entry of which `unwanted` says so. Returns which these were.
    pub(crate) fn remove(&self, unwanted: impl Fn(Prefix, &Penalty) -> bool) -> Vec<Prefix> {
        let mut removed = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Shows every entry.
    pub(crate) fn for_each(&self, mut look: impl FnMut(Prefix, &mut Penalty)) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (prefix, penalty) in shard.iter_mut() {
                look(*prefix, penalty);
            }
        }
    }

    /// Shows entries for as long as `look` wants more, beginning in the shard where it last had enough, so that none waits
    /// for ever.
    pub(crate) fn go_on(&self, mut look: impl FnMut(Prefix, &mut Penalty) -> bool) {
        let first = self.next.load(Ordering::Relaxed);
        for step in 0..self.shards.len() {
            let at = (first + step) % self.shards.len();
            let mut shard = self.shards[at]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
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
        self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room now.
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
            let banned = table.look(client(number), |penalty| penalty.banned_until(0).is_some());
            assert_eq!(banned, Some(true), "{number}");
        }
    }

    #[test]
    fn the_least_goes_first_and_among_bans_there_is_no_room() {
        let table = Table::new(ROOM);
        guess(&table, 0, 1);
        for number in 1..ROOM as u32 {
            guess(&table, number, 2);
        }
        guess(&table, 1000, 3);
        assert_eq!(table.look(client(0), |_| ()), None);
        assert_eq!(table.look(client(1), |_| ()), Some(()));
        for number in 0..2 * ROOM as u32 {
            guess(&table, 5000 + number, 10);
        }
        assert_eq!(table.len(), ROOM);
        assert_eq!(table.change(client(9_999_999), 0, |_| ()), None);
        let removed = table.remove(|_, penalty| penalty.banned_until(0).is_some());
        assert_eq!((removed.len(), table.len()), (ROOM, 0));
    }

    #[test]
    fn whoever_has_enough_is_shown_the_others_the_next_time() {
        let table = Table::new(16_384);
        for number in 0..2000 {
            guess(&table, number, 1);
        }
        // Each time everything has changed again.
        let mut shown = std::collections::HashSet::new();
        for _ in 0..10 {
            let mut left = 500;
            table.go_on(|prefix, _| {
                shown.insert(prefix);
                left -= 1;
                left > 0
            });
        }
        assert_eq!(shown.len(), 2000);
    }
}
