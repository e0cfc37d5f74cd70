//! Replies from the upstream to the client after the handover, and the handling of a lost upstream.

use std::time::Duration;

use crate::log::Throttle;
use crate::metrics::{Flow, MessageOutcome, RecipientOutcome};
use crate::smtp::relay::{Expect, Outcome};
use crate::smtp::reply;
use crate::smtp::session::Wants;

use super::super::ending::Ending;
use super::super::timer::within;
use super::body::Lost;
use super::{Connection, Task, begin};

/// How long an upstream may take to finish a reply begun inside a body.
const EARLY_REPLY: Duration = Duration::from_secs(1);

impl Connection<'_> {
    /// Forwards the available replies; returns false if there was none.
    pub(super) async fn take_replies(&mut self) -> Result<bool, Ending> {
        let mut any = false;
        while let Some(upstream) = &mut self.upstream {
            let on_a_message = upstream.relay.awaits_message();
            let engaged = upstream.relay.in_transaction();
            let in_body = upstream.relay.in_body();
            let unasked = upstream.relay.is_idle() && upstream.has_unread_input();
            if in_body && unasked {
                // The match below treats an unfinished reply as a fault.
                let _ = within(EARLY_REPLY, upstream.rest_of_reply()).await;
            }
            let mut refused_for_good = false;
            let outcome = match upstream.reply() {
                Ok(Some((reply, _))) if in_body && matches!(reply.code / 100, 4 | 5) => {
                    let lost = Lost::Refused(reply.bytes.to_vec());
                    self.unflushed.add(Flow::FromUpstream, reply.bytes.len());
                    if let Some(upstream) = self.upstream.take() {
                        self.lose_body(&upstream, "it refused the message before its end", lost);
                    }
                    any = true;
                    continue;
                }
                // The rest of an unsolicited reply would be taken for the answer to the next
                // command.
                Ok(None) if unasked => Err("it began to speak unasked".to_owned()),
                Ok(None) => break,
                Ok(Some((reply, relay))) => {
                    refused_for_good = reply.code / 100 == 5;
                    self.unflushed.add(Flow::FromUpstream, reply.bytes.len());
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
                Ok(Outcome::Recipient(taken)) => {
                    self.recipient_answered(taken);
                    if refused_for_good
                        && let Some(action) = self.session.on_refused_recipient()
                        && let Task::Close = begin(action, &mut self.upstream, &mut self.output)
                    {
                        return Err(self.leave().await);
                    }
                }
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
        // The session closed while replies were due; the last reply is here now.
        if any && self.session.is_closed() && !self.is_owed() {
            return Err(self.leave().await);
        }
        if self.half_closed && !self.is_owed() {
            return self.send().await.and(Err(Ending::ClientGone));
        }
        Ok(any)
    }

    /// Adds the session's new traffic to the credential's usage, in the current hour; a message
    /// counts at its reply.
    pub(super) fn note_usage(&mut self) {
        if let Some((allowance, usage)) = self.allowance.as_mut().zip(self.summary.take_usage()) {
            allowance.note(&usage);
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

    /// Handles an upstream that left or broke the protocol. Gatepost never invents replies in its
    /// place, except for 4xx codes.
    pub(super) async fn upstream_lost(&mut self, why: &str) -> Result<(), Ending> {
        let Some(upstream) = self.upstream.take() else {
            return Ok(());
        };
        if upstream.relay.in_body() {
            self.lose_body(&upstream, why, Lost::Away);
            return Ok(());
        }
        if upstream.has_message() {
            self.message_unanswered();
        } else if upstream.relay.awaits_message() {
            self.count_message(MessageOutcome::Lost);
        }
        if let Some(allowance) = &mut self.allowance {
            allowance.upstream_gone();
        }
        let (endpoint, relay) = (upstream.host.endpoint.to_string(), upstream.relay);
        let is_clients_turn = self.session.wants() == Wants::Line && !relay.owes_a_client();
        if is_clients_turn && !relay.in_transaction() {
            self.session.on_detached();
            return Ok(());
        }
        self.report_lost(&endpoint, why);
        if is_clients_turn {
            self.session.on_lost_transaction();
            return Ok(());
        }
        if self.session.is_closed() {
            // The session is closing: the closing reply comes last.
            relay.answer_without_upstream(&mut self.output);
            return Err(Box::pin(self.leave()).await);
        }
        if relay.awaits_only_a_message() || self.quits_next() {
            relay.answer_without_upstream(&mut self.output);
            self.session.on_answered_without_upstream();
            return Ok(());
        }
        if relay.awaits_message() {
            reply::MESSAGE_LOST.write_to(&mut self.output);
        }
        Box::pin(self.carry_out_close(reply::UPSTREAM_LOST)).await
    }

    /// Counts and logs an upstream lost inside a transaction.
    pub(super) fn report_lost(&self, address: &str, why: &str) {
        static LOST: Throttle = Throttle::new();
        self.edge.metrics.upstream_lost.inc();
        if let Some(count) = LOST.due_for(&(address, why)) {
            tracing::warn!(
                %address,
                why,
                count,
                "the upstream was lost inside a transaction"
            );
        }
    }
}
