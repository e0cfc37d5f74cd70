//! The message body: finds the end of data, and forwards nothing that another server could frame
//! differently.
//!
//! Only CRLF.CRLF ends a message (RFC 5321, 4.1.1.4). A message with a bare CR or LF is rejected or
//! re-encoded, never forwarded as received, because the upstream's idea of a line end may depend on
//! settings and on the client address. The same holds for a NUL, which is forbidden in messages
//! (RFC 2045, 2.7 and 2.8): some servers drop the NUL, others end the line there, so that a dot
//! before the NUL ends the message.

use super::header::{Fault, FromCheck};
use crate::policy::OddOctet;

/// The treatment of a bare CR or LF and of a NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareNewline {
    /// Turn a bare LF and a CRLF after further CRs into CRLF, other CRs in a row and a NUL into a
    /// space, and stuff dots again.
    Normalize,
    Reject,
}

/// Why Gatepost rejects a message. The upstream must never get an end of data for the octets
/// already written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A bare CR or LF in the given line, counted from 1.
    BareNewline {
        line: u64,
    },
    /// The credential may not use the sender in the From header.
    From(Fault),
    /// A NUL in the given line, counted from 1.
    Nul {
        line: u64,
    },
    TooLarge,
}

impl Refusal {
    /// Returns the octet that caused the rejection, if any.
    pub fn octet(self) -> Option<OddOctet> {
        match self {
            Self::BareNewline { .. } => Some(OddOctet::BareNewline),
            Self::Nul { .. } => Some(OddOctet::Nul),
            Self::From(_) | Self::TooLarge => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::BareNewline { .. } => OddOctet::BareNewline.as_str(),
            Self::From(fault) => fault.as_str(),
            Self::Nul { .. } => OddOctet::Nul.as_str(),
            Self::TooLarge => "too_large",
        }
    }

    /// Returns the offending line, counted from 1, if known.
    pub fn line(self) -> Option<u64> {
        match self {
            Self::BareNewline { line } | Self::Nul { line } => Some(line),
            Self::From(_) | Self::TooLarge => None,
        }
    }
}

/// Scans a body from the 354 reply to the client's end of data.
#[derive(Debug)]
pub struct Scanner {
    bare_newline: BareNewline,
    limit: u64,
    line: u64,
    octets: u64,
    position: Position,
    /// Whether the last written octet ended a line; used only for normalizing.
    at_line_start: bool,
    /// How the current piece is written.
    pass: Pass,
    /// The first octet that caused re-encoding.
    normalized: Option<OddOctet>,
    refusal: Option<Refusal>,
    from: Option<From>,
}

/// How a piece is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    AsItCame,
    /// Decoded and encoded again.
    Odd,
    /// Decoded and encoded anew.
    Encoding,
}

/// The check of the From header, and whether violations are only reported.
#[derive(Debug)]
struct From {
    check: FromCheck,
    report: bool,
}

/// The state of the scan after the last octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// One or more CRs, not yet written: the next octet decides whether they end a line.
    Cr,
    /// A dot at the start of a line: stuffing, or the end of data.
    Dot,
    /// A dot and a CR, the CR not yet written.
    DotCr,
    /// After a CRLF, or at the start of the body.
    LineStart,
    Text,
}

impl Position {
    /// Returns the octets not yet written.
    fn held(self) -> &'static [u8] {
        match self {
            Self::Cr => b"\r",
            Self::Dot => b".",
            Self::DotCr => b".\r",
            Self::LineStart | Self::Text => b"",
        }
    }
}

/// The size of the blocks that [`Scanner::skip`] scans together, in octets.
const BLOCK: usize = 128;

/// How far a scan got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The end of data stops at the given offset of the input; commands follow.
    End(usize),
    /// The whole input was body.
    More,
}

impl Scanner {
    /// Creates a scanner for a message of at most `limit` octets, without its end of data and
    /// stuffed dots.
    pub fn new(bare_newline: BareNewline, limit: u64) -> Self {
        Self {
            bare_newline,
            limit,
            line: 1,
            octets: 0,
            position: Position::LineStart,
            at_line_start: true,
            pass: Pass::AsItCame,
            normalized: None,
            refusal: None,
            from: None,
        }
    }

    /// Checks the From header as well; with `report`, violations do not reject the message.
    pub fn with_from(self, check: FromCheck, report: bool) -> Self {
        Self {
            from: Some(From { check, report }),
            ..self
        }
    }

