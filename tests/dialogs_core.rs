//! Plays the files of `dialogs/` to the pure core, whole, byte by byte, and at once: the same words
//! as through the binary, with verdicts and hand-overs that come on cue.

use std::sync::Arc;

use gatepost::sasl::{Identity, Outage, Reason, Verdict};
use gatepost::smtp::data::{BareNewline, Progress, Scanner};
use gatepost::smtp::extensions::Extensions;
use gatepost::smtp::line::LineReader;
use gatepost::smtp::relay::{Expect, Outcome, Relay};
use gatepost::smtp::reply::{RawReply, Reply};
use gatepost::smtp::session::{Action, Session, Settings, Wants};

use crate::dialogs::{Manner, all_said_from, files, read};
use crate::support::dialog::{self, Dialog, Step, matches};

#[test]
fn the_core_plays_every_dialog() {
    for name in files() {
        let dialog = read(&name, "smtp_user", "sk_password");
        for manner in [Manner::Commands, Manner::Bytes, Manner::Everything] {
            if manner != Manner::Everything || dialog.pipelinable {
                eprintln!("--- {name}: {manner:?}");
                converse(&dialog, manner);
            }
        }
    }
}

fn converse(dialog: &Dialog, manner: Manner) {
    let implicit = dialog.steps.first() == Some(&Step::Tls);
    let mut core = Core::new(implicit);
    let last_tls = dialog.steps.iter().rposition(|step| *step == Step::Tls);
    let mut all_said = false;
    for (at, step) in dialog.steps.iter().enumerate().skip(usize::from(implicit)) {
        match step {
            Step::Client(bytes) if manner == Manner::Bytes => {
                bytes.chunks(1).for_each(|byte| core.hear(byte));
            }
            Step::Client(_) if manner == Manner::Everything && Some(at) > last_tls => {
                if !std::mem::replace(&mut all_said, true) {
                    core.hear(&all_said_from(&dialog.steps[at..]));
                }
            }
            Step::Client(bytes) => core.hear(bytes),
            Step::Closed => assert!(core.closed, "still open"),
            Step::Forwarded => {}
            Step::Line(pattern) => {
                let line = core.line();
                assert!(
                    matches(pattern, &line),
                    "expected {pattern:?}, got {line:?}"
                );
            }
            Step::Reply(start) => {
                let reply = core.reply();
                assert!(
                    reply.starts_with(start),
                    "expected {start:?}, got {reply:?}"
                );
            }
            Step::Tls => core.shake_hands(),
            Step::Upstream { taken } => core.hand_over(*taken),
            Step::Verdict(verdict) => core.judge(*verdict),
        }
    }
    assert_eq!(core.said, "", "more was said than the dialog knows");
}

/// What the core waits for before it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Awaited {
    Nothing,
    Tls,
    Upstream,
    Verdict,
}

/// The core, and as much around it as it needs to talk.
struct Core {
    session: Session,
    relay: Relay,
    lines: LineReader,
    /// Of the message body under way.
    scanner: Option<Scanner>,
    heard: Vec<u8>,
    said: String,
    awaited: Awaited,
    closed: bool,
}

impl Core {
    fn new(tls: bool) -> Self {
        let settings = Settings {
            hostname: "mail.example.test".into(),
            message_size: 1_000_000,
            max_errors: 10,
            max_auth_failures: 5,
            max_commands: 1000,
        };
        let greeting = Reply::greeting(&settings.hostname);
        let mut core = Self {
            session: Session::new(Arc::new(settings), Arc::default(), tls),
            relay: Relay::default(),
            lines: LineReader::default(),
            scanner: None,
            heard: Vec::new(),
            said: String::new(),
            awaited: Awaited::Nothing,
            closed: false,
        };
        core.say(&greeting);
        core
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.heard.extend_from_slice(bytes);
        self.take_lines();
    }

    fn take_lines(&mut self) {
        loop {
            match self.session.wants() {
                Wants::Body if !self.heard.is_empty() => self.take_body(),
                Wants::Line => {}
                Wants::Body | Wants::Nothing => return,
            }
            if self.session.wants() != Wants::Line {
                continue;
            }
            let heard = std::mem::take(&mut self.heard);
            let Some((line, taken)) = self.lines.next(&heard) else {
                self.heard = heard;
                self.heard.drain(self.lines.excess(&self.heard));
                return;
            };
            if let Some(line) = line {
                let action = self.session.on_line(line);
                self.carry_out(action);
            }
            self.heard = heard[taken..].to_vec();
        }
    }

