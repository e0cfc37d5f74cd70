//! Listening sockets: passed by the service manager, or opened by Gatepost.
//!
//! systemd's `.socket` units hold the addresses across restarts, so clients wait instead of being
//! refused, and the daemon needs no right to open addresses. A passed socket is identified by its
//! address. Where the configuration names no address, the socket's name (`FileDescriptorName=`)
//! selects the part of Gatepost that serves the socket.

use std::net::{self, SocketAddr};
use std::path::PathBuf;

use listenfd::ListenFd;
use socket2::Socket;
use tokio::net::{TcpListener, UnixListener};

use crate::config::{Config, DovecotAuth, Endpoint, Listener, ListenerKind};
use crate::net::listener::{self, Access, LocalListener};
use crate::net::unopened::{Unopened, Wanted};

use super::DaemonError;

/// The passed sockets not yet claimed.
pub struct Sockets {
    passed: Vec<Passed>,
}

struct Passed {
    /// `FileDescriptorName=` of the unit, or the unit's file name.
    name: String,
    endpoint: Endpoint,
    socket: Socket,
}

impl Sockets {
    /// Starts without passed sockets; Gatepost opens every address.
    pub fn none() -> Self {
        Self { passed: Vec::new() }
    }

    /// Takes the passed sockets (sd_listen_fds(3)) and clears the variables. Call this before any
    /// other thread reads the environment.
    ///
    /// # Errors
    /// A descriptor is no listening stream socket with an address.
    pub fn from_service_manager() -> Result<Self, DaemonError> {
        let names = names();
        let mut names = names.split(':');
        let mut descriptors = ListenFd::from_env();
        let passed = (0..descriptors.len())
            .map(|index| {
                let name = names.next().unwrap_or_default().to_owned();
                let (endpoint, socket) = describe(&mut descriptors, index)
                    .ok_or(DaemonError::Passed { index: index + 1 })?;
                Ok(Passed {
                    name,
                    endpoint,
                    socket,
                })
            })
            .collect::<Result<_, DaemonError>>()?;
        Ok(Self { passed })
    }

    /// Whether the service manager holds sockets for the process, whose clients wait meanwhile.
    #[expect(
        clippy::disallowed_methods,
        reason = "sd_listen_fds(3) is an interface of variables"
    )]
    pub fn are_handed_in() -> bool {
        std::env::var_os("LISTEN_FDS").is_some()
    }

    /// Adds the addresses of named sockets to the parts of the configuration without an address.
    ///
    /// # Errors
    /// Listeners are passed without a certificate or an upstream, or a clear-text socket for
    /// secrets is on a network address.
    pub fn complete(&self, config: &mut Config) -> Result<(), DaemonError> {
        if config.listeners.is_empty() {
            for kind in [ListenerKind::Submission, ListenerKind::Submissions] {
                let name = kind.to_string();
                let own = self.tcp_named(&name).map(|address| Listener {
                    kind,
                    address,
                    proxy_from: Vec::new(),
                });
                config.listeners.extend(own);
            }
            let is_complete = config.tls.is_some() && config.upstream.is_some();
            if !config.listeners.is_empty() && !is_complete {
                return Err(DaemonError::Incomplete);
            }
        }
        let (socket, listen) = (self.unix_named("admin"), self.tcp_named("admin").next());
        let proxy_socket = self.unix_named("proxy");
        if config.admin.is_some() || socket.is_some() || listen.is_some() {
            let admin = config.admin.get_or_insert_default();
            admin.socket = admin.socket.take().or(socket);
            admin.listen = admin.listen.or(listen);
            admin.proxy_socket = admin.proxy_socket.take().or(proxy_socket);
        }
        let own_admin = config.admin.as_ref().filter(|admin| !admin.tls);
        let clear = own_admin.and_then(|admin| admin.listen);
        for address in clear.into_iter().chain(self.tcp_named("auth")) {
            if !address.ip().to_canonical().is_loopback() {
                return Err(DaemonError::Exposed { address });
            }
        }
        if let Some(address) = self.tcp_named("metrics").next() {
            let metrics = config.metrics.get_or_insert_default();
            metrics.listen.get_or_insert(address);
        }
        if config.dovecot_auth.is_none() {
            config.dovecot_auth = self.named("auth").next().map(DovecotAuth::at);
        }
        Ok(())
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Endpoint> + use<'a> {
        let own = self.passed.iter().filter(move |one| one.name == name);
        own.map(|one| one.endpoint.clone())
    }

    fn tcp_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = SocketAddr> + use<'a> {
        self.named(name).filter_map(|endpoint| match endpoint {
            Endpoint::Tcp(address) => Some(address),
            Endpoint::Unix(_) => None,
        })
    }

    fn unix_named(&self, name: &str) -> Option<PathBuf> {
        self.named(name).find_map(|endpoint| match endpoint {
            Endpoint::Tcp(_) => None,
            Endpoint::Unix(path) => Some(path),
        })
    }

    /// Returns the TCP socket at an address.
    ///
    /// # Errors
    /// The socket was not passed and cannot be opened.
    pub fn tcp(&mut self, address: SocketAddr) -> Result<net::TcpListener, DaemonError> {
        let endpoint = Endpoint::Tcp(address);
        match self.take(&endpoint) {
            Some(socket) => Ok(socket.into()),
            None => listener::bind(address),
        }
        .map_err(|error| DaemonError::bind(&endpoint, error))
    }

    /// Returns the socket at an endpoint; `access` applies to a socket opened in the file system.
    ///
    /// # Errors
    /// The socket was not passed and cannot be opened.
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

    /// Returns the socket, or records the error in `unopened` for a later attempt.
    pub(super) fn local_or_later(
        &mut self,
        wanted: Wanted,
        unopened: &Unopened,
    ) -> Result<LocalListener, Wanted> {
        self.local(&wanted.endpoint, wanted.access)
            .map_err(|error| {
                unopened.note(&wanted, error.to_string());
                wanted
            })
    }

    /// Checks that every passed socket was claimed: no part would serve the rest.
    ///
    /// # Errors
    /// A passed socket is left.
    pub fn finish(self) -> Result<(), DaemonError> {
        if self.passed.is_empty() {
            return Ok(());
        }
        let addresses: Vec<_> = self
            .passed
            .iter()
            .map(|one| one.endpoint.to_string())
            .collect();
        Err(DaemonError::Unconfigured {
            addresses: addresses.join(", "),
        })
    }

    fn take(&mut self, endpoint: &Endpoint) -> Option<Socket> {
        let at = self
            .passed
            .iter()
            .position(|one| one.endpoint == *endpoint)?;
        Some(self.passed.swap_remove(at).socket)
    }
}

/// Returns the colon-separated names of the passed descriptors.
#[expect(
    clippy::disallowed_methods,
    reason = "sd_listen_fds(3) is an interface of variables"
)]
fn names() -> String {
    std::env::var("LISTEN_FDNAMES").unwrap_or_default()
}

/// Returns a descriptor as a non-blocking socket with its address.
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
