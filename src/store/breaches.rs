//! How often limits and rules refused each credential's mail, or would have. There are a few rows for each credential, as many
//! as there are limits and rules.

use rusqlite::{Transaction, params};

use crate::policy::{Breach, NORMALIZED, OddOctet, Party, action};

use super::error::Stop;
use super::refusals::KEPT;
use super::{Store, StoreError, count, earliest, now};

/// How often something happened, and when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tally {
    /// The first time, in Unix milliseconds.
    pub first_at: i64,
    /// The last time.
    pub at: i64,
    /// How often; in a flush since the one before, in the store all that is known.
    pub count: u64,
}

impl Tally {
    /// It happened once, at this Unix millisecond.
    pub fn once(at: i64) -> Tally {
        Tally {
            first_at: at,
            at,
            count: 1,
        }
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: Tally) {
        self.first_at = self.first_at.min(other.first_at);
        self.at = self.at.max(other.at);
        self.count += other.count;
    }
}

/// What one limit or rule did to the mail of one credential. The names are strings because another version of Gatepost may have
/// written them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Breached {
    /// The stable name of the limit or rule.
    pub reason: String,
    /// Whose it is: `credential` or `organization`.
    pub party: String,
    /// `refused`, `reported` or `normalized`.
    pub action: String,
    /// When, and how often.
    pub tally: Tally,
}

impl Breached {
    /// One that is known here.
    pub fn new(breach: Breach, tally: Tally) -> Breached {
        Breached {
            reason: breach.reason().to_owned(),
            party: breach.party().as_str().to_owned(),
            action: breach.action().to_owned(),
            tally,
        }
    }

    /// Whether the other one only happened at another time.
    pub fn is_like(&self, other: &Breached) -> bool {
        (&self.reason, &self.party, &self.action) == (&other.reason, &other.party, &other.action)
    }

    /// What became of mail that went on all the same, for people; `None` where it was refused.
    pub fn let_through(&self) -> Option<&'static str> {
        match &*self.action {
            NORMALIZED => Some("made clean"),
            other => (other == action(false)).then_some("only reported"),
        }
    }

    /// Whether a message had an octet at which servers disagree where a line ends.
    pub fn is_odd_line_end(&self) -> bool {
        OddOctet::ALL.iter().any(|odd| odd.as_str() == self.reason)
    }

    /// What was wrong, for people.
    pub fn words(&self) -> String {
        let words = Breach::words(&self.reason).unwrap_or(&self.reason);
        match self.party == Party::Organization.as_str() {
            true => format!("{words}, by the limit of its organization"),
            false => words.to_owned(),
        }
    }
}