    fn take_body(&mut self) {
        let start = || Scanner::new(BareNewline::Reject, u64::MAX);
        let scanner = self.scanner.get_or_insert_with(start);
        match scanner.scan(&self.heard, &mut Vec::new()) {
            Progress::More => self.heard.clear(),
            Progress::End(at) => {
                self.heard.drain(..at);
                self.scanner = None;
                self.session.on_end_of_data();
                self.answer_upstream(Expect::EndOfData);
            }
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::CheckPolicy => {
                // What is forwarded is the session's own, and of no interest here.
                let action = match self.session.on_policy(Ok(())) {
                    Action::Forward(_, expect) => Action::Forward(b""[..].into(), expect),
                    Action::Close(reply) => Action::Close(reply),
                    Action::Connect(identity) => Action::Connect(identity),
                    Action::Reply(reply) => Action::Reply(reply),
                    _ => unreachable!("an admission leads to none of these"),
                };
                self.carry_out(action);
            }
            Action::Close(reply) => {
                self.say(&reply);
                self.closed = true;
            }
            Action::Connect(_) => self.awaited = Awaited::Upstream,
            Action::Forward(_, expect) => self.answer_upstream(expect),
            Action::Reply(reply) => self.say(&reply),
            Action::StartTls(reply) => {
                self.say(&reply);
                self.awaited = Awaited::Tls;
            }
            Action::Verify(_) => self.awaited = Awaited::Verdict,
        }
    }

    /// An upstream that agrees to everything.
    fn answer_upstream(&mut self, expect: Expect) {
        let answer = match expect {
            Expect::Data => "354 Go ahead\r\n",
            Expect::Mail => "250 2.1.0 Ok\r\n",
            Expect::Rcpt => "250 2.1.5 Ok\r\n",
            _ => "250 2.0.0 Ok\r\n",
        };
        self.relay.expect(expect);
        let reply = RawReply::parse(answer.as_bytes()).unwrap().unwrap();
        let mut out = Vec::new();
        let outcome = self.relay.on_reply(&reply, &mut out).unwrap();
        self.said.push_str(str::from_utf8(&out).unwrap());
        match outcome {
            Outcome::Closing => self.closed = true,
            Outcome::Data(go) => self.session.on_data(go),
            Outcome::Message(taken) => self.session.on_message(taken),
            Outcome::Mail(_) | Outcome::Passed | Outcome::Recipient(_) | Outcome::Reset(_) => {}
        }
    }

    fn say(&mut self, reply: &Reply) {
        let mut out = Vec::new();
        reply.write_to(&mut out);
        self.said.push_str(str::from_utf8(&out).unwrap());
    }

    fn line(&mut self) -> String {
        let (line, rest) = self.said.split_once("\r\n").expect("a reply");
        let (line, rest) = (line.to_owned(), rest.to_owned());
        self.said = rest;
        line
    }

    fn reply(&mut self) -> String {
        loop {
            let line = self.line();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    fn decided(&mut self, awaited: Awaited) {
        let was = std::mem::replace(&mut self.awaited, Awaited::Nothing);
        assert_eq!(was, awaited, "the core waits for something else");
    }

    fn shake_hands(&mut self) {
        self.decided(Awaited::Tls);
        self.heard.clear();
        self.lines = LineReader::default();
        self.session.on_tls();
    }

    fn judge(&mut self, verdict: dialog::Verdict) {
        self.decided(Awaited::Verdict);
        let identity = Identity {
            key: 1,
            username: "smtp_user".into(),
            organization: "default".into(),
            policy: Arc::default(),
        };
        let action = self.session.on_verdict(match verdict {
            dialog::Verdict::Accept => Verdict::Accept(Arc::new(identity)),
            dialog::Verdict::Reject => Verdict::Reject(Reason::WrongPassword),
            dialog::Verdict::Unavailable => Verdict::Unavailable(Outage::Store),
        });
        self.carry_out(action);
        self.take_lines();
    }

    fn hand_over(&mut self, taken: bool) {
        self.decided(Awaited::Upstream);
        let action = self.session.on_upstream(taken.then(Extensions::default));
        self.carry_out(action);
        self.take_lines();
    }
}
