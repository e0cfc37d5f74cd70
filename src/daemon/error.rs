//! Errors that prevent the start of the daemon.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;

use crate::config::Endpoint;
use crate::edge::HandoffError;
use crate::net::tls::TlsError;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("cannot listen on {address}: {error}{}", hint(error))]
    Bind { address: String, error: io::Error },
    /// A socket from systemd is unusable.
    #[error(
        "socket {index} of those handed in by LISTEN_FDS is not a listening TCP or unix stream socket with an address; the .socket unit needs ListenStream= and Accept=no"
    )]
    Passed {
        /// The position, counted from 1.
        index: usize,
    },
    /// Sockets from systemd that no part of Gatepost would serve.
    #[error(
        "handed in by the .socket unit but not configured: {addresses}; name each exactly so in config.toml (a [[listener]], [admin], [metrics] or [dovecot_auth]), or take its ListenStream= out of the unit"
    )]
    Unconfigured { addresses: String },
    #[error(
        "dovecot_auth.group: there is no group {name:?} in /etc/group; correct the name, or leave the key out"
    )]
    Group { name: String },
    /// A clear-text socket for secrets on a network address.
    #[error(
        "{address} is handed in by the .socket unit as \"admin\" or \"auth\", and would carry secrets over the network in clear text; use a loopback address there, or for the administration admin.listen with admin.tls = true in config.toml"
    )]
    Exposed { address: SocketAddr },
    /// No address for clients is configured or passed by systemd.
    #[error(
        "no address for clients is configured or handed in by systemd: start gatepost.socket, or write at least one [[listener]] with its kind and address, or [dovecot_auth] alone if Postfix keeps its listeners"
    )]
    NoListener,
    #[error(
        "a listener needs [tls] with certificate and key, and [upstream] with the address of the MTA; write both"
    )]
    Incomplete,
    /// Threads or signals are unavailable.
    #[error("the system refuses what every program needs: {0}")]
    System(#[from] io::Error),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Upstream(#[from] HandoffError),
}

impl DaemonError {
    pub(super) fn bind(endpoint: &Endpoint, error: io::Error) -> Self {
        Self::Bind {
            address: endpoint.to_string(),
            error,
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) {
        return "; the systemd unit may open no network socket of its own, so the address must \
                stand in a .socket unit exactly as it is configured";
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has it, which ss -ltnp shows; if that is systemd, a .socket unit \
             has it, but not exactly as it is configured"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 are opened by systemd: gatepost.socket must have the address \
             exactly as it is configured"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; under systemd a socket belongs into /run/gatepost or into a .socket unit"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        io::ErrorKind::NotFound => "; the socket's directory does not exist",
        _ => "",
    }
}
