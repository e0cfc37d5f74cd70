//! `[admin]`: where the administration will be served. The keys are read and checked already.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::address;

/// Where the administration listens; either, both or none.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// A unix socket, whose mode and group say who may use it.
    #[serde(default, deserialize_with = "address::optional_unix_path")]
    pub socket: Option<PathBuf>,
    /// A TCP address, for requests that carry a token.
    #[serde(default, deserialize_with = "address::optional_socket_address")]
    pub listen: Option<SocketAddr>,
}
