//! Connections to the store: how each is set up, and how r2d2 gets new ones.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::StoreError;
use super::place::FileId;

/// How long SQLite waits for another process's write transaction.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The first SQLite without the WAL-reset bug, through which two connections that checkpoint and commit at the same moment
/// can damage the file.
const SOUND_SQLITE: i32 = 3_051_003;

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// Looks, and cannot change anything.
    Reader,
    /// There is one.
    Writer,
}

/// Opens the existing file at `path`. It never creates one: [`super::file::create`] does, with the right mode.
pub(super) fn open(path: &Path, role: Role) -> rusqlite::Result<Connection> {
    // Without SQLITE_OPEN_URI a path that starts with "file:" is a path. NO_MUTEX: one thread at a time has a connection.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(32);
    // Otherwise SQLite, built with STAT4, plans a join anew for each username bound to it: five times the cost of the lookup.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // FULL, because with NORMAL a power cut takes acknowledged changes back. No mmap, because an I/O error would be a SIGBUS.
    connection.execute_batch(
        "PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;
         PRAGMA mmap_size = 0;
         PRAGMA foreign_keys = ON;
         PRAGMA wal_autocheckpoint = 1000;
         PRAGMA synchronous = FULL;",
    )?;
    if role == Role::Reader {
        // 16 MiB each, as used: holds the pages of some thousand credentials, however many more there are.
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -16384;")?;
    }
    Ok(connection)
}

/// Refuses an SQLite library that can damage the store.
pub(super) fn require_sound_sqlite(number: i32) -> Result<(), StoreError> {
    if number < SOUND_SQLITE {
        return Err(StoreError::OldLibrary {
            found: rusqlite::version(),
        });
    }
    Ok(())
}

/// Makes r2d2's connections. (The published crate that does this pins another rusqlite.)
#[derive(Debug)]
pub(super) struct Manager {
    pub(super) path: PathBuf,
    pub(super) role: Role,
    /// The file that the first connection opened: connections to two files would make one store of both.
    pub(super) id: FileId,
}

impl r2d2::ManageConnection for Manager {
    type Connection = Connection;
    type Error = rusqlite::Error;

    fn connect(&self) -> rusqlite::Result<Connection> {
        match FileId::of(&self.path) {
            Ok(id) if id == self.id => open(&self.path, self.role),
            _ => Err(rusqlite::Error::InvalidPath(self.path.clone())),
        }
    }

    fn is_valid(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        connection.execute_batch("SELECT 1")
    }

    /// A file does not hang up. The writer must even stay the same one, see [`super::Store::poll`].
    fn has_broken(&self, _: &mut Connection) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_library_is_sound_and_older_ones_are_refused() {
        assert!(require_sound_sqlite(rusqlite::version_number()).is_ok());
        assert!(require_sound_sqlite(3_051_002).is_err());
        assert!(require_sound_sqlite(3_040_001).is_err());
    }

    #[test]
    fn a_missing_file_is_not_created() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gatepost.db");
        assert!(open(&path, Role::Writer).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn every_commit_is_synced_and_references_are_enforced() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for role in [Role::Reader, Role::Writer] {
            let connection = open(file.path(), role).unwrap();
            let value = |pragma: &str| {
                connection
                    .pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
                    .unwrap()
            };
            assert_eq!(value("synchronous"), 2);
            assert_eq!(value("foreign_keys"), 1);
            assert_eq!(value("trusted_schema"), 0);
            assert_eq!(value("mmap_size"), 0);
            assert_eq!(value("query_only"), i64::from(role == Role::Reader));
        }
    }
}
