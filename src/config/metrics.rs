//! `[metrics]`: where Prometheus scrapes, and how much it is told.

use std::net::SocketAddr;

use serde::Deserialize;

use super::{Hostname, address, admin, flag, number};

/// The listener for metrics, and the bounds of what is counted by name.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// The address; `None` for the one that the service manager hands in.
    #[serde(default, deserialize_with = "address::optional_socket_address")]
    pub listen: Option<SocketAddr>,
    /// Names that may stand in the URL, besides loopback, the address itself and `hostname`.
    #[serde(default, deserialize_with = "admin::names")]
    pub hosts: Vec<Hostname>,
    /// Whether credentials are counted one by one, as organizations are.
    #[serde(default, deserialize_with = "flag::flag")]
    pub per_credential: bool,
    /// How many organizations, and how many credentials, are told apart.
    #[serde(
        default = "default_series",
        deserialize_with = "number::within::<_, _, 1, 100_000>"
    )]
    pub series: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: None,
            hosts: Vec::new(),
            per_credential: false,
            series: default_series(),
        }
    }
}

fn default_series() -> usize {
    1000
}
