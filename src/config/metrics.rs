//! `[metrics]`: where Prometheus scrapes.

use std::net::SocketAddr;

use serde::Deserialize;

use super::address;

/// The listener for metrics.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Where to listen.
    #[serde(deserialize_with = "address::socket_address")]
    pub listen: SocketAddr,
}
