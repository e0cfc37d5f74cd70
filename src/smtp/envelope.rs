//! Checks MAIL and RCPT of an authenticated client and builds the upstream's form.
//!
//! A parameter passes only if the current upstream offers its extension. An upstream would reject
//! an unknown parameter or, worse, frame the message differently.

use super::command::Path;
use super::extensions::Extensions;
use super::reply::{self, Reply};
use super::xtext;

/// Returns MAIL without parameters that the upstream must not get, or `None` to forward the line
/// unchanged. `size` is the largest accepted message in octets.
pub fn mail(path: &Path, offered: &Extensions, size: u64) -> Result<Option<Vec<u8>>, Reply> {
    check_path(path, offered)?;
    let mut kept: Vec<(&[u8], Option<&[u8]>)> = Vec::new();
    let mut changed = false;
    for (keyword, value) in path.parameters() {
        match (Keyword::parse(keyword), value) {
            (Some(Keyword::Size), Some(value)) => {
                check_size(value, size)?;
                if offered.size.is_some() {
                    kept.push((keyword, Some(value)));
                } else {
                    changed = true;
                }
            }
            // RFC 4954, 5: accepted, but a client's claim is never forwarded as Gatepost's.
            (Some(Keyword::Auth), Some(value)) => {
                let valid = value == b"<>" || xtext::is_valid(value);
                check(valid)?;
                changed = true;
                if offered.auth {
                    kept.push((keyword, Some(b"<>")));
                }
            }
            (Some(Keyword::Body), Some(value)) if is_one_of(value, [b"7BIT", b"8BITMIME"]) => {
                if offered.eight_bit_mime {
                    kept.push((keyword, Some(value)));
                } else if value.eq_ignore_ascii_case(b"7BIT") {
                    // The default, implied by an upstream without the extension.
                    changed = true;
                } else {
                    return Err(reply::NO_EIGHT_BIT_MIME);
                }
            }
            (Some(Keyword::Ret), Some(value)) if offered.dsn => {
                check(is_one_of(value, [b"FULL", b"HDRS"]))?;
                kept.push((keyword, Some(value)));
            }
            (Some(Keyword::Envid), Some(value)) if offered.dsn => {
                check(xtext::is_valid(value))?;
                kept.push((keyword, Some(value)));
            }
            (Some(Keyword::Smtputf8), None) if offered.smtputf8 => kept.push((keyword, None)),
            (Some(Keyword::Smtputf8), None) => return Err(reply::NO_SMTPUTF8),
            // RFC 3030 is not offered, so the value is wrong (RFC 6152, 2).
            (Some(Keyword::Body), _) => return Err(reply::BAD_ARGUMENTS),
            _ => return Err(reply::UNKNOWN_PARAMETER),
        }
    }
    Ok(changed.then(|| rebuild(path, &kept)))
}

/// Returns the size declared by the client, if a number.
pub fn stated_size(path: &Path) -> Option<u64> {
    let mut parameters = path.parameters();
    let (_, value) =
        parameters.find(|(keyword, _)| matches!(Keyword::parse(keyword), Some(Keyword::Size)))?;
    Some(
        std::str::from_utf8(value?)
            .ok()?
            .parse()
            .unwrap_or(u64::MAX),
    )
}

