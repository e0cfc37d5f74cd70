//! Right passwords, remembered without remembering them.
//!
//! An entry holds a keyed hash under a key of this process alone, and the state of the row it was
//! true of. It is believed while the store's epoch stands still; when the epoch has moved, the
//! row is read again, and the entry stays true only if the row has not changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sasl::{Identity, Reason, Secret};
use crate::store::Login;

/// What a username and a password come to. Comparing two takes constant time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(blake3::Hash);

/// Makes digests that mean nothing outside this process.
pub struct Digester([u8; 32]);

impl Digester {
    /// With a fresh key.
    pub fn new() -> Self {
        Self(rand::random())
    }

    /// The digest of a pair. The username's length keeps pairs apart that run together alike.
    pub fn digest(&self, username: &str, password: &Secret) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(username.len() as u64).to_le_bytes());
        hasher.update(username.as_bytes());
        hasher.update(password.expose());
        Digest(hasher.finalize())
    }
}

/// A password that was right for one state of a row.
#[derive(Debug)]
pub struct Known {
    digest: Digest,
    key: i64,
    version: i64,
    /// Of the stored hash: key and version say the same, unless somebody put back an older row.
    password_hash: blake3::Hash,
    expires_at: Option<i64>,
    identity: Arc<Identity>,
    /// The epoch in which the row was last seen in this state.
    epoch: AtomicU64,
}

impl Known {
    /// `digest` was right for `login`, which was read in `epoch`.
    pub fn new(digest: Digest, login: &Login, epoch: u64) -> Self {
        Self {
            digest,
            key: login.key,
            version: login.version,
            password_hash: blake3::hash(login.password_hash.as_bytes()),
            expires_at: login.expires_at,
            identity: Arc::new(Identity {
                key: login.key,
                username: login.username.as_str().into(),
                organization: login.organization.as_str().into(),
            }),
            epoch: AtomicU64::new(epoch),
        }
    }

    /// Whether nothing has changed since the row was last seen.
    pub fn is_fresh(&self, epoch: u64) -> bool {
        self.epoch.load(Ordering::Acquire) == epoch
    }

    /// Whether the row, read in `epoch`, is still in the same state; if so the entry is fresh
    /// again.
    pub fn revalidate(&self, login: &Login, epoch: u64) -> bool {
        let same = (self.key, self.version) == (login.key, login.version)
            && self.password_hash == blake3::hash(login.password_hash.as_bytes())
            && self.expires_at == login.expires_at
            && *self.identity.organization == *login.organization;
        if same {
            self.epoch.fetch_max(epoch, Ordering::AcqRel);
        }
        same
    }

    /// Judges a password against the one known to be right.
    pub fn judge(&self, digest: Digest, now_ms: i64) -> Result<Arc<Identity>, Reason> {
        if self.expires_at.is_some_and(|end| end <= now_ms) {
            Err(Reason::Expired)
        } else if self.digest == digest {
            Ok(self.identity.clone())
        } else {
            Err(Reason::WrongPassword)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{CredentialStatus, OrganizationStatus};

    fn login(version: i64) -> Login {
        Login {
            key: 7,
            version,
            username: "smtp_a".into(),
            organization: "default".into(),
            password_hash: String::new(),
            tag: None,
            status: CredentialStatus::Active,
            organization_status: OrganizationStatus::Active,
            expires_at: Some(1000),
        }
    }

    #[test]
    fn pairs_that_run_together_alike_differ() {
        let digester = Digester::new();
        let digest =
            |username: &str, password: &str| digester.digest(username, &Secret::new(password));
        assert_eq!(digest("ab", "c"), digest("ab", "c"));
        assert_ne!(digest("ab", "c"), digest("a", "bc"));
        assert_ne!(
            digest("ab", "c"),
            Digester::new().digest("ab", &Secret::new("c"))
        );
    }

    #[test]
    fn an_entry_is_true_of_one_state_of_the_row() {
        let digest = Digester::new().digest("smtp_a", &Secret::new("right"));
        let known = Known::new(digest, &login(3), 10);
        assert!(known.is_fresh(10) && !known.is_fresh(11));
        assert!(!known.revalidate(&login(4), 11) && !known.is_fresh(11));
        let put_back = Login {
            password_hash: "other".into(),
            ..login(3)
        };
        assert!(!known.revalidate(&put_back, 11) && !known.is_fresh(11));
        assert!(known.revalidate(&login(3), 11) && known.is_fresh(11));
    }

    #[test]
    fn right_wrong_and_expired_are_told_apart() {
        let digester = Digester::new();
        let digest = |password: &str| digester.digest("smtp_a", &Secret::new(password));
        let known = Known::new(digest("right"), &login(1), 0);
        assert_eq!(known.judge(digest("right"), 999).unwrap().key, 7);
        assert_eq!(
            known.judge(digest("wrong"), 999),
            Err(Reason::WrongPassword)
        );
        assert_eq!(known.judge(digest("right"), 1000), Err(Reason::Expired));
    }
}
