//! Hashes of other programs. A hash stays until the first login with the right password, which
//! replaces the hash by argon2id. Until then each attempt costs as much as the other program chose,
//! so import and verification reject expensive hashes.

use argon2::Params;
use argon2::password_hash::phc::PasswordHash;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha_crypt::{PasswordVerifier as _, ShaCrypt};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use yescrypt::Yescrypt;

use crate::sasl::Secret;

/// The highest cost of bcrypt: 2^13 rounds are about half a second.
const BCRYPT_COST: u32 = 13;

/// The most rounds of SHA-256-crypt and SHA-512-crypt, about half a second; 5,000 are usual.
const SHA_CRYPT_ROUNDS: u32 = 500_000;

/// The fewest rounds of SHA-crypt; the algorithm has no fewer.
const FEWEST_ROUNDS: u32 = 1_000;

/// The most memory of argon2 and yescrypt, in KiB: each hashing thread may need as much.
const MEMORY: u32 = 131_072;

/// The most memory of argon2 times its passes, in KiB: about half a second.
const ARGON2_WORK: u64 = 1_048_576;

/// The most rounds of PBKDF2 with HMAC-SHA-1, about half a second; Dovecot makes 5,000.
const PBKDF2_ROUNDS: u32 = 1_000_000;

/// The longest salt of a salted SHA hash, in octets; Dovecot makes 4.
const LONGEST_SALT: usize = 64;

/// A hashing scheme.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scheme {
    /// argon2i, version 1.3.
    Argon2i,
    /// argon2id, version 1.3.
    Argon2id,
    /// bcrypt, as `$2a$`, `$2b$` or `$2y$`.
    Bcrypt,
    /// PBKDF2 with HMAC-SHA-1, as Dovecot's `{PBKDF2}$1$salt$rounds$hex`.
    Pbkdf2,
    /// SHA-256-crypt, as `$5$`.
    Sha256Crypt,
    /// SHA-512-crypt, as `$6$`.
    Sha512Crypt,
    /// One round of SHA-1 over password and salt, as `{SSHA}` and base64 of digest and salt.
    SaltedSha1,
    /// The same with SHA-256, as `{SSHA256}`.
    SaltedSha256,
    /// The same with SHA-512, as `{SSHA512}`.
    SaltedSha512,
    /// yescrypt, as `$y$`.
    Yescrypt,
}

/// The reason for rejecting a hash. Never repeats the hash.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum Unusable {
    /// Begins like no known hash.
    #[error(
        "its password is no hash that is known here; if it is the password itself, write {{PLAIN}} before it"
    )]
    Unknown,
    /// Truncated or malformed.
    #[error("its hash is not a whole {0} hash")]
    Broken(&'static str),
    /// Comparison would take too long.
    #[error("its hash costs too much: {0}")]
    TooDear(String),
    /// A known scheme that no maintained library verifies.
    #[error("its hash is {0}, which cannot be verified here: make a new credential for this user")]
    Unsupported(&'static str),
    /// A thief of the hash soon has the password.
    #[error("its hash is {0}, which is too weak: make a new credential for this user")]
    Weak(&'static str),
}

/// Known schemes that are rejected, by prefix.
const NOT_TAKEN: [(&str, Unusable); 9] = [
    ("$1$", Unusable::Weak("MD5-crypt ($1$)")),
    ("$md5", Unusable::Weak("SunMD5 ($md5)")),
    ("$3$", Unusable::Weak("an NT hash ($3$)")),
    ("$sha1$", Unusable::Unsupported("SHA1-crypt ($sha1$)")),
    ("$7$", Unusable::Unsupported("scrypt ($7$)")),
    ("$gy$", Unusable::Unsupported("gost-yescrypt ($gy$)")),
    (
        "$2x$",
        Unusable::Unsupported("bcrypt of a faulty program ($2x$)"),
    ),
    ("$2$", Unusable::Unsupported("bcrypt's first version ($2$)")),
    (
        "$argon2d$",
        Unusable::Unsupported("argon2d, made for other uses,"),
    ),
];

impl Scheme {
    /// For people.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Scheme::Argon2i => "argon2i",
            Scheme::Argon2id => "argon2id",
            Scheme::Bcrypt => "bcrypt",
            Scheme::Pbkdf2 => "PBKDF2",
            Scheme::SaltedSha1 => "salted SHA-1",
            Scheme::SaltedSha256 => "salted SHA-256",
            Scheme::SaltedSha512 => "salted SHA-512",
            Scheme::Sha256Crypt => "SHA-256-crypt",
            Scheme::Sha512Crypt => "SHA-512-crypt",
            Scheme::Yescrypt => "yescrypt",
        }
    }

    /// The scheme of a complete and affordable hash.
    ///
    /// # Errors
    /// The reason for rejecting the hash.
    pub(crate) fn of(hash: &str) -> Result<Scheme, Unusable> {
        if let Some(stored) = hash.strip_prefix('{') {
            return match stored.split_once('}') {
                Some(("PBKDF2", rest)) => Pbkdf2::read(rest).map(|_| Scheme::Pbkdf2),
                Some(("SSHA", rest)) => salted(rest, Scheme::SaltedSha1),
                Some(("SSHA256", rest)) => salted(rest, Scheme::SaltedSha256),
                Some(("SSHA512", rest)) => salted(rest, Scheme::SaltedSha512),
                _ => Err(Unusable::Unknown),
            };
        }
        let known = hash.strip_prefix('$').and_then(|rest| rest.split_once('$'));
        match known.map(|(id, _)| id) {
            Some("argon2id") => argon2(hash, Scheme::Argon2id),
            Some("argon2i") => argon2(hash, Scheme::Argon2i),
            Some("2a" | "2b" | "2y") => bcrypt(hash),
            Some("5") => sha_crypt(hash, Scheme::Sha256Crypt),
            Some("6") => sha_crypt(hash, Scheme::Sha512Crypt),
            Some("y") => yescrypt(hash),
            _ => {
                let mut others = NOT_TAKEN.into_iter();
                let other = others.find(|(begin, _)| hash.starts_with(begin));
                Err(other.map_or(Unusable::Unknown, |(_, reason)| reason))
            }
        }
    }

    /// Octets of the digest in a salted SHA hash.
    fn digest_length(self) -> usize {
        match self {
            Scheme::SaltedSha1 => 20,
            Scheme::SaltedSha256 => 32,
            _ => 64,
        }
    }
}

