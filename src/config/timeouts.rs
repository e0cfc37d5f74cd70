//! `[timeouts]`: how long a client may be silent.

use std::time::Duration;

use serde::Deserialize;

use super::duration;

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
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            proxy: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            login: Duration::from_secs(60),
            idle: Duration::from_secs(300),
            body: Duration::from_secs(180),
        }
    }
}
