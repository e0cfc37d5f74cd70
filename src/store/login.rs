//! What is needed to decide one login: a single row, found by username.

use std::sync::{Arc, LazyLock};

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::policy::{Policy, Rule};

use super::error::Stop;
use super::{
    Credential, CredentialStatus, OrganizationStatus, Retired, Store, StoreError, credentials,
    overlap, policy,
};

/// A credential as verification sees it.
///
/// `(key, version)` names one state of it for ever: whatever changes who may log in with which password moves the version,
/// and a deleted credential's key is never used again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Login {
    /// The row, to note uses under. Internal: people and programs know the credential's id and username.
    pub key: i64,
    /// Moves with every change that decides logins.
    pub version: i64,
    /// As the client must send it, byte for byte.
    pub username: String,
    /// The slug of its organization.
    pub organization: String,
    /// argon2id in PHC format; of an imported credential what it came with, until its first login.
    pub password_hash: String,
    /// [`Store::tag`] of the password, if it was generated here.
    pub tag: Option<u32>,
    /// The password before the last rotation, if there is to be an overlap.
    pub previous: Option<Previous>,
    /// The generated passwords it had before, the latest first.
    pub retired: Box<[Retired]>,
    /// Its own status.
    pub status: CredentialStatus,
    /// The status of its organization.
    pub organization_status: OrganizationStatus,
    /// From this Unix millisecond on it is refused.
    pub expires_at: Option<i64>,
    /// What it may do.
    pub policy: Arc<Policy>,
}

/// A password that was replaced and is right for a while longer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Previous {
    /// As [`Login::password_hash`].
    pub password_hash: String,
    /// As [`Login::tag`].
    pub tag: Option<u32>,
    /// From this millisecond of the steady clock on it is wrong.
    pub until: i64,
}

/// Why a credential is refused, whatever the password.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
    /// Its organization is suspended.
    Suspended,
}

impl Login {
    /// Why the credential may not be used at `now_ms`, if it may not.
    pub fn refusal(&self, now_ms: i64) -> Option<Refusal> {
        let reports = |rule| self.policy.rules.reports(rule);
        if self.status == CredentialStatus::Revoked {
            Some(Refusal::Revoked)
        } else if self.organization_status == OrganizationStatus::Suspended
            && !reports(Rule::Suspended)
        {
            Some(Refusal::Suspended)
        } else if self.expires_at.is_some_and(|end| end <= now_ms) && !reports(Rule::Expiry) {
            Some(Refusal::Expired)
        } else {
            None
        }
    }
}

impl Store {
    /// Finds the credential that a client names, as it is by all changes that count, written or
    /// not.
    ///
    /// # Errors
    /// When the store cannot be read now; that says nothing about the username.
    pub fn lookup(&self, username: &str) -> Result<Option<Login>, StoreError> {
        let found = self.read(|connection| find(connection, &self.ends, username))?;
        Ok(found.and_then(|login| self.narrowings.apply(login)))
    }

    /// The credential as it is stored, whatever counts already and is not written.
    ///
    /// # Errors
    /// As [`Store::lookup`].
    pub fn stored_login(&self, username: &str) -> Result<Option<Login>, StoreError> {
        self.read(|connection| find(connection, &self.ends, username))
    }

    /// Reads credentials of one organization with their rows as they are stored, in the order of the
    /// usernames. `None` stands for a username that no credential of the organization has.
    ///
    /// # Errors
    /// As [`Store::lookup`].
    pub fn credentials_with_logins(
        &self,
        organization: &str,
        usernames: &[String],
    ) -> Result<Vec<Option<(Credential, Login)>>, StoreError> {
        self.read(|connection| {
            let mut all = Vec::with_capacity(usernames.len());
            for username in usernames {
                let credential = credentials::find_in(connection, organization, username)?;
                let login = find(connection, &self.ends, username)?;
                all.push(credential.zip(login));
            }
            Ok(all)
        })
    }

    /// Replaces the hash of an unchanged password, after the cost of hashing was raised or the credential was imported. Returns the credential's new version,
    /// or `None` if it has changed or gone since `version` was read; then nothing was done.
    ///
    /// The epoch stays: nobody's login is decided otherwise.
    ///
    /// # Errors
    /// When the store cannot be written now.
    pub fn rehash(&self, key: i64, version: i64, hash: &str) -> Result<Option<i64>, StoreError> {
        self.write(|transaction| {
            // The hash tells which password is to be replaced, where there is no tag.
            if self.narrowings.replaces_password_of(key) {
                return Ok(None);
            }
            let changed = transaction.execute(
                "UPDATE credentials SET password_hash = ?3 WHERE key = ?1 AND version = ?2",
                params![key, version, hash],
            )?;
            if changed == 0 {
                return Ok(None);
            }
            let version = "SELECT version FROM credentials WHERE key = ?1";
            Ok(Some(
                transaction.query_row(version, [key], |row| row.get(0))?,
            ))
        })
    }
}

const LOOKUP: &str = "
    SELECT c.key, c.version, c.username, o.slug, c.password_hash, c.tag, c.status, o.status, c.expires_at,
           c.previous_until, c.previous_hash, c.previous_tag, c.limits, c.rules, o.limits,
           iif(c.previous_until IS NULL, NULL,
               coalesce((SELECT since FROM kept_overlaps WHERE credential = c.key), c.rotated_at))
    FROM credentials c JOIN organizations o ON o.key = c.organization
    WHERE c.username = ?1";

