//! The audit log: who changed what, each row hashed together with the one before.

mod guards;

use std::fmt;
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde_json::{Map, Value};

use super::error::Stop;
use super::page::Seen;
use super::text::Needle;
use super::{Actor, ActorKind, Editor, Page, Rows, Store, StoreError, now};

/// How many records in a row are from before a time when no newer one is looked for behind them. A
/// clock that was wrong for a while leaves a few such records between newer ones.
const STALE: u32 = 1_000;

/// A change that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    /// Its number; there are no gaps.
    pub seq: i64,
    /// Unix milliseconds.
    pub at: i64,
    /// Who made it.
    pub actor: Actor,
    /// For example `credential.rotate`.
    pub action: String,
    /// The username, slug or token id.
    pub object: String,
    /// The slug of the organization that it concerns.
    pub organization: Option<String>,
    /// Fields as they were; none of them secret.
    pub before: Option<Value>,
    /// Fields as they became; none of them secret.
    pub after: Option<Value>,
    /// Over the record and the hash of the one before.
    pub hash: [u8; 32],
}

/// A record's number and hash, kept outside of the store: no record up to it can be changed or removed without notice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AuditMark {
    /// The number of the record; 0 for a log that never had one.
    pub seq: i64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl fmt::Display for AuditMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, hex(&self.hash))
    }
}

impl FromStr for AuditMark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write it as gatepost audit verify prints it: SEQ:HASH".to_owned();
        let (seq, hash) = text.trim().split_once(':').ok_or_else(wrong)?;
        let hash = blake3::Hash::from_hex(hash).map_err(|_| wrong())?;
        let seq = seq.parse().ok().filter(|seq| *seq >= 0);
        Ok(Self {
            seq: seq.ok_or_else(wrong)?,
            hash: *hash.as_bytes(),
        })
    }
}

/// Which records are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditFilter<'a> {
    /// Only about this organization.
    pub organization: Option<&'a str>,
    /// Only with this action; one that ends with a dot stands for all that begin so.
    pub action: Option<&'a str>,
    /// Only about this username, slug or token id.
    pub object: Option<&'a str>,
    /// Only by actors whose name contains this, whatever the case and accents of letters.
    pub actor: Option<&'a str>,
    /// Not before this Unix millisecond; see [`Store::audit`].
    pub since: Option<i64>,
}

/// What [`Store::verify_audit`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AuditReport {
    /// How many records there are.
    pub records: u64,
    /// The number of the last one that was pruned; 0 if none was.
    pub pruned: i64,
    /// The newest record. Kept elsewhere, it tells later whether the log up to it is the same.
    pub head: AuditMark,
}

/// What is to be said of a change, besides who made it and when.
pub(super) struct Event<'a> {
    pub(super) action: &'a str,
    pub(super) object: &'a str,
    pub(super) organization: Option<&'a str>,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

/// Adds a record, in the transaction of the change itself.
pub(super) fn record(transaction: &Transaction, actor: &Actor, event: Event) -> Result<(), Stop> {
    let (newest, previous) = head(transaction)?;
    // Where the newest records were removed this leaves the gap that verifying finds.
    let last = newest.max(last_given(transaction)?);
    let text = |value: Option<Value>| value.map(|value| value.to_string());
    let entry = Entry {
        seq: last + 1,
        at: now(),
        actor_kind: actor.kind,
        actor: cut(&actor.name),
        address: actor.address.clone(),
        action: event.action.to_owned(),
        object: event.object.to_owned(),
        organization: event.organization.map(str::to_owned),
        before: text(event.before),
        after: text(event.after),
    };
    let mut statement = transaction.prepare_cached(
        "INSERT INTO audit_log (seq, at, actor_kind, actor, address, action, object, organization, before, after, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    statement.execute(params![
        entry.seq,
        entry.at,
        entry.actor_kind,
        entry.actor,
        entry.address,
        entry.action,
        entry.object,
        entry.organization,
        entry.before,
        entry.after,
        entry.hash(&previous),
    ])?;
    Ok(())
}

