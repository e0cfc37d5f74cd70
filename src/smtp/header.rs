//! Checks the From header of a streaming message against the credential's senders.
//!
//! The check buffers only the From header, with a limit. Anything that two programs could read
//! differently is a violation: the recipient's program must find the sender found here.

use std::sync::Arc;

use crate::policy::{Address, Policy, Rules};

/// The longest header block, in octets; Postfix reads 100 KiB by default.
const LONGEST_BLOCK: usize = 256 * 1024;

/// The longest From header, in octets.
const LONGEST_FROM: usize = 8 * 1024;

/// The longest header name (RFC 5322, 2.1.1 limits lines to 998).
const LONGEST_NAME: usize = 998;

/// The faults of a header block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The credential may not use the sender.
    Foreign,
    /// A line that is no header, or an ambiguous From header.
    Malformed,
    Missing,
    Several,
    /// The header block or the From header exceeds the limit.
    TooLong,
}

impl Fault {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Malformed => "malformed",
            Self::Missing => "missing",
            Self::Several => "several",
            Self::TooLong => "too_long",
        }
    }
}

/// Reads a message's header block as sent upstream, with stuffed dots and the end of data.
#[derive(Debug)]
pub struct FromCheck {
    policy: Arc<Policy>,
    state: State,
    /// Octets of the block so far.
    seen: usize,
    /// The value of the From header, once found.
    from: Option<Vec<u8>>,
    fault: Option<Fault>,
}

#[derive(Debug)]
enum State {
    /// At the start of a line: whether a stuffing dot was removed, and the kind of the previous
    /// line.
    LineStart { unstuffed: bool, before: Before },
    /// In a header's name.
    Name(Vec<u8>),
    /// In a header's value.
    Value { from: bool },
    /// After a CR that may end a line of the given kind.
    Cr(Before),
    /// After the header block.
    Over,
}

/// The line that a folded line would continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// An empty line, the end of the block.
    End,
    From,
    Nothing,
    Other,
}

impl FromCheck {
    /// Creates the check for a message under the rules of `policy`.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            state: State::LineStart {
                unstuffed: false,
                before: Before::Nothing,
            },
            seen: 0,
            from: None,
            fault: None,
        }
    }

    /// Returns the fault found so far.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Reads the next piece of the output. The result does not depend on the split into pieces.
    pub fn read(&mut self, piece: &[u8]) {
        for &byte in piece {
            if matches!(self.state, State::Over) {
                return;
            }
            self.seen += 1;
            self.step(byte);
            if self.seen > LONGEST_BLOCK {
                self.violated(Fault::TooLong);
            }
        }
    }

    /// Handles the end of the message.
    pub fn finish(&mut self) {
        if !matches!(self.state, State::Over) {
            self.judge();
        }
    }

    fn violated(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
        self.state = State::Over;
    }

    fn step(&mut self, byte: u8) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::LineStart { unstuffed, before } => self.start(byte, unstuffed, before),
            State::Name(name) => self.name(byte, name),
            State::Value { from } => {
                let line = if from { Before::From } else { Before::Other };
                self.state = match byte {
                    b'\r' => State::Cr(line),
                    _ => State::Value { from },
                };
                if from && byte != b'\r' {
                    self.hold(byte);
                }
            }
            State::Cr(line) => match (byte, line) {
                (b'\n', Before::End) => self.judge(),
                (b'\n', before) => {
                    self.state = State::LineStart {
                        unstuffed: false,
                        before,
                    };
                }
                // The body's scanner forwards no other CR.
                _ => self.violated(Fault::Malformed),
            },
            State::Over => {}
        }
    }

    fn start(&mut self, byte: u8, unstuffed: bool, before: Before) {
        match byte {
            // Readers remove the first dot of a line, doubled or not.
            b'.' if !unstuffed => {
                self.state = State::LineStart {
                    unstuffed: true,
                    before,
                };
            }
            b'\r' => self.state = State::Cr(Before::End),
            b' ' | b'\t' => match before {
                Before::From => {
                    self.state = State::Value { from: true };
                    self.hold(b' ');
                }
                Before::Other => self.state = State::Value { from: false },
                Before::End | Before::Nothing => self.violated(Fault::Malformed),
            },
            _ => self.name(byte, Vec::new()),
        }
    }

    fn name(&mut self, byte: u8, mut name: Vec<u8>) {
        match byte {
            b':' => {
                // White space before the colon is obsolete, but every program accepts it (RFC 5322,
                // 4.5).
                let trimmed = name.trim_ascii_end();
                let is_name = !trimmed.is_empty() && trimmed.iter().all(u8::is_ascii_graphic);
                let from = trimmed.eq_ignore_ascii_case(b"from");
                match (is_name, from, &self.from) {
                    (false, ..) => self.violated(Fault::Malformed),
                    (true, true, Some(_)) => self.violated(Fault::Several),
                    (true, ..) => {
                        if from {
                            self.from = Some(Vec::new());
                        }
                        self.state = State::Value { from };
                    }
                }
            }
            b' ' | b'\t' | 0x21..=0x7e if name.len() < LONGEST_NAME => {
                name.push(byte);
                self.state = State::Name(name);
            }
            // For some programs a line without a colon starts the body, for others not.
            _ => self.violated(Fault::Malformed),
        }
    }

    fn hold(&mut self, byte: u8) {
        let held = self.from.get_or_insert_default();
        if held.len() < LONGEST_FROM {
            held.push(byte);
        } else {
            self.violated(Fault::TooLong);
        }
    }

    /// Evaluates the complete header block.
    fn judge(&mut self) {
        self.state = State::Over;
        if self.fault.is_some() {
            return;
        }
        let fault = match self.from.take() {
            None => Some(Fault::Missing),
            Some(value) => judge(&value, &self.policy.rules).err(),
        };
        self.fault = fault;
    }
}

