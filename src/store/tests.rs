//! The store as a whole: two processes, faults of the disk, and what moves the epoch.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;

use super::*;
use crate::clock::{self, driven::Driven};

/// In milliseconds.
const DAY: i64 = 24 * HOUR;

/// A store in a directory of its own.
pub(super) struct Fixture {
    store: Store,
    directory: tempfile::TempDir,
}

impl Store {
    /// Does what an administrator's sqlite3 shell would.
    pub(crate) fn shell(&self, sql: &str) {
        let connection = Connection::open(&self.path).unwrap();
        connection.execute_batch(sql).unwrap();
    }
}

impl Fixture {
    pub(super) fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("gatepost.db")).unwrap();
        Fixture { store, directory }
    }

    pub(super) fn count(&self, sql: &str) -> i64 {
        Connection::open(self.path())
            .unwrap()
            .query_row(sql, [], |row| row.get(0))
            .unwrap()
    }

    /// How SQLite would carry this out.
    pub(super) fn plan(&self, sql: &str) -> String {
        let connection = Connection::open(self.path()).unwrap();
        let mut statement = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap();
        // What its parameters are bound to does not matter.
        let mut rows = statement.raw_query();
        let mut steps = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            steps.push(row.get::<_, String>(3).unwrap());
        }
        steps.join("; ")
    }

    pub(super) fn path(&self) -> PathBuf {
        self.beside("gatepost.db")
    }

    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Closes the store and keeps its files.
    pub(super) fn close(self) -> (PathBuf, tempfile::TempDir) {
        (self.path(), self.directory)
    }

    pub(super) fn edit(&self) -> Editor<'_> {
        static TESTER: LazyLock<Actor> = LazyLock::new(|| Actor::system("tests"));
        self.store.by(&TESTER)
    }
}

/// The changes that most tests make.
impl Fixture {
    pub(super) fn create_credential(&self, new: NewCredential) -> Result<Credential, StoreError> {
        self.edit().create_credential(new)
    }

    pub(super) fn credentials(
        &self,
        organization: Option<&str>,
    ) -> Result<Vec<Credential>, StoreError> {
        let filter = CredentialFilter {
            organization,
            ..CredentialFilter::default()
        };
        Ok(self.store.credentials(filter, Page::ALL)?.rows)
    }

    pub(super) fn set_password(
        &self,
        username: &str,
        hash: &str,
        tag: Option<u32>,
    ) -> Result<Credential, StoreError> {
        let password = NewPassword {
            hash,
            tag,
            overlap: Overlap::Nothing,
        };
        let rotated = self.edit().set_password(username.into(), password)?;
        Ok(rotated.credential)
    }

    pub(super) fn set_status(
        &self,
        username: &str,
        status: CredentialStatus,
    ) -> Result<Credential, StoreError> {
        set_status(self, username, status)
    }

    pub(super) fn rename_credential(
        &self,
        username: &str,
        name: Option<&str>,
    ) -> Result<Credential, StoreError> {
        let edit = CredentialEdit {
            name: Some(name),
            ..CredentialEdit::default()
        };
        self.edit().edit_credential(username.into(), edit)
    }

    pub(super) fn delete_credential(&self, username: &str) -> Result<(), StoreError> {
        self.edit().delete_credential(username.into())
    }

    pub(super) fn create_organization(
        &self,
        slug: &str,
        name: Option<&str>,
    ) -> Result<Organization, StoreError> {
        self.edit().create_organization(slug, name)
    }

    pub(super) fn delete_organization(&self, slug: &str) -> Result<(), StoreError> {
        self.edit().delete_organization(slug, None, false)
    }
}

fn set_status(
    store: &Store,
    username: &str,
    status: CredentialStatus,
) -> Result<Credential, StoreError> {
    let edit = CredentialEdit {
        status: Some(status),
        ..CredentialEdit::default()
    };
    let actor = Actor::system("tests");
    store.by(&actor).edit_credential(username.into(), edit)
}

