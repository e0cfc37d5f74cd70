//! Copies of the store: made while it is used, and put back when it is not.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tempfile::NamedTempFile;

use super::error::Stop;
use super::{Actor, Store, StoreError, StoreReport, file, inspect, lock, schema};

/// So many pages are copied at a time; in between, others may write.
const PAGES: i32 = 1024;

impl Store {
    /// Copies the store at `path`, which may be in use, to `target`, which must not exist. The copy appears whole and checked
    /// or not at all, on disk, with mode 0600.
    ///
    /// # Errors
    /// There is no store, `target` exists or cannot be written, or the copy turns out damaged.
    pub fn back_up(path: &Path, target: &Path) -> Result<StoreReport, StoreError> {
        let taken = || {
            StoreError::Invalid(format!(
                "{} already exists: a backup is never written over; choose another name",
                target.display()
            ))
        };
        // Here to say so before the work; a name that is taken meanwhile is refused by `give_name`.
        if target.symlink_metadata().is_ok() {
            return Err(taken());
        }
        let draft = draft(&existing(path)?, target)?;
        let report = verify(draft.path())?;
        match give_name(draft, target) {
            Ok(()) => Ok(report),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(taken()),
            Err(error) => Err(failed(target, &error)),
        }
    }

    /// Puts the backup `source` in place of the store at `path`, which nobody may be using. What was there is kept beside it;
    /// its path is returned.
    ///
    /// # Errors
    /// `source` is not a sound store, the store is in use, or the disk does not do it; then the store is what it was.
    pub fn restore(
        source: &Path,
        path: &Path,
        actor: &Actor,
    ) -> Result<Option<PathBuf>, StoreError> {
        if !matches!(verify(source)?, StoreReport::Sound { .. }) {
            return Err(StoreError::Invalid(format!(
                "{} is empty: it holds nothing to restore",
                source.display()
            )));
        }
        // Held to the end, so that no daemon starts in between.
        let Some(_lock) = lock::try_take(path)? else {
            return Err(StoreError::InUse {
                path: path.to_owned(),
            });
        };
        let draft = draft(&existing(source)?, path)?;
        file::give_to_owner_of_directory(path, draft.as_file());
        let kept = set_aside(path)?;
        if let Err(error) = give_name(draft, path) {
            if let Some(kept) = &kept {
                move_all(kept, path)?;
            }
            return Err(failed(path, &error));
        }
        let store = Store::open(path)?;
        store.by(actor).note_restore(source)?;
        Ok(kept)
    }

    /// Checks every page, index and reference of the store at `path`, which may be in use.
    ///
    /// # Errors
    /// Any damage found, or what keeps it from being read.
    pub fn check_thoroughly(path: &Path) -> Result<StoreReport, StoreError> {
        lock::require_not_gone(path)?;
        if !file::exists(path)? {
            return Ok(StoreReport::Missing);
        }
        verify(path)
    }
}

/// Copies what `source` holds into a new file at `target`, unless something has that name: a copy that was kept before.
/// Keeps the store as it was before a migration.
pub(super) fn keep(source: &Connection, target: &Path) -> Result<(), StoreError> {
    match target.symlink_metadata() {
        Ok(found) if found.is_file() => return Ok(()),
        Ok(_) => {
            return Err(StoreError::NotAFile {
                path: target.to_owned(),
            });
        }
        Err(_) => {}
    }
    match give_name(draft(source, target)?, target) {
        // Another process migrates at the same time.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(target, &error)),
        _ => Ok(()),
    }
}

/// Copies what `source` holds into a new file in the directory of `target`, on disk when this returns. Its name cannot be
/// guessed, so no other file has it and no link waits there; its mode is 0600 from the first byte on; and it is removed
/// with the value.
fn draft(source: &Connection, target: &Path) -> Result<NamedTempFile, StoreError> {
    let at = |error: io::Error| failed(target, &error);
    // SQLite is to follow no link to the file; it would refuse one in the way there as well.
    let directory = fs::canonicalize(file::directory(target)).map_err(at)?;
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(".gatepost-").suffix(".new").rand_bytes(16);
    let draft = builder.tempfile_in(directory).map_err(at)?;
    copy(source, draft.path()).map_err(|error| StoreError::from_sqlite(target, error))?;
    draft.as_file().sync_all().map_err(at)?;
    Ok(draft)
}

fn copy(source: &Connection, target: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut copy = Connection::open_with_flags(target, flags)?;
    let backup = Backup::new(source, &mut copy)?;
    backup.run_to_completion(PAGES, Duration::ZERO, None)?;
    drop(backup);
    // Should the copy be put over a store that is in use, this tells the one from the other.
    let number: i64 = rand::random_range(1_000_000..2_000_000_000);
    copy.pragma_update(None, "schema_version", number)?;
    // A copy that is one file. A store that is made of it is put into WAL mode again.
    copy.pragma_update_and_check(None, "journal_mode", "delete", |row| {
        row.get::<_, String>(0)
    })
    .map(drop)
}