/// Evaluates the value of a From header.
pub fn judge(value: &[u8], rules: &Rules) -> Result<(), Fault> {
    let text = std::str::from_utf8(value).map_err(|_| Fault::Malformed)?;
    let tokens = tokens(text).ok_or(Fault::Malformed)?;
    for mailbox in tokens.split(|token| *token == Token::Comma) {
        let address = address(mailbox).ok_or(Fault::Malformed)?;
        let address = Address::parse(&address).ok_or(Fault::Malformed)?;
        if !rules.allows_address(address) {
            return Err(Fault::Foreign);
        }
    }
    Ok(())
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    Atom(&'a str),
    At,
    Close,
    Comma,
    Dot,
    Open,
    Quoted(&'a str),
    /// White space and comments.
    Space,
}

/// Splits structured text into tokens (RFC 5322, 3.2); returns `None` for ambiguous text. The
/// starts of groups and routes are no tokens, because neither belongs in From.
fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            ' ' | '\t' => (Token::Space, 1),
            '(' => (Token::Space, comment_length(rest)?),
            '"' => {
                let length = quoted_length(rest)?;
                (Token::Quoted(&rest[..length]), length)
            }
            '<' => (Token::Open, 1),
            '>' => (Token::Close, 1),
            '@' => (Token::At, 1),
            ',' => (Token::Comma, 1),
            '.' => (Token::Dot, 1),
            _ => {
                let length = rest
                    .find(|c: char| is_special(c) || c == ' ' || c == '\t')
                    .unwrap_or(rest.len());
                let atom = &rest[..length];
                let is_clear = !atom.is_empty() && !atom.chars().any(is_unclear);
                is_clear.then_some((Token::Atom(atom), length))?
            }
        };
        tokens.push(token);
        rest = &rest[length..];
    }
    Some(tokens)
}

fn is_special(c: char) -> bool {
    "()<>[]:;@\\,.\"".contains(c)
}

/// Whether only some programs treat the character as white space or ignore the character.
fn is_unclear(c: char) -> bool {
    c.is_control() || (c.is_whitespace() && c != ' ' && c != '\t')
}

/// Returns the length of a comment at the front, including nested comments.
fn comment_length(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return Some(at + 1),
            ')' => depth -= 1,
            '\\' => drop(characters.next().filter(|(_, c)| !is_unclear(*c))?),
            c if is_unclear(c) && c != '\t' => return None,
            _ => {}
        }
    }
    None
}

/// Returns the length of a quoted string at the front.
fn quoted_length(text: &str) -> Option<usize> {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some(at + 1),
            '\\' => drop(characters.next().filter(|(_, c)| !is_unclear(*c))?),
            c if is_unclear(c) && c != '\t' => return None,
            _ => {}
        }
    }
    None
}

/// Returns the address of a mailbox: alone, or in angle brackets after a name (RFC 5322, 3.4).
fn address(mailbox: &[Token]) -> Option<String> {
    let mailbox = trimmed(mailbox);
    let Some(open) = mailbox.iter().position(|token| *token == Token::Open) else {
        return together(mailbox);
    };
    let (name, rest) = mailbox.split_at(open);
    // A name with an @ is rejected: a program that shows names would show a different address.
    let is_phrase = |token: &Token| {
        matches!(
            token,
            Token::Atom(_) | Token::Quoted(_) | Token::Space | Token::Dot
        )
    };
    let [Token::Open, inside @ .., Token::Close] = rest else {
        return None;
    };
    name.iter()
        .all(is_phrase)
        .then(|| together(trimmed(inside)))?
}

fn trimmed<'a, 'b>(mut tokens: &'a [Token<'b>]) -> &'a [Token<'b>] {
    while let [Token::Space, rest @ ..] | [rest @ .., Token::Space] = tokens {
        tokens = rest;
    }
    tokens
}