impl AuditFilter<'_> {
    /// What an index can tell stands in the statement, and [`AuditFilter::passes`] tells the rest of
    /// a bounded number of rows. There is one object among many records, and many of an
    /// organization's, so with an object that index is the one to use.
    fn sql(&self) -> String {
        let own = match (self.object, self.organization) {
            (Some(_), _) => "AND object = ?2",
            (None, Some(_)) => "AND organization = ?2",
            (None, None) => "AND ?2 IS NULL",
        };
        format!("{SELECT} WHERE seq < ?1 {own} ORDER BY seq DESC")
    }

    /// Whether a row of [`SELECT`] is asked for, whatever its time.
    fn passes(&self, row: &Row) -> Result<bool, Stop> {
        let (actor, action, organization) = (text(row, 3)?, text(row, 5)?, text(row, 7)?);
        let is_action = |wanted: &str| {
            action == wanted || (wanted.ends_with('.') && action.starts_with(wanted))
        };
        Ok(self.organization.is_none_or(|slug| organization == slug)
            && self.action.is_none_or(is_action)
            && self.actor.is_none_or(|name| Needle::new(name).is_in(actor)))
    }
}

/// A column's text, which is not copied; nothing is as good as none.
fn text<'row>(row: &'row Row, column: usize) -> Result<&'row str, Stop> {
    let text = row.get_ref(column)?.as_str_or_null();
    Ok(text.map_err(rusqlite::Error::from)?.unwrap_or_default())
}

/// Names of actors come from outside; a record stays small.
fn cut(name: &str) -> String {
    name.chars().take(256).collect()
}

impl Store {
    /// The records that pass `filter`, newest first. [`Page::after`] is the number of the last one
    /// looked at. With [`AuditFilter::since`], the list ends behind [`STALE`] older records in a row.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn audit(&self, filter: AuditFilter, page: Page) -> Result<Rows<AuditRecord>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&filter.sql())?;
            let own = filter.object.or(filter.organization);
            let rows = statement.query(params![page.after.unwrap_or(i64::MAX), own])?;
            let mut stale = 0;
            page.collect(rows, |row| {
                let (seq, at): (i64, i64) = (row.get(0)?, row.get(1)?);
                let is_recent = filter.since.is_none_or(|since| at >= since);
                stale = if is_recent { 0 } else { stale + 1 };
                Ok(if stale > STALE {
                    Seen::End
                } else if is_recent && filter.passes(row)? {
                    Seen::Wanted(seq, Entry::read(row)?.shown(row.get(10)?))
                } else {
                    Seen::LeftOut(seq)
                })
            })
        })
    }

    /// The number of the newest record, also of one that was pruned.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn audit_head(&self) -> Result<i64, StoreError> {
        self.read(|connection| Ok(head(connection)?.0))
    }

    /// Computes every hash again and compares; also with `kept`, which an earlier verification gave.
    ///
    /// # Errors
    /// [`StoreError::AuditBroken`] with the first record that is not what it was or is missing;
    /// [`StoreError::AuditUnguarded`] where a trigger that keeps the log append-only is not as it was made; or the store
    /// cannot be read.
    pub fn verify_audit(&self, kept: Option<AuditMark>) -> Result<AuditReport, StoreError> {
        self.read(|connection| {
            // One snapshot: the daemon may add while this reads.
            let snapshot = connection.unchecked_transaction()?;
            let (pruned, mut hash) = anchor(&snapshot)?;
            if let Some(kept) = kept {
                self.compare_pruned(kept, AuditMark { seq: pruned, hash })?;
            }
            let mut statement = snapshot.prepare(&format!("{SELECT} ORDER BY seq"))?;
            let mut rows = statement.query([])?;
            let mut seq = pruned;
            while let Some(row) = rows.next()? {
                let entry = Entry::read(row)?;
                if entry.seq != seq + 1 {
                    return Err(self.broken(seq + 1, "it is missing"));
                }
                seq = entry.seq;
                let stored: [u8; 32] = row.get(10)?;
                if entry.hash(&hash) != stored {
                    return Err(self.broken(
                        seq,
                        "it is not what was recorded, or the one before it is not",
                    ));
                }
                hash = stored;
                if kept.is_some_and(|kept| kept.seq == seq && kept.hash != hash) {
                    return Err(self.broken(seq, REWRITTEN));
                }
            }
            if last_given(&snapshot)? > seq {
                return Err(self.broken(seq + 1, "it and what followed are missing"));
            }
            if let Some(kept) = kept.filter(|kept| kept.seq > seq) {
                let what = format!("its hash was kept, and the log ends at record {seq}");
                return Err(self.broken(kept.seq, &what));
            }
            if pruned > 0 && !is_pruned_on_record(&snapshot, pruned)? {
                return Err(self.broken(pruned, "it was removed, but not by gatepost audit prune"));
            }
            if let Some(what) = guards::fault(&snapshot)? {
                return Err(StoreError::AuditUnguarded {
                    path: self.path.clone(),
                    what,
                }
                .into());
            }
            Ok(AuditReport {
                records: u64::try_from(seq - pruned).unwrap_or(0),
                pruned,
                head: AuditMark { seq, hash },
            })
        })
    }

    /// Compares what was kept with the last record that was pruned.
    fn compare_pruned(&self, kept: AuditMark, pruned: AuditMark) -> Result<(), Stop> {
        if kept.seq == pruned.seq && kept.hash != pruned.hash {
            return Err(self.broken(kept.seq, REWRITTEN));
        }
        if kept.seq < pruned.seq {
            return Err(StoreError::Invalid(format!(
                "record {} cannot be compared: the log was pruned through record {}; see gatepost audit list --action \
                 audit.prune, then keep what gatepost audit verify prints",
                kept.seq, pruned.seq
            ))
            .into());
        }
        Ok(())
    }

    fn broken(&self, seq: i64, what: &str) -> Stop {
        StoreError::AuditBroken {
            path: self.path.clone(),
            seq,
            what: what.to_owned(),
        }
        .into()
    }
}

