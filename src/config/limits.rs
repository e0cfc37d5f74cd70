//! `[limits]`: how much one client, and all of them together, may ask for.

use serde::{Deserialize, Deserializer, de::Error};

use super::number;

/// Counts after which a connection is refused or closed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Client connections at one time, over all listeners.
    #[serde(deserialize_with = "number::within::<_, _, 1, 1_000_000>")]
    pub connections: usize,
    /// Commands refused in one session before it is closed.
    #[serde(deserialize_with = "number::within::<_, _, 1, 1_000_000>")]
    pub errors: u32,
    /// Refused AUTH commands in one session before it is closed; at least 3.
    #[serde(deserialize_with = "auth_failures")]
    pub auth_failures: u32,
    /// Commands in one session before it is closed.
    #[serde(deserialize_with = "number::within::<_, _, 1, 1_000_000_000>")]
    pub commands: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            errors: 10,
            auth_failures: 5,
            commands: 100_000,
        }
    }
}

fn auth_failures<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match number::within::<_, _, 0, 1_000_000>(deserializer)? {
        few @ 0..3 => Err(D::Error::custom(format!(
            "{few} is too few; use 3 or more, since RFC 4954 section 9 lets a client fail so often"
        ))),
        enough => Ok(enough),
    }
}
