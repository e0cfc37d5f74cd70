//! The upstream's answer to a complete message, awaited even after the client is gone.
//!
//! The upstream may deliver a message from its end of data on, so clients could otherwise evade a
//! limit by hanging up before the answer.

use std::time::Duration;

use tokio::time::{sleep, timeout, timeout_at};

use crate::metrics::{Flow, MessageOutcome};
use crate::net::stream::ClientStream;
use crate::smtp::relay::Outcome;

use super::super::ending::Ending;
use super::super::timer::{LastActivity, within};
use super::super::upstream::Upstream;
use super::Connection;
use super::output::CLOSE_TIMEOUT;

/// How long the answer to a message may take when the daemon stops or an administrator disconnects
/// the client; shorter than the daemon's own wait for sessions.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

impl Connection<'_> {
    /// Records the upstream's answer to a message.
    pub(super) fn message_answered(&mut self, taken: bool) {
        self.session.on_message(taken);
        self.note_message(taken);
        self.count_message(if taken {
            MessageOutcome::Accepted
        } else {
            MessageOutcome::RefusedUpstream
        });
    }

    /// Records a complete message without an answer. The message counts as sent, because the
    /// upstream may deliver it.
    pub(super) fn message_unanswered(&mut self) {
        let username = self.summary.username();
        tracing::warn!(target: "gatepost::session", username, "the upstream never answered a message that it has whole; the message counts as sent, as it may be delivered");
        self.note_message(true);
        self.count_message(MessageOutcome::Lost);
    }

    fn note_message(&mut self, sent: bool) {
        let count = u64::from(sent);
        self.summary.add(|traffic| &traffic.messages, count);
        self.note_usage();
        if let Some(allowance) = &mut self.allowance {
            allowance.transaction_over(sent);
        }
    }

    /// Counts a finished message by outcome.
    pub(super) fn count_message(&mut self, outcome: MessageOutcome) {
        let bytes = std::mem::take(&mut self.message_bytes);
        self.edge.metrics.message(outcome, bytes);
        if let Some(session) = &self.counted {
            session.message(outcome, bytes);
        }
    }

    /// Waits at the end of a session for the answer to a complete message, and leaves the reply in
    /// `output`. Returns false if no answer came. A disconnected client waits only
    /// `ANSWER_TIMEOUT`; the connection then closes, and the wait goes on without the client.
    pub(super) async fn await_message_answer(&mut self, ending: Ending) -> bool {
        let Some(upstream) = self.upstream.as_mut().filter(|one| one.has_message()) else {
            return true;
        };
        let (progress, _) = LastActivity::both(&mut self.progress, &mut self.engaged);
        let deadline = progress + self.dialer.upstream().end_of_data_timeout;
        let before = self.output.len();
        let mut taken = None;
        if ending == Ending::Disconnected {
            let word = message_answer(upstream, &mut self.output);
            taken = timeout(ANSWER_TIMEOUT, word).await.ok();
            if taken.is_none() {
                let _ = within(CLOSE_TIMEOUT, self.stream.send_last(&[])).await;
                self.stream = ClientStream::Gone;
            }
        }
        if let Some(allowance) = self.allowance.as_mut().filter(|_| taken.is_none()) {
            allowance.leave();
        }
        let taken = match taken {
            Some(taken) => taken,
            None => {
                let all_ends = async {
                    self.edge.lifecycle.abandoned().await;
                    sleep(ANSWER_TIMEOUT).await;
                };
                tokio::select! {
                    word = timeout_at(deadline, message_answer(upstream, &mut self.output)) => word.ok().flatten(),
                    () = all_ends => None,
                }
            }
        };
        self.unflushed
            .add(Flow::FromUpstream, self.output.len() - before);
        match taken {
            Some(taken) => self.message_answered(taken),
            None => {
                self.message_unanswered();
                self.upstream = None;
            }
        }
        taken.is_some()
    }
}

/// Sends the queued output and waits for the answer to its message: accepted or rejected, or `None`
/// when no answer comes. Safe to cancel and call again.
async fn message_answer(upstream: &mut Upstream, output: &mut Vec<u8>) -> Option<bool> {
    upstream.send().await.ok()?;
    upstream.rest_of_reply().await.ok()?;
    let (reply, relay) = upstream.reply().ok()??;
    let outcome = relay.on_reply(&reply, output).ok()?;
    upstream.consume_reply();
    // A 421 rejects the message too.
    Some(outcome == Outcome::Message(true))
}
