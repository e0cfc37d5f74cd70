//! What the guard keeps over a restart: what networks owe for failed logins, and where credentials were used from.

use rusqlite::{Row, Transaction, params};
use serde_json::Map;

use super::audit::{Event, record};
use super::error::Stop;
use super::{Editor, Store, StoreError, earliest};

/// How many penalties are kept: as many as the daemon has room for.
pub const PENALTIES: usize = 81_920;

/// How many trusted networks are read at start, the newest.
const TRUSTED: usize = 262_144;

/// How many networks of one credential are kept.
const OF_ONE: i64 = 16;

/// How long either is kept after it was last touched, in milliseconds.
const PENALTY_LASTS: i64 = 2 * 24 * 3_600_000;
const TRUST_LASTS: i64 = 30 * 24 * 3_600_000;

/// What a network owes.
#[derive(Clone, Debug, PartialEq)]
pub struct PenaltyRow {
    /// In CIDR.
    pub network: String,
    /// As of `at`.
    pub score: f64,
    /// Unix milliseconds.
    pub at: i64,
    /// How many bans there were in a row.
    pub bans: u8,
    /// Unix milliseconds, if it is or was banned.
    pub banned_until: Option<i64>,
}

/// A network that a credential was used from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TrustedNetwork {
    /// The credential's [`super::Login::key`].
    pub credential: i64,
    /// In CIDR.
    pub network: String,
    /// Unix milliseconds.
    pub at: i64,
}

impl Store {
    /// Every penalty, the latest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn penalties(&self) -> Result<Vec<PenaltyRow>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT network, score, at, bans, banned_until FROM penalties ORDER BY at DESC LIMIT ?1",
            )?;
            let rows = statement.query_map([PENALTIES as i64], penalty)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The networks that credentials which may log in were used from since `since` (Unix milliseconds), the latest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn trusted_networks(&self, since: i64) -> Result<Vec<TrustedNetwork>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT t.credential, t.network, t.at
                 FROM trusted_networks t JOIN credentials c ON c.key = t.credential JOIN organizations o ON o.key = c.organization
                 WHERE t.at > ?1 AND c.status = 'active' AND o.status = 'active'
                 ORDER BY t.at DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(params![since, TRUSTED as i64], |row| {
                Ok(TrustedNetwork {
                    credential: row.get(0)?,
                    network: row.get(1)?,
                    at: row.get(2)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Which of `credentials` are revoked, of a suspended organization, or gone.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn refused_among(&self, credentials: &[i64]) -> Result<Vec<i64>, StoreError> {
        self.read(|connection| {
            let mut may_log_in = connection.prepare_cached(
                "SELECT 1 FROM credentials c JOIN organizations o ON o.key = c.organization
                 WHERE c.key = ?1 AND c.status = 'active' AND o.status = 'active'",
            )?;
            let mut refused = Vec::new();
            for key in credentials {
                if !may_log_in.exists([key])? {
                    refused.push(*key);
                }
            }
            Ok(refused)
        })
    }

    /// Forgets where these credentials were used from.
    ///
    /// # Errors
    /// The store cannot be written now.
    pub fn forget_trusted(&self, credentials: &[i64]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut forget =
                transaction.prepare_cached("DELETE FROM trusted_networks WHERE credential = ?1")?;
            for key in credentials {
                forget.execute([key])?;
            }
            Ok(())
        })
    }

    /// Writes what changed, in one transaction, and forgets what is old.
    ///
    /// # Errors
    /// When the store cannot be written now; then nothing of it is stored.
    pub fn write_penalties(
        &self,
        penalties: &[PenaltyRow],
        trusted: &[TrustedNetwork],
        now: i64,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            put_penalties(transaction, penalties, now)?;
            put_trusted(transaction, trusted, now)
        })
    }
}

impl Editor<'_> {
    /// Removes the penalties of these networks and whatever trust there is in those that `is_wanted`, and records what was
    /// `asked` for, unless there is neither.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn clear_networks(
        &self,
        asked: &str,
        networks: &[String],
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut statement =
                transaction.prepare_cached("DELETE FROM penalties WHERE network = ?1")?;
            for network in networks {
                statement.execute([network])?;
            }
            let trusted = distrust(transaction, is_wanted)?;
            if networks.is_empty() && trusted == 0 {
                return Ok(());
            }
            let after = Map::from_iter([
                ("networks".to_owned(), networks.len().into()),
                ("trusted".to_owned(), trusted.into()),
            ]);
            let event = Event {
                action: "guard.clear",
                object: asked,
                organization: None,
                before: None,
                after: Some(after.into()),
            };
            record(transaction, self.actor, event)
        })
    }
}

