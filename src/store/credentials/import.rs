//! Credentials that come from elsewhere, all in one transaction.

use rusqlite::params;
use uuid::Uuid;

use super::super::text::composed;
use super::super::{Editor, StoreError, name, now, organizations};
use super::edit::told;
use super::find;

/// A credential as it is imported.
#[derive(Clone, Copy, Debug)]
pub struct Imported<'a> {
    /// In its own spelling.
    pub username: &'a str,
    /// Of a kind that verification knows.
    pub password_hash: &'a str,
    /// What people call it.
    pub name: Option<&'a str>,
    /// From when on it is refused, in Unix milliseconds.
    pub expires_at: Option<i64>,
}

impl Editor<'_> {
    /// Adds active credentials to the organization with this slug: all of them but those whose username is taken, or, after
    /// an error, none. Says of each whether it was added. Their passwords have no tag: people chose them.
    ///
    /// # Errors
    /// The organization is unknown, a username or a name is not allowed, or the store cannot be written.
    pub fn import<'a>(
        &self,
        organization: &str,
        credentials: impl IntoIterator<Item = Imported<'a>>,
    ) -> Result<Vec<bool>, StoreError> {
        self.change(|transaction| {
            let key = organizations::key(transaction, organization)?;
            let mut added = Vec::new();
            for new in credentials {
                name::check_username(new.username)?;
                let name = new.name.map(composed);
                name::check_name(name.as_deref())?;
                let mut insert = transaction.prepare_cached(
                    "INSERT INTO credentials (id, username, organization, name, password_hash, created_at, expires_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (username) DO NOTHING",
                )?;
                let inserted = insert.execute(params![
                    Uuid::now_v7().to_string(),
                    new.username,
                    key,
                    name,
                    new.password_hash,
                    now(),
                    new.expires_at,
                ])?;
                added.push(inserted == 1);
                if inserted == 1 {
                    let made = find(transaction, new.username)?;
                    let after = Some(told(&made));
                    self.note_credential(transaction, "credential.import", &made, None, after)?;
                }
            }
            Ok(added)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{Fixture, named};
    use super::super::super::{AuditFilter, Page};
    use super::*;

    fn imported(username: &str) -> Imported<'_> {
        Imported {
            username,
            password_hash: "$6$hash",
            name: None,
            expires_at: None,
        }
    }

    #[test]
    fn what_is_taken_is_left_and_the_rest_is_added_and_recorded() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        let epoch = store.epoch();
        let names = ["Info@Example.TEST", "smtp_a", "smtp_b"];
        let added = store.edit().import("default", names.map(imported)).unwrap();
        assert_eq!(added, [true, false, true]);
        assert_ne!(store.epoch(), epoch);
        let login = store.lookup("Info@Example.TEST").unwrap().unwrap();
        assert_eq!((login.password_hash.as_str(), login.tag), ("$6$hash", None));
        assert_eq!(store.lookup("info@example.test").unwrap(), None);
        let filter = AuditFilter {
            action: Some("credential.import"),
            ..AuditFilter::default()
        };
        let log = store.audit(filter, Page::ALL).unwrap().rows;
        assert_eq!(log.len(), 2);
        assert!(!format!("{log:?}").contains("$6$"));
    }

    #[test]
    fn an_error_leaves_nothing_behind() {
        let store = Fixture::new();
        let names = ["smtp_a", "bad\nname"];
        assert!(store.edit().import("default", names.map(imported)).is_err());
        assert!(
            store
                .edit()
                .import("nowhere", [imported("smtp_a")])
                .is_err()
        );
        assert_eq!(store.lookup("smtp_a").unwrap(), None);
    }
}
