//! `[auth]`: what a password may cost to verify, and how refusals are answered.

use std::time::Duration;

use serde::Deserialize;

use super::{duration, number};

/// Argon2id's cost, the pool it runs on, the cache before it, and the time of a refusal.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Argon2id's memory in KiB, at least 8 for each lane (RFC 9106 section 3.1).
    #[serde(deserialize_with = "number::within::<_, _, 8, 1_048_576>")]
    pub memory_kib: u32,
    /// Argon2id's passes over its memory.
    #[serde(deserialize_with = "number::within::<_, _, 1, 64>")]
    pub iterations: u32,
    /// Argon2id's degree of parallelism.
    #[serde(deserialize_with = "number::within::<_, _, 1, 16>")]
    pub lanes: u32,
    /// Threads that hash; 0 means one for each core.
    #[serde(deserialize_with = "number::within::<_, _, 0, 256>")]
    pub workers: usize,
    /// Verifications that may wait for a thread; one more is answered 454.
    #[serde(deserialize_with = "number::within::<_, _, 1, 100_000>")]
    pub queue: usize,
    /// Credentials whose verdict is remembered in memory.
    #[serde(deserialize_with = "number::within::<_, _, 1, 10_000_000>")]
    pub cache_entries: u64,
    /// From the command to the answer, for every refusal alike.
    #[serde(deserialize_with = "duration::any")]
    pub refusal_delay: Duration,
}

impl Default for Auth {
    /// The cost is OWASP's recommendation for argon2id.
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            iterations: 2,
            lanes: 1,
            workers: 0,
            queue: 100,
            cache_entries: 100_000,
            refusal_delay: Duration::from_secs(1),
        }
    }
}
