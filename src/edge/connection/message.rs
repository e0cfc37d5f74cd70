//! What becomes of a message that is sent whole: the upstream's word on it is counted, and heard
//! even where the client is gone. By then nothing can keep the upstream from delivering the
//! message, so a limit that it did not count for could be passed by hanging up.

use std::time::Duration;

use tokio::time::{sleep, timeout, timeout_at};

use crate::metrics::{Flow, MessageOutcome};
use crate::net::stream::ClientStream;
use crate::smtp::relay::Outcome;

use super::super::ending::Ending;
use super::super::timer::{Latest, within};
use super::super::upstream::Upstream;
use super::Connection;
use super::output::FAREWELL;

/// How long the word on a message may take where everything must end, and where the client is to be
/// disconnected; less than a daemon that ends waits for its sessions.
const LAST_WORD: Duration = Duration::from_secs(1);

impl Connection<'_> {
    /// The upstream has answered a message.
    pub(super) fn message_answered(&mut self, taken: bool) {
        self.session.on_message(taken);
        self.note_message(taken);
        self.count_message(if taken {
            MessageOutcome::Accepted
        } else {
            MessageOutcome::RefusedUpstream
        });
    }

    /// The upstream has a whole message and will not answer it any more. It may deliver the
    /// message, so the message counts as sent.
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

    /// Counts a message that is over, by its outcome.
    pub(super) fn count_message(&mut self, outcome: MessageOutcome) {
        let bytes = std::mem::take(&mut self.message_bytes);
        self.edge.metrics.message(outcome, bytes);
        if let Some(session) = &self.counted {
            session.message(outcome, bytes);
        }
    }

    /// Waits for the upstream's word on a message that it has whole, at the end of a session; false
    /// if that never comes. What the client is to hear is left in `output`. An administrator does
    /// not wait so long: a client that is disconnected is let go after a moment.
    pub(super) async fn hear_last_word(&mut self, ending: Ending) -> bool {
        let Some(upstream) = self.upstream.as_mut().filter(|one| one.has_message()) else {
            return true;
        };
        let (progress, _) = Latest::both(&mut self.progress, &mut self.engaged);
        let deadline = progress + self.dialer.upstream().end_of_data_timeout;
        let before = self.output.len();
        let mut taken = None;
        if ending == Ending::Disconnected {
            let word = word_on_message(upstream, &mut self.output);
            taken = timeout(LAST_WORD, word).await.ok();
            if taken.is_none() {
                let _ = within(FAREWELL, self.stream.send_last(&[])).await;
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
                    sleep(LAST_WORD).await;
                };
                tokio::select! {
                    word = timeout_at(deadline, word_on_message(upstream, &mut self.output)) => word.ok().flatten(),
                    () = all_ends => None,
                }
            }
        };
        self.moved
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

/// Sends the rest of what is queued, and waits for the answer to the message in it; whether the
/// upstream accepted the message, or `None` where no answer comes. Cancelled, it can begin again.
async fn word_on_message(upstream: &mut Upstream, output: &mut Vec<u8>) -> Option<bool> {
    upstream.send().await.ok()?;
    upstream.rest_of_reply().await.ok()?;
    let (reply, relay) = upstream.reply().ok()??;
    let outcome = relay.on_reply(&reply, output).ok()?;
    upstream.consume_reply();
    // 421 is a refusal, too.
    Some(outcome == Outcome::Message(true))
}