    /// Returns the fault of the From header, if checked.
    pub fn from_fault(&self) -> Option<Fault> {
        self.from.as_ref()?.check.fault()
    }

    /// Returns why the message is rejected, once decided. From then on the scanner writes nothing,
    /// and the caller must drop the last call's output together with the upstream connection.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Returns the first octet that caused re-encoding.
    pub fn normalized(&self) -> Option<OddOctet> {
        self.normalized
    }

    /// Returns the number of the message's octets so far, as sent by the client.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Scans the next piece of the body and appends the upstream's octets to `out`, including the
    /// end of data. The result does not depend on how the body is split into pieces.
    pub fn scan(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let (progress, as_it_came) = self.look(input, out);
        out.extend_from_slice(&input[..as_it_came]);
        progress
    }

    /// Like [`Scanner::scan`], but leaves unchanged octets to the caller, who may move instead of
    /// copy them: returns how many octets at the start of `input` belong after `out`.
    pub fn look(&mut self, input: &[u8], out: &mut Vec<u8>) -> (Progress, usize) {
        if input.is_empty() {
            return (Progress::More, 0);
        }
        let before = out.len();
        let (line, octets, position) = (self.line, self.octets, self.position);
        // A bare LF has ended a line: a dot here must be stuffed, and arrived without stuffing.
        let is_split = position == Position::Text && self.at_line_start;
        self.pass = match is_split {
            true => Pass::Encoding,
            false => Pass::AsItCame,
        };
        let mut progress = self.scan_octets(input, out);
        if self.pass == Pass::Odd {
            (self.line, self.octets, self.position) = (line, octets, position);
            self.pass = Pass::Encoding;
            progress = self.scan_octets(input, out);
        }
        self.check_size();
        let mut as_it_came = 0;
        if self.pass == Pass::AsItCame && self.refusal.is_none() {
            // The octets held back from the previous piece come first; the last octets are held
            // back now.
            let held = position.held();
            let taken = match progress {
                Progress::End(at) => at,
                Progress::More => input.len(),
            };
            let whole = held.len() + taken - self.position.held().len();
            let first = whole.min(held.len());
            out.extend_from_slice(&held[..first]);
            as_it_came = whole - first;
            let last = input[..as_it_came].last().or(out[before..].last());
            self.at_line_start = last.map_or(self.at_line_start, |last| *last == b'\n');
        }
        self.check_from(&[&out[before..], &input[..as_it_came]], progress);
        if self.refusal.is_some() {
            as_it_came = 0;
        }
        (progress, as_it_came)
    }

    /// Scans every octet up to the end of data. Writes to `out` only while re-encoding.
    fn scan_octets(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let mut at = 0;
        let mut looked_at = 1;
        while at < input.len() {
            // After a CR the next octet decides.
            let settled = matches!(self.position, Position::Text | Position::LineStart);
            if settled && self.refusal.is_none() && at >= looked_at {
                at += self.skip(input, at, out);
                looked_at = at + BLOCK;
                continue;
            }
            if self.position == Position::Text {
                let run =
                    memchr::memchr3(b'\r', b'\n', b'\0', &input[at..]).unwrap_or(input.len() - at);
                self.write(&input[at..at + run], out);
                self.octets += run as u64;
                at += run;
                if at == input.len() {
                    break;
                }
            }
            let byte = input[at];
            at += 1;
            self.octets += 1;
            if self.step(byte, out) {
                self.octets -= ".\r\n".len() as u64;
                self.position = Position::LineStart;
                return Progress::End(at);
            }
            if self.pass == Pass::Odd {
                break;
            }
        }
        Progress::More
    }

    /// Skips the blocks from `at` that need no change: every line end is CRLF and no line starts
    /// with a dot. `at` is neither 0 nor directly after a CR. Returns the number of octets skipped.
    fn skip(&mut self, input: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
        let mut skipped = 0;
        for block in input[at..].chunks_exact(BLOCK) {
            let before = &input[at + skipped - 1..][..BLOCK];
            // Branch-free, so that the compiler vectorizes the loop.
            let (mut faults, mut lines) = (0_u8, 0_u8);
            for (&before, &octet) in before.iter().zip(block) {
                let newline = u8::from(octet == b'\n');
                faults |= u8::from(before == b'\r') ^ newline;
                faults |= u8::from(octet == b'\0');
                faults |= u8::from(before == b'\n') & u8::from(octet == b'.');
                lines += newline;
            }
            if faults != 0 {
                break;
            }
            self.line += u64::from(lines);
            skipped += BLOCK;
        }
        if skipped > 0 {
            self.octets += skipped as u64;
            self.position = match input[at + skipped - 1] {
                b'\r' => Position::Cr,
                b'\n' => Position::LineStart,
                _ => Position::Text,
            };
            let held = self.position.held().len();
            let written = &input[at..at + skipped - held];
            self.write(written, out);
            if self.is_encoding() {
                self.at_line_start = written.ends_with(b"\n");
            }
        }
        skipped
    }