impl Store {
    /// What limits and rules did to the mail of the credential with this key, the latest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn breaches(&self, credential: i64) -> Result<Vec<Breached>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT reason, party, action, first_at, at, count FROM breaches
                 WHERE credential = ?1 AND at >= ?2 ORDER BY at DESC",
            )?;
            let now = now();
            let rows = statement.query_map(params![credential, now - KEPT], |row| {
                Ok(Breached {
                    reason: row.get(0)?,
                    party: row.get(1)?,
                    action: row.get(2)?,
                    tally: Tally {
                        first_at: row.get::<_, i64>(3)?.min(now),
                        at: row.get::<_, i64>(4)?.min(now),
                        count: count(row, 5)?,
                    },
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// Adds what was counted, by credential key; that of credentials that are gone is dropped. What was over for longer than it is
/// kept begins anew.
pub(super) fn add(
    transaction: &Transaction,
    breaches: &[((i64, Breach), Tally)],
) -> Result<(), Stop> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO breaches AS old (credential, reason, party, action, first_at, at, count)
         SELECT key, ?2, ?3, ?4, ?5, ?6, ?7 FROM credentials WHERE key = ?1
         ON CONFLICT (credential, reason, party, action) DO UPDATE SET
             first_at = iif(old.at < ?8, excluded.first_at, min(old.first_at, excluded.first_at)),
             count    = iif(old.at < ?8, excluded.count, old.count + excluded.count),
             at       = iif(old.at > ?9, excluded.at, max(old.at, excluded.at))",
    )?;
    let (now, oldest) = (now(), earliest() - KEPT);
    for ((credential, breach), tally) in breaches {
        statement.execute(params![
            credential,
            breach.reason(),
            breach.party().as_str(),
            breach.action(),
            tally.first_at.min(now),
            tally.at.min(now),
            i64::try_from(tally.count).unwrap_or(i64::MAX),
            oldest,
            now,
        ])?;
    }
    Ok(())
}

/// Removes what is older than refusals are kept, a bounded part of it at a time.
pub(super) fn prune(transaction: &Transaction) -> Result<(), Stop> {
    let mut statement = transaction.prepare_cached(
        "DELETE FROM breaches WHERE (credential, reason, party, action) IN (
             SELECT credential, reason, party, action FROM breaches WHERE at < ?1 LIMIT 1000)",
    )?;
    statement.execute([earliest() - KEPT])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Noted;
    use super::super::tests::{Fixture, named};
    use super::*;
    use crate::policy::{Limit, Rule};

    const DAY: Breach = Breach::Limit {
        of: Party::Organization,
        limit: Limit::MessagesPerDay,
        refused: true,
    };
    const SENDERS: Breach = Breach::Rule {
        rule: Rule::Senders,
        refused: false,
    };

    fn flush(store: &Fixture, breaches: &[((i64, Breach), Tally)]) {
        let noted = Noted {
            breaches: breaches.to_vec(),
            ..Noted::default()
        };
        store.flush(&noted).unwrap();
    }

    #[test]
    fn counts_add_up_and_those_of_the_deleted_are_gone() {
        let store = Fixture::new();
        let key = store.edit().create_credential(named("smtp_a")).unwrap().key;
        let now = now();
        flush(
            &store,
            &[
                ((key, DAY), Tally::once(now - 9)),
                ((key, SENDERS), Tally::once(now - 7)),
                ((key + 1, SENDERS), Tally::once(now)),
            ],
        );
        let more = Tally {
            first_at: now - 5,
            at: now - 1,
            count: 3,
        };
        flush(&store, &[((key, DAY), more)]);
        let told = store.breaches(key).unwrap();
        let tally = Tally {
            first_at: now - 9,
            at: now - 1,
            count: 4,
        };
        let expected = [
            Breached::new(DAY, tally),
            Breached::new(SENDERS, Tally::once(now - 7)),
        ];
        assert_eq!(told, expected);
        assert_eq!(told[0].let_through(), None);
        assert_eq!(told[1].let_through(), Some("only reported"));
        let words = "too many messages in a day, by the limit of its organization";
        assert_eq!(told[0].words(), words);
        assert_eq!(told[1].words(), "a sender that it may not send as");
        store.edit().delete_credential("smtp_a".into()).unwrap();
        assert_eq!(store.count("SELECT count(*) FROM breaches"), 0);
    }

    #[test]
    fn what_is_old_is_not_shown_removed_and_not_added_to() {
        let store = Fixture::new();
        let key = store.edit().create_credential(named("smtp_a")).unwrap().key;
        store.shell(&format!(
            "INSERT INTO breaches (credential, reason, party, action, first_at, at, count)
             VALUES ({key}, 'senders', 'credential', 'reported', 1, 1, 7), ({key}, 'gone', 'credential', 'reported', 1, 1, 7)"
        ));
        assert_eq!(store.breaches(key).unwrap(), []);
        let now = now();
        flush(&store, &[((key, SENDERS), Tally::once(now))]);
        let told = [Breached::new(SENDERS, Tally::once(now))];
        assert_eq!(store.breaches(key).unwrap(), told);
        assert_eq!(store.count("SELECT count(*) FROM breaches"), 1);
    }
}
