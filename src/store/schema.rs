//! The schema's version: what is in the file, and the way from there to what this build knows.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use uuid::Uuid;

use super::error::Stop;
use super::{DEFAULT_ORGANIZATION, StoreError, backup, connection, now, search, text};

/// The whole schema, which a new store begins with.
pub(super) const SCHEMA: &str = include_str!("../../schema.sql");

/// `MIGRATIONS[n]` leads from version n + 1 to n + 2. A test holds their outcome against [`SCHEMA`].
const MIGRATIONS: [&str; 11] = [
    include_str!("migrations/2.sql"),
    include_str!("migrations/3.sql"),
    include_str!("migrations/4.sql"),
    include_str!("migrations/5.sql"),
    include_str!("migrations/6.sql"),
    include_str!("migrations/7.sql"),
    include_str!("migrations/8.sql"),
    include_str!("migrations/9.sql"),
    include_str!("migrations/10.sql"),
    include_str!("migrations/11.sql"),
    include_str!("migrations/12.sql"),
];

/// The newest version this build knows.
pub(super) const KNOWN: i64 = MIGRATIONS.len() as i64 + 1;

/// "Gate": marks the file as ours, for us and for file(1).
const APPLICATION_ID: i64 = 0x4761_7465;

/// Brings the database behind `connection` to version [`KNOWN`], in one transaction: a crash leaves either all of it or
/// nothing, and of several processes that come at once one does the work.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let at = |stop: Stop| stop.at(path);
    version(connection, path).map_err(at)?; // before anything is written into a file that is not ours
    use_wal(connection, path)?;
    if version(connection, path).map_err(at)? < KNOWN {
        migrate(connection, path).map_err(at)?;
    }
    Ok(())
}

/// The version of the schema in the file; 0 for an empty one.
pub(super) fn version(connection: &Connection, path: &Path) -> Result<i64, Stop> {
    // One statement, because another process may fill the file between two.
    let (found, application, is_empty): (i64, i64, bool) = connection.query_row(
        "SELECT user_version, application_id, NOT EXISTS (SELECT 1 FROM sqlite_schema)
         FROM pragma_user_version, pragma_application_id",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let path = path.to_owned();
    match application {
        APPLICATION_ID if found > KNOWN => Err(StoreError::NewerSchema {
            path,
            found,
            known: KNOWN,
        }
        .into()),
        APPLICATION_ID => Ok(found),
        0 if found == 0 && is_empty => Ok(0),
        _ => Err(StoreError::Foreign { path }.into()),
    }
}

/// Puts the file into WAL mode, which it then stays in. SQLite does not wait for locks here, so we do.
fn use_wal(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    const PAUSE: Duration = Duration::from_millis(10);
    let mut attempts = connection::BUSY_TIMEOUT.as_millis() / PAUSE.as_millis();
    loop {
        let mode =
            connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0));
        let error = match mode {
            Ok::<String, _>(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => StoreError::Io {
                path: path.to_owned(),
                detail: format!("the file system allows journal mode {mode:?} but not WAL"),
            },
            Err(error) => StoreError::from_sqlite(path, error),
        };
        if attempts == 0 || !matches!(error, StoreError::Busy { .. }) {
            return Err(error);
        }
        attempts -= 1;
        thread::sleep(PAUSE);
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Stop> {
    let found = version(connection, path)?;
    if found > 0 {
        keep_copy(connection, path, found)?;
    }
    // A migration that makes a table anew drops the old one, which would delete the rows that refer to it. SQLite ignores
    // this pragma inside a transaction.
    connection.pragma_update(None, "foreign_keys", false)?;
    let migrated = migrate_in_one_transaction(connection, path);
    connection.pragma_update(None, "foreign_keys", true)?;
    migrated
}

fn migrate_in_one_transaction(connection: &mut Connection, path: &Path) -> Result<(), Stop> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match version(&transaction, path)? {
        KNOWN => return Ok(()), // another process has been here in between
        0 => {
            transaction.execute_batch(SCHEMA)?;
            fill(&transaction)?;
        }
        found => {
            for (_, sql) in (1..).zip(MIGRATIONS).filter(|(from, _)| *from >= found) {
                transaction.execute_batch(sql)?;
            }
            while text::fill_name_keys(&transaction)? > 0 {}
            while search::write_blocks(&transaction)? > 0 {}
        }
    }
    transaction.pragma_update(None, "user_version", KNOWN)?;
    transaction.commit()?;
    Ok(())
}

/// What an older Gatepost can go back to.
fn keep_copy(connection: &Connection, path: &Path, version: i64) -> Result<(), StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".version-{version}"));
    backup::keep(connection, &PathBuf::from(name))
}

