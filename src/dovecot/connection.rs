//! One smtpd's connection: it asks, we answer, one line each.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use crate::auth::{Authenticator, Peer};
use crate::lifecycle::Lifecycle;
use crate::log::Throttle;
use crate::net::buffer::{Buffer, LINES};
use crate::net::stream::LocalStream;
use crate::sasl::{Credentials, Exchange, Mechanism, Step, Verdict};

use super::protocol::{self, Begin, Request};

/// Exchanges one smtpd may have open; it needs one.
const MAX_EXCHANGES: usize = 8;

/// How long an smtpd may take to read an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Numbers connections, as the protocol asks.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// Answers until the client goes away, breaks the protocol, or draining begins.
pub async fn serve(
    mut stream: LocalStream,
    authenticator: Arc<Authenticator>,
    lifecycle: Lifecycle,
) {
    let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let greeting = protocol::greeting(std::process::id(), connection, rand::random());
    if !say(&mut stream, &greeting).await {
        return;
    }
    let mut asked = Asked {
        authenticator,
        open: HashMap::new(),
    };
    let mut input = Buffer::default();
    loop {
        while let Some(end) = memchr::memchr(b'\n', input.unread()) {
            let answer = match Request::parse(&input.unread()[..end]) {
                Ok(request) => asked.answer(request).await,
                Err(error) => {
                    static BROKEN: Throttle = Throttle::new();
                    if let Some(count) = BROKEN.due() {
                        tracing::warn!(
                            %error,
                            count,
                            "the auth socket's client broke the protocol, closing"
                        );
                    }
                    return;
                }
            };
            input.consume(end + 1);
            if !say(&mut stream, &answer).await {
                return;
            }
        }
        if input.unread().len() > protocol::MAX_LINE {
            return;
        }
        tokio::select! {
            () = lifecycle.draining() => return,
            read = input.read_from(&mut stream, LINES) => if !matches!(read, Ok(1..)) { return },
        }
    }
}

/// Whether the client took it, and in time.
async fn say(stream: &mut LocalStream, words: &str) -> bool {
    let written = tokio::time::timeout(PATIENCE, stream.write_all(words.as_bytes())).await;
    matches!(written, Ok(Ok(())))
}

/// The exchanges under way on one connection.
struct Asked {
    authenticator: Arc<Authenticator>,
    open: HashMap<String, (Exchange, Peer)>,
}

impl Asked {
    async fn answer(&mut self, request: Request<'_>) -> String {
        match request {
            Request::Hello => String::new(),
            Request::Auth(begin) => {
                let Some(mechanism) = Mechanism::parse(begin.mechanism.as_bytes()) else {
                    return protocol::reject(begin.id);
                };
                let step = Exchange::start(mechanism, begin.response.map(str::as_bytes));
                self.advance(begin.id, peer(&begin), step).await
            }
            Request::Continue(id, response) => match self.open.remove(id) {
                Some((exchange, peer)) => {
                    let step = exchange.respond(response.as_bytes());
                    self.advance(id, peer, step).await
                }
                None => protocol::reject(id),
            },
        }
    }

    async fn advance(
        &mut self,
        id: &str,
        peer: Peer,
        step: Result<Step, crate::sasl::ExchangeError>,
    ) -> String {
        match step {
            Ok(Step::Challenge(challenge, exchange)) if self.open.len() < MAX_EXCHANGES => {
                self.open.insert(id.to_owned(), (exchange, peer));
                protocol::challenge(id, challenge)
            }
            Ok(Step::Challenge(..)) => protocol::unavailable(id),
            Ok(Step::Done(credentials)) => self.verify(id, credentials, &peer).await,
            Err(error) => {
                self.authenticator.guard().disturbed(peer.address);
                protocol::broken_off(id, error)
            }
        }
    }

    async fn verify(&self, id: &str, credentials: Credentials, peer: &Peer) -> String {
        match self.authenticator.verify(credentials, peer).await {
            // A tab or LF in it would say more than we do.
            Verdict::Accept(identity) if identity.username.contains(char::is_control) => {
                protocol::unavailable(id)
            }
            Verdict::Accept(identity) => protocol::accept(id, &identity.username),
            Verdict::Reject(_) => protocol::reject(id),
            Verdict::Barred(_) | Verdict::Unavailable(_) => protocol::unavailable(id),
        }
    }
}

/// The mail client behind the smtpd that asks.
fn peer(begin: &Begin) -> Peer {
    Peer {
        address: begin.remote.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        tls: begin.secured.then_some("TLS"),
        helo: "".into(),
    }
}
