//! The connection's wait for the client, the upstream, a timer or a signal.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::lifecycle::{SessionSignal, Signal};
use crate::metrics::Flow;
use crate::net::opening::Opening;
use crate::net::{buffer, buffer_pool};
use crate::smtp::reply;
use crate::smtp::session::Wants;

use super::super::ending::Ending;
use super::super::timer::LastActivity;
use super::super::upstream::Upstream;
use super::Connection;

/// How long after the last command a draining daemon waits for the QUIT of a client whose message
/// was accepted. Some programs take a 421 in place of the QUIT reply for a failed message. Clients
/// without an accepted message lose nothing, so a restart does not wait for them.
const QUIT_COMES_WITHIN: Duration = Duration::from_secs(5);

/// How long a client may stay silent in a transaction during a drain. Meanwhile other clients wait
/// at the ports for the next process.
pub(super) const SILENCE_WHILE_DRAINING: Duration = Duration::from_secs(5);

/// How long the upstream may take for replies due before the answer to QUIT, so that the client
/// gets the QUIT reply within five seconds. The answer to a message may take longer.
const BEFORE_QUIT: Duration = Duration::from_secs(4);

/// The next deadline's meaning: which side must act, or why the connection acts on its own.
#[derive(Clone, Copy)]
pub(super) enum Due {
    /// The client must send something.
    Client,
    /// The body must meet the minimum rate.
    Floor,
    /// The session releases its idle upstream connection for other clients.
    Release,
    /// The daemon stops, so the client must leave.
    Leave,
    /// The client was silent too long during a drain.
    Stalled,
    /// The upstream must send a reply.
    Upstream,
}

