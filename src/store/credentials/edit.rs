//! How credentials change.

use rusqlite::{Connection, Transaction, params};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock::steady_ms;
use crate::policy::{Limits, LimitsChange, Rules, RulesChange};

use super::super::audit::{Event, record};
use super::super::error::Stop;
use super::super::text::composed;
use super::super::{
    Editor, Kind, Overlap, Rotation, StoreError, login, name, now, organizations, overlap, policy,
};
use super::{Credential, CredentialStatus, find, taken};

/// What a credential starts with.
#[derive(Clone, Copy, Debug)]
pub struct NewCredential<'a> {
    /// Not yet taken.
    pub username: &'a str,
    /// argon2id in PHC format.
    pub password_hash: &'a str,
    /// [`Store::tag`] of the password if it is a generated one; a tag gives away 32 bits, too many of a chosen password.
    pub tag: Option<u32>,
    /// The slug of an existing organization.
    pub organization: &'a str,
    /// What people call it.
    pub name: Option<&'a str>,
    /// From when on it is refused, in Unix milliseconds.
    pub expires_at: Option<i64>,
    /// Its own limits, if it has any.
    pub limits: Option<&'a Limits>,
    /// Its rules, if it has any.
    pub rules: Option<&'a Rules>,
}

/// What a rotation sets.
#[derive(Clone, Copy, Debug)]
pub struct NewPassword<'a> {
    /// argon2id in PHC format.
    pub hash: &'a str,
    /// As in [`NewCredential`].
    pub tag: Option<u32>,
    /// What becomes of the older passwords.
    pub overlap: Overlap,
}

/// A credential with a new password.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// As it is now stored.
    pub credential: Credential,
    /// What became of the older passwords.
    pub rotation: Rotation,
}

/// Which credential is meant, and what must be true of it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its username.
    pub username: &'a str,
    /// The slug of the organization it must belong to, if that matters; in another one it is not found.
    pub organization: Option<&'a str>,
    /// If given, its [`Credential::revision`] must be one of these.
    pub revisions: Option<&'a [String]>,
}

/// What to change; `None` leaves a field as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct CredentialEdit<'a> {
    /// What people call it; the inner `None` takes the name away.
    pub name: Option<Option<&'a str>>,
    /// Whether it may be used.
    pub status: Option<CredentialStatus>,
    /// From when on it is refused, in Unix milliseconds; the inner `None` means never.
    pub expires_at: Option<Option<i64>>,
    /// Whether an overlap after a rotation ends now.
    pub end_overlap: bool,
    /// What to change of its limits.
    pub limits: Option<&'a LimitsChange>,
    /// What to change of its rules.
    pub rules: Option<&'a RulesChange>,
}

impl<'a> From<&'a str> for Wanted<'a> {
    fn from(username: &'a str) -> Wanted<'a> {
        Wanted {
            username,
            organization: None,
            revisions: None,
        }
    }
}

impl Wanted<'_> {
    pub(super) fn find(self, connection: &Connection) -> Result<Credential, Stop> {
        let found = find(connection, self.username)?;
        self.check(found)
    }

    /// Returns the credential if it is the one that is meant.
    fn check(self, found: Credential) -> Result<Credential, Stop> {
        if self
            .organization
            .is_some_and(|slug| slug != found.organization)
        {
            return Err(StoreError::not_found(Kind::Credential, self.username).into());
        }
        super::super::require(self.revisions, &found.revision(), || {
            (Kind::Credential, self.username)
        })?;
        Ok(found)
    }
}

