//! Matches upstream replies with outstanding commands.
//!
//! Clients pipeline, and Gatepost answers some commands without the upstream. Both kinds share a
//! queue, so that replies leave in the order of the commands (RFC 2920, 3.2).

use std::collections::VecDeque;

use super::reply::{self, RawReply, Reply};

/// The limit of commands waiting for the upstream. The limit keeps the pending replies within
/// socket buffers, so that neither side can block the other.
pub const MAX_OUTSTANDING: usize = 64;

/// The kind of a forwarded command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// DATA: 354 opens the body.
    Data,
    /// The RSET sent for a client's EHLO, with the answer for the client.
    Ehlo(Box<Reply>),
    /// The end of data: the upstream accepts or rejects the message.
    EndOfData,
    /// MAIL: a 2xx opens a transaction.
    Mail,
    Noop,
    Rcpt,
    /// The RSET of [`Relay::owes_reset`]; no client waits for the reply.
    Reset,
    /// RSET: closes a transaction.
    Rset,
}

/// The effect of a reply besides being forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 421: the upstream closes, so Gatepost closes after the reply.
    Closing,
    /// DATA was answered; true if the body may follow.
    Data(bool),
    /// MAIL was answered; true if accepted.
    Mail(bool),
    /// The message was answered; true if accepted.
    Message(bool),
    /// A recipient was answered; true if accepted.
    Recipient(bool),
    /// RSET, or the RSET for EHLO, was answered; true if the transaction is over.
    Reset(bool),
    Passed,
}

/// An unsolicited reply, or a code that the command does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upstream's reply {code} belongs to no command")]
pub struct Unmatched {
    pub code: u16,
}

/// The queue of commands waiting for replies. The front is always a forwarded command, because
/// Gatepost's own replies leave together with the reply before them.
#[derive(Debug, Default)]
pub struct Relay {
    queue: VecDeque<Entry>,
    /// The number of MAIL commands in the queue.
    mails: usize,
    /// Whether the upstream has an open envelope.
    open: bool,
    /// Whether the upstream reads a message body.
    body: bool,
    /// Whether the upstream rejected MAIL and needs a RSET.
    refused: bool,
    /// Whether the upstream accepts several commands at a time.
    pipelining: bool,
}

// Own replies are rare and boxed, so that pending commands share a cache line.
#[derive(Debug)]
enum Entry {
    Forwarded(Expect),
    Own(Box<Reply>),
}

impl Relay {
    /// Creates the queue. Without PIPELINING each command waits for the previous reply, however the
    /// client sends the commands (RFC 2920, 3.1).
    pub fn new(pipelining: bool) -> Self {
        Self {
            pipelining,
            ..Self::default()
        }
    }

    /// Records a command sent to the upstream.
    pub fn expect(&mut self, expect: Expect) {
        self.mails += usize::from(expect == Expect::Mail);
        self.body &= expect != Expect::EndOfData;
        self.queue.push_back(Entry::Forwarded(expect));
    }

    /// Queues a reply of Gatepost behind the replies due earlier.
    pub fn reply(&mut self, reply: Reply, out: &mut Vec<u8>) {
        if self.queue.is_empty() {
            reply.write_to(out);
        } else {
            self.queue.push_back(Entry::Own(Box::new(reply)));
        }
    }

    /// Processes the upstream's next reply and writes the client's output to `out`: the unchanged
    /// reply, and the own replies that waited for it.
    pub fn on_reply(&mut self, reply: &RawReply, out: &mut Vec<u8>) -> Result<Outcome, Unmatched> {
        let Some(Entry::Forwarded(expect)) = self.queue.pop_front() else {
            return Err(Unmatched { code: reply.code });
        };
        let outcome = match self.judge(&expect, reply.code) {
            Ok(outcome) => outcome,
            // The command stays unanswered, which matters when the upstream is dropped.
            Err(error) => {
                self.queue.push_front(Entry::Forwarded(expect));
                return Err(error);
            }
        };
        self.mails -= usize::from(expect == Expect::Mail);
        match expect {
            Expect::Reset => {}
            Expect::Ehlo(answer) if outcome != Outcome::Closing => answer.write_to(out),
            _ => out.extend_from_slice(reply.bytes),
        }
        let own = |entry: &mut Entry| matches!(entry, Entry::Own(_));
        while let Some(Entry::Own(reply)) = self.queue.pop_front_if(own) {
            reply.write_to(out);
        }
        Ok(outcome)
    }

