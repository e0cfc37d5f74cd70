//! Reads the address of MAIL or RCPT in any spelling and writes the canonical spelling.
//!
//! Mail programs send addresses with a display name, comments, needless quotes, blanks or a second
//! pair of brackets. Postfix reads all of these; other servers may read a different address. The
//! upstream, the limits and the rules therefore get a single spelling: `local-part@domain`, with
//! quotes only where the local part needs quotes.

use std::borrow::Cow;

/// Returns the address in `text`, which has neither surrounding brackets nor a source route; `None`
/// unless `text` is exactly a single address.
pub fn read(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (local, domain) = split(text);
    if is_dot_string(local) && is_domain(domain) {
        return Some(Cow::Borrowed(text));
    }
    quote(unquote(text)?).map(Cow::Owned)
}

/// The kind of the previous octets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// The last octet of an atom, which the next octet may continue.
    Atom,
    /// Nothing, or an operator: `@`, `.` or `:`.
    Operator,
    /// A whole word: a quoted string, or an atom followed by a blank.
    Word,
}

/// Removes quotes, backslashes, comments and brackets (RFC 5322, 3.2 and 3.4).
fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    let mut address = Vec::with_capacity(text.len());
    let mut before = Before::Operator;
    // Two words without an operator between them are a display name; an address in brackets must
    // follow.
    let mut is_name = false;
    let mut is_closed = false;
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'(' => {
                if byte == b'(' {
                    skip_comment(&mut bytes)?;
                }
                if before == Before::Atom {
                    before = Before::Word;
                }
            }
            b'>' => is_closed = true,
            // Separators in a list of a single address. After a colon a separator would end a
            // group.
            b',' | b';' if address.is_empty() => {}
            b',' | b';' if !address.contains(&b':') => is_closed = true,
            b',' | b';' => return None,
            _ if is_closed => return None,
            b'<' => {
                address.clear();
                before = Before::Operator;
                is_name = false;
            }
            b'@' | b'.' | b':' => {
                address.push(byte);
                before = Before::Operator;
            }
            b'"' => {
                is_name |= before != Before::Operator;
                unquote_string(&mut bytes, &mut address)?;
                before = Before::Word;
            }
            _ => {
                is_name |= before == Before::Word;
                before = Before::Atom;
                match byte {
                    // A backslash at the end escapes nothing.
                    b'\\' => address.extend(bytes.next().map(without_tab)),
                    _ => address.push(byte),
                }
            }
        }
    }
    (!is_name).then_some(address)
}