/// Joins the tokens of an address, which contains no space or comment.
fn together(tokens: &[Token]) -> Option<String> {
    let mut text = String::new();
    for token in tokens {
        text.push_str(match token {
            Token::Atom(atom) => atom,
            Token::Quoted(quoted) => quoted,
            Token::At => "@",
            Token::Dot => ".",
            Token::Close | Token::Comma | Token::Open | Token::Space => return None,
        });
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> Arc<Policy> {
        let rules = r#"{"senders":["me@ok.test","domain.test"],"header_from":true}"#;
        Arc::new(Policy {
            rules: serde_json::from_str(rules).unwrap(),
            ..Policy::default()
        })
    }

    fn read(pieces: &[&[u8]]) -> Option<Fault> {
        let mut check = FromCheck::new(policy());
        for piece in pieces {
            check.read(piece);
        }
        check.finish();
        check.fault()
    }

    /// Checks a message with its end of data, as sent upstream.
    fn fault(message: &str) -> Option<Fault> {
        read(&[message.as_bytes(), b".\r\n"])
    }

    const ALLOWED: [&str; 14] = [
        "From: me@ok.test\r\n\r\nFrom: evil@bad.test\r\n",
        "FROM:me@OK.test\r\n\r\n",
        "from : me@ok.test\r\n\r\n",
        "Subject: x\r\nFrom: Me <me@ok.test>\r\n\r\nbody\r\n",
        "From: \"Evil, evil@bad.test\" <me@ok.test>\r\n\r\n",
        "From: =?utf-8?q?evil=40bad.test?= <me@ok.test>\r\n\r\n",
        "From: J. Smith <me@ok.test>\r\n\r\n",
        "From: Jürgen <me@ok.test>, any@domain.test\r\n\r\n",
        "From:\r\n Me\r\n\t<me@ok.test>\r\n\r\n",
        "From: (evil@bad.test (nested \\) )) me@ok.test (x)\r\n\r\n",
        "From: < me@ok.test >\r\n\r\n",
        "From: me@ok.test\r\n",
        "Subject: a\r\n From: evil@bad.test\r\nFrom: me@ok.test\r\n\r\n",
        "X-From: evil@bad.test\r\n..From: evil@bad.test\r\nFrom: me@ok.test\r\n\r\n",
    ];

    const REFUSED: [(&str, Fault); 44] = [
        ("From: evil@bad.test\r\n\r\n", Fault::Foreign),
        ("From: me@ok.test, evil@bad.test\r\n\r\n", Fault::Foreign),
        ("From: me@ok.test <evil@bad.test>\r\n\r\n", Fault::Malformed),
        ("From: evil@bad.test <me@ok.test>\r\n\r\n", Fault::Malformed),
        (
            "From: <me@ok.test> <evil@bad.test>\r\n\r\n",
            Fault::Malformed,
        ),
        ("From: <me@ok.test> evil@bad.test\r\n\r\n", Fault::Malformed),
        (
            "From: me@ok.test\r\nFrom: me@ok.test\r\n\r\n",
            Fault::Several,
        ),
        (
            "From: me@ok.test\r\nfrom : evil@bad.test\r\n\r\n",
            Fault::Several,
        ),
        (
            "From: me@ok.test\r\n.From: evil@bad.test\r\n\r\n",
            Fault::Several,
        ),
        (".From: evil@bad.test\r\n\r\n", Fault::Foreign),
        (
            "From: me@ok.test\r\n. , evil@bad.test\r\n\r\n",
            Fault::Foreign,
        ),
        (
            "From: me@ok.test,\r\n evil@bad.test\r\n\r\n",
            Fault::Foreign,
        ),
        (
            "From: me@ok.test,\r\n\tevil@bad.test\r\n\r\n",
            Fault::Foreign,
        ),
        ("Subject: x\r\n\r\nFrom: me@ok.test\r\n", Fault::Missing),
        ("\r\nFrom: me@ok.test\r\n\r\n", Fault::Missing),
        ("", Fault::Missing),
        ("From:\r\n\r\n", Fault::Malformed),
        ("From: \r\n \r\n\r\n", Fault::Malformed),
        ("From: me@ok.test,\r\n\r\n", Fault::Malformed),
        ("From: ,me@ok.test\r\n\r\n", Fault::Malformed),
        ("From: all: me@ok.test;\r\n\r\n", Fault::Malformed),
        ("From: nobody:;\r\n\r\n", Fault::Malformed),
        ("From: <>\r\n\r\n", Fault::Malformed),
        ("From: <@bad.test:me@ok.test>\r\n\r\n", Fault::Malformed),
        ("From: <me@ok.test\r\n\r\n", Fault::Malformed),
        ("From: me@ok.test>\r\n\r\n", Fault::Malformed),
        ("From: (me@ok.test\r\n\r\n", Fault::Malformed),
        ("From: \"me@ok.test\r\n\r\n", Fault::Malformed),
        ("From: \"x\" me@ok.test\r\n\r\n", Fault::Malformed),
        ("From: me@ok.test@bad.test\r\n\r\n", Fault::Malformed),
        ("From: \"me@ok.test\"@bad.test\r\n\r\n", Fault::Foreign),
        ("From: me @ ok.test\r\n\r\n", Fault::Malformed),
        ("From: me@(x)ok.test\r\n\r\n", Fault::Malformed),
        ("From: me@ok.test(\\\r\n\r\n", Fault::Malformed),
        ("From: =?utf-8?q?me=40ok.test?=\r\n\r\n", Fault::Malformed),
        (
            "From: <=?utf-8?q?evil?=@domain.test>\r\n\r\n",
            Fault::Malformed,
        ),
        ("From: me@[127.0.0.1]\r\n\r\n", Fault::Malformed),
        ("From: me\\@ok.test\r\n\r\n", Fault::Malformed),
        ("From: x\u{b}<me@ok.test>\r\n\r\n", Fault::Malformed),
        ("From: \u{a0}me@ok.test\r\n\r\n", Fault::Malformed),
        ("no header\r\nFrom: me@ok.test\r\n\r\n", Fault::Malformed),
        (" folded\r\nFrom: me@ok.test\r\n\r\n", Fault::Malformed),
        (": x\r\nFrom: me@ok.test\r\n\r\n", Fault::Malformed),
        (
            "From me@ok.test Mon\r\nFrom: me@ok.test\r\n\r\n",
            Fault::Malformed,
        ),
    ];

    #[test]
    fn from_header_with_allowed_senders_passes() {
        for message in ALLOWED {
            assert_eq!(fault(message), None, "{message:?}");
        }
    }

    #[test]
    fn every_other_from_header_is_a_violation() {
        for (message, expected) in REFUSED {
            assert_eq!(fault(message), Some(expected), "{message:?}");
        }
        assert_eq!(
            read(&[b"From: \xff <me@ok.test>\r\n\r\n"]),
            Some(Fault::Malformed)
        );
    }

    #[test]
    fn endless_header_is_too_long() {
        let long = format!(
            "X: {}\r\nFrom: me@ok.test\r\n\r\n",
            "x".repeat(LONGEST_BLOCK)
        );
        assert_eq!(fault(&long), Some(Fault::TooLong));
        let long = format!("From: {} <me@ok.test>\r\n\r\n", "x".repeat(LONGEST_FROM));
        assert_eq!(fault(&long), Some(Fault::TooLong));
        let long = format!(
            "{}: x\r\nFrom: me@ok.test\r\n\r\n",
            "x".repeat(LONGEST_NAME + 1)
        );
        assert_eq!(fault(&long), Some(Fault::Malformed));
        let body = format!("From: me@ok.test\r\n\r\n{}", "x".repeat(LONGEST_BLOCK));
        assert_eq!(fault(&body), None);
    }

    #[test]
    fn splits_never_change_the_fault() {
        let all = ALLOWED.iter().map(|message| (*message, None));
        let all = all.chain(REFUSED.map(|(message, fault)| (message, Some(fault))));
        for (message, expected) in all {
            let bytes = message.as_bytes();
            for cut in 0..=bytes.len() {
                let (first, second) = bytes.split_at(cut);
                assert_eq!(read(&[first, second]), expected, "{message:?} at {cut}");
            }
            let single: Vec<_> = bytes.chunks(1).collect();
            assert_eq!(read(&single), expected, "{message:?}");
        }
    }

    proptest! {
        /// With any surrounding text, a foreign address in the From header never passes.
        #[test]
        fn a_foreign_address_never_passes(
            before in "[ -~\t]{0,20}", after in "[ -~\t]{0,20}", folded in any::<bool>(),
        ) {
            let fold = if folded { "\r\n " } else { "" };
            let value = format!("{before}{fold} evil@bad.test {after}");
            let message = format!("From: {value}\r\n\r\n");
            if fault(&message).is_none() {
                // The address is then part of a comment or a quoted name.
                let quoted = before.contains('"') || before.contains('(');
                prop_assert!(quoted, "{message:?}");
            }
        }

        #[test]
        fn any_octets_and_splits_are_handled(input: Vec<u8>, cuts in proptest::collection::vec(0usize..64, 0..5)) {
            let whole = read(&[&input]);
            let mut rest = &input[..];
            let mut pieces = Vec::new();
            for cut in cuts {
                let (first, second) = rest.split_at(cut.min(rest.len()));
                pieces.push(first);
                rest = second;
            }
            pieces.push(rest);
            prop_assert_eq!(read(&pieces), whole);
        }
    }
}