    /// Interprets `code` for a command (RFC 5321, 4.3.2: the first digit decides).
    fn judge(&mut self, expect: &Expect, code: u16) -> Result<Outcome, Unmatched> {
        let taken = match (expect, code / 100) {
            (Expect::Reset, 4 | 5) => return Err(Unmatched { code }),
            (_, 4) if code == 421 => return Ok(Outcome::Closing),
            (Expect::Data, 3) | (_, 2) if (*expect == Expect::Data) == (code / 100 == 3) => true,
            (_, 4 | 5) => false,
            _ => return Err(Unmatched { code }),
        };
        Ok(match expect {
            Expect::Data => {
                self.body = taken;
                Outcome::Data(taken)
            }
            Expect::EndOfData => {
                self.open = false;
                Outcome::Message(taken)
            }
            Expect::Mail => {
                self.open |= taken;
                self.refused = !self.open;
                Outcome::Mail(taken)
            }
            Expect::Ehlo(_) | Expect::Reset | Expect::Rset => {
                self.open &= !taken;
                self.refused &= !taken;
                Outcome::Reset(taken)
            }
            Expect::Rcpt => Outcome::Recipient(taken),
            Expect::Noop => Outcome::Passed,
        })
    }

    /// Whether a RSET is due, once: after a MAIL with too large a SIZE, Postfix 3.7 rejects every
    /// further MAIL. The RSET waits for all replies, or it would end a transaction from the same
    /// batch.
    pub fn owes_reset(&mut self) -> bool {
        self.queue.is_empty() && std::mem::take(&mut self.refused)
    }

    /// Whether a client waits for a reply.
    pub fn owes_a_client(&self) -> bool {
        let ours = |entry: &Entry| matches!(entry, Entry::Forwarded(Expect::Reset));
        !self.queue.iter().all(ours)
    }

    /// Whether only a message waits for the upstream's decision, so that Gatepost can answer all
    /// other commands.
    pub fn awaits_only_a_message(&self) -> bool {
        let decides = |entry: &Entry| {
            matches!(
                entry,
                Entry::Forwarded(Expect::Data | Expect::EndOfData | Expect::Mail | Expect::Rcpt)
            )
        };
        self.awaits_message() && !self.queue.iter().skip(1).any(decides)
    }

    /// Answers every outstanding command after the upstream is lost: decisions get a temporary
    /// failure, the rest succeeds.
    pub fn answer_without_upstream(self, out: &mut Vec<u8>) {
        for entry in self.queue {
            match entry {
                Entry::Own(reply) => reply.write_to(out),
                Entry::Forwarded(Expect::Ehlo(answer)) => answer.write_to(out),
                Entry::Forwarded(Expect::Noop | Expect::Rset) => reply::OK.write_to(out),
                Entry::Forwarded(Expect::Reset) => {}
                Entry::Forwarded(
                    Expect::Data | Expect::EndOfData | Expect::Mail | Expect::Rcpt,
                ) => reply::MESSAGE_LOST.write_to(out),
            }
        }
    }

    /// Whether the next command must wait for a reply.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= if self.pipelining { MAX_OUTSTANDING } else { 1 }
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the next reply due is the answer to a message.
    pub fn awaits_message(&self) -> bool {
        matches!(
            self.queue.front(),
            Some(Entry::Forwarded(Expect::EndOfData))
        )
    }

