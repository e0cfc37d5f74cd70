//! The connection limit of a local listener. A connection that holds a slot without using the slot
//! gives way to the next client, so silent clients lock no other client out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::log::Throttle;

use super::listener::Neighbour;

/// How long a new connection may stay silent before it gives way earlier than idle connections
/// after a request.
const GRACE: Duration = Duration::from_secs(1);

/// How far a connection has come with its current request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// No complete request has come yet.
    Opening,
    /// The client read its last answer and has not sent the next request.
    Idle,
    /// The client has not read its whole answer yet.
    Answering,
    /// A complete request is carried out. Such a connection never gives way.
    Working,
}

/// The client that a connection is counted for: an IPv4 address, an IPv6 /64, or a local user.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Client {
    Address(IpAddr),
    User(Option<u32>),
}

impl From<Neighbour> for Client {
    fn from(neighbour: Neighbour) -> Client {
        match neighbour {
            Neighbour::Unix { uid } => Client::User(uid),
            Neighbour::Tcp(peer) => Client::Address(match peer.ip().to_canonical() {
                IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
                address => address,
            }),
        }
    }
}

pub struct ConnectionSlots {
    place: String,
    capacity: usize,
    state: Mutex<State>,
    /// Warnings of connections that gave way or were refused.
    warnings: Throttle,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    client: Client,
    stage: Stage,
    since: Instant,
    closing: CancellationToken,
}

impl ConnectionSlots {
    /// `place` names the listener in the log.
    pub fn new(place: String, capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            place,
            capacity,
            state: Mutex::default(),
            warnings: Throttle::new(),
        })
    }

    /// Takes a slot. If none is free, closes another connection for it: of the client with the most
    /// connections, the silent connection first, else the connection waiting longest. A client with
    /// half of the slots replaces only its own connections. Returns `None` when every candidate is
    /// processing a request.
    pub fn take(self: &Arc<Self>, neighbour: Neighbour) -> Option<ConnectionSlot> {
        let client = neighbour.into();
        let now = Instant::now();
        let mut state = self.lock();
        let is_full = state.open.len() >= self.capacity;
        let is_local = match client {
            Client::Address(address) => address.is_loopback(),
            Client::User(_) => true,
        };
        let own = || state.open.values().filter(|entry| entry.client == client);
        // All clients of this machine, and of a proxy on it, have one address.
        let has_share = !is_local && own().count() >= self.capacity / 2;
        if is_full || has_share {
            let only = has_share.then_some(client);
            let Some(id) = state.least_useful(only, now) else {
                self.warn();
                return None;
            };
            if let Some(entry) = state.open.remove(&id) {
                entry.closing.cancel();
                if entry.stage != Stage::Idle {
                    self.warn();
                }
            }
        }
        let id = state.next;
        state.next += 1;
        let closing = CancellationToken::new();
        let entry = Entry {
            client,
            stage: Stage::Opening,
            since: now,
            closing: closing.clone(),
        };
        state.open.insert(id, entry);
        Some(ConnectionSlot {
            slots: self.clone(),
            id,
            closing,
        })
    }

    fn warn(&self) {
        if let Some(count) = self.warnings.due() {
            tracing::warn!(
                place = self.place,
                connections = self.capacity,
                count,
                "too many clients: connections without a complete request were closed for others"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Chooses the connection that gives way, among the connections of `only` if given.
    fn least_useful(&self, only: Option<Client>, now: Instant) -> Option<u64> {
        let mut held: HashMap<Client, usize> = HashMap::new();
        for entry in self.open.values() {
            *held.entry(entry.client).or_default() += 1;
        }
        // A client that just connected has a moment to send its request.
        let is_silent = |entry: &Entry| {
            entry.stage == Stage::Opening && now.duration_since(entry.since) >= GRACE
        };
        let candidates = self
            .open
            .iter()
            .filter(|(_, entry)| only.is_none_or(|only| entry.client == only))
            .filter(|(_, entry)| entry.stage != Stage::Working);
        let first = candidates.min_by_key(|(_, entry)| {
            (Reverse(held[&entry.client]), !is_silent(entry), entry.since)
        });
        first.map(|(id, _)| *id)
    }
}

/// A connection's slot, freed on drop.
pub struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    id: u64,
    closing: CancellationToken,
}

impl ConnectionSlot {
    /// Records a new stage from now on.
    pub fn enter(&self, stage: Stage) {
        if let Some(entry) = self.slots.lock().open.get_mut(&self.id) {
            entry.stage = stage;
            entry.since = Instant::now();
        }
    }

    /// Resolves when another connection takes over the slot; the connection must then close.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.slots.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Neighbour {
        Neighbour::Tcp(format!("{address}:1").parse().unwrap())
    }

    fn is_closing(slot: &ConnectionSlot) -> bool {
        slot.closing.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_listener_closes_the_connection_that_waited_longest_for_a_request() {
        let slots = ConnectionSlots::new("here".to_owned(), 3);
        let mut take = Vec::new();
        for stage in [Stage::Working, Stage::Opening, Stage::Idle] {
            let slot = slots.take(from("127.0.0.1")).unwrap();
            slot.enter(stage);
            take.push(slot);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let newest = slots.take(from("127.0.0.1")).unwrap();
        let closing: Vec<_> = take.iter().map(is_closing).collect();
        assert_eq!(closing, [false, true, false]);
        newest.enter(Stage::Working);
        let other = slots.take(from("127.0.0.1")).unwrap();
        assert!(is_closing(&take[2]), "an idle connection is next");
        other.enter(Stage::Working);
        assert!(slots.take(from("127.0.0.1")).is_none(), "all are in use");
        other.enter(Stage::Answering);
        assert!(slots.take(from("127.0.0.1")).is_some());
        assert!(is_closing(&other), "an unread answer gives way");
        drop(newest);
        assert!(slots.take(from("127.0.0.1")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_client_with_most_connections_loses_one_first() {
        let slots = ConnectionSlots::new("here".to_owned(), 8);
        let lone = slots.take(from("192.0.2.1")).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        let mut many: Vec<_> = (0..4)
            .map(|_| slots.take(from("192.0.2.2")).unwrap())
            .collect();
        assert!(!many.iter().any(is_closing));
        many.push(slots.take(from("192.0.2.2")).unwrap());
        assert!(
            is_closing(&many[0]),
            "half of the slots is a client's share"
        );
        let others: Vec<_> = (3..6)
            .map(|last| slots.take(from(&format!("192.0.2.{last}"))).unwrap())
            .collect();
        let _last = slots.take(from("192.0.2.9")).unwrap();
        assert!(is_closing(&many[1]) && !is_closing(&lone));
        assert!(!others.iter().any(is_closing));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_a_user_another() {
        let client = |address: &str| Client::from(from(address));
        assert_eq!(client("[2001:db8::1]"), client("[2001:db8::2]"));
        assert_ne!(client("[2001:db8::1]"), client("[2001:db8:0:1::1]"));
        assert_eq!(client("[::ffff:192.0.2.1]"), client("192.0.2.1"));
        let user = |uid| Client::from(Neighbour::Unix { uid });
        assert_ne!(user(Some(0)), user(Some(1)));
    }
}
