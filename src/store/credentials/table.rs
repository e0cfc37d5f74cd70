//! Credentials as a table for people: in any order, and page by page.

use rusqlite::params;

use super::super::error::Stop;
use super::super::text::Needle;
use super::super::{Store, StoreError, organizations};
use super::{Credential, CredentialFilter, CredentialState, SELECT, credential, has_text};

/// What a table of credentials is sorted by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CredentialColumn {
    /// The time when they were made.
    Created,
    /// The time of their latest login or message; those never used count as used before all others.
    LastUsed,
    /// What people call them, whatever the case and accents of letters; those without a name count
    /// as before all others.
    Name,
    /// Active before revoked.
    Status,
    /// What clients log in with, whatever the case of ASCII letters.
    Username,
}

impl CredentialColumn {
    /// Each has an index that has it in order within an organization, but for the last use: to keep that in order would
    /// make every flush dearer, for a list that is looked at now and then.
    fn sql(self) -> &'static str {
        match self {
            CredentialColumn::Created => "c.key",
            CredentialColumn::LastUsed => "u.latest",
            CredentialColumn::Name => "coalesce(c.name_key, lower(c.name))",
            CredentialColumn::Status => "c.status",
            CredentialColumn::Username => "c.username COLLATE NOCASE",
        }
    }
}

/// In which order a table is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CredentialOrder {
    /// The column it is sorted by; rows that are equal there stand as they were made.
    pub by: CredentialColumn,
    /// Whether the last comes first.
    pub descending: bool,
}

