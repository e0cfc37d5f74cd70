//! Cached right passwords, kept as keyed hashes.
//!
//! An entry holds a hash under a key of this process, and the row state for which the password is
//! right. While the store's epoch stands still, the entry is fresh. After a move of the epoch the
//! row is read again, and the entry becomes fresh only if the row is unchanged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::guard::Target;
use crate::clock::Moment;
use crate::policy::Rule;
use crate::sasl::{Identity, Reason, Secret};
use crate::store::{Login, Previous, Retired};

/// The keyed hash of a username and password. Comparison takes constant time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(blake3::Hash);

impl Digest {
    /// Four octets, for uses in which a collision does no harm.
    pub(crate) fn mark(self) -> u32 {
        let [a, b, c, d, ..] = *self.0.as_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// Eight octets, for the same uses.
    pub(crate) fn word(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *self.0.as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Makes digests under a key of this process.
pub(crate) struct Digester([u8; 32]);

impl Digester {
    pub(crate) fn new() -> Self {
        Self(rand::random())
    }

    /// The length keeps pairs apart whose concatenations are equal.
    pub(crate) fn digest(&self, username: &str, password: &Secret) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(username.len() as u64).to_le_bytes());
        hasher.update(username.as_bytes());
        hasher.update(password.expose());
        Digest(hasher.finalize())
    }
}

/// The place of a password in its credential's row; a rotation with an overlap leaves two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PasswordSlot {
    Current,
    Previous,
}

/// A password that is right for one state of a row.
#[derive(Debug)]
pub(crate) struct CacheEntry {
    digest: Digest,
    key: i64,
    version: i64,
    /// Of the stored hash. Redundant with key and version, unless an older row was put back.
    password_hash: blake3::Hash,
    slot: PasswordSlot,
    /// Whether the password was generated here and cannot be guessed.
    generated: bool,
    /// In Unix milliseconds.
    expires_at: Option<i64>,
    /// The end of the overlap, in steady milliseconds.
    overlap_until: Option<i64>,
    /// Earlier passwords, so that a client with one of them is recognized without the store.
    retired: Box<[Retired]>,
    /// Includes the organization's limits, which change without the row's version.
    identity: ArcSwap<Identity>,
    /// The last epoch in which the row had this state.
    epoch: AtomicU64,
}

impl CacheEntry {
    /// `digest` matches the password in `slot` of `login`, a row read in `epoch`.
    pub(crate) fn new(digest: Digest, login: &Login, slot: PasswordSlot, epoch: u64) -> Self {
        Self {
            digest,
            key: login.key,
            version: login.version,
            password_hash: hash_of(login, slot),
            slot,
            generated: is_generated(login, slot),
            expires_at: expiry_of(login),
            overlap_until: overlap_until(login),
            retired: login.retired.clone(),
            identity: ArcSwap::new(identity_of(login)),
            epoch: AtomicU64::new(epoch),
        }
    }

    /// Whether the store is unchanged since the row was last read.
    pub(crate) fn is_fresh(&self, epoch: u64) -> bool {
        self.epoch.load(Ordering::Acquire) == epoch
    }

    /// Makes the entry fresh if the row, read in `epoch`, is in the same state. Returns whether.
    pub(crate) fn revalidate(&self, login: &Login, epoch: u64) -> bool {
        let same = self.is_of(login);
        if same {
            if self.identity.load().policy != login.policy {
                self.identity.store(identity_of(login));
            }
            self.epoch.fetch_max(epoch, Ordering::AcqRel);
        }
        same
    }

    /// Whether the row is in the state that the entry was made from.
    pub(crate) fn is_of(&self, login: &Login) -> bool {
        (self.key, self.version) == (login.key, login.version)
            && self.password_hash == hash_of(login, self.slot)
            && self.expires_at == expiry_of(login)
            && self.overlap_until == overlap_until(login)
            && *self.identity.load().organization == *login.organization
    }

    /// Judges a password by this entry. `None`: the entry does not decide, because the other
    /// password of an overlap may match.
    pub(crate) fn evaluate(
        &self,
        digest: Digest,
        now: Moment,
    ) -> Option<Result<Arc<Identity>, Reason>> {
        let overlaps = self.overlaps_at(now);
        // The previous password's end says nothing about the current password.
        let is_current = self.slot == PasswordSlot::Current;
        if self.expires_at.is_some_and(|end| end <= now.wall) {
            return is_current.then_some(Err(Reason::Expired));
        }
        if !is_current && !overlaps {
            return None;
        }
        if self.digest == digest {
            return Some(Ok(self.identity()));
        }
        (!overlaps).then_some(Err(Reason::WrongPassword))
    }

