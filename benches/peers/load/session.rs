//! One client: what it says next, given what it was told.

use std::io;
use std::time::Instant;

use mio::event::Event;
use mio::{Registry, Token};

use super::Order;
use super::attempt::Attempt;
use super::outcome::Outcome;
use super::tls::{self, Tls};
use crate::wire::{self, Buffers, Link, Received};

/// What has become of a session by an event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Going,
    /// It stays, and has nothing more to do.
    Holds,
    /// It has stayed before this.
    Idle,
    Over,
}

/// Which reply is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    Greeting,
    Ehlo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    EndOfData,
    Quit,
    /// None: it is held.
    Nothing,
}

/// A session from connect to close.
pub struct Session {
    link: Link,
    number: u64,
    due: Instant,
    offered: Instant,
    awaits: Awaits,
    sent_messages: u32,
    /// The beginning of a reply whose rest has not arrived.
    carry: Vec<u8>,
    /// How much of the message's rest was sent, while it is.
    sending: Option<usize>,
}

/// What is given to TLS at a time.
const PIECE: usize = 64 * 1024;

/// A message up to this size goes out in one write.
const SMALL: usize = 16 * 1024;

impl Session {
    /// Connects.
    pub fn begin(
        order: &Order,
        number: u64,
        due: Instant,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Session> {
        let mut link = wire::connect(order.target, Some(order.logins.from(number)))?;
        link.register(registry, token)?;
        if let Tls::Implicit(config) = &order.tls {
            link.secure(tls::session(config));
        }
        Ok(Session {
            link,
            number,
            due,
            offered: due,
            awaits: Awaits::Greeting,
            sent_messages: 0,
            carry: Vec::new(),
            sending: None,
        })
    }

    /// Whether it is one that stays.
    pub fn is_held(&self) -> bool {
        self.awaits == Awaits::Nothing
    }

    /// Carries out what an event allows.
    pub fn step(
        &mut self,
        event: &Event,
        buffers: &mut Buffers,
        order: &Order,
        outcome: &mut Outcome,
    ) -> Step {
        let held = self.is_held();
        let step = self.try_step(event, buffers, order, outcome);
        let over = match step {
            Ok(goes_on) => !goes_on,
            Err(error) => {
                self.broken(&error.to_string(), outcome);
                true
            }
        };
        match (over, held, self.is_held()) {
            (true, ..) => Step::Over,
            (false, true, _) => Step::Idle,
            (false, false, true) => Step::Holds,
            (false, false, false) => Step::Going,
        }
    }

    fn try_step(
        &mut self,
        event: &Event,
        buffers: &mut Buffers,
        order: &Order,
        outcome: &mut Outcome,
    ) -> io::Result<bool> {
        if event.is_writable() {
            self.link.flush()?;
            self.go_on_sending(order)?;
        }
        if !event.is_readable() {
            return Ok(true);
        }
        loop {
            let received = self.link.receive(buffers, event.is_read_closed())?;
            if !self.replies(&buffers.plain, order, outcome)? {
                return Ok(false);
            }
            // The rest of the handshake, if no command carried it.
            if self.link.is_blocked() {
                self.link.flush()?;
            }
            match received {
                Received::Closed => {
                    self.broken("closed", outcome);
                    return Ok(false);
                }
                Received::Drained => return Ok(true),
                Received::More => {}
            }
        }
    }

    /// Counts an end that was not asked for.
    fn broken(&self, what: &str, outcome: &mut Outcome) {
        match self.awaits {
            // Good clients must be let in, so with them it is an error; attackers may be shut out.
            Awaits::Greeting | Awaits::Ehlo | Awaits::StartTls | Awaits::Auth => outcome.shed += 1,
            Awaits::Quit => {}
            awaits => outcome.error(&format!("{awaits:?}: {what}")),
        }
    }

    /// Takes the lines of replies. False when the session is over.
    fn replies(
        &mut self,
        arrived: &[u8],
        order: &Order,
        outcome: &mut Outcome,
    ) -> io::Result<bool> {
        let joined;
        let mut rest = arrived;
        if !self.carry.is_empty() {
            joined = [&std::mem::take(&mut self.carry), arrived].concat();
            rest = &joined;
        }
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line = &rest[..end];
            // The last line of a reply has a space after its code (RFC 5321, 4.2.1).
            let is_last = line.get(3) != Some(&b'-');
            if is_last && !self.reply(line, order, outcome)? {
                return Ok(false);
            }
            rest = &rest[end + 1..];
        }
        self.carry.extend_from_slice(rest);
        Ok(true)
    }

