//! Hashes that were made elsewhere. They are kept as they came until the first login with the right password, which is then
//! hashed anew; until then each try costs what whoever made them chose, so what is too dear is not taken.

use argon2::Params;
use argon2::password_hash::phc::PasswordHash;
use sha_crypt::{PasswordVerifier as _, ShaCrypt};
use thiserror::Error;

use crate::sasl::Secret;

/// The highest cost of bcrypt: 2^13 rounds are about half a second.
const BCRYPT_COST: u32 = 13;

/// The most rounds of SHA-512-crypt, about half a second; 5,000 are usual.
const SHA_CRYPT_ROUNDS: u32 = 500_000;

/// The fewest rounds of SHA-512-crypt; the algorithm has no fewer.
const FEWEST_ROUNDS: u32 = 1_000;

/// The most memory of argon2, in KiB: each thread that hashes may need it.
const ARGON2_MEMORY: u32 = 131_072;

/// The most memory of argon2 times its passes, in KiB: about half a second.
const ARGON2_WORK: u64 = 1_048_576;

/// How a password was hashed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// argon2i, version 1.3.
    Argon2i,
    /// argon2id, version 1.3.
    Argon2id,
    /// bcrypt, as `$2a$`, `$2b$` or `$2y$`.
    Bcrypt,
    /// SHA-512-crypt, as `$6$`.
    Sha512Crypt,
}

/// Why a hash cannot be taken. It never says anything of the hash itself.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Unusable {
    /// What it begins with is none of the known.
    #[error(
        "its hash is of a kind that is not known here: argon2id, argon2i, bcrypt and SHA-512-crypt are"
    )]
    Unknown,
    /// It is cut off, or not what it begins with.
    #[error("its hash is not a whole {0} hash")]
    Broken(&'static str),
    /// To compare with it would take too long.
    #[error("its hash costs too much: {0}")]
    TooDear(String),
}

impl Scheme {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Argon2i => "argon2i",
            Scheme::Argon2id => "argon2id",
            Scheme::Bcrypt => "bcrypt",
            Scheme::Sha512Crypt => "SHA-512-crypt",
        }
    }

    /// What this hash is, if it is whole and affordable.
    ///
    /// # Errors
    /// What keeps it from being used.
    pub fn of(hash: &str) -> Result<Scheme, Unusable> {
        match hash.split('$').nth(1) {
            Some("argon2id") if hash.starts_with('$') => argon2(hash, Scheme::Argon2id),
            Some("argon2i") if hash.starts_with('$') => argon2(hash, Scheme::Argon2i),
            Some("2a" | "2b" | "2y") if hash.starts_with('$') => bcrypt(hash),
            Some("6") if hash.starts_with('$') => sha_crypt(hash),
            _ => Err(Unusable::Unknown),
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
    if params.m_cost() > ARGON2_MEMORY || work > ARGON2_WORK || params.p_cost() > 16 {
        return Err(Unusable::TooDear(format!(
            "at most {ARGON2_MEMORY} KiB, and memory times passes at most {ARGON2_WORK} KiB"
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

fn sha_crypt(hash: &str) -> Result<Scheme, Unusable> {
    let broken = || Unusable::Broken(Scheme::Sha512Crypt.as_str());
    let fields: Vec<_> = hash.split('$').skip(2).collect();
    let (rounds, salt, output) = match fields[..] {
        [salt, output] => (None, salt, output),
        [rounds, salt, output] => (Some(rounds), salt, output),
        _ => return Err(broken()),
    };
    let is_plain = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/'))
    };
    let is_whole = is_plain(salt) && is_plain(output);
    if !is_whole || !(1..=16).contains(&salt.len()) || output.len() != 86 {
        return Err(broken());
    }
    let Some(rounds) = rounds else {
        return Ok(Scheme::Sha512Crypt);
    };
    let number = rounds.strip_prefix("rounds=");
    let number = number.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match number.and_then(|text| text.parse().ok()) {
        Some(FEWEST_ROUNDS..=SHA_CRYPT_ROUNDS) => Ok(Scheme::Sha512Crypt),
        Some(0..FEWEST_ROUNDS) => Err(broken()),
        Some(_) => Err(Unusable::TooDear(format!(
            "SHA-512-crypt may have {SHA_CRYPT_ROUNDS} rounds at most"
        ))),
        None => Err(broken()),
    }
}

/// Compares a password with a hash that is not argon2's. `None` if it is.
///
/// # Errors
/// The hash cannot be used, or costs more than is allowed.
pub(super) fn matches(password: &Secret, stored: &str) -> Option<Result<bool, Unusable>> {
    if stored.starts_with("$argon2") {
        return None;
    }
    Some(Scheme::of(stored).and_then(|scheme| compare(password, stored, scheme)))
}

fn compare(password: &Secret, stored: &str, scheme: Scheme) -> Result<bool, Unusable> {
    match scheme {
        Scheme::Bcrypt => {
            bcrypt::verify(password.expose(), stored).map_err(|_| Unusable::Broken(scheme.as_str()))
        }
        Scheme::Sha512Crypt => match ShaCrypt::SHA512.verify_password(password.expose(), stored) {
            Ok(()) => Ok(true),
            Err(sha_crypt::password_hash::Error::PasswordInvalid) => Ok(false),
            Err(_) => Err(Unusable::Broken(scheme.as_str())),
        },
        Scheme::Argon2i | Scheme::Argon2id => Err(Unusable::Unknown),
    }
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

    #[test]
    fn hashes_of_other_programs_are_known_and_match() {
        for (hash, scheme) in [
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
            "$1$abc$def",
            "$5$abc$def",
            "$2x$04$abc",
            "x$6$abc",
            "$argon2d$v=19",
        ] {
            assert_eq!(Scheme::of(hash), Err(Unusable::Unknown), "{hash}");
        }
    }
}
