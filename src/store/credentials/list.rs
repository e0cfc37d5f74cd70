//! Lists of credentials: narrowed, in any order, page by page.

use std::collections::HashMap;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use serde_json::json;

use super::super::error::Stop;
use super::super::text::Needle;
use super::super::{Page, Rows, Store, StoreError, now, organizations, search};
use super::{Credential, CredentialFilter, CredentialState, SELECT, credential};

/// The column by which a list is sorted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CredentialColumn {
    /// The time of creation.
    Created,
    /// The time of the latest login or message. Credentials never used come first.
    LastUsed,
    /// The name, without case and accents. Credentials without a name come first.
    Name,
    /// Active before revoked.
    Status,
    /// The username, without the case of ASCII letters.
    Username,
}

impl CredentialColumn {
    /// The column in SQL. An index holds an organization's credentials in the order of each,
    /// except for the last use, which [`List::sources`] reads in two parts.
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

/// The order of a list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CredentialOrder {
    /// Rows that are equal in this column follow in the order of their creation.
    pub by: CredentialColumn,
    /// Whether the last row comes first.
    pub descending: bool,
}

/// The order of the pages that continue behind a key.
const AS_CREATED: CredentialOrder = CredentialOrder {
    by: CredentialColumn::Created,
    descending: false,
};

/// How many credentials a list fetches and sorts by itself. A longer list is read from the index
/// of its order.
const SORTED: usize = 10_000;

/// How many rows a list looks at in its own order before it asks the index of its filter.
const FIRST: usize = 3_000;

impl Store {
    /// The credentials that pass `filter`, in the order of their creation.
    ///
    /// # Errors
    /// The organization is unknown, or the store cannot be read.
    pub fn credentials(
        &self,
        filter: CredentialFilter,
        page: Page,
    ) -> Result<Rows<Credential>, StoreError> {
        self.read(|connection| {
            let list = List::new(connection, filter, AS_CREATED, page.after)?;
            let most = (page != Page::ALL).then_some(FIRST);
            let keys = list.keys(0, page.limit as usize + 1, most)?;
            let found = with_keys(connection, &keys)?;
            Ok(Rows::cut(found, page, |credential| credential.key))
        })
    }

    /// The credentials that pass `filter` in this order: at most `limit`, behind the first
    /// `skipped`.
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
            let list = List::new(connection, filter, order, None)?;
            let keys = list.keys(skipped as usize, limit as usize, Some(FIRST))?;
            with_keys(connection, &keys)
        })
    }
}

/// A list that is being read.
struct List<'a> {
    connection: &'a Connection,
    organization: Option<i64>,
    filter: CredentialFilter<'a>,
    needle: Option<Needle>,
    order: CredentialOrder,
    after: i64,
}

