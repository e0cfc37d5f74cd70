//! Credentials as an administrator sees them; [`edit`] is how they change.

mod edit;
mod import;
mod list;

use std::fmt;
use std::str::FromStr;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

pub use self::edit::{CredentialEdit, NewCredential, NewPassword, Rotated, Wanted};
pub use self::import::Imported;
pub use self::list::{CredentialColumn, CredentialOrder};

use crate::clock::steady_ms;
use crate::policy::{Limits, Rules};

use super::error::Stop;
use super::{Kind, LastMessage, LastUsed, PasswordUse, Store, StoreError, count, overlap, policy};

/// A credential, without its password's hash.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Credential {
    /// The row, which uses are noted under. Internal, like [`super::Login::key`].
    pub key: i64,
    /// UUIDv7, for programs.
    pub id: Uuid,
    /// What a client logs in with.
    pub username: String,
    /// The slug of its organization.
    pub organization: String,
    /// What people call it.
    pub name: Option<String>,
    /// Whether it may be used.
    pub status: CredentialStatus,
    /// Unix milliseconds, as all times here.
    pub created_at: i64,
    /// When its password was last replaced.
    pub rotated_at: Option<i64>,
    /// Since when it is revoked, if it is and Gatepost did it.
    pub revoked_at: Option<i64>,
    /// From when on it is refused.
    pub expires_at: Option<i64>,
    /// Until when the password before the last rotation is right, too; past times are left out.
    pub previous_until: Option<i64>,
    /// Since when that password is replaced, in an overlap or after it.
    pub previous_since: Option<i64>,
    /// The uses of that password since then, as far as they are flushed.
    pub previous_used: Option<PasswordUse>,
    /// The uses of the present password in an overlap, as far as they are flushed.
    pub current_used: Option<PasswordUse>,
    /// Its own limits.
    pub limits: Limits,
    /// Its rules.
    pub rules: Rules,
    /// Moves with everything that decides logins.
    pub(super) version: i64,
    /// Its logins, as far as they are flushed.
    pub last_used: Option<LastUsed>,
    /// Its messages, as far as they are flushed.
    pub last_message: Option<LastMessage>,
}

/// Whether a credential may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CredentialStatus {
    /// It may.
    Active,
    /// It may not, but may be made active again.
    Revoked,
}

/// Whether a credential is accepted now, and if not, why. Each credential is in one state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CredentialState {
    /// Accepted.
    Active,
    /// Refused because of its expiry alone.
    Expired,
    /// Revoked, whether it has expired or not.
    Revoked,
}

/// Which credentials are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct CredentialFilter<'a> {
    /// Only those of the organization with this slug.
    pub organization: Option<&'a str>,
    /// Only those with this status, expired or not.
    pub status: Option<CredentialStatus>,
    /// Only those in this state.
    pub state: Option<CredentialState>,
    /// Only active ones that expire by this Unix millisecond.
    pub expires_until: Option<i64>,
    /// Only those whose latest use, or creation if they were never used, is before this Unix
    /// millisecond.
    pub unused_since: Option<i64>,
    /// Only those with this in their name or username, whatever the case, accents and width of
    /// letters.
    pub text: Option<&'a str>,
}

impl Credential {
    /// When it was used last: its latest login or message.
    pub fn latest_use(&self) -> Option<i64> {
        let login = self.last_used.as_ref().map(|used| used.at);
        login.max(self.last_message.map(|message| message.at))
    }

    /// A short text that changes with everything that can be edited.
    pub fn revision(&self) -> String {
        let name = self.name.as_deref();
        super::revision(&[&self.id.to_string(), &self.version.to_string()], name)
    }

