//! Organizations: whom credentials belong to.

use std::fmt;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::credentials::{id, taken};
use super::error::Stop;
use super::{DEFAULT_ORGANIZATION, Kind, Store, StoreError, count, name, now};

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
    /// Adds an active organization.
    ///
    /// # Errors
    /// The slug is taken or not one, the name not allowed, or the store cannot be written.
    pub fn create_organization(
        &self,
        slug: &str,
        name: Option<&str>,
    ) -> Result<Organization, StoreError> {
        name::check_slug(slug)?;
        name::check_name(name)?;
        self.write(|transaction| {
            transaction
                .execute(
                    "INSERT INTO organizations (id, slug, name, created_at) VALUES (?1, ?2, ?3, ?4)",
                    params![Uuid::now_v7().to_string(), slug, name, now()],
                )
                .map_err(|error| taken(error, Kind::Organization, slug))?;
            find(transaction, slug)
        })
    }

    /// The organization with this slug.
    ///
    /// # Errors
    /// There is none, or the store cannot be read.
    pub fn organization(&self, slug: &str) -> Result<Organization, StoreError> {
        self.read(|connection| find(connection, slug))
    }

    /// All organizations, by slug.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn organizations(&self) -> Result<Vec<Organization>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!("{SELECT} ORDER BY o.slug"))?;
            let rows = statement.query_map([], organization)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Changes what people call the organization; `None` takes the name away.
    ///
    /// # Errors
    /// There is no such organization, the name is not allowed, or the store cannot be written.
    pub fn rename_organization(
        &self,
        slug: &str,
        name: Option<&str>,
    ) -> Result<Organization, StoreError> {
        name::check_name(name)?;
        self.write(|transaction| {
            transaction.execute(
                "UPDATE organizations SET name = ?2 WHERE slug = ?1",
                params![slug, name],
            )?;
            find(transaction, slug)
        })
    }

    /// Deletes an organization without credentials. `default` stays.
    ///
    /// # Errors
    /// It still has credentials, is `default` or not there, or the store cannot be written.
    pub fn delete_organization(&self, slug: &str) -> Result<(), StoreError> {
        if slug == DEFAULT_ORGANIZATION {
            return Err(StoreError::Protected {
                slug: slug.to_owned(),
            });
        }
        self.write(|transaction| {
            let credentials = find(transaction, slug)?.credentials;
            if credentials > 0 {
                return Err(StoreError::NotEmpty {
                    slug: slug.to_owned(),
                    credentials,
                }
                .into());
            }
            transaction.execute("DELETE FROM organizations WHERE slug = ?1", [slug])?;
            Ok(())
        })
    }
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
           (SELECT count(*) FROM credentials c WHERE c.organization = o.key)
    FROM organizations o";

fn find(connection: &Connection, slug: &str) -> Result<Organization, Stop> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE o.slug = ?1"))?;
    let found = statement.query_row([slug], organization).optional()?;
    found.ok_or_else(|| StoreError::not_found(Kind::Organization, slug).into())
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
        let [only] = &store.organizations().unwrap()[..] else {
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
        assert_eq!(store.organizations().unwrap().len(), 1);
    }

    #[test]
    fn a_name_can_be_changed_and_taken_away() {
        let store = Fixture::new();
        let renamed = store.rename_organization("default", Some("Us")).unwrap();
        assert_eq!(renamed.name.as_deref(), Some("Us"));
        assert_eq!(
            store.rename_organization("default", None).unwrap().name,
            None
        );
        assert!(store.rename_organization("acme", None).is_err());
    }
}