impl Deref for Fixture {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

pub(super) fn named(username: &str) -> NewCredential<'_> {
    NewCredential {
        username,
        password_hash: "$hash",
        tag: Some(1),
        organization: DEFAULT_ORGANIZATION,
        name: None,
        expires_at: None,
        limits: None,
        rules: None,
    }
}

#[test]
fn the_store_and_what_sqlite_puts_beside_it_are_private() {
    let store = Fixture::new();
    store.create_credential(named("smtp_a")).unwrap();
    for name in ["gatepost.db", "gatepost.db-wal", "gatepost.db-shm"] {
        let metadata = fs::metadata(store.directory.path().join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn the_readers_cannot_write() {
    let store = Fixture::new();
    let attempt = store.read(|connection| Ok(connection.execute("DELETE FROM organizations", [])?));
    assert!(
        matches!(attempt, Err(StoreError::ReadOnly { .. })),
        "{attempt:?}"
    );
}

#[test]
fn every_change_that_decides_logins_moves_the_epoch_before_it_returns() {
    let store = Fixture::new();
    let moved = |what: &str, change: &dyn Fn() -> Result<(), StoreError>| {
        let before = store.epoch();
        change().unwrap();
        assert!(store.epoch() > before, "{what}");
    };
    moved("create", &|| {
        store.create_credential(named("smtp_a")).map(drop)
    });
    moved("rotate", &|| {
        store.set_password("smtp_a", "$new", None).map(drop)
    });
    moved("revoke", &|| {
        store
            .set_status("smtp_a", CredentialStatus::Revoked)
            .map(drop)
    });
    moved("enable", &|| {
        store
            .set_status("smtp_a", CredentialStatus::Active)
            .map(drop)
    });
    moved("delete", &|| store.delete_credential("smtp_a"));
}

#[test]
fn a_poll_sees_the_commits_of_others_once_and_ours_never() {
    let store = Fixture::new();
    let other = Store::open(&store.path()).unwrap();
    assert!(!store.poll().unwrap());
    store.create_credential(named("smtp_a")).unwrap();
    assert!(!store.poll().unwrap());

    set_status(&other, "smtp_a", CredentialStatus::Revoked).unwrap();
    let epoch = store.epoch();
    assert!(store.poll().unwrap());
    assert!(store.epoch() > epoch);
    assert!(!store.poll().unwrap());
    assert_eq!(
        store.lookup("smtp_a").unwrap().unwrap().refusal(0),
        Some(Refusal::Revoked)
    );
}

#[test]
fn a_commit_of_another_is_not_missed_when_ours_comes_before_the_poll() {
    let store = Fixture::new();
    store.shell("UPDATE organizations SET status = 'suspended'");
    store.create_credential(named("smtp_a")).unwrap();
    assert!(store.poll().unwrap());
}

#[test]
fn a_busy_writer_moves_no_epoch_and_hides_no_commit_of_another_process() {
    let store = Fixture::new();
    store.create_credential(named("smtp_a")).unwrap();
    store.poll().unwrap();
    let busy = store.writer.get().unwrap();
    for _ in 0..3 {
        assert!(!store.poll().unwrap(), "nothing was committed");
    }
    store.shell("UPDATE credentials SET status = 'revoked'");
    assert!(store.poll().unwrap());
    assert!(!store.poll().unwrap(), "one commit moves it once");
    drop(busy);
    assert!(store.poll().unwrap(), "the writer has not seen that commit");
    assert!(!store.poll().unwrap());
    // A commit of our own, looked at while the writer is busy again, is not told from one of
    // another process.
    store.create_credential(named("smtp_b")).unwrap();
    let busy = store.writer.get().unwrap();
    assert!(store.poll().unwrap() && !store.poll().unwrap());
    drop(busy);
    assert!(!store.poll().unwrap());
}

#[test]
fn a_change_from_the_shell_moves_the_version_but_a_new_name_does_not() {
    let store = Fixture::new();
    store.create_organization("acme", None).unwrap();
    store.create_credential(named("smtp_a")).unwrap();
    let version = || store.count("SELECT version FROM credentials");
    let changes = [
        "status = 'revoked'",
        "password_hash = '$other'",
        "tag = NULL",
        "expires_at = 1",
        "organization = (SELECT key FROM organizations WHERE slug = 'acme')",
        "username = 'smtp_b'",
        "version = 1, status = 'active'",
    ];
    for (expected, change) in (2..).zip(changes) {
        store.shell(&format!("UPDATE credentials SET {change}"));
        assert_eq!(version(), expected, "{change}");
    }
    let before = version();
    store.shell("UPDATE credentials SET name = 'Printer'");
    assert_eq!(version(), before);
}

#[test]
fn a_lookup_and_a_listing_use_an_index() {
    let store = Fixture::new();
    let uses_index = |filter: &str| {
        let sql = format!("EXPLAIN QUERY PLAN SELECT * FROM credentials WHERE {filter}");
        let plan = |connection: &Connection| {
            connection.query_row(&sql, [], |row| row.get::<_, String>("detail"))
        };
        store
            .read(|connection| Ok(plan(connection)?))
            .unwrap()
            .starts_with("SEARCH")
    };
    assert!(uses_index("username = 'x'"));
    assert!(uses_index("organization = 1"));
    assert!(!uses_index("name = 'x'"));
}

#[test]
fn a_tag_belongs_to_one_password_and_one_store() {
    let (store, other) = (Fixture::new(), Fixture::new());
    assert_eq!(store.tag(b"sk_a"), store.tag(b"sk_a"));
    assert_ne!(store.tag(b"sk_a"), store.tag(b"sk_b"));
    assert_ne!(store.tag(b"sk_a"), other.tag(b"sk_a"));
    assert_eq!(
        store.tag(b"sk_a"),
        Store::open(&store.path()).unwrap().tag(b"sk_a")
    );
}

#[test]
fn a_full_disk_is_said_loses_nothing_and_reading_goes_on() {
    let store = Fixture::new();
    store.create_credential(named("smtp_a")).unwrap();
    let limit = |pages: i64| {
        let writer = store.writer.get().unwrap();
        writer.pragma_update(None, "max_page_count", pages).unwrap();
    };
    limit(1); // SQLite takes the present size instead
    let long = "x".repeat(100_000);
    let error = store
        .create_credential(NewCredential {
            password_hash: &long,
            ..named("smtp_b")
        })
        .unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert_eq!(error.fault(), Fault::Machine);
    assert_eq!(store.credentials(None).unwrap().len(), 1);
    limit(1_000_000);
    store.create_credential(named("smtp_b")).unwrap();
}

#[test]
fn a_lock_held_by_another_is_waited_for() {
    let store = Fixture::new();
    let other = Connection::open(store.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        let change = scope.spawn(|| store.create_credential(named("smtp_a")));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!change.is_finished());
        assert_eq!(
            store.lookup("smtp_a").unwrap(),
            None,
            "reading does not wait"
        );
        other.execute_batch("COMMIT").unwrap();
        change.join().unwrap().unwrap();
    });
}

/// Runs `work` as somebody for whom file modes count, which for root they do not. SQLite and r2d2's threads inherit it.
fn without_privileges(work: impl FnOnce() + Send) {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let drop_and_work = || {
        let ignoring_modes = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(ignoring_modes);
        sets.permitted.remove(ignoring_modes);
        set_capabilities(None, sets).unwrap();
        work();
    };
    std::thread::scope(|scope| scope.spawn(drop_and_work).join().unwrap());
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_read_only_file_is_said_and_left_as_it_is() {
    let store = Fixture::new();
    let copy = store.directory.path().join("copy.db");
    store.shell(&format!("VACUUM INTO '{}'", copy.display()));
    set_mode(&copy, 0o400);
    let before = fs::read(&copy).unwrap();
    without_privileges(|| {
        for error in [
            Store::open(&copy).unwrap_err(),
            Store::check(&copy).unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
        }
    });
    assert_eq!(fs::read(&copy).unwrap(), before);
}

#[test]
fn an_unreadable_file_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gatepost.db");
    fs::write(&path, "").unwrap();
    set_mode(&path, 0);
    without_privileges(|| {
        for error in [
            Store::open(&path).unwrap_err(),
            Store::check(&path).unwrap_err(),
        ] {
            assert!(
                matches!(&error, StoreError::PermissionDenied { path: p } if *p == path),
                "{error}"
            );
        }
    });
}

#[test]
fn a_read_only_directory_is_said_with_and_without_a_store_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gatepost.db");
    let refusals = || {
        let errors = std::sync::Mutex::new(Vec::new());
        set_mode(directory.path(), 0o500);
        without_privileges(|| {
            let both = [
                Store::open(&path).unwrap_err(),
                Store::check(&path).unwrap_err(),
            ];
            errors.lock().unwrap().extend(both);
        });
        set_mode(directory.path(), 0o700);
        errors.into_inner().unwrap()
    };
    for error in refusals() {
        let StoreError::PermissionDenied { path } = error else {
            panic!("{error}")
        };
        assert_eq!(path, directory.path());
    }
    let store = Fixture::new();
    store.shell(&format!("VACUUM INTO '{}'", path.display()));
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "journal_mode", "wal")
        .unwrap();
    for error in refusals() {
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    }
}

