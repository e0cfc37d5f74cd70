//! One client's connection: takes what it sends, asks the session, carries the answer out.
//!
//! The loop has three steps: take all input that is wanted, send what that led to (one write to
//! each side), wait for the next event. A batch of commands therefore stays a batch.

mod relay;
mod wait;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::auth::Peer;
use crate::config::ListenerKind;
use crate::metrics::{self, Flow, HandshakeFailure, MessageOutcome};
use crate::net::buffer::Buffer;
use crate::net::listener::Accepted;
use crate::net::stream::ClientStream;
use crate::net::tls;
use crate::sasl::{Credentials, Identity, Verdict};
use crate::sessions::Client;
use crate::smtp::data::Scanner;
use crate::smtp::line::LineReader;
use crate::smtp::reply::{self, Reply};
use crate::smtp::session::{Action, Session, Wants};

use super::Edge;
use super::ending::{Ending, Summary};
use super::timer::Timer;
use super::upstream::Upstream;

/// How long either side may take to read our last words.
const FAREWELL: Duration = Duration::from_millis(500);

/// Tells a client that there is no room. It must cost next to nothing, so nothing is waited for.
pub fn turn_away(stream: &TcpStream, kind: ListenerKind) {
    // Inside TLS there are no words for it before a handshake, which is what we cannot afford.
    if kind == ListenerKind::Submission {
        let mut words = Vec::new();
        reply::TOO_MANY_CONNECTIONS.write_to(&mut words);
        // The buffer of a fresh socket takes them all, unless the client is gone.
        let _ = socket2::SockRef::from(stream).send(&words);
    }
}

/// Serves a client until one side has had enough, or everything must end.
pub async fn serve(edge: &Arc<Edge>, accepted: Accepted, kind: ListenerKind) {
    let mut summary = Summary::new(accepted.peer);
    let ending = match open(edge, accepted.stream, kind).await {
        Err(ending) => ending,
        Ok(stream) => {
            summary.tls = stream.tls_version();
            let disconnect = CancellationToken::new();
            let mut connection = Connection::new(
                edge,
                accepted.peer,
                stream,
                disconnect.clone(),
                &mut summary,
            );
            let ending = tokio::select! {
                // In this order: whoever is disconnected is not told first that all went well.
                biased;
                () = disconnect.cancelled() => Ending::Disconnected,
                () = edge.lifecycle.abandoned() => Ending::CutOff,
                Err(ending) = connection.run() => ending,
            };
            connection.end(ending).await;
            ending
        }
    };
    note_usage(edge, &mut summary);
    summary.log(ending);
}

/// Of the hour in which it is noted; a message is noted with its reply.
fn note_usage(edge: &Edge, summary: &mut Summary) {
    if let Some((key, usage)) = summary.take_usage() {
        let now = jiff::Timestamp::now().as_millisecond();
        edge.noted.sent(key, now, &usage);
    }
}

async fn open(edge: &Edge, stream: TcpStream, kind: ListenerKind) -> Result<ClientStream, Ending> {
    match kind {
        ListenerKind::Submission => Ok(ClientStream::Clear(stream)),
        ListenerKind::Submissions => tokio::select! {
            opened = shake_hands(edge, stream) => opened,
            () = edge.lifecycle.abandoned() => Err(Ending::CutOff),
        },
    }
}

async fn shake_hands(edge: &Edge, stream: TcpStream) -> Result<ClientStream, Ending> {
    match timeout(edge.timeouts.handshake, edge.tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let stream = ClientStream::Tls(Box::new(stream));
            let version = stream.tls_version().unwrap_or_default();
            edge.metrics.tls_handshake(version);
            Ok(stream)
        }
        Ok(Err(error)) => {
            let failures = &edge.metrics.tls_handshake_failures;
            failures.of(tls::failure(&error)).inc();
            tracing::debug!(%error, "TLS handshake failed");
            Err(Ending::HandshakeFailed)
        }
        Err(_) => {
            let failures = &edge.metrics.tls_handshake_failures;
            failures.of(HandshakeFailure::Timeout).inc();
            Err(Ending::HandshakeFailed)
        }
    }
}

/// A client, and its upstream while it has one.
struct Connection<'a> {
    edge: &'a Arc<Edge>,
    peer: SocketAddr,
    session: Session,
    stream: ClientStream,
    input: Buffer,
    output: Vec<u8>,
    lines: LineReader,
    upstream: Option<Upstream>,
    /// Of the message body under way.
    scanner: Option<Scanner>,
    /// How much of the message under way was sent upstream, in octets.
    message_bytes: u64,
    /// Counts what an authenticated session does.
    counted: Option<metrics::Session>,
    timer: Timer,
    began: Instant,
    /// When the client or the upstream last brought the session forward.
    progress: Instant,
    /// Whether the client has said that it sends no more.
    half_closed: bool,
    /// Ends the session from outside, once it is somebody's.
    disconnect: CancellationToken,
    summary: &'a mut Summary,
}

