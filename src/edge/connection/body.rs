//! A message body on its way upstream, or discarded after a rejection here or a lost upstream. The
//! client gets the answer after its end of data, because it reads no replies earlier.

use std::sync::Arc;

use tokio::time::Instant;

use crate::auth::quota::SessionQuota;
use crate::metrics::MessageOutcome;
use crate::smtp::data::{Progress, Scanner};
use crate::smtp::reply;
use crate::smtp::session::{Action, Session};

use super::super::Edge;
use super::super::timer::Floor;
use super::super::upstream::Upstream;
use super::wait::Due;
use super::{Connection, Task, begin, policy_check};

pub(super) struct Body {
    scanner: Scanner,
    /// The minimum transfer rate, measured from the first wait on.
    pub(super) floor: Option<Floor>,
    /// Why no upstream reads the rest, unless Gatepost rejected the message.
    lost: Option<Lost>,
    /// When the connection began to discard the rest.
    discarding_since: Option<Instant>,
}

/// How the upstream was lost inside a body.
pub(super) enum Lost {
    Away,
    /// The upstream rejected the message early, with these octets.
    Refused(Vec<u8>),
}

impl Body {
    fn new(edge: &Edge, session: &Session, allowance: Option<&SessionQuota>) -> Self {
        let (instance, size) = (edge.bare_newline, session.message_size());
        Self {
            scanner: match allowance {
                Some(allowance) => policy_check::scanner(allowance, instance, size),
                None => Scanner::new(instance, size),
            },
            floor: None,
            lost: None,
            discarding_since: None,
        }
    }
}

/// Returns the current body, or starts a new body.
fn current<'b>(
    body: &'b mut Option<Body>,
    edge: &Arc<Edge>,
    session: &Session,
    allowance: Option<&SessionQuota>,
) -> &'b mut Body {
    body.get_or_insert_with(|| Body::new(edge, session, allowance))
}

impl Connection<'_> {
    /// Forwards the available part of a body; returns `None` when more input is needed.
    pub(super) fn take_body(&mut self) -> Option<Task> {
        if self.input.is_empty() {
            return None;
        }
        let allowance = self.allowance.as_ref();
        let body = current(&mut self.body, self.edge, &self.session, allowance);
        let mut discarded = Vec::new();
        let is_relayed = self.upstream.is_some();
        let out = self
            .upstream
            .as_mut()
            .map_or(&mut discarded, |upstream| &mut upstream.output);
        let before = out.len();
        let input = self.input.unread();
        let (progress, as_it_came) = body.scanner.look(input, out);
        let taken = match progress {
            Progress::End(at) => at,
            Progress::More => input.len(),
        };
        if is_relayed {
            self.input.drain_into(as_it_came, out);
            self.input.skip(taken - as_it_came);
        } else {
            self.input.skip(taken);
        }
        let sent = (out.len() - before) as u64;
        let (refusal, octets) = (body.scanner.refusal(), body.scanner.octets());
        if is_relayed && refusal.is_none() {
            self.summary.add(|traffic| &traffic.bytes, sent);
            self.message_bytes += sent;
        } else if is_relayed {
            // Without an end of data the upstream delivers nothing (RFC 5321, 4.1.1.4).
            self.upstream = None;
            if let Some(allowance) = &mut self.allowance {
                allowance.upstream_gone();
            }
        }
        match progress {
            Progress::End(_) => self.end_body(),
            Progress::More if self.upstream.is_none() && octets > self.session.most_read() => {
                self.abort_body()
            }
            Progress::More => None,
        }
    }

    /// Handles the client's end of data.
    fn end_body(&mut self) -> Option<Task> {
        let Body { scanner, lost, .. } = self.body.take()?;
        if let Some(allowance) = &mut self.allowance {
            policy_check::body_over(allowance, &scanner);
        }
        self.summary.normalized += u64::from(scanner.normalized().is_some());
        let action = match (lost, scanner.refusal()) {
            (Some(Lost::Refused(reply)), _) => {
                self.session.on_lost_body();
                self.output.extend_from_slice(&reply);
                // A 421 from the upstream closes the session (RFC 5321, 3.8).
                let closes = reply.starts_with(b"421");
                return Some(if closes { Task::Close } else { Task::Done });
            }
            (lost, Some(refusal)) => {
                if lost.is_none() {
                    self.count_message(MessageOutcome::RefusedHere);
                }
                let username = self.summary.username();
                tracing::info!(
                    target: "gatepost::session",
                    username,
                    refusal = refusal.as_str(),
                    line = refusal.line(),
                    "message refused"
                );
                self.session.on_refused_body(refusal)
            }
            (Some(Lost::Away), None) => {
                self.session.on_lost_body();
                Action::Reply(reply::MESSAGE_LOST)
            }
            (None, None) => {
                if let Some(upstream) = &mut self.upstream {
                    upstream.end_message();
                }
                self.session.on_end_of_data();
                return Some(Task::Done);
            }
        };
        Some(begin(action, &mut self.upstream, &mut self.output))
    }

    /// Closes a connection whose discarded body exceeds every size limit without an end.
    fn abort_body(&mut self) -> Option<Task> {
        let is_lost = self.body.as_ref().is_some_and(|body| body.lost.is_some());
        if !is_lost {
            self.count_message(MessageOutcome::RefusedHere);
        }
        let action = self.session.close(reply::TOO_LARGE);
        Some(begin(action, &mut self.upstream, &mut self.output))
    }

    /// Records that the upstream left or rejected the message before the end of the body. The
    /// connection discards the rest.
    pub(super) fn lose_body(&mut self, upstream: &Upstream, why: &str, lost: Lost) {
        self.report_lost(&upstream.host.endpoint.to_string(), why);
        self.count_message(match lost {
            Lost::Away => MessageOutcome::Lost,
            Lost::Refused(_) => MessageOutcome::RefusedUpstream,
        });
        if let Some(allowance) = &mut self.allowance {
            allowance.upstream_gone();
        }
        let allowance = self.allowance.as_ref();
        current(&mut self.body, self.edge, &self.session, allowance).lost = Some(lost);
    }

    /// Returns the deadline for more of the body, given the time of the last progress.
    pub(super) fn body_deadline(&mut self, progress: Instant) -> (Instant, Due) {
        let timeouts = &self.edge.timeouts;
        let allowance = self.allowance.as_ref();
        let body = current(&mut self.body, self.edge, &self.session, allowance);
        let mut deadline = (progress + timeouts.body, Due::Client);
        if self.upstream.is_none() {
            let since = *body.discarding_since.get_or_insert(progress);
            deadline.0 = deadline.0.min(since + timeouts.idle);
        }
        if timeouts.body_rate == 0 {
            return deadline;
        }
        let (window, rate) = (timeouts.body_rate_window, timeouts.body_rate);
        let floor = body.floor.get_or_insert_with(|| Floor::new(progress));
        if floor.is_met(progress, window, rate) {
            let end = floor.end(window);
            if end < deadline.0 {
                deadline = (end, Due::Floor);
            }
        } else {
            deadline = (progress, Due::Floor);
        }
        deadline
    }

    /// Whether the body meets the minimum rate now.
    pub(super) fn is_fast_enough(&mut self) -> bool {
        let timeouts = &self.edge.timeouts;
        let (window, rate) = (timeouts.body_rate_window, timeouts.body_rate);
        let floor = self.body.as_mut().and_then(|body| body.floor.as_mut());
        floor.is_none_or(|floor| floor.is_met(Instant::now(), window, rate))
    }
}
