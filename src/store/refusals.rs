//! The last refused logins: of each credential, and with names that nobody has. Both are bounded, whoever tries whatever.

use rusqlite::{Connection, Row, Transaction, params};

use crate::sasl::{Reason, Throttled};

use super::error::Stop;
use super::{Store, StoreError, count, earliest, now};

/// How many are kept of one name.
pub const REFUSALS_OF_ONE: usize = 32;

/// How many of them may have the same reason, so that a guesser at many addresses does not push out the device that has the
/// previous password.
pub const REFUSALS_OF_ONE_REASON: usize = 16;

/// How many are kept with names that nobody has.
pub const UNKNOWN_REFUSALS: usize = 1_000;

/// How many of those may come from one address, so that one scanner does not push out everybody else.
pub const UNKNOWN_REFUSALS_FROM_ONE: usize = 50;

/// How long a refusal is kept after it happened last: 30 days, in milliseconds.
pub(super) const KEPT: i64 = 30 * 24 * 3_600_000;

/// Refused logins with one name, for one reason, from one address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RefusedLogin {
    /// What the client called itself: its own words, to be shown only through [`super::plain`].
    pub username: String,
    /// The stable name of the reason, as in the log.
    pub reason: String,
    /// The client's IP address.
    pub address: String,
    /// The first of them, in Unix milliseconds.
    pub first_at: i64,
    /// The last of them.
    pub at: i64,
    /// How many; in a flush those since the one before, in the store all that are known.
    pub count: u64,
    /// When the password that was offered was replaced, if it once was the right one.
    pub retired_at: Option<i64>,
}

impl RefusedLogin {
    /// Whether the other one only happened at another time.
    pub fn is_like(&self, other: &RefusedLogin) -> bool {
        (&self.reason, &self.address, &self.username)
            == (&other.reason, &other.address, &other.username)
    }

    /// What was wrong, for people.
    pub fn words(&self) -> &str {
        let reasons = Reason::ALL.map(|reason| (reason.as_str(), reason.words()));
        let bars = Throttled::ALL.map(|bar| (bar.as_str(), bar.words()));
        let mut all = reasons.into_iter().chain(bars);
        // Another version of Gatepost may have written it.
        all.find(|(name, _)| *name == self.reason)
            .map_or(self.reason.as_str(), |(_, words)| words)
    }

    /// Adds what another one counted that is like this one.
    pub fn add(&mut self, other: &RefusedLogin) {
        if other.at >= self.at {
            self.retired_at = other.retired_at;
        }
        self.at = self.at.max(other.at);
        self.first_at = self.first_at.min(other.first_at);
        self.count += other.count;
    }
}

impl Store {
    /// The refused logins with this username, the latest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn refusals(&self, username: &str) -> Result<Vec<RefusedLogin>, StoreError> {
        self.read(|connection| {
            let own = format!("{SELECT} WHERE r.username = ?2 AND r.at >= ?1 ORDER BY r.at DESC");
            let mut statement = connection.prepare_cached(&own)?;
            let rows = statement.query_map(params![now() - KEPT, username], refused)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The refused logins with usernames that nobody has, the latest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn unknown_refusals(&self) -> Result<Vec<RefusedLogin>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "{SELECT} WHERE r.credential IS NULL AND r.at >= ?1
                 AND NOT EXISTS (SELECT 1 FROM credentials c WHERE c.username = r.username) ORDER BY r.at DESC"
            ))?;
            let rows = statement.query_map([now() - KEPT], refused)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Those of these usernames that no credential has.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn unknown_among(&self, usernames: Vec<String>) -> Result<Vec<String>, StoreError> {
        self.read(|connection| {
            let mut unknown = Vec::new();
            for username in usernames {
                if !is_known(connection, &username)? {
                    unknown.push(username);
                }
            }
            Ok(unknown)
        })
    }
}

const SELECT: &str = "SELECT r.username, r.reason, r.address, r.first_at, r.at, r.count, r.retired_at FROM refusals r";

