//! Whether the file that is open is still the one at the store's path.
//!
//! Whatever is written into a file that was removed or replaced is lost. A file that was copied over the open one, without
//! SQLite, is worse: pages of both come together.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use r2d2::Pool;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};

use super::connection::{self, Manager, Role};
use super::{DaemonLock, Store, StoreError, backup, lock};

/// How many looks after a change of the file its content is judged: a checkpoint may be under way until then.
const PATIENCE: u32 = 3;

/// How often a content that cannot be read is put down to a checkpoint under way.
const UNREADABLE: u32 = 2;

/// How far the schema's number may move on between two looks. Copies have a number of their own, far from all others.
const SCHEMA_CHANGES: i64 = 100;

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(path: &Path) -> io::Result<FileId> {
        Ok(FileId::from(&fs::metadata(path)?))
    }
}

impl From<&Metadata> for FileId {
    fn from(metadata: &Metadata) -> FileId {
        FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

/// Where the open file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Placement {
    /// At the store's path.
    InPlace,
    /// Nothing is at that path.
    Missing,
    /// Another file is at that path.
    Replaced,
    /// At the store's path, and a program other than SQLite wrote into it.
    Overwritten,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InPlace => "its file is in place",
            Self::Missing => {
                "its file was removed; nothing can be changed until it is back: stop Gatepost, then gatepost restore FILE"
            }
            Self::Replaced => {
                "another file was put in its place; Gatepost serves from that one after a restart"
            }
            Self::Overwritten => {
                "another program wrote over its file while Gatepost used it; put a backup in place by gatepost restore FILE, \
                 while Gatepost is stopped"
            }
        })
    }
}

/// The last [`Placement`] that was seen.
#[derive(Debug, Default)]
pub(super) struct Seen(AtomicU8);

impl Seen {
    fn set(&self, placement: Placement) {
        self.0.store(placement as u8, Ordering::Release);
    }

    pub(super) fn placement(&self) -> Placement {
        let all = [
            Placement::Missing,
            Placement::Replaced,
            Placement::Overwritten,
        ];
        let seen = self.0.load(Ordering::Acquire);
        let found = all.into_iter().find(|placement| *placement as u8 == seen);
        found.unwrap_or(Placement::InPlace)
    }
}

/// What the file system says of a file that changes whenever anything is written into it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Stamp {
        Stamp {
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// `data_version`, the frames in the log, and those of them that are in the file. While none of them moves, SQLite writes
/// nothing into the file.
type Progress = (i64, i64, i64);

/// What the file holds without its log: what tells it from another file, or from an earlier state of its own.
#[derive(Debug, Default, Eq, PartialEq)]
struct Raw {
    /// The schema cookie, which every change of the schema moves on.
    schema: i64,
    tag_key: Option<Vec<u8>>,
    /// The counters of AUTOINCREMENT, which never fall.
    counters: BTreeMap<String, i64>,
    pages: (i64, i64),
    uses: Option<(i64, i64)>,
}

/// Looks regularly at where the file is.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    id: FileId,
    connection: Connection,
    writer: Pool<Manager>,
    tag_key: [u8; 32],
    stamp: Stamp,
    progress: Progress,
    /// The schema's number with the log, as of `stamp`.
    schema: i64,
    /// As of `stamp`, if it could be read.
    raw: Option<Raw>,
    /// How many looks in a row met another stamp, and whether SQLite may have written meanwhile.
    changed: u32,
    has_progressed: bool,
    unreadable: u32,
}

impl Store {
    /// The file that is open.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// What the last look of a [`Watch`] found.
    pub fn placement(&self) -> Placement {
        self.seen_at.placement()
    }

    /// Notes what a look found. Unless the file is in place, every change is refused from then on: it would be lost.
    pub fn note_placement(&self, placement: Placement) {
        self.seen_at.set(placement);
    }

    /// Begins to watch the file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn watch(&self) -> Result<Watch, StoreError> {
        let at = |error| StoreError::from_sqlite(&self.path, error);
        let connection = connection::open(&self.path, Role::Reader).map_err(at)?;
        let metadata = fs::metadata(&self.path).map_err(|_| self.displaced(Placement::Missing))?;
        Ok(Watch {
            progress: progress(&connection).map_err(at)?,
            schema: schema(&connection).map_err(at)?,
            path: self.path.clone(),
            id: self.id,
            connection,
            writer: self.writer.clone(),
            tag_key: self.tag_key,
            stamp: Stamp::from(&metadata),
            raw: Raw::read(&self.path).ok(),
            changed: 0,
            has_progressed: false,
            unreadable: 0,
        })
    }

    /// The error of a change that is refused because of where the file is.
    pub fn displaced(&self, placement: Placement) -> StoreError {
        StoreError::Displaced {
            path: self.path.clone(),
            placement,
        }
    }
}

