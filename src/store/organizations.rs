//! Organizations: whom credentials belong to.

use std::fmt;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::policy::{Limits, LimitsChange};

use super::audit::{Event, record};
use super::credentials::{self, id, taken};
use super::error::Stop;
use super::text::composed;
use super::{DEFAULT_ORGANIZATION, Editor, Kind, Store, StoreError, count, name, now, policy};

/// An organization.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Organization {
    /// UUIDv7, for programs.
    pub id: Uuid,
    /// Its short name, `[a-z0-9-]{1,63}`; it stays for life.
    pub slug: String,
    /// What people call it.
    pub name: Option<String>,
    /// Whether its credentials may be used.
    pub status: OrganizationStatus,
    /// Unix milliseconds.
    pub created_at: i64,
    /// How many credentials it has, of any status.
    pub credentials: u64,
    /// The limits that all its credentials share.
    pub limits: Limits,
}

/// Whether an organization's credentials may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OrganizationStatus {
    /// As far as each of them may.
    Active,
    /// None of them may.
    Suspended,
}

impl Store {
    /// The organization with this slug.
    ///
    /// # Errors
    /// There is none, or the store cannot be read.
    pub fn organization(&self, slug: &str) -> Result<Organization, StoreError> {
        self.read(|connection| find(connection, slug))
    }

    /// The organization with this slug, if it may be deleted: see [`Editor::delete_organization`].
    ///
    /// # Errors
    /// It may not, or the store cannot be read.
    pub fn deletable_organization(
        &self,
        slug: &str,
        revisions: Option<&[String]>,
        force: bool,
    ) -> Result<Organization, StoreError> {
        self.read(|connection| deletable(connection, slug, revisions, force))
    }

    /// The organizations by slug, those behind `after`, at most `limit` of them.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn organizations(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Organization>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "{SELECT} WHERE o.slug > ?1 ORDER BY o.slug LIMIT ?2"
            ))?;
            let rows = statement.query_map(params![after.unwrap_or(""), limit], organization)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// What to change; `None` leaves a field as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct OrganizationEdit<'a> {
    /// What people call it; the inner `None` takes the name away.
    pub name: Option<Option<&'a str>>,
    /// Whether its credentials may be used.
    pub status: Option<OrganizationStatus>,
    /// What to change of its limits.
    pub limits: Option<&'a LimitsChange>,
}

impl Organization {
    /// A short text that changes with everything that can be edited.
    pub fn revision(&self) -> String {
        let name = self.name.as_deref();
        let mut parts = vec![self.id.to_string(), self.status.as_str().to_owned()];
        // Without limits it is what it was before there were any.
        parts.extend(
            self.limits
                .iter()
                // No name has a line's end in it.
                .map(|(limit, setting)| format!("\n{}={setting}", limit.as_str())),
        );
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        super::revision(&parts, name)
    }

    /// It must be in a state that is known: if `revisions` are given, its revision must be one of
    /// them.
    ///
    /// # Errors
    /// It has changed.
    pub fn require(&self, revisions: Option<&[String]>) -> Result<(), StoreError> {
        match revisions.is_none_or(|known| known.contains(&self.revision())) {
            true => Ok(()),
            false => Err(StoreError::Changed {
                kind: Kind::Organization,
                name: self.slug.clone(),
            }),
        }
    }
}

