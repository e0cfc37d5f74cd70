//! What a connection waits for: the client, the upstream, the clock, or the end of the daemon.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::lifecycle::{Order, Orders};
use crate::metrics::Flow;
use crate::net::opening::Opening;
use crate::net::{buffer, lent};
use crate::smtp::reply;
use crate::smtp::session::Wants;

use super::super::ending::Ending;
use super::super::timer::Latest;
use super::super::upstream::Upstream;
use super::Connection;

/// How long after its last command a client whose message was accepted may take to say QUIT where
/// the daemon stops: 421 in place of the answer makes programs believe that the message failed. All
/// others lose nothing by it, and a restart should not wait for them.
const QUIT_COMES_WITHIN: Duration = Duration::from_secs(5);

/// How long a client in a transaction may be silent while the daemon stops. Other clients wait at the
/// ports for the next process meanwhile.
pub(super) const SILENCE_WHILE_DRAINING: Duration = Duration::from_secs(5);

/// How long the upstream may take for what stands before the answer to QUIT, which is to come
/// within five seconds. The word on a message may take longer.
const BEFORE_QUIT: Duration = Duration::from_secs(4);

/// Whose turn it is, and so what a timeout means.
#[derive(Clone, Copy)]
pub(super) enum Due {
    /// The client has to say something.
    Client,
    /// The client has to have sent enough of a message.
    Floor,
    /// Nobody has to; the upstream is of more use to others.
    Release,
    /// The client has to leave, as the daemon stops.
    Leave,
    /// The client has been silent too long for a daemon that stops.
    Stalled,
    /// The upstream has to answer.
    Upstream,
}

impl Connection<'_> {
    /// Waits for the next event and takes it in.
    pub(super) async fn wait(&mut self) -> Result<(), Ending> {
        enum Event {
            Client(io::Result<usize>),
            /// A transaction is under way when draining begins: deadlines are shorter from now on.
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
        if resting || self.moved.is_much() {
            self.moved.tell(&self.edge.metrics);
        }
        self.each_output(lent::give_back);
        let event = tokio::select! {
            biased;
            () = told(&self.orders, Order::Drain), if hears_drain => Event::Draining,
            () = told(&self.orders, Order::Drain), if !was_draining => Event::DrainBegun,
            read = readable(&mut self.upstream), if self.upstream.is_some() => Event::Upstream(read),
            read = self.input.read_from(&mut self.stream, most), if listening => Event::Client(read),
            () = self.timer.until(deadline) => Event::Timeout(due),
        };
        self.each_output(lent::lend);
        match event {
            // Who sends no more may still read what it is owed.
            Event::Client(Ok(0)) if self.is_owed() => {
                self.half_closed = true;
                Ok(())
            }
            Event::Client(Ok(0) | Err(_)) => Err(Ending::ClientGone),
            Event::Client(Ok(count)) => {
                self.moved.add(Flow::FromClient, count);
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
                let (progress, _) = Latest::both(&mut self.progress, &mut self.engaged);
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
            // Seen above.
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

    /// Ends the session because the daemon stops. A QUIT that has come is heard first.
    async fn shut_down(&mut self) -> Result<(), Ending> {
        // The order to stop may have overtaken the event loop, which has not seen all that came.
        tokio::task::yield_now().await;
        let (input, stream) = (&mut self.input, &mut self.stream);
        // Polled once: what is there is enough.
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

    /// Whether replies of the upstream's are due to the client.
    pub(super) fn is_owed(&self) -> bool {
        let owing = |upstream: &Upstream| upstream.relay.owes_a_client();
        self.upstream.as_ref().is_some_and(owing)
    }

    /// Whether the client's next command is QUIT, which waits for the replies before its own.
    pub(super) fn quits_next(&self) -> bool {
        let next = self.input.unread().get(..b"QUIT\r\n".len());
        next.is_some_and(|next| next.eq_ignore_ascii_case(b"QUIT\r\n"))
    }

    /// Whether nothing is under way, so that the session may end without loss.
    fn is_resting(&self) -> bool {
        let open = |upstream: &Upstream| upstream.relay.in_transaction();
        let busy = self.is_owed() || self.upstream.as_ref().is_some_and(open);
        self.session.wants() == Wants::Line && !busy
    }

    fn is_draining(&self) -> bool {
        self.orders.given() >= Some(Order::Drain)
    }

    /// Until when something must happen, and what happens otherwise.
    fn deadline(&mut self, resting: bool) -> (Instant, Due) {
        let (progress, engaged) = Latest::both(&mut self.progress, &mut self.engaged);
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

/// Whoever serves the connection waits for orders, in this task: so it is enough to look at them whenever it is awake.
async fn told(orders: &Orders, order: Order) {
    poll_fn(|_| match orders.given() >= Some(order) {
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