impl Watch {
    /// Where the file is now. Waits for no lock.
    pub fn look(&mut self) -> Placement {
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if is_absence(&error) => return Placement::Missing,
            // Whatever else keeps it from being seen does not move it.
            Err(_) => return Placement::InPlace,
        };
        if FileId::from(&metadata) != self.id {
            return Placement::Replaced;
        }
        // A checkpoint of our own may be under way, for as long as the disk takes.
        if self.writer.state().idle_connections == 0 {
            return Placement::InPlace;
        }
        let stamp = Stamp::from(&metadata);
        let progress = match progress(&self.connection) {
            Ok(progress) => progress,
            Err(error) => return self.judge_unreadable(&error),
        };
        self.has_progressed |= std::mem::replace(&mut self.progress, progress) != progress;
        if stamp == self.stamp {
            self.changed = 0;
            self.has_progressed = false;
            if let Ok(schema) = schema(&self.connection) {
                self.schema = schema;
            }
            return Placement::InPlace;
        }
        self.changed += 1;
        match self.changed < PATIENCE {
            true => Placement::InPlace,
            false => self.judge(stamp),
        }
    }

    /// Whether SQLite wrote what the file holds now.
    fn judge(&mut self, stamp: Stamp) -> Placement {
        let raw = match Raw::read(&self.path) {
            Ok(raw) => raw,
            Err(error) => return self.judge_unreadable(&error),
        };
        let schemas = self.schema..=self.schema + SCHEMA_CHANGES;
        let before = self.raw.as_ref();
        let is_schema_known = schemas.contains(&raw.schema)
            || before.is_some_and(|before| before.schema == raw.schema);
        let is_other = raw.tag_key.as_ref().is_some_and(|key| *key != self.tag_key);
        let is_older = before.is_some_and(|before| {
            let mut counters = before.counters.iter();
            counters.any(|(table, last)| raw.counters.get(table).is_none_or(|now| now < last))
        });
        // Otherwise only its time, owner or mode changed, unless pages did that nothing above looks at.
        let is_unexplained = !self.has_progressed && (before != Some(&raw) || self.is_damaged());
        if stamp.size == 0 || !is_schema_known || is_other || is_older || is_unexplained {
            return Placement::Overwritten;
        }
        self.stamp = stamp;
        self.raw = Some(raw);
        (self.changed, self.unreadable) = (0, 0);
        self.has_progressed = false;
        Placement::InPlace
    }

    /// Whether SQLite finds the file damaged when it reads it with its log.
    fn is_damaged(&self) -> bool {
        matches!(
            backup::verify(&self.path),
            Err(StoreError::Corrupt { .. }
                | StoreError::NotADatabase { .. }
                | StoreError::Foreign { .. })
        )
    }

    /// A lock, a disk that fails or want of descriptors tells nothing about the content. Pages that
    /// contradict each other may be those of a checkpoint under way, unless they do with the log.
    fn judge_unreadable(&mut self, error: &rusqlite::Error) -> Placement {
        let tells = match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => true,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::Unknown) | None => {
                !self.has_progressed || self.is_damaged()
            }
            Some(_) => false,
        };
        self.unreadable += u32::from(tells);
        match self.unreadable < UNREADABLE {
            true => Placement::InPlace,
            false => Placement::Overwritten,
        }
    }

    /// Saves what the open file holds under a name beside its path, which is returned. What was written until now is in it.
    ///
    /// # Errors
    /// The directory is gone, or the disk does not take it.
    pub fn save(&self) -> Result<PathBuf, StoreError> {
        // The last change under way is waited for. Should it take longer, the copy has what was committed before.
        let _last = self.writer.get_timeout(connection::BUSY_TIMEOUT);
        let copy = backup::beside(&self.path, &format!(".saved-{}", super::now()));
        backup::keep(&self.connection, &copy)?;
        Ok(copy)
    }

    /// Prepares the next start with the file that is at the path now: the log there belongs to the file that is open.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn leave(&self, placement: Placement, lock: &DaemonLock) -> Result<(), StoreError> {
        match placement {
            Placement::Replaced => lock::set_log_aside(&self.path).map(drop),
            Placement::Overwritten => lock.note_overwritten(),
            Placement::InPlace | Placement::Missing => Ok(()),
        }
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn progress(connection: &Connection) -> rusqlite::Result<Progress> {
    let version = connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
    let (log, written) = connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| {
        Ok((row.get(1)?, row.get(2)?))
    })?;
    Ok((version, log, written))
}

