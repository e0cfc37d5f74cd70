//! The store: organizations, their credentials and what these did, admin tokens and the audit log, in one SQLite file.
//!
//! Any number of processes use the file at once: the daemon, the command line, an administrator's sqlite3 shell. Everything
//! here blocks; async callers bring a thread. A change that returned `Ok` survives kill -9 and a power cut.

mod actor;
mod audit;
mod backup;
mod batch;
mod beside;
mod breaches;
mod connection;
mod credentials;
mod error;
mod file;
mod flush;
mod lock;
mod login;
mod name;
mod narrowing;
mod organizations;
mod overlap;
mod page;
mod penalties;
mod place;
mod policy;
mod reading;
mod refusals;
mod schema;
mod search;
mod spelling;
mod text;
mod tokens;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use r2d2::{NopErrorHandler, Pool, PooledConnection};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde_json::Value;
use uuid::Uuid;

pub use self::actor::{Actor, ActorKind, Editor, Once};
pub use self::audit::{AuditFilter, AuditMark, AuditRecord, AuditReport, hex};
pub use self::batch::Batch;
pub use self::breaches::{Breached, Tally};
pub use self::credentials::{
    Credential, CredentialColumn, CredentialEdit, CredentialFilter, CredentialOrder,
    CredentialState, CredentialStatus, Imported, NewCredential, NewPassword, Rotated, Wanted,
};
pub use self::error::{Fault, Kind, Made, StoreError};
pub use self::flush::{LastMessage, LastUsed, Noted, TokenUse};
pub use self::lock::{DaemonLock, Holder};
pub use self::login::{Login, Previous, Refusal};
pub use self::name::{
    DEFAULT_ORGANIZATION, check_name, check_slug, check_username, is_invisible, plain, shown,
};
pub use self::narrowing::{Aspect, Effect, Narrowing, NarrowingKey, Object};
pub use self::organizations::{Organization, OrganizationEdit, OrganizationStatus};
pub use self::overlap::{Overlap, PasswordUse, Retired, Rotation};
pub use self::page::{Page, Rows};
pub use self::penalties::{PENALTIES, PenaltyRow, TrustedNetwork};
pub use self::place::{FileId, Placement, Watch};
pub use self::reading::limit_reading;
pub use self::refusals::{
    REFUSALS_OF_ONE, REFUSALS_OF_ONE_REASON, RefusedLogin, UNKNOWN_REFUSALS,
    UNKNOWN_REFUSALS_FROM_ONE,
};
pub use self::spelling::OtherCase;
pub use self::text::composed;
pub use self::tokens::{Access, NewToken, Scope, Token};
pub use self::usage::{HOUR, Span, Usage, UsageOf};

use crate::clock;

use self::connection::{BUSY_TIMEOUT, Manager, Role};
use self::error::Stop;
use self::narrowing::Narrowings;
use self::reading::LimitedReader;

/// Lookups are short, so a few connections serve many threads.
const READERS: u32 = 6;

/// How long opening a file takes at most: a machine that is starting up is busy with everything else.
const OPENING_PATIENCE: Duration = Duration::from_secs(20);

/// How long a lookup waits for a reader.
const READER_PATIENCE: Duration = Duration::from_secs(1);

/// How long a change waits for the writer: somewhat longer than the writer itself can wait for another process.
const WRITER_PATIENCE: Duration = BUSY_TIMEOUT.saturating_add(Duration::from_secs(2));

/// How long [`Store::poll`] waits for the writer, before it looks without. It has to answer several
/// times within the promised 250 ms.
const POLL_PATIENCE: Duration = Duration::from_millis(20);

/// In milliseconds.
const WEEK: i64 = 7 * 24 * HOUR;
const MONTH: i64 = 30 * 24 * HOUR;

/// An open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    readers: Pool<Manager>,
    writer: Pool<Manager>,
    epoch: AtomicU64,
    /// The writer's `PRAGMA data_version` when it was last looked at.
    seen: AtomicI64,
    watcher: Mutex<Watcher>,
    narrowings: Narrowings,
    tag_key: [u8; 32],
    id: FileId,
    seen_at: place::Seen,
    ends: overlap::Ends,
}