impl<'a> List<'a> {
    fn new(
        connection: &'a Connection,
        filter: CredentialFilter<'a>,
        order: CredentialOrder,
        after: Option<i64>,
    ) -> Result<List<'a>, Stop> {
        let organization = filter
            .organization
            .map(|slug| organizations::key(connection, slug))
            .transpose()?;
        let needle = filter.text.map(Needle::new);
        Ok(List {
            connection,
            organization,
            filter,
            needle: needle.filter(|needle| !needle.folded().is_empty()),
            order,
            after: after.unwrap_or(0),
        })
    }

    /// The keys of the list behind the first `skipped`, at most `limit`.
    ///
    /// Most pages are full after a look at the first `most` rows in the order of the list. When
    /// few rows pass the filter, or all of them stand far behind, an index of the filter's own
    /// finds them.
    fn keys(&self, skipped: usize, limit: usize, most: Option<usize>) -> Result<Vec<i64>, Stop> {
        let accepted = self.needle.as_ref().map_or(Accepted::All, Accepted::Text);
        let (found, is_whole) = self.walk(self.filter, accepted, skipped, limit, most)?;
        if is_whole || found.len() == limit {
            return Ok(found);
        }
        let Some((among, rest)) = self.among()? else {
            let all = self.walk(self.filter, Accepted::All, skipped, limit, None)?;
            return Ok(all.0);
        };
        match among.len() {
            ..=SORTED => self.sorted(&among, rest, skipped, limit),
            _ => Ok(self
                .walk(rest, Accepted::Among(&among), skipped, limit, None)?
                .0),
        }
    }

    /// The keys that pass, in the order of the list, and whether every row was read. At most `most`
    /// rows are read.
    fn walk(
        &self,
        filter: CredentialFilter,
        accepted: Accepted,
        skipped: usize,
        limit: usize,
        most: Option<usize>,
    ) -> Result<(Vec<i64>, bool), Stop> {
        let texts = match accepted {
            Accepted::Text(_) => ", c.username, c.name",
            _ => "",
        };
        let (conditions, most) = (conditions(filter), most.unwrap_or(usize::MAX));
        let (mut keys, mut seen, mut passed) = (Vec::new(), 0, 0);
        for source in self.sources(filter.unused_since.is_some()) {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT c.key, ({conditions}) IS TRUE{texts} FROM {source} LIMIT ?7"
            ))?;
            let left = i64::try_from(most - seen).unwrap_or(-1);
            let mut rows = statement.query(params![
                self.organization,
                filter.status,
                filter.unused_since,
                now(),
                filter.expires_until,
                self.after,
                left
            ])?;
            while keys.len() < limit {
                let Some(row) = rows.next()? else { break };
                seen += 1;
                let key = row.get(0)?;
                let passes = row.get::<_, bool>(1)?
                    && match accepted {
                        Accepted::All => true,
                        Accepted::Among(keys) => keys.binary_search(&key).is_ok(),
                        Accepted::Text(needle) => {
                            has_text(needle, row, 2)? || has_text(needle, row, 3)?
                        }
                    };
                if passes {
                    passed += 1;
                    if passed > skipped {
                        keys.push(key);
                    }
                }
            }
        }
        Ok((keys, seen < most))
    }

    /// Where the rows of the list stand in order: what follows FROM, one after the other.
    fn sources(&self, with_use: bool) -> Vec<String> {
        let (by, direction) = (self.order.by, self.direction());
        // Without the plus SQLite may take the key for the better index, and sort all rows.
        let after = match by {
            CredentialColumn::Created => "c.key > ?6",
            _ => "+c.key > ?6",
        };
        let within = match self.organization {
            Some(_) => format!("c.organization = ?1 AND {after}"),
            None => after.to_owned(),
        };
        let rows = match with_use {
            true => "credentials c LEFT JOIN last_used u ON u.credential = c.key",
            false => "credentials c",
        };
        if by != CredentialColumn::LastUsed {
            let column = by.sql();
            return vec![format!(
                "{rows} WHERE {within} ORDER BY {column} {direction}, c.key {direction}"
            )];
        }
        let never = format!(
            "{rows} WHERE {within} AND c.is_used = 0
             ORDER BY c.created_at {direction}, c.key {direction}"
        );
        let within = match self.organization {
            Some(_) => "u.organization = ?1",
            None => "TRUE",
        };
        let used = format!(
            "last_used u CROSS JOIN credentials c ON c.key = u.credential WHERE {within}
             ORDER BY u.latest {direction}, u.credential {direction}"
        );
        match self.order.descending {
            true => vec![used, never],
            false => vec![never, used],
        }
    }

    /// The keys that pass one part of the filter, ascending, and the rest of the filter; `None`
    /// if the filter lets all pass.
    fn among(&self) -> Result<Option<(Vec<i64>, CredentialFilter<'a>)>, Stop> {
        let (connection, filter) = (self.connection, self.filter);
        if let Some(needle) = &self.needle {
            let keys = search::keys(connection, self.organization, needle)?;
            let rest = CredentialFilter {
                text: None,
                ..filter
            };
            return Ok(Some((keys, rest)));
        }
        let mut rest = filter;
        let by_expiry = "key FROM credentials INDEXED BY credentials_by_expiry";
        let parts = if filter.expires_until.is_some() {
            rest.expires_until = None;
            vec![(
                by_expiry,
                "status = 'active' AND expires_at > ?4 AND expires_at <= ?5",
            )]
        } else if filter.state == Some(CredentialState::Expired) {
            rest.state = None;
            vec![(by_expiry, "status = 'active' AND expires_at <= ?4")]
        } else if filter.unused_since.is_some() {
            rest.unused_since = None;
            vec![
                ("key FROM credentials", "is_used = 0 AND created_at < ?3"),
                ("credential FROM last_used", "latest < ?3"),
            ]
        } else if filter.status.is_some() {
            rest.status = None;
            vec![("key FROM credentials", "status = ?2")]
        } else if filter.state == Some(CredentialState::Revoked) {
            rest.state = None;
            vec![("key FROM credentials", "status = 'revoked'")]
        } else {
            return Ok(None);
        };
        let within = match self.organization {
            Some(_) => "organization = ?1",
            None => "TRUE",
        };
        let part = |(rows, condition)| format!("SELECT {rows} WHERE {within} AND {condition}");
        let parts: Vec<_> = parts.into_iter().map(part).collect();
        let mut statement =
            connection.prepare_cached(&format!("{} LIMIT ?6", parts.join(" UNION ALL ")))?;
        let values = params![
            self.organization,
            filter.status,
            filter.unused_since,
            now(),
            filter.expires_until,
            -1,
        ];
        let keys = statement.query_map(values, |row| row.get(0))?;
        let mut keys = keys.collect::<Result<Vec<i64>, _>>()?;
        keys.sort_unstable();
        Ok(Some((keys, rest)))
    }

    /// Those of the keys that pass the filter, in the order of the list.
    fn sorted(
        &self,
        among: &[i64],
        filter: CredentialFilter,
        skipped: usize,
        limit: usize,
    ) -> Result<Vec<i64>, Stop> {
        let (column, direction, conditions) =
            (self.order.by.sql(), self.direction(), conditions(filter));
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT c.key FROM credentials c LEFT JOIN last_used u ON u.credential = c.key
             WHERE c.key IN (SELECT value FROM json_each(?7)) AND c.key > ?6
                   AND (?1 IS NULL OR c.organization = ?1) AND {conditions}
             ORDER BY {column} {direction}, c.created_at {direction}, c.key {direction}
             LIMIT ?8 OFFSET ?9"
        ))?;
        let wanted = params![
            self.organization,
            filter.status,
            filter.unused_since,
            now(),
            filter.expires_until,
            self.after,
            json!(among).to_string(),
            i64::try_from(limit).unwrap_or(-1),
            i64::try_from(skipped).unwrap_or(i64::MAX),
        ];
        let keys = statement.query_map(wanted, |row| row.get(0))?;
        Ok(keys.collect::<Result<_, _>>()?)
    }

    fn direction(&self) -> &'static str {
        match self.order.descending {
            true => "DESC",
            false => "ASC",
        }
    }
}