/// What an action leaves to be done that takes time.
enum Task {
    Close,
    Connect(Arc<Identity>),
    Done,
    StartTls,
    Verify(Credentials),
}

/// Never returns but with an ending.
type Endless = Result<std::convert::Infallible, Ending>;

impl<'a> Connection<'a> {
    fn new(
        edge: &'a Arc<Edge>,
        peer: SocketAddr,
        stream: ClientStream,
        disconnect: CancellationToken,
        summary: &'a mut Summary,
    ) -> Self {
        let now = Instant::now();
        let tls = matches!(stream, ClientStream::Tls(_));
        Self {
            edge,
            peer,
            session: Session::new(edge.settings.clone(), edge.dialer.offered(), tls),
            stream,
            input: Buffer::default(),
            output: Vec::new(),
            lines: LineReader::default(),
            upstream: None,
            scanner: None,
            message_bytes: 0,
            counted: None,
            timer: Timer::new(now + edge.timeouts.login),
            began: now,
            progress: now,
            half_closed: false,
            disconnect,
            summary,
        }
    }

    async fn run(&mut self) -> Endless {
        self.greet().await?;
        loop {
            self.take_input().await?;
            self.send().await?;
            // Replies may have come in while sending; what they lead to comes before waiting.
            if !self.take_replies().await? {
                self.wait().await?;
            }
        }
    }

    async fn greet(&mut self) -> Result<(), Ending> {
        if self.spoke_first().await {
            return self.carry_out_close(reply::SPOKE_FIRST).await;
        }
        Reply::greeting(&self.edge.settings.hostname).write_to(&mut self.output);
        self.send().await
    }