/// Checks whether RCPT may go upstream unchanged.
pub fn rcpt(path: &Path, offered: &Extensions) -> Result<(), Reply> {
    check_path(path, offered)?;
    check(!path.address.is_empty())?;
    for (keyword, value) in path.parameters() {
        match (Keyword::parse(keyword), value) {
            (Some(Keyword::Notify), Some(_)) if offered.dsn => {}
            // `addr-type ";" xtext` (RFC 3461, 4.2); with SMTPUTF8 the rest need not be xtext.
            (Some(Keyword::Orcpt), Some(value)) if offered.dsn => check(value.contains(&b';'))?,
            _ => return Err(reply::UNKNOWN_PARAMETER),
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Keyword {
    Auth,
    Body,
    Envid,
    Notify,
    Orcpt,
    Ret,
    Size,
    Smtputf8,
}

impl Keyword {
    fn parse(keyword: &[u8]) -> Option<Self> {
        let known: [(&[u8], Self); 8] = [
            (b"AUTH", Self::Auth),
            (b"BODY", Self::Body),
            (b"ENVID", Self::Envid),
            (b"NOTIFY", Self::Notify),
            (b"ORCPT", Self::Orcpt),
            (b"RET", Self::Ret),
            (b"SIZE", Self::Size),
            (b"SMTPUTF8", Self::Smtputf8),
        ];
        known
            .into_iter()
            .find(|(name, _)| keyword.eq_ignore_ascii_case(name))
            .map(|(_, found)| found)
    }
}

fn check(good: bool) -> Result<(), Reply> {
    if good {
        Ok(())
    } else {
        Err(reply::BAD_ARGUMENTS)
    }
}

fn is_one_of(value: &[u8], allowed: [&[u8]; 2]) -> bool {
    allowed
        .into_iter()
        .any(|allowed| value.eq_ignore_ascii_case(allowed))
}

fn check_path(path: &Path, offered: &Extensions) -> Result<(), Reply> {
    if path.address.is_ascii() || offered.smtputf8 {
        Ok(())
    } else {
        Err(reply::NO_SMTPUTF8)
    }
}

/// RFC 1870, 6.1: a message declared too large is rejected at MAIL.
fn check_size(value: &[u8], limit: u64) -> Result<(), Reply> {
    let digits = matches!(value.len(), 1..=20) && value.iter().all(u8::is_ascii_digit);
    let size = std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)
        .ok_or(reply::BAD_ARGUMENTS)?;
    if size.parse().unwrap_or(u64::MAX) > limit {
        Err(reply::TOO_LARGE)
    } else {
        Ok(())
    }
}

fn rebuild(path: &Path, parameters: &[(&[u8], Option<&[u8]>)]) -> Vec<u8> {
    let mut mail = [b"MAIL FROM:<", &*path.address, b">"].concat();
    for (keyword, value) in parameters {
        mail.push(b' ');
        mail.extend_from_slice(keyword);
        if let Some(value) = value {
            mail.push(b'=');
            mail.extend_from_slice(value);
        }
    }
    mail
}

#[cfg(test)]
mod tests {
    use super::super::command::Command;
    use super::*;

    fn everything() -> Extensions {
        Extensions {
            auth: true,
            dsn: true,
            eight_bit_mime: true,
            size: Some(0),
            smtputf8: true,
            ..Extensions::default()
        }
    }

    fn sent(line: &str, offered: &Extensions) -> Result<String, u16> {
        match Command::parse(line.as_bytes()) {
            Ok(Command::Mail(path)) => mail(&path, offered, 1000)
                .map(|rebuilt| rebuilt.unwrap_or_else(|| line.into()))
                .map(|line| String::from_utf8(line).unwrap())
                .map_err(|reply| reply.code),
            Ok(Command::Rcpt(path)) => rcpt(&path, offered)
                .map(|()| line.to_owned())
                .map_err(|reply| reply.code),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn supported_parameters_pass_unchanged() {
        for line in [
            "mail from: <a@b.test> size=1000 BODY=8bitmime SMTPUTF8 RET=HDRS ENVID=a+2Bb",
            "RCPT TO:<\u{e9}@b.test> NOTIFY=NEVER ORCPT=rfc822;a@b.test",
        ] {
            assert_eq!(sent(line, &everything()).as_deref(), Ok(line));
        }
    }

    #[test]
    fn auth_parameter_of_the_client_is_replaced() {
        let line = "MAIL FROM:<a@b.test> AUTH=boss+40b.test SIZE=9";
        assert_eq!(
            sent(line, &everything()).unwrap(),
            "MAIL FROM:<a@b.test> AUTH=<> SIZE=9"
        );
        let none = Extensions::default();
        assert_eq!(sent(line, &none).unwrap(), "MAIL FROM:<a@b.test>");
        assert_eq!(sent("MAIL FROM:<> AUTH=a+4", &none), Err(501));
    }

    #[test]
    fn default_parameters_are_dropped() {
        let none = Extensions::default();
        let line = "MAIL FROM:<a@b.test> SIZE=9 BODY=7bit";
        assert_eq!(sent(line, &none).unwrap(), "MAIL FROM:<a@b.test>");
        assert_eq!(sent(line, &everything()).unwrap(), line);
    }

    #[test]
    fn unsupported_parameters_are_rejected() {
        let none = Extensions::default();
        for (line, code) in [
            ("MAIL FROM:<> SMTPUTF8", 553),
            ("MAIL FROM:<> RET=FULL", 555),
            ("MAIL FROM:<> REQUIRETLS", 555),
            ("MAIL FROM:<> BODY=8BITMIME", 554),
            ("MAIL FROM:<> BODY=BINARYMIME", 501),
            ("MAIL FROM:<\u{e9}@b.test>", 553),
            ("RCPT TO:<a@b.test> NOTIFY=NEVER", 555),
        ] {
            assert_eq!(sent(line, &none), Err(code), "{line}");
        }
        for (line, code) in [
            ("MAIL FROM:<> SIZE=1001", 552),
            ("MAIL FROM:<> SIZE=99999999999999999999", 552),
            ("MAIL FROM:<> SIZE=1x", 501),
            ("MAIL FROM:<> BODY=BINARYMIME", 501),
            ("MAIL FROM:<> MT-PRIORITY=3", 555),
            ("RCPT TO:<>", 501),
            ("RCPT TO:<a@b.test> ORCPT=x", 501),
        ] {
            assert_eq!(sent(line, &everything()), Err(code), "{line}");
        }
    }
}