fn refused(row: &Row) -> rusqlite::Result<RefusedLogin> {
    let now = now();
    Ok(RefusedLogin {
        username: row.get(0)?,
        reason: row.get(1)?,
        address: row.get(2)?,
        first_at: row.get::<_, i64>(3)?.min(now),
        at: row.get::<_, i64>(4)?.min(now),
        count: count(row, 5)?,
        retired_at: row.get(6)?,
    })
}

fn is_known(connection: &Connection, username: &str) -> Result<bool, Stop> {
    let mut statement =
        connection.prepare_cached("SELECT 1 FROM credentials WHERE username = ?1")?;
    Ok(statement.exists([username])?)
}

/// Adds refused logins, each to the credential that has the name now.
pub(super) fn add(transaction: &Transaction, refusals: &[RefusedLogin]) -> Result<(), Stop> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO refusals AS old (username, reason, address, credential, first_at, at, count, retired_at)
         VALUES (?1, ?2, ?3, (SELECT key FROM credentials WHERE username = ?1), ?4, ?5, ?6, ?7)
         ON CONFLICT (username, reason, address) DO UPDATE SET
             credential = excluded.credential,
             retired_at = iif(excluded.at >= old.at OR old.at > ?8, excluded.retired_at, old.retired_at),
             first_at   = min(old.first_at, excluded.first_at),
             at         = iif(old.at > ?8, excluded.at, max(old.at, excluded.at)),
             count      = old.count + excluded.count",
    )?;
    let now = now();
    for refusal in refusals {
        upsert.execute(params![
            refusal.username,
            refusal.reason,
            refusal.address,
            refusal.first_at.min(now),
            refusal.at.min(now),
            i64::try_from(refusal.count).unwrap_or(i64::MAX),
            refusal.retired_at,
            now,
        ])?;
    }
    let mut usernames: Vec<_> = refusals.iter().map(|refusal| &refusal.username).collect();
    usernames.sort_unstable();
    usernames.dedup();
    let mut trim = transaction.prepare_cached(
        "DELETE FROM refusals WHERE username = ?1 AND (reason, address) IN (
             SELECT reason, address FROM (
                 SELECT reason, address, too_many, row_number() OVER (ORDER BY too_many, at > ?4, at DESC) AS place
                 FROM (SELECT reason, address, at,
                              row_number() OVER (PARTITION BY reason ORDER BY at > ?4, at DESC) > ?3 AS too_many
                       FROM refusals WHERE username = ?1))
             WHERE place > ?2 OR too_many)",
    )?;
    for username in usernames {
        trim.execute(params![
            username,
            REFUSALS_OF_ONE as i64,
            REFUSALS_OF_ONE_REASON as i64,
            now
        ])?;
    }
    let mut trim = transaction.prepare_cached(
        "DELETE FROM refusals WHERE (username, reason, address) IN (
             SELECT username, reason, address FROM (
                 SELECT username, reason, address, too_many, row_number() OVER (ORDER BY too_many, at > ?3, at DESC) AS place
                 FROM (SELECT username, reason, address, at,
                              row_number() OVER (PARTITION BY address ORDER BY at > ?3, at DESC) > ?2 AS too_many
                       FROM refusals WHERE credential IS NULL))
             WHERE place > ?1 OR too_many)",
    )?;
    if !refusals.is_empty() {
        trim.execute(params![
            UNKNOWN_REFUSALS as i64,
            UNKNOWN_REFUSALS_FROM_ONE as i64,
            now
        ])?;
    }
    Ok(())
}

