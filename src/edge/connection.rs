//! One client's connection: takes what it sends, asks the session, carries the answer out.
//!
//! The loop has three steps: take all input that is wanted, send what that led to (one write to
//! each side), wait for the next event. A batch of commands therefore stays a batch.

mod arrival;
mod body;
mod containment;
mod login;
mod message;
mod output;
mod relay;
mod wait;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::auth::guard::ConnectionSlot;
use crate::auth::quota::SessionQuota;
use crate::config::Listener;
use crate::lifecycle::Orders;
use crate::metrics::{self, Moved};
use crate::net::buffer::Buffer;
use crate::net::proxy::Proxied;
use crate::net::stream::ClientStream;
use crate::sasl::{Credentials, Identity};
use crate::smtp::line::LineReader;
use crate::smtp::relay::Expect;
use crate::smtp::reply::{self, Reply};
use crate::smtp::session::{Action, Session, Wants};

use super::Edge;
use super::dialer::Dialer;
use super::ending::{Ending, Summary};
use super::timer::{Latest, Timer};
use super::upstream::Upstream;

use body::Body;

pub use arrival::{serve, shed, turn_away};

/// A client, and its upstream while it has one.
struct Connection<'a> {
    edge: &'a Arc<Edge>,
    /// The client's address.
    peer: SocketAddr,
    /// The address it connected to.
    destination: SocketAddr,
    /// Where it was accepted.
    listener: &'a Listener,
    /// Whether the client has sent anything.
    has_spoken: bool,
    session: Session,
    stream: ClientStream,
    /// Among the connections that have not logged in, while it is one of them.
    place: Option<ConnectionSlot>,
    input: Buffer,
    output: Vec<u8>,
    lines: LineReader,
    /// Opens its upstream sessions.
    dialer: Arc<Dialer>,
    upstream: Option<Upstream>,
    /// The message body under way.
    body: Option<Body>,
    /// How much of the message under way was sent upstream, in octets.
    message_bytes: u64,
    /// What an authenticated session may do.
    allowance: Option<SessionQuota>,
    /// Counts what an authenticated session does.
    counted: Option<metrics::Session>,
    timer: Timer,
    began: Instant,
    /// When the client or the upstream last brought the session forward.
    progress: Latest,
    /// When the upstream was last needed for a message, or handed over.
    engaged: Latest,
    /// What it moved and has not told the metrics.
    moved: Moved,
    /// Whether the client has said that it sends no more.
    half_closed: bool,
    /// Where the daemon stops: until when the client may say QUIT before it is told so.
    leave_by: Option<Instant>,
    /// What it is told from outside.
    orders: Orders,
    summary: &'a mut Summary,
}

/// What an action leaves to be done that takes time.
enum Task {
    Admit,
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
        ends: Proxied,
        stream: ClientStream,
        place: Option<ConnectionSlot>,
        orders: Orders,
        listener: &'a Listener,
        summary: &'a mut Summary,
    ) -> Self {
        let now = Instant::now();
        let tls = matches!(stream, ClientStream::Tls(_));
        Self {
            edge,
            peer: ends.source,
            destination: ends.destination,
            listener,
            // The handshake was its own.
            has_spoken: tls,
            session: Session::new(
                edge.settings.clone(),
                edge.upstreams.shared().offered(),
                tls,
            ),
            stream,
            place,
            input: Buffer::default(),
            output: Vec::new(),
            lines: LineReader::default(),
            dialer: edge.upstreams.shared().clone(),
            upstream: None,
            body: None,
            message_bytes: 0,
            allowance: None,
            counted: None,
            timer: Timer::new(now + edge.timeouts.login),
            began: now,
            progress: Latest::at(now),
            engaged: Latest::at(now),
            moved: Moved::default(),
            half_closed: false,
            leave_by: None,
            orders,
            summary,
        }
    }

    async fn run(&mut self) -> Endless {
        self.greet().await?;
        loop {
            self.take_input().await?;
            self.send().await?;
            // Replies may have come in while sending; what they lead to comes before waiting.
            if !self.has_replies() || !self.take_replies().await? {
                self.wait().await?;
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
                Some(Task::Done) => {}
                Some(task) => self.carry_out(task).await?,
            }
        }
    }

    fn has_replies(&self) -> bool {
        self.upstream.as_ref().is_some_and(Upstream::has_said_more)
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
        self.progress.renew();
        let task = match line {
            Some(line) => {
                let action = self.session.on_line(line);
                let begins_anew =
                    matches!(action, Action::Forward(_, Expect::Ehlo(_) | Expect::Rset));
                if let Some(allowance) = self.allowance.as_mut().filter(|_| begins_anew) {
                    allowance.next_message();
                }
                begin(action, &mut self.upstream, &mut self.output)
            }
            None => Task::Done,
        };
        self.input.consume(taken);
        if self.session.take_nonsense() {
            self.edge
                .authenticator
                .guard()
                .protocol_noise(self.peer.ip());
        }
        Some(task)
    }

    // What a session does once is boxed: it would take its room in every session for as long as that lasts.
    async fn carry_out(&mut self, mut task: Task) -> Result<(), Ending> {
        loop {
            let action = match task {
                Task::Done => return Ok(()),
                Task::Close => return Err(self.leave().await),
                Task::Admit => {
                    let verdict = self.admit().await;
                    self.session.on_admission(verdict)
                }
                Task::StartTls => return Box::pin(self.start_tls()).await,
                Task::Verify(credentials) => {
                    self.send().await?;
                    let verdict = Box::pin(self.verify(credentials)).await;
                    self.session.on_verdict(verdict)
                }
                Task::Connect(identity) => {
                    self.send().await?;
                    let extensions = Box::pin(self.hand_over(identity)).await;
                    if extensions.is_none() && !self.session.is_authenticated() {
                        // Not logged in after all: the client is told so and may try again.
                        self.summary.entry = None;
                        self.allowance = None;
                    }
                    let action = self.session.on_upstream(extensions);
                    // A MAIL that waited for the upstream, and does not fit it or has none.
                    let waited_in_vain = !matches!(action, Action::Forward(..));
                    if let Some(allowance) = self.allowance.as_mut().filter(|_| waited_in_vain) {
                        allowance.withdraw_mail();
                    }
                    action
                }
            };
            self.progress.renew();
            task = begin(action, &mut self.upstream, &mut self.output);
        }
    }

    async fn carry_out_close(&mut self, reply: Reply) -> Result<(), Ending> {
        let action = self.session.close(reply);
        let task = begin(action, &mut self.upstream, &mut self.output);
        self.carry_out(task).await
    }
}

/// Carries out what takes no time; the rest is left as a task.
fn begin(action: Action, upstream: &mut Option<Upstream>, output: &mut Vec<u8>) -> Task {
    match action {
        Action::Admit => Task::Admit,
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
