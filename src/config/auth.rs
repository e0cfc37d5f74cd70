//! `[auth]`: what a password may cost to verify, and how refusals are answered.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{duration, number, text};

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
    /// Whether usernames that Gatepost did not generate are compared without regard to case.
    pub username_case: UsernameCase,
    /// From the command to the answer, for every refusal alike.
    #[serde(deserialize_with = "duration::any")]
    pub refusal_delay: Duration,
}

/// How a username that Gatepost did not generate is compared.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum UsernameCase {
    /// Octet by octet.
    #[default]
    Exact,
    /// In lower case, as Dovecot does by default.
    Fold,
}

impl UsernameCase {
    /// Whether upper case counts as lower case.
    pub fn folds(self) -> bool {
        self == UsernameCase::Fold
    }
}

impl FromStr for UsernameCase {
    /// What is wrong with the text, and what to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "exact" => Ok(Self::Exact),
            "fold" => Ok(Self::Fold),
            _ => Err(format!("unknown value {text:?}; use {USERNAME_CASES}")),
        }
    }
}

const USERNAME_CASES: &str = "\"exact\" or \"fold\"";

impl<'de> Deserialize<'de> for UsernameCase {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, USERNAME_CASES, str::parse)
    }
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
            username_case: UsernameCase::Exact,
            refusal_delay: Duration::from_secs(1),
        }
    }
}
