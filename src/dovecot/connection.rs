//! A connection from smtpd: one line per request, one line per answer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep_until, timeout};

use crate::auth::{Authenticator, Peer};
use crate::lifecycle::Lifecycle;
use crate::log::Throttle;
use crate::net::buffer::{Buffer, LINES};
use crate::net::slots::{ConnectionSlot, Stage};
use crate::net::stream::LocalStream;
use crate::sasl::{Credentials, Exchange, Mechanism, Step, Verdict};

use super::protocol::{self, Begin, Request};

/// The limit of open exchanges per smtpd, which needs a single exchange.
const MAX_EXCHANGES: usize = 8;

/// How long an smtpd may take for its introduction and to read an answer. Afterwards a silent smtpd
/// may stay connected, as Postfix does while its client is connected.
const PATIENCE: Duration = Duration::from_secs(10);

/// Numbers the connections, as the protocol requires.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

pub struct Connection {
    stream: LocalStream,
    slot: ConnectionSlot,
    asked: Asked,
    is_introduced: bool,
}

impl Connection {
    pub fn new(
        stream: LocalStream,
        slot: ConnectionSlot,
        authenticator: Arc<Authenticator>,
        is_trusted: bool,
    ) -> Self {
        Self {
            stream,
            slot,
            asked: Asked {
                authenticator,
                is_trusted,
                open: HashMap::new(),
            },
            is_introduced: false,
        }
    }

    /// Serves until the client leaves or breaks the protocol, draining begins, or another client
    /// takes over the slot.
    pub async fn serve(mut self, lifecycle: Lifecycle) {
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let greeting = protocol::greeting(std::process::id(), connection, rand::random());
        let introduced_by = Instant::now() + PATIENCE;
        if !self.say(&greeting).await {
            return;
        }
        let mut input = Buffer::default();
        loop {
            while let Some(end) = memchr::memchr(b'\n', input.unread()) {
                let answer = match Request::parse(&input.unread()[..end]) {
                    Ok(request) => self.answer(request).await,
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
                if !self.say(&answer).await {
                    return;
                }
            }
            if input.unread().len() > protocol::MAX_LINE {
                return;
            }
            let too_late = async {
                match self.is_introduced {
                    true => std::future::pending().await,
                    false => sleep_until(introduced_by).await,
                }
            };
            tokio::select! {
                () = lifecycle.draining() => return,
                () = self.slot.closing() => return,
                () = too_late => return,
                read = input.read_from(&mut self.stream, LINES) => {
                    if !matches!(read, Ok(1..)) { return }
                }
            }
        }
    }

    async fn answer(&mut self, request: Request<'_>) -> String {
        self.is_introduced |= !matches!(request, Request::Version);
        if matches!(request, Request::Auth(_) | Request::Continue(..)) {
            // A rejection is delayed on purpose, so the connection must not block other clients.
            self.slot.enter(Stage::Answering);
        }
        let answer = self.asked.answer(request).await;
        if self.is_introduced {
            self.slot.enter(Stage::Idle);
        }
        answer
    }

    /// Writes `words`; returns whether the client took them in time.
    async fn say(&mut self, words: &str) -> bool {
        if words.is_empty() {
            return true;
        }
        let written = self.stream.write_all(words.as_bytes());
        tokio::select! {
            written = timeout(PATIENCE, written) => matches!(written, Ok(Ok(()))),
            () = self.slot.closing() => false,
        }
    }
}

/// The open exchanges of a connection.
struct Asked {
    authenticator: Arc<Authenticator>,
    /// Whether client addresses from this socket are trusted.
    is_trusted: bool,
    open: HashMap<String, (Exchange, Peer)>,
}

impl Asked {
    async fn answer(&mut self, request: Request<'_>) -> String {
        match request {
            Request::Version | Request::Process => String::new(),
            Request::Auth(begin) => {
                let Some(mechanism) = Mechanism::parse(begin.mechanism.as_bytes()) else {
                    return protocol::reject(begin.id);
                };
                let step = Exchange::start(mechanism, begin.response.map(str::as_bytes));
                self.advance(begin.id, self.peer(&begin), step).await
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
                self.authenticator.guard().protocol_noise(peer.address);
                protocol::broken_off(id, error)
            }
        }
    }

    async fn verify(&self, id: &str, credentials: Credentials, peer: &Peer) -> String {
        match self.authenticator.verify(credentials, peer).await {
            // A tab or LF in the username would inject protocol fields.
            Verdict::Accept(identity) if identity.username.contains(char::is_control) => {
                protocol::unavailable(id)
            }
            Verdict::Accept(identity) => protocol::accept(id, &identity.username),
            Verdict::Reject(_) => protocol::reject(id),
            Verdict::Throttled(_) | Verdict::Unavailable(_) => protocol::unavailable(id),
        }
    }

    /// Returns the mail client behind the smtpd. The address is unknown if absent or untrusted; the
    /// guard counts all such clients together.
    fn peer(&self, begin: &Begin) -> Peer {
        let address = begin.remote.filter(|_| self.is_trusted);
        Peer {
            address: address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            tls: begin.secured.then_some("TLS"),
            helo: "".into(),
        }
    }
}
