//! Passwords that were replaced: which they were, and which of the two is used in an overlap.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, Transaction, params};

use crate::clock;

use super::error::Stop;
use super::now;

/// How many replaced passwords are known of each credential.
const RETIRED: i64 = 8;

/// A password that was replaced, by as much as lets one that is offered be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retired {
    /// [`super::Store::tag`] of it.
    pub tag: u32,
    /// When it was replaced, in Unix milliseconds.
    pub at: i64,
}

/// The latest use of one password of a credential in an overlap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PasswordUse {
    /// Unix milliseconds.
    pub at: i64,
    /// The client's IP address.
    pub address: String,
    /// How many uses; in a flush those since the one before, in the store all since the rotation
    /// that made the password the previous or the present one.
    pub count: u64,
}

impl PasswordUse {
    /// Adds another one's, of the same credential.
    pub fn add(&mut self, other: PasswordUse) {
        let count = self.count + other.count;
        if other.at >= self.at {
            *self = other;
        }
        self.count = count;
    }
}

/// When an overlap ends that began at `rotated_at` and was to last until `until`, in steady
/// milliseconds: after as long as was asked for, whatever the wall clock does meanwhile.
pub(super) fn end(until: i64, rotated_at: Option<i64>) -> i64 {
    let begun = rotated_at.unwrap_or_else(now);
    let ends = until.saturating_sub(clock::offset_at(begun));
    // A rotation of the future was dated by a wrong clock; it was now at the latest.
    let longest = until.saturating_sub(begun).max(0);
    ends.min(clock::steady_ms().saturating_add(longest))
}

/// When overlaps end, as this process found first. A wall clock that was set back shows the time of
/// a rotation again, and must not begin its overlap anew.
#[derive(Debug, Default)]
pub(super) struct Ends(Mutex<HashMap<i64, (Times, i64)>>);

/// Until when an overlap was to last, and the time of its rotation, as they are stored.
pub(super) type Times = (Option<i64>, Option<i64>);

/// How many overlaps are remembered.
const ENDS: usize = 10_000;

impl Ends {
    /// The end of the overlap of the credential with this key: `end`, unless it was found before.
    pub(super) fn first(&self, key: i64, times: Times, end: i64) -> i64 {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match ends.get(&key) {
            Some((known, first)) if *known == times => *first,
            _ => {
                if ends.len() >= ENDS {
                    ends.clear();
                }
                ends.insert(key, (times, end));
                end
            }
        }
    }
}

/// What a rotation does to the older passwords.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Overlap {
    /// Refuses the replaced password and leaves the previous one as it is.
    Keeps,
    /// Refuses both.
    Nothing,
    /// Accepts the replaced password until this Unix millisecond. Where an overlap runs already it
    /// does as [`Overlap::Keeps`]: the password that clients were given has its promised end, and
    /// the replaced one is the one that few have yet.
    Until(i64),
}

/// What a rotation did to the older passwords.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Rotation {
    /// The replaced password is accepted until the overlap ends.
    Began,
    /// An overlap ran already: the replaced password is refused, and the previous one keeps its end.
    Kept {
        /// The uses of the replaced password, if there were any.
        replaced_used: Option<PasswordUse>,
    },
    /// Every older password is refused.
    Ended,
}

/// Notes that the overlap of a credential is kept by a rotation: its previous password stays
/// replaced since the rotation before.
pub(super) fn keep(transaction: &Transaction, credential: i64) -> Result<(), Stop> {
    transaction.execute(
        "INSERT OR IGNORE INTO kept_overlaps (credential, since)
         SELECT key, rotated_at FROM credentials WHERE key = ?1 AND rotated_at IS NOT NULL",
        [credential],
    )?;
    Ok(())
}

/// Forgets the previous password of a credential, which another one follows: since when it is
/// replaced, and its uses.
pub(super) fn forget(transaction: &Transaction, credential: i64) -> Result<(), Stop> {
    for table in ["previous_used", "kept_overlaps"] {
        let delete = format!("DELETE FROM {table} WHERE credential = ?1");
        transaction.execute(&delete, [credential])?;
    }
    Ok(())
}

/// Remembers the present password of a credential as one that is replaced now, if it has a tag, and
/// forgets its uses.
pub(super) fn retire(transaction: &Transaction, credential: i64, now: i64) -> Result<(), Stop> {
    transaction.execute(
        "INSERT OR REPLACE INTO retired_passwords (credential, retired_at, tag)
         SELECT key, ?2, tag FROM credentials WHERE key = ?1 AND tag IS NOT NULL",
        params![credential, now],
    )?;
    transaction.execute(
        "DELETE FROM retired_passwords WHERE credential = ?1 AND retired_at NOT IN (
             SELECT retired_at FROM retired_passwords WHERE credential = ?1
             ORDER BY retired_at > ?3, retired_at DESC LIMIT ?2)",
        params![credential, RETIRED, now],
    )?;
    transaction.execute(
        "DELETE FROM current_used WHERE credential = ?1",
        [credential],
    )?;
    Ok(())
}