fn argon2(hash: &str, scheme: Scheme) -> Result<Scheme, Unusable> {
    let broken = || Unusable::Broken(scheme.as_str());
    let parsed = PasswordHash::new(hash).map_err(|_| broken())?;
    let params = Params::try_from(&parsed).map_err(|_| broken())?;
    let is_whole = parsed.salt.is_some() && parsed.hash.is_some() && parsed.version == Some(19);
    if !is_whole {
        return Err(broken());
    }
    let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
    if params.m_cost() > MEMORY || work > ARGON2_WORK || params.p_cost() > 16 {
        return Err(Unusable::TooDear(format!(
            "at most {MEMORY} KiB, and memory times passes at most {ARGON2_WORK} KiB"
        )));
    }
    Ok(scheme)
}

fn bcrypt(hash: &str) -> Result<Scheme, Unusable> {
    let broken = || Unusable::Broken(Scheme::Bcrypt.as_str());
    // "+4" would be a number, too.
    let cost = hash.get(4..6).unwrap_or_default();
    if !cost.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(broken());
    }
    let parts: bcrypt::HashParts = hash.parse().map_err(|_| broken())?;
    match parts.get_cost() {
        4..=BCRYPT_COST => Ok(Scheme::Bcrypt),
        14..=31 => Err(Unusable::TooDear(format!(
            "bcrypt's cost may be {BCRYPT_COST} at most"
        ))),
        _ => Err(broken()),
    }
}

fn sha_crypt(hash: &str, scheme: Scheme) -> Result<Scheme, Unusable> {
    let broken = || Unusable::Broken(scheme.as_str());
    let length = match scheme {
        Scheme::Sha256Crypt => 43,
        _ => 86,
    };
    let fields: Vec<_> = hash.split('$').skip(2).collect();
    let (rounds, salt, output) = match fields[..] {
        [salt, output] => (None, salt, output),
        [rounds, salt, output] => (Some(rounds), salt, output),
        _ => return Err(broken()),
    };
    let is_whole = is_crypt_base64(salt) && is_crypt_base64(output);
    if !is_whole || !(1..=16).contains(&salt.len()) || output.len() != length {
        return Err(broken());
    }
    let Some(rounds) = rounds else {
        return Ok(scheme);
    };
    let number = rounds.strip_prefix("rounds=").and_then(number);
    match number {
        Some(FEWEST_ROUNDS..=SHA_CRYPT_ROUNDS) => Ok(scheme),
        Some(0..FEWEST_ROUNDS) | None => Err(broken()),
        Some(_) => Err(Unusable::TooDear(format!(
            "{} may have {SHA_CRYPT_ROUNDS} rounds at most",
            scheme.as_str()
        ))),
    }
}