impl Editor<'_> {
    /// Removes the records older than `before` (Unix milliseconds) and records that. What is left still verifies. Returns how
    /// many were removed.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn prune_audit(&self, before: i64) -> Result<u64, StoreError> {
        self.store.write(|transaction| {
            let (begins, _) = anchor(transaction)?;
            // Only from the old end: the newest record older than `before` and all in front of it.
            let last: Option<(i64, [u8; 32])> = transaction
                .query_row(
                    "SELECT seq, hash FROM audit_log
                     WHERE seq < (SELECT coalesce(min(seq), 9223372036854775807) FROM audit_log WHERE at >= ?1)
                     ORDER BY seq DESC LIMIT 1",
                    [before],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            let Some((last, hash)) = last else {
                return Ok(0);
            };
            let removed = u64::try_from(last - begins).unwrap_or(0);
            let after = Map::from_iter([
                ("through".to_owned(), last.into()),
                ("hash".to_owned(), hex(&hash).into()),
                ("records".to_owned(), removed.into()),
            ]);
            let event = Event {
                action: "audit.prune",
                object: "audit",
                organization: None,
                before: None,
                after: Some(after.into()),
            };
            record(transaction, self.actor, event)?;
            transaction.execute("UPDATE audit_anchor SET seq = ?1, hash = ?2", params![last, hash])?;
            transaction.execute("DELETE FROM audit_log WHERE seq <= ?1", [last])?;
            Ok(removed)
        })
    }
}

impl Editor<'_> {
    /// Records that live sessions were ended: those of `object`, which is a credential, an organization or one session.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn note_disconnect(
        &self,
        object: &str,
        organization: Option<&str>,
        sessions: usize,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let after = Map::from_iter([("sessions".to_owned(), sessions.into())]);
            let event = Event {
                action: "session.disconnect",
                object,
                organization,
                before: None,
                after: Some(after.into()),
            };
            record(transaction, self.actor, event)
        })
    }

    /// Records that hashes of passwords were exported, of one organization or of all.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn note_export(
        &self,
        organization: Option<&str>,
        credentials: usize,
    ) -> Result<(), StoreError> {
        self.store.write(|transaction| {
            let after = Map::from_iter([("credentials".to_owned(), credentials.into())]);
            let event = Event {
                action: "store.export",
                object: organization.unwrap_or("store"),
                organization,
                before: None,
                after: Some(after.into()),
            };
            record(transaction, self.actor, event)
        })
    }

    /// Records that the store was put back from a backup: what the log says after that is of another past.
    pub(super) fn note_restore(&self, source: &std::path::Path) -> Result<(), StoreError> {
        self.store.write(|transaction| {
            let after = Map::from_iter([("from".to_owned(), source.display().to_string().into())]);
            let event = Event {
                action: "store.restore",
                object: "store",
                organization: None,
                before: None,
                after: Some(after.into()),
            };
            record(transaction, self.actor, event)
        })
    }
}