fn skip_comment(bytes: &mut impl Iterator<Item = u8>) -> Option<()> {
    let mut depth = 1_u32;
    while depth > 0 {
        match bytes.next()? {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    Some(())
}

fn unquote_string(bytes: &mut impl Iterator<Item = u8>, address: &mut Vec<u8>) -> Option<()> {
    loop {
        match bytes.next()? {
            b'"' => return Some(()),
            b'\\' => address.push(without_tab(bytes.next()?)),
            byte => address.push(without_tab(byte)),
        }
    }
}

/// Replaces a tab by a space: the upstream's command contains no tabs.
fn without_tab(byte: u8) -> u8 {
    match byte {
        b'\t' => b' ',
        _ => byte,
    }
}

/// Quotes the local part if needed.
fn quote(address: Vec<u8>) -> Option<Vec<u8>> {
    let (local, domain) = split(&address);
    if !is_domain(domain) {
        return None;
    }
    if is_dot_string(local) {
        return Some(address);
    }
    let mut quoted = vec![b'"'];
    for &byte in local {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    quoted.extend_from_slice(domain);
    Some(quoted)
}

/// Splits the local part from the domain with its `@`; a local part alone is an address too.
fn split(address: &[u8]) -> (&[u8], &[u8]) {
    let at = memchr::memrchr(b'@', address).unwrap_or(address.len());
    address.split_at(at)
}

/// Dots may stand anywhere: some providers have such addresses, and all servers read the dots
/// alike.
fn is_dot_string(local: &[u8]) -> bool {
    local.iter().all(|&byte| is_atext(byte) || byte == b'.')
}

/// A name or an address literal. The upstream decides whether the domain is valid.
fn is_domain(domain: &[u8]) -> bool {
    let in_literal = |byte: &u8| byte.is_ascii_alphanumeric() || b".:-".contains(byte);
    match domain {
        [] => true,
        [_, b'[', literal @ .., b']'] => literal.iter().all(in_literal),
        [_, name @ ..] => !name.is_empty() && is_dot_string(name),
    }
}

/// RFC 5322, 3.2.3, and beyond ASCII RFC 6532.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spelled(text: &str) -> Option<String> {
        Some(String::from_utf8(read(text.as_bytes())?.into_owned()).unwrap())
    }

    #[test]
    fn every_spelling_becomes_canonical() {
        for text in [
            "a@b.test",
            "<a@b.test>",
            "a@b.test>",
            "a@b.test;",
            ",a@b.test, ;",
            r#""a"@b.test"#,
            r#""\a"@b.test"#,
            r"\a@b.test",
            r"a\@b.test",
            r#""a@b.test""#,
            "(x)a(y)@(z)b.test",
            r"a((x)\)y)@b.test",
            "a @ b . test",
            "Office <a@b.test>",
            "Office at b <a@b.test> (x)",
            r#""Of>fice" <a@b.test>"#,
            "other@b.test <a@b.test>",
            r#"a@"b".test"#,
            r"a@b.test\",
        ] {
            assert_eq!(spelled(text).as_deref(), Some("a@b.test"), "{text}");
        }
    }

    #[test]
    fn a_local_part_has_quotes_only_if_it_needs_them() {
        for (text, expected) in [
            (r#""a b"@c"#, r#""a b"@c"#),
            (r"a\ b@c", r#""a b"@c"#),
            ("\"a\tb\"@c", r#""a b"@c"#),
            ("a\\\tb@c", r#""a b"@c"#),
            (r#""a\"b\\"@c"#, r#""a\"b\\"@c"#),
            (r#""a>b"@c"#, r#""a>b"@c"#),
            ("a)@c", r#""a)"@c"#),
            ("a:b@c", r#""a:b"@c"#),
            (r#""a@b"@c"#, r#""a@b"@c"#),
            ("a@b@c", r#""a@b"@c"#),
            (r#"x<"@b:a"@c>"#, r#""@b:a"@c"#),
            (r#""a".b@c"#, "a.b@c"),
            (".a..b.@c", ".a..b.@c"),
            (r#""""#, ""),
            ("", ""),
            ("Office <>", ""),
            ("a", "a"),
            (r#""a b""#, r#""a b""#),
            ("@b", "@b"),
            ("\u{e9}@b", "\u{e9}@b"),
            ("\"\u{e9}\"@b", "\u{e9}@b"),
            ("a@[192.0.2.1]", "a@[192.0.2.1]"),
            (r#""a"@[IPv6:::1]"#, "a@[IPv6:::1]"),
        ] {
            assert_eq!(spelled(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_text_is_no_address() {
        for text in [
            "a b@c",
            "a@b c",
            r"a@b\ c",
            r#"a@"b c""#,
            "a(x)b@c",
            "<a@b>x",
            "<a@b>,<c@d>",
            "<a@b> <c@d>",
            "a@b,c@d",
            "Name, x <a@b>",
            "Name:a@b;",
            r#"a"b"@c"#,
            r#""a"b@c"#,
            r#""a" "b"@c"#,
            r#""Name" a@b"#,
            r#""a@b"#,
            r#""a@b\"#,
            "a(b@c",
            "a@",
            "@",
            "a@[b",
            "a@b]",
            "a@[b]c",
            "a@[[b]]",
            "a@b:c",
        ] {
            assert_eq!(spelled(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_address_has_specials_only_in_quotes(text in "[ <>\"\\\\@:;,.()\\[\\]a-c\u{e9}\t]{0,24}") {
            let Some(address) = spelled(&text) else {
                return Ok(());
            };
            prop_assert_eq!(spelled(&address), Some(address.clone()));
            let mut is_quoted = false;
            let mut chars = address.chars();
            while let Some(char) = chars.next() {
                match char {
                    '"' => is_quoted = !is_quoted,
                    '\\' => prop_assert!(is_quoted && chars.next().is_some(), "{}", address),
                    ' ' | '<' | '>' | '(' | ')' | ',' | ';' => prop_assert!(is_quoted, "{}", address),
                    char => prop_assert!(!char.is_control(), "{}", address),
                }
            }
            prop_assert!(!is_quoted, "{}", address);
        }
    }
}
