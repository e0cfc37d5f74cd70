//! Who may have argon2 computed, and how often: what strangers ask for must not keep the others waiting.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::sasl::Outage;

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

/// How many strangers are told apart.
const ENTRIES: usize = 16_384;

/// How many hashes of strangers say how long one takes.
const TIMED: usize = 64;

/// How long one takes before there was any.
const USUAL: Duration = Duration::from_millis(30);

/// The lane of strangers: everybody who logs in from where the credential was not used before, with a password that people
/// chose. All others have the hashing threads to themselves.
pub struct Lanes {
    strangers: Mutex<Strangers>,
    /// Strangers whose password is being hashed.
    share: Arc<Semaphore>,
    /// Strangers who wait for it or have it.
    waiting: Arc<Semaphore>,
    /// How long the latest hashes took.
    times: Mutex<VecDeque<Duration>>,
}

#[derive(Default)]
struct Strangers {
    lanes: HashMap<Prefix, Lane>,
    /// When those were last forgotten who have all their tokens; a flood must not have that done for each of its own.
    swept: i64,
}

struct Lane {
    tokens: f64,
    at: i64,
    turns: Arc<Semaphore>,
}

/// The right to have one password hashed, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _waiting: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
    _share: OwnedSemaphorePermit,
}

impl Lanes {
    /// Before so many hashing threads, with a queue of `queue` passwords. Strangers have all threads but one, and half the
    /// queue.
    pub fn new(threads: usize, queue: usize) -> Self {
        Self {
            strangers: Mutex::default(),
            share: Arc::new(Semaphore::new(threads.saturating_sub(1).max(1))),
            waiting: Arc::new(Semaphore::new((queue / 2).max(1))),
            times: Mutex::default(),
        }
    }

    /// A stranger's password was hashed, which took so long.
    pub fn took(&self, time: Duration) {
        let mut times = self.times();
        if times.len() >= TIMED {
            times.pop_front();
        }
        times.push_back(time);
    }

    /// How long hashing a stranger's password would take. Hashes of one credential all take about the same time, so a name that
    /// nobody has keeps its rank among those there are.
    pub fn hash_time(&self, name: u32) -> Duration {
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
    pub async fn turn(&self, client: Prefix, now: i64) -> Result<Turn, Outage> {
        let turns = self.take(client, now).ok_or(Outage::Busy)?;
        let waiting = self.waiting.clone().try_acquire_owned();
        let waiting = waiting.map_err(|_| Outage::Busy)?;
        let own = turns.acquire_owned().await.map_err(|_| Outage::Busy)?;
        let share = self.share.clone().acquire_owned().await;
        Ok(Turn {
            _waiting: waiting,
            _own: own,
            _share: share.map_err(|_| Outage::Busy)?,
        })
    }

    /// Takes one of a stranger's tokens.
    fn take(&self, client: Prefix, now: i64) -> Option<Arc<Semaphore>> {
        let mut strangers = self
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if strangers.lanes.len() >= ENTRIES && !strangers.lanes.contains_key(&client) {
            strangers.sweep(now);
            if strangers.lanes.len() >= ENTRIES {
                return None;
            }
        }
        let lane = strangers.lanes.entry(client).or_insert_with(|| Lane {
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

impl Strangers {
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
        let lanes = Lanes::new(2, 100);
        for _ in 0..10 {
            lanes.turn(client(1), 0).await.unwrap();
        }
        assert_eq!(
            lanes.turn(client(1), 4_999).await.unwrap_err(),
            Outage::Busy
        );
        lanes.turn(client(2), 0).await.unwrap();
        lanes.turn(client(1), 5_000).await.unwrap();
        assert_eq!(
            lanes.turn(client(1), 5_000).await.unwrap_err(),
            Outage::Busy
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_has_two_at_once_and_all_have_their_share() {
        let lanes = Lanes::new(4, 100);
        let first = lanes.turn(client(1), 0).await.unwrap();
        let _second = lanes.turn(client(1), 0).await.unwrap();
        let soon = Duration::from_secs(1);
        let third = tokio::time::timeout(soon, lanes.turn(client(1), 0)).await;
        assert!(third.is_err(), "the third waits");
        let _other = lanes.turn(client(2), 0).await.unwrap();
        // Three of four threads are taken; the fourth is not for strangers.
        let another = tokio::time::timeout(soon, lanes.turn(client(3), 0)).await;
        assert!(another.is_err());
        drop(first);
        lanes.turn(client(3), 0).await.unwrap();
    }

    #[tokio::test]
    async fn strangers_have_half_the_queue() {
        let lanes = Lanes::new(2, 4);
        let _hashing = lanes.turn(client(1), 0).await.unwrap();
        let waits = lanes.turn(client(2), 0);
        tokio::pin!(waits);
        assert!(futures_pending(&mut waits).await);
        assert_eq!(lanes.turn(client(3), 0).await.unwrap_err(), Outage::Busy);
    }

    #[test]
    fn a_name_that_nobody_has_takes_as_long_as_one_that_somebody_has() {
        let lanes = Lanes::new(2, 4);
        assert_eq!(lanes.hash_time(7), USUAL);
        for _ in 0..TIMED {
            lanes.took(Duration::from_secs(9));
        }
        // A quarter of them is slow.
        for number in 0..TIMED as u64 {
            let slow = number % 4 == 0;
            lanes.took(Duration::from_millis(if slow { 500 } else { 30 }));
        }
        for name in [0, u32::MAX / 2, u32::MAX / 4 * 3] {
            assert_eq!(lanes.hash_time(name), Duration::from_millis(30));
        }
        for name in [u32::MAX / 4 * 3 + 4, u32::MAX] {
            assert_eq!(lanes.hash_time(name), Duration::from_millis(500));
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
        let lanes = Lanes::new(2, 4);
        for number in 0..100_000_u32 {
            lanes.take(Prefix::client(number.to_be_bytes().into()), 0);
        }
        assert_eq!(lanes.strangers.lock().unwrap().lanes.len(), ENTRIES);
        assert!(lanes.take(client(1), 60_000).is_some());
        assert_eq!(lanes.strangers.lock().unwrap().lanes.len(), 1);
    }
}