fn schema(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "schema_version", |row| row.get(0))
}

impl Raw {
    /// SQLite opens the file, as this process must not close it any other way.
    fn read(path: &Path) -> rusqlite::Result<Raw> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(without_log(path), flags)?;
        let pages =
            "SELECT freelist_count, page_count FROM pragma_freelist_count, pragma_page_count";
        let mut raw = Raw {
            schema: schema(&connection)?,
            pages: connection.query_row(pages, [], |row| Ok((row.get(0)?, row.get(1)?)))?,
            ..Raw::default()
        };
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name IN ('instance', 'last_used')";
        let tables: i64 = connection.query_row(tables, [], |row| row.get(0))?;
        if tables < 2 {
            return Ok(raw); // a young store may be in its log alone
        }
        let key = "SELECT tag_key FROM instance";
        raw.tag_key = connection.query_row(key, [], |row| row.get(0)).optional()?;
        let mut counters = connection.prepare("SELECT name, seq FROM sqlite_sequence")?;
        let counters = counters.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        raw.counters = counters.collect::<Result<_, _>>()?;
        let uses = "SELECT coalesce(max(at), 0), coalesce(sum(count), 0) FROM last_used";
        let uses = connection.query_row(uses, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        raw.uses = Some(uses);
        Ok(raw)
    }
}