impl Editor<'_> {
    /// Adds an active organization.
    ///
    /// # Errors
    /// The slug is taken or not one, the name not allowed, the request repeated, or the store cannot be written.
    pub fn create_organization(
        &self,
        slug: &str,
        name: Option<&str>,
    ) -> Result<Organization, StoreError> {
        self.create_organization_with(slug, name, &Limits::default())
    }

    /// Adds an active organization with limits of its own.
    ///
    /// # Errors
    /// As [`Editor::create_organization`].
    pub fn create_organization_with(
        &self,
        slug: &str,
        name: Option<&str>,
        limits: &Limits,
    ) -> Result<Organization, StoreError> {
        name::check_slug(slug)?;
        let name = name.map(composed);
        let name = name.as_deref();
        name::check_name(name)?;
        self.write(|transaction| {
            let id = Uuid::now_v7();
            self.only_once(transaction, id)?;
            transaction
                .execute(
                    "INSERT INTO organizations (id, slug, name, created_at, limits) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![id.to_string(), slug, name, now(), policy::written(limits)?],
                )
                .map_err(|error| taken(error, Kind::Organization, slug))?;
            // The audit log and live sessions know organizations by their slug. Whoever has a token of a new one must not
            // see what was done in one before it.
            let is_remembered: bool = transaction.query_row(
                "SELECT EXISTS (SELECT 1 FROM audit_log WHERE organization = ?1)",
                [slug],
                |row| row.get(0),
            )?;
            if is_remembered {
                let slug = slug.to_owned();
                return Err(StoreError::SlugUsed { slug }.into());
            }
            let made = find(transaction, slug)?;
            self.note_organization(transaction, "organization.create", slug, None, Some(told(&made)))?;
            Ok(made)
        })
    }

    /// Changes what is given. `revisions`: if given, its [`Organization::revision`] must be one of these.
    ///
    /// # Errors
    /// There is no such organization, it has changed, the name is not allowed, or the store cannot be written.
    pub fn edit_organization(
        &self,
        slug: &str,
        revisions: Option<&[String]>,
        edit: OrganizationEdit,
    ) -> Result<Organization, StoreError> {
        let new_name = edit.name.map(|name| name.map(composed));
        let new_name = new_name.as_ref().map(Option::as_deref);
        if let Some(name) = new_name {
            name::check_name(name)?;
        }
        let change = |transaction: &Transaction| {
            let before = find(transaction, slug)?;
            before.require(revisions)?;
            let limits = match edit.limits {
                Some(change) => before.limits.with(change),
                None => before.limits.clone(),
            };
            transaction.execute(
                "UPDATE organizations SET name = ?2, status = ?3, limits = ?4 WHERE slug = ?1",
                params![
                    slug,
                    new_name.unwrap_or(before.name.as_deref()),
                    edit.status.unwrap_or(before.status).as_str(),
                    policy::written(&limits)?,
                ],
            )?;
            let after = find(transaction, slug)?;
            let action = match (before.status, after.status) {
                _ if before == after => return Ok(after),
                (OrganizationStatus::Active, OrganizationStatus::Suspended) => {
                    "organization.suspend"
                }
                (OrganizationStatus::Suspended, OrganizationStatus::Active) => {
                    "organization.activate"
                }
                _ => "organization.update",
            };
            let (old, new) = super::difference(told(&before), told(&after));
            self.note_organization(transaction, action, slug, Some(old), Some(new))?;
            Ok(after)
        };
        match edit.status.is_some() || edit.limits.is_some() {
            true => self.change(change),
            false => self.write(change),
        }
    }

    /// Deletes an organization with its admin tokens and its usage. `default` stays. One with credentials is deleted only
    /// with `force`, and they with it.
    ///
    /// # Errors
    /// It still has credentials, has changed, is `default` or not there, or the store cannot be written.
    pub fn delete_organization(
        &self,
        slug: &str,
        revisions: Option<&[String]>,
        force: bool,
    ) -> Result<(), StoreError> {
        self.change(|transaction| {
            let found = deletable(transaction, slug, revisions, force)?;
            for credential in credentials::of_organization(transaction, slug)? {
                self.delete_found(transaction, &credential)?;
            }
            transaction.execute("DELETE FROM organizations WHERE slug = ?1", [slug])?;
            self.note_organization(
                transaction,
                "organization.delete",
                slug,
                Some(told(&found)),
                None,
            )
        })
    }

    fn note_organization(
        &self,
        transaction: &Transaction,
        action: &str,
        slug: &str,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Result<(), Stop> {
        let event = Event {
            action,
            object: slug,
            organization: Some(slug),
            before,
            after,
        };
        record(transaction, self.actor, event)
    }
}

