//! Permits to hash for unknown clients, so that their guesses do not delay other logins.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::prefix::Prefix;

/// The most hashes of one unknown client under way.
const AT_ONCE: usize = 2;

/// The most permits at once for one unknown client: as many as guesses lead to a ban. A guessing
/// client meets the ban first and learns nothing from the permits.
const BURST: f64 = 10.0;

/// Milliseconds until a client gets one more permit.
const REFILL: f64 = 5_000.0;

/// The least time between two sweeps, in milliseconds.
const SWEEP: i64 = 1_000;

/// The most unknown clients with an entry.
const ENTRIES: usize = 16_384;

/// The number of hashing times kept.
const TIMED: usize = 64;

/// The assumed time before the first hash.
const ASSUMED: Duration = Duration::from_millis(30);

/// Admits unknown clients to the hashing threads. A client is unknown if the credential was not
/// used from its address before and people chose the password. All other clients use the threads
/// without a permit.
pub(crate) struct HashAdmission {
    unknown_clients: Mutex<UnknownClients>,
    /// Permits for hashes under way.
    share: Arc<Semaphore>,
    /// Permits for clients that wait or hash.
    waiting: Arc<Semaphore>,
    /// The times of the latest hashes.
    times: Mutex<VecDeque<Duration>>,
}

#[derive(Default)]
struct UnknownClients {
    entries: HashMap<Prefix, ClientEntry>,
    /// The time of the last sweep of entries with all tokens; a flood must not cause a sweep per
    /// client.
    swept: i64,
}

struct ClientEntry {
    tokens: f64,
    at: i64,
    permits: Arc<Semaphore>,
}

/// The right to compute one hash for an unknown client, until dropped.
#[derive(Debug)]
pub(crate) struct HashPermit {
    _held: Option<[OwnedSemaphorePermit; 3]>,
}

/// Unknown clients get no permit now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct HashDenied;

impl HashPermit {
    /// For a verification that computes no hash.
    pub(crate) fn without_hash() -> Self {
        Self { _held: None }
    }
}

impl HashAdmission {
    /// Unknown clients get all of `threads` but one, and half of a queue of `queue` passwords.
    pub(crate) fn new(threads: usize, queue: usize) -> Self {
        Self {
            unknown_clients: Mutex::default(),
            share: Arc::new(Semaphore::new(threads.saturating_sub(1).max(1))),
            waiting: Arc::new(Semaphore::new((queue / 2).max(1))),
            times: Mutex::default(),
        }
    }

    pub(crate) fn record_time(&self, time: Duration) {
        let mut times = self.times.lock();
        if times.len() >= TIMED {
            times.pop_front();
        }
        times.push_back(time);
    }

    /// The hashes of one credential all take about the same time. The time therefore depends on the
    /// username, so that an unknown username keeps its rank among those that exist.
    pub(crate) fn hash_time(&self, name: u32) -> Duration {
        let mut times: Vec<_> = self.times.lock().iter().copied().collect();
        times.sort_unstable();
        let rank = (u64::from(name) * times.len() as u64) >> u32::BITS;
        times.get(rank as usize).copied().unwrap_or(ASSUMED)
    }

    /// Waits for a permit.
    ///
    /// # Errors
    /// The client asks too often, or too many clients wait.
    pub(crate) async fn permit(&self, client: Prefix, now: i64) -> Result<HashPermit, HashDenied> {
        let permits = self.take(client, now).ok_or(HashDenied)?;
        let waiting = self.waiting.clone().try_acquire_owned();
        let waiting = waiting.map_err(|_| HashDenied)?;
        let own = permits.acquire_owned().await.map_err(|_| HashDenied)?;
        let share = self.share.clone().acquire_owned().await;
        let share = share.map_err(|_| HashDenied)?;
        Ok(HashPermit {
            _held: Some([waiting, own, share]),
        })
    }

