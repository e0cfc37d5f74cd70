//! What is noted in memory while clients are served, and written in batches: uses, usage, refusals, what limits
//! and rules did, uses of tokens.

use rusqlite::params;

use crate::policy::Breach;

use super::{
    PasswordUse, RefusedLogin, Store, StoreError, Tally, Usage, beside, breaches, now, overlap,
    refusals, usage,
};

/// The latest login with a credential, and how many there were.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LastUsed {
    /// Unix milliseconds.
    pub at: i64,
    /// The client's IP address.
    pub address: String,
    /// The TLS version, if there was TLS.
    pub tls: Option<String>,
    /// The SASL mechanism.
    pub mechanism: String,
    /// What the client called itself in EHLO: its own words, not to be trusted.
    pub helo: String,
    /// How many uses; in a flush those since the one before, in the store all of them.
    pub count: u64,
}

/// The latest message that the upstream took from a credential's client, and how many it took.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LastMessage {
    /// Unix milliseconds.
    pub at: i64,
    /// How many; in a flush those since the one before, in the store all of them.
    pub count: u64,
}

/// What was noted since the last flush.
#[derive(Clone, Debug, Default)]
pub struct Noted {
    /// Uses by [`super::Login::key`], at most one a credential.
    pub uses: Vec<(i64, LastUsed)>,
    /// Messages by [`super::Login::key`], at most one a credential.
    pub messages: Vec<(i64, LastMessage)>,
    /// Usage by [`super::Login::key`] and hour since 1970.
    pub usage: Vec<((i64, i64), Usage)>,
    /// Uses of admin tokens by [`super::Token::key`].
    pub tokens: Vec<(i64, TokenUse)>,
    /// Uses of previous passwords by [`super::Login::key`], at most one a credential.
    pub previous: Vec<(i64, PasswordUse)>,
    /// Uses of present passwords in an overlap by [`super::Login::key`], at most one a credential.
    pub current: Vec<(i64, PasswordUse)>,
    /// Refused logins.
    pub refusals: Vec<RefusedLogin>,
    /// How many of them, the first, have names that credentials have.
    pub known_refusals: usize,
    /// What limits and rules did, by [`super::Login::key`].
    pub breaches: Vec<((i64, Breach), Tally)>,
}

/// The latest use of an admin token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenUse {
    /// Unix milliseconds.
    pub at: i64,
    /// The client's IP address; none over the unix socket.
    pub address: Option<String>,
}

impl Noted {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many rows it comes to.
    pub fn len(&self) -> usize {
        let overlaps = self.previous.len() + self.current.len();
        let logins = self.uses.len() + overlaps + self.refusals.len();
        logins + self.messages.len() + self.usage.len() + self.tokens.len() + self.breaches.len()
    }
}

impl Store {
    /// Adds what was noted, in one transaction. The newest use describes the credential's latest use, whatever order they
    /// come in, and numbers add up. What concerns credentials that were deleted meanwhile is dropped.
    ///
    /// # Errors
    /// When the store cannot be written now; then nothing of it is stored and the same flush may be tried again.
    pub fn flush(&self, noted: &Noted) -> Result<(), StoreError> {
        if noted.is_empty() {
            return Ok(());
        }
        // In the order of the table, so that each page is touched once.
        let mut uses: Vec<_> = noted.uses.iter().collect();
        uses.sort_unstable_by_key(|(key, _)| *key);
        let mut messages: Vec<_> = noted.messages.iter().collect();
        messages.sort_unstable_by_key(|(key, _)| *key);
        let mut usage = noted.usage.clone();
        usage.sort_unstable_by_key(|(key, _)| *key);
        // Before the rows, so that none bears a label that the next start could not date.
        if !usage.is_empty() {
            beside::write(&self.path, &crate::clock::record()).map_err(|error| StoreError::Io {
                path: beside::record_of(&self.path),
                detail: error.to_string(),
            })?;
        }
        self.write(|transaction| {
            let mut statement = transaction.prepare_cached(UPSERT)?;
            let now = now();
            for (key, used) in uses {
                statement.execute(params![
                    key,
                    used.at.min(now),
                    used.address,
                    used.tls,
                    used.mechanism,
                    used.helo,
                    i64::try_from(used.count).unwrap_or(i64::MAX),
                    now,
                ])?;
            }
            // Behind the logins, which make the rows.
            let mut statement = transaction.prepare_cached(MESSAGES)?;
            for (key, message) in messages {
                let count = i64::try_from(message.count).unwrap_or(i64::MAX);
                statement.execute(params![key, message.at.min(now), count, now])?;
            }
            usage::add(transaction, &usage)?;
            usage::prune(transaction)?;
            overlap::add_previous(transaction, &noted.previous)?;
            overlap::add_current(transaction, &noted.current)?;
            refusals::add(transaction, &noted.refusals)?;
            refusals::prune(transaction)?;
            breaches::add(transaction, &noted.breaches)?;
            breaches::prune(transaction)?;
            let mut statement = transaction.prepare_cached(
                "UPDATE admin_tokens SET last_used_at = ?2, last_used_address = ?3
                 WHERE key = ?1 AND (?2 > coalesce(last_used_at, 0) OR last_used_at > ?4)",
            )?;
            for (key, used) in &noted.tokens {
                statement.execute(params![key, used.at.min(now), used.address, now])?;
            }
            Ok(())
        })
    }
}