/// Removes the trust in these networks. Returns how many they were.
fn distrust(transaction: &Transaction, is_wanted: impl Fn(&str) -> bool) -> Result<usize, Stop> {
    let mut trusted =
        transaction.prepare_cached("SELECT DISTINCT network FROM trusted_networks")?;
    let trusted = trusted.query_map([], |row| row.get(0))?;
    let trusted: Vec<String> = trusted.collect::<Result<_, _>>()?;
    let mut forget =
        transaction.prepare_cached("DELETE FROM trusted_networks WHERE network = ?1")?;
    let mut count = 0;
    for network in trusted.iter().filter(|network| is_wanted(network)) {
        forget.execute([network])?;
        count += 1;
    }
    Ok(count)
}

fn put_penalties(
    transaction: &Transaction,
    penalties: &[PenaltyRow],
    now: i64,
) -> Result<(), Stop> {
    if penalties.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO penalties (network, score, at, bans, banned_until) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for row in penalties {
        statement.execute(params![
            row.network,
            row.score,
            row.at,
            row.bans,
            row.banned_until
        ])?;
    }
    transaction
        .prepare_cached("DELETE FROM penalties WHERE at < ?1")?
        .execute([now.min(earliest()) - PENALTY_LASTS])?;
    // Of the oldest those that are banned no more, should a flood have brought more than there is room for.
    transaction
        .prepare_cached(
            "DELETE FROM penalties WHERE network IN (
                 SELECT network FROM penalties ORDER BY coalesce(banned_until, 0) > ?2, at
                 LIMIT max(0, (SELECT count(*) FROM penalties) - ?1))",
        )?
        .execute(params![PENALTIES as i64, now])?;
    Ok(())
}

fn put_trusted(
    transaction: &Transaction,
    trusted: &[TrustedNetwork],
    now: i64,
) -> Result<(), Stop> {
    if trusted.is_empty() {
        return Ok(());
    }
    let mut put = transaction.prepare_cached(
        "INSERT INTO trusted_networks (credential, network, at)
         SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM credentials WHERE key = ?1)
         ON CONFLICT (credential, network) DO UPDATE SET at = iif(at > ?4, excluded.at, max(at, excluded.at))",
    )?;
    let mut cut = transaction.prepare_cached(
        "DELETE FROM trusted_networks WHERE credential = ?1 AND network IN (
             SELECT network FROM trusted_networks WHERE credential = ?1 ORDER BY at > ?3, at DESC LIMIT -1 OFFSET ?2)",
    )?;
    for row in trusted {
        put.execute(params![row.credential, row.network, row.at.min(now), now])?;
        cut.execute([row.credential, OF_ONE, now])?;
    }
    transaction
        .prepare_cached("DELETE FROM trusted_networks WHERE at < ?1")?
        .execute([now.min(earliest()) - TRUST_LASTS])?;
    Ok(())
}

