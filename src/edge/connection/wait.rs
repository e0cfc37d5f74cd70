//! What a connection waits for: the client, the upstream, the clock, or the end of the daemon.

use std::io;

use tokio::time::Instant;

use crate::metrics::Flow;
use crate::smtp::reply;
use crate::smtp::session::Wants;

use super::super::ending::Ending;
use super::super::upstream::Upstream;
use super::Connection;

impl Connection<'_> {
    /// Waits for the next event and takes it in.
    pub(super) async fn wait(&mut self) -> Result<(), Ending> {
        enum Event {
            Client(io::Result<usize>),
            Draining,
            Timeout,
            Upstream(io::Result<()>),
        }
        let wanted = self.session.wants() != Wants::Nothing && !self.is_backlogged();
        let listening = wanted && !self.half_closed;
        let (deadline, waits_for_upstream) = self.deadline();
        let resting = self.is_resting();
        let event = tokio::select! {
            biased;
            () = self.edge.lifecycle.draining(), if resting => Event::Draining,
            read = readable(&mut self.upstream), if self.upstream.is_some() => Event::Upstream(read),
            read = self.input.read_from(&mut self.stream), if listening => Event::Client(read),
            () = self.timer.until(deadline) => Event::Timeout,
        };
        match event {
            // Who sends no more may still read what it is owed.
            Event::Client(Ok(0)) if self.is_owed() => {
                self.half_closed = true;
                Ok(())
            }
            Event::Client(Ok(0) | Err(_)) => Err(Ending::ClientGone),
            Event::Client(Ok(count)) => {
                let bytes = self.edge.metrics.bytes.of(Flow::FromClient);
                bytes.inc_by(count as u64);
                if self.session.wants() == Wants::Body {
                    self.progress = Instant::now();
                }
                Ok(())
            }
            Event::Draining => self.carry_out_close(reply::SHUTTING_DOWN).await,
            Event::Timeout if waits_for_upstream => {
                self.upstream_lost("it did not answer in time").await
            }
            Event::Timeout => self.carry_out_close(reply::IDLE).await,
            Event::Upstream(Ok(())) => self.take_replies().await.map(drop),
            Event::Upstream(Err(_)) => self.upstream_lost("it closed the connection").await,
        }
    }

    /// Whether replies of the upstream's are due to the client.
    pub(super) fn is_owed(&self) -> bool {
        let owing = |upstream: &Upstream| !upstream.relay.is_idle();
        self.upstream.as_ref().is_some_and(owing)
    }

    /// Whether nothing is under way, so that the session may end without loss.
    fn is_resting(&self) -> bool {
        let open = |upstream: &Upstream| upstream.relay.in_transaction();
        let busy = self.is_owed() || self.upstream.as_ref().is_some_and(open);
        self.session.wants() == Wants::Line && !busy
    }

    /// Until when something must happen, and whether it is the upstream's turn.
    fn deadline(&self) -> (Instant, bool) {
        let timeouts = &self.edge.timeouts;
        if let Some(upstream) = self
            .upstream
            .as_ref()
            .filter(|upstream| !upstream.relay.is_idle())
        {
            let configured = self.edge.dialer.upstream();
            let limit = if upstream.relay.awaits_message() {
                configured.end_of_data_timeout
            } else {
                configured.command_timeout
            };
            return (self.progress + limit, true);
        }
        let deadline = match self.session.wants() {
            Wants::Body => self.progress + timeouts.body,
            _ if self.session.is_authenticated() => self.progress + timeouts.idle,
            _ => self.began + timeouts.login,
        };
        (deadline, false)
    }
}

async fn readable(upstream: &mut Option<Upstream>) -> io::Result<()> {
    match upstream {
        Some(upstream) => upstream.readable().await,
        None => std::future::pending().await,
    }
}