/// Which rows of a walk belong to the list, beside the conditions of its filter.
#[derive(Clone, Copy)]
enum Accepted<'a> {
    All,
    /// Rows with one of these keys, which ascend.
    Among(&'a [i64]),
    /// Rows with this text in username or name.
    Text(&'a Needle),
}

/// What the filter asks of a row, except for the text, in SQL. `?4` is the present time.
fn conditions(filter: CredentialFilter) -> String {
    let mut conditions = vec!["TRUE"];
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
        conditions.push("coalesce(u.latest, c.created_at) < ?3");
    }
    conditions.join(" AND ")
}

/// Whether a column of text holds the text of a search.
fn has_text(needle: &Needle, row: &Row, column: usize) -> Result<bool, Stop> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(text) => needle.is_in(&String::from_utf8_lossy(text)),
        _ => false,
    })
}

/// The credentials with these keys, in this order. Keys without a credential are left out.
fn with_keys(connection: &Connection, keys: &[i64]) -> Result<Vec<Credential>, Stop> {
    let mut statement = connection.prepare_cached(&format!(
        "{SELECT} WHERE c.key IN (SELECT value FROM json_each(?1))"
    ))?;
    let rows = statement.query_map([json!(keys).to_string()], credential)?;
    let mut found = rows.collect::<Result<Vec<_>, _>>()?;
    let places: HashMap<i64, usize> = keys.iter().copied().zip(0..).collect();
    found.sort_unstable_by_key(|credential| places.get(&credential.key));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{Fixture, named};
    use super::super::super::text::folded;
    use super::super::super::{LastMessage, LastUsed, Noted};
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
    fn a_message_counts_as_a_use_in_a_table() {
        let store = filled();
        store.shell("UPDATE credentials SET created_at = 1");
        let key = store.credential("smtp_c").unwrap().key;
        let noted = Noted {
            messages: vec![(key, LastMessage { at: 9, count: 1 })],
            ..Noted::default()
        };
        store.flush(&noted).unwrap();
        let all = CredentialFilter::default();
        assert_eq!(table(&store, all, CredentialColumn::LastUsed, false), "bac");
        let unused = CredentialFilter {
            unused_since: Some(8),
            ..all
        };
        assert_eq!(
            table(&store, unused, CredentialColumn::Created, false),
            "ab"
        );
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
        let unknown = CredentialFilter {
            organization: Some("unknown"),
            ..all
        };
        let order = CredentialOrder {
            by: CredentialColumn::Name,
            descending: false,
        };
        assert!(store.credential_table(unknown, order, 0, 1).is_err());
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
        for by in [
            CredentialColumn::Created,
            CredentialColumn::LastUsed,
            CredentialColumn::Name,
            CredentialColumn::Status,
            CredentialColumn::Username,
        ] {
            for descending in [false, true] {
                let order = CredentialOrder { by, descending };
                let plans = store.read(|connection| {
                    let own = CredentialFilter {
                        organization: Some("default"),
                        ..CredentialFilter::default()
                    };
                    let list = List::new(connection, own, order, None)?;
                    let sources = [false, true].map(|with_use| (with_use, list.sources(with_use)));
                    let each = |(with_use, sources): (bool, Vec<String>)| {
                        sources.into_iter().map(move |source| (with_use, source))
                    };
                    Ok(sources.into_iter().flat_map(each).collect::<Vec<_>>())
                });
                for (with_use, source) in plans.unwrap() {
                    let columns = match with_use {
                        true => "c.key, coalesce(u.latest, c.created_at) < 7, c.status, c.name",
                        false => "c.key, TRUE",
                    };
                    let source = source.replace("?1", "1").replace("?6", "0");
                    let plan = store.plan(&format!("SELECT {columns} FROM {source} LIMIT 50"));
                    let is_ordered = !plan.contains("TEMP B-TREE") && !plan.contains("SCAN");
                    assert!(is_ordered, "{source}: {plan}");
                    let is_plain = !with_use && by != CredentialColumn::LastUsed;
                    assert!(
                        !is_plain || plan.contains("COVERING INDEX"),
                        "{source}: {plan}"
                    );
                }
            }
        }
    }

    /// 12,000 credentials: too many to look at for a page, and for some filters too many to sort.
    #[test]
    fn rare_and_remote_rows_are_found_in_every_order() {
        const DAY: i64 = 86_400_000;
        let store = Fixture::new();
        store.create_organization("acme", None).unwrap();
        store.shell(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000)
             INSERT INTO credentials (id, username, organization, name, password_hash, status, created_at)
             SELECT printf('01890000-0000-7000-8000-%012d', i), printf('smtp_%05d', i * 7919 % 12000),
                    1 + (i % 500 = 7), iif(i % 5 = 0, NULL, printf(iif(i % 20 = 1, 'Gerät %d', 'Device %d'), i * 31 % 1000)), 'x',
                    iif(i % 3000 = 3, 'revoked', 'active'), 86400000 * (i / 500)
             FROM n;
             INSERT INTO last_used (credential, at, address, mechanism, helo, count)
             SELECT key, created_at + 86400000 * 3, '192.0.2.7', 'PLAIN', 'a', 1 FROM credentials WHERE key % 3 = 0;
             UPDATE credentials SET name = 'Ünique' WHERE key IN (11, 11501);
             UPDATE credentials SET expires_at = (key % 2) * 4102444800000 + key WHERE key % 100 = 3 OR key > 11950;
             UPDATE credentials SET expires_at = (unixepoch() + 86400) * 1000 WHERE key IN (6000, 11000);",
        );
        let stored = Store::credentials(&store, CredentialFilter::default(), Page::ALL)
            .unwrap()
            .rows;
        let mut seen = Vec::new();
        for organization in [None, Some("default")] {
            let all = CredentialFilter {
                organization,
                ..CredentialFilter::default()
            };
            let text = |text| CredentialFilter {
                text: Some(text),
                ..all
            };
            let state = |state| CredentialFilter {
                state: Some(state),
                ..all
            };
            let unused = |days| CredentialFilter {
                unused_since: Some(days * DAY),
                ..all
            };
            let revoked = Some(CredentialStatus::Revoked);
            for filter in [
                all,
                text("unique"),
                text("gerat 9"),
                text("not there"),
                unused(23),
                state(CredentialState::Active),
                state(CredentialState::Expired),
                state(CredentialState::Revoked),
                CredentialFilter {
                    expires_until: Some(now() + 7 * DAY),
                    ..all
                },
                CredentialFilter {
                    status: revoked,
                    ..text("device")
                },
                CredentialFilter {
                    status: revoked,
                    ..unused(15)
                },
                CredentialFilter {
                    text: Some("device"),
                    ..unused(20)
                },
            ] {
                let needle = filter.text.map(Needle::new);
                let passes = |found: &&Credential| {
                    let name = found.name.as_deref().unwrap_or_default();
                    let latest = found.latest_use().unwrap_or(found.created_at);
                    filter.still_passes(found)
                        && organization.is_none_or(|slug| slug == found.organization)
                        && filter.unused_since.is_none_or(|since| latest < since)
                        && needle.as_ref().is_none_or(|needle| {
                            needle.is_in(&found.username) || needle.is_in(name)
                        })
                };
                let mut expected: Vec<_> = stored.iter().filter(passes).collect();
                seen.push(expected.len());
                // The list in the order of creation, by pages that continue behind a key.
                let (mut list, mut after) = (Vec::new(), None);
                loop {
                    let page = Page {
                        after,
                        limit: 9_000,
                    };
                    let found = Store::credentials(&store, filter, page).unwrap();
                    list.extend(found.rows.into_iter().map(|found| found.key));
                    after = found.next;
                    if after.is_none() {
                        break;
                    }
                }
                let keys: Vec<_> = expected.iter().map(|found| found.key).collect();
                assert_eq!(list, keys, "{filter:?}");
                for by in [CredentialColumn::Name, CredentialColumn::LastUsed] {
                    expected.sort_by_cached_key(|found| {
                        let name = found.name.as_deref().map(folded);
                        match by {
                            CredentialColumn::Name => (name, None, found.key),
                            _ => (None, found.latest_use(), found.key),
                        }
                    });
                    for descending in [false, true] {
                        let order = CredentialOrder { by, descending };
                        let mut keys: Vec<_> = expected.iter().map(|found| found.key).collect();
                        if descending {
                            keys.reverse();
                        }
                        for skipped in [0, 10_500] {
                            let page = store.credential_table(filter, order, skipped, 5).unwrap();
                            let page: Vec<_> = page.into_iter().map(|found| found.key).collect();
                            let expected: Vec<_> = keys
                                .iter()
                                .copied()
                                .skip(skipped as usize)
                                .take(5)
                                .collect();
                            assert_eq!(page, expected, "{filter:?} {order:?} behind {skipped}");
                        }
                    }
                }
            }
        }
        let [rare, many] = [1..50, SORTED + 1..12_000]
            .map(|range| seen.iter().filter(|n| range.contains(n)).count());
        assert!(rare > 5 && many > 2, "{seen:?}");
    }
}