/// A URI with which SQLite reads the file at `path` as it is, without its log.
fn without_log(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri += &format!("%{byte:02x}"),
        }
    }
    uri + "?immutable=1"
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, named};
    use super::*;

    /// As many looks as a doubtful file needs.
    fn verdict(watch: &mut Watch) -> Placement {
        (0..=PATIENCE).map(|_| watch.look()).last().unwrap()
    }

    fn backup_of(store: &Fixture) -> PathBuf {
        let backup = store.beside("backup.db");
        Store::back_up(&store.path(), &backup).unwrap();
        backup
    }

    #[test]
    fn a_file_that_is_moved_away_is_missing_until_it_is_back() {
        let store = Fixture::new();
        let mut watch = store.watch().unwrap();
        assert_eq!(verdict(&mut watch), Placement::InPlace);
        let elsewhere = store.beside("elsewhere");
        fs::rename(store.path(), &elsewhere).unwrap();
        assert_eq!(watch.look(), Placement::Missing);
        fs::write(store.path(), "").unwrap();
        assert_eq!(watch.look(), Placement::Replaced);
        fs::rename(&elsewhere, store.path()).unwrap();
        assert_eq!(verdict(&mut watch), Placement::InPlace);
    }

    #[test]
    fn changes_are_refused_while_the_file_is_not_in_place() {
        let store = Fixture::new();
        for placement in [
            Placement::Missing,
            Placement::Replaced,
            Placement::Overwritten,
        ] {
            store.note_placement(placement);
            assert_eq!(store.placement(), placement);
            let error = store.edit().create_credential(named("smtp_a")).unwrap_err();
            assert!(matches!(error, StoreError::Displaced { .. }), "{error}");
        }
        store.note_placement(Placement::InPlace);
        store.edit().create_credential(named("smtp_a")).unwrap();
    }

    #[test]
    fn a_removed_store_can_be_saved_with_all_that_was_in_it() {
        let store = Fixture::new();
        store.edit().create_credential(named("smtp_a")).unwrap();
        let watch = store.watch().unwrap();
        fs::remove_file(store.path()).unwrap();
        store.edit().create_credential(named("smtp_b")).unwrap();
        let saved = Store::open(&watch.save().unwrap()).unwrap();
        assert!(saved.lookup("smtp_a").unwrap().is_some());
        assert!(saved.lookup("smtp_b").unwrap().is_some());
    }

    #[test]
    fn another_time_mode_or_name_is_not_another_content() {
        let store = Fixture::new();
        store.edit().create_credential(named("smtp_a")).unwrap();
        let mut watch = store.watch().unwrap();
        for arguments in [
            &["touch"][..],
            &["touch", "--date", "2001-01-01"],
            &["chmod", "0640"],
        ] {
            let mut command = std::process::Command::new(arguments[0]);
            let done = command.args(&arguments[1..]).arg(store.path()).status();
            assert!(done.unwrap().success());
            assert_eq!(verdict(&mut watch), Placement::InPlace, "{arguments:?}");
        }
        fs::hard_link(store.path(), store.beside("name")).unwrap();
        assert_eq!(verdict(&mut watch), Placement::InPlace);
    }

    #[test]
    fn what_sqlite_writes_into_the_file_is_explained() {
        let store = Fixture::new();
        let mut watch = store.watch().unwrap();
        for (number, checkpoint) in ["PASSIVE", "FULL", "RESTART", "TRUNCATE", "TRUNCATE"]
            .iter()
            .enumerate()
        {
            let username = format!("smtp_{number}");
            store.edit().create_credential(named(&username)).unwrap();
            store.shell(&format!("PRAGMA wal_checkpoint({checkpoint})"));
            assert_eq!(verdict(&mut watch), Placement::InPlace, "{checkpoint}");
        }
        store.shell("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
        assert_eq!(verdict(&mut watch), Placement::InPlace);
    }

    #[test]
    fn what_keeps_the_file_from_being_read_for_a_while_is_no_other_content() {
        let store = Fixture::new();
        let mut watch = store.watch().unwrap();
        let failed = |code| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        for code in [
            rusqlite::ffi::SQLITE_BUSY,
            rusqlite::ffi::SQLITE_CANTOPEN,
            rusqlite::ffi::SQLITE_FULL,
            rusqlite::ffi::SQLITE_IOERR,
            rusqlite::ffi::SQLITE_NOMEM,
        ] {
            for _ in 0..=UNREADABLE {
                assert_eq!(watch.judge_unreadable(&failed(code)), Placement::InPlace);
            }
        }
        // A checkpoint under way leaves pages that contradict each other for a moment.
        let damaged = failed(rusqlite::ffi::SQLITE_CORRUPT);
        watch.has_progressed = true;
        for _ in 0..=UNREADABLE {
            assert_eq!(watch.judge_unreadable(&damaged), Placement::InPlace);
        }
        watch.has_progressed = false;
        assert_eq!(watch.judge_unreadable(&damaged), Placement::InPlace);
        assert_eq!(watch.judge_unreadable(&damaged), Placement::Overwritten);
    }

    #[test]
    fn a_file_that_is_copied_over_the_open_one_is_noticed() {
        type Copy = fn(&Fixture, &Path);
        let copies: [(&str, Copy); 4] = [
            ("a backup", |store, target| {
                Store::back_up(&store.path(), target).map(drop).unwrap();
            }),
            ("a compacted copy", |store, target| {
                store.shell(&format!("VACUUM INTO '{}'", target.display()));
            }),
            ("another store", |_, target| {
                Store::back_up(&Fixture::new().path(), target)
                    .map(drop)
                    .unwrap();
            }),
            ("no store at all", |_, target| {
                fs::write(target, "shopping, and more of it; ".repeat(9000)).unwrap();
            }),
        ];
        for (what, copy) in copies {
            for checkpoint in ["", "PRAGMA wal_checkpoint(TRUNCATE)"] {
                let store = Fixture::new();
                store.edit().create_credential(named("smtp_a")).unwrap();
                store.shell(checkpoint);
                let other = store.beside("other.db");
                copy(&store, &other);
                store.edit().create_credential(named("smtp_b")).unwrap();
                store.shell(checkpoint);
                let mut watch = store.watch().unwrap();
                assert_eq!(verdict(&mut watch), Placement::InPlace, "{what}");
                fs::copy(&other, store.path()).unwrap();
                assert_eq!(
                    verdict(&mut watch),
                    Placement::Overwritten,
                    "{what} {checkpoint}"
                );
            }
        }
        // Also of a store that was itself restored, and while others commit.
        let store = Fixture::new();
        let backup = backup_of(&store);
        fs::copy(&backup, store.beside("restored.db")).unwrap();
        let restored = Store::open(&store.beside("restored.db")).unwrap();
        fs::remove_file(&backup).unwrap();
        Store::back_up(&store.beside("restored.db"), &backup).unwrap();
        let mut watch = restored.watch().unwrap();
        fs::copy(&backup, store.beside("restored.db")).unwrap();
        for slug in ["a", "b", "c", "d"] {
            // Whether it succeeds depends on the pages that it meets.
            let _ = restored
                .by(&super::super::Actor::system("tests"))
                .create_organization(slug, None);
            if watch.look() == Placement::Overwritten {
                break;
            }
        }
        assert_eq!(verdict(&mut watch), Placement::Overwritten);
        let truncated = Fixture::new();
        let mut watch = truncated.watch().unwrap();
        fs::write(truncated.path(), "").unwrap();
        assert_eq!(verdict(&mut watch), Placement::Overwritten);
    }
}
