//! The hashing threads: argon2id, and the schemes of imported hashes.
//!
//! Each thread keeps its memory, because mapping memory for every password costs as much as
//! hashing. The queue is bounded: a login that would wait too long fails at once.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use argon2::password_hash::PasswordHasher as _;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;
use tokio::sync::oneshot;

use crate::log::Throttle;
use crate::metrics::Metrics;
use crate::sasl::{Outage, Secret};

use super::imported;

/// The highest cost of a stored hash. Without a limit, a writer of one row could take all memory.
const MAX_COST: Cost = Cost {
    memory_kib: 1_048_576,
    iterations: 64,
    lanes: 16,
};

/// The cost of one hash (RFC 9106, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    fn exceeds(self, limit: Self) -> bool {
        self.memory_kib > limit.memory_kib
            || self.iterations > limit.iterations
            || self.lanes > limit.lanes
    }
}

/// A hash cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HashError(String);

/// Hashes a new password, with a salt from the operating system, into a PHC string.
pub(crate) fn hash(password: &Secret, cost: Cost) -> Result<String, HashError> {
    let error = |error: &dyn std::fmt::Display| HashError(format!("argon2: {error}"));
    let params = Params::new(cost.memory_kib, cost.iterations, cost.lanes, None)
        .map_err(|source| error(&source))?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(password.expose())
        .map(|hash| hash.to_string())
        .map_err(|source| error(&source))
}

