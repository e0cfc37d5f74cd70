//! The client's name in EHLO and HELO. Devices send their computer's name with umlauts, blanks or
//! underscores, in any encoding.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The longest kept name in characters, and the longest forwarded name in octets (RFC 5321,
/// 4.5.3.1.2).
const MAX_NAME: usize = 255;

/// The longest label between two dots, in octets (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// Decodes the name for the log and for people. A name that is not UTF-8 is read as Latin-1.
pub fn read(name: &[u8]) -> Arc<str> {
    match std::str::from_utf8(name) {
        Ok(text) if text.len() <= MAX_NAME => text.into(),
        Ok(text) => text.chars().take(MAX_NAME).collect::<String>().into(),
        Err(_) => name
            .iter()
            .take(MAX_NAME)
            .map(|&byte| char::from(byte))
            .collect::<String>()
            .into(),
    }
}

/// Converts the name for the upstream: a domain or an address literal. A hyphen replaces every
/// character that is invalid in host names.
pub fn clean(name: &str) -> String {
    if is_literal(name) {
        return name.to_owned();
    }
    let is_kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let plain: String = name
        .chars()
        .map(|c| if is_kept(&c) { c } else { '-' })
        .collect();
    let mut clean = String::with_capacity(plain.len());
    for label in plain.split('.') {
        let label = label.trim_matches('-');
        // Only ASCII is left.
        let label = label
            .get(..MAX_LABEL)
            .unwrap_or(label)
            .trim_end_matches('-');
        let dot = usize::from(!clean.is_empty());
        if label.is_empty() || clean.len() + dot + label.len() > MAX_NAME {
            continue;
        }
        if dot == 1 {
            clean.push('.');
        }
        clean.push_str(label);
    }
    match clean.is_empty() {
        true => "unknown".to_owned(),
        false => clean,
    }
}

/// Whether the name is an address in brackets (RFC 5321, 4.1.3).
fn is_literal(name: &str) -> bool {
    let inner = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => inner[5..].parse::<Ipv6Addr>().is_ok(),
        _ => inner.parse::<Ipv4Addr>().is_ok(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clean_name_stays_recognisable() {
        for (name, expected) in [
            ("mx.test", "mx.test"),
            ("my_pc", "my_pc"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
            ("192.0.2.1", "192.0.2.1"),
            ("büro-pc", "b-ro-pc"),
            ("my pc", "my-pc"),
            ("a%20b", "a-20b"),
            ("[300.1.2.3]", "300.1.2.3"),
            ("[x", "x"),
            ("комп", "unknown"),
            ("комп.example.org", "example.org"),
            ("a..b.", "a.b"),
            ("-x-", "x"),
            ("a\r\nb+c=d", "a--b-c-d"),
            (".", "unknown"),
        ] {
            assert_eq!(clean(name), expected, "{name}");
        }
        assert_eq!(clean(&"x".repeat(300)).len(), MAX_LABEL);
    }

    #[test]
    fn a_name_is_text_in_any_encoding() {
        assert_eq!(&*read("büro".as_bytes()), "büro");
        assert_eq!(&*read(b"b\xfcro"), "büro");
        assert_eq!(read(&[b'x'; 2_000]).len(), MAX_NAME);
    }

    proptest! {
        #[test]
        fn a_clean_name_has_no_other_character(name: String) {
            let clean = clean(&name);
            prop_assert!((1..=MAX_NAME).contains(&clean.len()));
            let is_safe = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
            prop_assert!(clean.chars().all(is_safe), "{}", clean);
        }
    }
}