/// A hash as people compare it.
pub fn hex(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

const REWRITTEN: &str = "its hash is not the one that was kept: the log was written anew up to it";

const SELECT: &str = "
    SELECT seq, at, actor_kind, actor, address, action, object, organization, before, after, hash FROM audit_log";

/// Number and hash of the newest record, also of a pruned one.
fn head(connection: &Connection) -> Result<(i64, [u8; 32]), Stop> {
    let newest = connection
        .prepare_cached("SELECT seq, hash FROM audit_log ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    newest.map_or_else(|| anchor(connection), Ok)
}

/// The highest number that a record ever had, which SQLite keeps for AUTOINCREMENT.
fn last_given(connection: &Connection) -> Result<i64, Stop> {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'audit_log'";
    let mut statement = connection.prepare_cached(sql)?;
    let last = statement.query_row([], |row| row.get(0)).optional()?;
    Ok(last.unwrap_or(0))
}

fn anchor(connection: &Connection) -> Result<(i64, [u8; 32]), Stop> {
    let sql = "SELECT seq, hash FROM audit_anchor";
    Ok(connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// Whether a record that is still there says that the log was pruned up to `seq`, with the very hash that is kept of it.
fn is_pruned_on_record(connection: &Connection, seq: i64) -> Result<bool, Stop> {
    let (_, hash) = anchor(connection)?;
    let sql = "SELECT EXISTS (SELECT 1 FROM audit_log WHERE action = 'audit.prune'
               AND after ->> 'through' = ?1 AND after ->> 'hash' = ?2)";
    Ok(connection.query_row(sql, params![seq, hex(&hash)], |row| row.get(0))?)
}

/// A row as it is stored, without its hash.
struct Entry {
    seq: i64,
    at: i64,
    actor_kind: ActorKind,
    actor: String,
    address: Option<String>,
    action: String,
    object: String,
    organization: Option<String>,
    before: Option<String>,
    after: Option<String>,
}

impl Entry {
    fn read(row: &Row) -> rusqlite::Result<Entry> {
        Ok(Entry {
            seq: row.get(0)?,
            at: row.get(1)?,
            actor_kind: row.get(2)?,
            actor: row.get(3)?,
            address: row.get(4)?,
            action: row.get(5)?,
            object: row.get(6)?,
            organization: row.get(7)?,
            before: row.get(8)?,
            after: row.get(9)?,
        })
    }

    /// Every field with its length, so that no two rows run together alike; an absent one differs from an empty one.
    fn hash(&self, previous: &[u8; 32]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(previous);
        hasher.update(&self.seq.to_le_bytes());
        hasher.update(&self.at.to_le_bytes());
        let texts = [
            Some(self.actor_kind.as_str()),
            Some(&self.actor),
            self.address.as_deref(),
            Some(&self.action),
            Some(&self.object),
            self.organization.as_deref(),
            self.before.as_deref(),
            self.after.as_deref(),
        ];
        for text in texts {
            let length = text.map_or(u64::MAX, |text| text.len() as u64);
            hasher.update(&length.to_le_bytes());
            hasher.update(text.unwrap_or_default().as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    fn shown(self, hash: [u8; 32]) -> AuditRecord {
        // We wrote it; what somebody else wrote in its place is at least not hidden.
        let json = |text: Option<String>| {
            text.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)))
        };
        AuditRecord {
            seq: self.seq,
            at: self.at,
            actor: Actor {
                kind: self.actor_kind,
                name: self.actor,
                address: self.address,
                token: None,
            },
            action: self.action,
            object: self.object,
            organization: self.organization,
            before: json(self.before),
            after: json(self.after),
            hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::page::LOOKED_AT;
    use super::super::tests::{Fixture, named};
    use super::*;

    /// Three changes, one after the other.
    fn busy_store() -> Fixture {
        let store = Fixture::new();
        store.edit().create_organization("acme", None).unwrap();
        store.edit().create_credential(named("smtp_a")).unwrap();
        store.edit().delete_credential("smtp_a".into()).unwrap();
        store
    }

    fn actions(store: &Store, filter: AuditFilter) -> Vec<String> {
        let found = store.audit(filter, Page::ALL).unwrap();
        found.rows.into_iter().map(|record| record.action).collect()
    }

    #[test]
    fn the_changes_of_one_are_found_without_reading_the_whole_log() {
        let store = Fixture::new();
        for (organization, object, index) in [
            (Some("default"), Some("smtp_a"), "audit_log_by_object"),
            (None, Some("smtp_a"), "audit_log_by_object"),
            (Some("default"), None, "audit_log_by_organization"),
        ] {
            let filter = AuditFilter {
                organization,
                object,
                ..AuditFilter::default()
            };
            let plan = store.plan(&filter.sql());
            assert!(
                plan.contains(index) && !plan.contains("TEMP B-TREE"),
                "{plan}"
            );
        }
    }

    /// Adds so many records by `actor`, as of this time. Their hashes are nobody's concern.
    fn fill(store: &Fixture, records: usize, actor: &str, at: i64) {
        store.shell(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {records})
             INSERT INTO audit_log (seq, at, actor_kind, actor, action, object, organization, hash)
             SELECT (SELECT coalesce(max(seq), 0) FROM audit_log) + i, {at}, 'token', '{actor}', 'credential.rotate', 'smtp_b', 'acme', zeroblob(32) FROM n"
        ));
    }

    #[test]
    fn a_rare_record_is_found_page_by_page_each_of_a_bounded_number_of_rows() {
        let store = busy_store();
        fill(&store, 25_000, "robot", 1);
        let all = AuditFilter::default();
        for filter in [
            AuditFilter {
                actor: Some("tests"),
                ..all
            },
            AuditFilter {
                action: Some("organization."),
                ..all
            },
            AuditFilter {
                organization: Some("default"),
                object: Some("smtp_b"),
                ..all
            },
            AuditFilter {
                organization: Some("acme"),
                action: Some("organization."),
                ..all
            },
        ] {
            let (mut found, mut pages, mut after) = (0, 0, None);
            loop {
                let page = store.audit(filter, Page { after, limit: 50 }).unwrap();
                (found, pages) = (found + page.rows.len(), pages + 1);
                after = page.next;
                if after.is_none() {
                    break;
                }
                let looked_at = 25_003 - after.unwrap() + 1;
                assert_eq!(looked_at, pages * LOOKED_AT as i64, "{filter:?}");
            }
            assert_eq!(pages, 3, "{filter:?}");
            let whole = store.audit(filter, Page::ALL).unwrap();
            assert_eq!((whole.rows.len(), whole.next), (found, None));
        }
    }

    #[test]
    fn a_list_since_a_time_ends_there_and_survives_a_clock_that_was_wrong() {
        let store = Fixture::new();
        fill(&store, 2_000, "old", 1);
        fill(&store, 3, "new", 5_000);
        fill(&store, 900, "wrong clock", 2);
        fill(&store, 3, "new", 6_000);
        let filter = AuditFilter {
            since: Some(5_000),
            ..AuditFilter::default()
        };
        let page = store
            .audit(
                filter,
                Page {
                    after: None,
                    limit: 50,
                },
            )
            .unwrap();
        assert_eq!((page.rows.len(), page.next), (6, None));
    }

    #[test]
    fn every_change_is_there_newest_first_and_verifies() {
        let store = busy_store();
        assert_eq!(
            actions(&store, AuditFilter::default()),
            [
                "credential.delete",
                "credential.create",
                "organization.create"
            ]
        );
        let report = store.verify_audit(None).unwrap();
        assert_eq!((report.records, report.pruned, report.head.seq), (3, 0, 3));
        let newest = store
            .audit(AuditFilter::default(), Page::ALL)
            .unwrap()
            .rows
            .remove(0);
        assert_eq!(
            (newest.object.as_str(), newest.organization.as_deref()),
            ("smtp_a", Some("default"))
        );
        assert_eq!(newest.actor.kind, ActorKind::System);
    }

    #[test]
    fn a_change_that_failed_leaves_no_record() {
        let store = busy_store();
        assert!(store.edit().create_organization("acme", None).is_err());
        assert_eq!(store.verify_audit(None).unwrap().records, 3);
    }

    #[test]
    fn records_can_be_narrowed_and_come_in_pages() {
        let store = busy_store();
        let by = |filter| actions(&store, filter).len();
        assert_eq!(
            by(AuditFilter {
                organization: Some("acme"),
                ..AuditFilter::default()
            }),
            1
        );
        assert_eq!(
            by(AuditFilter {
                action: Some("credential."),
                ..AuditFilter::default()
            }),
            2
        );
        assert_eq!(
            by(AuditFilter {
                action: Some("credential"),
                ..AuditFilter::default()
            }),
            0
        );
        assert_eq!(
            by(AuditFilter {
                object: Some("smtp_a"),
                ..AuditFilter::default()
            }),
            2
        );
        assert_eq!(
            by(AuditFilter {
                actor: Some("nobody"),
                ..AuditFilter::default()
            }),
            0
        );
        assert_eq!(
            by(AuditFilter {
                since: Some(i64::MAX),
                ..AuditFilter::default()
            }),
            0
        );
        let page = |after| {
            store
                .audit(AuditFilter::default(), Page { after, limit: 2 })
                .unwrap()
        };
        let first = page(None);
        assert_eq!((first.rows.len(), first.next), (2, Some(2)));
        let second = page(first.next);
        assert_eq!((second.rows.len(), second.next), (1, None));
    }

    #[test]
    fn rows_can_neither_be_changed_nor_removed_nor_replaced() {
        let store = busy_store();
        let shell = Connection::open(store.path()).unwrap();
        for sql in [
            "UPDATE audit_log SET actor = 'nobody'",
            "DELETE FROM audit_log",
            "DELETE FROM audit_log WHERE seq = 1",
            "INSERT OR REPLACE INTO audit_log SELECT seq, at, 'cli', 'x', NULL, action, object, NULL, NULL, NULL, hash FROM audit_log WHERE seq = 2",
            "UPDATE audit_anchor SET seq = 2",
            "UPDATE audit_anchor SET seq = 2, hash = zeroblob(32)",
            "DELETE FROM audit_anchor",
        ] {
            assert!(shell.execute(sql, []).is_err(), "{sql}");
        }
        store.verify_audit(None).unwrap();
    }

    #[test]
    fn who_gets_around_the_triggers_is_found_out() {
        let tampering = [
            (
                "DROP TRIGGER audit_log_is_not_changed; UPDATE audit_log SET actor = 'nobody' WHERE seq = 2",
                2,
            ),
            (
                "DROP TRIGGER audit_log_is_not_changed; UPDATE audit_log SET after = NULL WHERE seq = 1",
                1,
            ),
            (
                "DROP TRIGGER audit_log_is_not_shortened; DELETE FROM audit_log WHERE seq = 2",
                2,
            ),
            (
                "DROP TRIGGER audit_log_is_not_shortened; DELETE FROM audit_log WHERE seq = 1",
                1,
            ),
            (
                "DROP TRIGGER audit_log_is_not_shortened; DELETE FROM audit_log WHERE seq = 3",
                3,
            ),
            (
                "DROP TRIGGER audit_anchor_moves_along_the_log; UPDATE audit_anchor SET seq = 1; DELETE FROM audit_log WHERE seq = 1",
                2,
            ),
            (
                "UPDATE audit_anchor SET seq = 2, hash = (SELECT hash FROM audit_log WHERE seq = 2); DELETE FROM audit_log WHERE seq < 3",
                2,
            ),
        ];
        for (sql, first) in tampering {
            let store = busy_store();
            store.shell(sql);
            let error = store.verify_audit(None).unwrap_err();
            assert!(
                matches!(error, StoreError::AuditBroken { seq, .. } if seq == first),
                "{sql}: {error}"
            );
        }
    }

    const CUT_OFF: &str =
        "DROP TRIGGER audit_log_is_not_shortened; DELETE FROM audit_log WHERE seq > 1";

    #[test]
    fn records_that_are_cut_off_leave_a_gap_whatever_is_recorded_later() {
        let store = busy_store();
        store.shell(CUT_OFF);
        let broken_at = |store: &Fixture| match store.verify_audit(None).unwrap_err() {
            StoreError::AuditBroken { seq, .. } => seq,
            error => panic!("{error}"),
        };
        assert_eq!(broken_at(&store), 2);
        for slug in ["b", "c", "d", "e"] {
            store.edit().create_organization(slug, None).unwrap();
        }
        assert_eq!(broken_at(&store), 2);
    }

    #[test]
    fn a_kept_head_finds_records_that_were_cut_off_without_a_trace() {
        let store = busy_store();
        let kept = store.verify_audit(None).unwrap().head;
        assert_eq!(kept.to_string().parse(), Ok(kept));
        store.verify_audit(Some(kept)).unwrap();
        let triggers = store.guards();
        store.shell(CUT_OFF);
        store.shell("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'audit_log'");
        store.shell(&triggers["audit_log_is_not_shortened"]);
        store.verify_audit(None).unwrap();
        let missing = |seq| move |error: &StoreError| matches!(error, StoreError::AuditBroken { seq: found, .. } if *found == seq);
        let error = store.verify_audit(Some(kept)).unwrap_err();
        assert!(missing(3)(&error), "{error}");
        // The same number again, with another content.
        for slug in ["b", "c", "d"] {
            store.edit().create_organization(slug, None).unwrap();
        }
        store.verify_audit(None).unwrap();
        let error = store.verify_audit(Some(kept)).unwrap_err();
        assert!(missing(3)(&error), "{error}");
        assert!(error.to_string().contains("written anew"), "{error}");
    }

    #[test]
    fn a_kept_head_that_was_pruned_is_compared_as_long_as_it_can_be() {
        let store = busy_store();
        let first = store.verify_audit(None).unwrap().head;
        assert_eq!(store.edit().prune_audit(i64::MAX).unwrap(), 3);
        store.verify_audit(Some(first)).unwrap();
        let wrong = AuditMark {
            hash: [7; 32],
            ..first
        };
        let error = store.verify_audit(Some(wrong)).unwrap_err();
        assert!(
            matches!(error, StoreError::AuditBroken { seq: 3, .. }),
            "{error}"
        );
        store.edit().prune_audit(i64::MAX).unwrap();
        let error = store.verify_audit(Some(first)).unwrap_err();
        assert!(
            error.to_string().contains("pruned through record 4"),
            "{error}"
        );
    }

    #[test]
    fn a_head_is_read_as_it_is_printed() {
        for wrong in ["", "3", "3:", ":00", "-1:00", "x:00", "3:zz"] {
            assert!(wrong.parse::<AuditMark>().is_err(), "{wrong}");
        }
        let hash = "00".repeat(32);
        assert!(format!(" 3:{hash}\n").parse::<AuditMark>().is_ok());
        assert!(format!("-3:{hash}").parse::<AuditMark>().is_err());
    }

    #[test]
    fn a_trigger_that_is_missing_or_another_is_found() {
        let names: Vec<String> = busy_store().guards().into_keys().collect();
        assert_eq!(names.len(), 5);
        for name in names {
            let store = busy_store();
            let own = store.guards().remove(&name).unwrap();
            store.shell(&format!("DROP TRIGGER {name}"));
            for another in ["", &own.replace("the audit", "an audit")] {
                store.shell(another);
                let error = store.verify_audit(None).unwrap_err();
                assert!(
                    matches!(error, StoreError::AuditUnguarded { .. }),
                    "{error}"
                );
                assert!(error.to_string().contains(&name), "{error}");
            }
            store.shell(&format!("DROP TRIGGER {name}; {own}"));
            store.verify_audit(None).unwrap();
        }
        let store = busy_store();
        store.shell("CREATE TRIGGER eraser AFTER INSERT ON audit_log BEGIN SELECT 1; END");
        let error = store.verify_audit(None).unwrap_err();
        assert!(error.to_string().contains("eraser"), "{error}");
    }

    impl Fixture {
        /// The triggers of the audit log, by name.
        fn guards(&self) -> std::collections::BTreeMap<String, String> {
            let connection = Connection::open(self.path()).unwrap();
            guards::triggers(&connection).unwrap()
        }
    }

    #[test]
    fn pruning_is_recorded_and_the_rest_still_verifies() {
        let store = busy_store();
        assert_eq!(store.edit().prune_audit(0).unwrap(), 0);
        assert_eq!(
            store.verify_audit(None).unwrap().records,
            3,
            "nothing to remove, nothing to record"
        );

        assert_eq!(store.edit().prune_audit(i64::MAX).unwrap(), 3);
        let report = store.verify_audit(None).unwrap();
        assert_eq!((report.records, report.pruned, report.head.seq), (1, 3, 4));
        store.edit().create_organization("beta", None).unwrap();
        assert_eq!(
            actions(&store, AuditFilter::default()),
            ["organization.create", "audit.prune"]
        );
        store.verify_audit(None).unwrap();
    }
}