/// A connection that sees other processes' commits while the writer waits for them, or for the
/// disk. It sees our own, too.
#[derive(Debug)]
struct Watcher {
    connection: Connection,
    /// Its `PRAGMA data_version` when it was last looked at.
    seen: i64,
}

impl Watcher {
    /// Whether anything was committed since the last look.
    fn look(&mut self) -> rusqlite::Result<bool> {
        let version = data_version(&self.connection)?;
        Ok(std::mem::replace(&mut self.seen, version) != version)
    }
}

/// What [`Store::check`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StoreReport {
    /// Nothing is there yet; [`Store::open`] will make a store.
    Missing,
    /// A sound store, which this build can open.
    Sound {
        /// The version of its schema.
        schema: i64,
        /// How many credentials it holds.
        credentials: u64,
        /// The size of the database in bytes, without its write-ahead log.
        bytes: u64,
    },
}

/// How many active credentials expire soon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Expiring {
    /// Within 7 days.
    pub week: u64,
    /// Within 30 days.
    pub month: u64,
}

/// How much is in a store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StoreSize {
    /// How many organizations it holds.
    pub organizations: u64,
    /// How many credentials it holds.
    pub credentials: u64,
    /// The size of the database in bytes, without its write-ahead log.
    pub bytes: u64,
}

