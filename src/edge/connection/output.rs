//! Output to both sides during a session, and the closing of both connections.

use std::time::Duration;

use crate::metrics::{Flow, MessageOutcome};
use crate::smtp::reply;

use super::super::ending::Ending;
use super::super::timer::{timed, within};
use super::super::upstream::Upstream;
use super::Connection;

/// How long either side may take to read the last reply.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

impl Connection<'_> {
    /// Writes once to each side; to the upstream first, because the upstream needs time to answer.
    pub(super) async fn send(&mut self) -> Result<(), Ending> {
        self.send_upstream().await?;
        if self.output.is_empty() {
            return Ok(());
        }
        self.say(false).await
    }

    async fn send_upstream(&mut self) -> Result<(), Ending> {
        if let Some(upstream) = self
            .upstream
            .as_mut()
            .filter(|upstream| !upstream.output.is_empty())
        {
            let limit = self.dialer.upstream().command_timeout;
            self.unflushed.add(Flow::ToUpstream, upstream.output.len());
            let mut waited = Duration::ZERO;
            let sent = within(limit, timed(upstream.send(), &mut waited)).await;
            if let Some(floor) = self.body.as_mut().and_then(|body| body.floor.as_mut()) {
                // The connection reads no client input during the wait.
                floor.pause(waited);
            }
            if !matches!(sent, Ok(Ok(()))) {
                if sent.is_ok() {
                    // Forward replies that the upstream sent before closing.
                    let _ = within(CLOSE_TIMEOUT, upstream.rest_of_reply()).await;
                }
                Box::pin(self.take_replies()).await?;
                self.upstream_lost("it took no more bytes").await?;
            }
        }
        Ok(())
    }

    /// Sends the remaining output and closes the client's connection.
    pub(super) async fn leave(&mut self) -> Ending {
        let sent = async {
            self.send_upstream().await?;
            self.leave_upstream().await;
            self.say(true).await
        };
        sent.await.err().unwrap_or(Ending::Closed)
    }

    /// Quits an unused upstream connection before the client gets the last reply: a client that
    /// reconnects at once then finds the upstream's process free. A silent upstream delays the last
    /// reply by at most `CLOSE_TIMEOUT`.
    async fn leave_upstream(&mut self) {
        let is_free = |one: &mut Upstream| one.relay.is_idle() && !one.relay.in_body();
        if let Some(mut upstream) = self.upstream.take_if(is_free) {
            let leaving = async {
                upstream.quit().await;
                upstream.rest_of_reply().await
            };
            let left = within(CLOSE_TIMEOUT, leaving).await;
            if left.is_ok() && upstream.reply().is_ok() {
                // Returns the buffer to the thread's pool.
                upstream.consume_reply();
            }
        }
    }

    pub(super) async fn say(&mut self, last: bool) -> Result<(), Ending> {
        let sending = async {
            match last {
                true => self.stream.send_last(&self.output).await,
                false => self.stream.send(&self.output).await,
            }
        };
        match within(self.edge.timeouts.body, sending).await {
            Ok(Ok(())) => {
                self.unflushed.add(Flow::ToClient, self.output.len());
                self.output.clear();
                Ok(())
            }
            _ => Err(Ending::ClientGone),
        }
    }

    /// Releases an unused upstream connection. The next MAIL opens a new session.
    pub(super) async fn release_upstream(&mut self) {
        if let Some(mut upstream) = self.upstream.take() {
            self.session.on_detached();
            self.edge.metrics.upstream_released.inc();
            let _ = within(CLOSE_TIMEOUT, upstream.quit()).await;
        }
    }

    /// Closes both sides as politely as the ending allows.
    pub(super) async fn end(&mut self, ending: Ending) {
        self.summary.helo = self
            .session
            .helo()
            .map(str::to_owned)
            .or(self.summary.helo.take());
        let is_half_sent = !self.output.is_empty();
        let mut unfinished = !self.await_message_answer(ending).await;
        self.note_usage();
        self.unflushed.flush(&self.edge.metrics);
        if let Some(upstream) = &mut self.upstream {
            let relay = &upstream.relay;
            if relay.in_body() || relay.awaits_message() {
                // Without an end of data the upstream delivers nothing (RFC 5321, 4.1.1.4).
                unfinished = true;
                self.upstream = None;
                self.count_message(MessageOutcome::Lost);
            } else if relay.is_idle() {
                let _ = within(CLOSE_TIMEOUT, upstream.quit()).await;
            }
        }
        // A client waiting for the answer to a message would take a closing reply for the answer,
        // and after half a reply the closing reply would become part of it.
        let words = match ending {
            Ending::CutOff => Some(reply::SHUTTING_DOWN),
            Ending::Disconnected => Some(reply::DISCONNECTED),
            _ => None,
        };
        let is_told = words.is_some();
        if is_half_sent || unfinished {
            self.output.clear();
        } else if let Some(words) = words {
            words.write_to(&mut self.output);
        }
        if is_told || !self.output.is_empty() {
            let _ = within(CLOSE_TIMEOUT, self.stream.send_last(&self.output)).await;
        }
    }
}