#[test]
fn a_missing_directory_is_said_and_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing/gatepost.db");
    for error in [
        Store::open(&path).unwrap_err(),
        Store::check(&path).unwrap_err(),
    ] {
        assert!(
            matches!(error, StoreError::MissingDirectory { .. }),
            "{error}"
        );
        assert_eq!(error.fault(), Fault::Configuration);
    }
    assert!(!directory.path().join("missing").exists());
}

#[test]
fn a_directory_in_its_place_is_said() {
    let directory = tempfile::tempdir().unwrap();
    for error in [
        Store::open(directory.path()).unwrap_err(),
        Store::check(directory.path()).unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::NotAFile { .. }), "{error}");
    }
}

#[test]
fn a_damaged_row_is_corruption_and_not_a_login() {
    let store = Fixture::new();
    store.create_credential(named("smtp_a")).unwrap();
    store.shell("PRAGMA ignore_check_constraints = ON; UPDATE credentials SET status = 'maybe'");
    let error = store.lookup("smtp_a").unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[test]
fn a_check_reports_a_store_and_its_absence_without_making_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gatepost.db");
    assert_eq!(Store::check(&path).unwrap(), StoreReport::Missing);
    assert!(!path.exists());
    fs::write(&path, "").unwrap();
    assert_eq!(Store::check(&path).unwrap(), StoreReport::Missing);
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);

    let store = Store::open(&path).unwrap();
    let actor = Actor::system("tests");
    store.by(&actor).create_credential(named("smtp_a")).unwrap();
    let StoreReport::Sound {
        schema,
        credentials,
        bytes,
    } = Store::check(&path).unwrap()
    else {
        panic!("the store is there")
    };
    assert_eq!((schema, credentials), (schema::KNOWN, 1));
    assert!(bytes >= 4096);
}

