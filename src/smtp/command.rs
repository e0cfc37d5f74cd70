//! A client's command line, taken apart (RFC 5321, 4.1.1).

/// A command of the client's, borrowing from its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `AUTH mechanism [initial-response]`; what follows the verb.
    Auth(&'a [u8]),
    /// `DATA`.
    Data,
    /// `EHLO domain`; the client's name for itself.
    Ehlo(&'a str),
    /// `HELO domain`.
    Helo,
    /// `HELP [topic]`.
    Help,
    /// `MAIL FROM:<reverse-path> [parameters]`.
    Mail(Path<'a>),
    /// `NOOP`.
    Noop,
    /// A verb of SMTP or an extension that dies at the edge: BDAT, BURL, ETRN, EXPN, SAML, SEND,
    /// SOML, TURN, XCLIENT, XFORWARD.
    NotOffered,
    /// `QUIT`.
    Quit,
    /// `RCPT TO:<forward-path> [parameters]`.
    Rcpt(Path<'a>),
    /// `RSET`.
    Rset,
    /// `STARTTLS`.
    StartTls,
    /// `VRFY anything`.
    Vrfy,
}

/// The path and parameters of MAIL and RCPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    /// From `<` to `>`, both included, as it came.
    pub path: &'a [u8],
    /// What follows the path, without the spaces around it.
    parameters: &'a [u8],
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The arguments are missing, superfluous or malformed.
    Arguments,
    /// A NUL or another control character, or an octet that is not UTF-8.
    Characters,
    /// Longer than this command may be.
    TooLong,
    /// No such verb.
    Unknown,
}

/// The longest command line in octets, without its end. RFC 5321, 4.5.3.1.4 asks for 512.
const MAX_COMMAND: usize = 2048;

/// The longest MAIL or RCPT, whose parameters extensions keep adding to.
const MAX_ENVELOPE: usize = 4096;

/// The longest domain or address literal (RFC 5321, 4.5.3.1.2).
const MAX_DOMAIN: usize = 255;

impl<'a> Command<'a> {
    /// Reads one line, given without its CRLF.
    pub fn parse(line: &'a [u8]) -> Result<Self, CommandError> {
        let (verb, rest) = split_verb(line);
        let mut upper = [0; 8];
        let Some(upper) = upper.get_mut(..verb.len()) else {
            return Err(refuse_unknown(line));
        };
        upper.copy_from_slice(verb);
        upper.make_ascii_uppercase();
        let limit = match &*upper {
            // The line reader has its limit for this one.
            b"AUTH" => usize::MAX,
            b"MAIL" | b"RCPT" => MAX_ENVELOPE,
            _ => MAX_COMMAND,
        };
        if line.len() > limit {
            return Err(CommandError::TooLong);
        }
        let text = printable(rest)?;
        match &*upper {
            b"AUTH" => Ok(Self::Auth(rest)),
            b"DATA" => alone(rest, Self::Data),
            b"EHLO" => domain(text).map(Self::Ehlo),
            b"HELO" => domain(text).map(|_| Self::Helo),
            b"HELP" => Ok(Self::Help),
            b"MAIL" => Path::parse(rest, b"FROM:").map(Self::Mail),
            b"NOOP" => Ok(Self::Noop),
            b"QUIT" => alone(rest, Self::Quit),
            b"RCPT" => Path::parse(rest, b"TO:").map(Self::Rcpt),
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

/// The verb, and what follows it without the spaces around it. A trailing space is common and
/// harmless (RFC 5321, 4.1.1).
fn split_verb(line: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b' ', line).unwrap_or(line.len());
    let (verb, rest) = line.split_at(end);
    (verb, trim(rest))
}

/// Without the spaces around it; other white space has no business in a command.
fn trim(text: &[u8]) -> &[u8] {
    let blank = |byte: &u8| *byte == b' ';
    let start = text
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|byte| !blank(byte))
        .map_or(start, |last| last + 1);
    &text[start..end]
}

fn refuse_unknown(line: &[u8]) -> CommandError {
    match line.len() {
        ..=MAX_COMMAND => CommandError::Unknown,
        _ => CommandError::TooLong,
    }
}

/// SMTPUTF8 allows UTF-8 in arguments (RFC 6531, 3.3); no standard allows controls.
fn printable(rest: &[u8]) -> Result<&str, CommandError> {
    let text = std::str::from_utf8(rest).map_err(|_| CommandError::Characters)?;
    let controls = if text.is_ascii() {
        // Without branches, so that the compiler takes many octets at a time.
        rest.iter()
            .fold(false, |any, byte| any | byte.is_ascii_control())
    } else {
        text.chars().any(char::is_control)
    };
    if controls {
        Err(CommandError::Characters)
    } else {
        Ok(text)
    }
}

fn alone<'a>(rest: &[u8], command: Command<'a>) -> Result<Command<'a>, CommandError> {
    if rest.is_empty() {
        Ok(command)
    } else {
        Err(CommandError::Arguments)
    }
}

fn domain(text: &str) -> Result<&str, CommandError> {
    let good = matches!(text.len(), 1..=MAX_DOMAIN) && text.is_ascii() && !text.contains(' ');
    if good {
        Ok(text)
    } else {
        Err(CommandError::Arguments)
    }
}

impl<'a> Path<'a> {
    /// Reads `FROM:<path> [parameters]`. A space behind the colon is against the grammar, but so
    /// many clients send one that refusing it would only lose mail.
    fn parse(rest: &'a [u8], keyword: &[u8]) -> Result<Self, CommandError> {
        let (prefix, rest) = rest
            .split_at_checked(keyword.len())
            .ok_or(CommandError::Arguments)?;
        if !prefix.eq_ignore_ascii_case(keyword) {
            return Err(CommandError::Arguments);
        }
        let rest = trim(rest);
        let length = path_length(rest).ok_or(CommandError::Arguments)?;
        let (path, parameters) = rest.split_at(length);
        match parameters.first() {
            None | Some(b' ') => Ok(Self {
                path,
                parameters: trim(parameters),
            }),
            Some(_) => Err(CommandError::Arguments),
        }
    }

    /// Each parameter as keyword and value (RFC 5321, 4.1.2: `esmtp-keyword ["=" esmtp-value]`).
    pub fn parameters(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        self.parameters
            .split(|&byte| byte == b' ')
            .filter(|word| !word.is_empty())
            .map(|word| match memchr::memchr(b'=', word) {
                Some(at) => (&word[..at], Some(&word[at + 1..])),
                None => (word, None),
            })
    }
}

/// The length of `<...>` at the front: a `>` inside a quoted string does not end it, and neither
/// does one behind a backslash there (RFC 5321, 4.1.2).
fn path_length(text: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut bytes = text.iter().enumerate();
    if bytes.next()?.1 != &b'<' {
        return None;
    }
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'\\' if quoted => drop(bytes.next()?),
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at + 1),
            // Some servers let a backslash quote here as well: then the path ends elsewhere.
            b' ' | b'<' | b'\\' if !quoted => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn verbs_are_read_in_any_case() {
        for (line, command) in [
            ("ehlo mx.test", Command::Ehlo("mx.test")),
            ("EHLO [IPv6:::1] ", Command::Ehlo("[IPv6:::1]")),
            ("Helo mx", Command::Helo),
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
    fn what_is_no_command_says_why() {
        use CommandError::{Arguments, Characters, TooLong, Unknown};
        let long = "x".repeat(MAX_COMMAND);
        for (line, error) in [
            ("", Unknown),
            ("FOO", Unknown),
            ("DATAS", Unknown),
            ("ABCDEFGHIJK", Unknown),
            ("EHLO", Arguments),
            ("EHLO a b", Arguments),
            ("EHLO m\u{e9}", Arguments),
            ("DATA now", Arguments),
            ("STARTTLS now", Arguments),
            ("VRFY", Arguments),
            ("NOOP a\0b", Characters),
            ("EHLO a\tb", Characters),
            ("NOOP\t", Unknown),
            ("NOOP \t", Characters),
            ("MAIL \u{c}FROM:<a@b>", Characters),
            ("RCPT TO:<a@b>\t", Characters),
            (&format!("NOOP {long}"), TooLong),
            (&format!("{long}x"), TooLong),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Err(error), "{line}");
        }
        assert_eq!(Command::parse(b"NOOP \xff"), Err(Characters));
    }

    #[test]
    fn paths_end_where_their_quotes_say() {
        let cases: [(&str, Option<(&str, &str)>); 13] = [
            ("MAIL FROM:<>", Some(("<>", ""))),
            ("mail from:<a@b.test>", Some(("<a@b.test>", ""))),
            (
                "MAIL FROM: <a@b.test> SIZE=9",
                Some(("<a@b.test>", "SIZE=9")),
            ),
            (
                r#"MAIL FROM:<"a> b"@c> BODY=7BIT"#,
                Some((r#"<"a> b"@c>"#, "BODY=7BIT")),
            ),
            (r#"MAIL FROM:<"a\">"@c>"#, Some((r#"<"a\">"@c>"#, ""))),
            ("MAIL FROM:a@b.test", None),
            ("MAIL FROM:<a@b.test", None),
            ("MAIL FROM:<a@b>SIZE=9", None),
            ("MAIL FROM:<a b@c>", None),
            ("MAIL FROM:<a<b@c>", None),
            (r#"MAIL FROM:<"a\"#, None),
            (r"MAIL FROM:<a\> SIZE=5", None),
            ("MAIL TO:<a@b>", None),
        ];
        for (line, expected) in cases {
            let found = match Command::parse(line.as_bytes()) {
                Ok(Command::Mail(Path { path, parameters })) => Some((path, parameters)),
                Err(CommandError::Arguments) => None,
                other => panic!("{line}: {other:?}"),
            };
            let expected = expected.map(|(path, rest)| (path.as_bytes(), rest.as_bytes()));
            assert_eq!(found, expected, "{line}");
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
        fn a_path_and_its_parameters_make_up_the_line(address in "[a-z0-9@.]{0,30}", word in "[A-Z]{1,8}=[a-z]{1,8}") {
            let line = format!("RCPT TO:<{address}> {word}");
            let Ok(Command::Rcpt(path)) = Command::parse(line.as_bytes()) else {
                panic!("a good RCPT: {line}");
            };
            let expected = format!("<{address}>");
            prop_assert_eq!(path.path, expected.as_bytes());
            prop_assert_eq!(path.parameters, word.as_bytes());
        }
    }
}