    /// Whether every login is refused at this Unix millisecond because of the expiry.
    pub fn is_expired(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

impl Store {
    /// The credential with this username, or one of which more is known.
    ///
    /// # Errors
    /// There is none, it has changed, or the store cannot be read.
    pub fn credential<'a>(&self, wanted: impl Into<Wanted<'a>>) -> Result<Credential, StoreError> {
        self.read(|connection| wanted.into().find(connection))
    }
}

impl CredentialFilter<'_> {
    /// Whether a credential of a list still passes with its unwritten uses and its unwritten
    /// revocation, of which the store does not know. Organization and text do not change so.
    pub fn still_passes(&self, credential: &Credential) -> bool {
        let used = credential.latest_use();
        let is_unused = |since| used.is_none_or(|used| used < since);
        self.unused_since.is_none_or(is_unused)
            && self.has_state(credential.status, credential.expires_at)
    }

    fn has_state(&self, status: CredentialStatus, expires_at: Option<i64>) -> bool {
        let state = CredentialState::of(status, expires_at, super::now());
        let is_soon =
            |until| state == CredentialState::Active && expires_at.is_some_and(|end| end <= until);
        self.status.is_none_or(|wanted| wanted == status)
            && self.state.is_none_or(|wanted| wanted == state)
            && self.expires_until.is_none_or(is_soon)
    }
}

const SELECT: &str = "
    SELECT c.id, c.username, o.slug, c.name, c.status, c.created_at, c.rotated_at, c.revoked_at, c.expires_at,
           u.at, u.address, u.tls, u.mechanism, u.helo, u.count, c.key, c.version, c.previous_until,
           p.at, p.address, p.count, c.limits, c.rules, coalesce(k.since, c.rotated_at), n.at, n.address, n.count,
           u.latest, u.message_at, u.messages
    FROM credentials c
    JOIN organizations o ON o.key = c.organization
    LEFT JOIN last_used u ON u.credential = c.key
    LEFT JOIN previous_used p ON p.credential = c.key
    LEFT JOIN current_used n ON n.credential = c.key
    LEFT JOIN kept_overlaps k ON k.credential = c.key";

pub(super) fn find(connection: &Connection, username: &str) -> Result<Credential, Stop> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE c.username = ?1"))?;
    let found = statement.query_row([username], credential).optional()?;
    found.ok_or_else(|| StoreError::not_found(Kind::Credential, username).into())
}

/// The credential with this username, if one of the organization with this slug has it.
pub(super) fn find_in(
    connection: &Connection,
    slug: &str,
    username: &str,
) -> Result<Option<Credential>, Stop> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE c.username = ?1"))?;
    let found = statement.query_row([username], credential).optional()?;
    Ok(found.filter(|found| found.organization == slug))
}