fn penalty(row: &Row) -> rusqlite::Result<PenaltyRow> {
    Ok(PenaltyRow {
        network: row.get(0)?,
        score: row.get(1)?,
        at: row.get(2)?,
        bans: row.get(3)?,
        banned_until: row.get(4)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, named};
    use super::*;
    use crate::store::{CredentialEdit, CredentialStatus};

    fn owed(network: &str, at: i64, banned_until: Option<i64>) -> PenaltyRow {
        PenaltyRow {
            network: network.into(),
            score: 3.5,
            at,
            bans: 1,
            banned_until,
        }
    }

    fn used(credential: i64, network: u32, at: i64) -> TrustedNetwork {
        TrustedNetwork {
            credential,
            network: format!("192.0.2.{network}/32"),
            at,
        }
    }

    #[test]
    fn penalties_are_kept_until_they_are_old_or_cleared() {
        let store = Fixture::new();
        let (one, other) = (
            owed("192.0.2.1/32", 1_000, Some(9)),
            owed("192.0.2.0/24", 2_000, None),
        );
        store
            .write_penalties(&[one.clone(), other.clone()], &[], 2_000)
            .unwrap();
        assert_eq!(store.penalties().unwrap(), [other.clone(), one]);
        let newer = owed("192.0.2.1/32", 3_000, None);
        store
            .write_penalties(std::slice::from_ref(&newer), &[], 3_000)
            .unwrap();
        assert_eq!(store.penalties().unwrap(), [newer.clone(), other]);
        store
            .edit()
            .clear_networks("192.0.2.7", &["192.0.2.0/24".into()], |_| false)
            .unwrap();
        assert_eq!(store.penalties().unwrap(), [newer]);
        let audit = store
            .audit(
                Default::default(),
                super::super::Page {
                    after: None,
                    limit: 1,
                },
            )
            .unwrap();
        let newest = &audit.rows[0];
        assert_eq!(
            (newest.action.as_str(), newest.object.as_str()),
            ("guard.clear", "192.0.2.7")
        );
        let late = owed("192.0.2.9/32", 2_000 + PENALTY_LASTS + 2_000, None);
        store
            .write_penalties(std::slice::from_ref(&late), &[], late.at)
            .unwrap();
        assert_eq!(store.penalties().unwrap(), [late]);
    }

    #[test]
    fn a_flood_does_not_fill_the_disk_and_pushes_no_ban_out() {
        let store = Fixture::new();
        let banned = owed("198.51.100.7/32", 1, Some(1_000_000));
        let mut flood: Vec<_> = (0..PENALTIES as i64 + 10)
            .map(|number| owed(&format!("{number}"), 10 + number, None))
            .collect();
        flood.push(banned.clone());
        store.write_penalties(&flood, &[], 100_000).unwrap();
        let kept = store.penalties().unwrap();
        assert_eq!(kept.len(), PENALTIES);
        assert!(kept.contains(&banned) && !kept.contains(&flood[0]));
    }

    #[test]
    fn the_newest_sixteen_networks_of_a_credential_are_kept() {
        let store = Fixture::new();
        let key = store.edit().create_credential(named("smtp_a")).unwrap().key;
        let mut rows: Vec<_> = (0..20)
            .map(|at| used(key, at, i64::from(at) + 100))
            .collect();
        rows.push(used(key + 1, 99, 500)); // of nobody
        store.write_penalties(&[], &rows, 200).unwrap();
        let kept = store.trusted_networks(0).unwrap();
        assert_eq!(kept.len(), 16);
        assert_eq!((&kept[0], &kept[15]), (&rows[19], &rows[4]));
        assert_eq!(store.trusted_networks(110).unwrap().len(), 9);
        let again = used(key, 4, 300);
        store
            .write_penalties(&[], std::slice::from_ref(&again), 300)
            .unwrap();
        assert_eq!(store.trusted_networks(0).unwrap()[0], again);
        let late = used(key, 50, 110 + TRUST_LASTS);
        store
            .write_penalties(&[], std::slice::from_ref(&late), late.at)
            .unwrap();
        let oldest = store.trusted_networks(0).unwrap().pop().unwrap();
        assert_eq!(oldest, rows[10]);
        store.edit().delete_credential("smtp_a".into()).unwrap();
        assert_eq!(store.trusted_networks(0).unwrap(), []);
    }

    #[test]
    fn trust_is_read_of_those_who_may_log_in_and_can_be_forgotten() {
        let store = Fixture::new();
        let [active, revoked] = ["smtp_a", "smtp_b"].map(|username| {
            let created = store.edit().create_credential(named(username));
            created.unwrap().key
        });
        let rows = [
            used(active, 1, 100),
            used(active, 2, 99),
            used(revoked, 1, 98),
        ];
        store.write_penalties(&[], &rows, 100).unwrap();
        let edit = |status| CredentialEdit {
            status: Some(status),
            ..CredentialEdit::default()
        };
        let set = |status| {
            let edited = store.edit().edit_credential("smtp_b".into(), edit(status));
            edited.unwrap();
        };
        set(CredentialStatus::Revoked);
        assert_eq!(store.trusted_networks(0).unwrap(), rows[..2]);
        let refused = store.refused_among(&[active, revoked, 99]).unwrap();
        assert_eq!(refused, [revoked, 99]);
        store.forget_trusted(&refused).unwrap();
        set(CredentialStatus::Active);
        assert_eq!(store.trusted_networks(0).unwrap(), rows[..2]);
        assert!(store.refused_among(&[revoked]).unwrap().is_empty());

        let editor = store.edit();
        let is_wanted = |network: &str| network == "192.0.2.1/32";
        editor.clear_networks("192.0.2.1", &[], is_wanted).unwrap();
        assert_eq!(store.trusted_networks(0).unwrap(), rows[1..2]);
        let suspended = crate::store::OrganizationEdit {
            status: Some(crate::store::OrganizationStatus::Suspended),
            ..Default::default()
        };
        store
            .edit()
            .edit_organization("default", None, suspended)
            .unwrap();
        assert_eq!(store.trusted_networks(0).unwrap(), []);
        assert_eq!(store.refused_among(&[active]).unwrap(), [active]);
    }
}
