//! What all peers share: a directory, a certificate, and the names and passwords, which are those of a Gatepost's store.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::backend;
use crate::peer;
use crate::ports;
use crate::program;
use crate::sink::Sink;

/// A name and its password.
#[derive(Clone)]
pub struct Credential {
    pub username: String,
    pub password: String,
    /// Argon2id, as Gatepost stores it.
    pub hash: String,
}

/// How many credentials log in.
const WARM: usize = 20;

/// How many never do, so that nothing about them is remembered anywhere.
const COLD: usize = 20;

/// Everything that the peers are started with.
pub struct Site {
    /// Those that log in.
    pub warm: Arc<Vec<Credential>>,
    /// Those that never do.
    pub cold: Arc<Vec<Credential>>,
    /// Right, but revoked.
    pub revoked: Arc<Vec<Credential>>,
    /// Right, but expired.
    pub expired: Arc<Vec<Credential>>,
    pub sink: Sink,
    /// nginx's backend.
    pub backend: SocketAddr,
    directory: TempDir,
}

impl Site {
    /// Makes everything, and starts the sink and the backend.
    pub fn new() -> Site {
        // Not under TMPDIR: users such as postfix must be able to walk there.
        let directory = tempfile::Builder::new()
            .prefix("gatepost-peers-")
            .tempdir_in("/tmp")
            .expect("a directory");
        peer::watch_for_signals(directory.path().to_owned());
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))
            .expect("a directory that others may enter");
        write_certificate(directory.path());
        write_configuration(directory.path());
        let mut credentials = create_credentials(directory.path(), WARM + COLD + 2);
        let expired = credentials.split_off(WARM + COLD + 1);
        let revoked = credentials.split_off(WARM + COLD);
        let cold = credentials.split_off(WARM);
        end_credentials(directory.path(), &revoked, &expired);
        // Some name the identity to act as, which is the same (RFC 4616).
        let logins = credentials.iter().flat_map(|credential| {
            let Credential {
                username, password, ..
            } = credential;
            ["", username.as_str()].map(|identity| {
                let message = format!("{identity}\0{username}\0{password}");
                STANDARD.encode(message).into_bytes()
            })
        });
        let sink = Sink::start(ports::free_address(), logins.collect()).expect("a sink");
        let backend = ports::free_address();
        backend::start(backend, sink.address, &credentials).expect("a backend for nginx");
        Site {
            warm: Arc::new(credentials),
            cold: Arc::new(cold),
            revoked: Arc::new(revoked),
            expired: Arc::new(expired),
            sink,
            backend,
            directory,
        }
    }

    /// A file of the site.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new directory below it, for one peer.
    pub fn room(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        if path.exists() {
            fs::remove_dir_all(&path).expect("an old directory goes");
        }
        fs::create_dir(&path).expect("a directory");
        path
    }

    /// Has the command line change the store; what it says.
    pub fn gatepost(&self, arguments: &[&str]) -> Vec<u8> {
        gatepost(self.directory.path(), arguments)
    }

    /// Further credentials.
    pub fn create(&self, count: usize) -> Vec<Credential> {
        create_credentials(self.directory.path(), count)
    }

    /// The store, for what the command line does not do.
    pub fn store(&self) -> rusqlite::Connection {
        store(self.directory.path())
    }
}

/// ECDSA with P-256, as certificate.pem, key.pem and both in pair.pem.
fn write_certificate(directory: &Path) {
    let names = ["mail.example.test".to_owned(), "localhost".to_owned()];
    let pair = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    let write = |name: &str, text: &str| {
        fs::write(directory.join(name), text).expect("a file of the certificate");
    };
    write("certificate.pem", &certificate);
    write("key.pem", &key);
    write("pair.pem", &format!("{certificate}{key}"));
}

/// Enough for the command line; the daemon has its own.
fn write_configuration(directory: &Path) {
    let store = directory.join("store");
    fs::create_dir(&store).expect("a directory for the store");
    let text = format!(
        "hostname = \"mail.example.test\"\n\
         [[listener]]\nkind = \"submission\"\naddress = \"127.0.0.1:1587\"\n\
         [tls]\ncertificate = {:?}\nkey = {:?}\n\
         [upstream]\naddress = \"127.0.0.1:1025\"\n\
         [store]\npath = {:?}\n",
        directory.join("certificate.pem"),
        directory.join("key.pem"),
        store.join("gatepost.db"),
    );
    fs::write(directory.join("gatepost.toml"), text).expect("a configuration");
}

fn gatepost(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = program::command()
        .arg("--config")
        .arg(directory.join("gatepost.toml"))
        .args(arguments)
        .output()
        .expect("gatepost runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "gatepost {arguments:?}: {error}");
    output.stdout
}

fn store(directory: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(directory.join("store/gatepost.db")).expect("the store")
}

fn create_credentials(directory: &Path, count: usize) -> Vec<Credential> {
    let created: Vec<_> = (0..count)
        .map(|_| {
            let created = gatepost(directory, &["credential", "create", "--json"]);
            let value: serde_json::Value = serde_json::from_slice(&created).expect("a credential");
            let text = |key: &str| value[key].as_str().expect(key).to_owned();
            (text("username"), text("password"))
        })
        .collect();
    let store = store(directory);
    let hash = |username: &str| {
        let query = "SELECT password_hash FROM credentials WHERE username = ?1";
        store
            .query_row(query, [username], |row| row.get(0))
            .expect("a hash")
    };
    created
        .into_iter()
        .map(|(username, password)| Credential {
            hash: hash(&username),
            username,
            password,
        })
        .collect()
}

/// As the command line would; but it gives out nothing that has expired.
fn end_credentials(directory: &Path, revoked: &[Credential], expired: &[Credential]) {
    let store = store(directory);
    let change = |what: &str, credentials: &[Credential]| {
        for Credential { username, .. } in credentials {
            let statement = format!("UPDATE credentials SET {what} WHERE username = ?1");
            let changed = store.execute(&statement, [username]).expect("a change");
            assert_eq!(changed, 1, "{statement}");
        }
    };
    change("status = 'revoked', revoked_at = created_at", revoked);
    change("expires_at = created_at", expired);
}