/// The rows of a new store that are made of random bytes.
fn fill(transaction: &Transaction) -> rusqlite::Result<()> {
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    let tag_key: [u8; 32] = rand::random();
    transaction.execute(
        "INSERT INTO instance (only, tag_key) VALUES (1, ?1)",
        [tag_key],
    )?;
    transaction.execute(
        "INSERT INTO organizations (id, slug, created_at) VALUES (?1, ?2, ?3)",
        params![Uuid::now_v7().to_string(), DEFAULT_ORGANIZATION, now()],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(sql: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        Connection::open(file.path())
            .unwrap()
            .execute_batch(sql)
            .unwrap();
        file
    }

    fn prepare_at(path: &Path) -> Result<(), StoreError> {
        let mut connection = connection::open(path, connection::Role::Writer)
            .map_err(|error| StoreError::from_sqlite(path, error))?;
        prepare(&mut connection, path)
    }

    fn refused_and_untouched(file: &tempfile::NamedTempFile) -> StoreError {
        let before = std::fs::read(file.path()).unwrap();
        let error = prepare_at(file.path()).unwrap_err();
        assert_eq!(
            before,
            std::fs::read(file.path()).unwrap(),
            "the file was changed"
        );
        error
    }

    #[test]
    fn an_empty_file_becomes_a_store_and_stays_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        prepare_at(file.path()).unwrap();
        prepare_at(file.path()).unwrap();
        let connection = Connection::open(file.path()).unwrap();
        assert_eq!(version(&connection, file.path()).unwrap(), KNOWN);
    }

    /// Version 1 as it was, with one credential in it.
    const VERSION_1: &str = include_str!("migrations/version_1_for_tests.sql");

    /// The whole schema, whichever way it was reached. A table that was renamed has quotes around its
    /// name, and a column that was added stands before the comment on the last one.
    fn outcome(path: &Path) -> Vec<String> {
        let connection = Connection::open(path).unwrap();
        let all = |sql: &str| -> Vec<String> {
            let mut statement = connection.prepare(sql).unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name <> 'sqlite_sequence' ORDER BY type, name";
        let plain = |sql: String| {
            let lines = sql.lines().map(|line| line.split("--").next().unwrap());
            let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
            let text = words.join(" ").replacen('"', "", 2);
            text.replace(" ,", ",").replace(" )", ")")
        };
        all(sql).into_iter().map(plain).collect()
    }

    #[test]
    fn an_older_store_becomes_what_a_new_one_is_and_keeps_its_rows_and_a_copy() {
        let old = database(VERSION_1);
        prepare_at(old.path()).unwrap();
        let new = tempfile::NamedTempFile::new().unwrap();
        prepare_at(new.path()).unwrap();
        assert_eq!(outcome(old.path()), outcome(new.path()));
        let username = |path: &Path| -> String {
            let connection = Connection::open(path).unwrap();
            connection
                .query_row("SELECT username FROM credentials", [], |row| row.get(0))
                .unwrap()
        };
        assert_eq!(username(old.path()), "smtp_old");
        let copy = PathBuf::from(format!("{}.version-1", old.path().display()));
        assert_eq!(username(&copy), "smtp_old");
        let connection = Connection::open(&copy).unwrap();
        assert_eq!(version(&connection, &copy).unwrap(), 1);
        std::fs::remove_file(copy).unwrap();
    }

    /// A store as version `version` left it, with rows in every table that another refers to, and with keys that were given
    /// and deleted since.
    fn store_of_version(version: usize) -> tempfile::NamedTempFile {
        // As in a migration: DROP TABLE would delete what refers to a table.
        let mut sql = format!("PRAGMA foreign_keys = OFF; {VERSION_1}");
        for (number, migration) in (2..=version).zip(MIGRATIONS) {
            sql += migration;
            sql += &format!("PRAGMA user_version = {number};");
        }
        sql += "PRAGMA foreign_keys = ON;
                INSERT INTO organizations (key, id, slug, created_at) VALUES (40, 'o', 'gone', 1);
                INSERT INTO credentials (key, id, username, organization, password_hash, created_at)
                VALUES (70, 'c', 'smtp_gone', 40, '$hash', 1);
                DELETE FROM credentials WHERE key = 70; DELETE FROM organizations WHERE key = 40;
                INSERT INTO last_used (credential, at, address, mechanism, helo, count)
                VALUES (1, 5, '192.0.2.1', 'PLAIN', 'helo', 3);
                UPDATE credentials SET status = 'revoked', revoked_at = 4;";
        if version >= 4 {
            sql += "UPDATE organizations SET limits = '{\"messages_hour\":5}';
                    UPDATE credentials SET rules = '{\"senders\":[\"ok.test\"]}';
                    INSERT INTO usage VALUES (1, 1, 1, 1, 1, 1, 1, 1);
                    INSERT INTO retired_passwords VALUES (1, 2, 3);
                    INSERT INTO trusted_networks VALUES (1, '192.0.2.0/24', 1);";
        }
        database(&sql)
    }

    #[test]
    fn a_table_that_is_made_anew_keeps_its_rows_and_what_refers_to_them() {
        let rows = |connection: &Connection, table: &str| -> Vec<Vec<rusqlite::types::Value>> {
            let mut statement = connection
                .prepare(&format!("SELECT * FROM {table} ORDER BY 1"))
                .unwrap();
            let columns = statement.column_count();
            let row = |row: &rusqlite::Row| (0..columns).map(|column| row.get(column)).collect();
            let rows = statement.query_map([], row).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let older = usize::try_from(KNOWN - 1).unwrap();
        for version in 1..=older {
            let file = store_of_version(version);
            let tables: Vec<String> = {
                let connection = Connection::open(file.path()).unwrap();
                let names = rows(
                    &connection,
                    "(SELECT name FROM sqlite_schema WHERE type = 'table')",
                );
                let name = |row: &Vec<rusqlite::types::Value>| match &row[0] {
                    rusqlite::types::Value::Text(name) => name.clone(),
                    other => panic!("{other:?}"),
                };
                names.iter().map(name).collect()
            };
            let before = Connection::open(file.path()).unwrap();
            let kept: Vec<_> = tables.iter().map(|table| rows(&before, table)).collect();
            drop(before);
            prepare_at(file.path()).unwrap();
            let after = connection::open(file.path(), connection::Role::Writer).unwrap();
            // A migration ends with the writing of the blocks for a search.
            let tables = tables.iter().zip(kept);
            for (table, kept) in tables.filter(|(table, _)| *table != "search_blocks") {
                let mut now = rows(&after, table);
                // Columns that came later stand behind the others, and are empty.
                for (row, kept) in now.iter_mut().zip(&kept) {
                    row.truncate(kept.len());
                }
                if table == "sqlite_sequence" {
                    now.retain(|row| kept.contains(row));
                }
                assert_eq!(now, kept, "{table} of version {version}");
            }
            let dangling: i64 = after
                .query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| {
                    row.get(0)
                })
                .unwrap();
            assert_eq!(dangling, 0, "version {version}");
            after
                .execute("DELETE FROM credentials", [])
                .expect("what refers to a credential goes with it");
            assert_eq!(rows(&after, "last_used"), Vec::<Vec<_>>::new());
            std::fs::remove_file(format!("{}.version-{version}", file.path().display())).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_no_database_is_refused() {
        for text in ["short", &"a longer text, over and over; ".repeat(200)] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let error = refused_and_untouched(&file);
            assert!(matches!(error, StoreError::NotADatabase { .. }), "{error}");
        }
    }

    #[test]
    fn the_schema_says_which_version_it_is() {
        let first = SCHEMA.lines().next().unwrap();
        assert!(
            first.ends_with(&format!("user_version = {KNOWN}.")),
            "{first}"
        );
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let file = database(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 99; CREATE TABLE future (x);"
        ));
        let error = refused_and_untouched(&file);
        assert!(
            matches!(error, StoreError::NewerSchema { found: 99, .. }),
            "{error}"
        );
    }

    #[test]
    fn the_database_of_another_program_is_refused() {
        for sql in [
            "CREATE TABLE contacts (x)",
            "PRAGMA user_version = 1",
            "PRAGMA user_version = 99",
        ] {
            let error = refused_and_untouched(&database(sql));
            assert!(
                matches!(error, StoreError::Foreign { .. }),
                "{sql}: {error}"
            );
        }
    }

    #[test]
    fn a_disk_that_fills_up_midway_leaves_nothing_half_made() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut connection = connection::open(file.path(), connection::Role::Writer).unwrap();
        use_wal(&connection, file.path()).unwrap();
        connection.pragma_update(None, "max_page_count", 4).unwrap();
        let error = prepare(&mut connection, file.path()).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert_eq!(version(&connection, file.path()).unwrap(), 0);
        drop(connection);
        prepare_at(file.path()).unwrap();
    }

    #[test]
    fn many_first_starts_at_once_make_one_store() {
        for _ in 0..20 {
            let file = tempfile::NamedTempFile::new().unwrap();
            thread::scope(|scope| {
                let starts: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| prepare_at(file.path())))
                    .collect();
                for start in starts {
                    start.join().unwrap().unwrap();
                }
            });
            let organizations: i64 = Connection::open(file.path())
                .unwrap()
                .query_row("SELECT count(*) FROM organizations", [], |row| row.get(0))
                .unwrap();
            assert_eq!(organizations, 1);
        }
    }
}