impl Store {
    /// Opens the store at `path`. Makes the file (mode 0600, in a directory that exists) and its schema when absent, and
    /// migrates an older schema.
    ///
    /// # Errors
    /// Whatever is there and is not a store this build understands is left as it is.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        connection::require_sound_sqlite(rusqlite::version_number())?;
        lock::require_not_gone(path)?;
        file::create(path)?;
        // Before a row is read, whose time may be one that a wrong wall clock told.
        clock::follow(&beside::read(path));
        // Open until the writer is: SQLite would do the housekeeping of a last close in between.
        let mut first = open_writable(path)?;
        let id = file::id(path)?;
        schema::prepare(&mut first, path)?;
        bring_keys_to_now(&first);
        let writer = pool(path, Role::Writer, id)?;
        let store = Store {
            path: path.to_owned(),
            readers: pool(path, Role::Reader, id)?,
            seen: AtomicI64::new(0),
            watcher: Mutex::new(Watcher {
                connection: connection::open(path, Role::Reader)
                    .map_err(|error| StoreError::from_sqlite(path, error))?,
                seen: 0,
            }),
            narrowings: Narrowings::default(),
            epoch: AtomicU64::new(0),
            ends: overlap::Ends::default(),
            tag_key: first
                .query_row("SELECT tag_key FROM instance", [], |row| row.get(0))
                .map_err(|error| StoreError::from_sqlite(path, error))?,
            writer,
            id,
            seen_at: place::Seen::default(),
        };
        store.poll()?;
        Ok(store)
    }

    /// Looks at the store at `path` without making or migrating one, and has SQLite check the whole file.
    ///
    /// # Errors
    /// Those that [`Store::open`] would meet, and any damage found.
    pub fn check(path: &Path) -> Result<StoreReport, StoreError> {
        connection::require_sound_sqlite(rusqlite::version_number())?;
        lock::require_not_gone(path)?;
        if !file::exists(path)? {
            return Ok(StoreReport::Missing);
        }
        let connection = open_writable(path)?;
        inspect(&connection, path).map_err(|stop| stop.at(path))
    }

    /// The daemon that serves from the store at `path`, if one does and this user may ask.
    pub fn served_by(path: &Path) -> Option<Holder> {
        lock::holder(path)
    }

    /// How many active credentials expire within 7 and within 30 days. An index answers it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn expiring(&self) -> Result<Expiring, StoreError> {
        self.read(|connection| {
            let now = now();
            let counted =
                "SELECT count(*) FILTER (WHERE expires_at <= ?2), count(*) FROM credentials
                           WHERE expires_at > ?1 AND expires_at <= ?3 AND status = 'active'";
            let ends = params![now, now + WEEK, now + MONTH];
            Ok(connection.query_row(counted, ends, |row| {
                Ok(Expiring {
                    week: count(row, 0)?,
                    month: count(row, 1)?,
                })
            })?)
        })
    }

    /// The organizations with active credentials that expire within 30 days, at most `limit`, and how
    /// many of each do; the most first. With slugs only these organizations.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn expiring_in(
        &self,
        slugs: Option<&[String]>,
        limit: u32,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        self.read(|connection| {
            let now = now();
            let mut statement = connection.prepare_cached(
                "SELECT o.slug, c.number FROM
                     (SELECT organization, count(*) AS number FROM credentials
                      WHERE expires_at > ?1 AND expires_at <= ?2 AND status = 'active'
                      GROUP BY organization) c
                 JOIN organizations o ON o.key = c.organization
                 WHERE ?3 IS NULL OR o.slug IN (SELECT value FROM json_each(?3))
                 ORDER BY c.number DESC, o.slug LIMIT ?4",
            )?;
            let slugs = slugs.map(|slugs| serde_json::json!(slugs).to_string());
            let wanted = params![now, now + MONTH, slugs, limit];
            let rows = statement.query_map(wanted, |row| Ok((row.get(0)?, count(row, 1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// How much is in it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn size(&self) -> Result<StoreSize, StoreError> {
        self.read(|connection| {
            let counted = "SELECT (SELECT count(*) FROM organizations), (SELECT count(*) FROM credentials),
                                  (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size)";
            Ok(connection.query_row(counted, [], |row| {
                Ok(StoreSize {
                    organizations: count(row, 0)?,
                    credentials: count(row, 1)?,
                    bytes: count(row, 2)?,
                })
            })?)
        })
    }

    /// A number that moves on whenever something that decides a login may have changed: for changes through this `Store`
    /// before they return, for those of other processes with the next [`Store::poll`].
    ///
    /// Read it *before* looking anything up that is to be remembered under it.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Moves the epoch on, so that everything remembered is looked up again.
    pub fn advance_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Asks whether another process has committed since the last call, and if so moves the epoch
    /// on. While the writer is busy, a commit of our own is not told from one of another process,
    /// and may move the epoch once.
    ///
    /// # Errors
    /// When the file cannot be read; the epoch then stays.
    pub fn poll(&self) -> Result<bool, StoreError> {
        let failed = |error| StoreError::from_sqlite(&self.path, error);
        let writer = self.writer.get_timeout(POLL_PATIENCE);
        // Before the writer is looked at: what is committed in between, the next look finds.
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let any = watcher.look().map_err(failed)?;
        let changed = match writer {
            // A connection's own commits do not move its data_version. So it is asked on the one
            // that makes all of ours, and flushing last-used never looks like a change.
            Ok(writer) => {
                let version = data_version(&writer).map_err(failed)?;
                self.seen.swap(version, Ordering::AcqRel) != version
            }
            Err(_) => any,
        };
        if changed {
            self.advance_epoch();
        }
        Ok(changed)
    }

    /// Has changes wait for another process's lock for so long, and not as long as usual.
    ///
    /// # Errors
    /// The writer is at work all that time.
    pub fn wait_for_locks(&self, patience: Duration) -> Result<(), StoreError> {
        let writer = self.connection(&self.writer, WRITER_PATIENCE)?;
        let set = writer.busy_timeout(patience.min(BUSY_TIMEOUT));
        set.map_err(|error| StoreError::from_sqlite(&self.path, error))
    }

    /// The short tag of a generated password. A password with another tag than the stored one is wrong, which is known
    /// without an argon2; one with the same tag is most likely right, which only the hash can tell.
    pub fn tag(&self, password: &[u8]) -> u32 {
        let [a, b, c, d, ..] = *blake3::keyed_hash(&self.tag_key, password).as_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// Makes a change that decides logins. The epoch moves also when it fails: after an error of the commit the outcome is
    /// unknown, and to look again is always right.
    fn change<T>(
        &self,
        work: impl FnOnce(&Transaction) -> Result<T, Stop>,
    ) -> Result<T, StoreError> {
        let outcome = self.write(work);
        self.advance_epoch();
        outcome
    }

    /// Makes a change in one transaction. IMMEDIATE, because a transaction that reads first and then writes fails at once
    /// instead of waiting when another process has written in between.
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction) -> Result<T, Stop>,
    ) -> Result<T, StoreError> {
        match self.placement() {
            Placement::InPlace => {}
            elsewhere => return Err(self.displaced(elsewhere)),
        }
        let mut writer = self.connection(&self.writer, WRITER_PATIENCE)?;
        let commit = || {
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            text::fill_name_keys(&transaction)?;
            search::write_blocks(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        commit().map_err(|stop: Stop| stop.at(&self.path))
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Stop>) -> Result<T, StoreError> {
        let reader = self.connection(&self.readers, READER_PATIENCE)?;
        let reader = LimitedReader::new(reader)
            .map_err(|error| StoreError::from_sqlite(&self.path, error))?;
        work(&reader).map_err(|stop| stop.at(&self.path))
    }

    fn connection(
        &self,
        pool: &Pool<Manager>,
        patience: Duration,
    ) -> Result<PooledConnection<Manager>, StoreError> {
        pool.get_timeout(patience).map_err(|_| StoreError::Busy {
            path: self.path.clone(),
        })
    }
}

/// How long a request may not be repeated.
const REPEATABLE_AFTER: i64 = 24 * HOUR;

impl Editor<'_> {
    /// Fails if this request was carried out already, before anything is spent on it.
    ///
    /// # Errors
    /// [`StoreError::Repeated`], [`StoreError::KeyReused`], or the store cannot be read.
    pub fn require_first(&self) -> Result<(), StoreError> {
        self.store
            .read(|connection| self.refuse_repeated(connection))
    }

    /// Notes that this request made what has this `id`, and fails if it already made something.
    fn only_once(&self, transaction: &Transaction, id: Uuid) -> Result<(), Stop> {
        let Some(once) = self.once else {
            return Ok(());
        };
        transaction.execute(
            "DELETE FROM idempotency_keys WHERE at < ?1",
            [earliest() - REPEATABLE_AFTER],
        )?;
        self.refuse_repeated(transaction)?;
        transaction.execute(
            "INSERT OR REPLACE INTO idempotency_keys (actor, key, made, at, request)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                self.actor.to_string(),
                once.key,
                id.to_string(),
                now(),
                once.request
            ],
        )?;
        Ok(())
    }

    fn refuse_repeated(&self, connection: &Connection) -> Result<(), Stop> {
        let Some(once) = self.once else {
            return Ok(());
        };
        let found = connection
            .query_row(
                "SELECT k.made, c.username, coalesce(o.slug, made.slug), t.key IS NOT NULL, k.at, k.request
                 FROM idempotency_keys k
                 LEFT JOIN credentials c ON c.id = k.made LEFT JOIN organizations o ON o.key = c.organization
                 LEFT JOIN organizations made ON made.id = k.made LEFT JOIN admin_tokens t ON t.id = k.made
                 WHERE k.actor = ?1 AND k.key = ?2",
                params![self.actor.to_string(), once.key],
                |row| Ok((repeated(row)?, row.get(4)?, row.get(5)?)),
            )
            .optional()?;
        let Some((repeated, at, request)): Option<(StoreError, i64, Option<Vec<u8>>)> = found
        else {
            return Ok(());
        };
        let begun = at.saturating_sub(clock::offset_at(at));
        if clock::steady_ms().saturating_sub(begun) >= REPEATABLE_AFTER {
            return Ok(());
        }
        match request {
            Some(request) if request != once.request => Err(StoreError::KeyReused.into()),
            _ => Err(repeated.into()),
        }
    }
}

/// Has idempotency keys of the future, which a clock that was ahead has left, last for a day from
/// now on. Where that cannot be written now, the next start does it.
fn bring_keys_to_now(connection: &Connection) {
    let any = "SELECT EXISTS (SELECT 1 FROM idempotency_keys WHERE at > ?1)";
    if let Ok(true) = connection.query_row(any, [now()], |row| row.get(0)) {
        let bring = "UPDATE idempotency_keys SET at = ?1 WHERE at > ?1";
        let _ = connection.execute(bring, [now()]);
    }
}

/// Reads what a request made that is repeated.
fn repeated(row: &Row) -> rusqlite::Result<StoreError> {
    let found = match (row.get(1)?, row.get(2)?, row.get(3)?) {
        (Some(username), Some(organization), _) => Some(Made::Credential {
            organization,
            username,
        }),
        (None, Some(slug), _) => Some(Made::Organization(slug)),
        (_, _, true) => Some(Made::Token),
        _ => None,
    };
    let made = row.get(0)?;
    Ok(StoreError::Repeated { made, found })
}

/// Opens an existing file, and fails when SQLite could only open it for reading.
fn open_writable(path: &Path) -> Result<Connection, StoreError> {
    let at = |error| StoreError::from_sqlite(path, error);
    let connection = connection::open(path, Role::Writer).map_err(at)?;
    if connection.is_readonly("main").map_err(at)? {
        return Err(StoreError::ReadOnly {
            path: path.to_owned(),
        });
    }
    Ok(connection)
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

fn pool(path: &Path, role: Role, id: FileId) -> Result<Pool<Manager>, StoreError> {
    let size = match role {
        Role::Reader => READERS,
        Role::Writer => 1,
    };
    Pool::builder()
        .max_size(size)
        .min_idle(Some(1)) // to open four at once would slow down the command line, which needs one
        .max_lifetime(None)
        .idle_timeout(None)
        .test_on_check_out(false)
        .connection_timeout(OPENING_PATIENCE)
        .error_handler(Box::new(NopErrorHandler)) // the default one logs; whoever waited gets the error
        .build(Manager {
            path: path.to_owned(),
            role,
            id,
        })
        .map_err(|error| StoreError::Io {
            path: path.to_owned(),
            detail: error.to_string(),
        })
}

fn inspect(connection: &Connection, path: &Path) -> Result<StoreReport, Stop> {
    let schema = schema::version(connection, path)?;
    if schema == 0 {
        return Ok(StoreReport::Missing); // an empty file: a first start was killed before the schema was in
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::Corrupt {
            path: path.to_owned(),
            detail: verdict,
        }
        .into());
    }
    let credentials =
        connection.query_row("SELECT count(*) FROM credentials", [], |row| count(row, 0))?;
    let bytes = connection.query_row(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
        [],
        |row| count(row, 0),
    )?;
    Ok(StoreReport::Sound {
        schema,
        credentials,
        bytes,
    })
}

/// A short text that differs whenever one of its parts does.
fn revision(parts: &[&str], name: Option<&str>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts.iter().copied().chain(name) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Refuses a change to something that is not in a state its author knew of.
fn require<'a>(
    revisions: Option<&[String]>,
    found: &str,
    what: impl FnOnce() -> (Kind, &'a str),
) -> Result<(), Stop> {
    if revisions.is_none_or(|known| known.iter().any(|revision| revision == found)) {
        return Ok(());
    }
    let (kind, name) = what();
    Err(StoreError::Changed {
        kind,
        name: name.to_owned(),
    }
    .into())
}

/// The fields in which two JSON objects differ, before and after.
fn difference(mut before: Value, mut after: Value) -> (Value, Value) {
    if let (Value::Object(old), Value::Object(new)) = (&mut before, &mut after) {
        let unchanged =
            |(name, value): (&String, &Value)| (new.get(name) == Some(value)).then(|| name.clone());
        let unchanged: Vec<_> = old.iter().filter_map(unchanged).collect();
        for name in unchanged {
            old.remove(&name);
            new.remove(&name);
        }
    }
    (before, after)
}

/// Reads a number that is never negative; SQLite has only signed ones.
fn count(row: &Row, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

/// The time as the store keeps it: Unix milliseconds.
///
/// A row may bear a later time, written while the clock was ahead. Such a time is shown as now, the
/// next write replaces it, and where only the newest rows are kept it does not count as new.
fn now() -> i64 {
    clock::now_ms()
}

/// The time by which rows are old enough to go: a clock that is ahead for a moment deletes nothing.
fn earliest() -> i64 {
    clock::earliest_ms()
}

#[cfg(test)]
mod tests;