/// The result of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    No,
    /// Right. An outdated hash is not argon2id, or costs less than configured.
    Yes {
        outdated: bool,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Compared {
    pub(crate) found: Match,
    /// The time of the thread.
    pub(crate) took: Duration,
}

fn matches(
    password: &Secret,
    stored: &str,
    today: Cost,
    memory: &mut Vec<Block>,
) -> Result<Match, HashError> {
    let error = |error: &dyn std::fmt::Display| HashError(format!("argon2: {error}"));
    if let Some(compared) = imported::matches(password, stored) {
        let found = compared.map_err(|unusable| HashError(unusable.to_string()))?;
        return Ok(match found {
            true => Match::Yes { outdated: true },
            false => Match::No,
        });
    }
    let stored = PasswordHash::new(stored).map_err(|source| error(&source))?;
    let algorithm =
        Algorithm::try_from(stored.algorithm.as_str()).map_err(|source| error(&source))?;
    let params = Params::try_from(&stored).map_err(|source| error(&source))?;
    let cost = Cost {
        memory_kib: params.m_cost(),
        iterations: params.t_cost(),
        lanes: params.p_cost(),
    };
    let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else {
        return Err(HashError("a stored hash without salt or output".into()));
    };
    if cost.exceeds(MAX_COST) {
        return Err(HashError(format!(
            "a stored hash costs more than is allowed: {cost:?}"
        )));
    }
    let blocks = params.block_count();
    if memory.len() < blocks {
        memory.resize(blocks, Block::default());
    }
    let mut computed = vec![0; expected.len()];
    Argon2::new(algorithm, Version::V0x13, params)
        .hash_password_into_with_memory(
            password.expose(),
            salt.as_ref(),
            &mut computed,
            &mut memory[..blocks],
        )
        .map_err(|source| error(&source))?;
    // Return the memory of an expensive hash.
    let usual = usize::try_from(today.memory_kib).unwrap_or(usize::MAX);
    if memory.len() / 4 > usual {
        memory.truncate(usual);
        memory.shrink_to_fit();
    }
    if computed.ct_eq(expected.as_bytes()).into() {
        Ok(Match::Yes {
            outdated: algorithm != Algorithm::Argon2id || today.exceeds(cost),
        })
    } else {
        Ok(Match::No)
    }
}

type Job = Box<dyn FnOnce(&mut Vec<Block>) + Send>;

pub struct Hasher {
    queue: SyncSender<Job>,
    cost: Cost,
    metrics: Arc<Metrics>,
    workers: usize,
}

impl Hasher {
    /// Starts `workers` threads (0: one per core) behind a queue of `queue` passwords. Dropping the
    /// hasher ends the threads.
    pub fn start(
        cost: Cost,
        workers: usize,
        queue: usize,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let workers = match workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let (sender, receiver) = sync_channel(queue);
        metrics
            .argon2_queue_limit
            .set(i64::try_from(queue).unwrap_or(i64::MAX));
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..workers {
            let receiver = receiver.clone();
            std::thread::Builder::new()
                .name(format!("argon2-{number}"))
                .spawn(move || work(&receiver))?;
        }
        Ok(Self {
            queue: sender,
            cost,
            metrics,
            workers,
        })
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    pub(crate) async fn matches(
        &self,
        password: Secret,
        stored: String,
    ) -> Result<Compared, Outage> {
        let today = self.cost;
        let compare = move |memory: &mut Vec<Block>| {
            let begun = Instant::now();
            let found = matches(&password, &stored, today, memory)?;
            let took = begun.elapsed();
            Ok(Compared { found, took })
        };
        self.run(self.counted(compare)).await
    }

    /// Hashes a password at the configured cost.
    pub(crate) async fn rehash(&self, password: Secret) -> Result<String, Outage> {
        let cost = self.cost;
        self.run(self.counted(move |_| hash(&password, cost))).await
    }

    /// Waits for a thread like a password, without a job.
    pub(crate) async fn wait_for_thread(&self) -> Result<(), Outage> {
        self.run(|_| Ok(())).await
    }

    fn counted<T>(
        &self,
        job: impl FnOnce(&mut Vec<Block>) -> Result<T, HashError> + Send + 'static,
    ) -> impl FnOnce(&mut Vec<Block>) -> Result<T, HashError> + Send + 'static {
        let metrics = self.metrics.clone();
        move |memory| {
            metrics.argon2.inc();
            metrics.argon2_in_flight.inc();
            let result = job(memory);
            metrics.argon2_in_flight.dec();
            result
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Vec<Block>) -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, Outage> {
        let (answer, answered) = oneshot::channel();
        let metrics = self.metrics.clone();
        metrics.argon2_queue.inc();
        let job: Job = Box::new(move |memory| {
            metrics.argon2_queue.dec();
            // The caller may have given up.
            if !answer.is_closed() {
                let _ = answer.send(job(memory));
            }
        });
        if self.queue.try_send(job).is_err() {
            self.metrics.argon2_queue.dec();
            return Err(Outage::Busy);
        }
        answered.await.map_err(|_| Outage::Hash)?.map_err(|error| {
            static UNCOMPARED: Throttle = Throttle::new();
            if let Some(count) = UNCOMPARED.due() {
                tracing::error!(
                    %error,
                    count,
                    "a password could not be compared; rotate the credential"
                );
            }
            Outage::Hash
        })
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    // Relaying mail comes before guessing passwords; on Linux this is the thread's own priority.
    let _ = rustix::process::setpriority_process(None, 10);
    let mut memory = Vec::new();
    loop {
        let job = queue.lock().recv();
        match job {
            Ok(job) => job(&mut memory),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost {
        memory_kib: 64,
        iterations: 1,
        lanes: 1,
    };

    async fn compared(hasher: &Hasher, password: Secret, stored: String) -> Result<Match, Outage> {
        let compared = hasher.matches(password, stored).await?;
        Ok(compared.found)
    }

    fn hasher(queue: usize) -> Hasher {
        Hasher::start(CHEAP, 1, queue, Arc::new(Metrics::new().unwrap())).unwrap()
    }

    #[tokio::test]
    async fn the_right_password_matches_its_hash() {
        let right = Secret::new("sk_right");
        let stored = hash(&right, CHEAP).unwrap();
        let hasher = hasher(4);
        let found = compared(&hasher, right, stored.clone()).await;
        assert_eq!(found, Ok(Match::Yes { outdated: false }));
        assert_eq!(
            compared(&hasher, Secret::new("sk_wrong"), stored).await,
            Ok(Match::No)
        );
    }

    #[tokio::test]
    async fn a_hash_cheaper_than_today_is_outdated() {
        let right = Secret::new("sk_right");
        let stored = hash(
            &right,
            Cost {
                memory_kib: 32,
                ..CHEAP
            },
        )
        .unwrap();
        assert_eq!(
            compared(&hasher(4), right, stored).await,
            Ok(Match::Yes { outdated: true })
        );
    }

    #[tokio::test]
    async fn an_unusable_hash_is_an_outage_and_never_a_match() {
        let costly = "$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNoaGFzaA";
        for stored in [
            "",
            "plain",
            "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ",
            costly,
        ] {
            let found = compared(&hasher(4), Secret::new("x"), stored.into()).await;
            assert_eq!(found, Err(Outage::Hash), "{stored}");
        }
    }

    #[tokio::test]
    async fn a_full_queue_is_said_at_once() {
        let hasher = hasher(1);
        let (begun, has_begun) = oneshot::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let block: Job = Box::new(move |_| {
            let _ = begun.send(());
            let _ = released.recv();
        });
        hasher.queue.send(block).unwrap();
        has_begun.await.unwrap();
        hasher.queue.send(Box::new(|_| {})).unwrap();
        assert_eq!(hasher.rehash(Secret::new("x")).await, Err(Outage::Busy));
        release.send(()).unwrap();
    }
}