/// All credentials of the organization with this slug.
pub(super) fn of_organization(
    connection: &Connection,
    slug: &str,
) -> Result<Vec<Credential>, Stop> {
    let mut statement =
        connection.prepare(&format!("{SELECT} WHERE o.slug = ?1 ORDER BY c.key"))?;
    let rows = statement.query_map([slug], credential)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Reads a row of [`SELECT`].
fn credential(row: &Row) -> rusqlite::Result<Credential> {
    let now = super::now();
    let last_used = match row.get::<_, Option<i64>>(9)? {
        None => None,
        Some(at) => Some(LastUsed {
            at: at.min(now),
            address: row.get(10)?,
            tls: row.get(11)?,
            mechanism: row.get(12)?,
            helo: row.get(13)?,
            count: count(row, 14)?,
        }),
    };
    let password_use = |first: usize| {
        Ok::<_, rusqlite::Error>(match row.get::<_, Option<i64>>(first)? {
            None => None,
            Some(at) => Some(PasswordUse {
                at: at.min(now),
                address: row.get(first + 1)?,
                count: count(row, first + 2)?,
            }),
        })
    };
    let previous_since = row.get(23)?;
    Ok(Credential {
        id: id(row.get_ref(0)?)?,
        username: row.get(1)?,
        organization: row.get(2)?,
        name: row.get(3)?,
        status: row.get(4)?,
        created_at: row.get(5)?,
        rotated_at: row.get(6)?,
        revoked_at: row.get(7)?,
        expires_at: row.get(8)?,
        key: row.get(15)?,
        version: row.get(16)?,
        previous_until: match row.get::<_, Option<i64>>(17)? {
            Some(until) if overlap::end(until, previous_since) > steady_ms() => Some(until),
            _ => None,
        },
        previous_since,
        previous_used: password_use(18)?,
        current_used: password_use(24)?,
        limits: policy::read(row, 21)?,
        rules: policy::read(row, 22)?,
        last_used,
        last_message: match row.get::<_, Option<i64>>(28)? {
            None => None,
            Some(at) => Some(LastMessage {
                at: at.min(now),
                count: count(row, 29)?,
            }),
        },
    })
}

pub(super) fn id(value: ValueRef) -> FromSqlResult<Uuid> {
    Uuid::parse_str(value.as_str()?).map_err(FromSqlError::other)
}

/// A broken UNIQUE constraint means that the name is taken; anything else stays what it is.
pub(super) fn taken(error: rusqlite::Error, kind: Kind, name: &str) -> Stop {
    match error.sqlite_error() {
        Some(code) if code.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE => {
            StoreError::already_exists(kind, name).into()
        }
        _ => error.into(),
    }
}

impl CredentialState {
    /// Every state.
    pub const ALL: [CredentialState; 3] = [
        CredentialState::Active,
        CredentialState::Expired,
        CredentialState::Revoked,
    ];

    /// As people write and read it.
    pub fn as_str(self) -> &'static str {
        match self {
            CredentialState::Active => "active",
            CredentialState::Expired => "expired",
            CredentialState::Revoked => "revoked",
        }
    }

    fn of(status: CredentialStatus, expires_at: Option<i64>, now: i64) -> CredentialState {
        match status {
            CredentialStatus::Revoked => CredentialState::Revoked,
            CredentialStatus::Active if expires_at.is_some_and(|end| end <= now) => {
                CredentialState::Expired
            }
            CredentialStatus::Active => CredentialState::Active,
        }
    }

    /// The condition for a row of credentials `c`; `?4` is now.
    fn sql(self) -> &'static str {
        match self {
            CredentialState::Active => {
                "c.status = 'active' AND (c.expires_at IS NULL OR c.expires_at > ?4)"
            }
            CredentialState::Expired => "c.status = 'active' AND c.expires_at <= ?4",
            CredentialState::Revoked => "c.status = 'revoked'",
        }
    }
}

impl FromStr for CredentialState {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<CredentialState, &'static str> {
        let mut all = CredentialState::ALL.into_iter();
        all.find(|state| state.as_str() == text)
            .ok_or("write active, expired or revoked")
    }
}

impl CredentialStatus {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            CredentialStatus::Active => "active",
            CredentialStatus::Revoked => "revoked",
        }
    }
}

impl fmt::Display for CredentialStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromSql for CredentialStatus {
    fn column_result(value: ValueRef) -> FromSqlResult<CredentialStatus> {
        match value.as_str()? {
            "active" => Ok(CredentialStatus::Active),
            "revoked" => Ok(CredentialStatus::Revoked),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

impl ToSql for CredentialStatus {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, named};
    use super::super::{LastUsed, Made, Noted, Once, Overlap, Page};
    use super::*;

    #[test]
    fn a_new_credential_is_active_and_was_never_used() {
        let store = Fixture::new();
        let new = NewCredential {
            name: Some("Printer"),
            ..named("smtp_a")
        };
        let made = store.create_credential(new).unwrap();
        assert_eq!(made.status, CredentialStatus::Active);
        assert_eq!(made.name.as_deref(), Some("Printer"));
        assert_eq!(
            (made.rotated_at, made.revoked_at, made.last_used.as_ref()),
            (None, None, None)
        );
        assert_eq!(made.id.get_version_num(), 7);
        assert_eq!(store.credential("smtp_a").unwrap(), made);
    }

    #[test]
    fn a_username_is_taken_only_once() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        let error = store.create_credential(named("smtp_a")).unwrap_err();
        assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error}");
    }

