//! Listening sockets and the accept loop.

use std::fs;
use std::io;
use std::net::{self, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, lchown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Endpoint;
use crate::lifecycle::Lifecycle;
use crate::log::Throttle;
use crate::metrics::Metrics;

use super::stream::LocalStream;

/// The length of the accept queue; during a restart connections wait there instead of failing.
const BACKLOG: i32 = 4096;

/// The pause after an accept(2) error. The usual cause is a lack of descriptors, and an immediate
/// retry would burn the processor time needed to free some.
const PAUSE: Duration = Duration::from_millis(50);

/// Throttles warnings about accept(2) errors over all listeners.
static ACCEPT_ERRORS: Throttle = Throttle::new();

/// An accepted connection with its permit.
#[derive(Debug)]
pub struct Accepted<S = TcpStream, P = SocketAddr> {
    /// Over TCP, without Nagle's delay.
    pub stream: S,
    /// The address or user at the other end.
    pub peer: P,
    /// Counts towards the connection limit until dropped; `None` when the limit is reached.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// A source of connections.
pub trait Accept: Sync {
    type Stream;
    /// The address or user at the other end.
    type Peer;

    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Peer)>> + Send;

    /// The listening address, for the log.
    fn place(&self) -> String;
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    type Peer = SocketAddr;

    async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.accept().await?;
        // A closed connection shows at the first read.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }

    fn place(&self) -> String {
        let address = self.local_addr();
        address.map_or_else(|_| "TCP".to_owned(), |address| address.to_string())
    }
}

/// A local service's socket, over TCP or in the file system.
#[derive(Debug)]
pub enum LocalListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The peer of a [`LocalStream`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Neighbour {
    Tcp(SocketAddr),
    /// A process of the given user, if the kernel reveals the user.
    Unix {
        /// `None` or another user's id inside a user namespace.
        uid: Option<u32>,
    },
}

/// The permissions of a socket in the file system.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The file mode of the socket.
    pub mode: u32,
    /// The group id; `None` keeps the system's default group.
    pub group: Option<u32>,
}

impl LocalListener {
    /// Opens the socket; `access` applies only to the file system.
    pub fn bind(endpoint: &Endpoint, access: Access) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => bind(*address)
                .and_then(TcpListener::from_std)
                .map(Self::Tcp),
            Endpoint::Unix(path) => bind_unix(path, access).map(Self::Unix),
        }
    }
}

impl Accept for LocalListener {
    type Stream = LocalStream;
    type Peer = Neighbour;

    async fn next(&self) -> io::Result<(LocalStream, Neighbour)> {
        // Yields to the connections accepted before, however many clients connect.
        tokio::task::yield_now().await;
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.next().await?;
                Ok((LocalStream::Tcp(stream), Neighbour::Tcp(peer)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|process| process.uid());
                Ok((LocalStream::Unix(stream), Neighbour::Unix { uid }))
            }
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.place(),
            Self::Unix(listener) => {
                let address = listener.local_addr().ok();
                let path = address.and_then(|address| Some(address.as_pathname()?.to_owned()));
                path.map_or_else(
                    || "unix".to_owned(),
                    |path| format!("unix:{}", path.display()),
                )
            }
        }
    }
}

/// Opens a listening socket. `[::]` accepts IPv6 only, so that it can coexist with `0.0.0.0`.
pub fn bind(address: SocketAddr) -> io::Result<net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Opens a listening socket in the file system. Replaces a stale socket file; any other file at the
/// path stays.
pub fn bind_unix(path: &Path, access: Access) -> io::Result<UnixListener> {
    let stale = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    // A socket with a live listener is not stale: two daemons would share its clients.
    if stale && UnixStream::connect(path).is_err() {
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Set the group and mode before listening, as no client can connect before.
    if let Some(group) = access.group {
        lchown(path, None, Some(group)).map_err(|error| {
            io::Error::other(format!(
                "it cannot be given to the group {group} ({error}); let systemd open it \
                 (gatepost-auth.socket), or run Gatepost as root or as a member of that group"
            ))
        })?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(access.mode))?;
    socket.listen(BACKLOG)?;
    UnixListener::from_std(socket.into())
}

/// How a socket in the file system is open to unintended users.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Exposure {
    /// Every local user can connect.
    Connect,
    /// Every local user can replace the socket, because they may write to this directory.
    Replace(PathBuf),
}

/// Whether local users other than the socket's owner and group can use or replace the socket at
/// `path`. A missing socket can only be replaced.
///
/// # Errors
/// A directory or the socket cannot be examined.
pub fn exposure(path: &Path) -> io::Result<Option<Exposure>> {
    let mode = |path: &Path| match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.permissions().mode()),
        // A directory closed to this process is closed to other users too.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(0),
        Err(error) => Err(error),
    };
    let directories: Vec<_> = path.ancestors().skip(1).collect();
    for directory in &directories {
        let mode = mode(directory)?;
        if mode & 0o001 == 0 {
            return Ok(None);
        }
        // With the sticky bit, users cannot replace files of other users.
        if mode & 0o1002 == 0o002 {
            return Ok(Some(Exposure::Replace(directory.to_path_buf())));
        }
    }
    match mode(path) {
        Ok(mode) if mode & 0o002 != 0 => Ok(Some(Exposure::Connect)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Accepts connections until draining begins. `metrics` is given for mail listeners only.
pub async fn accept<L: Accept>(
    listener: L,
    permits: Arc<Semaphore>,
    metrics: Option<Arc<Metrics>>,
    lifecycle: Lifecycle,
    serve: impl Fn(Accepted<L::Stream, L::Peer>),
) {
    let place = listener.place();
    let mut heartbeat = lifecycle.heartbeat(format!("accepting on {place}"));
    loop {
        let accepted = tokio::select! {
            biased;
            () = lifecycle.draining() => return,
            accepted = heartbeat.while_waiting(listener.next()) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(metrics) = &metrics {
                    metrics.connections.inc();
                }
                let permit = Arc::clone(&permits).try_acquire_owned().ok();
                serve(Accepted {
                    stream,
                    peer,
                    permit,
                });
            }
            Err(error) => {
                if let Some(metrics) = &metrics {
                    metrics.accept_errors.inc();
                }
                if let Some(count) = ACCEPT_ERRORS.due_for(&error.kind()) {
                    tracing::warn!(
                        place,
                        %error,
                        count,
                        "cannot accept a connection, trying again; if too many files are open, raise LimitNOFILE="
                    );
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_open_to_its_owner_and_group_unless_its_mode_or_directory_says_otherwise() {
        let root = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(root.path(), 0o755);
        let directory = root.path().join("private");
        fs::create_dir(&directory).unwrap();
        let path = directory.join("auth");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let replaced = Some(Exposure::Replace(directory.clone()));
        for (of_directory, of_socket, expected) in [
            (0o755, 0o660, None),
            (0o755, 0o666, Some(Exposure::Connect)),
            (0o750, 0o666, None),
            (0o777, 0o660, replaced),
            (0o1777, 0o660, None),
        ] {
            set(&directory, of_directory);
            set(&path, of_socket);
            let found = exposure(&path).unwrap();
            assert_eq!(found, expected, "{of_directory:o} {of_socket:o}");
        }
    }
}
