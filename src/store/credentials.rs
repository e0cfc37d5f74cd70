//! Credentials as an administrator sees and changes them.

use std::fmt;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use uuid::Uuid;

use super::error::Stop;
use super::{Kind, LastUsed, Store, StoreError, count, name, now, organizations};

/// A credential, without its password's hash.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Credential {
    /// UUIDv7, for programs.
    pub id: Uuid,
    /// What a client logs in with.
    pub username: String,
    /// The slug of its organization.
    pub organization: String,
    /// What people call it.
    pub name: Option<String>,
    /// Whether it may be used.
    pub status: CredentialStatus,
    /// Unix milliseconds, as all times here.
    pub created_at: i64,
    /// When its password was last replaced.
    pub rotated_at: Option<i64>,
    /// Since when it is revoked, if it is and Gatepost did it.
    pub revoked_at: Option<i64>,
    /// From when on it is refused.
    pub expires_at: Option<i64>,
    /// Its uses, as far as they are flushed.
    pub last_used: Option<LastUsed>,
}

/// Whether a credential may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CredentialStatus {
    /// It may.
    Active,
    /// It may not, but may be made active again.
    Revoked,
}

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
}

impl Store {
    /// Adds an active credential.
    ///
    /// # Errors
    /// The username is taken, the organization unknown, the name not allowed, or the store cannot be written.
    pub fn create_credential(&self, new: NewCredential) -> Result<Credential, StoreError> {
        name::check_name(new.name)?;
        self.change(|transaction| {
            let organization = organizations::key(transaction, new.organization)?;
            transaction
                .execute(
                    "INSERT INTO credentials (id, username, organization, name, password_hash, tag, created_at, expires_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    params![
                        Uuid::now_v7().to_string(),
                        new.username,
                        organization,
                        new.name,
                        new.password_hash,
                        new.tag,
                        now(),
                        new.expires_at
                    ],
                )
                .map_err(|error| taken(error, Kind::Credential, new.username))?;
            find(transaction, new.username)
        })
    }

    /// The credential with this username.
    ///
    /// # Errors
    /// There is none, or the store cannot be read.
    pub fn credential(&self, username: &str) -> Result<Credential, StoreError> {
        self.read(|connection| find(connection, username))
    }

    /// All credentials, or those of one organization, in the order in which they were made.
    ///
    /// # Errors
    /// The organization is unknown, or the store cannot be read.
    pub fn credentials(&self, organization: Option<&str>) -> Result<Vec<Credential>, StoreError> {
        self.read(|connection| {
            let key = organization
                .map(|slug| organizations::key(connection, slug))
                .transpose()?;
            // Two statements, because one with "OR ?1 IS NULL" could not use the index.
            let filter = if key.is_some() {
                "WHERE c.organization = ?1"
            } else {
                ""
            };
            let mut statement =
                connection.prepare_cached(&format!("{SELECT} {filter} ORDER BY c.key"))?;
            let rows = statement.query_map(params_from_iter(key), credential)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Replaces the password; the old one is wrong from now on. The status stays.
    ///
    /// # Errors
    /// There is no such credential, or the store cannot be written.
    pub fn set_password(
        &self,
        username: &str,
        hash: &str,
        tag: Option<u32>,
    ) -> Result<Credential, StoreError> {
        self.change(|transaction| {
            transaction.execute(
                "UPDATE credentials SET password_hash = ?2, tag = ?3, rotated_at = ?4 WHERE username = ?1",
                params![username, hash, tag, now()],
            )?;
            find(transaction, username)
        })
    }

    /// Revokes a credential or makes it active again. One that is already so stays as it is, with the time of the first
    /// revocation.
    ///
    /// # Errors
    /// There is no such credential, or the store cannot be written.
    pub fn set_status(
        &self,
        username: &str,
        status: CredentialStatus,
    ) -> Result<Credential, StoreError> {
        let revoked_at = (status == CredentialStatus::Revoked).then(now);
        self.change(|transaction| {
            transaction.execute(
                "UPDATE credentials SET status = ?2, revoked_at = ?3 WHERE username = ?1 AND status <> ?2",
                params![username, status, revoked_at],
            )?;
            find(transaction, username)
        })
    }

    /// Changes what people call the credential; `None` takes the name away.
    ///
    /// # Errors
    /// There is no such credential, the name is not allowed, or the store cannot be written.
    pub fn rename_credential(
        &self,
        username: &str,
        name: Option<&str>,
    ) -> Result<Credential, StoreError> {
        name::check_name(name)?;
        self.write(|transaction| {
            transaction.execute(
                "UPDATE credentials SET name = ?2 WHERE username = ?1",
                params![username, name],
            )?;
            find(transaction, username)
        })
    }

    /// Deletes the credential and what is known of its uses, for good.
    ///
    /// # Errors
    /// There is no such credential, or the store cannot be written.
    pub fn delete_credential(&self, username: &str) -> Result<(), StoreError> {
        self.change(|transaction| {
            match transaction.execute("DELETE FROM credentials WHERE username = ?1", [username])? {
                0 => Err(StoreError::not_found(Kind::Credential, username).into()),
                _ => Ok(()),
            }
        })
    }
}

const SELECT: &str = "
    SELECT c.id, c.username, o.slug, c.name, c.status, c.created_at, c.rotated_at, c.revoked_at, c.expires_at,
           u.at, u.address, u.tls, u.mechanism, u.helo, u.count
    FROM credentials c
    JOIN organizations o ON o.key = c.organization
    LEFT JOIN last_used u ON u.credential = c.key";

fn find(connection: &Connection, username: &str) -> Result<Credential, Stop> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE c.username = ?1"))?;
    let found = statement.query_row([username], credential).optional()?;
    found.ok_or_else(|| StoreError::not_found(Kind::Credential, username).into())
}

/// Reads a row of [`SELECT`].
fn credential(row: &Row) -> rusqlite::Result<Credential> {
    let last_used = match row.get(9)? {
        None => None,
        Some(at) => Some(LastUsed {
            at,
            address: row.get(10)?,
            tls: row.get(11)?,
            mechanism: row.get(12)?,
            helo: row.get(13)?,
            count: count(row, 14)?,
        }),
    };
    Ok(Credential {
        id: id(row.get_ref(0)?)?,
        username: row.get(1)?,
        organization: row.get(2)?,
        name: row.get(3)?,
        status: row.get(4)?,
        created_at: row.get(5)?,
        rotated_at: row.get(6)?,
        revoked_at: row.get(7)?,
        expires_at: row.get(8)?,
        last_used,
    })
}

pub(super) fn id(value: ValueRef) -> FromSqlResult<Uuid> {
    Uuid::parse_str(value.as_str()?).map_err(FromSqlError::other)
}

/// A broken UNIQUE constraint means that the name is taken; anything else stays what it is.
pub(super) fn taken(error: rusqlite::Error, kind: Kind, name: &str) -> Stop {
    match error.sqlite_error() {
        Some(code) if code.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE => {
            StoreError::already_exists(kind, name).into()
        }
        _ => error.into(),
    }
}

impl CredentialStatus {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            CredentialStatus::Active => "active",
            CredentialStatus::Revoked => "revoked",
        }
    }
}

