//! Why there is no daemon.

use std::io;

use crate::net::tls::TlsError;
use crate::store::StoreError;

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A socket cannot be opened.
    #[error("cannot listen on {address}: {error}{}", hint(error))]
    Bind {
        /// The configured address.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// Threads or signals cannot be had.
    #[error("the system refuses what every program needs: {0}")]
    System(#[from] io::Error),
    /// Metrics cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has it: ss -ltnp shows which",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE, which the systemd unit grants"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        io::ErrorKind::NotFound => "; the socket's directory does not exist",
        _ => "",
    }
}