/// Removes what is older than refusals are kept, a bounded part of it at a time.
pub(super) fn prune(transaction: &Transaction) -> Result<(), Stop> {
    let mut statement = transaction.prepare_cached(
        "DELETE FROM refusals WHERE (username, reason, address) IN (
             SELECT username, reason, address FROM refusals WHERE at < ?1 LIMIT 1000)",
    )?;
    statement.execute([earliest() - KEPT])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Noted;
    use super::super::tests::{Fixture, named};
    use super::*;

    fn refusal(username: &str, reason: &str, address: String, at: i64) -> RefusedLogin {
        RefusedLogin {
            username: username.to_owned(),
            reason: reason.to_owned(),
            address,
            first_at: at,
            at,
            count: 1,
            retired_at: None,
        }
    }

    fn flush(store: &Fixture, refusals: Vec<RefusedLogin>) {
        let noted = Noted {
            refusals,
            ..Noted::default()
        };
        store.flush(&noted).unwrap();
    }

    #[test]
    fn the_same_refusal_is_one_with_its_first_and_last_time() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        let now = now() - 1_000;
        let at = |at| refusal("smtp_a", "wrong_password", "192.0.2.1".to_owned(), at);
        flush(&store, vec![at(now - 5)]);
        flush(&store, vec![at(now), at(now - 9)]);
        let found = store.refusals("smtp_a").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].first_at, found[0].at, found[0].count),
            (now - 9, now, 3)
        );
        assert_eq!(store.unknown_refusals().unwrap(), []);
        store.edit().delete_credential("smtp_a".into()).unwrap();
        assert_eq!(store.refusals("smtp_a").unwrap(), []);
        flush(&store, vec![at(now + 1)]);
        assert_eq!(store.unknown_refusals().unwrap().len(), 1);
    }

    #[test]
    fn those_of_one_name_are_bounded_and_no_reason_takes_all_places() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        let now = now() - 1_000;
        let device = refusal(
            "smtp_a",
            "previous_password",
            "192.0.2.1".to_owned(),
            now - 1,
        );
        let guesses = (0..100).map(|n| {
            let address = format!("198.51.100.{n}");
            refusal("smtp_a", "wrong_password", address, now + n)
        });
        flush(&store, guesses.chain([device.clone()]).collect());
        let found = store.refusals("smtp_a").unwrap();
        assert_eq!(found.len(), REFUSALS_OF_ONE_REASON + 1);
        assert!(found.contains(&device));
        assert_eq!(found[0].address, "198.51.100.99");
        let reasons = ["expired", "revoked", "suspended", "unknown"];
        let others = reasons.iter().flat_map(|reason| {
            (0..16).map(|n| refusal("smtp_a", reason, format!("203.0.113.{n}"), now + 200))
        });
        flush(&store, others.collect());
        assert_eq!(store.refusals("smtp_a").unwrap().len(), REFUSALS_OF_ONE);
    }

    #[test]
    fn those_of_unknown_names_are_bounded_in_all_and_by_address() {
        let store = Fixture::new();
        let now = now() - 1_000;
        let from = |address: String, count: i64| {
            let tried =
                (0..count).map(|n| refusal(&format!("n{n}"), "unknown", address.clone(), now + n));
            tried.collect::<Vec<_>>()
        };
        flush(&store, from("192.0.2.1".to_owned(), 60));
        let found = store.unknown_refusals().unwrap();
        assert_eq!(found.len(), UNKNOWN_REFUSALS_FROM_ONE);
        assert_eq!(found[0].username, "n59");
        for n in 0..40 {
            let names = from(format!("198.51.100.{n}"), 40).into_iter();
            let own = names.map(|refusal| RefusedLogin {
                username: format!("{}-{n}", refusal.username),
                ..refusal
            });
            flush(&store, own.collect());
        }
        assert_eq!(store.unknown_refusals().unwrap().len(), UNKNOWN_REFUSALS);
        let known = ["n59".to_owned(), "smtp_a".to_owned()].to_vec();
        store.create_credential(named("smtp_a")).unwrap();
        assert_eq!(store.unknown_among(known).unwrap(), ["n59"]);
    }

    #[test]
    fn old_refusals_are_not_shown_and_removed() {
        let store = Fixture::new();
        let old = now() - KEPT;
        let at = |at| refusal("nobody", "unknown", format!("192.0.2.{}", at - old + 9), at);
        flush(&store, vec![at(old + 60_000)]);
        store.shell(
            "INSERT INTO refusals (username, reason, address, first_at, at, count)
             VALUES ('nobody', 'unknown', '192.0.2.1', 1, 1, 1)",
        );
        assert_eq!(store.unknown_refusals().unwrap().len(), 1);
        assert_eq!(store.refusals("nobody").unwrap().len(), 1);
        flush(&store, vec![at(old + 70_000)]);
        assert_eq!(store.count("SELECT count(*) FROM refusals"), 2);
    }
}
