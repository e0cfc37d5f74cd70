//! Changes that count before they are written. A change that takes access away counts from the
//! moment an administrator asks for it, also while the file is locked, full or stalled: every
//! look-up applies it to the row that it reads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use uuid::Uuid;

use crate::policy::{Limits, Rule, Rules};

use super::{CredentialStatus, Login, OrganizationStatus, Retired, Store, now};

/// The thing that loses access.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Object {
    /// By username.
    Credential(String),
    /// By slug.
    Organization(String),
    /// An admin token.
    Token {
        /// [`super::Token::key`].
        key: i64,
        /// [`super::Token::id`].
        id: Uuid,
    },
}

/// The part of a thing that a change is about. Each holds at most one unwritten change.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Aspect {
    /// Whether the thing is there.
    Existence,
    /// From when on it is refused.
    Expiry,
    /// How much it may send.
    Limits,
    /// The previous password of an overlap.
    Overlap,
    /// The present password.
    Password,
    /// As whom and from where it may be used.
    Rules,
    /// Whether it may be used.
    Status,
}

/// Names one unwritten change.
pub type NarrowingKey = (Object, Aspect);

/// What a change takes away.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// The thing itself.
    Delete {
        /// Of an organization: whether its credentials go with it.
        force: bool,
    },
    /// The previous password of an overlap.
    EndOverlap,
    /// All use from this Unix millisecond on.
    Expire(i64),
    /// What the limits allowed beyond these.
    Limit(Limits),
    /// The present password.
    ReplacePassword {
        /// Whether the previous one of an overlap keeps its end; otherwise it is lost, too.
        keeps_previous: bool,
    },
    /// All use.
    Revoke,
    /// What the rules allowed beyond these.
    Rule(Rules),
}

impl Effect {
    /// What it is about.
    pub fn aspect(&self) -> Aspect {
        match self {
            Effect::Delete { .. } => Aspect::Existence,
            Effect::EndOverlap => Aspect::Overlap,
            Effect::Expire(_) => Aspect::Expiry,
            Effect::Limit(_) => Aspect::Limits,
            Effect::ReplacePassword { .. } => Aspect::Password,
            Effect::Revoke => Aspect::Status,
            Effect::Rule(_) => Aspect::Rules,
        }
    }
}

/// One change that counts and is not written.
#[derive(Clone, Debug)]
pub struct Narrowing {
    /// The thing that loses access.
    pub object: Object,
    /// What it loses.
    pub effect: Effect,
    /// Of a credential: its row when the change was asked for. What another process makes of the
    /// row later is compared with it.
    pub base: Option<Arc<Login>>,
}

impl Narrowing {
    /// Its name.
    pub fn key(&self) -> NarrowingKey {
        (self.object.clone(), self.effect.aspect())
    }

    /// Whether it still applies to `login`, the stored row: a later change of the same aspect by
    /// another process, or another row of the same name, is not undone.
    pub fn applies_to(&self, login: &Login) -> bool {
        let Some(base) = &self.base else {
            return true;
        };
        let is_same = match &self.effect {
            Effect::Delete { .. } => true,
            Effect::EndOverlap => previous_hash(base) == previous_hash(login),
            Effect::Expire(_) => base.expires_at == login.expires_at,
            Effect::Limit(_) => base.policy.limits == login.policy.limits,
            Effect::ReplacePassword { .. } => has_same_password(base, login),
            Effect::Revoke => !is_enabled_again(base, login),
            Effect::Rule(_) => base.policy.rules == login.policy.rules,
        };
        base.key == login.key && is_same
    }

    /// The row as it will be once this is written; none if it will be gone.
    fn apply(&self, mut login: Login) -> Option<Login> {
        if !self.applies_to(&login) {
            return Some(login);
        }
        match &self.effect {
            Effect::Delete { .. } => return None,
            Effect::EndOverlap => login.previous = None,
            Effect::Expire(end) => {
                login.expires_at = Some(*end);
                if login.policy.rules.reports(Rule::Expiry) {
                    Arc::make_mut(&mut login.policy).expiry_reported = login.expires_at;
                }
            }
            Effect::Limit(limits) => Arc::make_mut(&mut login.policy).limits = limits.clone(),
            Effect::ReplacePassword { keeps_previous } => {
                replace_password(&mut login);
                login.previous = login.previous.filter(|_| *keeps_previous);
            }
            Effect::Revoke if matches!(self.object, Object::Organization(_)) => {
                login.organization_status = OrganizationStatus::Suspended;
                if login.policy.rules.reports(Rule::Suspended) {
                    Arc::make_mut(&mut login.policy).suspension_reported = true;
                }
            }
            Effect::Revoke => login.status = CredentialStatus::Revoked,
            Effect::Rule(rules) => Arc::make_mut(&mut login.policy).rules = rules.clone(),
        }
        Some(login)
    }
}