    /// Says what comes after a reply. False when the session is over.
    fn reply(&mut self, line: &[u8], order: &Order, outcome: &mut Outcome) -> io::Result<bool> {
        let expected: &[u8] = match self.awaits {
            Awaits::Greeting | Awaits::StartTls => b"220",
            Awaits::Ehlo | Awaits::Mail | Awaits::Rcpt | Awaits::EndOfData => b"250",
            Awaits::Auth => b"235",
            Awaits::Data => b"354",
            Awaits::Quit => return Ok(false),
            Awaits::Nothing => b"",
        };
        if !line.starts_with(expected) {
            self.unexpected(line, outcome);
            return Ok(false);
        }
        match self.awaits {
            Awaits::Greeting => self.say(Awaits::Ehlo, b"EHLO client.example.test\r\n")?,
            Awaits::Ehlo => self.after_ehlo(order)?,
            Awaits::StartTls => {
                if let Tls::Upgraded(config) = &order.tls {
                    self.link.secure(tls::session(config));
                }
                self.say(Awaits::Ehlo, b"EHLO client.example.test\r\n")?;
            }
            Awaits::Auth => {
                outcome.accepted += 1;
                outcome.logins.push(self.due.elapsed());
                outcome.resumed += u64::from(self.link.is_resumed());
                if order.logins.attempt(self.number) != Attempt::Right {
                    outcome.error("let in with a wrong password");
                }
                self.next_message(order)?;
            }
            Awaits::Mail if order.pipelined => self.awaits = Awaits::Rcpt,
            Awaits::Mail => self.say(Awaits::Rcpt, RCPT)?,
            Awaits::Rcpt if order.pipelined => self.awaits = Awaits::Data,
            Awaits::Rcpt => self.say(Awaits::Data, DATA)?,
            Awaits::Data => self.send_message(order)?,
            Awaits::EndOfData => {
                outcome.messages += 1;
                outcome.numbers += self.message_number(order);
                self.sent_messages += 1;
                self.next_message(order)?;
            }
            Awaits::Quit | Awaits::Nothing => {}
        }
        Ok(true)
    }

    fn unexpected(&self, line: &[u8], outcome: &mut Outcome) {
        let before = matches!(
            self.awaits,
            Awaits::Greeting | Awaits::Ehlo | Awaits::StartTls | Awaits::Auth
        );
        if before && (line.starts_with(b"421") || line.starts_with(b"454")) {
            outcome.shed += 1;
        } else if self.awaits == Awaits::Auth && line.starts_with(b"535") {
            outcome.refused += 1;
            outcome.refusals.push(self.offered.elapsed());
        } else {
            let line = String::from_utf8_lossy(line);
            outcome.error(&format!("{:?}: {line}", self.awaits));
        }
    }

    fn say(&mut self, awaits: Awaits, command: &[u8]) -> io::Result<()> {
        self.awaits = awaits;
        self.link.send(command)
    }

    fn after_ehlo(&mut self, order: &Order) -> io::Result<()> {
        if matches!(order.tls, Tls::Upgraded(_)) && !self.link.is_secure() {
            return self.say(Awaits::StartTls, b"STARTTLS\r\n");
        }
        self.offered = Instant::now();
        self.say(Awaits::Auth, order.logins.command(self.number).as_bytes())
    }

    fn next_message(&mut self, order: &Order) -> io::Result<()> {
        if self.sent_messages < order.messages {
            let batch: &[u8] = if order.pipelined { BATCH } else { MAIL };
            self.say(Awaits::Mail, batch)
        } else if order.hold {
            self.awaits = Awaits::Nothing;
            Ok(())
        } else {
            self.say(Awaits::Quit, b"QUIT\r\n")
        }
    }

    /// Different for every message of an order.
    fn message_number(&self, order: &Order) -> u64 {
        self.number * u64::from(order.messages) + u64::from(self.sent_messages)
    }

    fn send_message(&mut self, order: &Order) -> io::Result<()> {
        self.awaits = Awaits::EndOfData;
        let rest = order.message.rest();
        let mut text = Vec::with_capacity(256 + SMALL);
        order.message.head(self.message_number(order), &mut text);
        if rest.len() <= SMALL {
            text.extend_from_slice(rest);
            text.extend_from_slice(END);
            return self.link.send(&text);
        }
        self.sending = Some(0);
        self.link.send(&text)?;
        self.go_on_sending(order)
    }

    fn go_on_sending(&mut self, order: &Order) -> io::Result<()> {
        let rest = order.message.rest();
        while let Some(sent) = self.sending
            && !self.link.is_blocked()
        {
            let piece = &rest[sent..rest.len().min(sent + PIECE)];
            let end = sent + piece.len();
            self.sending = (end < rest.len()).then_some(end);
            if self.sending.is_none() {
                self.link.put(piece)?;
                self.link.send(END)?;
            } else {
                self.link.send(piece)?;
            }
        }
        Ok(())
    }
}

const MAIL: &[u8] = b"MAIL FROM:<sender@example.test>\r\n";
const RCPT: &[u8] = b"RCPT TO:<box@example.test>\r\n";
const DATA: &[u8] = b"DATA\r\n";
const BATCH: &[u8] = b"MAIL FROM:<sender@example.test>\r\nRCPT TO:<box@example.test>\r\nDATA\r\n";
const END: &[u8] = b".\r\n";