    /// Checks the written octets rather than the received octets, because the upstream reads the
    /// former.
    fn check_from(&mut self, written: &[&[u8]], progress: Progress) {
        let Some(From { check, report }) = self.from.as_mut().filter(|_| self.refusal.is_none())
        else {
            return;
        };
        for piece in written {
            check.read(piece);
        }
        if matches!(progress, Progress::End(_)) {
            check.finish();
        }
        if let Some(fault) = check.fault().filter(|_| !*report) {
            self.refusal = Some(Refusal::From(fault));
        }
    }

    /// Advances by an octet; returns true at the end of data.
    fn step(&mut self, byte: u8, out: &mut Vec<u8>) -> bool {
        use Position::{Cr, Dot, DotCr, LineStart, Text};
        self.position = match (self.position, byte) {
            (LineStart, b'.') => Dot,
            (LineStart | Text, b'\r') => Cr,
            (Dot, b'\r') => DotCr,
            (Cr, b'\n') => {
                self.line += 1;
                self.write_newline(out);
                LineStart
            }
            (DotCr, b'\n') => {
                self.write_end(out);
                return true;
            }
            // Programs that write CRLF in a text mode send CR CR LF. Behind a dot, such a line does
            // not end the message: the dot is stuffing, and the line is empty.
            (Cr | DotCr, b'\r') => {
                self.octets -= u64::from(self.position == DotCr);
                self.note_bare();
                Cr
            }
            (Cr | DotCr, byte) => {
                self.octets -= u64::from(self.position == DotCr);
                self.bare(out, b' ');
                self.position = Text;
                return self.step(byte, out);
            }
            (LineStart | Text | Dot, b'\n') => {
                self.octets -= u64::from(self.position == Dot);
                self.bare(out, b'\n');
                Text
            }
            (Dot, byte) => {
                // The dot was stuffing and is no part of the message (RFC 5321, 4.5.2). Unless
                // re-encoding, the dot stays in place, so that the split into pieces never decides
                // about the dot.
                self.octets -= 1;
                if self.is_encoding() && byte != b'\0' {
                    out.push(b'.');
                    self.at_line_start = false;
                }
                self.text(byte, out);
                Text
            }
            (LineStart | Text, byte) => {
                self.text(byte, out);
                Text
            }
        };
        false
    }

    fn text(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (byte, self.bare_newline) {
            (b'\0', BareNewline::Reject) => {
                self.check_size();
                self.refusal.get_or_insert(Refusal::Nul { line: self.line });
            }
            (b'\0', BareNewline::Normalize) => {
                self.note_odd(OddOctet::Nul);
                self.write(b" ", out);
            }
            (byte, _) => self.write(&[byte], out),
        }
    }

    /// Records that the message must be re-encoded.
    fn note_odd(&mut self, octet: OddOctet) {
        if self.pass == Pass::AsItCame {
            self.pass = Pass::Odd;
        }
        self.normalized.get_or_insert(octet);
    }

    /// Handles a bare CR or LF; normalizing replaces the octet by `instead`.
    fn bare(&mut self, out: &mut Vec<u8>, instead: u8) {
        self.note_bare();
        match (self.bare_newline, instead) {
            (BareNewline::Reject, _) => {}
            (BareNewline::Normalize, b'\n') => {
                self.line += 1;
                self.write_newline(out);
            }
            (BareNewline::Normalize, _) => self.write(&[instead], out),
        }
    }

    /// Records a bare CR or LF: rejects the message or has it re-encoded.
    fn note_bare(&mut self) {
        match self.bare_newline {
            BareNewline::Reject => {
                self.check_size();
                self.refusal
                    .get_or_insert(Refusal::BareNewline { line: self.line });
            }
            BareNewline::Normalize => self.note_odd(OddOctet::BareNewline),
        }
    }

