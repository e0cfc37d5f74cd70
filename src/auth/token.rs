//! Admin tokens: creation, form and look-up.

use thiserror::Error;

use super::issue::random;
use crate::sasl::Secret;
use crate::store::{Editor, NewToken, Scope, Store, StoreError, Token};

/// Identifies a token to people and to scanners for leaked secrets.
const PREFIX: &str = "gp_";

/// Random characters: 202 bits.
const LENGTH: usize = 34;

/// Checksum characters, to tell a mistyped or truncated token from a wrong one.
const CHECK_LENGTH: usize = 6;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A token with the only copy of its secret.
#[derive(Debug)]
pub(crate) struct IssuedToken {
    pub(crate) token: Token,
    /// `gp_` and 40 characters; stored nowhere.
    pub(crate) secret: Secret,
}

/// The reason for denying access.
#[derive(Debug, Error)]
pub(crate) enum TokenError {
    #[error("this is not a token: a token is gp_ and 40 letters and digits; was it copied whole?")]
    Malformed,
    #[error("the token is unknown, revoked or expired: make one with gatepost token create")]
    Invalid,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Creates a token.
///
/// # Errors
/// As [`Editor::create_token`]; nothing is created then.
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

/// The key for the look-up of a token; reveals nothing about the token.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct TokenHash([u8; 32]);

pub(crate) fn hash(text: &str) -> TokenHash {
    TokenHash(*blake3::hash(text.as_bytes()).as_bytes())
}

/// The valid token with this hash. Blocks on the store.
///
/// # Errors
/// No valid token has the hash, or the store cannot be read.
pub(crate) fn find(store: &Store, hash: TokenHash, now_ms: i64) -> Result<Token, TokenError> {
    // The look-up by hash takes a time that reveals nothing about valid tokens.
    match store.token_by_hash(&hash.0)? {
        Some(token) if token.is_valid(now_ms) => Ok(token),
        _ => Err(TokenError::Invalid),
    }
}

/// Whether `text` has the form and checksum of a token.
pub(crate) fn is_well_formed(text: &str) -> bool {
    let (whole, checked) = (PREFIX.len() + LENGTH + CHECK_LENGTH, PREFIX.len() + LENGTH);
    text.len() == whole
        && text.is_ascii()
        && text.starts_with(PREFIX)
        && check(&text[..checked]) == text[checked..]
}

/// A checksum, not a secret.
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
    fn a_mistyped_token_differs_from_an_invalid_token() {
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