impl Connection<'_> {
    /// Waits for the next event and handles it.
    pub(super) async fn wait(&mut self) -> Result<(), Ending> {
        enum Event {
            Client(io::Result<usize>),
            /// Draining began inside a transaction, so shorter deadlines apply.
            DrainBegun,
            Draining,
            Timeout(Due),
            Upstream(io::Result<()>),
        }
        if self.half_closed && !self.is_owed() {
            return Err(Ending::ClientGone);
        }
        let wanted = self.session.wants() != Wants::Nothing && !self.is_backlogged();
        let listening = wanted && !self.half_closed;
        let most = match self.session.wants() {
            Wants::Body => buffer::BODY,
            Wants::Line | Wants::Nothing => buffer::LINES,
        };
        let resting = self.is_resting();
        if resting && self.leave_by.is_some_and(|by| by <= Instant::now()) {
            return Box::pin(self.shut_down()).await;
        }
        let (deadline, due) = self.deadline(resting);
        let hears_drain = resting && self.leave_by.is_none();
        let was_draining = self.is_draining();
        if resting || self.unflushed.is_much() {
            self.unflushed.flush(&self.edge.metrics);
        }
        self.each_output(buffer_pool::put);
        let event = tokio::select! {
            biased;
            () = told(&self.signal, Signal::Drain), if hears_drain => Event::Draining,
            () = told(&self.signal, Signal::Drain), if !was_draining => Event::DrainBegun,
            read = readable(&mut self.upstream), if self.upstream.is_some() => Event::Upstream(read),
            read = self.input.read_from(&mut self.stream, most), if listening => Event::Client(read),
            () = self.timer.until(deadline) => Event::Timeout(due),
        };
        self.each_output(buffer_pool::take);
        match event {
            // A client that closed its sending side may still read pending replies.
            Event::Client(Ok(0)) if self.is_owed() => {
                self.half_closed = true;
                Ok(())
            }
            Event::Client(Ok(0) | Err(_)) => Err(Ending::ClientGone),
            Event::Client(Ok(count)) => {
                self.unflushed.add(Flow::FromClient, count);
                if !self.has_spoken {
                    self.look_at(&Opening::of(self.input.unread()))?;
                }
                if self.session.wants() == Wants::Body {
                    self.progress.renew();
                    if let Some(floor) = self.body.as_mut().and_then(|body| body.floor.as_mut()) {
                        floor.add(count);
                    }
                }
                Ok(())
            }
            Event::DrainBegun => Ok(()),
            Event::Draining => {
                self.session.on_drain();
                let (progress, _) = LastActivity::both(&mut self.progress, &mut self.engaged);
                let longer = match self.session.has_sent() {
                    true => QUIT_COMES_WITHIN,
                    false => Duration::ZERO,
                };
                self.leave_by = Some(progress + longer);
                Ok(())
            }
            Event::Timeout(Due::Floor) if self.is_fast_enough() => Ok(()),
            Event::Timeout(Due::Floor) => {
                let username = self.summary.username();
                tracing::info!(target: "gatepost::session", username, "message given up, it comes too slowly");
                Box::pin(self.carry_out_close(reply::TOO_SLOW)).await
            }
            // Handled at the top of the next wait.
            Event::Timeout(Due::Leave) => Ok(()),
            Event::Timeout(Due::Stalled) => {
                Box::pin(self.carry_out_close(reply::SHUTTING_DOWN)).await
            }
            Event::Timeout(Due::Client) => Box::pin(self.carry_out_close(reply::IDLE)).await,
            Event::Timeout(Due::Release) => {
                Box::pin(self.release_upstream()).await;
                Ok(())
            }
            Event::Timeout(Due::Upstream) => self.upstream_lost("it did not answer in time").await,
            Event::Upstream(Ok(())) => self.take_replies().await.map(drop),
            Event::Upstream(Err(_)) => self.upstream_lost("it closed the connection").await,
        }
    }

    /// Ends the session because the daemon stops. A QUIT already received is answered first.
    async fn shut_down(&mut self) -> Result<(), Ending> {
        // The signal may have overtaken the event loop; the yield lets it collect received octets.
        tokio::task::yield_now().await;
        let (input, stream) = (&mut self.input, &mut self.stream);
        // Polled once: octets already received are enough.
        poll_fn(|context| {
            let _ = input.poll_read_from(stream, context, buffer::LINES);
            Poll::Ready(())
        })
        .await;
        self.take_input().await?;
        match self.session.is_closed() {
            true => Ok(()),
            false => self.carry_out_close(reply::SHUTTING_DOWN).await,
        }
    }

    fn each_output(&mut self, act: fn(&mut Vec<u8>)) {
        act(&mut self.output);
        if let Some(upstream) = &mut self.upstream {
            act(&mut upstream.output);
        }
    }

    /// Whether the client still waits for upstream replies.
    pub(super) fn is_owed(&self) -> bool {
        let owing = |upstream: &Upstream| upstream.relay.owes_a_client();
        self.upstream.as_ref().is_some_and(owing)
    }

    /// Whether the client's next command is QUIT, queued behind earlier replies.
    pub(super) fn quits_next(&self) -> bool {
        let next = self.input.unread().get(..b"QUIT\r\n".len());
        next.is_some_and(|next| next.eq_ignore_ascii_case(b"QUIT\r\n"))
    }

    /// Whether no command or transaction is open, so that the session may end without loss.
    fn is_resting(&self) -> bool {
        let open = |upstream: &Upstream| upstream.relay.in_transaction();
        let busy = self.is_owed() || self.upstream.as_ref().is_some_and(open);
        self.session.wants() == Wants::Line && !busy
    }

    fn is_draining(&self) -> bool {
        self.signal.current() >= Some(Signal::Drain)
    }

    /// Returns the next deadline and its meaning.
    fn deadline(&mut self, resting: bool) -> (Instant, Due) {
        let (progress, engaged) = LastActivity::both(&mut self.progress, &mut self.engaged);
        let timeouts = &self.edge.timeouts;
        if let Some(upstream) = self
            .upstream
            .as_ref()
            .filter(|upstream| !upstream.relay.is_idle())
        {
            let configured = self.dialer.upstream();
            let limit = if upstream.relay.awaits_message() {
                configured.end_of_data_timeout
            } else if self.session.is_closed() || self.quits_next() {
                configured.command_timeout.min(BEFORE_QUIT)
            } else {
                configured.command_timeout
            };
            return (progress + limit, Due::Upstream);
        }
        if let Some(by) = self.leave_by.filter(|_| resting) {
            return (by, Due::Leave);
        }
        if self.is_draining() && self.session.wants() != Wants::Nothing {
            return (progress + SILENCE_WHILE_DRAINING, Due::Stalled);
        }
        let deadline = match self.session.wants() {
            Wants::Body => return self.body_deadline(progress),
            _ if self.session.is_authenticated() => progress + timeouts.idle,
            _ => self.began + timeouts.login,
        };
        if resting && self.upstream.is_some() {
            let release = engaged + self.dialer.upstream().idle_release;
            if release < deadline {
                return (release, Due::Release);
            }
        }
        (deadline, Due::Client)
    }
}

/// Resolves at the signal. Registers no waker: `cut_off` in `arrival` waits for signals in the same
/// task and wakes the task for each new signal.
async fn told(signal: &SessionSignal, order: Signal) {
    poll_fn(|_| match signal.current() >= Some(order) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

async fn readable(upstream: &mut Option<Upstream>) -> io::Result<()> {
    match upstream {
        Some(upstream) => upstream.readable().await,
        None => std::future::pending().await,
    }
}
