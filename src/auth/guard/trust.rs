//! The clients from which credentials were used, so that an attacker cannot lock an owner out
//! there.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use parking_lot::{Mutex, MutexGuard};

use super::prefix::Prefix;

/// How long a login counts, in milliseconds.
pub(crate) const REMEMBERED: i64 = 30 * 24 * 3_600_000;

/// The least age of a record before the next write.
const REFRESHED: i64 = 6 * 3_600_000;

/// The most clients remembered per credential.
pub(crate) const OF_ONE: usize = 16;

const SHARDS: usize = 64;

/// The most credentials remembered per client.
const BY: usize = 4;

/// The most clients per shard; a quarter of a million in total.
const SHARD_ENTRIES: usize = 4096;

/// Clients with a recent login.
#[derive(Default)]
pub(crate) struct Trust {
    /// The clients of each credential, and when.
    credentials: Sharded<i64, Vec<(Prefix, i64)>>,
    /// The credentials of each client, and when.
    clients: Sharded<Prefix, Vec<(i64, i64)>>,
}

struct Sharded<K, V> {
    shards: [Mutex<HashMap<K, V>>; SHARDS],
    hasher: RandomState,
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }
}

impl<K: std::hash::Hash + Eq + Copy, V> Sharded<K, V> {
    fn of(&self, key: K) -> MutexGuard<'_, HashMap<K, V>> {
        let at = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[at].lock()
    }

    fn retain(&self, mut wanted: impl FnMut(&K, &mut V) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(&mut wanted);
        }
    }
}

impl Trust {
    /// Notes a login. Returns whether the record should be written.
    pub(crate) fn note(&self, credential: i64, client: Prefix, at: i64) -> bool {
        let is_fresh = {
            let mut credentials = self.credentials.of(credential);
            if credentials.len() >= SHARD_ENTRIES && !credentials.contains_key(&credential) {
                drop_half(&mut credentials);
            }
            let known = credentials.entry(credential).or_default();
            match known.iter_mut().find(|(known, _)| *known == client) {
                Some((_, last)) if at - *last < REFRESHED => true,
                Some((_, last)) => {
                    *last = at;
                    false
                }
                None => {
                    if known.len() >= OF_ONE {
                        let oldest = known.iter().enumerate().min_by_key(|(_, (_, at))| *at);
                        let oldest = oldest.map_or(0, |(place, _)| place);
                        known.swap_remove(oldest);
                    }
                    known.push((client, at));
                    false
                }
            }
        };
        let mut clients = self.clients.of(client);
        // The client may have been dropped for room since.
        if is_fresh && clients.contains_key(&client) {
            return false;
        }
        if clients.len() >= SHARD_ENTRIES && !clients.contains_key(&client) {
            clients.retain(|_, uses| uses.iter().any(|(_, last)| at - *last < REMEMBERED));
            if clients.len() >= SHARD_ENTRIES / 2 {
                drop_half(&mut clients);
            }
        }
        used_by(clients.entry(client).or_default(), credential, at);
        !is_fresh
    }

    pub(crate) fn forget_clients(&self, unwanted: impl Fn(Prefix) -> bool) {
        self.credentials.retain(|_, known| {
            known.retain(|(client, _)| !unwanted(*client));
            !known.is_empty()
        });
        self.clients.retain(|client, _| !unwanted(*client));
    }

    pub(crate) fn forget_credentials(&self, unwanted: &HashSet<i64>) {
        self.credentials.retain(|key, _| !unwanted.contains(key));
        self.clients.retain(|_, uses| {
            uses.retain(|(credential, _)| !unwanted.contains(credential));
            !uses.is_empty()
        });
    }

    pub(crate) fn keys(&self) -> Vec<i64> {
        let mut keys = HashSet::new();
        self.credentials.retain(|key, _| {
            keys.insert(*key);
            true
        });
        // The per-client list may outlast the credential's own list.
        self.clients.retain(|_, uses| {
            keys.extend(uses.iter().map(|(credential, _)| *credential));
            true
        });
        keys.into_iter().collect()
    }

    /// Whether the credential was used by `client` lately.
    pub(crate) fn knows(&self, credential: i64, client: Prefix, now: i64) -> bool {
        let credentials = self.credentials.of(credential);
        let known = credentials.get(&credential);
        known.is_some_and(|known| {
            known
                .iter()
                .any(|(known, at)| *known == client && now - at < REMEMBERED)
        })
    }

    /// Whether any credential was used by `client` lately.
    pub(crate) fn knows_client(&self, client: Prefix, now: i64) -> bool {
        let clients = self.clients.of(client);
        let uses = clients.get(&client);
        uses.is_some_and(|uses| uses.iter().any(|(_, at)| now - at < REMEMBERED))
    }
}

