//! Parses a client's command line (RFC 5321, 4.1.1).

use std::borrow::Cow;

use super::mailbox;

/// A parsed command that borrows from its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `AUTH mechanism [initial-response]`: the text after the verb.
    Auth(&'a [u8]),
    Data,
    /// `EHLO name`: the client's name, unchanged.
    Ehlo(&'a [u8]),
    Helo(&'a [u8]),
    Help,
    Mail(Path<'a>),
    Noop,
    /// A verb of SMTP or of an extension that Gatepost never offers: BDAT, BURL, ETRN, EXPN, SAML,
    /// SEND, SOML, TURN, XCLIENT, XFORWARD.
    NotOffered,
    Quit,
    Rcpt(Path<'a>),
    Rset,
    StartTls,
    Vrfy,
}

/// The path and parameters of MAIL and RCPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    /// The address in canonical spelling, without angle brackets and source route; empty for `<>`.
    pub address: Cow<'a, [u8]>,
    /// The text after the path, without surrounding blanks.
    parameters: &'a [u8],
    /// Whether the line may go upstream unchanged.
    is_canonical: bool,
}

/// Why a line is no valid command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The arguments are missing, superfluous or malformed.
    Arguments,
    /// A NUL or another control character, or an octet outside UTF-8.
    Characters,
    /// Longer than the command allows.
    TooLong,
    Unknown,
}

/// The longest command line in octets, without its end. RFC 5321, 4.5.3.1.4 asks for 512.
const MAX_COMMAND: usize = 2048;

/// The longest MAIL or RCPT in octets; extensions keep adding parameters.
const MAX_ENVELOPE: usize = 4096;

impl<'a> Command<'a> {
    /// Parses a line, given without CRLF. Like Postfix, accepts leading blanks, and tabs as blanks.
    pub fn parse(line: &'a [u8]) -> Result<Self, CommandError> {
        let (verb, rest) = split_verb(line);
        let mut upper = [0; 8];
        let Some(upper) = upper.get_mut(..verb.len()) else {
            return Err(refuse_unknown(line));
        };
        upper.copy_from_slice(verb);
        upper.make_ascii_uppercase();
        let limit = match &*upper {
            // The line reader limits AUTH itself.
            b"AUTH" => usize::MAX,
            b"MAIL" | b"RCPT" => MAX_ENVELOPE,
            _ => MAX_COMMAND,
        };
        if line.len() > limit {
            return Err(CommandError::TooLong);
        }
        match &*upper {
            b"EHLO" => return client_name(rest).map(Self::Ehlo),
            b"HELO" => return client_name(rest).map(Self::Helo),
            _ => check_printable(rest)?,
        }
        match &*upper {
            b"AUTH" => Ok(Self::Auth(rest)),
            b"DATA" => alone(rest, Self::Data),
            b"HELP" => Ok(Self::Help),
            b"MAIL" => Path::parse(line, rest, b"FROM:").map(Self::Mail),
            b"NOOP" => Ok(Self::Noop),
            b"QUIT" => Ok(Self::Quit),
            b"RCPT" => Path::parse(line, rest, b"TO:").map(Self::Rcpt),
            b"RSET" => alone(rest, Self::Rset),
            b"STARTTLS" => alone(rest, Self::StartTls),
            b"VRFY" if rest.is_empty() => Err(CommandError::Arguments),
            b"VRFY" => Ok(Self::Vrfy),
            b"BDAT" | b"BURL" | b"ETRN" | b"EXPN" | b"SAML" | b"SEND" | b"SOML" | b"TURN"
            | b"XCLIENT" | b"XFORWARD" => Ok(Self::NotOffered),
            _ => Err(CommandError::Unknown),
        }
    }
}

/// Splits the verb from the rest of the line, both without surrounding blanks. A trailing space is
/// common and harmless (RFC 5321, 4.1.1).
pub(super) fn split_verb(line: &[u8]) -> (&[u8], &[u8]) {
    let line = trim(line);
    let end = line.iter().position(is_blank).unwrap_or(line.len());
    let (verb, rest) = line.split_at(end);
    (verb, trim(rest))
}

/// Removes blanks at both ends.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !is_blank(byte);
    let start = text.iter().position(is_text).unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(is_text)
        .map_or(start, |last| last + 1);
    &text[start..end]
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn refuse_unknown(line: &[u8]) -> CommandError {
    match line.len() {
        ..=MAX_COMMAND => CommandError::Unknown,
        _ => CommandError::TooLong,
    }
}

/// SMTPUTF8 allows UTF-8 in arguments (RFC 6531, 3.3); no standard allows control characters.
fn check_printable(rest: &[u8]) -> Result<(), CommandError> {
    let text = std::str::from_utf8(rest).map_err(|_| CommandError::Characters)?;
    let has_controls = if text.is_ascii() {
        // Branch-free, so that the compiler vectorizes the loop.
        rest.iter().fold(false, |any, byte| {
            any | (byte.is_ascii_control() & (*byte != b'\t'))
        })
    } else {
        text.chars().any(|c| c.is_control() && c != '\t')
    };
    match has_controls {
        true => Err(CommandError::Characters),
        false => Ok(()),
    }
}

fn alone<'a>(rest: &[u8], command: Command<'a>) -> Result<Command<'a>, CommandError> {
    if rest.is_empty() {
        Ok(command)
    } else {
        Err(CommandError::Arguments)
    }
}

