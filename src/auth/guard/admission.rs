//! Limits on open connections before login: in total, per client and per network.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::prefix::Prefix;

const SHARDS: usize = 64;

/// The factor for clients that logged in before: an office connects all at once in the morning.
const KNOWN: usize = 10;

/// The factor for networks of such clients. A holder of one credential can log in from all over a
/// network, and must not be able to take every connection.
const KNOWN_NETWORK: usize = 4;

/// The most open connections before login.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConnectionLimits {
    /// In total. A quarter is reserved for clients that logged in before.
    pub total: usize,
    pub per_client: usize,
    pub per_network: usize,
}

/// The limit that is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LimitReached {
    Client,
    Network,
    Total,
}

pub(crate) struct Admission {
    limits: ConnectionLimits,
    open: AtomicUsize,
    by_prefix: [Mutex<HashMap<Prefix, usize>>; SHARDS],
    hasher: RandomState,
}

/// One open connection, until dropped.
pub struct ConnectionSlot {
    admission: Arc<Admission>,
    prefixes: [Prefix; 2],
}

impl Admission {
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            open: AtomicUsize::new(0),
            by_prefix: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Admits a connection, unless a limit is reached.
    pub(crate) fn enter(
        self: &Arc<Self>,
        client: Prefix,
        network: Prefix,
        is_known: bool,
    ) -> Result<ConnectionSlot, LimitReached> {
        let ConnectionLimits {
            total,
            per_client,
            per_network,
        } = self.limits;
        let (total, per_client, per_network) = match is_known {
            true => (
                total,
                per_client.saturating_mul(KNOWN),
                per_network.saturating_mul(KNOWN_NETWORK),
            ),
            false => (total - total / 4, per_client, per_network),
        };
        if !self.add(client, per_client) {
            return Err(LimitReached::Client);
        }
        if !self.add(network, per_network) {
            self.subtract(client);
            return Err(LimitReached::Network);
        }
        let slot = ConnectionSlot {
            admission: self.clone(),
            prefixes: [client, network],
        };
        // Added before the comparison, so that simultaneous connections see each other.
        if self.open.fetch_add(1, Ordering::Relaxed) >= total {
            return Err(LimitReached::Total);
        }
        Ok(slot)
    }

    fn add(&self, prefix: Prefix, limit: usize) -> bool {
        self.of(prefix, |counts| {
            let count = counts.entry(prefix).or_default();
            let fits = *count < limit;
            *count += usize::from(fits);
            if *count == 0 {
                counts.remove(&prefix);
            }
            fits
        })
    }

    fn subtract(&self, prefix: Prefix) {
        self.of(prefix, |counts| {
            if let Some(count) = counts.get_mut(&prefix) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&prefix);
                }
            }
        });
    }

    fn of<T>(&self, prefix: Prefix, work: impl FnOnce(&mut HashMap<Prefix, usize>) -> T) -> T {
        let at = self.hasher.hash_one(prefix) as usize % SHARDS;
        work(&mut self.by_prefix[at].lock())
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        for prefix in self.prefixes {
            self.admission.subtract(prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        total: 100,
        per_client: 3,
        per_network: 5,
    };

    fn enter(
        admission: &Arc<Admission>,
        address: [u8; 4],
        is_known: bool,
    ) -> Result<ConnectionSlot, LimitReached> {
        let address = IpAddr::from(address);
        let (client, network) = (Prefix::client(address), Prefix::network(address));
        admission.enter(client, network, is_known)
    }

    #[test]
    fn each_limit_holds_and_a_place_is_given_back() {
        let admission = Arc::new(Admission::new(LIMITS));
        let mut slots: Vec<_> = (0..3)
            .map(|_| enter(&admission, [10, 0, 0, 1], false).ok().unwrap())
            .collect();
        assert_eq!(
            enter(&admission, [10, 0, 0, 1], false).err(),
            Some(LimitReached::Client)
        );
        slots.push(enter(&admission, [10, 0, 0, 2], false).ok().unwrap());
        slots.push(enter(&admission, [10, 0, 0, 2], false).ok().unwrap());
        assert_eq!(
            enter(&admission, [10, 0, 0, 3], false).err(),
            Some(LimitReached::Network)
        );
        // Neighbours do not hold up a known client.
        slots.push(enter(&admission, [10, 0, 0, 3], true).ok().unwrap());
        slots.remove(0);
        slots.remove(0);
        slots.push(enter(&admission, [10, 0, 0, 1], false).ok().unwrap());
        drop(slots);
        assert_eq!(admission.open(), 0);
        let left = admission.by_prefix.iter();
        assert!(left.into_iter().all(|counts| counts.lock().is_empty()));
    }

    #[test]
    fn a_network_whose_clients_are_known_leaves_room_for_others() {
        let admission = Arc::new(Admission::new(LIMITS));
        let slots: Vec<_> = (0..20)
            .map(|host| enter(&admission, [10, 0, 0, host], true).ok().unwrap())
            .collect();
        let (own, elsewhere) = ([10, 0, 0, 1], [10, 0, 1, 1]);
        assert_eq!(
            enter(&admission, own, true).err(),
            Some(LimitReached::Network)
        );
        assert!(enter(&admission, elsewhere, true).is_ok());
        assert!(enter(&admission, elsewhere, false).is_ok());
        drop(slots);
        assert!(enter(&admission, own, true).is_ok());
    }

    #[test]
    fn a_quarter_is_reserved_for_known_clients() {
        let admission = Arc::new(Admission::new(LIMITS));
        let unknown_clients: Vec<_> = (0..75)
            .map(|number| enter(&admission, [10, 1, number, 1], false).ok().unwrap())
            .collect();
        assert_eq!(
            enter(&admission, [10, 2, 0, 1], false).err(),
            Some(LimitReached::Total)
        );
        assert_eq!(admission.open(), 75);
        let known: Vec<_> = (0..25)
            .map(|number| enter(&admission, [10, 3, number, 1], true).ok().unwrap())
            .collect();
        assert_eq!(
            enter(&admission, [10, 4, 0, 1], true).err(),
            Some(LimitReached::Total)
        );
        drop((unknown_clients, known));
        assert_eq!(admission.open(), 0);
    }
}
