//! Stores with many credentials in them, made in seconds.

use std::path::PathBuf;

use gatepost::store::{DEFAULT_ORGANIZATION, Store};
use rand::distr::{Alphanumeric, SampleString};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::{Connection, params};
use uuid::Uuid;

/// As long as a real one at the default cost. Nothing here verifies it.
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm90IGEgcmVhbCBzYWx0IQ$bm90IGEgcmVhbCBoYXNoIG9mIGFueSBwYXNzd29yZCE";

const FILE: &str = "gatepost.db";

/// An open store that goes when it is dropped.
pub struct FilledStore {
    pub store: Store,
    directory: tempfile::TempDir, // after the store, which closes its files first
}

/// As many different usernames as are asked for, the same in every run, in the form in which Gatepost issues them.
pub fn usernames(count: usize) -> Vec<String> {
    let mut generator = StdRng::seed_from_u64(587);
    let username = |_| {
        let mut username = String::from("smtp_");
        Alphanumeric.append_string(&mut generator, &mut username, 16);
        username
    };
    (0..count).map(username).collect()
}

impl FilledStore {
    /// A store with these credentials, made in this order, and nothing left in its write-ahead log.
    pub fn new<'a>(usernames: impl IntoIterator<Item = &'a String>) -> FilledStore {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join(FILE);
        drop(Store::open(&path).expect("a new store"));
        let mut connection = Connection::open(&path).expect("the store's file");
        fill(&mut connection, usernames).expect("the credentials");
        drop(connection);
        let store = Store::open(&path).expect("the filled store");
        FilledStore { store, directory }
    }

    /// Its database.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join(FILE)
    }
}

/// One transaction past [`Store`], whose own changes take a commit and a sync each. Rows and indexes end up as they would
/// there: the statement is the same, and usernames come in no order.
fn fill<'a>(
    connection: &mut Connection,
    usernames: impl IntoIterator<Item = &'a String>,
) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -1048576;")?;
    let mut generator = StdRng::seed_from_u64(465);
    let transaction = connection.transaction()?;
    let mut insert = transaction.prepare(
        "INSERT INTO credentials (id, username, organization, password_hash, tag, created_at)
         VALUES (?1, ?2, (SELECT key FROM organizations WHERE slug = ?3), ?4, ?5, ?6)",
    )?;
    for username in usernames {
        let id = Uuid::now_v7();
        let tag: u32 = generator.random();
        insert.execute(params![
            id.to_string(),
            username,
            DEFAULT_ORGANIZATION,
            HASH,
            tag,
            1_767_225_600_000_i64
        ])?;
    }
    drop(insert);
    transaction.commit()?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}