impl fmt::Display for CredentialStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromSql for CredentialStatus {
    fn column_result(value: ValueRef) -> FromSqlResult<CredentialStatus> {
        match value.as_str()? {
            "active" => Ok(CredentialStatus::Active),
            "revoked" => Ok(CredentialStatus::Revoked),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

impl ToSql for CredentialStatus {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, named};
    use super::*;

    #[test]
    fn a_new_credential_is_active_and_was_never_used() {
        let store = Fixture::new();
        let new = NewCredential {
            name: Some("Printer"),
            ..named("smtp_a")
        };
        let made = store.create_credential(new).unwrap();
        assert_eq!(made.status, CredentialStatus::Active);
        assert_eq!(made.name.as_deref(), Some("Printer"));
        assert_eq!(
            (made.rotated_at, made.revoked_at, made.last_used.as_ref()),
            (None, None, None)
        );
        assert_eq!(made.id.get_version_num(), 7);
        assert_eq!(store.credential("smtp_a").unwrap(), made);
    }

    #[test]
    fn a_username_is_taken_only_once() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        let error = store.create_credential(named("smtp_a")).unwrap_err();
        assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error}");
    }

    #[test]
    fn a_credential_needs_an_organization() {
        let store = Fixture::new();
        let error = store
            .create_credential(NewCredential {
                organization: "acme",
                ..named("smtp_a")
            })
            .unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::NotFound {
                    kind: Kind::Organization,
                    ..
                }
            ),
            "{error}"
        );
        assert!(store.credentials(None).unwrap().is_empty());
    }

    #[test]
    fn the_list_is_in_order_and_can_be_narrowed() {
        let store = Fixture::new();
        store.create_organization("acme", None).unwrap();
        store.create_credential(named("smtp_z")).unwrap();
        let new = NewCredential {
            organization: "acme",
            ..named("smtp_m")
        };
        store.create_credential(new).unwrap();
        store.create_credential(named("smtp_a")).unwrap();
        let usernames = |organization| -> Vec<String> {
            let list = store.credentials(organization).unwrap();
            list.into_iter()
                .map(|credential| credential.username)
                .collect()
        };
        assert_eq!(usernames(None), ["smtp_z", "smtp_m", "smtp_a"]);
        assert_eq!(usernames(Some("acme")), ["smtp_m"]);
        assert!(store.credentials(Some("nobody")).is_err());
    }

    #[test]
    fn rotating_replaces_hash_and_tag_and_keeps_the_status() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        store
            .set_status("smtp_a", CredentialStatus::Revoked)
            .unwrap();
        let rotated = store.set_password("smtp_a", "$new", Some(7)).unwrap();
        assert_eq!(rotated.status, CredentialStatus::Revoked);
        assert!(rotated.rotated_at.is_some());
        let login = store.lookup("smtp_a").unwrap().unwrap();
        assert_eq!((login.password_hash.as_str(), login.tag), ("$new", Some(7)));
    }

    #[test]
    fn revoking_twice_keeps_the_first_time_and_enabling_forgets_it() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        let first = store
            .set_status("smtp_a", CredentialStatus::Revoked)
            .unwrap();
        assert!(first.revoked_at.is_some());
        store.shell("UPDATE credentials SET revoked_at = 42");
        let again = store
            .set_status("smtp_a", CredentialStatus::Revoked)
            .unwrap();
        assert_eq!(again.revoked_at, Some(42));
        let enabled = store
            .set_status("smtp_a", CredentialStatus::Active)
            .unwrap();
        assert_eq!(
            (enabled.status, enabled.revoked_at),
            (CredentialStatus::Active, None)
        );
    }

    #[test]
    fn renaming_moves_neither_version_nor_epoch() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        let before = (store.lookup("smtp_a").unwrap(), store.epoch());
        let renamed = store.rename_credential("smtp_a", Some("Scanner")).unwrap();
        assert_eq!(renamed.name.as_deref(), Some("Scanner"));
        assert_eq!((store.lookup("smtp_a").unwrap(), store.epoch()), before);
        assert_eq!(store.rename_credential("smtp_a", None).unwrap().name, None);
    }

    #[test]
    fn a_successor_of_the_same_name_is_somebody_else() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        let first = store.lookup("smtp_a").unwrap().unwrap();
        store.delete_credential("smtp_a").unwrap();
        assert_eq!(store.lookup("smtp_a").unwrap(), None);
        store.create_credential(named("smtp_a")).unwrap();
        assert_ne!(store.lookup("smtp_a").unwrap().unwrap().key, first.key);
    }

    #[test]
    fn what_is_not_there_cannot_be_changed() {
        let store = Fixture::new();
        let outcomes = [
            store.credential("smtp_x").map(drop),
            store.set_password("smtp_x", "$new", None).map(drop),
            store
                .set_status("smtp_x", CredentialStatus::Revoked)
                .map(drop),
            store.rename_credential("smtp_x", None).map(drop),
            store.delete_credential("smtp_x"),
        ];
        for outcome in outcomes {
            assert!(
                matches!(outcome, Err(StoreError::NotFound { .. })),
                "{outcome:?}"
            );
        }
    }
}