/// Accepts any name without NUL: the client's login decides, not its name.
fn client_name(name: &[u8]) -> Result<&[u8], CommandError> {
    match name {
        [] => Err(CommandError::Arguments),
        _ if name.contains(&0) => Err(CommandError::Characters),
        _ => Ok(name),
    }
}

impl<'a> Path<'a> {
    /// Parses `FROM:<path> [parameters]`, the `rest` of the `line`. The grammar forbids blanks
    /// after the colon, paths without brackets and odd spellings of the address, but many devices
    /// send them and Postfix accepts them.
    fn parse(line: &[u8], rest: &'a [u8], keyword: &[u8]) -> Result<Self, CommandError> {
        let (prefix, rest) = rest
            .split_at_checked(keyword.len())
            .ok_or(CommandError::Arguments)?;
        if !prefix.eq_ignore_ascii_case(keyword) {
            return Err(CommandError::Arguments);
        }
        let rest = trim(rest);
        let length = path_length(rest).ok_or(CommandError::Arguments)?;
        let (path, parameters) = rest.split_at(length);
        let inside = path
            .strip_prefix(b"<")
            .and_then(|path| path.strip_suffix(b">"));
        let address = mailbox::read(without_route(trim(inside.unwrap_or(path))))
            .ok_or(CommandError::Arguments)?;
        Ok(Self {
            parameters: trim(parameters),
            is_canonical: inside == Some(&*address)
                && !line.first().is_some_and(is_blank)
                && !line.contains(&b'\t'),
            address,
        })
    }

    /// Writes the command for the upstream into `out`: the `line` if canonical, else `prefix`
    /// (`MAIL FROM:`), the address in brackets and the parameters.
    pub fn write(&self, prefix: &[u8], line: &[u8], out: &mut Vec<u8>) {
        if self.is_canonical {
            return out.extend_from_slice(line);
        }
        out.extend_from_slice(prefix);
        out.push(b'<');
        out.extend_from_slice(&self.address);
        out.push(b'>');
        for word in self.words() {
            out.push(b' ');
            out.extend_from_slice(word);
        }
    }

    fn words(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.parameters
            .split(is_blank)
            .filter(|word| !word.is_empty())
    }

    /// Iterates over the parameters as keyword and value (RFC 5321, 4.1.2: `esmtp-keyword ["="
    /// esmtp-value]`).
    pub fn parameters(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        self.words().map(|word| match memchr::memchr(b'=', word) {
            Some(at) => (&word[..at], Some(&word[at + 1..])),
            None => (word, None),
        })
    }
}

/// Returns the length of the path at the front, up to the first blank outside brackets and quotes.
/// Quotes hide brackets, and a backslash hides the next character (RFC 5321, 4.1.2). Returns `None`
/// without a path, or with an unclosed bracket or quote.
fn path_length(text: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut is_quoted = false;
    let mut bytes = text.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            b'<' => depth += 1,
            b'>' => depth = depth.saturating_sub(1),
            b' ' | b'\t' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    (depth == 0 && !is_quoted && !text.is_empty()).then_some(text.len())
}

