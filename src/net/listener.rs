//! Listening sockets, and the one loop that accepts from them.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;

/// How many connections may wait to be accepted; during a restart they wait instead of failing.
const BACKLOG: i32 = 4096;

/// The pause after an error of accept(2). Out of descriptors is the usual one, and asking again
/// at once would only burn the processor that has to free some.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection that was let in, and what it holds of the limit while it lives.
#[derive(Debug)]
pub struct Accepted {
    /// The connection, without Nagle's delay.
    pub stream: TcpStream,
    /// The client's address.
    pub peer: SocketAddr,
    /// Given back when dropped; `None` when the limit is reached and the client must be told.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// Opens a listening socket. `[::]` takes IPv6 alone, so that it can stand beside `0.0.0.0`.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
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
    TcpListener::from_std(socket.into())
}

/// Opens a listening socket in the file system with these permissions. A socket file that a former
/// process left is replaced; anything else at that path is left alone.
pub fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let stale = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    // Somebody who still answers is not stale: two gates on one socket would share its clients.
    if stale && UnixStream::connect(path).is_err() {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Accepts until draining begins. Only mail's listeners count, in `metrics`.
pub async fn accept(
    listener: TcpListener,
    permits: Arc<Semaphore>,
    metrics: Option<Arc<Metrics>>,
    lifecycle: Lifecycle,
    serve: impl Fn(Accepted),
) {
    let mut pulse = lifecycle.pulse(match listener.local_addr() {
        Ok(address) => format!("accepting on {address}"),
        Err(_) => "accepting".to_owned(),
    });
    loop {
        let accepted = tokio::select! {
            biased;
            () = lifecycle.draining() => return,
            accepted = pulse.during(listener.accept()) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(metrics) = &metrics {
                    metrics.connections.inc();
                }
                // A client that is gone already shows at the first read.
                let _ = stream.set_nodelay(true);
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
                tracing::warn!(%error, "cannot accept a connection, trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
