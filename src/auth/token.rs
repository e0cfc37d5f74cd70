//! Admin tokens: how they are made, recognised and found.

use thiserror::Error;

use super::issue::random;
use crate::sasl::Secret;
use crate::store::{Editor, NewToken, Scope, Store, StoreError, Token};

/// What every token begins with, so that people and scanners for leaked secrets know one when they see it.
const PREFIX: &str = "gp_";

/// Random characters: 202 bits.
const LENGTH: usize = 34;

/// Characters behind them that are computed from them, so that a mistyped or cut token is told from a wrong one.
const CHECK_LENGTH: usize = 6;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A token together with its secret, for the only time.
#[derive(Debug)]
pub(crate) struct IssuedToken {
    /// As it is now stored.
    pub(crate) token: Token,
    /// What is presented: `gp_` and 40 characters; nowhere else.
    pub(crate) secret: Secret,
}

/// Why a text does not give access.
#[derive(Debug, Error)]
pub(crate) enum TokenError {
    /// Nobody ever got it.
    #[error("this is not a token: a token is gp_ and 40 letters and digits; was it copied whole?")]
    Malformed,
    /// It is not known, or not any more.
    #[error("the token is unknown, revoked or expired: make one with gatepost token create")]
    Invalid,
    /// It cannot be told.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a token.
///
/// # Errors
/// As [`Editor::create_token`]; then nothing was made.
pub(crate) fn issue(
    editor: Editor,
    name: &str,
    scope: &Scope,
    expires_at: Option<i64>,
) -> Result<IssuedToken, StoreError> {
    let random = Secret::new(random(PREFIX, LENGTH));
    let random = str::from_utf8(random.expose()).unwrap_or_default(); // it is ASCII
    let text = format!("{random}{}", check(random));
    let token = editor.create_token(NewToken {
        name,
        hash: &hash(&text).0,
        scope,
        expires_at,
    })?;
    Ok(IssuedToken {
        token,
        secret: Secret::new(text),
    })
}

/// What a token is found by. It gives the token away to nobody.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct TokenHash([u8; 32]);

/// The hash of what is presented as a token.
pub(crate) fn hash(text: &str) -> TokenHash {
    TokenHash(*blake3::hash(text.as_bytes()).as_bytes())
}

/// The valid token that has this hash. Blocks on the store.
///
/// # Errors
/// There is none, or the store cannot be read.
pub(crate) fn find(store: &Store, hash: TokenHash, now_ms: i64) -> Result<Token, TokenError> {
    // Found by its hash, so that the time this takes tells nothing about what would be a token.
    match store.token_by_hash(&hash.0)? {
        Some(token) if token.is_valid(now_ms) => Ok(token),
        _ => Err(TokenError::Invalid),
    }
}

/// Whether `text` could be a token; its checksum is right then.
pub(crate) fn is_well_formed(text: &str) -> bool {
    let (whole, checked) = (PREFIX.len() + LENGTH + CHECK_LENGTH, PREFIX.len() + LENGTH);
    text.len() == whole
        && text.is_ascii()
        && text.starts_with(PREFIX)
        && check(&text[..checked]) == text[checked..]
}

/// Not a secret matter: whoever knows this code can compute it.
fn check(text: &str) -> String {
    let [a, b, c, d, e, ..] = *blake3::hash(text.as_bytes()).as_bytes();
    let mut number = u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]);
    let mut digits = String::with_capacity(CHECK_LENGTH);
    for _ in 0..CHECK_LENGTH {
        digits.push(char::from(DIGITS[(number % 62) as usize]));
        number /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Actor;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("gatepost.db")).unwrap();
        (directory, store)
    }

    fn make(store: &Store, expires_at: Option<i64>) -> (Token, String) {
        let actor = Actor::system("tests");
        let issued = issue(
            store.by(&actor),
            "deploy",
            &Scope::INSTANCE_ADMIN,
            expires_at,
        )
        .unwrap();
        let text = String::from_utf8(issued.secret.expose().to_vec()).unwrap();
        (issued.token, text)
    }

    #[test]
    fn a_token_has_its_promised_form_and_is_found() {
        let (_directory, store) = store();
        let (token, text) = make(&store, None);
        assert_eq!(text.len(), 43);
        assert!(
            text[3..].bytes().all(|byte| byte.is_ascii_alphanumeric()),
            "{text}"
        );
        assert_eq!(find(&store, hash(&text), 0).unwrap(), token);
    }

    #[test]
    fn a_slip_of_the_pen_is_told_from_a_token_that_is_not_valid() {
        let (_directory, store) = store();
        let (_, text) = make(&store, Some(1_000));
        let slips = [
            String::new(),
            text[..42].to_owned(),
            format!("{text}a"),
            text.replacen("gp_", "GP_", 1),
            text.chars().rev().collect(),
            format!("gp_{}", "\u{e4}".repeat(20)),
        ];
        for slip in slips {
            assert!(!is_well_formed(&slip), "{slip}");
        }
        assert!(is_well_formed(&text));
        assert!(matches!(
            find(&store, hash(&text), 1_000),
            Err(TokenError::Invalid)
        ));
    }

    #[test]
    fn only_a_hash_of_the_token_is_stored() {
        let (directory, store) = store();
        let (_, text) = make(&store, None);
        for file in directory.path().read_dir().unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let secret = &text.as_bytes()[3..];
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
    }
}