    /// RFC 5321, 4.3.1: a client waits for the greeting. One that does not is a program that
    /// speaks at us rather than with us.
    async fn spoke_first(&mut self) -> bool {
        match &mut self.stream {
            ClientStream::Gone => false,
            ClientStream::Clear(stream) => {
                let mut byte = [std::mem::MaybeUninit::uninit()];
                socket2::SockRef::from(&*stream)
                    .peek(&mut byte)
                    .is_ok_and(|count| count > 0)
            }
            ClientStream::Tls(stream) => {
                // Polled once: what came with the end of the handshake is there already.
                let input = &mut self.input;
                let polled = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(input.poll_read_from(stream, context))
                });
                matches!(polled.await, std::task::Poll::Ready(Ok(count)) if count > 0)
            }
        }
    }

    async fn take_input(&mut self) -> Result<(), Ending> {
        loop {
            let task = match self.session.wants() {
                Wants::Line if !self.is_backlogged() => self.take_line(),
                Wants::Body => self.take_body(),
                Wants::Line | Wants::Nothing => None,
            };
            match task {
                None => return Ok(()),
                Some(task) => self.carry_out(task).await?,
            }
        }
    }

    fn is_backlogged(&self) -> bool {
        self.upstream
            .as_ref()
            .is_some_and(|upstream| upstream.relay.is_full())
    }

    fn take_line(&mut self) -> Option<Task> {
        let Some((line, taken)) = self.lines.next(self.input.unread()) else {
            self.input.cut(self.lines.excess(self.input.unread()));
            return None;
        };
        self.progress = Instant::now();
        let task = match line {
            Some(line) => begin(
                self.session.on_line(line),
                &mut self.upstream,
                &mut self.output,
            ),
            None => Task::Done,
        };
        self.input.consume(taken);
        Some(task)
    }

    async fn carry_out(&mut self, mut task: Task) -> Result<(), Ending> {
        loop {
            let action = match task {
                Task::Done => return Ok(()),
                Task::Close => return self.send().await.and(Err(Ending::Closed)),
                Task::StartTls => return self.start_tls().await,
                Task::Verify(credentials) => {
                    self.send().await?;
                    let verdict = self.verify(credentials).await;
                    self.session.on_verdict(verdict)
                }
                Task::Connect(identity) => {
                    self.send().await?;
                    let extensions = self.hand_over(identity).await;
                    if extensions.is_none() && !self.session.is_authenticated() {
                        // Not logged in after all: the client is told so and may try again.
                        self.summary.entry = None;
                    }
                    self.session.on_upstream(extensions)
                }
            };
            self.progress = Instant::now();
            task = begin(action, &mut self.upstream, &mut self.output);
        }
    }

    async fn carry_out_close(&mut self, reply: Reply) -> Result<(), Ending> {
        let action = self.session.close(reply);
        let task = begin(action, &mut self.upstream, &mut self.output);
        self.carry_out(task).await
    }

    async fn start_tls(&mut self) -> Result<(), Ending> {
        self.send().await?;
        // RFC 3207, 4.2: whatever came before the handshake may be an attacker's.
        let injected = self.input.discard() as u64;
        self.edge.metrics.bytes_before_tls.inc_by(injected);
        self.lines = LineReader::default();
        let clear = std::mem::replace(&mut self.stream, ClientStream::Gone);
        let ClientStream::Clear(stream) = clear else {
            return Err(Ending::HandshakeFailed);
        };
        self.stream = shake_hands(self.edge, stream).await?;
        self.summary.tls = self.stream.tls_version();
        self.session.on_tls();
        Ok(())
    }

    async fn verify(&mut self, credentials: Credentials) -> Verdict {
        let helo = self.session.helo().unwrap_or_default();
        self.summary.helo = Some(helo.to_owned());
        let address = self.peer.ip().to_canonical();
        let peer = Peer {
            address,
            tls: self.summary.tls,
            helo: helo.into(),
        };
        let client = Client {
            address: self.peer,
            tls: peer.tls,
            helo: helo.to_owned(),
            mechanism: credentials.mechanism.as_str(),
            disconnect: self.disconnect.clone(),
        };
        let entry = self.edge.sessions.enter(&credentials.username, client);
        let entry = self.summary.entry.insert(entry);
        let verdict = self.edge.authenticator.verify(credentials, &peer).await;
        match &verdict {
            Verdict::Accept(identity) => entry.authenticated(identity),
            Verdict::Reject(_) | Verdict::Unavailable(_) => self.summary.entry = None,
        }
        verdict
    }

    /// One write to each side; the upstream first, since it has to think.
    async fn send(&mut self) -> Result<(), Ending> {
        if let Some(upstream) = self
            .upstream
            .as_mut()
            .filter(|upstream| !upstream.output.is_empty())
        {
            let limit = self.edge.dialer.upstream().command_timeout;
            let count = upstream.output.len() as u64;
            self.edge.metrics.bytes.of(Flow::ToUpstream).inc_by(count);
            let sent = timeout(limit, upstream.send()).await;
            if !matches!(sent, Ok(Ok(()))) {
                // What it said before it went is still the client's to hear.
                Box::pin(self.take_replies()).await?;
                self.upstream_lost("it took no more bytes").await?;
            }
        }
        if self.output.is_empty() {
            return Ok(());
        }
        let sending = async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        };
        match timeout(self.edge.timeouts.body, sending).await {
            Ok(Ok(())) => {
                let count = self.output.len() as u64;
                self.edge.metrics.bytes.of(Flow::ToClient).inc_by(count);
                self.output.clear();
                self.output.shrink_to(1024);
                Ok(())
            }
            _ => Err(Ending::ClientGone),
        }
    }

    /// Leaves both sides as politely as the ending allows.
    async fn end(&mut self, ending: Ending) {
        self.summary.helo = self
            .session
            .helo()
            .map(str::to_owned)
            .or(self.summary.helo.take());
        let mut unfinished = false;
        if let Some(upstream) = &mut self.upstream {
            let relay = &upstream.relay;
            unfinished = relay.in_body() || relay.awaits_message();
            if unfinished {
                // Without its end of data, nothing of the message is delivered (RFC 5321, 4.1.1.4).
                self.upstream = None;
            } else if relay.is_idle() {
                let _ = timeout(FAREWELL, upstream.quit()).await;
            }
        }
        if unfinished {
            self.count_message(MessageOutcome::Lost);
        }
        // To a client that waits for the word on its message, ours would be that word; behind a
        // reply that is half sent, it would be part of it.
        let words = match ending {
            Ending::CutOff => Some(reply::SHUTTING_DOWN),
            Ending::Disconnected => Some(reply::DISCONNECTED),
            _ => None,
        };
        let polite = ending == Ending::Closed || words.is_some();
        if let Some(words) = words.filter(|_| !unfinished && self.output.is_empty()) {
            words.write_to(&mut self.output);
            let _ = timeout(FAREWELL, self.stream.write_all(&self.output)).await;
        }
        if polite {
            // close_notify, so that the client can tell our end from somebody else's (RFC 8446, 6.1).
            let _ = timeout(FAREWELL, self.stream.shutdown()).await;
        }
    }
}

/// Carries out what takes no time; the rest is left as a task.
fn begin(action: Action, upstream: &mut Option<Upstream>, output: &mut Vec<u8>) -> Task {
    match action {
        Action::Close(reply) => match upstream {
            // What the client is owed comes first, the word on a message above all. The session
            // wants nothing any more, and ends once all of it has been said.
            Some(upstream) if !upstream.relay.is_idle() => {
                upstream.relay.reply(reply, output);
                Task::Done
            }
            _ => {
                reply.write_to(output);
                Task::Close
            }
        },
        Action::Connect(identity) => Task::Connect(identity),
        Action::Forward(line, expect) => match upstream {
            Some(upstream) => {
                upstream.forward(&line, expect);
                Task::Done
            }
            None => {
                reply::UPSTREAM_LOST.write_to(output);
                Task::Close
            }
        },
        Action::Reply(reply) => {
            match upstream {
                Some(upstream) => upstream.relay.reply(reply, output),
                None => reply.write_to(output),
            }
            Task::Done
        }
        Action::StartTls(reply) => {
            reply.write_to(output);
            Task::StartTls
        }
        Action::Verify(credentials) => Task::Verify(credentials),
    }
}
