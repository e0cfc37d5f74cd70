//! One client's connection: reads input, asks the session for an action, executes the action.
//!
//! The loop has three steps: take all wanted input, send the resulting output (one write to each
//! side), wait for the next event. A batch of commands therefore stays a batch.

mod arrival;
mod body;
mod login;
mod message;
mod output;
mod policy_check;
mod relay;
mod wait;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::auth::guard::ConnectionSlot;
use crate::auth::quota::SessionQuota;
use crate::config::Listener;
use crate::lifecycle::SessionSignal;
use crate::metrics::{self, TrafficDelta};
use crate::net::buffer::Buffer;
use crate::net::proxy::ConnectionAddresses;
use crate::net::stream::ClientStream;
use crate::sasl::{Credentials, Identity};
use crate::smtp::line::LineReader;
use crate::smtp::relay::Expect;
use crate::smtp::reply::{self, Reply};
use crate::smtp::session::{Action, Session, Wants};

use super::Edge;
use super::dialer::Dialer;
use super::ending::{Ending, Summary};
use super::timer::{LastActivity, Timer};
use super::upstream::Upstream;

use body::Body;

pub use arrival::{reject_over_limit, serve, shed};

/// A client, and the upstream connection once the session is handed over.
struct Connection<'a> {
    edge: &'a Arc<Edge>,
    peer: SocketAddr,
    /// The local address that accepted the connection.
    destination: SocketAddr,
    listener: &'a Listener,
    /// Whether the client has sent anything.
    has_spoken: bool,
    session: Session,
    stream: ClientStream,
    /// The guard's slot for a connection that has not logged in; released at login.
    place: Option<ConnectionSlot>,
    input: Buffer,
    output: Vec<u8>,
    lines: LineReader,
    dialer: Arc<Dialer>,
    upstream: Option<Upstream>,
    /// The message body in progress.
    body: Option<Body>,
    /// Octets of the current message sent upstream.
    message_bytes: u64,
    /// The quota and policy of an authenticated session.
    allowance: Option<SessionQuota>,
    /// The metrics of an authenticated session.
    counted: Option<metrics::Session>,
    timer: Timer,
    began: Instant,
    /// When the client or the upstream last advanced the session.
    progress: LastActivity,
    /// When a message last used the upstream, or the handover finished.
    engaged: LastActivity,
    /// Octets not yet added to the metrics.
    unflushed: TrafficDelta,
    /// Whether the client has closed its sending side.
    half_closed: bool,
    /// While draining: the latest time at which the client may still send QUIT; afterwards the
    /// connection sends 421.
    leave_by: Option<Instant>,
    /// Drain and disconnect requests from the rest of the daemon.
    signal: SessionSignal,
    summary: &'a mut Summary,
}

/// The part of an action that needs I/O.
enum Task {
    CheckPolicy,
    Close,
    Connect(Arc<Identity>),
    Done,
    StartTls,
    Verify(Credentials),
}

/// The loop returns only with an ending.
type Endless = Result<std::convert::Infallible, Ending>;

impl<'a> Connection<'a> {
    fn new(
        edge: &'a Arc<Edge>,
        ends: ConnectionAddresses,
        stream: ClientStream,
        place: Option<ConnectionSlot>,
        signal: SessionSignal,
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
            // A TLS connection has already sent its handshake.
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
            progress: LastActivity::at(now),
            engaged: LastActivity::at(now),
            unflushed: TrafficDelta::default(),
            half_closed: false,
            leave_by: None,
            signal,
            summary,
        }
    }

    async fn run(&mut self) -> Endless {
        self.greet().await?;
        loop {
            self.take_input().await?;
            self.send().await?;
            // Handle replies that arrived during the write before waiting for the next event.
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
        self.upstream
            .as_ref()
            .is_some_and(Upstream::has_unread_input)
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
        if self.session.take_login_noise() {
            self.edge
                .authenticator
                .guard()
                .protocol_noise(self.peer.ip());
        }
        Some(task)
    }

    // Boxed futures keep the state of these rare steps out of every session's memory.
    async fn carry_out(&mut self, mut task: Task) -> Result<(), Ending> {
        loop {
            let action = match task {
                Task::Done => return Ok(()),
                Task::Close => return Err(self.leave().await),
                Task::CheckPolicy => {
                    let verdict = self.check_policy().await;
                    self.session.on_policy(verdict)
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
                        // The login failed at the upstream; the client gets 454 and may try again.
                        self.summary.entry = None;
                        self.allowance = None;
                    }
                    let action = self.session.on_upstream(extensions);
                    // Release the reservation of a MAIL that waited for an upstream and was not
                    // forwarded.
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

/// Executes the part of an action without I/O and returns the rest as a task.
fn begin(action: Action, upstream: &mut Option<Upstream>, output: &mut Vec<u8>) -> Task {
    match action {
        Action::CheckPolicy => Task::CheckPolicy,
        Action::Close(reply) => match upstream {
            // Pending replies to the client come first, above all the answer to a message. The
            // closed session accepts no more input and ends after the last reply.
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
