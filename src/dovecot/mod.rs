//! Verdicts for Postfix itself, in the protocol it speaks to Dovecot's auth service (version 1.x).
//!
//! Two uses. Debian 12's Postfix believes a LOGIN given by XCLIENT only while SASL is active in
//! its smtpd, which needs such a socket. And Postfix can keep its own listeners and ask here
//! directly, without the relay in between.

mod connection;
mod protocol;

use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

use crate::auth::Authenticator;
use crate::lifecycle::Lifecycle;
use crate::log::Throttle;
use crate::net::listener::{Accept as _, Accepted, LocalListener, Neighbour, accept};
use crate::net::stream::LocalStream;

/// How many smtpd processes may be connected at a time; each holds one connection.
const CONNECTIONS: usize = 1024;

/// The mode of the socket in the file system. Everyone who can reach its directory may ask, as with Dovecot's own `mode = 0666`,
/// since smtpd runs as postfix. The directory is the permission.
pub const MODE: u32 = 0o666;

/// Answers until draining.
pub async fn serve(
    listener: LocalListener,
    authenticator: Arc<Authenticator>,
    lifecycle: Lifecycle,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = lifecycle.clone();
    let serve = |accepted: Accepted<LocalStream, Neighbour>| {
        let Some(permit) = accepted.permit else {
            static TURNED_AWAY: Throttle = Throttle::new();
            if let Some(count) = TURNED_AWAY.due() {
                tracing::warn!(
                    count,
                    "the auth socket has too many clients; some were turned away"
                );
            }
            return;
        };
        let (authenticator, lifecycle) = (authenticator.clone(), tasks.clone());
        tasks.spawn(async move {
            connection::serve(accepted.stream, authenticator, lifecycle).await;
            drop(permit);
        });
    };
    accept(listener, permits, None, lifecycle, serve).await;
}

/// Only introduces itself to whoever connects, and answers nothing. Enough for an smtpd to start
/// while no daemon runs, which is what `gatepost check` needs of it.
pub async fn introduce(listener: LocalListener) {
    // Kept open: an smtpd whose socket closes gives up.
    let mut connections = Vec::new();
    while let Ok((mut stream, _)) = listener.next().await {
        let greeting = protocol::greeting(std::process::id(), 1, rand::random());
        // Should it fail, smtpd says why itself.
        let _ = stream.write_all(greeting.as_bytes()).await;
        connections.push(stream);
    }
}
