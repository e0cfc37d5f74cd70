//! A store with many credentials that all have the same password, so that they are made in seconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::SeedableRng;
use rand::distr::{Alphanumeric, SampleString};
use rand::rngs::StdRng;
use rusqlite::{Connection, params};
use uuid::Uuid;

use crate::program;
use crate::site::{Credential, Site};

/// The cheapest argon2id there is: that of the defaults would hide all else.
pub const CHEAP: &str = "[auth]\nmemory_kib = 8\niterations = 1\n";

/// A filled store.
pub struct Filled {
    pub path: PathBuf,
    /// Some of those that it holds, scattered over it, in no order.
    pub some: Arc<Vec<Credential>>,
    /// The size of its file.
    pub mib: f64,
}

impl Filled {
    /// With so many credentials, of which it tells at most `most`.
    pub fn new(site: &Site, count: usize, most: usize) -> Filled {
        let directory = site.room("filled");
        let path = directory.join("gatepost.db");
        let model = model(site, &directory, &path);
        let mut connection = Connection::open(&path).expect("the store");
        let usernames = fill(&mut connection, count, &model.username).expect("the credentials");
        drop(connection);
        let size = fs::metadata(&path).expect("the store's file").len();
        // They were made in no order, so the first are as scattered as any.
        let some = usernames.into_iter().take(most).map(|username| Credential {
            username,
            ..model.clone()
        });
        Filled {
            some: Arc::new(some.collect()),
            mib: size as f64 / 1024.0 / 1024.0,
            path,
        }
    }
}

/// The one whose password and hash all others have.
fn model(site: &Site, directory: &Path, path: &Path) -> Credential {
    let text = fs::read_to_string(site.path("gatepost.toml")).expect("the configuration");
    let (before, _) = text.split_once("[store]").expect("the store comes last");
    let file = directory.join("gatepost.toml");
    let text = format!("{before}[store]\npath = {path:?}\n{CHEAP}");
    fs::write(&file, text).expect("a configuration");
    let output = program::command()
        .arg("--config")
        .arg(&file)
        .args(["credential", "create", "--json"])
        .output()
        .expect("gatepost credential create");
    assert!(output.status.success(), "{output:?}");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a credential");
    let text = |key: &str| value[key].as_str().expect(key).to_owned();
    Credential {
        username: text("username"),
        password: text("password"),
        hash: String::new(),
    }
}

/// One transaction, where Gatepost's own changes take a commit and a sync each.
fn fill(connection: &mut Connection, count: usize, model: &str) -> rusqlite::Result<Vec<String>> {
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -1048576;")?;
    let mut generator = StdRng::seed_from_u64(587);
    let mut usernames = Vec::with_capacity(count);
    let transaction = connection.transaction()?;
    let mut insert = transaction.prepare(
        "INSERT INTO credentials (id, username, organization, password_hash, tag, created_at)
         SELECT ?1, ?2, organization, password_hash, tag, created_at FROM credentials WHERE username = ?3",
    )?;
    for _ in 0..count {
        let mut username = String::from("smtp_");
        Alphanumeric.append_string(&mut generator, &mut username, 16);
        insert.execute(params![Uuid::now_v7().to_string(), username, model])?;
        usernames.push(username);
    }
    drop(insert);
    transaction.commit()?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(usernames)
}
