//! What credentials did, by the hour.

use std::collections::HashSet;

use rusqlite::{Transaction, params};

use super::error::Stop;
use super::{Store, StoreError, count, earliest, organizations};

/// An hour in milliseconds.
pub const HOUR: i64 = 3_600_000;

/// A day in milliseconds.
const DAY: i64 = 24 * HOUR;

/// How long usage is kept: a little over a year, so that months can be compared with the year before.
const KEPT: i64 = 400 * DAY;

/// What was done in some span of time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Messages the upstream took.
    pub messages: u64,
    /// Recipients the upstream took.
    pub recipients: u64,
    /// Octets of message bodies sent upstream.
    pub bytes: u64,
    /// Logins that were accepted.
    pub accepted: u64,
    /// Logins that were refused.
    pub refused: u64,
}

/// Whose usage is wanted.
#[derive(Clone, Copy, Debug)]
pub enum UsageOf<'a> {
    /// Of the credential with this [`super::Credential::key`].
    Credential(i64),
    /// Of all organizations.
    Instance,
    /// Of the organization with this slug, with the credentials it no longer has.
    Organization(&'a str),
}

/// How usage is summed up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Span {
    /// By the UTC day.
    Day,
    /// By the hour.
    Hour,
}

impl Span {
    /// Its length in milliseconds.
    pub fn length(self) -> i64 {
        match self {
            Span::Day => DAY,
            Span::Hour => HOUR,
        }
    }
}

impl Usage {
    /// Adds another one's numbers.
    pub fn add(&mut self, other: &Usage) {
        self.messages += other.messages;
        self.recipients += other.recipients;
        self.bytes += other.bytes;
        self.accepted += other.accepted;
        self.refused += other.refused;
    }
}

impl Store {
    /// Usage from `since` up to and without `until` (Unix milliseconds), by the span in which it was, oldest first, each
    /// with the span's begin. Spans without any are left out.
    ///
    /// # Errors
    /// There is no such organization, or the store cannot be read.
    pub fn usage(
        &self,
        of: UsageOf,
        span: Span,
        since: i64,
        until: i64,
    ) -> Result<Vec<(i64, Usage)>, StoreError> {
        self.read(|connection| {
            // One statement each, so that each is answered by an index.
            let (own, key) = match of {
                UsageOf::Credential(key) => ("credential = ?1", Some(key)),
                UsageOf::Instance => ("?1 IS NULL", None),
                UsageOf::Organization(slug) => (
                    "organization = ?1",
                    Some(organizations::key(connection, slug)?),
                ),
            };
            // As each of the indexes has them, and summed up here: SQLite would sort all rows first to sum up days.
            let mut statement = connection.prepare_cached(&format!(
                "SELECT hour, messages, recipients, bytes, accepted, refused
                 FROM usage WHERE {own} AND hour >= ?2 AND hour < ?3 ORDER BY hour"
            ))?;
            // An hour belongs to the time asked for if it begins in it.
            let first = since.div_euclid(HOUR) + i64::from(since.rem_euclid(HOUR) > 0);
            let end = until.div_euclid(HOUR) + i64::from(until.rem_euclid(HOUR) > 0);
            let mut rows = statement.query(params![key, first, end])?;
            let mut spans: Vec<(i64, Usage)> = Vec::new();
            while let Some(row) = rows.next()? {
                let usage = Usage {
                    messages: count(row, 1)?,
                    recipients: count(row, 2)?,
                    bytes: count(row, 3)?,
                    accepted: count(row, 4)?,
                    refused: count(row, 5)?,
                };
                let hour: i64 = row.get(0)?;
                let begin = hour.saturating_mul(HOUR).div_euclid(span.length()) * span.length();
                match spans.last_mut() {
                    Some((last, sum)) if *last == begin => sum.add(&usage),
                    _ => spans.push((begin, usage)),
                }
            }
            Ok(spans)
        })
    }
}

impl Store {
    /// Which of the credentials with these keys belong to the organization with this slug.
    ///
    /// # Errors
    /// There is no such organization, or the store cannot be read.
    pub fn belonging_to(&self, slug: &str, keys: &[i64]) -> Result<HashSet<i64>, StoreError> {
        self.read(|connection| {
            let organization = organizations::key(connection, slug)?;
            let mut statement = connection.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM credentials WHERE key = ?1 AND organization = ?2)",
            )?;
            let mut own = HashSet::new();
            for key in keys {
                if statement.query_row(params![key, organization], |row| row.get(0))? {
                    own.insert(*key);
                }
            }
            Ok(own)
        })
    }
}

