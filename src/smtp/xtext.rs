//! xtext (RFC 3461, section 4): a safe encoding of any octet in XCLIENT and ESMTP parameters.

use std::fmt::Write as _;

/// Appends `value` to `out` as xtext. Characters that could end or split a command (spaces, CR, LF,
/// `=` and `+`) become `+XX`.
pub fn encode(value: &str, out: &mut String) {
    for &byte in value.as_bytes() {
        match byte {
            b'+' | b'=' | ..=b' ' | 0x7f.. => {
                // Writing to a String cannot fail.
                let _ = write!(out, "+{byte:02X}");
            }
            _ => out.push(char::from(byte)),
        }
    }
}

/// Whether `value` is well-formed xtext, with upper-case hexadecimal only, as in the RFC.
pub fn is_valid(value: &[u8]) -> bool {
    let mut rest = value;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match (byte, tail) {
            (b'+', [high, low, tail @ ..]) if is_hex(*high) && is_hex(*low) => tail,
            (b'+' | b'=' | ..=b' ' | 0x7f.., _) => return false,
            _ => tail,
        };
    }
    true
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'F')
}

/// Decodes xtext; returns `None` if malformed.
pub fn decode(value: &[u8]) -> Option<Vec<u8>> {
    if !is_valid(value) {
        return None;
    }
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        let octet = match byte {
            b'+' => nibble(*bytes.next()?)? << 4 | nibble(*bytes.next()?)?,
            byte => byte,
        };
        decoded.push(octet);
    }
    Some(decoded)
}

fn nibble(hex: u8) -> Option<u8> {
    char::from(hex)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn command_separators_are_encoded() {
        let mut out = String::new();
        encode("a b\r\nMAIL=+é", &mut out);
        assert_eq!(out, "a+20b+0D+0AMAIL+3D+2B+C3+A9");
    }

    #[test]
    fn malformed_xtext_is_refused() {
        for value in ["+", "+4", "+4g", "+4a", "a=b", "a b", "\u{e9}"] {
            assert!(!is_valid(value.as_bytes()), "{value}");
            assert_eq!(decode(value.as_bytes()), None);
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(value: String) {
            let mut out = String::new();
            encode(&value, &mut out);
            prop_assert!(is_valid(out.as_bytes()));
            prop_assert_eq!(decode(out.as_bytes()), Some(value.into_bytes()));
        }

        #[test]
        fn any_octets_are_decoded_or_refused(value: Vec<u8>) {
            prop_assert_eq!(is_valid(&value), decode(&value).is_some());
        }
    }
}