    fn check_size(&mut self) {
        // A dot at the start of a line may be stuffing or the end of data, and does not count yet.
        let undecided = match self.position {
            Position::Dot => 1,
            Position::DotCr => 2,
            Position::Cr | Position::LineStart | Position::Text => 0,
        };
        if self.octets - undecided > self.limit {
            self.refusal.get_or_insert(Refusal::TooLarge);
        }
    }

    /// Whether the writers below write; unchanged pieces need no writing.
    fn is_encoding(&self) -> bool {
        self.pass == Pass::Encoding && self.refusal.is_none()
    }

    fn write(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if !self.is_encoding() || text.is_empty() {
            return;
        }
        if self.at_line_start && text[0] == b'.' {
            out.push(b'.');
        }
        out.extend_from_slice(text);
        self.at_line_start = false;
    }

    fn write_newline(&mut self, out: &mut Vec<u8>) {
        if self.is_encoding() {
            out.extend_from_slice(b"\r\n");
            self.at_line_start = true;
        }
    }

    fn write_end(&mut self, out: &mut Vec<u8>) {
        if self.is_encoding() {
            out.extend_from_slice(b".\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The result of a whole body: the output or the rejection, the offset of the end, and the
    /// size.
    type Outcome = (Result<Vec<u8>, Refusal>, Option<usize>, u64);

    fn scan(bare_newline: BareNewline, limit: u64, body: &[u8], pieces: &[usize]) -> Outcome {
        let mut scanner = Scanner::new(bare_newline, limit);
        let mut out = Vec::new();
        let mut end = None;
        let mut start = 0;
        let mut sizes = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
        while start < body.len() && end.is_none() {
            let size = sizes
                .next()
                .unwrap_or(usize::MAX)
                .clamp(1, body.len() - start);
            match scanner.scan(&body[start..start + size], &mut out) {
                Progress::End(at) => end = Some(start + at),
                Progress::More => start += size,
            }
        }
        (
            scanner.refusal().map_or(Ok(out), Err),
            end,
            scanner.octets(),
        )
    }

    fn reject(body: &[u8]) -> Outcome {
        scan(BareNewline::Reject, u64::MAX, body, &[])
    }

    fn normalize(body: &str) -> String {
        let (out, end, _) = scan(BareNewline::Normalize, u64::MAX, body.as_bytes(), &[]);
        assert_eq!(end, Some(body.len()), "{body:?}");
        String::from_utf8(out.unwrap()).unwrap()
    }

    #[test]
    fn good_body_passes_unchanged() {
        for body in [
            "a\r\n.\r\n",
            ".\r\n",
            "a\r\n..\r\n.b\r\n\r\n.\r\n",
            "a\r\n.b\r\n.\r\n",
        ] {
            let (out, end, octets) = reject(body.as_bytes());
            assert_eq!(out.as_deref(), Ok(body.as_bytes()), "{body:?}");
            assert_eq!(end, Some(body.len()));
            let stuffed = body.matches("\r\n.").count() - usize::from(body != ".\r\n");
            assert_eq!(octets as usize, body.len() - 3 - stuffed, "{body:?}");
        }
    }

    #[test]
    fn octets_after_the_end_are_untouched() {
        assert_eq!(reject(b"a\r\n.\r\nQUIT\r\n").1, Some(6));
    }

    #[test]
    fn odd_ends_never_end_a_message() {
        for odd in [
            "\n.\n",
            "\n.\r\n",
            "\r\n.\n",
            "\r.\r",
            "\n.\r",
            "\r.\n",
            "\r\n.\r",
            "\r.\r\n",
            "\r\r\n.\r\r\n",
            "\n\n.\n\n",
            "\r\n\r.\r\n",
            "\r\n.\r\r\n",
            "\r\n.\n\r\n",
            "\n.\r\r\n",
        ] {
            let body = format!("a{odd}MAIL FROM:<b>\r\n.\r\n");
            let (out, end, _) = reject(body.as_bytes());
            assert_eq!(
                out,
                Err(Refusal::BareNewline {
                    line: odd_line(odd)
                }),
                "{odd:?}"
            );
            assert_eq!(end, Some(body.len()), "{odd:?}");
            // Normalized, the true end of data is the only end.
            let normal = normalize(&body);
            assert_eq!(
                normal.find("\r\n.\r\n"),
                Some(normal.len() - 5),
                "{odd:?} -> {normal:?}"
            );
            let bare = normal.replace("\r\n", "");
            assert!(!bare.contains(['\r', '\n']), "{odd:?} -> {normal:?}");
        }
    }

    fn odd_line(odd: &str) -> u64 {
        if odd.starts_with("\r\n") { 2 } else { 1 }
    }

    #[test]
    fn normalizing_stuffs_lines_that_only_exist_after_the_split() {
        assert_eq!(normalize("a\n.\r\nb\r\n.\r\n"), "a\r\n..\r\nb\r\n.\r\n");
        assert_eq!(normalize("a\n..b\r\n.\r\n"), "a\r\n...b\r\n.\r\n");
        assert_eq!(normalize("..a\r\n.\r\n"), "..a\r\n.\r\n");
        assert_eq!(normalize(".a\r\n.\r\n"), ".a\r\n.\r\n");
        assert_eq!(normalize("a\rb\r\n.\r\n"), "a b\r\n.\r\n");
        assert_eq!(normalize(".\n.\r\n.\r\n"), "\r\n..\r\n.\r\n");
    }

    #[test]
    fn carriage_returns_before_a_line_end_are_dropped() {
        for (body, normal) in [
            ("S: t\r\r\n\r\r\nx\r\n.\r\n", "S: t\r\n\r\nx\r\n.\r\n"),
            ("a\r\r\r\n.\r\n", "a\r\n.\r\n"),
            ("a\r\r\n..b\r\r\n.\r\n", "a\r\n..b\r\n.\r\n"),
            ("a\r\n.\r\r\nb\r\n.\r\n", "a\r\n\r\nb\r\n.\r\n"),
            ("a\r\rb\r\n.\r\n", "a b\r\n.\r\n"),
            ("a\r\r.\r\n.\r\n", "a .\r\n.\r\n"),
        ] {
            assert_eq!(normalize(body), normal, "{body:?}");
            let (out, _, _) = reject(body.as_bytes());
            let line = if body.starts_with("a\r\n.") { 2 } else { 1 };
            assert_eq!(out, Err(Refusal::BareNewline { line }), "{body:?}");
        }
    }

    #[test]
    fn nul_is_rejected_or_becomes_a_space() {
        for (body, normal) in [
            ("a\r\n.\0\r\n.\r\n", "a\r\n \r\n.\r\n"),
            ("a\r\n.\0b\r\n.\r\n", "a\r\n b\r\n.\r\n"),
            ("a\r\n\0.\r\n.\r\n", "a\r\n .\r\n.\r\n"),
            ("a\r\nb\0c\r\n.\r\n", "a\r\nb c\r\n.\r\n"),
        ] {
            let (out, end, _) = reject(body.as_bytes());
            assert_eq!(out, Err(Refusal::Nul { line: 2 }), "{body:?}");
            assert_eq!(end, Some(body.len()), "{body:?}");
            assert_eq!(normalize(body), normal, "{body:?}");
        }
    }

    #[test]
    fn the_limit_counts_the_message_alone() {
        let body = b"12345\r\n..78\r\n.\r\n";
        assert!(scan(BareNewline::Reject, 12, body, &[]).0.is_ok());
        let (out, end, _) = scan(BareNewline::Reject, 11, body, &[]);
        assert_eq!((out, end), (Err(Refusal::TooLarge), Some(body.len())));
    }

    #[test]
    fn a_large_body_is_refused_while_it_streams() {
        let mut scanner = Scanner::new(BareNewline::Reject, 10);
        let mut out = Vec::new();
        assert_eq!(scanner.scan(&[b'x'; 11], &mut out), Progress::More);
        assert_eq!(scanner.refusal(), Some(Refusal::TooLarge));
        assert!(out.is_empty());
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            Just(b'\r'),
            Just(b'\n'),
            Just(b'.'),
            Just(b'a'),
            Just(b'\0')
        ];
        let word = prop_oneof![Just("\r\n"), Just("\r\n."), Just("a")];
        let any = proptest::collection::vec(byte, 0..40);
        let tame =
            proptest::collection::vec(word, 0..40).prop_map(|words| words.concat().into_bytes());
        prop_oneof![any, tame].prop_map(|body| [&body[..], b"\r\n.\r\n"].concat())
    }

    proptest! {
        #[test]
        fn pieces_never_change_the_outcome(body in body(), pieces in proptest::collection::vec(1usize..6, 0..60), limit in 0u64..60) {
            for bare_newline in [BareNewline::Normalize, BareNewline::Reject] {
                prop_assert_eq!(
                    scan(bare_newline, limit, &body, &[]),
                    scan(bare_newline, limit, &body, &pieces)
                );
            }
        }

        /// Single octets are never skipped, so the split result is the reference.
        #[test]
        fn skipping_changes_nothing(
            parts in proptest::collection::vec((0usize..400, body()), 1..8),
            pieces in proptest::collection::vec(1usize..500, 0..8),
        ) {
            let line = b"a line of mail, as long as most lines of most of all mail are,\r\n";
            let mut whole = Vec::new();
            for (length, odd) in parts {
                whole.extend(line.iter().cycle().skip(length % line.len()).take(length));
                whole.extend(odd.strip_suffix(b"\r\n.\r\n").unwrap());
            }
            whole.extend(b"\r\n.\r\n");
            let octets = vec![1; whole.len()];
            for bare_newline in [BareNewline::Reject, BareNewline::Normalize] {
                for limit in [100, u64::MAX] {
                    let one = scan(bare_newline, limit, &whole, &[]);
                    prop_assert_eq!(&scan(bare_newline, limit, &whole, &pieces), &one);
                    prop_assert_eq!(scan(bare_newline, limit, &whole, &octets), one);
                }
            }
        }

        #[test]
        fn accepted_body_equals_its_input(body in body()) {
            let (out, end, _) = reject(&body);
            if let Ok(out) = out {
                prop_assert_eq!(&out, &body[..end.unwrap()]);
            }
        }

        #[test]
        fn normalized_body_passes_unchanged(body in body()) {
            let (out, _, _) = scan(BareNewline::Normalize, u64::MAX, &body, &[]);
            let out = out.unwrap();
            let (again, end, _) = reject(&out);
            prop_assert_eq!(again.as_deref(), Ok(&out[..]));
            prop_assert_eq!(end, Some(out.len()));
        }
    }

    /// Checks the From header of a body split at `cut`.
    fn checked(body: &[u8], cut: usize, bare_newline: BareNewline) -> Option<Refusal> {
        let rules = r#"{"senders":["ok.test"],"header_from":true}"#;
        let policy = crate::policy::Policy {
            rules: serde_json::from_str(rules).unwrap(),
            ..Default::default()
        };
        let check = FromCheck::new(std::sync::Arc::new(policy));
        let mut scanner = Scanner::new(bare_newline, 1000).with_from(check, false);
        let mut out = Vec::new();
        let (first, second) = body.split_at(cut);
        if scanner.scan(first, &mut out) == Progress::More {
            scanner.scan(second, &mut out);
        }
        scanner.refusal()
    }

    #[test]
    fn from_check_reads_the_upstreams_octets() {
        let foreign = Some(Refusal::From(Fault::Foreign));
        for (body, rejecting, normalizing) in [
            ("From: a@ok.test\r\n\r\nx\r\n.\r\n", None, None),
            ("From: a@ok.test\r\n.\r\n", None, None),
            ("From: a@bad.test\r\n.\r\n", foreign, foreign),
            (".From: a@bad.test\r\n\r\n.\r\n", foreign, foreign),
            (
                "From: a@ok.test\r\n.\t, a@bad.test\r\n\r\n.\r\n",
                foreign,
                foreign,
            ),
            (
                "S: x\nFrom: a@bad.test\r\n\r\n.\r\n",
                Some(Refusal::BareNewline { line: 1 }),
                foreign,
            ),
            (
                "From: a@ok.test\r\r\n\r\r\nFrom: a@bad.test\r\n.\r\n",
                Some(Refusal::BareNewline { line: 1 }),
                None,
            ),
            (
                "From:\ra@ok.test\r\n\r\n.\r\n",
                Some(Refusal::BareNewline { line: 1 }),
                None,
            ),
        ] {
            for cut in 0..=body.len() {
                for (way, expected) in [
                    (BareNewline::Reject, rejecting),
                    (BareNewline::Normalize, normalizing),
                ] {
                    let found = checked(body.as_bytes(), cut, way);
                    assert_eq!(found, expected, "{body:?} at {cut}, {way:?}");
                }
            }
        }
    }
}
