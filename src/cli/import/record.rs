//! One credential as a file has it.

use crate::auth::imported::Scheme;
use crate::sasl::Secret;

/// The longest password, in octets; SASL has no longer ones.
const LONGEST_PASSWORD: usize = 255;

/// What a line says.
pub(super) struct Record {
    pub(super) username: String,
    pub(super) password: Offered,
    pub(super) name: Option<String>,
    pub(super) expires_at: Option<i64>,
}

/// What came of reading a line: otherwise the username, where it is certainly that, and why the line
/// is left.
pub(super) type Read = Result<Record, (Option<String>, String)>;

/// A password in one form or the other.
pub(super) enum Offered {
    Hashed(Scheme, String),
    Plain(Secret),
}

impl Offered {
    /// How it was stored where it comes from.
    pub(super) fn scheme(&self) -> &'static str {
        match self {
            Offered::Hashed(scheme, _) => scheme.as_str(),
            Offered::Plain(_) => "plain",
        }
    }

    /// Reads `{SCHEME}` and what is behind it; without a scheme, a hash that tells its own.
    ///
    /// # Errors
    /// Why it cannot be taken, without a word of it.
    pub(super) fn read(field: &str) -> Result<Offered, String> {
        let (scheme, rest) = match field
            .strip_prefix('{')
            .and_then(|rest| rest.split_once('}'))
        {
            Some((scheme, rest)) => (scheme.to_ascii_uppercase(), rest),
            None => (String::new(), field),
        };
        if rest.is_empty() || matches!(rest, "!" | "!!" | "*" | "x") {
            return Err("it has no password".to_owned());
        }
        let expected: &[Scheme] = match scheme.as_str() {
            "PLAIN" | "CLEAR" | "CLEARTEXT" => return plain(rest),
            "" | "CRYPT" => &[
                Scheme::Argon2i,
                Scheme::Argon2id,
                Scheme::Bcrypt,
                Scheme::Sha512Crypt,
            ],
            "ARGON2I" => &[Scheme::Argon2i],
            "ARGON2ID" => &[Scheme::Argon2id],
            "BLF-CRYPT" => &[Scheme::Bcrypt],
            "SHA512-CRYPT" => &[Scheme::Sha512Crypt],
            other => return Err(unknown(other)),
        };
        if rest.starts_with('!') || rest.starts_with('*') {
            return Err("its password is locked".to_owned());
        }
        let found = Scheme::of(rest).map_err(|unusable| unusable.to_string())?;
        match expected.contains(&found) {
            true => Ok(Offered::Hashed(found, rest.to_owned())),
            false => Err(format!(
                "{{{scheme}}} does not begin a {} hash",
                found.as_str()
            )),
        }
    }
}

fn plain(password: &str) -> Result<Offered, String> {
    if password.len() > LONGEST_PASSWORD || password.contains('\0') {
        return Err(format!(
            "its password has more than {LONGEST_PASSWORD} octets, or a NUL, which no login can send"
        ));
    }
    Ok(Offered::Plain(Secret::new(password)))
}

/// Only what looks like a scheme's name is repeated: anything else may be part of a password.
fn unknown(scheme: &str) -> String {
    let is_name = (1..=24).contains(&scheme.len())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    match is_name {
        true => format!(
            "{{{scheme}}} is not known here: ARGON2ID, ARGON2I, BLF-CRYPT, SHA512-CRYPT and PLAIN are"
        ),
        false => "its password begins with a brace but not with a scheme".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2y$05$PAHbmiuUBk6Bi247bvnooedqyuyHcamcI9OqrapSHfVqmt9dJvS5C";

    #[test]
    fn a_scheme_and_its_hash_must_agree() {
        let read = |field: &str| Offered::read(field).map(|offered| offered.scheme());
        assert_eq!(read(BCRYPT), Ok("bcrypt"));
        assert_eq!(read(&format!("{{CRYPT}}{BCRYPT}")), Ok("bcrypt"));
        assert_eq!(read(&format!("{{blf-crypt}}{BCRYPT}")), Ok("bcrypt"));
        assert_eq!(read("{PLAIN}pa}ss:word"), Ok("plain"));
        assert!(read(&format!("{{SHA512-CRYPT}}{BCRYPT}")).is_err());
        for wrong in [
            "",
            "!",
            "*",
            "x",
            "{PLAIN}",
            "{CRYPT}",
            "hunter2",
            "{",
            "{}",
            "{CRAM-MD5}00",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read(&format!("!{BCRYPT}")).is_err());
        assert!(read(&format!("{{PLAIN}}{}", "x".repeat(256))).is_err());
    }

    #[test]
    fn no_reason_repeats_a_password() {
        for field in [
            "hunter2",
            "{hunter2 $",
            "{hunter2",
            "{PLAIN.HEX}hunter2",
            "!hunter2",
            "$6$hunter2",
        ] {
            let reason = Offered::read(field).err().unwrap();
            assert!(!reason.to_ascii_lowercase().contains("hunter2"), "{reason}");
        }
    }
}
