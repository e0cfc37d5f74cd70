//! A message body on its way upstream; and the rest of one that goes nowhere, because the message
//! is refused here or its upstream is gone. The client is answered behind its own end of data, as
//! it listens no sooner.

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
use super::{Connection, Task, begin, containment};

/// A message body under way.
pub(super) struct Body {
    scanner: Scanner,
    /// The least that must come; once it is waited for.
    pub(super) floor: Option<Floor>,
    /// Why no upstream reads the rest, unless the message is refused here.
    lost: Option<Lost>,
    /// Since when the rest goes nowhere.
    ends_nowhere_since: Option<Instant>,
}

/// How an upstream was lost inside a body.
pub(super) enum Lost {
    /// It went away.
    Away,
    /// It refused the message before its end, with this reply.
    Refused(Vec<u8>),
}

impl Body {
    fn new(edge: &Edge, session: &Session, allowance: Option<&SessionQuota>) -> Self {
        let (instance, size) = (edge.bare_newline, session.message_size());
        Self {
            scanner: match allowance {
                Some(allowance) => containment::scanner(allowance, instance, size),
                None => Scanner::new(instance, size),
            },
            floor: None,
            lost: None,
            ends_nowhere_since: None,
        }
    }
}

/// The body under way, or a new one.
fn current<'b>(
    body: &'b mut Option<Body>,
    edge: &Arc<Edge>,
    session: &Session,
    allowance: Option<&SessionQuota>,
) -> &'b mut Body {
    body.get_or_insert_with(|| Body::new(edge, session, allowance))
}

impl Connection<'_> {
    /// Passes on what has come of a body; `None` when there is no more.
    pub(super) fn take_body(&mut self) -> Option<Task> {
        if self.input.is_empty() {
            return None;
        }
        let allowance = self.allowance.as_ref();
        let body = current(&mut self.body, self.edge, &self.session, allowance);
        let mut nowhere = Vec::new();
        let is_relayed = self.upstream.is_some();
        let out = self
            .upstream
            .as_mut()
            .map_or(&mut nowhere, |upstream| &mut upstream.output);
        let before = out.len();
        let input = self.input.unread();
        let (progress, as_it_came) = body.scanner.look(input, out);
        let taken = match progress {
            Progress::End(at) => at,
            Progress::More => input.len(),
        };
        if is_relayed {
            self.input.move_to(as_it_came, out);
            self.input.pass(taken - as_it_came);
        } else {
            self.input.pass(taken);
        }
        let sent = (out.len() - before) as u64;
        let (refusal, octets) = (body.scanner.refusal(), body.scanner.octets());
        if is_relayed && refusal.is_none() {
            self.summary.add(|traffic| &traffic.bytes, sent);
            self.message_bytes += sent;
        } else if is_relayed {
            // Without its end of data, nothing of the message is delivered (RFC 5321, 4.1.1.4).
            self.upstream = None;
            if let Some(allowance) = &mut self.allowance {
                allowance.upstream_gone();
            }
        }
        match progress {
            Progress::End(_) => self.end_body(),
            Progress::More if self.upstream.is_none() && octets > self.session.most_read() => {
                self.give_body_up()
            }
            Progress::More => None,
        }
    }

    /// The client's end of data has come.
    fn end_body(&mut self) -> Option<Task> {
        let Body { scanner, lost, .. } = self.body.take()?;
        if let Some(allowance) = &mut self.allowance {
            containment::body_over(allowance, &scanner);
        }
        self.summary.normalized += u64::from(scanner.normalized().is_some());
        let action = match (lost, scanner.refusal()) {
            (Some(Lost::Refused(reply)), _) => {
                self.session.on_lost_body();
                self.output.extend_from_slice(&reply);
                // By 421 it says that the session is over (RFC 5321, 3.8).
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

    /// More than any message has came of one that goes nowhere, and there is no end to it.
    fn give_body_up(&mut self) -> Option<Task> {
        let is_lost = self.body.as_ref().is_some_and(|body| body.lost.is_some());
        if !is_lost {
            self.count_message(MessageOutcome::RefusedHere);
        }
        let action = self.session.close(reply::TOO_LARGE);
        Some(begin(action, &mut self.upstream, &mut self.output))
    }

    /// The upstream is gone, or has decided, before the end of a body. The client sends the rest
    /// all the same; it goes nowhere.
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

    /// Until when more of a body must come, where the last came at `progress`.
    pub(super) fn body_deadline(&mut self, progress: Instant) -> (Instant, Due) {
        let timeouts = &self.edge.timeouts;
        let allowance = self.allowance.as_ref();
        let body = current(&mut self.body, self.edge, &self.session, allowance);
        let mut deadline = (progress + timeouts.body, Due::Client);
        if self.upstream.is_none() {
            let since = *body.ends_nowhere_since.get_or_insert(progress);
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

    /// Whether enough of the body has come by now.
    pub(super) fn is_fast_enough(&mut self) -> bool {
        let timeouts = &self.edge.timeouts;
        let (window, rate) = (timeouts.body_rate_window, timeouts.body_rate);
        let floor = self.body.as_mut().and_then(|body| body.floor.as_mut());
        floor.is_none_or(|floor| floor.is_met(Instant::now(), window, rate))
    }
}