/// What the audit log tells of an organization.
fn told(organization: &Organization) -> Value {
    json!({
        "name": organization.name,
        "status": organization.status.as_str(),
        "limits": (!organization.limits.is_empty()).then_some(&organization.limits),
    })
}

/// The row of the organization with this slug.
pub(super) fn key(connection: &Connection, slug: &str) -> Result<i64, Stop> {
    let sql = "SELECT key FROM organizations WHERE slug = ?1";
    let found = connection
        .query_row(sql, [slug], |row| row.get(0))
        .optional()?;
    found.ok_or_else(|| StoreError::not_found(Kind::Organization, slug).into())
}

const SELECT: &str = "
    SELECT o.id, o.slug, o.name, o.status, o.created_at,
           o.credentials, o.limits
    FROM organizations o";

fn find(connection: &Connection, slug: &str) -> Result<Organization, Stop> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE o.slug = ?1"))?;
    let found = statement.query_row([slug], organization).optional()?;
    found.ok_or_else(|| StoreError::not_found(Kind::Organization, slug).into())
}

fn deletable(
    connection: &Connection,
    slug: &str,
    revisions: Option<&[String]>,
    force: bool,
) -> Result<Organization, Stop> {
    let owned = slug.to_owned();
    if slug == DEFAULT_ORGANIZATION {
        return Err(StoreError::Protected { slug: owned }.into());
    }
    let found = find(connection, slug)?;
    found.require(revisions)?;
    if found.credentials > 0 && !force {
        return Err(StoreError::NotEmpty {
            slug: owned,
            credentials: found.credentials,
        }
        .into());
    }
    Ok(found)
}

/// Reads a row of [`SELECT`].
fn organization(row: &Row) -> rusqlite::Result<Organization> {
    Ok(Organization {
        id: id(row.get_ref(0)?)?,
        slug: row.get(1)?,
        name: row.get(2)?,
        status: row.get(3)?,
        created_at: row.get(4)?,
        credentials: count(row, 5)?,
        limits: policy::read(row, 6)?,
    })
}

impl OrganizationStatus {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            OrganizationStatus::Active => "active",
            OrganizationStatus::Suspended => "suspended",
        }
    }
}