#[test]
fn a_check_finds_damage() {
    let store = Fixture::new();
    let copy = store.directory.path().join("copy.db");
    store.shell(&format!("VACUUM INTO '{}'", copy.display()));
    assert!(matches!(Store::check(&copy), Ok(StoreReport::Sound { .. })));
    let mut bytes = fs::read(&copy).unwrap();
    bytes[4096..].fill(0xa5); // all pages but the one with the schema
    fs::write(&copy, bytes).unwrap();
    let error = Store::check(&copy).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

/// Rows that were written while the clock was ahead: shown as of now, replaced by the next write,
/// and not in the way of new ones.
#[test]
fn rows_of_the_future_are_as_of_now_and_give_way() {
    use crate::policy::{Breach, Rule};

    let clocks = Driven::at(1_800_000_000_000);
    let store = Fixture::new();
    let key = store.edit().create_credential(named("smtp_a")).unwrap().key;
    store.set_password("smtp_a", "$new", None).unwrap();
    let breach = Breach::Rule {
        rule: Rule::Senders,
        refused: true,
    };
    let token = store.edit().create_token(NewToken {
        name: "t",
        hash: &[7; 32],
        scope: &Scope::INSTANCE_ADMIN,
        expires_at: None,
    });
    let token = token.unwrap().key;
    let noted = |address: &str| {
        let at = clocks.wall();
        let used = LastUsed {
            at,
            address: address.to_owned(),
            tls: None,
            mechanism: "PLAIN".to_owned(),
            helo: "c".to_owned(),
            count: 1,
        };
        let refusal = RefusedLogin {
            username: "smtp_a".to_owned(),
            reason: "expired".to_owned(),
            address: "192.0.2.9".to_owned(),
            first_at: at,
            at,
            count: 1,
            retired_at: None,
        };
        let previous = PasswordUse {
            at,
            address: address.to_owned(),
            count: 1,
        };
        let token_use = TokenUse {
            at,
            address: Some(address.to_owned()),
        };
        Noted {
            uses: vec![(key, used)],
            previous: vec![(key, previous)],
            tokens: vec![(token, token_use)],
            refusals: vec![refusal],
            known_refusals: 1,
            breaches: vec![((key, breach), Tally::once(at))],
            ..Noted::default()
        }
    };
    let shown = || {
        let credential = store.credential("smtp_a").unwrap();
        let (used, previous) = (
            credential.last_used.unwrap(),
            credential.previous_used.unwrap(),
        );
        let token = store.token("t").unwrap();
        let addresses = [
            used.address,
            previous.address,
            token.last_used_address.unwrap(),
        ];
        let times = [
            used.at,
            previous.at,
            token.last_used_at.unwrap(),
            store.refusals("smtp_a").unwrap()[0].at,
            store.breaches(key).unwrap()[0].tally.at,
        ];
        (addresses, times)
    };
    clocks.step(30 * DAY);
    store.flush(&noted("192.0.2.1")).unwrap();
    clocks.step(-30 * DAY);
    clocks.pass(1_000);
    assert_eq!(shown().1, [clocks.wall(); 5]);
    store.flush(&noted("192.0.2.2")).unwrap();
    let written = clocks.wall();
    clocks.pass(1_000);
    assert_eq!(shown(), (["192.0.2.2"; 3].map(str::to_owned), [written; 5]));
}

#[test]
fn refusals_of_the_future_do_not_push_out_new_ones() {
    let clocks = Driven::at(1_800_000_000_000);
    let store = Fixture::new();
    store.create_credential(named("smtp_a")).unwrap();
    let refuse = |username: &str, network: &str| {
        let from = |host: usize| RefusedLogin {
            username: username.to_owned(),
            reason: "wrong_password".to_owned(),
            address: format!("{network}.{host}"),
            first_at: clocks.wall(),
            at: clocks.wall(),
            count: 1,
            retired_at: None,
        };
        let refusals = (0..REFUSALS_OF_ONE_REASON).map(from).collect();
        let noted = Noted {
            refusals,
            ..Noted::default()
        };
        store.flush(&noted).unwrap();
    };
    clocks.step(30 * DAY);
    refuse("smtp_a", "192.0.2");
    clocks.step(-30 * DAY);
    refuse("smtp_a", "198.51.100");
    let kept = store.refusals("smtp_a").unwrap();
    assert_eq!(kept.len(), REFUSALS_OF_ONE_REASON);
    assert!(
        kept.iter()
            .all(|refusal| refusal.address.starts_with("198."))
    );
}

#[test]
fn a_clock_that_is_ahead_for_a_moment_deletes_nothing() {
    let clocks = Driven::at(1_800_000_000_000);
    let store = Fixture::new();
    let credential = store.edit().create_credential(named("smtp_a")).unwrap().key;
    let key = Once::from("key");
    let once = |username| {
        let editor = store.edit().once(Some(&key));
        editor.create_credential(named(username)).is_ok()
    };
    assert!(once("smtp_b"));
    let usage = || Noted {
        usage: vec![(
            (credential, clocks.wall() / HOUR),
            Usage {
                messages: 1,
                ..Usage::default()
            },
        )],
        refusals: vec![RefusedLogin {
            username: "smtp_a".to_owned(),
            reason: "expired".to_owned(),
            address: clocks.wall().to_string(),
            first_at: clocks.wall(),
            at: clocks.wall(),
            count: 1,
            retired_at: None,
        }],
        ..Noted::default()
    };
    store.flush(&usage()).unwrap();
    clocks.step(500 * DAY);
    store.flush(&usage()).unwrap();
    assert!(!once("smtp_c"), "the request was made a moment ago");
    clocks.step(-500 * DAY);
    assert_eq!(store.count("SELECT count(*) FROM usage"), 2);
    assert_eq!(store.count("SELECT count(*) FROM refusals"), 2);
    assert!(!once("smtp_c"), "the request was made a moment ago");
}

#[test]
fn a_key_of_the_future_is_forgotten_after_a_day() {
    let clocks = Driven::at(1_800_000_000_000);
    let store = Fixture::new();
    let key = Once::from("key");
    let once = |username| {
        let editor = store.edit().once(Some(&key));
        editor.create_credential(named(username)).is_ok()
    };
    clocks.step(30 * DAY);
    assert!(once("smtp_a"));
    clocks.step(-30 * DAY);
    assert!(!once("smtp_b"));
    clocks.pass(DAY + 1_000);
    assert!(once("smtp_b"));
    // The next process does not know when that was.
    store.shell("UPDATE idempotency_keys SET at = at + 2592000000");
    clocks.restart();
    let store = Store::open(&store.path()).unwrap();
    let once = |username| {
        let actor = Actor::system("tests");
        let editor = store.by(&actor).once(Some(&key));
        editor.create_credential(named(username)).is_ok()
    };
    assert!(!once("smtp_c"));
    clocks.pass(DAY + 1_000);
    assert!(once("smtp_c"));
}

#[test]
fn an_overlap_that_a_rotation_keeps_lasts_as_long_as_was_asked_for_first() {
    for step in [-30 * DAY, -HOUR, HOUR, 30 * DAY] {
        let clocks = Driven::at(1_800_000_000_000);
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        clocks.pass(HOUR);
        let rotate = |hash, length| {
            let password = NewPassword {
                hash,
                tag: None,
                overlap: Overlap::Until(clocks.wall() + length),
            };
            let rotated = store.edit().set_password("smtp_a".into(), password);
            rotated.unwrap().rotation
        };
        let login = || store.lookup("smtp_a").unwrap().unwrap();
        let overlaps = || login().previous.unwrap().until > clock::steady_ms();
        assert_eq!(rotate("$second", HOUR), Rotation::Began);
        clocks.step(step);
        clocks.pass(HOUR / 2);
        let kept = rotate("$third", 3 * HOUR);
        assert_eq!(
            kept,
            Rotation::Kept {
                replaced_used: None
            }
        );
        let (present, previous) = (login().password_hash, login().previous.unwrap());
        assert_eq!((&*present, &*previous.password_hash), ("$third", "$hash"));
        clocks.pass(HOUR / 2 - 1_000);
        assert!(overlaps(), "{step}");
        clocks.pass(2_000);
        assert!(!overlaps(), "{step}");
        assert_eq!(rotate("$fourth", HOUR), Rotation::Began);
        assert_eq!(login().previous.unwrap().password_hash, "$third");
    }
}

#[test]
fn lists_tables_and_counts_agree_on_which_credentials_are_active_and_expire_soon() {
    let clocks = Driven::at(1_800_000_000_000);
    let store = Fixture::new();
    store.create_organization("acme", None).unwrap();
    let now = clocks.wall();
    for (username, organization, end) in [
        ("smtp_past", "default", Some(-1)),
        ("smtp_now", "default", Some(0)),
        ("smtp_day", "default", Some(DAY)),
        ("smtp_week", "acme", Some(7 * DAY)),
        ("smtp_month", "default", Some(30 * DAY)),
        ("smtp_later", "default", Some(30 * DAY + 1)),
        ("smtp_never", "default", None),
        ("smtp_revoked", "default", Some(DAY)),
        ("smtp_both", "default", Some(-1)),
    ] {
        let new = NewCredential {
            organization,
            expires_at: end.map(|end| now + end),
            ..named(username)
        };
        store.create_credential(new).unwrap();
    }
    for username in ["smtp_revoked", "smtp_both"] {
        let revoked = CredentialStatus::Revoked;
        store.set_status(username, revoked).unwrap();
    }
    let found = |filter: CredentialFilter| {
        let list = store.store.credentials(filter, Page::ALL).unwrap().rows;
        let order = CredentialOrder {
            by: CredentialColumn::Created,
            descending: false,
        };
        let table = store.credential_table(filter, order, 0, 10).unwrap();
        assert_eq!(list, table);
        assert!(
            list.iter()
                .all(|credential| filter.still_passes(credential))
        );
        let names = list.iter().map(|credential| &credential.username[5..]);
        names.collect::<Vec<_>>().join(" ")
    };
    let within = |days: i64| CredentialFilter {
        expires_until: Some(now + days * DAY),
        ..CredentialFilter::default()
    };
    let in_state = |state| CredentialFilter {
        state: Some(state),
        ..CredentialFilter::default()
    };
    for (filter, expected) in [
        (
            in_state(CredentialState::Active),
            "day week month later never",
        ),
        (in_state(CredentialState::Expired), "past now"),
        (in_state(CredentialState::Revoked), "revoked both"),
        (within(7), "day week"),
        (within(30), "day week month"),
        (
            CredentialFilter {
                organization: Some("default"),
                ..within(30)
            },
            "day month",
        ),
        (
            CredentialFilter {
                text: Some("ee"),
                ..within(30)
            },
            "week",
        ),
        (
            CredentialFilter {
                unused_since: Some(0),
                ..within(30)
            },
            "",
        ),
        (
            CredentialFilter {
                state: Some(CredentialState::Revoked),
                ..within(30)
            },
            "",
        ),
    ] {
        assert_eq!(found(filter), expected, "{filter:?}");
    }
    let counts = |week, month| Some(Expiring { week, month });
    assert_eq!(store.expiring().ok(), counts(2, 3));
    let both = [("default".to_owned(), 2), ("acme".to_owned(), 1)];
    assert_eq!(store.expiring_in(None, 10).unwrap(), both);
    assert_eq!(store.expiring_in(None, 1).unwrap(), both[..1]);
    assert_eq!(
        store.expiring_in(Some(&["acme".to_owned()]), 10).unwrap(),
        both[1..]
    );
    clocks.pass(DAY + 1);
    assert_eq!(store.expiring().ok(), counts(1, 3));
    assert_eq!(found(in_state(CredentialState::Expired)), "past now day");
}

#[test]
fn an_index_finds_the_credentials_that_expire_soon() {
    let store = Fixture::new();
    let plan = store.plan(
        "SELECT count(*) FROM credentials
         WHERE expires_at > 1 AND expires_at <= 2 AND status = 'active'",
    );
    assert!(
        plan.contains("COVERING INDEX credentials_by_expiry"),
        "{plan}"
    );
}

#[test]
fn an_overlap_lasts_as_long_as_was_asked_for() {
    for step in [-30 * DAY, -HOUR, HOUR, 30 * DAY] {
        let clocks = Driven::at(1_800_000_000_000);
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        clocks.pass(HOUR);
        let password = NewPassword {
            hash: "$new",
            tag: None,
            overlap: Overlap::Until(clocks.wall() + HOUR),
        };
        store
            .edit()
            .set_password("smtp_a".into(), password)
            .unwrap();
        let overlaps = || {
            let login = store.lookup("smtp_a").unwrap().unwrap();
            login.previous.unwrap().until > clock::steady_ms()
        };
        clocks.step(step);
        clocks.pass(HOUR - 1_000);
        assert!(overlaps(), "{step}");
        clocks.pass(2_000);
        assert!(!overlaps(), "{step}");
        clocks.pass(HOUR);
        assert!(!overlaps(), "{step}");
        clocks.step(-step);
        assert!(!overlaps(), "{step}");
    }
}