    #[test]
    fn a_credential_needs_an_organization() {
        let store = Fixture::new();
        let error = store
            .create_credential(NewCredential {
                organization: "acme",
                ..named("smtp_a")
            })
            .unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::NotFound {
                    kind: Kind::Organization,
                    ..
                }
            ),
            "{error}"
        );
        assert!(store.credentials(None).unwrap().is_empty());
    }

    #[test]
    fn the_list_is_in_order_and_can_be_narrowed() {
        let store = Fixture::new();
        store.create_organization("acme", None).unwrap();
        store.create_credential(named("smtp_z")).unwrap();
        let new = NewCredential {
            organization: "acme",
            ..named("smtp_m")
        };
        store.create_credential(new).unwrap();
        store.create_credential(named("smtp_a")).unwrap();
        let usernames = |organization| -> Vec<String> {
            let list = store.credentials(organization).unwrap();
            list.into_iter()
                .map(|credential| credential.username)
                .collect()
        };
        assert_eq!(usernames(None), ["smtp_z", "smtp_m", "smtp_a"]);
        assert_eq!(usernames(Some("acme")), ["smtp_m"]);
        assert!(store.credentials(Some("nobody")).is_err());
    }

    #[test]
    fn rotating_replaces_hash_and_tag_and_keeps_the_status() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        store
            .set_status("smtp_a", CredentialStatus::Revoked)
            .unwrap();
        let rotated = store.set_password("smtp_a", "$new", Some(7)).unwrap();
        assert_eq!(rotated.status, CredentialStatus::Revoked);
        assert!(rotated.rotated_at.is_some());
        let login = store.lookup("smtp_a").unwrap().unwrap();
        assert_eq!((login.password_hash.as_str(), login.tag), ("$new", Some(7)));
    }

    #[test]
    fn revoking_twice_keeps_the_first_time_and_enabling_forgets_it() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        let first = store
            .set_status("smtp_a", CredentialStatus::Revoked)
            .unwrap();
        assert!(first.revoked_at.is_some());
        store.shell("UPDATE credentials SET revoked_at = 42");
        let again = store
            .set_status("smtp_a", CredentialStatus::Revoked)
            .unwrap();
        assert_eq!(again.revoked_at, Some(42));
        let enabled = store
            .set_status("smtp_a", CredentialStatus::Active)
            .unwrap();
        assert_eq!(
            (enabled.status, enabled.revoked_at),
            (CredentialStatus::Active, None)
        );
    }

    #[test]
    fn renaming_moves_neither_version_nor_epoch() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        let before = (store.lookup("smtp_a").unwrap(), store.epoch());
        let renamed = store.rename_credential("smtp_a", Some("Scanner")).unwrap();
        assert_eq!(renamed.name.as_deref(), Some("Scanner"));
        assert_eq!((store.lookup("smtp_a").unwrap(), store.epoch()), before);
        assert_eq!(store.rename_credential("smtp_a", None).unwrap().name, None);
    }

    #[test]
    fn a_successor_of_the_same_name_is_somebody_else() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        let first = store.lookup("smtp_a").unwrap().unwrap();
        store.delete_credential("smtp_a").unwrap();
        assert_eq!(store.lookup("smtp_a").unwrap(), None);
        store.create_credential(named("smtp_a")).unwrap();
        assert_ne!(store.lookup("smtp_a").unwrap().unwrap().key, first.key);
    }

    #[test]
    fn what_is_not_there_cannot_be_changed() {
        let store = Fixture::new();
        let outcomes = [
            store.credential("smtp_x").map(drop),
            store.set_password("smtp_x", "$new", None).map(drop),
            store
                .set_status("smtp_x", CredentialStatus::Revoked)
                .map(drop),
            store.rename_credential("smtp_x", None).map(drop),
            store.delete_credential("smtp_x"),
        ];
        for outcome in outcomes {
            assert!(
                matches!(outcome, Err(StoreError::NotFound { .. })),
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn the_list_can_be_narrowed_to_status_text_and_disuse_and_comes_in_pages() {
        let store = Fixture::new();
        for (username, name) in [
            ("smtp_a", "Printer"),
            ("smtp_b", "printer 2"),
            ("smtp_c", "100%"),
        ] {
            let new = NewCredential {
                name: Some(name),
                ..named(username)
            };
            store.create_credential(new).unwrap();
        }
        store
            .set_status("smtp_b", CredentialStatus::Revoked)
            .unwrap();
        let list = |filter, after, limit| {
            let found = Store::credentials(&store, filter, Page { after, limit }).unwrap();
            let names: Vec<_> = found
                .rows
                .into_iter()
                .map(|credential| credential.username)
                .collect();
            (names.join(" "), found.next)
        };
        let all = CredentialFilter::default();
        let (first, next) = list(all, None, 2);
        assert_eq!((first.as_str(), next.is_some()), ("smtp_a smtp_b", true));
        assert_eq!(list(all, next, 2), ("smtp_c".into(), None));
        let by = |filter| list(filter, None, 10).0;
        let text = |text| {
            by(CredentialFilter {
                text: Some(text),
                ..all
            })
        };
        assert_eq!(text("PRINTER"), "smtp_a smtp_b");
        assert_eq!(text("_c"), "smtp_c");
        assert_eq!(text("%"), "smtp_c");
        let status = Some(CredentialStatus::Revoked);
        assert_eq!(by(CredentialFilter { status, ..all }), "smtp_b");
        store.shell("UPDATE credentials SET created_at = 1000");
        let key = store.credential("smtp_a").unwrap().key;
        let used = LastUsed {
            at: 2_000,
            address: "192.0.2.1".into(),
            tls: None,
            mechanism: "PLAIN".into(),
            helo: "c".into(),
            count: 1,
        };
        let noted = Noted {
            uses: vec![(key, used)],
            ..Noted::default()
        };
        store.flush(&noted).unwrap();
        let unused = |since| {
            by(CredentialFilter {
                unused_since: Some(since),
                ..all
            })
        };
        assert_eq!(unused(1_000), "");
        assert_eq!(unused(2_000), "smtp_b smtp_c");
        assert_eq!(unused(2_001), "smtp_a smtp_b smtp_c");
    }

    #[test]
    fn a_change_meant_for_another_state_or_organization_is_refused() {
        let store = Fixture::new();
        store.create_organization("acme", None).unwrap();
        let first = store.create_credential(named("smtp_a")).unwrap();
        let known = [first.revision()];
        let wanted = Wanted {
            username: "smtp_a",
            organization: Some("default"),
            revisions: Some(&known),
        };
        let rename = |wanted, name| {
            let edit = CredentialEdit {
                name: Some(Some(name)),
                ..CredentialEdit::default()
            };
            store.edit().edit_credential(wanted, edit)
        };
        let second = rename(wanted, "Printer").unwrap();
        assert_ne!(second.revision(), first.revision());
        assert!(matches!(
            rename(wanted, "Scanner"),
            Err(StoreError::Changed { .. })
        ));
        assert!(matches!(
            store.edit().delete_credential(wanted),
            Err(StoreError::Changed { .. })
        ));
        let elsewhere = Wanted {
            organization: Some("acme"),
            ..Wanted::from("smtp_a")
        };
        assert!(matches!(
            rename(elsewhere, "Scanner"),
            Err(StoreError::NotFound { .. })
        ));
        assert_eq!(store.credential("smtp_a").unwrap(), second);
    }

    #[test]
    fn a_request_is_carried_out_once_a_key_and_actor() {
        let store = Fixture::new();
        let create = |username, key: Option<&str>| {
            let once = key.map(Once::from);
            store
                .edit()
                .once(once.as_ref())
                .create_credential(named(username))
        };
        let made = create("smtp_a", Some("k")).unwrap();
        let error = create("smtp_b", Some("k")).unwrap_err();
        let repeated = |error| match error {
            StoreError::Repeated { made, found } => (made, found),
            error => panic!("{error}"),
        };
        let is_there = Made::Credential {
            organization: "default".to_owned(),
            username: "smtp_a".to_owned(),
        };
        assert_eq!(repeated(error), (made.id.to_string(), Some(is_there)));
        create("smtp_b", Some("other")).unwrap();
        store.edit().delete_credential("smtp_b".into()).unwrap();
        let error = create("smtp_b", Some("other")).unwrap_err();
        assert_eq!(repeated(error).1, None);
        create("smtp_c", None).unwrap();
        let another = Once {
            request: [1; 32],
            ..Once::from("k")
        };
        let editor = store.edit().once(Some(&another));
        for reused in [
            editor.require_first(),
            editor.create_credential(named("smtp_d")).map(drop),
        ] {
            assert!(matches!(reused, Err(StoreError::KeyReused)), "{reused:?}");
        }
        let other = super::super::Actor::cli("root");
        store
            .by(&other)
            .once(Some(&"k".into()))
            .create_credential(named("smtp_d"))
            .unwrap();
        assert!(create("smtp_a", Some("new")).is_err());
        create("smtp_e", Some("new")).expect("a failed request may be made again");
        store.shell("UPDATE idempotency_keys SET at = 0");
        create("smtp_f", Some("k")).unwrap();
    }

    #[test]
    fn an_overlap_keeps_the_password_before_and_can_be_ended() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        let until = super::super::now() + 60_000;
        let rotate = |overlap| {
            let password = NewPassword {
                hash: "$new",
                tag: Some(2),
                overlap,
            };
            store
                .edit()
                .set_password("smtp_a".into(), password)
                .unwrap()
                .credential
        };
        let previous = || store.lookup("smtp_a").unwrap().unwrap().previous;
        assert_eq!(rotate(Overlap::Until(until)).previous_until, Some(until));
        let kept = previous().unwrap();
        assert_eq!(
            (kept.password_hash.as_str(), kept.tag, kept.until),
            ("$hash", Some(1), until)
        );
        let end = CredentialEdit {
            end_overlap: true,
            ..CredentialEdit::default()
        };
        let ended = store.edit().edit_credential("smtp_a".into(), end).unwrap();
        assert_eq!((ended.previous_until, previous()), (None, None));
        rotate(Overlap::Until(until));
        assert_eq!(rotate(Overlap::Nothing).previous_until, None);
        assert_eq!(previous(), None);
    }

    #[test]
    fn the_audit_log_tells_what_changed_and_nothing_secret() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        store
            .set_status("smtp_a", CredentialStatus::Revoked)
            .unwrap();
        store
            .set_status("smtp_a", CredentialStatus::Revoked)
            .unwrap();
        store.set_password("smtp_a", "$secret", Some(77)).unwrap();
        let log = store
            .audit(super::super::AuditFilter::default(), Page::ALL)
            .unwrap()
            .rows;
        let actions: Vec<_> = log.iter().map(|record| record.action.as_str()).collect();
        assert_eq!(
            actions,
            [
                "credential.rotate",
                "credential.revoke",
                "credential.create"
            ]
        );
        assert_eq!(
            log[1].before,
            Some(serde_json::json!({ "status": "active" }))
        );
        assert_eq!(
            log[1].after,
            Some(serde_json::json!({ "status": "revoked" }))
        );
        let made = log[2].after.as_ref().unwrap();
        assert!(
            made["limits"].is_null() && made["rules"].is_null(),
            "{made}"
        );
        assert!(!format!("{log:?}").contains("$"));
    }
}