    /// Whether the upstream reads a message body; every octet sent now becomes part of the message.
    pub fn in_body(&self) -> bool {
        self.body
    }

    /// Whether a transaction is open upstream, or may open with a pending reply.
    pub fn in_transaction(&self) -> bool {
        self.open || self.mails > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(relay: &mut Relay, reply: &str) -> Result<(Outcome, String), Unmatched> {
        let mut out = Vec::new();
        let raw = RawReply::parse(reply.as_bytes()).unwrap().unwrap();
        let outcome = relay.on_reply(&raw, &mut out)?;
        Ok((outcome, String::from_utf8(out).unwrap()))
    }

    #[test]
    fn own_replies_wait_for_earlier_replies() {
        let mut relay = Relay::default();
        let mut out = Vec::new();
        relay.reply(reply::OK, &mut out);
        assert_eq!(out, b"250 2.0.0 OK\r\n");
        out.clear();
        relay.expect(Expect::Mail);
        relay.reply(reply::NOT_OFFERED, &mut out);
        relay.reply(reply::HELP, &mut out);
        relay.expect(Expect::Rcpt);
        relay.reply(reply::OK, &mut out);
        assert_eq!(out, b"");
        let (outcome, text) = answer(&mut relay, "250 mail\r\n").unwrap();
        assert_eq!(outcome, Outcome::Mail(true));
        assert!(
            text.starts_with("250 mail\r\n502 ") && text.contains("\r\n214 "),
            "{text}"
        );
        let (outcome, text) = answer(&mut relay, "550 rcpt\r\n").unwrap();
        assert_eq!(outcome, Outcome::Recipient(false));
        assert_eq!(text, "550 rcpt\r\n250 2.0.0 OK\r\n");
        assert!(relay.is_idle());
    }

    #[test]
    fn unsolicited_reply_matches_no_command() {
        assert_eq!(
            answer(&mut Relay::default(), "250 hello\r\n"),
            Err(Unmatched { code: 250 })
        );
    }

    #[test]
    fn unexpected_codes_match_no_command() {
        for (expect, reply) in [
            (Expect::Data, "250 taken\r\n"),
            (Expect::Mail, "354 go\r\n"),
            (Expect::EndOfData, "354 go\r\n"),
            (Expect::Rcpt, "334 \r\n"),
        ] {
            let mut relay = Relay::default();
            relay.expect(expect.clone());
            assert!(answer(&mut relay, reply).is_err(), "{expect:?} {reply}");
            assert!(relay.owes_a_client(), "{expect:?} is still to be answered");
        }
    }

    #[test]
    fn a_transaction_opens_with_mail_and_closes_with_the_message_or_rset() {
        let mut relay = Relay::default();
        for (expect, reply, during, after) in [
            (Expect::Mail, "550 no\r\n", true, false),
            (Expect::Mail, "250 ok\r\n", true, true),
            (Expect::Rcpt, "250 ok\r\n", true, true),
            (Expect::Data, "354 go\r\n", true, true),
            (Expect::EndOfData, "451 later\r\n", true, false),
            (Expect::Mail, "250 ok\r\n", true, true),
            (Expect::Rset, "250 ok\r\n", true, false),
            (Expect::Noop, "250 ok\r\n", false, false),
        ] {
            relay.expect(expect.clone());
            assert_eq!(relay.in_transaction(), during, "{expect:?}");
            answer(&mut relay, reply).unwrap();
            assert_eq!(relay.in_transaction(), after, "{expect:?} {reply}");
            assert_eq!(
                relay.in_body(),
                expect == Expect::Data,
                "{expect:?} {reply}"
            );
        }
    }

    #[test]
    fn own_ehlo_reply_replaces_the_reset_reply_except_421() {
        let ours = Reply::ehlo("gate.test", &[]);
        let mut relay = Relay::default();
        relay.expect(Expect::Ehlo(Box::new(ours.clone())));
        assert_eq!(
            answer(&mut relay, "250 reset\r\n"),
            Ok((Outcome::Reset(true), "250 gate.test\r\n".into()))
        );
        relay.expect(Expect::Ehlo(Box::new(ours)));
        assert_eq!(
            answer(&mut relay, "421 bye\r\n"),
            Ok((Outcome::Closing, "421 bye\r\n".into()))
        );
    }

    #[test]
    fn rejected_mail_makes_one_reset_due() {
        let mut relay = Relay::new(true);
        for expect in [Expect::Mail, Expect::Rcpt] {
            relay.expect(expect);
        }
        answer(&mut relay, "552 too large\r\n").unwrap();
        assert!(!relay.owes_reset(), "RCPT is not answered yet");
        answer(&mut relay, "503 no\r\n").unwrap();
        assert!(relay.owes_reset() && !relay.owes_reset());
        relay.expect(Expect::Reset);
        assert!(!relay.owes_a_client() && !relay.is_idle());
        let mut out = Vec::new();
        relay.reply(reply::HELP, &mut out);
        assert!(relay.owes_a_client() && out.is_empty());
        let (outcome, text) = answer(&mut relay, "250 forgotten\r\n").unwrap();
        assert_eq!(outcome, Outcome::Reset(true));
        assert!(text.starts_with("214 "), "only ours is heard: {text}");
    }

    #[test]
    fn rejected_mail_inside_a_transaction_needs_no_reset() {
        let mut relay = Relay::new(true);
        for (expect, reply) in [
            (Expect::Mail, "250 ok\r\n"),
            (Expect::Mail, "503 nested\r\n"),
        ] {
            relay.expect(expect);
            answer(&mut relay, reply).unwrap();
        }
        assert!(!relay.owes_reset() && relay.in_transaction());
        // Nor does a rejected MAIL followed by an accepted MAIL or the client's own RSET.
        for (second, reply) in [(Expect::Mail, "250 ok\r\n"), (Expect::Rset, "250 ok\r\n")] {
            let mut relay = Relay::new(true);
            relay.expect(Expect::Mail);
            relay.expect(second);
            answer(&mut relay, "550 no\r\n").unwrap();
            answer(&mut relay, reply).unwrap();
            assert!(!relay.owes_reset());
        }
    }

    #[test]
    fn rejected_reset_means_a_broken_upstream() {
        for refusal in ["421 bye\r\n", "502 what\r\n", "354 odd\r\n"] {
            let mut relay = Relay::new(true);
            relay.expect(Expect::Reset);
            assert!(answer(&mut relay, refusal).is_err(), "{refusal}");
        }
    }

    #[test]
    fn lost_upstream_defers_decisions_only() {
        let mut relay = Relay::new(true);
        for expect in [Expect::EndOfData, Expect::Rset, Expect::Noop] {
            relay.expect(expect);
        }
        relay.reply(reply::HELP, &mut Vec::new());
        assert!(relay.awaits_only_a_message());
        relay.expect(Expect::Mail);
        assert!(!relay.awaits_only_a_message());
        relay.expect(Expect::Reset);
        relay.reply(reply::BYE, &mut Vec::new());
        let mut out = Vec::new();
        relay.answer_without_upstream(&mut out);
        let out = String::from_utf8(out).unwrap();
        let codes: Vec<_> = out.lines().map(|line| &line[..3]).collect();
        assert_eq!(codes, ["451", "250", "250", "214", "451", "221"], "{out}");
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut careful = Relay::new(false);
        careful.expect(Expect::Mail);
        assert!(careful.is_full());
        let mut relay = Relay::new(true);
        for _ in 0..MAX_OUTSTANDING {
            assert!(!relay.is_full());
            relay.expect(Expect::Rcpt);
        }
        assert!(relay.is_full());
    }
}
