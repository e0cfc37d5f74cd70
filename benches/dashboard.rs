//! A page of 50 of the dashboard's table, and a page of the API's list, from a running daemon with
//! 1,000,000 credentials.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use criterion::Criterion;
use gatepost::store::{Actor, Store};
use rusqlite::Connection;

use crate::filled_store::{FilledStore, usernames};

const MANY: usize = 1_000_000;

/// Of each way to narrow or sort the list a common and a costly case: a thousand devices called
/// "Rack" stand anywhere, 50 called "Attic" too.
const PAGES: [(&str, &str); 15] = [
    ("newest", ""),
    ("by_name", "?sort=name&dir=asc"),
    ("by_name_page_1000", "?sort=name&dir=asc&page=1000"),
    ("by_username", "?sort=username&dir=desc"),
    ("by_status", "?sort=status&dir=desc"),
    ("by_last_use", "?sort=last-used&dir=desc"),
    ("never_used_first", "?sort=last-used&dir=asc"),
    ("unused_for_90_days", "?unused=90"),
    ("unused_for_300_days", "?unused=300"),
    (
        "unused_for_300_days_by_name",
        "?unused=300&sort=name&dir=asc",
    ),
    ("revoked_by_name", "?status=revoked&sort=name&dir=asc"),
    ("search_device", "?q=device"),
    ("search_rack_by_last_use", "?q=rack&sort=last-used&dir=desc"),
    ("search_attic", "?q=attic"),
    ("search_without_a_hit", "?q=not-a-name-of-any-device"),
];

pub fn bench(criterion: &mut Criterion) {
    let many = if crate::measuring() {
        MANY
    } else {
        eprintln!("dashboard: not measuring, so 1,000 credentials stand in for {MANY}");
        1_000
    };
    let mut group = criterion.benchmark_group("dashboard");
    group.sample_size(50);
    let mut served = None;
    for (name, query) in PAGES {
        group.bench_function(format!("{name}/{many}"), |bencher| {
            let browser = served.get_or_insert_with(|| Browser::new(many));
            bencher.iter(|| {
                let page = browser.get(&format!("/organizations/default/credentials{query}"));
                assert!(page.contains("SMTP Credentials"));
                page.len()
            });
        });
    }
    group.finish();
}

/// Somebody who is signed in to a daemon of their own.
struct Browser {
    stream: BufReader<UnixStream>,
    cookie: String,
    daemon: Child,
    _store: FilledStore,
}

impl Browser {
    fn new(many: usize) -> Browser {
        let store = FilledStore::new(&usernames(many));
        let path = store.path();
        let directory = path.parent().expect("a directory").to_owned();
        fill(&path, many).expect("names and usage");
        write_search_blocks(&store.store, many);
        configure(&directory, &path);
        let token = gatepost(
            &directory,
            &[
                "token",
                "create",
                "--name",
                "bench",
                "--scope",
                "instance:read",
                "--json",
            ],
        )
        .output()
        .expect("gatepost token create");
        let token: serde_json::Value = serde_json::from_slice(&token.stdout).expect("a token");
        let daemon = gatepost(&directory, &["serve"])
            .spawn()
            .expect("gatepost serve");
        let mut browser = Browser {
            stream: BufReader::new(connect(&directory.join("admin.sock"))),
            cookie: String::new(),
            daemon,
            _store: store,
        };
        browser.sign_in(token["secret"].as_str().expect("the token's secret"));
        browser
    }

    fn sign_in(&mut self, token: &str) {
        let (head, _) = self.ask("GET /sign-in HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let form = cookie(&head, "gatepost-form");
        let body = format!("csrf={form}&token={token}");
        let (head, _) = self.ask(&format!(
            "POST /sign-in HTTP/1.1\r\nHost: localhost\r\nCookie: gatepost-form={form}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        self.cookie = cookie(&head, "gatepost");
    }

    fn get(&mut self, path: &str) -> String {
        let cookie = &self.cookie;
        let (head, body) = self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: gatepost={cookie}\r\n\r\n"
        ));
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        body
    }

    fn ask(&mut self, request: &str) -> (String, String) {
        self.stream
            .get_mut()
            .write_all(request.as_bytes())
            .expect("a request");
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let start = head.len();
            self.stream.read_line(&mut head).expect("an answer's head");
            let line = head[start..].trim_end();
            if let Some(text) = line.strip_prefix("content-length: ") {
                length = text.parse().expect("a length");
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("an answer's body");
        (head, String::from_utf8(body).expect("UTF-8"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn gatepost(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command
        .arg("--config")
        .arg(directory.join("config.toml"))
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The daemon's own certificate, a port that is free now, and an upstream that nobody asks for.
fn configure(directory: &Path, store: &Path) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let write = |name: &str, text: String| -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file beside the store");
        path
    };
    let certificate = write("certificate.pem", pair.cert.pem());
    let key = write("key.pem", pair.signing_key.serialize_pem());
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
    let address = free.expect("a free port");
    let socket = directory.join("admin.sock");
    write(
        "config.toml",
        format!(
            "hostname = \"localhost\"\n[[listener]]\nkind = \"submission\"\naddress = \"{address}\"\n[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n[upstream]\naddress = \"unix:{}/none\"\n[store]\npath = {store:?}\n[admin]\nsocket = {socket:?}\n",
            directory.display()
        ),
    );
}

/// Waits until the daemon is there.
fn connect(socket: &Path) -> UnixStream {
    let started = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return stream,
            Err(error) => assert!(started.elapsed() < Duration::from_secs(30), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a set-cookie line sets.
fn cookie(head: &str, name: &str) -> String {
    let start = format!("set-cookie: {name}=");
    let line = head.lines().find_map(|line| line.strip_prefix(&start));
    let value = line.and_then(|line| line.split(';').next());
    value
        .unwrap_or_else(|| panic!("no cookie {name}: {head}"))
        .to_owned()
}

/// Each change writes part of what a search reads.
fn write_search_blocks(store: &Store, many: usize) {
    let actor = Actor::system("bench");
    for number in 0..=many / 50_000 {
        let slug = format!("other-{number}");
        let created = store.by(&actor).create_organization(&slug, None);
        created.expect("another organization");
    }
}

/// Names for all, a last use in the last 330 days for half of them, every 5,000th revoked, and for
/// the newest thousand, usage in every hour of thirty days.
fn fill(path: &Path, many: usize) -> rusqlite::Result<()> {
    let connection = Connection::open(path)?;
    connection.execute_batch(&format!(
        "PRAGMA synchronous = OFF;
         BEGIN;
         UPDATE credentials SET
             name = iif(key % 1000 = 17, 'Rack ', iif(key % 20000 = 7, 'Attic ', 'Device '))
                 || (key * 7919 % {many}),
             status = iif(key % 5000 = 3, 'revoked', 'active');
         INSERT INTO last_used (credential, at, address, tls, mechanism, helo, count)
             SELECT key, (unixepoch() - key * 7919 % (330 * 86400)) * 1000, '192.0.2.7', 'TLSv1.3', 'PLAIN', 'host.example.test', 3
             FROM credentials WHERE key % 2 = 0;
         INSERT INTO usage (organization, credential, hour, messages, recipients, bytes, accepted, refused)
             WITH RECURSIVE ago (hours) AS (SELECT 0 UNION ALL SELECT hours + 1 FROM ago WHERE hours < 719)
             SELECT organization, key, unixepoch() / 3600 - hours, 2, 2, 8192, 1, 0
             FROM credentials, ago WHERE key > {many} - 1000;
         COMMIT;
         PRAGMA wal_checkpoint(TRUNCATE);"
    ))
}