    /// Takes one of the client's tokens.
    fn take(&self, client: Prefix, now: i64) -> Option<Arc<Semaphore>> {
        let mut unknown_clients = self.unknown_clients.lock();
        if unknown_clients.entries.len() >= ENTRIES
            && !unknown_clients.entries.contains_key(&client)
        {
            unknown_clients.sweep(now);
            if unknown_clients.entries.len() >= ENTRIES {
                return None;
            }
        }
        let entry = unknown_clients
            .entries
            .entry(client)
            .or_insert_with(|| ClientEntry {
                tokens: BURST,
                at: now,
                permits: Arc::new(Semaphore::new(AT_ONCE)),
            });
        entry.refill(now);
        if entry.tokens < 1.0 {
            return None;
        }
        entry.tokens -= 1.0;
        Some(entry.permits.clone())
    }
}

impl UnknownClients {
    fn sweep(&mut self, now: i64) {
        if now - self.swept < SWEEP {
            return;
        }
        self.swept = now;
        self.entries.retain(|_, entry| {
            entry.refill(now);
            entry.tokens < BURST || Arc::strong_count(&entry.permits) > 1
        });
    }
}

impl ClientEntry {
    fn refill(&mut self, now: i64) {
        let passed = (now - self.at).max(0) as f64;
        self.tokens = (self.tokens + passed / REFILL).min(BURST);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn client(number: u8) -> Prefix {
        Prefix::client([192, 0, 2, number].into())
    }

    #[tokio::test]
    async fn an_unknown_client_has_a_burst_and_then_one_every_five_seconds() {
        let admission = HashAdmission::new(2, 100);
        for _ in 0..10 {
            admission.permit(client(1), 0).await.unwrap();
        }
        assert_eq!(
            admission.permit(client(1), 4_999).await.unwrap_err(),
            HashDenied
        );
        admission.permit(client(2), 0).await.unwrap();
        admission.permit(client(1), 5_000).await.unwrap();
        assert_eq!(
            admission.permit(client(1), 5_000).await.unwrap_err(),
            HashDenied
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_client_has_two_at_once_and_all_have_their_share() {
        let admission = HashAdmission::new(4, 100);
        let first = admission.permit(client(1), 0).await.unwrap();
        let _second = admission.permit(client(1), 0).await.unwrap();
        let soon = Duration::from_secs(1);
        let third = tokio::time::timeout(soon, admission.permit(client(1), 0)).await;
        assert!(third.is_err(), "the third waits");
        let _other = admission.permit(client(2), 0).await.unwrap();
        // Three of four threads are taken; the fourth is not for unknown clients.
        let another = tokio::time::timeout(soon, admission.permit(client(3), 0)).await;
        assert!(another.is_err());
        drop(first);
        admission.permit(client(3), 0).await.unwrap();
    }

    #[tokio::test]
    async fn unknown_clients_have_half_the_queue() {
        let admission = HashAdmission::new(2, 4);
        let _hashing = admission.permit(client(1), 0).await.unwrap();
        let waits = admission.permit(client(2), 0);
        tokio::pin!(waits);
        assert!(futures_pending(&mut waits).await);
        assert_eq!(
            admission.permit(client(3), 0).await.unwrap_err(),
            HashDenied
        );
    }

    #[test]
    fn an_unknown_username_takes_as_long_as_an_existing_username() {
        let admission = HashAdmission::new(2, 4);
        assert_eq!(admission.hash_time(7), ASSUMED);
        for _ in 0..TIMED {
            admission.record_time(Duration::from_secs(9));
        }
        // A quarter of the hashes is slow.
        for number in 0..TIMED as u64 {
            let slow = number % 4 == 0;
            admission.record_time(Duration::from_millis(if slow { 500 } else { 30 }));
        }
        for name in [0, u32::MAX / 2, u32::MAX / 4 * 3] {
            assert_eq!(admission.hash_time(name), Duration::from_millis(30));
        }
        for name in [u32::MAX / 4 * 3 + 4, u32::MAX] {
            assert_eq!(admission.hash_time(name), Duration::from_millis(500));
        }
    }

    /// Whether a future has begun to wait.
    async fn futures_pending<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let admission = HashAdmission::new(2, 4);
        for number in 0..100_000_u32 {
            admission.take(Prefix::client(number.to_be_bytes().into()), 0);
        }
        assert_eq!(admission.unknown_clients.lock().entries.len(), ENTRIES);
        assert!(admission.take(client(1), 60_000).is_some());
        assert_eq!(admission.unknown_clients.lock().entries.len(), 1);
    }
}