/// Keeps the newest few.
fn used_by(uses: &mut Vec<(i64, i64)>, credential: i64, at: i64) {
    if let Some((_, last)) = uses.iter_mut().find(|(known, _)| *known == credential) {
        *last = at.max(*last);
        return;
    }
    if uses.len() < BY {
        uses.reserve_exact(1);
        uses.push((credential, at));
        return;
    }
    if let Some(oldest) = uses.iter_mut().min_by_key(|(_, last)| *last)
        && oldest.1 <= at
    {
        *oldest = (credential, at);
    }
}

/// Drops every other entry, so that the next drop is far away.
fn drop_half<K, V>(map: &mut HashMap<K, V>) {
    let mut stays = false;
    map.retain(|_, _| {
        stays = !stays;
        stays
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> Prefix {
        Prefix::client([192, 0, 2, number].into())
    }

    #[test]
    fn a_login_is_remembered_for_thirty_days_of_its_own_credential() {
        let trust = Trust::default();
        assert!(trust.note(1, client(1), 0));
        assert!(!trust.note(1, client(1), REFRESHED - 1));
        for (credential, number, now, known) in [
            (1, 1, REMEMBERED - 1, true),
            (1, 1, REMEMBERED, false),
            (1, 2, 1, false),
            (2, 1, 1, false),
        ] {
            assert_eq!(trust.knows(credential, client(number), now), known);
        }
        assert!(trust.knows_client(client(1), REMEMBERED - 1));
        assert!(!trust.knows_client(client(1), REMEMBERED));
        assert!(!trust.knows_client(client(2), 1));
        assert!(trust.note(1, client(1), REFRESHED));
        assert!(trust.knows(1, client(1), REMEMBERED));
    }

    #[test]
    fn the_newest_sixteen_are_kept() {
        let trust = Trust::default();
        for number in 0..=16 {
            trust.note(1, client(number), i64::from(number));
        }
        assert!(!trust.knows(1, client(0), 20));
        assert!((1..=16).all(|number| trust.knows(1, client(number), 20)));
    }

    #[test]
    fn a_client_that_made_room_is_known_again_by_its_next_login() {
        let trust = Trust::default();
        assert!(trust.note(1, client(1), 0));
        trust.clients.of(client(1)).clear();
        assert!(!trust.knows_client(client(1), 1));
        assert!(!trust.note(1, client(1), 1), "it is written already");
        assert!(trust.knows_client(client(1), 1));
    }

    #[test]
    fn a_client_is_known_for_as_long_as_a_credential_is_that_was_used_there() {
        let trust = Trust::default();
        for credential in 1..=3 {
            trust.note(credential, client(1), credential);
        }
        trust.note(1, client(2), 0);
        trust.forget_credentials(&HashSet::from([1, 3]));
        assert!(trust.knows_client(client(1), 9) && trust.knows(2, client(1), 9));
        assert!(!trust.knows(1, client(1), 9) && !trust.knows_client(client(2), 9));
        assert_eq!(trust.keys(), [2]);
        trust.forget_credentials(&HashSet::from([2]));
        assert!(!trust.knows_client(client(1), 9));
        assert!(trust.keys().is_empty());
    }

    #[test]
    fn of_many_credentials_of_one_client_the_newest_few_are_remembered() {
        let trust = Trust::default();
        for credential in 0..10 {
            trust.note(credential, client(1), credential);
        }
        trust.forget_credentials(&(6..9).collect());
        assert!(trust.knows_client(client(1), 10));
        trust.forget_credentials(&HashSet::from([9]));
        assert!(!trust.knows_client(client(1), 10));
        trust.note(1, client(1), 11);
        assert!(trust.knows_client(client(1), 11), "until the next login");
    }

    #[test]
    fn clients_are_forgotten_with_all_that_was_used_there() {
        let trust = Trust::default();
        for number in [1, 2] {
            trust.note(1, client(number), 0);
        }
        trust.forget_clients(|known| known == client(1));
        assert!(!trust.knows_client(client(1), 1) && !trust.knows(1, client(1), 1));
        assert!(trust.knows_client(client(2), 1) && trust.knows(1, client(2), 1));
        assert!(trust.note(1, client(1), 2), "it is to be written again");
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let trust = Trust::default();
        for number in 0..400_000_u32 {
            trust.note(
                i64::from(number),
                Prefix::client(number.to_be_bytes().into()),
                0,
            );
        }
        let sizes = trust.credentials.shards.iter();
        assert!(
            sizes
                .into_iter()
                .all(|shard| shard.lock().len() <= SHARD_ENTRIES)
        );
        let sizes = trust.clients.shards.iter();
        assert!(
            sizes
                .into_iter()
                .all(|shard| shard.lock().len() <= SHARD_ENTRIES)
        );
    }
}