impl fmt::Display for OrganizationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromSql for OrganizationStatus {
    fn column_result(value: ValueRef) -> FromSqlResult<OrganizationStatus> {
        match value.as_str()? {
            "active" => Ok(OrganizationStatus::Active),
            "suspended" => Ok(OrganizationStatus::Suspended),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::NewCredential;
    use super::super::tests::{Fixture, named};
    use super::*;

    #[test]
    fn a_new_store_has_the_default_organization() {
        let store = Fixture::new();
        let [only] = &store.organizations(None, 10).unwrap()[..] else {
            panic!("one organization")
        };
        assert_eq!(
            (only.slug.as_str(), only.status),
            ("default", OrganizationStatus::Active)
        );
        assert_eq!(only.credentials, 0);
    }

    #[test]
    fn a_slug_is_taken_only_once_and_must_be_one() {
        let store = Fixture::new();
        let made = store
            .create_organization("acme", Some("Acme Ltd."))
            .unwrap();
        assert_eq!(store.organization("acme").unwrap(), made);
        let again = store.create_organization("acme", None).unwrap_err();
        assert!(matches!(again, StoreError::AlreadyExists { .. }), "{again}");
        let wrong = store.create_organization("Acme!", None).unwrap_err();
        assert!(matches!(wrong, StoreError::Invalid(_)), "{wrong}");
    }

    #[test]
    fn an_organization_with_credentials_is_not_deleted() {
        let store = Fixture::new();
        store.create_organization("acme", None).unwrap();
        let new = NewCredential {
            organization: "acme",
            ..named("smtp_a")
        };
        store.create_credential(new).unwrap();
        let error = store.delete_organization("acme").unwrap_err();
        assert!(
            matches!(error, StoreError::NotEmpty { credentials: 1, .. }),
            "{error}"
        );
        store.delete_credential("smtp_a").unwrap();
        store.delete_organization("acme").unwrap();
        assert!(matches!(
            store.organization("acme"),
            Err(StoreError::NotFound { .. })
        ));
    }

    #[test]
    fn the_default_organization_stays() {
        let store = Fixture::new();
        assert!(matches!(
            store.delete_organization("default"),
            Err(StoreError::Protected { .. })
        ));
        assert_eq!(store.organizations(None, 10).unwrap().len(), 1);
    }

    #[test]
    fn a_name_can_be_changed_and_taken_away() {
        let store = Fixture::new();
        let rename = |slug, name| {
            let edit = OrganizationEdit {
                name: Some(name),
                ..OrganizationEdit::default()
            };
            store.edit().edit_organization(slug, None, edit)
        };
        let renamed = rename("default", Some("Us")).unwrap();
        assert_eq!(renamed.name.as_deref(), Some("Us"));
        assert_eq!(rename("default", None).unwrap().name, None);
        assert!(rename("acme", None).is_err());
    }

    #[test]
    fn suspending_moves_the_epoch_and_a_revision_holds_until_something_is_edited() {
        let store = Fixture::new();
        let before = store.organization("default").unwrap();
        let suspend = OrganizationEdit {
            status: Some(OrganizationStatus::Suspended),
            ..OrganizationEdit::default()
        };
        let revisions = [before.revision()];
        let epoch = store.epoch();
        let edit = || {
            store
                .edit()
                .edit_organization("default", Some(&revisions), suspend)
        };
        let after = edit().unwrap();
        assert!(store.epoch() > epoch);
        assert_eq!(after.status, OrganizationStatus::Suspended);
        assert_ne!(after.revision(), before.revision());
        assert!(matches!(edit(), Err(StoreError::Changed { .. })));
    }

    #[test]
    fn by_force_an_organization_takes_its_credentials_with_it() {
        let store = Fixture::new();
        store.create_organization("acme", None).unwrap();
        for username in ["smtp_a", "smtp_b"] {
            let new = NewCredential {
                organization: "acme",
                ..named(username)
            };
            store.create_credential(new).unwrap();
        }
        store
            .edit()
            .delete_organization("acme", None, true)
            .unwrap();
        assert_eq!(store.lookup("smtp_a").unwrap(), None);
        assert_eq!(
            store.count("SELECT count(*) FROM audit_log WHERE action = 'credential.delete'"),
            2
        );
    }

    #[test]
    fn the_slug_of_a_deleted_organization_is_given_again_when_nothing_tells_of_it() {
        let store = Fixture::new();
        let edit = || store.edit();
        edit().create_organization("acme", None).unwrap();
        edit().delete_organization("acme", None, false).unwrap();
        let error = edit().create_organization("acme", None).unwrap_err();
        assert!(matches!(error, StoreError::SlugUsed { .. }), "{error}");
        edit().prune_audit(i64::MAX).unwrap();
        edit().create_organization("acme", None).unwrap();
    }

    #[test]
    fn organizations_come_in_pages() {
        let store = Fixture::new();
        for slug in ["a", "b", "z"] {
            store.create_organization(slug, None).unwrap();
        }
        let slugs = |after, limit| -> Vec<String> {
            let found = store.organizations(after, limit).unwrap();
            found
                .into_iter()
                .map(|organization| organization.slug)
                .collect()
        };
        assert_eq!(slugs(None, 2), ["a", "b"]);
        assert_eq!(slugs(Some("b"), 2), ["default", "z"]);
    }
}
