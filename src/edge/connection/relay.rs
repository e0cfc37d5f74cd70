//! What passes between client and upstream once a session is handed over: bodies one way, replies
//! the other, and what is said when the upstream fails in between.

use crate::log::Throttle;
use crate::metrics::{Flow, MessageOutcome, RecipientOutcome};
use crate::smtp::data::{Progress, Scanner};
use crate::smtp::relay::{Expect, Outcome};
use crate::smtp::reply;
use crate::smtp::session::Wants;

use super::super::ending::Ending;
use super::containment;
use super::{Connection, Task, begin};

/// Warnings of upstreams that are lost.
static LOST: Throttle = Throttle::new();

impl Connection<'_> {
    /// Passes on what has come of a body; `None` when there is no more.
    pub(super) fn take_body(&mut self) -> Option<Task> {
        if self.input.is_empty() {
            return None;
        }
        let scanner = self.scanner.get_or_insert_with(|| {
            let instance = self.edge.bare_newline;
            let size = self.session.message_size();
            match &self.allowance {
                Some(allowance) => containment::scanner(allowance, instance, size),
                None => Scanner::new(instance, size),
            }
        });
        let mut refused = Vec::new();
        let out = self
            .upstream
            .as_mut()
            .map_or(&mut refused, |upstream| &mut upstream.output);
        let before = out.len();
        let input = self.input.unread();
        let (progress, as_it_came) = scanner.look(input, out);
        let taken = match progress {
            Progress::End(at) => at,
            Progress::More => input.len(),
        };
        self.input.move_to(as_it_came, out);
        self.input.pass(taken - as_it_came);
        let sent = (out.len() - before) as u64;
        let refusal = scanner.refusal();
        match refusal {
            // Without its end of data, nothing of the message is delivered (RFC 5321, 4.1.1.4).
            Some(_) => {
                self.upstream = None;
                if let Some(allowance) = &mut self.allowance {
                    allowance.upstream_gone();
                }
            }
            None => {
                self.summary.add(|traffic| &traffic.bytes, sent);
                self.message_bytes += sent;
            }
        }
        if progress == Progress::More {
            return None;
        }
        let scanner = self.scanner.take();
        if let Some((allowance, scanner)) = self.allowance.as_mut().zip(scanner) {
            containment::body_over(allowance, &scanner);
        }
        match refusal {
            Some(refusal) => {
                self.count_message(MessageOutcome::RefusedHere);
                let username = self.summary.username();
                tracing::info!(
                    target: "gatepost::session",
                    username,
                    refusal = refusal.as_str(),
                    line = refusal.line(),
                    "message refused"
                );
                let action = self.session.on_refused_body(refusal);
                Some(begin(action, &mut self.upstream, &mut self.output))
            }
            None => {
                if let Some(upstream) = &mut self.upstream {
                    upstream.relay.expect(Expect::EndOfData);
                }
                self.session.on_end_of_data();
                Some(Task::Done)
            }
        }
    }

    /// Passes on the replies that have come; false if there was none.
    pub(super) async fn take_replies(&mut self) -> Result<bool, Ending> {
        let mut any = false;
        while let Some(upstream) = &mut self.upstream {
            let on_a_message = upstream.relay.awaits_message();
            let engaged = upstream.relay.in_transaction();
            let unasked = upstream.relay.is_idle() && upstream.has_said_more();
            let outcome = match upstream.reply() {
                // Its end would be taken for the answer to whatever is asked by then.
                Ok(None) if unasked => Err("it began to speak unasked".to_owned()),
                Ok(None) => break,
                Ok(Some((reply, relay))) => {
                    self.moved.add(Flow::FromUpstream, reply.bytes.len());
                    relay
                        .on_reply(&reply, &mut self.output)
                        .map_err(|error| error.to_string())
                }
                Err(fault) => Err(fault.to_string()),
            };
            upstream.consume_reply();
            any = true;
            self.progress.renew();
            if engaged {
                self.engaged.renew();
            }
            match outcome {
                Ok(Outcome::Closing) => {
                    if on_a_message {
                        self.message_answered(false);
                    }
                    return Err(self.leave().await);
                }
                Ok(Outcome::Data(go)) => self.session.on_data(go),
                Ok(Outcome::Mail(taken)) => {
                    if let Some(allowance) = &mut self.allowance {
                        allowance.mail_answered(taken);
                    }
                }
                Ok(Outcome::Message(taken)) => self.message_answered(taken),
                Ok(Outcome::Recipient(taken)) => self.recipient_answered(taken),
                Ok(Outcome::Reset(over)) => {
                    if let Some(allowance) = self.allowance.as_mut().filter(|_| over) {
                        allowance.transaction_over(false);
                    }
                }
                Ok(Outcome::Passed) => {}
                Err(why) => self.upstream_lost(&why).await?,
            }
            if let Some(upstream) = &mut self.upstream
                && upstream.relay.owes_reset()
            {
                upstream.forward(b"RSET", Expect::Reset);
            }
        }
        // Closed by us while replies were due; now all are there.
        if any && self.session.is_closed() && !self.is_owed() {
            return Err(self.leave().await);
        }
        if self.half_closed && !self.is_owed() {
            return self.send().await.and(Err(Ending::ClientGone));
        }
        Ok(any)
    }

    /// Of the hour in which it is noted; a message is noted with its reply.
    pub(super) fn note_usage(&mut self) {
        if let Some((allowance, usage)) = self.allowance.as_mut().zip(self.summary.take_usage()) {
            allowance.note(&usage);
        }
    }

    fn message_answered(&mut self, taken: bool) {
        let count = u64::from(taken);
        self.summary.add(|traffic| &traffic.messages, count);
        self.note_usage();
        if let Some(allowance) = &mut self.allowance {
            allowance.transaction_over(taken);
        }
        let outcome = if taken {
            MessageOutcome::Accepted
        } else {
            MessageOutcome::RefusedUpstream
        };
        self.count_message(outcome);
    }

    pub(super) fn count_message(&mut self, outcome: MessageOutcome) {
        let bytes = std::mem::take(&mut self.message_bytes);
        self.edge.metrics.message(outcome, bytes);
        if let Some(session) = &self.counted {
            session.message(outcome, bytes);
        }
    }

    fn recipient_answered(&mut self, taken: bool) {
        if let Some(allowance) = &mut self.allowance {
            allowance.recipient_answered(taken);
        }
        let count = u64::from(taken);
        self.summary.add(|traffic| &traffic.recipients, count);
        let outcome = if taken {
            RecipientOutcome::Accepted
        } else {
            RecipientOutcome::Refused
        };
        self.edge.metrics.recipients.of(outcome).inc();
        if let Some(session) = self.counted.as_ref().filter(|_| taken) {
            session.recipient();
        }
    }

    /// The upstream is gone or cannot be believed any more. What it still owed is never made up.
    pub(super) async fn upstream_lost(&mut self, why: &str) -> Result<(), Ending> {
        let Some(upstream) = self.upstream.take() else {
            return Ok(());
        };
        let owed = upstream.relay.owes_a_client() || upstream.relay.in_transaction();
        if let Some(allowance) = &mut self.allowance {
            allowance.upstream_gone();
        }
        if self.session.wants() == Wants::Line && !owed {
            self.session.on_detached();
            return Ok(());
        }
        self.edge.metrics.upstream_lost.inc();
        let address = upstream.host.endpoint.to_string();
        if let Some(count) = LOST.due_for(&(&address, why)) {
            tracing::warn!(
                address,
                why,
                count,
                "the upstream was lost inside a transaction"
            );
        }
        if upstream.relay.awaits_message() || upstream.relay.in_body() {
            self.count_message(MessageOutcome::Lost);
        }
        if self.session.wants() == Wants::Body {
            return Err(Ending::UpstreamGone);
        }
        Box::pin(self.carry_out_close(reply::UPSTREAM_LOST)).await
    }
}