/// The replaced passwords of a credential, the latest first.
pub(super) fn retired(connection: &Connection, credential: i64) -> Result<Box<[Retired]>, Stop> {
    let mut statement = connection.prepare_cached(
        "SELECT tag, retired_at FROM retired_passwords WHERE credential = ?1 ORDER BY retired_at DESC LIMIT ?2",
    )?;
    let rows = statement.query_map([credential, RETIRED], |row| {
        Ok(Retired {
            tag: row.get(0)?,
            at: row.get(1)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Adds uses of previous passwords. Those from before the rotation that replaced the password were
/// of another one.
pub(super) fn add_previous(
    transaction: &Transaction,
    uses: &[(i64, PasswordUse)],
) -> Result<(), Stop> {
    let since = "coalesce((SELECT since FROM kept_overlaps WHERE credential = key), rotated_at)";
    add(transaction, "previous_used", since, uses)
}

/// Adds uses of present passwords. Those from before the last rotation were of another one.
pub(super) fn add_current(
    transaction: &Transaction,
    uses: &[(i64, PasswordUse)],
) -> Result<(), Stop> {
    add(transaction, "current_used", "rotated_at", uses)
}

fn add(
    transaction: &Transaction,
    table: &str,
    since: &str,
    uses: &[(i64, PasswordUse)],
) -> Result<(), Stop> {
    if uses.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(&format!(
        "INSERT INTO {table} AS old (credential, at, address, count)
         SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (
             SELECT 1 FROM credentials WHERE key = ?1 AND ({since} <= ?2 OR {since} > ?5))
         ON CONFLICT (credential) DO UPDATE SET
             address = iif(excluded.at >= old.at OR old.at > ?5, excluded.address, old.address),
             at      = iif(old.at > ?5, excluded.at, max(old.at, excluded.at)),
             count   = old.count + excluded.count"
    ))?;
    let now = now();
    for (credential, used) in uses {
        statement.execute(params![
            credential,
            used.at.min(now),
            used.address,
            i64::try_from(used.count).unwrap_or(i64::MAX),
            now,
        ])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Noted;
    use super::super::tests::{Fixture, named};
    use super::*;

    fn used(at: i64, address: &str, count: u64) -> PasswordUse {
        PasswordUse {
            at,
            address: address.to_owned(),
            count,
        }
    }

    #[test]
    fn the_newest_tags_of_generated_passwords_are_known() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        let retired = || -> Vec<_> {
            let login = store.lookup("smtp_a").unwrap().unwrap();
            login.retired.iter().map(|retired| retired.tag).collect()
        };
        assert!(retired().is_empty());
        store.set_password("smtp_a", "$chosen", None).unwrap();
        assert_eq!(retired(), [1]); // what the fixture's credential begins with
        for tag in 10..22 {
            store.set_password("smtp_a", "$new", Some(tag)).unwrap();
            // Two rotations within a millisecond would be one.
            store.shell("UPDATE retired_passwords SET retired_at = retired_at - 1000");
        }
        assert_eq!(retired(), [20, 19, 18, 17, 16, 15, 14, 13]);
        assert_eq!(store.count("SELECT count(*) FROM retired_passwords"), 8);
    }

    #[test]
    fn uses_of_the_previous_password_add_up_until_the_next_rotation() {
        let store = Fixture::new();
        let key = store.create_credential(named("smtp_a")).unwrap().key;
        let flush = |uses: PasswordUse| {
            let noted = Noted {
                previous: vec![(key, uses)],
                ..Noted::default()
            };
            store.flush(&noted).unwrap();
        };
        let shown = || store.credential("smtp_a").unwrap().previous_used;
        let rotate = || {
            store
                .set_password("smtp_a", "$new", None)
                .unwrap()
                .rotated_at
        };
        flush(used(5, "192.0.2.1", 1));
        assert_eq!(shown(), None, "there is no previous one yet");
        // Some time ago, so that there may be uses since.
        let rotated = rotate().unwrap() - 1_000;
        store.shell("UPDATE credentials SET rotated_at = rotated_at - 1000");
        flush(used(rotated + 2, "192.0.2.2", 2));
        flush(used(rotated + 1, "192.0.2.1", 1));
        assert_eq!(shown(), Some(used(rotated + 2, "192.0.2.2", 3)));
        flush(used(rotated + 3, "192.0.2.3", 1));
        assert_eq!(shown(), Some(used(rotated + 3, "192.0.2.3", 4)));
        store.shell("UPDATE credentials SET rotated_at = 1");
        let again = rotate().unwrap();
        assert_eq!(shown(), None);
        flush(used(again - 1, "192.0.2.1", 1));
        assert_eq!(shown(), None, "that was the one before");
    }
}