/// Gives `draft` its name, durably and unless anything has that name, be it a link that leads nowhere.
fn give_name(draft: NamedTempFile, target: &Path) -> io::Result<()> {
    draft
        .persist_noclobber(target)
        .map_err(|error| error.error)?;
    File::open(file::directory(target)).and_then(|directory| directory.sync_all())
}

fn existing(path: &Path) -> Result<Connection, StoreError> {
    if !file::exists(path)? {
        return Err(StoreError::Invalid(format!(
            "there is no store at {}",
            path.display()
        )));
    }
    let connection = super::connection::open(path, super::connection::Role::Reader)
        .map_err(|error| StoreError::from_sqlite(path, error))?;
    schema::version(&connection, path).map_err(|stop| stop.at(path))?;
    Ok(connection)
}

pub(super) fn verify(path: &Path) -> Result<StoreReport, StoreError> {
    let connection = existing(path)?;
    let thorough = || {
        let report = inspect(&connection, path)?;
        let verdict: String =
            connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        let dangling = connection
            .prepare("PRAGMA foreign_key_check")?
            .query_map([], |row| row.get::<_, String>(0))?
            .next()
            .transpose()?
            .map(|table| format!("a row of {table} refers to one that is not there"));
        match dangling.or((verdict != "ok").then_some(verdict)) {
            None => Ok(report),
            Some(detail) => Err(StoreError::Corrupt {
                path: path.to_owned(),
                detail,
            }
            .into()),
        }
    };
    thorough().map_err(|stop: Stop| stop.at(path))
}

/// Moves the store at `path` out of the way, and what SQLite keeps beside it: a write-ahead log that stayed would be applied
/// to the file that comes. Returns the new name, or `None` where nothing is there. Refuses while another process has it open.
fn set_aside(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    if file::exists(path)? {
        match alone(path) {
            // A damaged store is what backups are for; no process can be using it.
            Ok(()) | Err(StoreError::Corrupt { .. } | StoreError::NotADatabase { .. }) => {}
            Err(StoreError::Busy { .. }) => {
                return Err(StoreError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(error),
        }
    }
    let kept = beside(path, &format!(".before-restore-{}", super::now()));
    let moved = move_all(path, &kept)?;
    Ok(moved.then_some(kept))
}

/// Renames a store and the files beside it, each only where that name is free. Returns whether there was any.
fn move_all(from: &Path, to: &Path) -> Result<bool, StoreError> {
    let mut any = false;
    for suffix in ["-wal", "-shm", ""] {
        let (from, to) = (beside(from, suffix), beside(to, suffix));
        match rename(&from, &to) {
            Ok(()) => any = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&from, &error)),
        }
    }
    Ok(any)
}

/// Renames a file, unless anything has the new name.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can.
        Err(Errno::INVAL | Errno::NOSYS) if to.symlink_metadata().is_err() => fs::rename(from, to),
        other => Ok(other?),
    }
}

