//! A link that signs a browser in once, for `gatepost demo`. A daemon that serves makes none.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::auth::token::TokenHash;
use crate::clock;

use super::sign_ins::unguessable;

/// How long a link can be opened.
const VALID: Duration = Duration::from_secs(10 * 60);

/// The link that was made last, until a browser opens it.
#[derive(Default)]
pub(in crate::admin) struct SignInLink(Mutex<Option<Open>>);

struct Open {
    /// A hash, so that a comparison takes the same time for every wrong code.
    code: blake3::Hash,
    token: TokenHash,
    /// By the steady clock, in milliseconds.
    until: i64,
}

impl SignInLink {
    /// Makes a link for the token, in place of an earlier one. Returns its path.
    pub(in crate::admin) fn make(&self, token: TokenHash) -> String {
        let code = unguessable();
        let valid = i64::try_from(VALID.as_millis()).unwrap_or(i64::MAX);
        let open = Open {
            code: blake3::hash(code.as_bytes()),
            token,
            until: clock::steady_ms().saturating_add(valid),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
        format!("/sign-in/once/{code}")
    }

    /// The token of the link with this code, the first time and in time. A wrong code leaves the
    /// link in place.
    pub(super) fn take(&self, code: &str) -> Option<TokenHash> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let given = blake3::hash(code.as_bytes());
        let found = open.take_if(|open| open.code == given)?;
        (clock::steady_ms() < found.until).then_some(found.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::token;

    fn code(path: &str) -> &str {
        path.strip_prefix("/sign-in/once/").unwrap()
    }

    #[test]
    fn a_link_works_once_and_a_wrong_code_does_not_spend_it() {
        let link = SignInLink::default();
        assert!(link.take("").is_none());
        let path = link.make(token::hash("gp_x"));
        assert!(link.take("wrong").is_none());
        assert!(link.take(code(&path)).is_some());
        assert!(link.take(code(&path)).is_none());
    }

    #[test]
    fn a_new_link_replaces_the_old_one() {
        let link = SignInLink::default();
        let old = link.make(token::hash("gp_x"));
        let new = link.make(token::hash("gp_x"));
        assert!(link.take(code(&old)).is_none());
        assert!(link.take(code(&new)).is_some());
    }

    #[test]
    fn a_link_ends_after_its_time() {
        let link = SignInLink::default();
        let path = link.make(token::hash("gp_x"));
        link.0.lock().unwrap().as_mut().unwrap().until = clock::steady_ms();
        assert!(link.take(code(&path)).is_none());
    }
}
