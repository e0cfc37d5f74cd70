//! Splits the client's input into command lines while octets arrive.
//!
//! Only CRLF ends a line (RFC 5321, 2.3.8). A bare LF is reported at once, so that a person who
//! types by hand with wrong line ends gets an answer; the line itself still extends to its CRLF.

use std::ops::Range;

/// The longest line, in octets without its end: the RFC 4954, section 4 minimum for `AUTH`. The
/// session enforces shorter limits for other commands.
pub const MAX_LINE: usize = crate::sasl::MAX_RESPONSE + "AUTH PLAIN ".len();

/// How much of an overlong line is kept, to identify the command.
const KEPT: usize = 16;

/// A line of the client, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// The line holds a bare CR or LF.
    BareNewline,
    /// A line that ended in CRLF.
    Good(&'a [u8]),
    /// Longer than [`MAX_LINE`]; only the start is kept.
    TooLong(&'a [u8]),
}

/// Remembers the scanned length of the current line, so that a line arriving in pieces is scanned
/// once.
#[derive(Debug, Default)]
pub struct LineReader {
    scanned: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Line,
    /// Too long: only the start and the end of the line are kept.
    Overlong,
    /// Already rejected for a bare LF. Everything up to the CRLF still belongs to the line: parsed
    /// as new, the rest could be a command hidden in an argument.
    Refused,
}

impl LineReader {
    /// Returns the text at the front of `input` up to an LF, with the number of octets that the
    /// caller must remove. The outer `None` means that no line is complete: the caller removes
    /// [`LineReader::excess`] and calls again with more input. The inner `None` is the rest of a
    /// line already rejected, which needs no further reply.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Option<(Option<Line<'a>>, usize)> {
        let Some(offset) = memchr::memchr(b'\n', &input[self.scanned..]) else {
            self.scanned = input.len();
            return None;
        };
        let end = self.scanned + offset;
        self.scanned = 0;
        let (text, whole) = match input[..end].strip_suffix(b"\r") {
            // The kept part of an overlong line may end in a CR that was followed by other octets.
            Some(_) if self.state == State::Overlong && end == KEPT => (&input[..end], false),
            Some(text) => (text, true),
            None => (&input[..end], false),
        };
        let after = if whole { State::Line } else { State::Refused };
        let line = match std::mem::replace(&mut self.state, after) {
            State::Refused => None,
            State::Overlong => Some(Line::TooLong(&text[..KEPT])),
            State::Line if text.len() > MAX_LINE => Some(Line::TooLong(&text[..KEPT])),
            State::Line if !whole || text.contains(&b'\r') => Some(Line::BareNewline),
            State::Line => Some(Line::Good(text)),
        };
        Some((line, end + 1))
    }

    /// Returns the range to remove from an incomplete line, so that the buffer stays bounded.
    pub fn excess(&mut self, input: &[u8]) -> Range<usize> {
        // A final CR may be half of a CRLF.
        let end = input.len() - usize::from(input.ends_with(b"\r"));
        let start = match self.state {
            State::Refused => 0,
            State::Line if end <= MAX_LINE => return 0..0,
            State::Line | State::Overlong => KEPT,
        };
        if self.state == State::Line {
            self.state = State::Overlong;
        }
        self.scanned = input.len() - (end - start);
        start..end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns every line of `input`, fed in pieces of the given sizes.
    fn lines(input: &[u8], pieces: &[usize]) -> Vec<String> {
        let mut reader = LineReader::default();
        let mut buffer = Vec::new();
        let mut found = Vec::new();
        let mut rest = input;
        let mut sizes = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len());
            buffer.extend_from_slice(&rest[..size]);
            rest = &rest[size..];
            while let Some((line, taken)) = reader.next(&buffer) {
                found.extend(line.map(|line| format!("{line:?}")));
                buffer.drain(..taken);
            }
            buffer.drain(reader.excess(&buffer));
            assert!(buffer.len() <= MAX_LINE + 1);
        }
        found
    }

    #[test]
    fn only_crlf_ends_a_good_line() {
        let good = |text: &str| format!("{:?}", Line::Good(text.as_bytes()));
        let bare = || format!("{:?}", Line::BareNewline);
        for (input, expected) in [
            ("NOOP\r\nQ", vec![good("NOOP")]),
            ("QUIT\n", vec![bare()]),
            ("MAIL\nRCPT\r\nNOOP\r\n", vec![bare(), good("NOOP")]),
            ("MAIL\nRCPT\nDATA\n\r\nNOOP\r\n", vec![bare(), good("NOOP")]),
            ("NO\rOP\r\n", vec![bare()]),
            ("NOOP\r\r\n", vec![bare()]),
            ("\r\n", vec![good("")]),
            ("NOOP\r", vec![]),
        ] {
            assert_eq!(lines(input.as_bytes(), &[]), expected, "{input:?}");
        }
    }

    #[test]
    fn an_overlong_line_is_dropped_whole() {
        let input = [&b"AUTH PLAIN "[..], &[b'A'; 40_000], b"\r\nNOOP\r\n"].concat();
        let expected = vec![
            format!("{:?}", Line::TooLong(&input[..KEPT])),
            format!("{:?}", Line::Good(b"NOOP")),
        ];
        assert_eq!(lines(&input, &[]), expected);
        assert_eq!(lines(&input, &[1000; 60]), expected);
        // A CR at the end of the kept part ends no line, however the rest arrives.
        let odd = [
            &[b'x'; KEPT - 1][..],
            b"\r",
            &[b'x'; 14_000],
            b"\nNOOP\r\nNOOP\r\n",
        ]
        .concat();
        let expected =
            [Line::TooLong(&odd[..KEPT]), Line::Good(b"NOOP")].map(|line| format!("{line:?}"));
        assert_eq!(lines(&odd, &[]), expected);
        assert_eq!(lines(&odd, &[14_000, 16, 1, 1]), expected);
        let longest = [&[b'x'; MAX_LINE][..], b"\r\n"].concat();
        assert_eq!(lines(&longest, &[1; 20_000]).len(), 1);
        assert!(lines(&longest, &[1; 20_000])[0].starts_with("Good"));
    }

    proptest! {
        #[test]
        fn pieces_never_change_over_long_lines(
            start in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'a')], KEPT..KEPT + 2),
            middle in MAX_LINE - 20..MAX_LINE + 20,
            end in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a')], 0..8),
            pieces in proptest::collection::vec(1usize..9000, 0..12),
        ) {
            let input = [&start[..], &vec![b'x'; middle], &end, b"\r\nNOOP\r\n"].concat();
            prop_assert_eq!(lines(&input, &[]), lines(&input, &pieces));
        }

        #[test]
        fn pieces_never_change_the_lines(
            input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a'), any::<u8>()], 0..300),
            pieces in proptest::collection::vec(1usize..9, 0..300),
        ) {
            prop_assert_eq!(lines(&input, &[]), lines(&input, &pieces));
        }
    }
}