pub(super) fn find(
    connection: &Connection,
    ends: &overlap::Ends,
    username: &str,
) -> Result<Option<Login>, Stop> {
    let mut statement = connection.prepare_cached(LOOKUP)?;
    let found = statement.query_row([username], |row| {
        let overlap = (row.get(9)?, row.get(15)?);
        Ok((login(row)?, overlap))
    });
    let Some((mut login, overlap)) = found.optional()? else {
        return Ok(None);
    };
    login.retired = overlap::retired(connection, login.key)?;
    if let Some(previous) = &mut login.previous {
        previous.until = ends.first(login.key, overlap, previous.until);
    }
    Ok(Some(login))
}

/// Reads a row of [`LOOKUP`].
fn login(row: &Row) -> rusqlite::Result<Login> {
    Ok(Login {
        key: row.get(0)?,
        version: row.get(1)?,
        username: row.get(2)?,
        organization: row.get(3)?,
        password_hash: row.get(4)?,
        tag: row.get(5)?,
        status: row.get(6)?,
        organization_status: row.get(7)?,
        expires_at: row.get(8)?,
        retired: Box::default(),
        previous: match row.get(9)? {
            None => None,
            Some(until) => Some(Previous {
                until: overlap::end(until, row.get(15)?),
                password_hash: row.get(10)?,
                tag: row.get(11)?,
            }),
        },
        policy: policy_of(row)?,
    })
}

/// What the columns of [`LOOKUP`] say together; for most there is nothing to read.
fn policy_of(row: &Row) -> rusqlite::Result<Arc<Policy>> {
    static NONE: LazyLock<Arc<Policy>> = LazyLock::new(Arc::default);
    let mut policy = Policy {
        limits: policy::read(row, 12)?,
        organization_limits: policy::read(row, 14)?,
        rules: policy::read(row, 13)?,
        ..Policy::default()
    };
    if policy.rules.reports(Rule::Expiry) {
        policy.expiry_reported = row.get(8)?;
    }
    if policy.rules.reports(Rule::Suspended) {
        let status: OrganizationStatus = row.get(7)?;
        policy.suspension_reported = status == OrganizationStatus::Suspended;
    }
    if policy == **NONE {
        return Ok(NONE.clone());
    }
    Ok(Arc::new(policy))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, named};
    use super::*;

    #[test]
    fn a_login_holds_what_was_stored() {
        let store = Fixture::new();
        let end = Some(4_102_444_800_000);
        store
            .create_credential(super::super::NewCredential {
                tag: Some(u32::MAX),
                expires_at: end,
                ..named("smtp_a")
            })
            .unwrap();
        let login = store.lookup("smtp_a").unwrap().unwrap();
        assert_eq!(
            (login.username.as_str(), login.organization.as_str()),
            ("smtp_a", "default")
        );
        assert_eq!(
            (login.password_hash.as_str(), login.tag),
            ("$hash", Some(u32::MAX))
        );
        assert_eq!(login.expires_at, end);
        assert_eq!(login.refusal(0), None);
    }

    #[test]
    fn a_lookup_is_planned_once_for_all_usernames() {
        let store = Fixture::new();
        let planned_again = store.read(|connection| {
            let mut planned_again = 0;
            for username in ["smtp_a", "smtp_b", "smtp_c"] {
                let mut statement = connection.prepare_cached(LOOKUP)?;
                statement.exists([username])?;
                planned_again += statement.reset_status(rusqlite::StatementStatus::RePrepare);
            }
            Ok(planned_again)
        });
        assert_eq!(planned_again.unwrap(), 0);
    }

    #[test]
    fn usernames_match_byte_for_byte() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        for other in ["SMTP_A", "smtp_a ", "smtp_", "", "smtp_a\0", "smtp%"] {
            assert_eq!(store.lookup(other).unwrap(), None, "{other:?}");
        }
    }

    #[test]
    fn revoked_suspended_and_expired_credentials_are_refused() {
        let store = Fixture::new();
        let new = super::super::NewCredential {
            expires_at: Some(1_000),
            ..named("smtp_a")
        };
        store.create_credential(new).unwrap();
        let refusal = |at| store.lookup("smtp_a").unwrap().unwrap().refusal(at);
        assert_eq!(refusal(999), None);
        assert_eq!(refusal(1_000), Some(Refusal::Expired));
        store.shell("UPDATE organizations SET status = 'suspended'");
        assert_eq!(refusal(999), Some(Refusal::Suspended));
        store
            .set_status("smtp_a", CredentialStatus::Revoked)
            .unwrap();
        assert_eq!(refusal(999), Some(Refusal::Revoked));
    }

    #[test]
    fn a_rehash_is_done_only_on_what_was_verified() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        let old = store.lookup("smtp_a").unwrap().unwrap();
        let epoch = store.epoch();
        let version = store
            .rehash(old.key, old.version, "$stronger")
            .unwrap()
            .unwrap();
        let new = store.lookup("smtp_a").unwrap().unwrap();
        assert_eq!(
            (new.version, new.password_hash.as_str()),
            (version, "$stronger")
        );
        assert_eq!(store.epoch(), epoch);

        store.set_password("smtp_a", "$rotated", None).unwrap();
        assert_eq!(store.rehash(old.key, version, "$late").unwrap(), None);
        assert_eq!(
            store.lookup("smtp_a").unwrap().unwrap().password_hash,
            "$rotated"
        );
    }
}