impl fmt::Display for Narrowing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (&self.effect, &self.object) {
            (Effect::Delete { .. }, _) => "the deletion",
            (Effect::EndOverlap, _) => "the end of the overlap",
            (Effect::Expire(_), _) => "the expiry",
            (Effect::Limit(_), _) => "the limits",
            (Effect::ReplacePassword { .. }, _) => "the end of the old password",
            (Effect::Revoke, Object::Organization(_)) => "the suspension",
            (Effect::Revoke, _) => "the revocation",
            (Effect::Rule(_), _) => "the rules",
        };
        match &self.object {
            Object::Credential(username) => write!(f, "{what} of credential {username}"),
            Object::Organization(slug) => write!(f, "{what} of organization {slug}"),
            Object::Token { id, .. } => write!(f, "{what} of admin token {id}"),
        }
    }
}

fn previous_hash(login: &Login) -> Option<&str> {
    let previous = login.previous.as_ref();
    previous.map(|previous| previous.password_hash.as_str())
}

/// A tag survives a hash that is renewed at a higher cost.
fn has_same_password(base: &Login, login: &Login) -> bool {
    match (base.tag, login.tag) {
        (Some(old), Some(new)) => old == new,
        (old, new) => old == new && base.password_hash == login.password_hash,
    }
}

/// Whether a process wrote the status after `base` was read: the version moved, and no other column
/// did that moves it.
fn is_enabled_again(base: &Login, login: &Login) -> bool {
    let others = |login: &Login| {
        let policy = &login.policy;
        (
            login.password_hash.clone(),
            login.tag,
            login.previous.clone(),
            login.expires_at,
            login.organization.clone(),
            (policy.limits.clone(), policy.rules.clone()),
        )
    };
    login.status == CredentialStatus::Active
        && login.version != base.version
        && others(login) == others(base)
}

/// Leaves a row that no password fits: another tag than that of the old password, and no hash.
fn replace_password(login: &mut Login) {
    if let Some(tag) = login.tag {
        let replaced = Retired { tag, at: now() };
        let older = login.retired.iter().copied();
        login.retired = std::iter::once(replaced).chain(older).collect();
    }
    login.tag = Some(login.tag.map_or(0, |tag| !tag));
    login.password_hash = String::new();
}

/// All changes that count and are not written; almost always none.
#[derive(Debug, Default)]
pub(super) struct Narrowings {
    count: AtomicUsize,
    all: RwLock<BTreeMap<NarrowingKey, Arc<Narrowing>>>,
}

