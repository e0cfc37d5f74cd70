//! A page of 50 of the dashboard's table, asked of a running daemon that has 100,000 credentials.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use criterion::Criterion;
use rusqlite::Connection;

use crate::filled_store::{FilledStore, usernames};

const MANY: usize = 100_000;

/// The pages that are asked for: those that an index has in order, and those for which all rows are looked at.
const PAGES: [(&str, &str); 6] = [
    ("newest", ""),
    ("by_name", "?sort=name&dir=asc"),
    ("by_name_page_1000", "?sort=name&dir=asc&page=1000"),
    ("by_last_use", "?sort=last-used&dir=desc"),
    ("unused_for_90_days", "?unused=90"),
    ("search_without_a_hit", "?q=nobody-is-called-this"),
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

/// Names for all, a last use for half of them, and for the newest thousand, usage in every hour of thirty days.
fn fill(path: &Path, many: usize) -> rusqlite::Result<()> {
    let connection = Connection::open(path)?;
    connection.execute_batch(&format!(
        "PRAGMA synchronous = OFF;
         BEGIN;
         UPDATE credentials SET name = 'Device ' || (key * 7919 % {many});
         INSERT INTO last_used (credential, at, address, tls, mechanism, helo, count)
             SELECT key, 1767225600000 + key * 7919 % 1000000000, '192.0.2.7', 'TLSv1.3', 'PLAIN', 'host.example.test', 3
             FROM credentials WHERE key % 2 = 0;
         INSERT INTO usage (organization, credential, hour, messages, recipients, bytes, accepted, refused)
             WITH RECURSIVE ago (hours) AS (SELECT 0 UNION ALL SELECT hours + 1 FROM ago WHERE hours < 719)
             SELECT organization, key, unixepoch() / 3600 - hours, 2, 2, 8192, 1, 0
             FROM credentials, ago WHERE key > {many} - 1000;
         COMMIT;
         PRAGMA wal_checkpoint(TRUNCATE);"
    ))
}
