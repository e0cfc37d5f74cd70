//! Verdicts for Postfix itself, in the protocol it speaks to Dovecot's auth service (version 1.x).
//!
//! Two uses. Debian 12's Postfix believes a LOGIN given by XCLIENT only while SASL is active in
//! its smtpd, which needs such a socket. And Postfix can keep its own listeners and ask here
//! directly, without the relay in between.

mod connection;
mod protocol;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use crate::auth::Authenticator;
use crate::config::Endpoint;
use crate::lifecycle::Lifecycle;
use crate::net::listener;
use crate::net::stream::LocalStream;

/// How many smtpd processes may be connected at a time; each holds one connection.
const CONNECTIONS: usize = 1024;

/// Everyone who can reach the socket's directory may ask, as with Dovecot's own `mode = 0666`,
/// since smtpd runs as postfix. The directory is the permission.
const MODE: u32 = 0o666;

/// The pause after an error of accept(2).
const PAUSE: Duration = Duration::from_millis(50);

/// The socket, open.
pub enum Listener {
    /// On loopback.
    Tcp(TcpListener),
    /// In the file system.
    Unix(UnixListener),
}

impl Listener {
    /// Opens the socket.
    pub fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => listener::bind(*address).map(Self::Tcp),
            Endpoint::Unix(path) => listener::bind_unix(path, MODE).map(Self::Unix),
        }
    }

    /// Serves until draining.
    pub async fn serve(self, authenticator: Arc<Authenticator>, lifecycle: Lifecycle) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut pulse = lifecycle.pulse("accepting on the auth socket");
        loop {
            let accepted = tokio::select! {
                biased;
                () = lifecycle.draining() => return,
                accepted = pulse.during(self.accept()) => accepted,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the auth socket cannot accept, trying again");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = permits.clone().try_acquire_owned() else {
                tracing::warn!("the auth socket has too many clients, one was turned away");
                continue;
            };
            let (authenticator, tasks) = (authenticator.clone(), lifecycle.clone());
            lifecycle.spawn(async move {
                connection::serve(stream, authenticator, tasks).await;
                drop(permit);
            });
        }
    }

    /// Only introduces itself to whoever connects, and answers nothing. Enough for an smtpd to
    /// start while no daemon runs, which is what `gatepost check` needs of it.
    pub async fn introduce(self) {
        // Kept open: an smtpd whose socket closes gives up.
        let mut connections = Vec::new();
        while let Ok(mut stream) = self.accept().await {
            let greeting = protocol::greeting(std::process::id(), 1, rand::random());
            // Should it fail, smtpd says why itself.
            let _ = stream.write_all(greeting.as_bytes()).await;
            connections.push(stream);
        }
    }

    async fn accept(&self) -> io::Result<LocalStream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(LocalStream::Tcp(stream))
            }
            Self::Unix(listener) => Ok(LocalStream::Unix(listener.accept().await?.0)),
        }
    }
}