/// Whether nobody else has the store open: only then does SQLite let it leave WAL mode.
fn alone(path: &Path) -> Result<(), StoreError> {
    let at = |error| StoreError::from_sqlite(path, error);
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(at)?;
    let mode = connection.pragma_update_and_check(None, "journal_mode", "delete", |row| {
        row.get::<_, String>(0)
    });
    mode.map(drop).map_err(at)
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn failed(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io {
        path: path.to_owned(),
        detail: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, named};
    use super::super::{AuditFilter, CredentialFilter, Page};
    use super::*;

    fn usernames(store: &Store) -> Vec<String> {
        let found = store
            .credentials(CredentialFilter::default(), Page::ALL)
            .unwrap();
        found
            .rows
            .into_iter()
            .map(|credential| credential.username)
            .collect()
    }

    #[test]
    fn a_backup_is_whole_private_and_never_written_over() {
        use std::os::unix::fs::PermissionsExt as _;
        let store = Fixture::new();
        store.edit().create_credential(named("smtp_a")).unwrap();
        let target = store.beside("backup.db");
        let report = Store::back_up(&store.path(), &target).unwrap();
        assert!(matches!(report, StoreReport::Sound { credentials: 1, .. }));
        assert_eq!(
            target.metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(!beside(&target, "-wal").exists());
        assert_eq!(drafts(&store), 0);
        let error = Store::back_up(&store.path(), &target).unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{error}");
    }

    /// How many unfinished copies lie in the store's directory.
    fn drafts(store: &Fixture) -> usize {
        let directory = fs::read_dir(store.beside(".")).unwrap();
        let names = directory.map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(".gatepost-")).count()
    }

    #[test]
    fn a_copy_touches_no_other_file_and_follows_no_link() {
        let store = Fixture::new();
        let (precious, target) = (store.beside("precious"), store.beside("backup.db"));
        fs::write(&precious, "mine").unwrap();
        for name in ["backup.db.new", "backup.db-journal"] {
            std::os::unix::fs::symlink(&precious, store.beside(name)).unwrap();
        }
        Store::back_up(&store.path(), &target).unwrap();
        fs::remove_file(&target).unwrap();
        for link in [precious.clone(), store.beside("nowhere")] {
            std::os::unix::fs::symlink(link, &target).unwrap();
            let error = Store::back_up(&store.path(), &target).unwrap_err();
            assert!(error.to_string().contains("already exists"), "{error}");
            let error = keep(&existing(&store.path()).unwrap(), &target).unwrap_err();
            assert!(matches!(error, StoreError::NotAFile { .. }), "{error}");
            fs::remove_file(&target).unwrap();
        }
        assert!(!store.beside("nowhere").exists());
        assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
        assert_eq!(drafts(&store), 0, "also where it was refused");
    }

    #[test]
    fn a_name_that_is_taken_meanwhile_is_left() {
        let store = Fixture::new();
        let target = store.beside("backup.db");
        let draft = draft(&existing(&store.path()).unwrap(), &target).unwrap();
        fs::write(&target, "mine").unwrap();
        let error = give_name(draft, &target).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        let from = store.beside("from");
        fs::write(&from, "other").unwrap();
        assert!(rename(&from, &target).is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
        assert_eq!(drafts(&store), 0);
    }

    #[test]
    fn a_write_ahead_log_without_its_store_is_set_aside() {
        let store = Fixture::new();
        store.edit().create_credential(named("smtp_a")).unwrap();
        let backup = store.beside("backup.db");
        Store::back_up(&store.path(), &backup).unwrap();
        let log = beside(&store.path(), "-wal");
        let stale = fs::read(&log).unwrap();
        let (path, _directory) = store.close();
        fs::remove_file(&path).unwrap();
        fs::write(&log, &stale).unwrap();
        let kept = Store::restore(&backup, &path, &Actor::cli("root")).unwrap();
        assert_eq!(fs::read(beside(&kept.unwrap(), "-wal")).unwrap(), stale);
        assert_eq!(usernames(&Store::open(&path).unwrap()), ["smtp_a"]);
    }

    #[test]
    fn a_store_is_put_back_and_the_other_one_kept() {
        let store = Fixture::new();
        store.edit().create_credential(named("smtp_a")).unwrap();
        let backup = store.beside("backup.db");
        Store::back_up(&store.path(), &backup).unwrap();
        store.edit().create_credential(named("smtp_b")).unwrap();

        let actor = Actor::cli("root");
        let error = Store::restore(&backup, &store.path(), &actor).unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        assert_eq!(usernames(&store), ["smtp_a", "smtp_b"]);

        let (path, _directory) = store.close();
        let kept = Store::restore(&backup, &path, &actor).unwrap().unwrap();
        let restored = Store::open(&path).unwrap();
        assert_eq!(usernames(&restored), ["smtp_a"]);
        assert_eq!(
            usernames(&Store::open(&kept).unwrap()),
            ["smtp_a", "smtp_b"]
        );
        let newest = restored
            .audit(AuditFilter::default(), Page::ALL)
            .unwrap()
            .rows
            .remove(0);
        assert_eq!(
            (newest.action.as_str(), newest.actor.name.as_str()),
            ("store.restore", "root")
        );
        restored.verify_audit(None).unwrap();
    }

    #[test]
    fn a_damaged_store_can_be_replaced_and_a_damaged_backup_cannot_replace() {
        let store = Fixture::new();
        store.edit().create_credential(named("smtp_a")).unwrap();
        let backup = store.beside("backup.db");
        Store::back_up(&store.path(), &backup).unwrap();
        let (path, _directory) = store.close();
        fs::write(&path, "nonsense, and more of it; ".repeat(100)).unwrap();
        let actor = Actor::cli("root");
        Store::restore(&backup, &path, &actor).unwrap();
        assert_eq!(usernames(&Store::open(&path).unwrap()), ["smtp_a"]);

        let mut bytes = fs::read(&backup).unwrap();
        bytes[4096..].fill(0xa5);
        fs::write(&backup, bytes).unwrap();
        let error = Store::restore(&backup, &path, &actor).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert_eq!(usernames(&Store::open(&path).unwrap()), ["smtp_a"]);
    }

    #[test]
    fn a_thorough_check_finds_a_reference_to_nothing() {
        let store = Fixture::new();
        store.edit().create_credential(named("smtp_a")).unwrap();
        assert!(matches!(
            Store::check_thoroughly(&store.path()),
            Ok(StoreReport::Sound { .. })
        ));
        store.shell("PRAGMA foreign_keys = OFF; UPDATE credentials SET organization = 99");
        let error = Store::check_thoroughly(&store.path()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }
}
