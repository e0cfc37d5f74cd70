//! Reads a file of any size with one bounded line in memory.

use std::io::{self, BufRead};

use crate::sasl::Secret;

/// The longest line, in octets. A hash has 128, a username 255.
const LONGEST: usize = 4_096;

/// A line without its end.
pub(super) enum Line {
    /// Secret, because the line may hold a password.
    Text(Secret),
    /// Longer than the limit.
    TooLong,
}

pub(super) struct Lines<R> {
    reader: R,
    number: usize,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Lines<R> {
        Lines { reader, number: 0 }
    }

    /// The next line, numbered from 1.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn next(&mut self) -> io::Result<Option<(usize, Line)>> {
        let mut text = Vec::with_capacity(LONGEST); // never grows, so no copy is left behind
        let mut is_too_long = false;
        let mut is_end = true;
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            is_end = false;
            let end = memchr::memchr(b'\n', chunk);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            let read = part.len() + usize::from(end.is_some());
            match text.len() + part.len() <= LONGEST {
                true => text.extend_from_slice(part),
                false => is_too_long = true,
            }
            self.reader.consume(read);
            if end.is_some() {
                break;
            }
        }
        if is_end {
            return Ok(None);
        }
        self.number += 1;
        let text = Secret::new(text);
        let line = if is_too_long {
            Line::TooLong
        } else {
            Line::Text(text)
        };
        Ok(Some((self.number, line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, buffer: usize) -> Vec<Option<String>> {
        let mut lines = Lines::new(io::BufReader::with_capacity(buffer, text.as_bytes()));
        let mut all = Vec::new();
        while let Some((number, line)) = lines.next().unwrap() {
            all.push(match line {
                Line::Text(text) => Some(String::from_utf8(text.expose().to_vec()).unwrap()),
                Line::TooLong => None,
            });
            assert_eq!(number, all.len());
        }
        all
    }

    #[test]
    fn lines_are_bounded_wherever_the_buffer_ends() {
        let long = "x".repeat(LONGEST + 1);
        let text = format!("a\n\n{long}\nb\r\n{}\nlast", &long[1..]);
        let some = |text: &str| Some(text.to_owned());
        let expected = [
            some("a"),
            some(""),
            None,
            some("b\r"),
            some(&long[1..]),
            some("last"),
        ];
        for buffer in [1, 2, 7, 4_096, 100_000] {
            assert_eq!(read(&text, buffer), expected, "{buffer}");
        }
        assert!(read("", 16).is_empty());
    }
}
