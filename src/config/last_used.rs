//! `[last_used]`: how the time a credential was last used reaches the disk.

use std::time::Duration;

use serde::Deserialize;

use super::{duration, number};

/// The batcher between logins and the database.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct LastUsed {
    /// Between two writes, so the most that a power cut can take.
    #[serde(deserialize_with = "duration::positive")]
    pub flush_interval: Duration,
    /// Credentials that may wait to be written; beyond, uses are counted as lost.
    #[serde(deserialize_with = "number::within::<_, _, 1, 10_000_000>")]
    pub pending: usize,
}

impl Default for LastUsed {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_secs(5),
            pending: 100_000,
        }
    }
}
