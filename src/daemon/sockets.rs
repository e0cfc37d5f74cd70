//! Where listening sockets come from.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::net::listener;

use super::DaemonError;

/// Opens a listening socket.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, DaemonError> {
    listener::bind(address).map_err(|error| DaemonError::Bind {
        address: address.to_string(),
        error,
    })
}