impl Narrowings {
    /// The row as it is once everything is written; none if it is gone then.
    pub(super) fn apply(&self, login: Login) -> Option<Login> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Some(login);
        }
        let own = self.of(&Object::Credential(login.username.clone()));
        let shared = self.of(&Object::Organization(login.organization.clone()));
        let mut all = own.iter().chain(&shared);
        all.try_fold(login, |login, narrowing| narrowing.apply(login))
    }

    /// Whether the password of the row with this key is to be replaced.
    pub(super) fn replaces_password_of(&self, key: i64) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        self.read().values().any(|narrowing| {
            let base = narrowing.base.as_ref();
            narrowing.effect.aspect() == Aspect::Password
                && base.is_some_and(|base| base.key == key)
        })
    }

    /// Whether the admin token with this key is revoked.
    pub(super) fn revoke_token(&self, own: i64) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        // Each change of a token asks, also while tens of thousands of credentials are revoked.
        let from = Object::Token {
            key: own,
            id: Uuid::nil(),
        };
        let all = self.read();
        let mut behind = all.range((from, Aspect::Existence)..);
        let first = behind.next();
        first.is_some_and(
            |((object, _), _)| matches!(object, Object::Token { key, .. } if *key == own),
        )
    }

    /// Whether an organization is deleted.
    pub(super) fn delete_organization(&self, slug: &str) -> bool {
        let key = || (Object::Organization(slug.to_owned()), Aspect::Existence);
        self.count.load(Ordering::Acquire) > 0 && self.read().contains_key(&key())
    }

    fn of(&self, object: &Object) -> Vec<Arc<Narrowing>> {
        let from = (object.clone(), Aspect::Existence);
        let all = self.read();
        let own = all
            .range(from..)
            .take_while(|((owner, _), _)| owner == object);
        own.map(|(_, narrowing)| narrowing.clone()).collect()
    }

    fn change(&self, work: impl FnOnce(&mut BTreeMap<NarrowingKey, Arc<Narrowing>>)) {
        let mut all = self.write();
        work(&mut all);
        self.count.store(all.len(), Ordering::Release);
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<NarrowingKey, Arc<Narrowing>>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<NarrowingKey, Arc<Narrowing>>> {
        self.all.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Has every look-up from now on obey a change that is not written yet. Takes no lock that is
    /// held during a write.
    pub fn obey(&self, narrowing: Narrowing) {
        self.narrowings.change(|all| {
            all.insert(narrowing.key(), Arc::new(narrowing));
        });
        self.advance_epoch();
    }

    /// Goes by the file alone again: the changes are written, or given up.
    pub fn disobey(&self, keys: &[NarrowingKey]) {
        self.narrowings.change(|all| {
            for key in keys {
                all.remove(key);
            }
        });
        self.advance_epoch();
    }

    /// How many changes count and are not written.
    pub fn unwritten(&self) -> usize {
        self.narrowings.count.load(Ordering::Acquire)
    }

    /// Whether this change counts and is not written.
    pub fn obeys(&self, key: &NarrowingKey) -> bool {
        self.unwritten() > 0 && self.narrowings.read().contains_key(key)
    }

    /// Whether a credential is revoked or deleted by a change that is not written.
    pub fn refuses_unwritten(&self, username: &str) -> bool {
        if self.unwritten() == 0 {
            return false;
        }
        let own = self.narrowings.of(&Object::Credential(username.to_owned()));
        let aspects = [Aspect::Existence, Aspect::Status];
        own.iter()
            .any(|narrowing| aspects.contains(&narrowing.effect.aspect()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, named};
    use super::*;

    const NAME: &str = "smtp_a";

    fn obeyed(store: &Fixture, effect: Effect) -> NarrowingKey {
        let base = store.lookup(NAME).unwrap().unwrap();
        let narrowing = Narrowing {
            object: Object::Credential(NAME.to_owned()),
            effect,
            base: Some(Arc::new(base)),
        };
        let key = narrowing.key();
        store.obey(narrowing);
        key
    }

    fn made() -> Fixture {
        let store = Fixture::new();
        store.create_credential(named(NAME)).unwrap();
        store.set_password(NAME, "$present", Some(7)).unwrap();
        store
    }

    #[test]
    fn a_look_up_obeys_what_is_not_written_until_that_is_over() {
        let store = made();
        let epoch = store.epoch();
        let key = obeyed(&store, Effect::Revoke);
        assert!(store.epoch() > epoch);
        let status = || store.lookup(NAME).unwrap().unwrap().status;
        assert_eq!(status(), CredentialStatus::Revoked);
        assert!(store.refuses_unwritten(NAME) && !store.refuses_unwritten("smtp_b"));
        store.disobey(&[key]);
        assert_eq!((status(), store.unwritten()), (CredentialStatus::Active, 0));

        let key = obeyed(&store, Effect::Delete { force: false });
        assert_eq!(store.lookup(NAME).unwrap(), None);
        store.disobey(&[key]);
        obeyed(
            &store,
            Effect::ReplacePassword {
                keeps_previous: false,
            },
        );
        let login = store.lookup(NAME).unwrap().unwrap();
        assert_ne!(login.tag, Some(7));
        assert_eq!(login.retired[0].tag, 7);
    }

    #[test]
    fn a_suspension_reaches_every_credential_of_the_organization() {
        let store = made();
        store.obey(Narrowing {
            object: Object::Organization("default".to_owned()),
            effect: Effect::Revoke,
            base: None,
        });
        let login = store.lookup(NAME).unwrap().unwrap();
        assert_eq!(login.organization_status, OrganizationStatus::Suspended);
    }

    #[test]
    fn what_another_process_enables_later_is_not_refused() {
        let store = made();
        obeyed(&store, Effect::Revoke);
        let status = || store.lookup(NAME).unwrap().unwrap().status;
        store.shell("UPDATE credentials SET status = 'active'");
        assert_eq!(status(), CredentialStatus::Active);
        obeyed(&store, Effect::Revoke);
        // No change of the status, though it moves the version as well.
        store.shell("UPDATE credentials SET expires_at = 4102444800000");
        assert_eq!(status(), CredentialStatus::Revoked);
    }

    #[test]
    fn a_row_of_the_same_name_that_is_made_later_is_another_one() {
        let store = made();
        for effect in [Effect::Revoke, Effect::Delete { force: false }] {
            obeyed(&store, effect);
        }
        store.shell("DELETE FROM credentials");
        store.create_credential(named(NAME)).unwrap();
        let login = store.lookup(NAME).unwrap().unwrap();
        assert_eq!(login.status, CredentialStatus::Active);
    }

    #[test]
    fn the_password_of_a_later_rotation_is_right() {
        let store = made();
        obeyed(
            &store,
            Effect::ReplacePassword {
                keeps_previous: false,
            },
        );
        store.set_password(NAME, "$later", Some(9)).unwrap();
        assert_eq!(store.lookup(NAME).unwrap().unwrap().tag, Some(9));
    }
}