impl Store {
    /// The credentials that pass `filter`, in this order, without the first `skipped` and at most `limit`.
    ///
    /// # Errors
    /// The organization is unknown, or the store cannot be read.
    pub fn credential_table(
        &self,
        filter: CredentialFilter,
        order: CredentialOrder,
        skipped: u32,
        limit: u32,
    ) -> Result<Vec<Credential>, StoreError> {
        self.read(|connection| {
            let organization = filter
                .organization
                .map(|slug| organizations::key(connection, slug))
                .transpose()?;
            let (column, direction) = (
                order.by.sql(),
                if order.descending { "DESC" } else { "ASC" },
            );
            // Only what is asked for stands in the statement, so that an index alone can tell which rows to skip.
            let mut conditions = vec!["TRUE"];
            if organization.is_some() {
                conditions.push("c.organization = ?1");
            }
            if filter.status.is_some() {
                conditions.push("c.status = ?2");
            }
            if let Some(state) = filter.state {
                conditions.push(state.sql());
            }
            if filter.expires_until.is_some() {
                conditions.push("c.status = 'active' AND c.expires_at > ?4 AND c.expires_at <= ?5");
            }
            if filter.unused_since.is_some() {
                conditions.push("max(c.created_at, coalesce(u.latest, c.created_at)) < ?3");
            }
            let used = match filter.unused_since.is_some() || order.by == CredentialColumn::LastUsed
            {
                true => "LEFT JOIN last_used u ON u.credential = c.key",
                false => "",
            };
            let order = format!("ORDER BY {column} {direction}, c.key {direction}");
            // SQLite would look at every credential in the order of the list.
            let index = match filter.expires_until.is_some()
                || filter.state == Some(CredentialState::Expired)
            {
                true => "INDEXED BY credentials_by_expiry",
                false => "",
            };
            // Only a search needs more than an index has.
            let (texts, skipped_here, limit_here) = match filter.text {
                Some(_) => (", c.username, c.name", 0, -1),
                None => ("", skipped, i64::from(limit)),
            };
            let mut statement = connection.prepare_cached(&format!(
                "SELECT c.key{texts} FROM credentials c {index} {used} WHERE {} {order} LIMIT ?7 OFFSET ?6",
                conditions.join(" AND ")
            ))?;
            let wanted = params![
                organization,
                filter.status,
                filter.unused_since,
                super::super::now(),
                filter.expires_until,
                skipped_here,
                limit_here,
            ];
            let rows = statement.query(wanted)?;
            let keys = match filter.text {
                Some(text) => keys_with(rows, &Needle::new(text), skipped, limit)?,
                None => rows.mapped(|row| row.get(0)).collect::<Result<_, _>>()?,
            };
            let mut statement = connection.prepare_cached(&format!(
                "{SELECT} WHERE c.key IN (SELECT value FROM json_each(?1)) {order}"
            ))?;
            let keys = serde_json::json!(keys).to_string();
            let rows = statement.query_map([keys], credential)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// The keys of the rows that hold the text, without the first `skipped`. Reads no further than the
/// last of `limit` keys, so that a search with many hits costs no more than a page.
fn keys_with(
    mut rows: rusqlite::Rows,
    needle: &Needle,
    mut skipped: u32,
    limit: u32,
) -> Result<Vec<i64>, Stop> {
    let mut keys = Vec::new();
    while keys.len() < limit as usize {
        let Some(row) = rows.next()? else { break };
        if has_text(needle, row, 1)? || has_text(needle, row, 2)? {
            match skipped {
                0 => keys.push(row.get(0)?),
                _ => skipped -= 1,
            }
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{Fixture, named};
    use super::super::super::{LastUsed, Noted, Page};
    use super::super::{CredentialStatus, NewCredential};
    use super::*;

    fn used(at: i64) -> LastUsed {
        LastUsed {
            at,
            address: "192.0.2.7".to_owned(),
            tls: None,
            mechanism: "PLAIN".to_owned(),
            helo: "laptop".to_owned(),
            count: 1,
        }
    }

    /// a is called zebra and was used, b has no name, c is called Ant and is revoked.
    fn filled() -> Fixture {
        let store = Fixture::new();
        let mut keys = Vec::new();
        for (username, name) in [
            ("smtp_a", Some("zebra")),
            ("smtp_b", None),
            ("smtp_c", Some("Ant")),
        ] {
            let new = NewCredential {
                name,
                ..named(username)
            };
            keys.push(store.create_credential(new).unwrap().key);
        }
        store
            .set_status("smtp_c", CredentialStatus::Revoked)
            .unwrap();
        let noted = Noted {
            uses: vec![(keys[0], used(7)), (keys[2], used(5))],
            ..Noted::default()
        };
        store.flush(&noted).unwrap();
        store
    }

    fn table(
        store: &Store,
        filter: CredentialFilter,
        by: CredentialColumn,
        descending: bool,
    ) -> String {
        let order = CredentialOrder { by, descending };
        let found = store.credential_table(filter, order, 0, 10).unwrap();
        let ends = found.iter().map(|credential| &credential.username[5..]);
        ends.collect()
    }

    #[test]
    fn a_table_is_in_the_order_that_is_asked_for() {
        let store = filled();
        let own = CredentialFilter {
            organization: Some("default"),
            ..CredentialFilter::default()
        };
        for (by, ascending) in [
            (CredentialColumn::Created, "abc"),
            (CredentialColumn::LastUsed, "bca"),
            (CredentialColumn::Name, "bca"),
            (CredentialColumn::Status, "abc"),
            (CredentialColumn::Username, "abc"),
        ] {
            let descending: String = ascending.chars().rev().collect();
            assert_eq!(table(&store, own, by, false), ascending, "{by:?}");
            assert_eq!(table(&store, own, by, true), descending, "{by:?}");
        }
    }

    #[test]
    fn a_table_is_narrowed_as_a_list_is() {
        let store = filled();
        let all = CredentialFilter::default();
        let by = |filter| table(&store, filter, CredentialColumn::Name, false);
        let revoked = Some(CredentialStatus::Revoked);
        assert_eq!(
            by(CredentialFilter {
                status: revoked,
                ..all
            }),
            "c"
        );
        assert_eq!(
            by(CredentialFilter {
                text: Some("ZEB"),
                ..all
            }),
            "a"
        );
        assert_eq!(
            by(CredentialFilter {
                unused_since: Some(i64::MAX),
                ..all
            }),
            "bca"
        );
        assert_eq!(
            by(CredentialFilter {
                unused_since: Some(0),
                ..all
            }),
            ""
        );
        let nobody = CredentialFilter {
            organization: Some("nobody"),
            ..all
        };
        let order = CredentialOrder {
            by: CredentialColumn::Name,
            descending: false,
        };
        assert!(store.credential_table(nobody, order, 0, 1).is_err());
    }

    #[test]
    fn a_table_comes_in_pages() {
        let store = filled();
        let order = CredentialOrder {
            by: CredentialColumn::Name,
            descending: false,
        };
        let page = |skipped| {
            let found = store.credential_table(CredentialFilter::default(), order, skipped, 2);
            found
                .unwrap()
                .into_iter()
                .map(|found| found.username)
                .collect::<Vec<_>>()
        };
        assert_eq!(page(0), ["smtp_b", "smtp_c"]);
        assert_eq!(page(2), ["smtp_a"]);
        assert!(page(3).is_empty());
    }

    #[test]
    fn names_sort_without_regard_to_case_and_accents_in_any_script() {
        let store = Fixture::new();
        let names = [
            "Яблоко",
            "zebra",
            "étage 2",
            "Etage 1",
            "ETAGE 3",
            "яблоки",
            "Übung",
            "ulm",
            "a",
            "10",
            "9",
        ];
        for (number, name) in names.iter().enumerate() {
            let username = format!("smtp_{number}");
            let new = NewCredential {
                name: Some(name),
                ..named(&username)
            };
            store.create_credential(new).unwrap();
        }
        let order = CredentialOrder {
            by: CredentialColumn::Name,
            descending: false,
        };
        let sorted = || -> Vec<String> {
            let found = store.credential_table(CredentialFilter::default(), order, 0, 20);
            let found = found.unwrap().into_iter();
            found.map(|found| found.name.unwrap()).collect()
        };
        let expected = [
            "10",
            "9",
            "a",
            "Etage 1",
            "étage 2",
            "ETAGE 3",
            "Übung",
            "ulm",
            "zebra",
            "яблоки",
            "Яблоко",
        ];
        assert_eq!(sorted(), expected);
        // Names that another program writes follow with the next change.
        store.shell("UPDATE credentials SET name = 'ÉTAGE 0' WHERE name = 'étage 2'");
        store.rename_credential("smtp_8", Some("b")).unwrap();
        let expected = [
            "10",
            "9",
            "b",
            "ÉTAGE 0",
            "Etage 1",
            "ETAGE 3",
            "Übung",
            "ulm",
            "zebra",
            "яблоки",
            "Яблоко",
        ];
        assert_eq!(sorted(), expected);
    }

    #[test]
    fn a_search_folds_case_beyond_ascii_in_names_and_usernames() {
        let store = Fixture::new();
        for (username, name) in [
            ("smtp_a", Some("Принтер Офис")),
            ("smtp_b", Some("Hauptstraße")),
            ("smtp_c", Some("e\u{301}tage")),
            ("jörg@example.test", None),
        ] {
            let new = NewCredential {
                name,
                ..named(username)
            };
            store.create_credential(new).unwrap();
        }
        let name = store.credential("smtp_c").unwrap().name;
        assert_eq!(name.as_deref(), Some("étage"), "stored composed");
        for (text, expected) in [
            ("принтер", "smtp_a"),
            ("STRASSE", "smtp_b"),
            ("ÉTAGE", "smtp_c"),
            ("e\u{301}tage", "smtp_c"),
            ("JÖRG", "jörg@example.test"),
        ] {
            let filter = CredentialFilter {
                text: Some(text),
                ..CredentialFilter::default()
            };
            let order = CredentialOrder {
                by: CredentialColumn::Created,
                descending: true,
            };
            let table = store.credential_table(filter, order, 0, 9).unwrap();
            let list = Store::credentials(&store, filter, Page::ALL).unwrap().rows;
            assert_eq!(table, list, "{text}");
            let found: Vec<_> = list.iter().map(|found| found.username.as_str()).collect();
            assert_eq!(found, [expected], "{text}");
        }
        // A search comes in pages as well.
        let filter = CredentialFilter {
            text: Some("SMTP"),
            ..CredentialFilter::default()
        };
        let order = CredentialOrder {
            by: CredentialColumn::Username,
            descending: false,
        };
        let page = |skipped| -> Vec<String> {
            let found = store.credential_table(filter, order, skipped, 2).unwrap();
            found.into_iter().map(|found| found.username).collect()
        };
        assert_eq!(page(0), ["smtp_a", "smtp_b"]);
        assert_eq!((page(2), page(3)), (vec!["smtp_c".to_owned()], vec![]));
    }

    #[test]
    fn no_change_reads_all_names_for_those_to_fold() {
        let plan = Fixture::new().plan(
            "SELECT key, name FROM credentials
             WHERE name_key IS NULL AND name GLOB '*[^ -~]*' LIMIT 10",
        );
        assert!(plan.contains("credentials_without_name_key"), "{plan}");
    }

    #[test]
    fn an_index_has_an_organizations_credentials_in_order() {
        let store = Fixture::new();
        for column in [
            CredentialColumn::Created,
            CredentialColumn::Name,
            CredentialColumn::Status,
            CredentialColumn::Username,
        ] {
            for direction in ["ASC", "DESC"] {
                let column = column.sql();
                let plan = store.plan(&format!(
                    "SELECT c.key FROM credentials c WHERE c.organization = 1
                     ORDER BY {column} {direction}, c.key {direction} LIMIT 50 OFFSET 50"
                ));
                assert!(
                    plan.contains("COVERING INDEX") && !plan.contains("TEMP B-TREE"),
                    "{column}: {plan}"
                );
                let search = store.plan(&format!(
                    "SELECT c.key, c.username, c.name FROM credentials c WHERE c.organization = 1
                     ORDER BY {column} {direction}, c.key {direction} LIMIT -1 OFFSET 0"
                ));
                assert!(!search.contains("TEMP B-TREE"), "{column}: {search}");
            }
        }
    }
}
