//! `[timeouts]`: how long a client may be silent.

use std::time::Duration;

use serde::Deserialize;

use super::{byte_size, duration};

/// The client's side; the upstream's timeouts stand in its own section.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For the PROXY header, where one is expected.
    #[serde(deserialize_with = "duration::positive")]
    pub proxy: Duration,
    /// For a TLS handshake.
    #[serde(deserialize_with = "duration::positive")]
    pub handshake: Duration,
    /// From the connection to the accepted password.
    #[serde(deserialize_with = "duration::positive")]
    pub login: Duration,
    /// For the next command, once authenticated.
    #[serde(deserialize_with = "duration::positive")]
    pub idle: Duration,
    /// For the next block of a message body.
    #[serde(deserialize_with = "duration::positive")]
    pub body: Duration,
    /// The least rate of a message body, in bytes a second; 0 is none.
    #[serde(deserialize_with = "byte_size::any")]
    pub body_rate: u64,
    /// Over how long that rate is measured; the first such window of each body is free.
    #[serde(deserialize_with = "duration::positive")]
    pub body_rate_window: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            proxy: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            login: Duration::from_secs(60),
            idle: Duration::from_secs(300),
            body: Duration::from_secs(180),
            body_rate: 1 << 10,
            body_rate_window: Duration::from_secs(60),
        }
    }
}
