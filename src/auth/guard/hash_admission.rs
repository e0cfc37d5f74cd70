//! Who may have argon2 computed, and how often: what unknown_clients ask for must not keep the others waiting.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::prefix::Prefix;

/// How many hashes one stranger may have under way.
const AT_ONCE: usize = 2;

/// How many one stranger may ask for at once. As many as guesses make a ban, so that who guesses meets the ban and
/// learns nothing from the lane.
const BURST: f64 = 10.0;

/// After how many milliseconds one more.
const REFILL: f64 = 5_000.0;

/// How many milliseconds pass at least before those are looked for who can be forgotten.
const SWEEP: i64 = 1_000;

/// How many unknown_clients are told apart.
const ENTRIES: usize = 16_384;

/// How many hashes of unknown_clients say how long one takes.
const TIMED: usize = 64;

/// How long one takes before there was any.
const USUAL: Duration = Duration::from_millis(30);

/// The lane of unknown_clients: everybody who logs in from where the credential was not used before, with a password that people
/// chose. All others have the hashing threads to themselves.
pub(crate) struct HashAdmission {
    unknown_clients: Mutex<UnknownClients>,
    /// UnknownClients whose password is being hashed.
    share: Arc<Semaphore>,
    /// UnknownClients who wait for it or have it.
    waiting: Arc<Semaphore>,
    /// How long the latest hashes took.
    times: Mutex<VecDeque<Duration>>,
}

#[derive(Default)]
struct UnknownClients {
    lanes: HashMap<Prefix, Lane>,
    /// When those were last forgotten who have all their tokens; a flood must not have that done for each of its own.
    swept: i64,
}

struct Lane {
    tokens: f64,
    at: i64,
    turns: Arc<Semaphore>,
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
    /// Before so many hashing threads, with a queue of `queue` passwords. UnknownClients have all threads but one, and half the
    /// queue.
    pub(crate) fn new(threads: usize, queue: usize) -> Self {
        Self {
            unknown_clients: Mutex::default(),
            share: Arc::new(Semaphore::new(threads.saturating_sub(1).max(1))),
            waiting: Arc::new(Semaphore::new((queue / 2).max(1))),
            times: Mutex::default(),
        }
    }

    /// A stranger's password was hashed, which took so long.
    pub(crate) fn took(&self, time: Duration) {
        let mut times = self.times();
        if times.len() >= TIMED {
            times.pop_front();
        }
        times.push_back(time);
    }

    /// How long hashing a stranger's password would take. Hashes of one credential all take about the same time, so a name that
    /// nobody has keeps its rank among those there are.
    pub(crate) fn hash_time(&self, name: u32) -> Duration {
        let mut times: Vec<_> = self.times().iter().copied().collect();
        times.sort_unstable();
        let rank = (u64::from(name) * times.len() as u64) >> u32::BITS;
        times.get(rank as usize).copied().unwrap_or(USUAL)
    }

    fn times(&self) -> MutexGuard<'_, VecDeque<Duration>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a stranger's turn.
    ///
    /// # Errors
    /// They ask too often, or too many of them wait.
    pub(crate) async fn permit(&self, client: Prefix, now: i64) -> Result<HashPermit, HashDenied> {
        let turns = self.take(client, now).ok_or(HashDenied)?;
        let waiting = self.waiting.clone().try_acquire_owned();
        let waiting = waiting.map_err(|_| HashDenied)?;
        let own = turns.acquire_owned().await.map_err(|_| HashDenied)?;
        let share = self.share.clone().acquire_owned().await;
        let share = share.map_err(|_| HashDenied)?;
        Ok(HashPermit {
            _held: Some([waiting, own, share]),
        })
    }

    /// Takes one of a stranger's tokens.
    fn take(&self, client: Prefix, now: i64) -> Option<Arc<Semaphore>> {
        let mut unknown_clients = self
            .unknown_clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if unknown_clients.lanes.len() >= ENTRIES && !unknown_clients.lanes.contains_key(&client) {
            unknown_clients.sweep(now);
            if unknown_clients.lanes.len() >= ENTRIES {
                return None;
            }
        }
        let lane = unknown_clients.lanes.entry(client).or_insert_with(|| Lane {
            tokens: BURST,
            at: now,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        });
        lane.refill(now);
        if lane.tokens < 1.0 {
            return None;
        }
        lane.tokens -= 1.0;
        Some(lane.turns.clone())
    }
}

impl UnknownClients {
    fn sweep(&mut self, now: i64) {
        if now - self.swept < SWEEP {
            return;
        }
        self.swept = now;
        self.lanes.retain(|_, lane| {
            lane.refill(now);
            lane.tokens < BURST || Arc::strong_count(&lane.turns) > 1
        });
    }
}

impl Lane {
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
    async fn a_stranger_has_a_burst_and_then_one_every_five_seconds() {
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
    async fn a_stranger_has_two_at_once_and_all_have_their_share() {
        let admission = HashAdmission::new(4, 100);
        let first = admission.permit(client(1), 0).await.unwrap();
        let _second = admission.permit(client(1), 0).await.unwrap();
        let soon = Duration::from_secs(1);
        let third = tokio::time::timeout(soon, admission.permit(client(1), 0)).await;
        assert!(third.is_err(), "the third waits");
        let _other = admission.permit(client(2), 0).await.unwrap();
        // Three of four threads are taken; the fourth is not for unknown_clients.
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
    fn a_name_that_nobody_has_takes_as_long_as_one_that_somebody_has() {
        let admission = HashAdmission::new(2, 4);
        assert_eq!(admission.hash_time(7), USUAL);
        for _ in 0..TIMED {
            admission.took(Duration::from_secs(9));
        }
        // A quarter of them is slow.
        for number in 0..TIMED as u64 {
            let slow = number % 4 == 0;
            admission.took(Duration::from_millis(if slow { 500 } else { 30 }));
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
        assert_eq!(
            admission.unknown_clients.lock().unwrap().lanes.len(),
            ENTRIES
        );
        assert!(admission.take(client(1), 60_000).is_some());
        assert_eq!(admission.unknown_clients.lock().unwrap().lanes.len(), 1);
    }
}