impl Editor<'_> {
    /// Adds an active credential.
    ///
    /// # Errors
    /// The username is taken, the organization unknown, the name not allowed, the request repeated, or the store cannot be
    /// written.
    pub fn create_credential(&self, new: NewCredential) -> Result<Credential, StoreError> {
        let name = new.name.map(composed);
        let name = name.as_deref();
        name::check_name(name)?;
        if let Some(limits) = new.limits {
            check_limits(limits)?;
        }
        self.change(|transaction| {
            let organization = organizations::key(transaction, new.organization)?;
            let id = Uuid::now_v7();
            self.only_once(transaction, id)?;
            transaction
                .execute(
                    "INSERT INTO credentials (id, username, organization, name, password_hash, tag, created_at, expires_at,
                         limits, rules)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                    params![
                        id.to_string(),
                        new.username,
                        organization,
                        name,
                        new.password_hash,
                        new.tag,
                        now(),
                        new.expires_at,
                        new.limits.map(policy::written).transpose()?.flatten(),
                        new.rules.map(policy::written).transpose()?.flatten(),
                    ],
                )
                .map_err(|error| taken(error, Kind::Credential, new.username))?;
            let made = find(transaction, new.username)?;
            self.note_credential(transaction, "credential.create", &made, None, Some(told(&made)))?;
            Ok(made)
        })
    }

    /// Replaces the password; the old one is wrong from now on, or from the end of the overlap on. The status stays.
    ///
    /// # Errors
    /// There is no such credential, it has changed, the request is repeated, or the store cannot be written.
    pub fn set_password(
        &self,
        wanted: Wanted,
        password: NewPassword,
    ) -> Result<Rotated, StoreError> {
        self.change(|transaction| {
            let before = find(transaction, wanted.username)?;
            self.only_once(transaction, before.id)?;
            let before = wanted.check(before)?;
            let stored = login::find(transaction, &self.store.ends, wanted.username)?;
            let previous = stored.and_then(|login| login.previous);
            let is_kept = match password.overlap {
                Overlap::Keeps => previous.is_some(),
                Overlap::Nothing => false,
                Overlap::Until(_) => previous.is_some_and(|own| own.until > steady_ms()),
            };
            let now = now();
            overlap::retire(transaction, before.key, now)?;
            let (until, rotation) = match password.overlap {
                _ if is_kept => {
                    let replaced_used = before.current_used.clone();
                    (before.previous_until, Rotation::Kept { replaced_used })
                }
                Overlap::Until(until) => (Some(until), Rotation::Began),
                Overlap::Keeps | Overlap::Nothing => (None, Rotation::Ended),
            };
            if is_kept {
                overlap::keep(transaction, before.key)?;
            } else {
                overlap::forget(transaction, before.key)?;
                transaction.execute(
                    "UPDATE credentials SET previous_hash = iif(?2 IS NULL, NULL, password_hash),
                         previous_tag = iif(?2 IS NULL, NULL, tag), previous_until = ?2
                     WHERE key = ?1",
                    params![before.key, until],
                )?;
            }
            transaction.execute(
                "UPDATE credentials SET password_hash = ?2, tag = ?3, rotated_at = ?4 WHERE key = ?1",
                params![before.key, password.hash, password.tag, now],
            )?;
            let mut after = json!({ "previous_until": until });
            if is_kept {
                after["overlap"] = json!("kept");
            }
            self.note_credential(transaction, "credential.rotate", &before, None, Some(after))?;
            Ok(Rotated {
                credential: find(transaction, wanted.username)?,
                rotation,
            })
        })
    }

    /// Changes what is given. One that is already so stays as it is, also with the time of its first revocation.
    ///
    /// # Errors
    /// There is no such credential, it has changed, the name is not allowed, or the store cannot be written.
    pub fn edit_credential(
        &self,
        wanted: Wanted,
        edit: CredentialEdit,
    ) -> Result<Credential, StoreError> {
        let new_name = edit.name.map(|name| name.map(composed));
        let new_name = new_name.as_ref().map(Option::as_deref);
        if let Some(name) = new_name {
            name::check_name(name)?;
        }
        let change = |transaction: &Transaction| {
            let before = wanted.find(transaction)?;
            let name = new_name.unwrap_or(before.name.as_deref());
            let status = edit.status.unwrap_or(before.status);
            let expires_at = edit.expires_at.unwrap_or(before.expires_at);
            let revoked_at = match status {
                CredentialStatus::Active => None,
                CredentialStatus::Revoked if before.status == status => before.revoked_at,
                CredentialStatus::Revoked => Some(now()),
            };
            let end_overlap = edit.end_overlap && before.previous_until.is_some();
            let limits = match edit.limits {
                Some(change) => before.limits.with(change),
                None => before.limits.clone(),
            };
            check_limits(&limits)?;
            let rules = match edit.rules {
                Some(change) => before
                    .rules
                    .with(change)
                    .map_err(|error| StoreError::Invalid(error.to_string()))?,
                None => before.rules.clone(),
            };
            let contained = (&limits, &rules) != (&before.limits, &before.rules);
            let same = (name, status, expires_at)
                == (before.name.as_deref(), before.status, before.expires_at);
            if same && !end_overlap && !contained {
                return Ok(before);
            }
            if contained {
                transaction.execute(
                    "UPDATE credentials SET limits = ?2, rules = ?3 WHERE key = ?1",
                    params![
                        before.key,
                        policy::written(&limits)?,
                        policy::written(&rules)?
                    ],
                )?;
            }
            if (status, expires_at) != (before.status, before.expires_at) {
                transaction.execute(
                    "UPDATE credentials SET status = ?2, revoked_at = ?3, expires_at = ?4 WHERE key = ?1",
                    params![before.key, status, revoked_at, expires_at],
                )?;
            }
            if end_overlap {
                transaction.execute(
                    "UPDATE credentials SET previous_hash = NULL, previous_tag = NULL, previous_until = NULL WHERE key = ?1",
                    [before.key],
                )?;
            }
            // Apart, since a new name decides no login and must not move the version.
            if name != before.name.as_deref() {
                transaction.execute(
                    "UPDATE credentials SET name = ?2 WHERE key = ?1",
                    params![before.key, name],
                )?;
            }
            let after = find(transaction, wanted.username)?;
            let (old, new) = difference(&before, &after);
            let action = match (before.status, after.status) {
                (CredentialStatus::Active, CredentialStatus::Revoked) => "credential.revoke",
                (CredentialStatus::Revoked, CredentialStatus::Active) => "credential.enable",
                _ => "credential.update",
            };
            self.note_credential(transaction, action, &before, Some(old), Some(new))?;
            Ok(after)
        };
        let decides_logins = edit.status.is_some()
            || edit.expires_at.is_some()
            || edit.end_overlap
            || edit.limits.is_some()
            || edit.rules.is_some();
        if decides_logins {
            self.change(change)
        } else {
            self.write(change)
        }
    }

    /// Deletes the credential and what is known of its last use, for good.
    ///
    /// # Errors
    /// There is no such credential, it has changed, or the store cannot be written.
    pub fn delete_credential(&self, wanted: Wanted) -> Result<(), StoreError> {
        self.change(|transaction| {
            let before = wanted.find(transaction)?;
            self.delete_found(transaction, &before)
        })
    }

    /// Deletes the credential as if it had never been used: with its usage, which otherwise stays in its organization's
    /// sums. For one that was made to try something out.
    ///
    /// # Errors
    /// As [`Editor::delete_credential`].
    pub fn erase_credential(&self, wanted: Wanted) -> Result<(), StoreError> {
        self.change(|transaction| {
            let before = wanted.find(transaction)?;
            transaction.execute("DELETE FROM usage WHERE credential = ?1", [before.key])?;
            self.delete_found(transaction, &before)
        })
    }

    /// Deletes one of those that go with their organization.
    pub(in crate::store) fn delete_found(
        &self,
        transaction: &Transaction,
        credential: &Credential,
    ) -> Result<(), Stop> {
        transaction.execute("DELETE FROM credentials WHERE key = ?1", [credential.key])?;
        let told = Some(told(credential));
        self.note_credential(transaction, "credential.delete", credential, told, None)
    }

    pub(super) fn note_credential(
        &self,
        transaction: &Transaction,
        action: &str,
        credential: &Credential,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Result<(), Stop> {
        let event = Event {
            action,
            object: &credential.username,
            organization: Some(&credential.organization),
            before,
            after,
        };
        record(transaction, self.actor, event)
    }
}

/// A credential has no limit that only an organization can have.
fn check_limits(limits: &Limits) -> Result<(), StoreError> {
    let mut foreign = limits.iter().map(|(limit, _)| limit);
    match foreign.find(|limit| !limit.is_for_credentials()) {
        Some(limit) => Err(StoreError::Invalid(format!(
            "{}: only an organization has this limit",
            limit.as_str()
        ))),
        None => Ok(()),
    }
}

/// What the audit log tells of a credential.
pub(super) fn told(credential: &Credential) -> Value {
    json!({
        "name": credential.name,
        "status": credential.status.as_str(),
        "expires_at": credential.expires_at,
        "previous_until": credential.previous_until,
        "limits": (!credential.limits.is_empty()).then_some(&credential.limits),
        "rules": (credential.rules != Rules::default()).then_some(&credential.rules),
    })
}

/// Only the fields that differ.
fn difference(before: &Credential, after: &Credential) -> (Value, Value) {
    super::super::difference(told(before), told(after))
}