/// Only digits: `u32::from_str` takes a plus sign, too.
fn number(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

/// Whether these are letters of crypt(3)'s base64.
fn is_crypt_base64(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/'))
}

/// Accepts the flavour of crypt(3), without settings for special uses.
fn yescrypt(hash: &str) -> Result<Scheme, Unusable> {
    let broken = || Unusable::Broken(Scheme::Yescrypt.as_str());
    let fields: Vec<_> = hash.split('$').skip(2).collect();
    let [settings, salt, output] = fields[..] else {
        return Err(broken());
    };
    let is_whole = [settings, salt, output].into_iter().all(is_crypt_base64);
    // 32 octets of output; a salt has up to 64.
    if !is_whole || output.len() != 43 || salt.len() > 86 {
        return Err(broken());
    }
    let params: yescrypt::Params = settings.parse().map_err(|_| broken())?;
    let (n, r, p) = (params.n(), params.r(), params.p());
    let usual = yescrypt::Params::new(yescrypt::Mode::Rw, n, r, p);
    if usual != Ok(params) {
        return Err(Unusable::Unsupported("yescrypt with unusual settings"));
    }
    let memory = u128::from(n) * u128::from(r) * 128 / 1_024;
    if memory > u128::from(MEMORY) || p > 16 {
        return Err(Unusable::TooDear(format!(
            "yescrypt may take {MEMORY} KiB at most"
        )));
    }
    Ok(Scheme::Yescrypt)
}

/// Base64 of digest and salt, as in LDAP servers and Dovecot.
fn salted(text: &str, scheme: Scheme) -> Result<Scheme, Unusable> {
    let broken = || Unusable::Broken(scheme.as_str());
    let raw = STANDARD.decode(text).map_err(|_| broken())?;
    let salt = raw.len().checked_sub(scheme.digest_length());
    match salt {
        Some(1..=LONGEST_SALT) => Ok(scheme),
        _ => Err(broken()),
    }
}

/// Dovecot's `$1$salt$rounds$hex`.
struct Pbkdf2<'a> {
    salt: &'a str,
    rounds: u32,
    output: [u8; 20],
}

impl Pbkdf2<'_> {
    fn read(text: &str) -> Result<Pbkdf2<'_>, Unusable> {
        let broken = || Unusable::Broken(Scheme::Pbkdf2.as_str());
        let fields: Vec<_> = text.split('$').collect();
        let ["", "1", salt, rounds, output] = fields[..] else {
            return Err(broken());
        };
        let rounds = number(rounds).filter(|rounds| *rounds > 0);
        let (Some(rounds), 1..=LONGEST_SALT) = (rounds, salt.len()) else {
            return Err(broken());
        };
        if rounds > PBKDF2_ROUNDS {
            return Err(Unusable::TooDear(format!(
                "PBKDF2 may have {PBKDF2_ROUNDS} rounds at most"
            )));
        }
        let output = unhex(output).and_then(|output| output.try_into().ok());
        Ok(Pbkdf2 {
            salt,
            rounds,
            output: output.ok_or_else(broken)?,
        })
    }
}

/// Octets from hexadecimal digits of either case.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| {
        char::from(*byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let octets = pairs
        .iter()
        .map(|[high, low]| Some(digit(high)? << 4 | digit(low)?));
    octets.collect()
}

/// Compares a password with a hash; `None` for argon2.
///
/// # Errors
/// The hash cannot be used or costs too much.
pub(super) fn matches(password: &Secret, stored: &str) -> Option<Result<bool, Unusable>> {
    if stored.starts_with("$argon2") {
        return None;
    }
    Some(Scheme::of(stored).and_then(|scheme| compare(password, stored, scheme)))
}

