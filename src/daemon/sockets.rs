//! Where listening sockets come from: handed in by the service manager, else opened here.
//!
//! systemd's `.socket` units hold the addresses across restarts, so that who connects meanwhile
//! waits instead of being refused, and the daemon needs no right to open any. A socket handed in
//! is known by its own address; its name and its place in the list mean nothing.

use std::net::{self, SocketAddr};

use listenfd::ListenFd;
use socket2::Socket;
use tokio::net::{TcpListener, UnixListener};

use crate::config::Endpoint;
use crate::net::listener::{self, Access, LocalListener};

use super::DaemonError;

/// The sockets that were handed in and not asked for yet.
pub struct Sockets {
    passed: Vec<(Endpoint, Socket)>,
}

impl Sockets {
    /// Nothing is handed in; all addresses are opened here.
    pub fn none() -> Self {
        Self { passed: Vec::new() }
    }

    /// Takes what the service manager hands in (sd_listen_fds(3)), if anything, and clears those
    /// variables. To be called before there are other threads, which might read the environment.
    ///
    /// # Errors
    /// When a descriptor is something else than a listening stream socket with an address.
    pub fn from_service_manager() -> Result<Self, DaemonError> {
        let mut descriptors = ListenFd::from_env();
        let passed = (0..descriptors.len())
            .map(|index| {
                describe(&mut descriptors, index).ok_or(DaemonError::Passed { index: index + 1 })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { passed })
    }

    /// The TCP socket at this address.
    ///
    /// # Errors
    /// When it was not handed in and cannot be opened.
    pub fn tcp(&mut self, address: SocketAddr) -> Result<net::TcpListener, DaemonError> {
        let endpoint = Endpoint::Tcp(address);
        match self.take(&endpoint) {
            Some(socket) => Ok(socket.into()),
            None => listener::bind(address),
        }
        .map_err(|error| DaemonError::bind(&endpoint, error))
    }

    /// The socket at this place; `access` is for one that is opened here in the file system.
    ///
    /// # Errors
    /// When it was not handed in and cannot be opened.
    pub fn local(
        &mut self,
        endpoint: &Endpoint,
        access: Access,
    ) -> Result<LocalListener, DaemonError> {
        match (endpoint, self.take(endpoint)) {
            (Endpoint::Tcp(_), Some(socket)) => {
                TcpListener::from_std(socket.into()).map(LocalListener::Tcp)
            }
            (Endpoint::Unix(_), Some(socket)) => {
                UnixListener::from_std(socket.into()).map(LocalListener::Unix)
            }
            (_, None) => LocalListener::bind(endpoint, access),
        }
        .map_err(|error| DaemonError::bind(endpoint, error))
    }

    /// Everything configured has been asked for: what is left would never be answered.
    ///
    /// # Errors
    /// When anything is left.
    pub fn finish(self) -> Result<(), DaemonError> {
        if self.passed.is_empty() {
            return Ok(());
        }
        let addresses: Vec<_> = self
            .passed
            .iter()
            .map(|(endpoint, _)| endpoint.to_string())
            .collect();
        Err(DaemonError::Unconfigured {
            addresses: addresses.join(", "),
        })
    }

    fn take(&mut self, endpoint: &Endpoint) -> Option<Socket> {
        let at = self.passed.iter().position(|(own, _)| own == endpoint)?;
        Some(self.passed.swap_remove(at).1)
    }
}

/// A descriptor as a socket with its address, not blocking.
fn describe(descriptors: &mut ListenFd, index: usize) -> Option<(Endpoint, Socket)> {
    let (endpoint, socket) = match descriptors.take_tcp_listener(index) {
        Ok(tcp) => {
            let tcp = tcp?;
            (Endpoint::Tcp(tcp.local_addr().ok()?), Socket::from(tcp))
        }
        Err(_) => {
            let unix = descriptors.take_unix_listener(index).ok()??;
            let path = unix.local_addr().ok()?.as_pathname()?.to_owned();
            (Endpoint::Unix(path), Socket::from(unix))
        }
    };
    // A socket that does not listen is a connection, from a unit with Accept=yes.
    let listens = socket.is_listener().ok()?;
    socket.set_nonblocking(true).ok()?;
    listens.then_some((endpoint, socket))
}
