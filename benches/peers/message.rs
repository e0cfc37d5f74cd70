//! What is sent, and how the sink knows that it arrived as it was: the first line holds a number, and a checksum of all
//! that follows.

use std::fmt::Write as _;

/// How the line begins. What stands before it was put there by whoever passed the message on.
pub const MARK: &[u8] = b"X-Peers: ";

/// The number in hexadecimal, a space, and the checksum in hexadecimal.
pub const LINE: usize = MARK.len() + 16 + 1 + 64;

/// What most programs wrap at, without CRLF (RFC 5322, 2.1.1).
const COLUMNS: usize = 76;

/// A message with an exchangeable number.
pub struct Message {
    checksum: String,
    rest: Vec<u8>,
}

impl Message {
    /// One of `size` octets on the wire, the end of data not counted.
    pub fn new(size: usize) -> Message {
        let mut rest = b"Subject: peers\r\n\r\n".to_vec();
        let size = size.saturating_sub(LINE + 2).max(rest.len() + 2);
        let text: Vec<u8> = (b'0'..=b'9').chain(b'A'..=b'Z').collect();
        let mut at = 0;
        while rest.len() + COLUMNS + 4 < size {
            rest.extend((0..COLUMNS).map(|column| text[(at + column) % text.len()]));
            rest.extend_from_slice(b"\r\n");
            at += 7;
        }
        rest.resize(size - 2, b'x');
        rest.extend_from_slice(b"\r\n");
        Message {
            checksum: blake3::hash(&rest).to_hex().to_string(),
            rest,
        }
    }

    /// The first line.
    pub fn head(&self, number: u64, out: &mut Vec<u8>) {
        let mut line = String::with_capacity(LINE + 2);
        let _ = write!(line, "{number:016x} {}\r\n", self.checksum);
        out.extend_from_slice(MARK);
        out.extend_from_slice(line.as_bytes());
    }

    /// All that follows it. No line begins with a dot.
    pub fn rest(&self) -> &[u8] {
        &self.rest
    }
}

/// What the first line claims: the number, and the checksum as text.
pub fn claim(line: &[u8]) -> Option<(u64, [u8; 64])> {
    let line = line.strip_prefix(MARK)?;
    let (number, checksum) = line.split_at_checked(16)?;
    let number = u64::from_str_radix(std::str::from_utf8(number).ok()?, 16).ok()?;
    let checksum = checksum.strip_prefix(b" ")?.get(..64)?;
    Some((number, checksum.try_into().ok()?))
}