    /// Whether the password matches, in time or not.
    pub(crate) fn is(&self, digest: Digest) -> bool {
        self.digest == digest
    }

    pub(crate) fn is_generated(&self) -> bool {
        self.generated
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            key: self.key,
            version: self.version,
        }
    }

    /// Whether the row has two passwords.
    pub(crate) fn overlaps(&self) -> bool {
        self.overlap_until.is_some()
    }

    /// Whether both passwords are right now.
    pub(crate) fn overlaps_at(&self, now: Moment) -> bool {
        self.overlap_until.is_some_and(|end| end > now.steady())
    }

    /// The passwords replaced by rotations.
    pub(crate) fn retired(&self) -> &[Retired] {
        &self.retired
    }

    pub(crate) fn identity(&self) -> Arc<Identity> {
        self.identity.load_full()
    }
}

pub(crate) fn identity_of(login: &Login) -> Arc<Identity> {
    Arc::new(Identity {
        key: login.key,
        username: login.username.as_str().into(),
        organization: login.organization.as_str().into(),
        policy: login.policy.clone(),
    })
}

fn hash_of(login: &Login, slot: PasswordSlot) -> blake3::Hash {
    let text = match (slot, &login.previous) {
        (PasswordSlot::Current, _) => login.password_hash.as_str(),
        (PasswordSlot::Previous, Some(previous)) => previous.password_hash.as_str(),
        (PasswordSlot::Previous, None) => "",
    };
    blake3::hash(text.as_bytes())
}

fn is_generated(login: &Login, slot: PasswordSlot) -> bool {
    let tag = match (slot, &login.previous) {
        (PasswordSlot::Previous, Some(previous)) => previous.tag,
        _ => login.tag,
    };
    tag.is_some()
}

fn expiry_of(login: &Login) -> Option<i64> {
    let reported = login.policy.rules.reports(Rule::Expiry);
    login.expires_at.filter(|_| !reported)
}

fn overlap_until(login: &Login) -> Option<i64> {
    login
        .previous
        .as_ref()
        .map(|previous: &Previous| previous.until)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{CredentialStatus, OrganizationStatus};

    fn at(milliseconds: i64) -> Moment {
        Moment {
            steady_us: milliseconds * 1_000,
            wall: milliseconds,
        }
    }

    fn login(version: i64) -> Login {
        Login {
            key: 7,
            version,
            username: "smtp_a".into(),
            organization: "default".into(),
            password_hash: String::new(),
            tag: None,
            previous: None,
            retired: Box::default(),
            status: CredentialStatus::Active,
            organization_status: OrganizationStatus::Active,
            expires_at: Some(1000),
            policy: Arc::default(),
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
        let known = CacheEntry::new(digest, &login(3), PasswordSlot::Current, 10);
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
    fn right_wrong_and_expired_differ() {
        let digester = Digester::new();
        let digest = |password: &str| digester.digest("smtp_a", &Secret::new(password));
        let known = CacheEntry::new(digest("right"), &login(1), PasswordSlot::Current, 0);
        assert_eq!(
            known
                .evaluate(digest("right"), at(999))
                .unwrap()
                .unwrap()
                .key,
            7
        );
        assert_eq!(
            known.evaluate(digest("wrong"), at(999)),
            Some(Err(Reason::WrongPassword))
        );
        assert_eq!(
            known.evaluate(digest("right"), at(1000)),
            Some(Err(Reason::Expired))
        );
    }

    #[test]
    fn during_an_overlap_only_a_match_decides() {
        let digester = Digester::new();
        let digest = |password: &str| digester.digest("smtp_a", &Secret::new(password));
        let overlapping = Login {
            previous: Some(Previous {
                password_hash: "old".into(),
                tag: None,
                until: 500,
            }),
            ..login(1)
        };
        let current = CacheEntry::new(digest("new"), &overlapping, PasswordSlot::Current, 0);
        let previous = CacheEntry::new(digest("old"), &overlapping, PasswordSlot::Previous, 0);
        assert!(matches!(
            current.evaluate(digest("new"), at(499)),
            Some(Ok(_))
        ));
        assert_eq!(current.evaluate(digest("old"), at(499)), None);
        assert!(matches!(
            previous.evaluate(digest("old"), at(499)),
            Some(Ok(_))
        ));
        assert_eq!(previous.evaluate(digest("old"), at(500)), None);
        assert_eq!(
            current.evaluate(digest("old"), at(500)),
            Some(Err(Reason::WrongPassword))
        );
        assert!(current.revalidate(&overlapping, 1) && previous.revalidate(&overlapping, 1));
        assert!(!current.revalidate(&login(1), 2) && !previous.revalidate(&login(1), 2));
    }
}