/// Adds usage by credential key and hour, each in the organization that the credential now belongs to; that of credentials
/// that are gone is dropped.
pub(super) fn add(transaction: &Transaction, usage: &[((i64, i64), Usage)]) -> Result<(), Stop> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO usage AS old (organization, credential, hour, messages, recipients, bytes, accepted, refused)
         SELECT organization, key, ?2, ?3, ?4, ?5, ?6, ?7 FROM credentials WHERE key = ?1
         ON CONFLICT (credential, hour) DO UPDATE SET
             messages   = old.messages + excluded.messages,
             recipients = old.recipients + excluded.recipients,
             bytes      = old.bytes + excluded.bytes,
             accepted   = old.accepted + excluded.accepted,
             refused    = old.refused + excluded.refused",
    )?;
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    for ((credential, hour), usage) in usage {
        statement.execute(params![
            credential,
            hour,
            signed(usage.messages),
            signed(usage.recipients),
            signed(usage.bytes),
            signed(usage.accepted),
            signed(usage.refused),
        ])?;
    }
    Ok(())
}

/// Removes what is older than usage is kept, a bounded part of it at a time.
pub(super) fn prune(transaction: &Transaction) -> Result<(), Stop> {
    let oldest = (earliest() - KEPT).div_euclid(HOUR);
    let mut statement = transaction.prepare_cached(
        "DELETE FROM usage WHERE (credential, hour) IN (SELECT credential, hour FROM usage WHERE hour < ?1 LIMIT 1000)",
    )?;
    statement.execute([oldest])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, named};
    use super::super::{Noted, StoreError, now};
    use super::*;

    fn messages(messages: u64) -> Usage {
        Usage {
            messages,
            bytes: 10 * messages,
            ..Usage::default()
        }
    }

    fn flush(store: &Store, usage: &[((i64, i64), Usage)]) {
        let noted = Noted {
            usage: usage.to_vec(),
            ..Noted::default()
        };
        store.flush(&noted).unwrap();
    }

    #[test]
    fn usage_adds_up_by_the_hour_and_by_the_day() {
        let store = Fixture::new();
        let key = store.edit().create_credential(named("smtp_a")).unwrap().key;
        let today = now() / DAY * 24;
        flush(
            &store,
            &[((key, today), messages(1)), ((key, today + 2), messages(2))],
        );
        flush(
            &store,
            &[((key, today), messages(4)), ((key, today - 1), messages(8))],
        );
        let of = |of, span| {
            let found = store.usage(of, span, 0, i64::MAX).unwrap();
            found
                .into_iter()
                .map(|(at, usage)| (at / HOUR - today, usage.messages))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of(UsageOf::Credential(key), Span::Hour),
            [(-1, 8), (0, 5), (2, 2)]
        );
        assert_eq!(
            of(UsageOf::Organization("default"), Span::Day),
            [(-24, 8), (0, 7)]
        );
        assert_eq!(of(UsageOf::Credential(key + 1), Span::Day), []);
        assert_eq!(of(UsageOf::Instance, Span::Day), [(-24, 8), (0, 7)]);
        let (since, until) = ((today - 1) * HOUR + 1, (today + 2) * HOUR);
        let part = store
            .usage(UsageOf::Credential(key), Span::Hour, since, until)
            .unwrap();
        assert_eq!(part, [(today * HOUR, messages(5))]);
    }

    #[test]
    fn the_organization_keeps_what_a_deleted_credential_did() {
        let store = Fixture::new();
        let key = store.edit().create_credential(named("smtp_a")).unwrap().key;
        let hour = now() / HOUR;
        flush(&store, &[((key, hour), messages(3))]);
        store.edit().delete_credential("smtp_a".into()).unwrap();
        flush(&store, &[((key, hour), messages(5))]);
        let found = store
            .usage(UsageOf::Organization("default"), Span::Hour, 0, i64::MAX)
            .unwrap();
        assert_eq!(found, [(hour * HOUR, messages(3))]);
        let error = store
            .usage(UsageOf::Organization("acme"), Span::Hour, 0, 1)
            .unwrap_err();
        assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    }

    #[test]
    fn credentials_are_told_apart_by_organization() {
        let store = Fixture::new();
        store.edit().create_organization("acme", None).unwrap();
        let own = store.edit().create_credential(named("smtp_a")).unwrap().key;
        let keys = [own, own + 1];
        let belonging = |slug| store.belonging_to(slug, &keys);
        assert_eq!(belonging("default").unwrap(), HashSet::from([own]));
        assert_eq!(belonging("acme").unwrap(), HashSet::new());
        let error = belonging("nobody").unwrap_err();
        assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    }

    #[test]
    fn old_usage_is_removed() {
        let store = Fixture::new();
        let key = store.edit().create_credential(named("smtp_a")).unwrap().key;
        let old = (now() - KEPT) / HOUR;
        flush(
            &store,
            &[((key, old - 1), messages(1)), ((key, old + 1), messages(2))],
        );
        assert_eq!(store.count("SELECT count(*) FROM usage"), 1);
    }
}