/// Removes a source route, which servers ignore today (RFC 5321, appendix C).
fn without_route(path: &[u8]) -> &[u8] {
    let is_route = |route: &[u8]| {
        let mut domains = route.split(|&byte| byte == b',');
        let is_domain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
        domains.all(|domain| {
            matches!(domain, [b'@', name @ ..] if !name.is_empty() && name.iter().all(is_domain))
        })
    };
    let mut address = path;
    while let Some(colon) = memchr::memchr(b':', address)
        && is_route(&address[..colon])
    {
        address = &address[colon + 1..];
    }
    address
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn verbs_are_read_in_any_case() {
        for (line, command) in [
            ("ehlo mx.test", Command::Ehlo(b"mx.test")),
            ("EHLO [IPv6:::1] ", Command::Ehlo(b"[IPv6:::1]")),
            ("Helo mx", Command::Helo(b"mx")),
            (" \tEHLO\tmy pc", Command::Ehlo(b"my pc")),
            ("EHLO a\tb", Command::Ehlo(b"a\tb")),
            ("EHLO m\u{e9}", Command::Ehlo("m\u{e9}".as_bytes())),
            ("QUIT now", Command::Quit),
            ("NOOP\t", Command::Noop),
            ("data", Command::Data),
            ("DATA ", Command::Data),
            ("NOOP whatever", Command::Noop),
            ("auth plain", Command::Auth(b"plain")),
            ("bdat 86 LAST", Command::NotOffered),
            ("XCLIENT NAME=x", Command::NotOffered),
            ("STARTTLS", Command::StartTls),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Ok(command), "{line}");
        }
    }

    #[test]
    fn malformed_command_has_a_reason() {
        use CommandError::{Arguments, Characters, TooLong, Unknown};
        let long = "x".repeat(MAX_COMMAND);
        for (line, error) in [
            ("", Unknown),
            ("FOO", Unknown),
            ("DATAS", Unknown),
            ("ABCDEFGHIJK", Unknown),
            ("EHLO", Arguments),
            ("HELO \t", Arguments),
            ("EHLO a\0b", Characters),
            ("DATA now", Arguments),
            ("STARTTLS now", Arguments),
            ("VRFY", Arguments),
            ("NOOP a\0b", Characters),
            ("MAIL \u{c}FROM:<a@b>", Characters),
            (&format!("NOOP {long}"), TooLong),
            (&format!("{long}x"), TooLong),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Err(error), "{line}");
        }
        assert_eq!(Command::parse(b"NOOP \xff"), Err(Characters));
    }

    #[test]
    fn a_path_goes_upstream_in_its_canonical_form() {
        for (line, expected) in [
            ("MAIL FROM:<>", "MAIL FROM:<>"),
            ("mail from:<a@b.test>", "mail from:<a@b.test>"),
            (
                "MAIL FROM: <a@b.test> SIZE=9",
                "MAIL FROM: <a@b.test> SIZE=9",
            ),
            (
                r#"MAIL FROM:<"a> b"@c> BODY=7BIT"#,
                r#"MAIL FROM:<"a> b"@c> BODY=7BIT"#,
            ),
            (r#"MAIL FROM:<"a\">"@c>"#, r#"MAIL FROM:<"a\">"@c>"#),
            (r"MAIL FROM:<a\@b>", "MAIL FROM:<a@b>"),
            (
                "MAIL FROM:<Office <a@b.test>> SIZE=9",
                "MAIL FROM:<a@b.test> SIZE=9",
            ),
            (r"MAIL FROM:a\ b@c SIZE=9", r#"MAIL FROM:<"a b"@c> SIZE=9"#),
            ("MAIL FROM:<a @ b>", "MAIL FROM:<a@b>"),
            ("MAIL FROM:<<a@b>>", "MAIL FROM:<a@b>"),
            ("MAIL FROM:a@b>", "MAIL FROM:<a@b>"),
            ("MAIL FROM:<a@b>;", "MAIL FROM:<a@b>"),
            ("MAIL FROM:(c)a@b", "MAIL FROM:<a@b>"),
            ("MAIL FROM:< >", "MAIL FROM:<>"),
            ("MAIL FROM:<@x:>", "MAIL FROM:<>"),
            ("MAIL FROM:a@b.test", "MAIL FROM:<a@b.test>"),
            ("mail from: a@b.test  SIZE=9", "MAIL FROM:<a@b.test> SIZE=9"),
            (r#"MAIL FROM:"a b"@c"#, r#"MAIL FROM:<"a b"@c>"#),
            (r"MAIL FROM:a\@b", "MAIL FROM:<a@b>"),
            (
                "MAIL FROM:< a@b.test >\tSIZE=9",
                "MAIL FROM:<a@b.test> SIZE=9",
            ),
            ("MAIL FROM:<@x,@y:a@b.test>", "MAIL FROM:<a@b.test>"),
            ("\tMAIL\tFROM:<a@b.test>", "MAIL FROM:<a@b.test>"),
            ("MAIL FROM:Name <a@b.test>", "MAIL FROM:<Name> <a@b.test>"),
        ] {
            let Ok(Command::Mail(path)) = Command::parse(line.as_bytes()) else {
                panic!("{line}");
            };
            let mut sent = Vec::new();
            path.write(b"MAIL FROM:", line.as_bytes(), &mut sent);
            assert_eq!(String::from_utf8_lossy(&sent), expected, "{line}");
        }
    }

    #[test]
    fn a_path_that_is_not_one_address_is_refused() {
        for line in [
            "MAIL FROM:",
            "MAIL FROM:<a@b.test",
            "MAIL FROM:<a@b>SIZE=9",
            "MAIL FROM:<a b@c>",
            "MAIL FROM:<a<b@c>",
            r#"MAIL FROM:<"a\"#,
            r#"MAIL FROM:"a b@c"#,
            r"MAIL FROM:<a\> SIZE=5",
            "MAIL FROM:a@b,c@d",
            "MAIL TO:<a@b>",
            "MAIL FROM :<a@b>",
        ] {
            let parsed = Command::parse(line.as_bytes());
            assert_eq!(parsed, Err(CommandError::Arguments), "{line}");
        }
    }

    #[test]
    fn parameters_are_keywords_with_or_without_values() {
        let Ok(Command::Mail(path)) =
            Command::parse(b"MAIL FROM:<> SIZE=1  SMTPUTF8 AUTH=<> X=a=b")
        else {
            panic!("a good MAIL");
        };
        let parameters: Vec<_> = path.parameters().collect();
        assert_eq!(
            parameters,
            [
                (&b"SIZE"[..], Some(&b"1"[..])),
                (b"SMTPUTF8", None),
                (b"AUTH", Some(b"<>")),
                (b"X", Some(b"a=b"))
            ]
        );
    }

    proptest! {
        #[test]
        fn no_line_upsets_the_parser(line: Vec<u8>) {
            let _ = Command::parse(&line);
        }

        #[test]
        fn canonical_line_parses_like_the_original(rest in r#"[ \t<>"\\@:;,.()=a-c]{0,20}"#) {
            let line = format!("RCPT TO:{rest}");
            if let Ok(Command::Rcpt(path)) = Command::parse(line.as_bytes()) {
                let mut sent = Vec::new();
                path.write(b"RCPT TO:", line.as_bytes(), &mut sent);
                let Ok(Command::Rcpt(again)) = Command::parse(&sent) else {
                    panic!("{line:?} went as {:?}", String::from_utf8_lossy(&sent));
                };
                prop_assert!(again.is_canonical);
                prop_assert_eq!(&again.address, &path.address);
                prop_assert!(again.parameters().eq(path.parameters()));
            }
        }

        #[test]
        fn a_path_and_its_parameters_make_up_the_line(address in "[a-z0-9.]{0,15}(@[a-z0-9.]{1,15})?", word in "[A-Z]{1,8}=[a-z]{1,8}") {
            let line = format!("RCPT TO:<{address}> {word}");
            let Ok(Command::Rcpt(path)) = Command::parse(line.as_bytes()) else {
                panic!("a good RCPT: {line}");
            };
            prop_assert_eq!(&*path.address, address.as_bytes());
            prop_assert_eq!(path.parameters, word.as_bytes());
        }
    }
}
