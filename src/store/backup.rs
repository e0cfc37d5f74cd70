//! Copies of the store: made while it is used, and put back when it is not.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

use super::error::Stop;
use super::{Actor, Store, StoreError, StoreReport, file, inspect, schema};

/// So many pages are copied at a time; in between, others may write.
const PAGES: i32 = 1024;

impl Store {
    /// Copies the store at `path`, which may be in use, to `target`, which must not exist. The copy appears whole and checked
    /// or not at all, on disk, with mode 0600.
    ///
    /// # Errors
    /// There is no store, `target` exists or cannot be written, or the copy turns out damaged.
    pub fn back_up(path: &Path, target: &Path) -> Result<StoreReport, StoreError> {
        if target.exists() {
            return Err(StoreError::Invalid(format!(
                "{} already exists: a backup is never written over; choose another name",
                target.display()
            )));
        }
        let source = existing(path)?;
        let mut report = StoreReport::Missing;
        place(target, |temporary| {
            copy(&source, temporary)?;
            report = verify(temporary)?;
            Ok(())
        })?;
        Ok(report)
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
        let backup = existing(source)?;
        let mut kept = None;
        place(path, |temporary| {
            copy(&backup, temporary)?;
            if file::exists(path)? {
                kept = Some(set_aside(path)?);
            }
            Ok(())
        })?;
        let store = Store::open(path)?;
        store.by(actor).note_restore(source)?;
        Ok(kept)
    }

    /// Checks every page, index and reference of the store at `path`, which may be in use.
    ///
    /// # Errors
    /// Any damage found, or what keeps it from being read.
    pub fn check_thoroughly(path: &Path) -> Result<StoreReport, StoreError> {
        if !file::exists(path)? {
            return Ok(StoreReport::Missing);
        }
        verify(path)
    }
}

/// Copies what `source` holds into a new file at `target`. Also keeps the store as it was before a migration.
pub(super) fn copy(source: &Connection, target: &Path) -> Result<(), StoreError> {
    // Made first, so that it is private from its first byte on.
    let made = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(target);
    made.map_err(|error| failed(target, &error))?;
    let at = |error| StoreError::from_sqlite(target, error);
    let mut copy =
        Connection::open_with_flags(target, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(at)?;
    let backup = Backup::new(source, &mut copy).map_err(at)?;
    backup
        .run_to_completion(PAGES, Duration::ZERO, None)
        .map_err(at)?;
    drop(backup);
    // A copy that is one file. Whoever uses it as a store puts it into WAL mode again.
    let mode = copy.pragma_update_and_check(None, "journal_mode", "delete", |row| {
        row.get::<_, String>(0)
    });
    mode.map(drop).map_err(at)
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

fn verify(path: &Path) -> Result<StoreReport, StoreError> {
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

/// Lets `make` write a file beside `target` and, once it is on disk, gives it that name.
fn place(
    target: &Path,
    make: impl FnOnce(&Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let temporary = beside(target, ".new");
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    let placed = make(&temporary).and_then(|()| {
        let renamed = sync(&temporary)
            .and_then(|()| fs::rename(&temporary, target))
            .and_then(|()| sync(&file::directory(target)));
        renamed.map_err(|error| failed(target, &error))
    });
    if placed.is_err() {
        let _ = fs::remove_file(&temporary); // most likely it was never made
    } else {
        file::give_to_owner_of_directory(target);
    }
    placed
}

/// Moves the store at `path` out of the way. Refuses while somebody has it open.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let kept = beside(path, &format!(".before-restore-{}", super::now()));
    match alone(path) {
        // A damaged store is what backups are for; nobody can be using it.
        Ok(()) | Err(StoreError::Corrupt { .. } | StoreError::NotADatabase { .. }) => {}
        Err(StoreError::Busy { .. }) => {
            return Err(StoreError::InUse {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(error),
    }
    for suffix in ["-wal", "-shm", ""] {
        let from = beside(path, suffix);
        match fs::rename(&from, beside(&kept, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&from, &error));
            }
            _ => {}
        }
    }
    Ok(kept)
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

fn beside(path: &Path, suffix: &str) -> PathBuf {
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
        assert!(!beside(&target, ".new").exists() && !beside(&target, "-wal").exists());
        let error = Store::back_up(&store.path(), &target).unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{error}");
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
        restored.verify_audit().unwrap();
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
