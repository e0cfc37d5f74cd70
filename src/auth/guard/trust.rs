//! Where credentials were used from: who guesses must not lock their owners out there.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::prefix::Prefix;

/// How long a login is remembered, in milliseconds.
pub const REMEMBERED: i64 = 30 * 24 * 3_600_000;

/// How old what is remembered must be to be worth writing again.
const REFRESHED: i64 = 6 * 3_600_000;

/// How many clients of one credential are remembered.
pub const OF_ONE: usize = 16;

const SHARDS: usize = 64;

/// How many clients a shard remembers; all of them together a quarter of a million.
const ROOM: usize = 4096;

/// The clients that logged in lately.
#[derive(Default)]
pub struct Trust {
    credentials: Sharded<i64, Vec<(Prefix, i64)>>,
    clients: Sharded<Prefix, i64>,
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
        self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trust {
    /// The credential with this key was used by `client`. Whether that is worth writing.
    pub fn note(&self, credential: i64, client: Prefix, at: i64) -> bool {
        let is_fresh = {
            let mut credentials = self.credentials.of(credential);
            if credentials.len() >= ROOM && !credentials.contains_key(&credential) {
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
        // It may have had to make room since.
        if is_fresh && clients.contains_key(&client) {
            return false;
        }
        if clients.len() >= ROOM && !clients.contains_key(&client) {
            clients.retain(|_, last| at - *last < REMEMBERED);
            if clients.len() >= ROOM / 2 {
                drop_half(&mut clients);
            }
        }
        let last = clients.entry(client).or_insert(at);
        *last = at.max(*last);
        !is_fresh
    }

    /// Whether the credential with this key was used by `client` lately.
    pub fn knows(&self, credential: i64, client: Prefix, now: i64) -> bool {
        let credentials = self.credentials.of(credential);
        let known = credentials.get(&credential);
        known.is_some_and(|known| {
            known
                .iter()
                .any(|(known, at)| *known == client && now - at < REMEMBERED)
        })
    }

    /// Whether any credential was used by `client` lately.
    pub fn knows_client(&self, client: Prefix, now: i64) -> bool {
        let last = self.clients.of(client).get(&client).copied();
        last.is_some_and(|at| now - at < REMEMBERED)
    }
}

/// Makes room at the expense of whoever is hit, and enough of it that this is seldom done.
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
                .all(|shard| shard.lock().unwrap().len() <= ROOM)
        );
        let sizes = trust.clients.shards.iter();
        assert!(
            sizes
                .into_iter()
                .all(|shard| shard.lock().unwrap().len() <= ROOM)
        );
    }
}
