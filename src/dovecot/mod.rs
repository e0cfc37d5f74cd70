//! Verdicts for Postfix, in the protocol of Dovecot's auth service (version 1.x).
//!
//! There are two uses. Debian 12's Postfix accepts LOGIN in XCLIENT only while SASL is active in
//! its smtpd, which requires such a socket. And Postfix can keep its own listeners and ask Gatepost
//! directly, without the relay in between.

mod connection;
mod protocol;

use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

use crate::auth::Authenticator;
use crate::lifecycle::Lifecycle;
use crate::net::listener::{Accept as _, Accepted, LocalListener, Neighbour, accept};
use crate::net::slots::ConnectionSlots;
use crate::net::stream::LocalStream;

use self::connection::Connection;

/// The limit of connected smtpd processes, with a connection each. Beyond the limit an idle
/// connection gives way; smtpd opens a new connection when needed.
const CONNECTIONS: usize = 1024;

/// Serves until draining. Client addresses are trusted only on an `is_trusted` socket.
pub async fn serve(
    listener: LocalListener,
    is_trusted: bool,
    authenticator: Arc<Authenticator>,
    lifecycle: Lifecycle,
) {
    let slots = ConnectionSlots::new(listener.place(), CONNECTIONS);
    // The slots are the limit.
    let permits = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
    let tasks = lifecycle.clone();
    let serve = |accepted: Accepted<LocalStream, Neighbour>| {
        let Some(slot) = slots.take(accepted.peer) else {
            return;
        };
        let (authenticator, lifecycle) = (authenticator.clone(), tasks.clone());
        let connection = Connection::new(accepted.stream, slot, authenticator, is_trusted);
        tasks.spawn(connection.serve(lifecycle));
    };
    accept(listener, permits, None, lifecycle, serve).await;
}

/// Sends only the greeting to every client. A greeting lets smtpd start while no daemon runs, as
/// `gatepost check` needs.
pub async fn introduce(listener: LocalListener) {
    // Kept open: an smtpd whose socket closes gives up.
    let mut connections = Vec::new();
    while let Ok((mut stream, _)) = listener.next().await {
        let greeting = protocol::greeting(std::process::id(), 1, rand::random());
        // After a failure smtpd itself reports the cause.
        let _ = stream.write_all(greeting.as_bytes()).await;
        connections.push(stream);
    }
}