/// Every expression after SET sees the row as it was before. A use of the future (after ?8) is
/// replaced: the clock was wrong.
const UPSERT: &str = "
    INSERT INTO last_used AS old (credential, at, address, tls, mechanism, helo, count)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE EXISTS (SELECT 1 FROM credentials WHERE key = ?1)
    ON CONFLICT (credential) DO UPDATE SET
        at        = iif(old.at > ?8, excluded.at, max(old.at, excluded.at)),
        address   = iif(excluded.at >= old.at OR old.at > ?8, excluded.address, old.address),
        tls       = iif(excluded.at >= old.at OR old.at > ?8, excluded.tls, old.tls),
        mechanism = iif(excluded.at >= old.at OR old.at > ?8, excluded.mechanism, old.mechanism),
        helo      = iif(excluded.at >= old.at OR old.at > ?8, excluded.helo, old.helo),
        count     = old.count + excluded.count";

/// As [`UPSERT`], of messages: ?4 is now.
const MESSAGES: &str = "
    UPDATE last_used SET
        message_at = iif(message_at > ?4, ?2, max(coalesce(message_at, ?2), ?2)),
        messages   = messages + ?3
    WHERE credential = ?1";

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, named};
    use super::*;

    fn used(at: i64, address: &str, count: u64) -> LastUsed {
        LastUsed {
            at,
            address: address.into(),
            tls: (at % 2 == 0).then(|| "TLSv1.3".into()),
            mechanism: "PLAIN".into(),
            helo: format!("host-{at}.example"),
            count,
        }
    }

    fn uses(uses: &[(i64, LastUsed)]) -> Noted {
        Noted {
            uses: uses.to_vec(),
            ..Noted::default()
        }
    }

    fn key(store: &Fixture, username: &str) -> i64 {
        store.edit().create_credential(named(username)).unwrap().key
    }

    #[test]
    fn the_newest_use_wins_and_counts_add_up() {
        let store = Fixture::new();
        let key = key(&store, "smtp_a");
        let latest = || store.credential("smtp_a").unwrap().last_used.unwrap();
        store
            .flush(&uses(&[(key, used(20, "192.0.2.1", 3))]))
            .unwrap();
        assert_eq!(latest(), used(20, "192.0.2.1", 3));
        store
            .flush(&uses(&[(key, used(31, "192.0.2.2", 1))]))
            .unwrap();
        assert_eq!(latest(), used(31, "192.0.2.2", 4));
        store
            .flush(&uses(&[(key, used(10, "192.0.2.3", 2))]))
            .unwrap();
        assert_eq!(latest(), used(31, "192.0.2.2", 6));
    }

    #[test]
    fn the_newest_message_wins_and_counts_add_up() {
        let store = Fixture::new();
        let key = key(&store, "smtp_a");
        let send = |at, count| {
            let messages = vec![(key, LastMessage { at, count })];
            let noted = Noted {
                messages,
                ..Noted::default()
            };
            store.flush(&noted).unwrap();
        };
        let latest = || {
            let shown = store.credential("smtp_a").unwrap();
            let message = shown
                .last_message
                .map(|message| (message.at, message.count));
            (message, shown.latest_use())
        };
        store
            .flush(&uses(&[(key, used(20, "192.0.2.1", 3))]))
            .unwrap();
        assert_eq!(latest(), (None, Some(20)));
        send(10, 1);
        assert_eq!(latest(), (Some((10, 1)), Some(20)));
        send(40, 2);
        send(30, 4);
        assert_eq!(latest(), (Some((40, 7)), Some(40)));
        // A clock was ahead when this was written.
        store.shell("UPDATE last_used SET message_at = 4102444800000");
        assert!(latest().1.unwrap() <= now());
        send(50, 1);
        assert_eq!(latest(), (Some((50, 8)), Some(50)));
    }

    #[test]
    fn uses_of_deleted_credentials_are_dropped_and_the_others_kept() {
        let store = Fixture::new();
        let (gone, there) = (key(&store, "smtp_gone"), key(&store, "smtp_there"));
        store
            .flush(&uses(&[(gone, used(1, "192.0.2.1", 1))]))
            .unwrap();
        store.edit().delete_credential("smtp_gone".into()).unwrap();
        store
            .flush(&uses(&[
                (there, used(2, "192.0.2.2", 1)),
                (gone, used(2, "192.0.2.1", 1)),
            ]))
            .unwrap();
        assert!(store.credential("smtp_there").unwrap().last_used.is_some());
        assert_eq!(store.count("SELECT count(*) FROM last_used"), 1);
    }

    #[test]
    fn flushing_moves_neither_epoch_nor_version_nor_what_poll_sees() {
        let store = Fixture::new();
        let key = key(&store, "smtp_a");
        let before = (store.epoch(), store.lookup("smtp_a").unwrap());
        store
            .flush(&uses(&[(key, used(1, "192.0.2.1", 1))]))
            .unwrap();
        assert!(!store.poll().unwrap());
        assert_eq!((store.epoch(), store.lookup("smtp_a").unwrap()), before);
    }
}