fn compare(password: &Secret, stored: &str, scheme: Scheme) -> Result<bool, Unusable> {
    let broken = || Unusable::Broken(scheme.as_str());
    let password = password.expose();
    let behind_name = || {
        stored
            .split_once('}')
            .map(|(_, rest)| rest)
            .ok_or_else(broken)
    };
    let verified = |verified: Result<(), sha_crypt::password_hash::Error>| match verified {
        Ok(()) => Ok(true),
        Err(sha_crypt::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(_) => Err(broken()),
    };
    match scheme {
        Scheme::Argon2i | Scheme::Argon2id => Err(Unusable::Unknown),
        Scheme::Bcrypt => bcrypt::verify(password, stored).map_err(|_| broken()),
        Scheme::Pbkdf2 => {
            let Pbkdf2 {
                salt,
                rounds,
                output,
            } = Pbkdf2::read(behind_name()?)?;
            let mut computed = [0; 20];
            pbkdf2::pbkdf2_hmac::<Sha1>(password, salt.as_bytes(), rounds, &mut computed);
            Ok(computed.ct_eq(&output).into())
        }
        Scheme::SaltedSha1 | Scheme::SaltedSha256 | Scheme::SaltedSha512 => {
            let raw = STANDARD.decode(behind_name()?).map_err(|_| broken())?;
            let (digest, salt) = raw
                .split_at_checked(scheme.digest_length())
                .ok_or_else(broken)?;
            Ok(match scheme {
                Scheme::SaltedSha1 => salted_matches::<Sha1>(password, salt, digest),
                Scheme::SaltedSha256 => salted_matches::<Sha256>(password, salt, digest),
                _ => salted_matches::<Sha512>(password, salt, digest),
            })
        }
        Scheme::Sha256Crypt | Scheme::Sha512Crypt => {
            verified(ShaCrypt::default().verify_password(password, stored))
        }
        Scheme::Yescrypt => verified(Yescrypt::default().verify_password(password, stored)),
    }
}

fn salted_matches<D: Digest>(password: &[u8], salt: &[u8], digest: &[u8]) -> bool {
    let computed = D::new()
        .chain_update(password)
        .chain_update(salt)
        .finalize();
    computed.as_slice().ct_eq(digest).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of "hunter2", made by other programs.
    const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";
    const SHA512: &str = "$6$saltsalt$8iYtNHxjWRl.NF6oNZ5tF.iKFlQREaXBLlSmZKP6dy9l5z3vsooWNW0/GZ6Nej73/TFug6pIPSqbJoCT6dfnj.";
    const ROUNDS: &str = "$6$rounds=1000$saltsalt$gqUcWLKt3d1wsoaFq/ZlFXJndu400B3QqT3noJu6R/eEGKKt5.bf/H7jRZdxjThW3JpMB1IX.1Z2f5cgwsF710";
    const ARGON2I: &str =
        "$argon2i$v=19$m=4096,t=3,p=1$c29tZXNhbHRzb21l$iWh06vD8Fy27wf9npn6FXWiCX4K6pW6Ue1Bnzz07Z8A";

    const SHA256: &str = "$5$3rzJ61HsMRI4gdrV$1LAiUFPHztgU7HWCtyhEAEPtrmbxEpGRQ7yTyHLSgR1";
    const YESCRYPT: &str =
        "$y$j9T$FRK4x5AUTswZ9icvBKIaf.$qEdr7/70IipIX7BMWUhGQKq0d39UaxgQt32Av1syg61";
    const YESCRYPT_SMALL: &str =
        "$y$j75$a5sqKVALpokF6hqNcyjz50$3sTEbtI5xNhIkydaiFdg89q7e9C1zjf9bMwk9D4QLrC";
    const YESCRYPT_LARGE: &str =
        "$y$jFT$Xoa6xKE.9nq32/kXcVPZl0$r8TBd3KhJxXBAFuxLOFUwHonxLvCXi4XZqXc3iqp6Z2";
    const PBKDF2: &str =
        "{PBKDF2}$1$Tscil0.RSxQ9e4pE$5000$b0f54eb0789d06ba6a3a8a646f34a5d5c6489b8e";
    const SSHA: &str = "{SSHA}lhdKKw2V93yeauI6QYSjBrzk2jaq4uO0";
    const SSHA256: &str = "{SSHA256}gXpF2ZTBWWMQsDvdguKH/4A7nBlNOVK6yL4PxQwZc5vdP+PS";
    const SSHA512: &str = "{SSHA512}D+zR91bmq265bPybl9iw2nbxWL9FGJSswhhrc2fEAKgKNGHoRClsEZP4btir8E8f8ONc4XvNuF0FDyp+SVHTPUCYeC0=";

    #[test]
    fn hashes_of_other_programs_are_known_and_match() {
        for (hash, scheme) in [
            (SHA256, Scheme::Sha256Crypt),
            (YESCRYPT, Scheme::Yescrypt),
            (YESCRYPT_SMALL, Scheme::Yescrypt),
            (PBKDF2, Scheme::Pbkdf2),
            (SSHA, Scheme::SaltedSha1),
            (SSHA256, Scheme::SaltedSha256),
            (SSHA512, Scheme::SaltedSha512),
            (BCRYPT, Scheme::Bcrypt),
            (&BCRYPT.replace("$2b$", "$2y$"), Scheme::Bcrypt),
            (&BCRYPT.replace("$2b$", "$2a$"), Scheme::Bcrypt),
            (SHA512, Scheme::Sha512Crypt),
            (ROUNDS, Scheme::Sha512Crypt),
        ] {
            assert_eq!(Scheme::of(hash), Ok(scheme), "{hash}");
            let right = matches(&Secret::new("hunter2"), hash);
            assert_eq!(right, Some(Ok(true)), "{hash}");
            let wrong = matches(&Secret::new("hunter3"), hash);
            assert_eq!(wrong, Some(Ok(false)), "{hash}");
        }
        assert_eq!(Scheme::of(ARGON2I), Ok(Scheme::Argon2i));
        assert_eq!(matches(&Secret::new("x"), ARGON2I), None);
    }

    #[test]
    fn what_would_burn_minutes_is_too_dear() {
        for hash in [
            &BCRYPT.replace("$2b$04$", "$2b$14$"),
            &BCRYPT.replace("$2b$04$", "$2b$31$"),
            &ROUNDS.replace("rounds=1000", "rounds=500001"),
            &ROUNDS.replace("rounds=1000", "rounds=999999999"),
            &ARGON2I.replace("m=4096", "m=1048576"),
            &ARGON2I.replace("t=3", "t=4294967295"),
            &PBKDF2.replace("$5000$", "$1000001$"),
            &YESCRYPT_LARGE.to_owned(),
            &ROUNDS
                .replace("$6$rounds=1000", "$5$rounds=500001")
                .replacen(&ROUNDS[ROUNDS.len() - 43..], "", 1),
        ] {
            assert!(
                matches!(Scheme::of(hash), Err(Unusable::TooDear(_))),
                "{hash}"
            );
        }
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_not_taken() {
        let cut = |hash: &str| hash[..hash.len() - 1].to_owned();
        for hash in [
            cut(BCRYPT),
            cut(SHA512),
            format!("{SHA512}x"),
            format!("{SHA512}$"),
            BCRYPT.replace("$2b$04$", "$2b$32$"),
            BCRYPT.replace("$2b$04$", "$2b$03$"),
            BCRYPT.replace("$2b$04$", "$2b$+4$"),
            ROUNDS.replace("rounds=1000", "rounds=999"),
            ROUNDS.replace("rounds=1000", "rounds=+1000"),
            ROUNDS.replace("rounds=1000", "rounds=99999999999"),
            ARGON2I.replace("v=19", "v=16"),
            ARGON2I.replace("$v=19", ""),
            cut(SHA256),
            cut(YESCRYPT),
            format!("{YESCRYPT}$"),
            YESCRYPT.replace("$j9T$", "$$"),
            YESCRYPT.replace("$j9T$", "$j9T\u{e9}$"),
            cut(PBKDF2),
            PBKDF2.replace("$5000$", "$0$"),
            PBKDF2.replace("$5000$", "$+5000$"),
            PBKDF2.replace("Tscil0.RSxQ9e4pE", ""),
            PBKDF2.replace("$1$", "$2$"),
            "{SSHA}87u9ZqY9S/F0eUBXjsPQEDUw4h0=".to_owned(),
            format!("{SSHA}="),
            "{SSHA}".to_owned(),
            format!("{{SSHA}}{}", STANDARD.encode([0; 85])),
            "$5$abc$def".to_owned(),
        ] {
            assert!(
                matches!(Scheme::of(&hash), Err(Unusable::Broken(_))),
                "{hash}"
            );
        }
        for hash in [
            "",
            "hunter2",
            "$",
            "x$6$abc",
            "$9$abc$def",
            "{",
            "{MD5}abc",
            "{ssha}lhdKKw2V93yeauI6QYSjBrzk2jaq4uO0",
        ] {
            assert_eq!(Scheme::of(hash), Err(Unusable::Unknown), "{hash}");
        }
        for hash in ["$1$abc$def", "$md5,rounds=5$abc$$def", "$3$$abc"] {
            assert!(matches!(Scheme::of(hash), Err(Unusable::Weak(_))), "{hash}");
        }
        for hash in [
            "$2x$04$abc",
            "$argon2d$v=19",
            "$7$CU..../....c7ZI73u/URT.T/FFhYtOz/$M1x789jCuZ09DU8NKzOX1Uu.csZSD6m8a4C5udW4t5.",
            &YESCRYPT.replace("$y$", "$gy$"),
            &YESCRYPT.replace("$j9T$", "$.9T$"),
        ] {
            let found = Scheme::of(hash);
            assert!(matches!(found, Err(Unusable::Unsupported(_))), "{hash}");
        }
    }
}
