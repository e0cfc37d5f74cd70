//! What goes out to both sides while a session lasts, and how it takes leave of them.

use std::time::Duration;

use crate::metrics::{Flow, MessageOutcome};
use crate::smtp::reply;

use super::super::ending::Ending;
use super::super::timer::within;
use super::Connection;

/// How long either side may take to read our last words.
const FAREWELL: Duration = Duration::from_millis(500);

impl Connection<'_> {
    /// One write to each side; the upstream first, since it has to think.
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
            self.moved.add(Flow::ToUpstream, upstream.output.len());
            let sent = within(limit, upstream.send()).await;
            if !matches!(sent, Ok(Ok(()))) {
                // What it said before it went is still the client's to hear.
                Box::pin(self.take_replies()).await?;
                self.upstream_lost("it took no more bytes").await?;
            }
        }
        Ok(())
    }

    /// Sends the client what is left to say, as the last there is.
    pub(super) async fn leave(&mut self) -> Ending {
        let sent = async {
            self.send_upstream().await?;
            self.say(true).await
        };
        sent.await.err().unwrap_or(Ending::Closed)
    }

    /// Sends the client what is due.
    pub(super) async fn say(&mut self, last: bool) -> Result<(), Ending> {
        let sending = async {
            match last {
                true => self.stream.send_last(&self.output).await,
                false => self.stream.send(&self.output).await,
            }
        };
        match within(self.edge.timeouts.body, sending).await {
            Ok(Ok(())) => {
                self.moved.add(Flow::ToClient, self.output.len());
                self.output.clear();
                Ok(())
            }
            _ => Err(Ending::ClientGone),
        }
    }

    /// Gives the upstream session back while nothing depends on it. The next MAIL gets a new one.
    pub(super) async fn release_upstream(&mut self) {
        if let Some(mut upstream) = self.upstream.take() {
            self.session.on_detached();
            self.edge.metrics.upstream_released.inc();
            let _ = within(FAREWELL, upstream.quit()).await;
        }
    }

    /// Leaves both sides as politely as the ending allows.
    pub(super) async fn end(&mut self, ending: Ending) {
        self.summary.helo = self
            .session
            .helo()
            .map(str::to_owned)
            .or(self.summary.helo.take());
        self.note_usage();
        self.moved.tell(&self.edge.metrics);
        let mut unfinished = false;
        if let Some(upstream) = &mut self.upstream {
            let relay = &upstream.relay;
            unfinished = relay.in_body() || relay.awaits_message();
            if unfinished {
                // Without its end of data, nothing of the message is delivered (RFC 5321, 4.1.1.4).
                self.upstream = None;
            } else if relay.is_idle() {
                let _ = within(FAREWELL, upstream.quit()).await;
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
        if let Some(words) = words {
            let mut last = Vec::new();
            if !unfinished && self.output.is_empty() {
                words.write_to(&mut last);
            }
            let _ = within(FAREWELL, self.stream.send_last(&last)).await;
        }
    }
}
