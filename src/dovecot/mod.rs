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
use crate::net::listener::{Accept as _, Accepted, LocalListener, Neighbour, accept};
use crate::net::slots::ConnectionSlots;
use crate::net::stream::LocalStream;

use self::connection::Connection;

/// How many smtpd processes may be connected at a time; each holds one connection. Beyond, a
/// connection that asks nothing gives way; smtpd opens a new one when it needs it.
const CONNECTIONS: usize = 1024;

/// Answers until draining. Only an `is_trusted` socket is believed which address a client has.
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
