//! One credential of an imported file.

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::{Engine as _, alphabet};

use crate::auth::imported::{Scheme, unhex};
use crate::sasl::Secret;

/// The accepted schemes, for people.
pub(crate) const TAKEN: &str = "ARGON2ID, ARGON2I, BLF-CRYPT, SHA512-CRYPT, SHA256-CRYPT, CRYPT, PBKDF2, SSHA512, SSHA256, SSHA and PLAIN";

/// Base64 with or without padding: some LDAP servers omit the padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The longest password in SASL, in octets.
const LONGEST_PASSWORD: usize = 255;

pub(super) struct Record {
    pub(super) username: String,
    pub(super) password: Offered,
    pub(super) name: Option<String>,
    pub(super) expires_at: Option<i64>,
}

/// A record, or the username (if certain) and the reason for skipping the line.
pub(super) type Read = Result<Record, (Option<String>, String)>;

impl Record {
    /// Whether the password is plain.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.password, Offered::Plain(_))
    }
}

/// A password, hashed or plain.
pub(super) enum Offered {
    Hashed(Scheme, String),
    Plain(Secret),
}

/// The encoding of the text after `{SCHEME}`.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Encoding {
    Base64,
    Hex,
    /// The scheme's usual encoding.
    Usual,
}

/// The meaning of a scheme's name.
enum Meaning {
    /// A hash that names its scheme, of one of these schemes.
    Crypt(&'static [Scheme]),
    Pbkdf2,
    Plain,
    /// Octets of a digest and a salt, under this name in the store.
    Salted(&'static str),
    /// Rejected, for this reason.
    Refused(&'static str),
}

const ANY: &[Scheme] = &[
    Scheme::Argon2i,
    Scheme::Argon2id,
    Scheme::Bcrypt,
    Scheme::Sha256Crypt,
    Scheme::Sha512Crypt,
    Scheme::Yescrypt,
];

const WEAK: &str = "is too weak: who gets hold of the hash soon has the password. Make a new credential for this user";
const OTHER_MECHANISM: &str = "belongs to a login mechanism that is not offered here, and AUTH PLAIN and LOGIN need another hash. Make a new credential for this user";
const ELSEWHERE: &str =
    "leaves the password with another program. Make a new credential for this user";

/// The schemes of Dovecot and of LDAP servers, in upper case.
fn meaning(scheme: &str) -> Option<Meaning> {
    Some(match scheme {
        "" | "CRYPT" => Meaning::Crypt(ANY),
        "ARGON2I" => Meaning::Crypt(&[Scheme::Argon2i]),
        "ARGON2ID" => Meaning::Crypt(&[Scheme::Argon2id]),
        "ARGON2" => Meaning::Crypt(&[Scheme::Argon2i, Scheme::Argon2id]),
        "BLF-CRYPT" | "BCRYPT" => Meaning::Crypt(&[Scheme::Bcrypt]),
        // Dovecot goes by the hash, whichever of the two names stands before it.
        "SHA256-CRYPT" | "SHA512-CRYPT" => {
            Meaning::Crypt(&[Scheme::Sha256Crypt, Scheme::Sha512Crypt])
        }
        "PBKDF2" => Meaning::Pbkdf2,
        "PLAIN" | "CLEAR" | "CLEARTEXT" => Meaning::Plain,
        "SSHA" => Meaning::Salted("SSHA"),
        "SSHA256" => Meaning::Salted("SSHA256"),
        "SSHA512" => Meaning::Salted("SSHA512"),
        "MD5" | "MD5-CRYPT" | "PLAIN-MD5" | "LDAP-MD5" | "SMD5" | "PLAIN-MD4" | "SHA" | "SHA1"
        | "SHA256" | "SHA512" | "NTLM" | "NT" | "LM" | "LANMAN" | "DES-CRYPT" | "EXT-DES-CRYPT"
        | "PLAIN-TRUNC" => Meaning::Refused(WEAK),
        "CRAM-MD5" | "HMAC-MD5" | "DIGEST-MD5" | "APOP" | "RPA" | "OTP" | "SKEY"
        | "SCRAM-SHA-1" | "SCRAM-SHA-256" => Meaning::Refused(OTHER_MECHANISM),
        "SASL" | "KERBEROS" | "GSSAPI" => Meaning::Refused(ELSEWHERE),
        _ => return None,
    })
}

impl Offered {
    /// The name of the scheme in the file.
    pub(super) fn scheme(&self) -> &'static str {
        match self {
            Offered::Hashed(scheme, _) => scheme.as_str(),
            Offered::Plain(_) => "plain",
        }
    }

    /// Reads `{SCHEME}` and the text after; without a scheme, a hash that names its own.
    ///
    /// # Errors
    /// The reason for rejecting the text, without any part of the text.
    pub(super) fn read(field: &str) -> Result<Offered, String> {
        let (name, text) = match field
            .strip_prefix('{')
            .and_then(|rest| rest.split_once('}'))
        {
            Some((scheme, rest)) => (scheme.to_ascii_uppercase(), rest),
            None => (String::new(), field),
        };
        let (scheme, encoding) = encoding(&name);
        let Some(meaning) = meaning(scheme) else {
            return Err(unknown(&name));
        };
        let is_locked = matches!(scheme, "" | "CRYPT") && matches!(text, "!" | "!!" | "*" | "x");
        if text.is_empty() || is_locked {
            return Err("it has no password".to_owned());
        }
        match meaning {
            Meaning::Crypt(expected) => crypt(scheme, &text_of(text, encoding)?, expected),
            Meaning::Pbkdf2 => hashed(format!("{{PBKDF2}}{}", text_of(text, encoding)?)),
            Meaning::Plain => plain(&octets_of(text, encoding)?),
            Meaning::Refused(reason) => Err(format!("{{{scheme}}} {reason}")),
            Meaning::Salted(name) => {
                let octets = match encoding {
                    Encoding::Hex => octets_of(text, Encoding::Hex)?,
                    Encoding::Base64 | Encoding::Usual => octets_of(text, Encoding::Base64)?,
                };
                hashed(format!("{{{name}}}{}", STANDARD.encode(octets)))
            }
        }
    }
}

/// Splits off Dovecot's suffix for the encoding.
fn encoding(name: &str) -> (&str, Encoding) {
    match name.rsplit_once('.') {
        Some((scheme, "B64" | "BASE64")) => (scheme, Encoding::Base64),
        Some((scheme, "HEX")) => (scheme, Encoding::Hex),
        _ => (name, Encoding::Usual),
    }
}

fn octets_of(text: &str, encoding: Encoding) -> Result<Vec<u8>, String> {
    let (octets, form) = match encoding {
        Encoding::Base64 => (LENIENT.decode(text).ok(), "base64"),
        Encoding::Hex => (unhex(text), "hexadecimal"),
        Encoding::Usual => (Some(text.as_bytes().to_vec()), ""),
    };
    octets.ok_or_else(|| format!("its password is not {form}, as its scheme says"))
}

fn text_of(text: &str, encoding: Encoding) -> Result<String, String> {
    let octets = octets_of(text, encoding)?;
    String::from_utf8(octets).map_err(|_| "its password is not text".to_owned())
}

fn crypt(scheme: &str, hash: &str, expected: &[Scheme]) -> Result<Offered, String> {
    if hash.starts_with('!') || hash.starts_with('*') {
        return Err("its password is locked".to_owned());
    }
    if scheme == "CRYPT" && is_des(hash) {
        return Err(format!("{{CRYPT}} with a DES hash {WEAK}"));
    }
    let offered = hashed(hash.to_owned())?;
    match &offered {
        Offered::Hashed(found, _) if !expected.contains(found) => Err(format!(
            "{{{scheme}}} does not begin a {} hash",
            found.as_str()
        )),
        _ => Ok(offered),
    }
}

/// crypt(3)'s oldest hashes: 13 letters, or `_` and 19.
fn is_des(hash: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    match hash.strip_prefix('_') {
        Some(extended) => extended.len() == 19 && extended.bytes().all(is_letter),
        None => hash.len() == 13 && hash.bytes().all(is_letter),
    }
}

fn hashed(stored: String) -> Result<Offered, String> {
    let found = Scheme::of(&stored).map_err(|unusable| unusable.to_string())?;
    Ok(Offered::Hashed(found, stored))
}

fn plain(password: &[u8]) -> Result<Offered, String> {
    if password.len() > LONGEST_PASSWORD || password.contains(&0) {
        return Err(format!(
            "its password has more than {LONGEST_PASSWORD} octets, or a NUL, which no login can send"
        ));
    }
    Ok(Offered::Plain(Secret::new(password)))
}

/// Repeats only a scheme's name: other text may be part of a password.
fn unknown(scheme: &str) -> String {
    let is_name = (1..=24).contains(&scheme.len())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    match is_name {
        true => format!("{{{scheme}}} is not known here: {TAKEN} are"),
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
        // Dovecot verifies a SHA-256-crypt hash under the other name as well, and the reverse.
        let sha512 = "$6$0A6zJtqXs0qlbA7d$Om4xm.f/8w8V4SjA2ToiZ6tK8Hh06Id9yUw65akC0HmZJr51ZjC6xG7sq47ZCJ6sk7q4l5wOEpebxY.Ys8fcW.";
        assert_eq!(
            read(&format!("{{SHA256-CRYPT}}{sha512}")),
            read(&format!("{{SHA512-CRYPT}}{sha512}"))
        );
        assert!(read(&format!("{{SHA256-CRYPT}}{sha512}")).is_ok());
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
            "{SSHA.HEX}0",
            "{PLAIN.B64}=",
            "{SHA512-CRYPT.B64}/w==",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read(&format!("!{BCRYPT}")).is_err());
        assert!(read(&format!("{{PLAIN}}{}", "x".repeat(256))).is_err());
    }

    #[test]
    fn suffixes_say_how_a_password_is_written() {
        let stored = |field: &str| match Offered::read(field) {
            Ok(Offered::Hashed(_, stored)) => stored,
            Ok(Offered::Plain(secret)) => String::from_utf8(secret.expose().to_vec()).unwrap(),
            Err(reason) => reason,
        };
        assert_eq!(stored("{PLAIN.B64}aHVudGVyMg=="), "hunter2");
        assert_eq!(stored("{cleartext.hex}68756E74657232"), "hunter2");
        let salted = "{SSHA}3/8pVpMNUK+u+ZlmdvShMq/8E3YXUddZ";
        let hex = "{SSHA.HEX}dfff2956930d50afaef9996676f4a132affc13761751d759";
        assert_eq!(stored(hex), salted);
        assert_eq!(stored(&salted.replace("SSHA", "ssha.base64")), salted);
        assert_eq!(stored("{PLAIN.B64}aHVudGVyMg"), "hunter2");
        let bcrypt = STANDARD.encode(BCRYPT);
        assert_eq!(stored(&format!("{{CRYPT.B64}}{bcrypt}")), BCRYPT);
    }

    #[test]
    fn what_is_not_taken_is_named() {
        for (field, part) in [
            (
                "{MD5}$1$AhvKIkGc$ZqBmp97u.UMXgMLdrRk8k1",
                "{MD5} is too weak",
            ),
            ("{sha}87u9ZqY9S/F0eUBXjsPQEDUw4h0=", "{SHA} is too weak"),
            ("{SHA512.HEX}00", "{SHA512} is too weak"),
            (
                "{CRYPT}nrn0aNukeDQD.",
                "{CRYPT} with a DES hash is too weak",
            ),
            ("{CRYPT}_J9..gvFtgOE0X4oVHHA", "with a DES hash is too weak"),
            ("{CRYPT}$1$JTz8Tsm0$LTrt5tglRqOYVI0cV1LCP0", "MD5-crypt"),
            ("$1$JTz8Tsm0$LTrt5tglRqOYVI0cV1LCP0", "MD5-crypt"),
            (
                "{SCRAM-SHA-256}4096,a,b,c",
                "{SCRAM-SHA-256} belongs to a login mechanism",
            ),
            (
                "{SASL}ann@example.test",
                "{SASL} leaves the password with another program",
            ),
            ("{ROT13}uhagre2", "{ROT13} is not known here: ARGON2ID"),
            ("hunter2", "write {PLAIN} before it"),
        ] {
            let reason = Offered::read(field).err().unwrap();
            assert!(reason.contains(part), "{field}: {reason}");
        }
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
