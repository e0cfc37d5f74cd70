//! Which outstanding command a reply of the upstream's belongs to.
//!
//! Clients pipeline, and some of their commands are answered here instead of upstream. Both kinds
//! stand in one queue, so that replies leave in the order of the commands (RFC 2920, 3.2).

use std::collections::VecDeque;

use super::reply::{self, RawReply, Reply};

/// The most commands that wait for the upstream at a time. It keeps the replies under way small
/// enough for socket buffers, so that neither side can block the other.
pub const MAX_OUTSTANDING: usize = 64;

/// What a forwarded command was, as far as its reply matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// DATA: 354 opens the body.
    Data,
    /// The RSET sent for a client's EHLO; this is the answer the client gets.
    Ehlo(Box<Reply>),
    /// The end of data: the upstream's word on the message.
    EndOfData,
    /// MAIL: a 2xx opens a transaction.
    Mail,
    /// NOOP.
    Noop,
    /// RCPT.
    Rcpt,
    /// The RSET of [`Relay::owes_reset`]; its answer is nobody's.
    Reset,
    /// RSET: closes a transaction.
    Rset,
}

/// What a reply means beyond being passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 421: the upstream closes, and so do we after this reply.
    Closing,
    /// DATA was answered; true if the body may come.
    Data(bool),
    /// MAIL was answered; true if the upstream has taken it.
    Mail(bool),
    /// The message was answered; true if the upstream has taken it.
    Message(bool),
    /// A recipient was answered; true if the upstream has taken it.
    Recipient(bool),
    /// RSET was answered, or what was sent for EHLO; true if the transaction is over.
    Reset(bool),
    /// Nothing.
    Passed,
}

/// The upstream answered what was not asked, or in a way the command does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upstream's reply {code} belongs to no command")]
pub struct Unmatched {
    /// The code of the reply.
    pub code: u16,
}

/// The queue of commands that wait for their replies. It begins with a forwarded command or is
/// empty, as replies of ours leave together with the one they waited for.
#[derive(Debug, Default)]
pub struct Relay {
    queue: VecDeque<Entry>,
    /// How many of the queue are MAIL.
    mails: usize,
    /// Whether the upstream has an envelope open.
    open: bool,
    /// Whether the upstream reads a message body.
    body: bool,
    /// Whether the upstream has refused MAIL and not been told to forget that.
    refused: bool,
    /// Whether the upstream takes several commands at a time.
    pipelining: bool,
}

// Few are replies of ours, which are kept elsewhere, so that those under way share a line of the cache.
#[derive(Debug)]
enum Entry {
    Forwarded(Expect),
    Own(Box<Reply>),
}

impl Relay {
    /// The queue for an upstream that offers PIPELINING, or not: then each command waits for the
    /// reply to the one before, however the client sends them (RFC 2920, 3.1).
    pub fn new(pipelining: bool) -> Self {
        Self {
            pipelining,
            ..Self::default()
        }
    }

    /// Notes a command that was sent to the upstream.
    pub fn expect(&mut self, expect: Expect) {
        self.mails += usize::from(expect == Expect::Mail);
        self.body &= expect != Expect::EndOfData;
        self.queue.push_back(Entry::Forwarded(expect));
    }

    /// Queues a reply of ours behind those that are due before it.
    pub fn reply(&mut self, reply: Reply, out: &mut Vec<u8>) {
        if self.queue.is_empty() {
            reply.write_to(out);
        } else {
            self.queue.push_back(Entry::Own(Box::new(reply)));
        }
    }

    /// Takes the upstream's next reply and writes to `out` what the client gets: the reply as it
    /// came, and any of ours that waited for it.
    pub fn on_reply(&mut self, reply: &RawReply, out: &mut Vec<u8>) -> Result<Outcome, Unmatched> {
        let Some(Entry::Forwarded(expect)) = self.queue.pop_front() else {
            return Err(Unmatched { code: reply.code });
        };
        let outcome = match self.judge(&expect, reply.code) {
            Ok(outcome) => outcome,
            // It was not answered, and whoever gives the upstream up has to know.
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

    /// What `code` means for a command (RFC 5321, 4.3.2: the first digit decides).
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

    /// Whether RSET is due, once: Postfix 3.7 goes on refusing every MAIL after one with too large a
    /// SIZE. Not before all that was sent is answered, or it would end what a batch began meanwhile.
    pub fn owes_reset(&mut self) -> bool {
        self.queue.is_empty() && std::mem::take(&mut self.refused)
    }

    /// Whether a reply is due that a client waits for.
    pub fn owes_a_client(&self) -> bool {
        let ours = |entry: &Entry| matches!(entry, Entry::Forwarded(Expect::Reset));
        !self.queue.iter().all(ours)
    }

    /// Whether nothing but a message waits for the upstream's decision: what else is outstanding
    /// can be answered without it.
    pub fn awaits_only_a_message(&self) -> bool {
        let decides = |entry: &Entry| {
            matches!(
                entry,
                Entry::Forwarded(Expect::Data | Expect::EndOfData | Expect::Mail | Expect::Rcpt)
            )
        };
        self.awaits_message() && !self.queue.iter().skip(1).any(decides)
    }

    /// Answers all that is outstanding, for an upstream that is gone: what it had to decide on is
    /// put off, and what only keeps a session going succeeds without it.
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

    /// Whether no further command should be sent before a reply has come.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= if self.pipelining { MAX_OUTSTANDING } else { 1 }
    }

    /// Whether nothing waits for the upstream.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the next reply due is the upstream's word on a message.
    pub fn awaits_message(&self) -> bool {
        matches!(
            self.queue.front(),
            Some(Entry::Forwarded(Expect::EndOfData))
        )
    }

    /// Whether the upstream reads a message body; anything sent now becomes part of it.
    pub fn in_body(&self) -> bool {
        self.body
    }

    /// Whether a transaction is open upstream, or may be once the outstanding replies are here.
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
    fn own_replies_wait_for_those_before_them() {
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
    fn a_reply_without_a_command_is_no_answer() {
        assert_eq!(
            answer(&mut Relay::default(), "250 hello\r\n"),
            Err(Unmatched { code: 250 })
        );
    }

    #[test]
    fn replies_that_a_command_does_not_know_are_no_answer() {
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
    fn ehlo_is_answered_by_us_unless_the_upstream_closes() {
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
    fn after_a_refused_mail_one_reset_is_due() {
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
    fn a_refused_mail_inside_a_transaction_resets_nothing() {
        let mut relay = Relay::new(true);
        for (expect, reply) in [
            (Expect::Mail, "250 ok\r\n"),
            (Expect::Mail, "503 nested\r\n"),
        ] {
            relay.expect(expect);
            answer(&mut relay, reply).unwrap();
        }
        assert!(!relay.owes_reset() && relay.in_transaction());
        // Nor one that was followed by another that was taken, or by the client's own RSET.
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
    fn a_refused_reset_is_a_broken_upstream() {
        for refusal in ["421 bye\r\n", "502 what\r\n", "354 odd\r\n"] {
            let mut relay = Relay::new(true);
            relay.expect(Expect::Reset);
            assert!(answer(&mut relay, refusal).is_err(), "{refusal}");
        }
    }

    #[test]
    fn without_an_upstream_decisions_are_put_off_and_the_rest_succeeds() {
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
