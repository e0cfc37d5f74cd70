//! Finds the end of a client's command line in a buffer that fills as bytes arrive.
//!
//! Only CRLF ends a good line (RFC 5321, 2.3.8). A bare LF ends a line too, a bad one, so that
//! whoever types by hand with the wrong line ends is told at once instead of waiting for ever.

/// The longest line kept, in octets without its end: what RFC 4954 section 4 asks for `AUTH`.
/// Shorter limits for other commands are the session's.
pub const MAX_LINE: usize = crate::sasl::MAX_RESPONSE + "AUTH PLAIN ".len();

/// How much of an over-long line is kept, to tell which command it was.
const KEPT: usize = 16;

/// One line of the client's, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Held a CR or LF that is not part of a CRLF.
    BareNewline,
    /// A line that ended in CRLF.
    Good(&'a [u8]),
    /// Longer than [`MAX_LINE`]; only its beginning is left.
    TooLong(&'a [u8]),
}

/// Remembers how far the current line has been looked at, so that a line arriving in pieces is
/// scanned once.
#[derive(Debug, Default)]
pub struct LineReader {
    scanned: usize,
    overlong: bool,
}

impl LineReader {
    /// The first line in `input` and the number of octets it takes up, which the caller must
    /// then remove. `None`: the line is not complete; call again with more behind the same
    /// octets, after [`LineReader::trim`].
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Option<(Line<'a>, usize)> {
        let Some(offset) = memchr::memchr(b'\n', &input[self.scanned..]) else {
            self.scanned = input.len();
            return None;
        };
        let end = self.scanned + offset;
        let overlong = std::mem::take(&mut self.overlong);
        self.scanned = 0;
        let text = &input[..end];
        let line = match text.strip_suffix(b"\r") {
            _ if overlong => Line::TooLong(&text[..KEPT]),
            Some(text) if text.len() > MAX_LINE => Line::TooLong(&text[..KEPT]),
            Some(text) if !text.contains(&b'\r') => Line::Good(text),
            _ if text.len() > MAX_LINE => Line::TooLong(&text[..KEPT]),
            _ => Line::BareNewline,
        };
        Some((line, end + 1))
    }

    /// How many octets of an incomplete line to remove behind its first [`trim_from`] octets, so
    /// that the buffer stays bounded however long the line gets.
    ///
    /// [`trim_from`]: LineReader::trim_from
    pub fn trim(&mut self, input: &[u8]) -> usize {
        // One more than the limit for the CR that may still be followed by its LF.
        if input.len() <= MAX_LINE + 1 {
            return 0;
        }
        self.overlong = true;
        self.scanned = KEPT;
        input.len() - KEPT
    }

    /// Where [`LineReader::trim`] removes octets from.
    pub const fn trim_from() -> usize {
        KEPT
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every line of `input`, fed in pieces of the given sizes.
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
                found.push(format!("{line:?}"));
                buffer.drain(..taken);
            }
            let cut = reader.trim(&buffer);
            let from = LineReader::trim_from();
            if cut > 0 {
                buffer.drain(from..from + cut);
            }
            assert!(buffer.len() <= MAX_LINE + 1);
        }
        found
    }

    #[test]
    fn crlf_ends_a_line_and_nothing_else_ends_a_good_one() {
        let mut reader = LineReader::default();
        assert_eq!(reader.next(b"NOOP\r\nQ"), Some((Line::Good(b"NOOP"), 6)));
        assert_eq!(reader.next(b"QUIT\n"), Some((Line::BareNewline, 5)));
        assert_eq!(reader.next(b"NO\rOP\r\n"), Some((Line::BareNewline, 7)));
        assert_eq!(reader.next(b"NOOP\r\r\n"), Some((Line::BareNewline, 7)));
        assert_eq!(reader.next(b"\r\n"), Some((Line::Good(b""), 2)));
        assert_eq!(reader.next(b"NOOP\r"), None);
        assert_eq!(reader.next(b"NOOP\r\n"), Some((Line::Good(b"NOOP"), 6)));
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
        let longest = [&[b'x'; MAX_LINE][..], b"\r\n"].concat();
        assert_eq!(lines(&longest, &[1; 20_000]).len(), 1);
        assert!(lines(&longest, &[1; 20_000])[0].starts_with("Good"));
    }

    proptest! {
        #[test]
        fn pieces_never_change_the_lines(
            input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a'), any::<u8>()], 0..300),
            pieces in proptest::collection::vec(1usize..9, 0..300),
        ) {
            prop_assert_eq!(lines(&input, &[]), lines(&input, &pieces));
        }
    }
}
