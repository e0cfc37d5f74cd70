//! Who guesses passwords is kept out, and nobody else.

mod flood;
mod refusals;

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::auth_client::AuthClient;
use crate::support::client::{Client, Reply};
use crate::support::eventually;
use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::prometheus::get;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::Upstream;

/// A daemon that watches loopback, answers quickly, and can be asked by the command line.
struct Guarded {
    daemon: Gatepost,
    metrics: SocketAddr,
    _upstream: Upstream,
    _directory: TempDir,
}

impl Guarded {
    fn start() -> Guarded {
        Guarded::start_with(|config| config)
    }

    fn start_with(arrange: impl FnOnce(Config) -> Config) -> Guarded {
        let (upstream, directory) = (Upstream::start(), tempfile::tempdir().unwrap());
        let (socket, metrics) = (directory.path().join("admin.sock"), ports::free_address());
        let config = Config::for_upstream(upstream.address)
            .guarded()
            .text("auth", "refusal_delay", "10ms")
            .text("last_used", "flush_interval", "100ms")
            .text("admin", "socket", socket.to_str().unwrap())
            .text("metrics", "listen", &metrics.to_string());
        Guarded {
            daemon: Gatepost::start(arrange(config)),
            metrics,
            _upstream: upstream,
            _directory: directory,
        }
    }

    fn listed(&self) -> Vec<Value> {
        let listed = self.daemon.json(&["guard", "list"]);
        listed.as_array().unwrap().clone()
    }

    /// What is held against `network`.
    fn against(&self, network: &str) -> Option<Value> {
        let mut listed = self.listed().into_iter();
        listed.find(|entry| entry["network"] == network)
    }

    fn counted(&self, series: &str) -> f64 {
        let text = get(self.metrics, "/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        let line = line.unwrap_or_else(|| panic!("no {series} in {text}"));
        line.trim().parse().unwrap()
    }
}

/// Has `site` take this username and password over from elsewhere.
fn import(site: &Site, username: &str, password: &str) -> Credential {
    let path = site.path("store").join("users.csv");
    let text = format!("username,password\n{username},{{PLAIN}}{password}\n");
    std::fs::write(&path, text).expect("write a file");
    site.succeed(&["import", "--format", "csv", path.to_str().unwrap()]);
    // It holds the password.
    std::fs::remove_file(&path).expect("remove a file");
    let (username, password) = (username.to_owned(), password.to_owned());
    Credential { username, password }
}

/// Connects and says EHLO inside TLS. `None` where the connection is closed at once.
fn greeted(site: &Site, from: &str) -> Option<Client> {
    let client = Client::dial_from(from.parse().unwrap(), site.submission).ok()?;
    let mut client = client;
    let greeting = client.try_reply()?;
    if !greeting.starts_with("220") {
        return None;
    }
    let mut client = client.starttls();
    client.expect("EHLO client.example", "250");
    Some(client)
}

/// One login on a connection of its own. `None` where the connection is closed at once.
fn log_in(site: &Site, from: &str, credential: &Credential) -> Option<Reply> {
    Some(greeted(site, from)?.auth_plain(credential))
}

/// A password that was never given out, another one for each number.
fn guess(credential: &Credential, number: usize) -> Credential {
    Credential {
        username: credential.username.clone(),
        password: format!("sk_{number:032}"),
    }
}

fn guess_times(site: &Site, from: &str, credential: &Credential, times: usize) {
    for number in 0..times {
        let reply = log_in(site, from, &guess(credential, number)).expect("not banned yet");
        let expected = if number == 9 {
            "421 4.7.0"
        } else {
            "535 5.7.8"
        };
        reply.expect(expected);
    }
}

#[test]
fn ten_guesses_close_the_door_for_one_address_alone() {
    let guarded = Guarded::start();
    let site = &guarded.daemon;
    let credential = site.create();
    guess_times(site, "127.0.1.7", &credential, 10);
    site.wait_for_log(&[
        "gatepost::guard: network banned address=127.0.1.7 network=127.0.1.7/32 bans=1 seconds=900",
    ]);
    assert_eq!(log_in(site, "127.0.1.7", &credential), None);
    let implicit = Client::dial_from("127.0.1.7".parse().unwrap(), site.submissions);
    implicit.expect("connect").expect_close();
    log_in(site, "127.0.1.8", &credential)
        .unwrap()
        .expect("235");

    let charge = guarded.against("127.0.1.7/32").unwrap();
    assert_eq!(
        (&charge["state"], &charge["bans"], &charge["scope"]),
        (&json!("banned"), &json!(1), &json!("address"))
    );
    assert!(
        charge["why"].as_str().unwrap().contains("closed"),
        "{charge}"
    );
    assert_eq!(guarded.against("127.0.1.0/24").unwrap()["state"], "counted");
    let text = site.succeed(&["guard", "list"]);
    assert!(
        text.contains("127.0.1.7/32") && text.contains("banned"),
        "{text}"
    );
    for (series, expected) in [
        ("gatepost_guard_bans_total{scope=\"address\"}", 1.0),
        ("gatepost_guard_banned{scope=\"address\"}", 1.0),
        ("gatepost_guard_tracked{scope=\"network\"}", 1.0),
        ("gatepost_guard_shed_total{reason=\"banned\"}", 2.0),
    ] {
        assert_eq!(guarded.counted(series), expected, "{series}");
    }
}

#[test]
fn who_is_banned_is_turned_away_on_an_open_connection() {
    let guarded = Guarded::start();
    let site = &guarded.daemon;
    let credential = site.create();
    let mut open = greeted(site, "127.0.1.7").unwrap();
    let mut remembered = greeted(site, "127.0.1.7").unwrap();
    log_in(site, "127.0.9.9", &credential)
        .unwrap()
        .expect("235");
    guess_times(site, "127.0.1.7", &credential, 10);
    open.auth_plain(&guess(&credential, 99)).expect("421 4.7.0");
    open.expect_close();
    site.wait_for_log(&["login refused", "result=\"barred\" reason=\"guard\""]);
    assert_eq!(
        guarded.counted("gatepost_auth_total{reason=\"guard\",result=\"barred\"}"),
        1.0
    );
    // The right password, which is remembered, is held up by nothing.
    remembered.auth_plain(&credential).expect("235");
}

#[test]
fn a_forgotten_device_is_no_attack() {
    let guarded = Guarded::start();
    let site = &guarded.daemon;
    let (stale, revoked) = (site.create(), site.create());
    site.succeed(&["credential", "revoke", &revoked.username]);
    for _ in 0..30 {
        log_in(site, "127.0.1.7", &stale.with_wrong_password())
            .unwrap()
            .expect("535");
        log_in(site, "127.0.1.7", &revoked).unwrap().expect("535");
    }
    assert_eq!(guarded.against("127.0.1.7/32").unwrap()["score"], 1.0);
}

#[test]
fn an_office_with_one_stale_client_keeps_working() {
    let guarded = Guarded::start();
    let site = guarded.daemon.site();
    let credentials: Vec<_> = (0..50).map(|_| site.create()).collect();
    let stale = site.create().with_wrong_password();
    let done = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (ended, office) = (done.clone(), &site);
        scope.spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                log_in(office, "127.0.1.7", &stale).unwrap().expect("535");
            }
        });
        let clients: Vec<_> = credentials
            .chunks(10)
            .map(|own| {
                scope.spawn(move || {
                    for _ in 0..3 {
                        for credential in own {
                            log_in(office, "127.0.1.7", credential)
                                .unwrap()
                                .expect("235");
                        }
                    }
                })
            })
            .collect();
        let served = clients.into_iter().all(|client| client.join().is_ok());
        done.store(true, Ordering::Relaxed);
        assert!(served);
    });
}

#[test]
fn a_ban_outlives_a_restart_and_ends_when_it_is_cleared() {
    let guarded = Guarded::start();
    let site = guarded.daemon.site();
    let credential = site.create();
    guess_times(&site, "127.0.1.7", &credential, 10);
    log_in(&site, "127.0.2.7", &credential)
        .unwrap()
        .expect("235");
    eventually("the ban and the login are written", || {
        let store = rusqlite::Connection::open(site.store()).unwrap();
        let counts = "SELECT (SELECT count(*) FROM penalties WHERE banned_until IS NOT NULL),
                             (SELECT count(*) FROM trusted_networks)";
        let counts = store.query_row(counts, [], |row| Ok((row.get(0)?, row.get(1)?)));
        (counts.unwrap() == (1, 1)).then_some(())
    });
    let Guarded {
        daemon,
        metrics,
        _upstream,
        _directory,
    } = guarded;
    daemon.kill();
    // Without a daemon, the store is asked.
    let listed = site.json(&["guard", "list"]);
    assert_eq!(listed[0]["network"], "127.0.1.7/32");
    assert_eq!(listed[0]["state"], "banned");
    let guarded = Guarded {
        daemon: Gatepost::serve(&site),
        metrics,
        _upstream,
        _directory,
    };
    assert_eq!(log_in(&site, "127.0.1.7", &credential), None);
    // Where somebody logged in before the restart, guesses are slowed and never banned.
    for number in 0..12 {
        log_in(&site, "127.0.2.7", &guess(&credential, number))
            .expect("known from before the restart")
            .expect("535");
    }

    let cleared = site.json(&["guard", "clear", "127.0.1.7"]);
    assert_eq!(cleared, json!({ "cleared": 2 }));
    log_in(&site, "127.0.1.7", &credential)
        .unwrap()
        .expect("235");
    assert_eq!(guarded.against("127.0.1.7/32"), None);
    let again = site.succeed(&["guard", "clear", "127.0.1.7"]);
    assert_eq!(again, "Nothing is held against 127.0.1.7.\n");
    let actions = ["audit", "list", "--action", "guard.clear"];
    assert_eq!(site.json(&actions)[0]["object"], "127.0.1.7");
    // Nor is it remembered any more who logged in there.
    site.succeed(&["guard", "clear", "127.0.2.0/24"]);
    guess_times(&site, "127.0.2.7", &credential, 10);
    let wrong = site.run(&["guard", "clear", "everybody"]);
    assert_eq!(wrong.status.code(), Some(1));
}

#[test]
fn a_load_balancer_is_never_to_blame() {
    let guarded = Guarded::start_with(|config| config.proxy_from(&["127.0.0.2"]));
    let site = &guarded.daemon;
    let credential = site.create();
    let through = |client: &str| {
        let dialled = Client::dial_from("127.0.0.2".parse().unwrap(), site.submission);
        let mut dialled = dialled.expect("connect");
        dialled.write(format!("PROXY TCP4 {client} 192.0.2.1 40000 587\r\n").as_bytes());
        dialled.try_reply()?.expect("220");
        let mut dialled = dialled.starttls();
        dialled.expect("EHLO client.example", "250");
        Some(dialled)
    };
    for number in 0..10 {
        let mut client = through("203.0.113.7").unwrap();
        client.auth_plain(&guess(&credential, number));
    }
    assert!(through("203.0.113.7").is_none(), "the client is banned");
    let mut other = through("203.0.113.8").expect("its neighbour is not");
    other.auth_plain(&credential).expect("235");
    assert_eq!(guarded.against("127.0.0.2/32"), None);
    assert!(guarded.against("203.0.113.7/32").is_some());
}

#[test]
fn strangers_have_only_so_many_connections() {
    let guarded = Guarded::start();
    let site = &guarded.daemon;
    let credential = site.create();
    let mut open: Vec<_> = (0..16)
        .map(|_| greeted(site, "127.0.1.7").unwrap())
        .collect();
    let more = || Client::dial_from("127.0.1.7".parse().unwrap(), site.submission).unwrap();
    more().reply().expect("421 4.7.0");
    assert_eq!(
        guarded.counted("gatepost_guard_shed_total{reason=\"per_address\"}"),
        1.0
    );
    // Who has logged in is not counted any more, and is known from then on.
    open[0].auth_plain(&credential).expect("235");
    let known: Vec<_> = (0..20)
        .map(|_| greeted(site, "127.0.1.7").expect("known"))
        .collect();
    drop((open, known));
    let places: Vec<_> = (0..64)
        .map(|host| greeted(site, &format!("127.0.2.{}", 1 + host)).unwrap())
        .collect();
    let neighbour = Client::dial_from("127.0.2.99".parse().unwrap(), site.submission);
    neighbour.unwrap().reply().expect("421 4.7.0");
    drop(places);
    eventually("the places are given back", || greeted(site, "127.0.2.99"));
}

#[test]
fn nonsense_in_the_place_of_a_login_counts_a_little() {
    let guarded = Guarded::start_with(|config| config.number("limits", "errors", 1000));
    let site = &guarded.daemon;
    let mut client = greeted(site, "127.0.1.7").unwrap();
    for _ in 0..10 {
        client.expect("AUTH PLAIN !", "501 5.5.2");
        client.expect("AUTH LOGIN", "334");
        client.expect("*", "501 5.7.0");
    }
    let mut clear = Client::dial_from("127.0.1.7".parse().unwrap(), site.submission).unwrap();
    clear.reply().expect("220");
    for _ in 0..5 {
        clear.expect("AUTH PLAIN AGEAYg==", "530 5.7.0");
    }
    let score = guarded.against("127.0.1.7/32").unwrap()["score"].clone();
    assert_eq!(score, 5.0);
    for _ in 0..25 {
        client.expect("AUTH PLAIN !", "501 5.5.2");
    }
    assert!(greeted(site, "127.0.1.7").is_none(), "banned");
}

#[test]
fn what_postfix_asks_counts_for_the_client_it_names() {
    let address = ports::free_address();
    let guarded = Guarded::start_with(|config| {
        config
            .text("dovecot_auth", "listen", &address.to_string())
            .flag("dovecot_auth", "trusted", true)
    });
    let site = &guarded.daemon;
    let credential = site.create();
    let mut postfix = AuthClient::over_tcp(address);
    let mut ask = |id: usize, rip: &str, credential: &Credential| {
        let rip = if rip.is_empty() {
            String::new()
        } else {
            format!("\trip={rip}")
        };
        postfix.ask(&format!(
            "AUTH\t{id}\tPLAIN\tservice=smtp{rip}\tsecured\tresp={}",
            credential.plain()
        ))
    };
    for id in 1..=20 {
        let answer = ask(id, "", &guess(&credential, id));
        assert_eq!(answer, format!("FAIL\t{id}"));
    }
    let unknown = guarded.against("0.0.0.0/32").unwrap();
    assert_eq!(
        (&unknown["score"], &unknown["state"]),
        (&json!(20.0), &json!("slowed"))
    );
    for id in 1..=10 {
        ask(id, "198.51.100.7", &guess(&credential, id));
    }
    let barred = ask(11, "198.51.100.7", &guess(&credential, 11));
    assert_eq!(barred, "FAIL\t11\ttemp");
    assert!(ask(12, "198.51.100.8", &credential).starts_with("OK\t12"));
    assert_eq!(
        guarded.against("198.51.100.7/32").unwrap()["state"],
        "banned"
    );
}

/// Asks on the authentication socket for a client at `rip`, with passwords that are all wrong.
fn guess_at(socket: &mut AuthClient, rip: &str, credential: &Credential, times: usize) {
    for id in 1..=times {
        let resp = guess(credential, id).plain();
        let asked = format!("AUTH\t{id}\tPLAIN\tservice=smtp\t{rip}\tsecured\tresp={resp}");
        let answer = socket.ask(&asked);
        assert!(answer.starts_with(&format!("FAIL\t{id}")), "{answer}");
    }
}

#[test]
fn a_socket_that_any_user_can_reach_gets_no_client_banned_and_is_guarded_itself() {
    let address = ports::free_address();
    let guarded =
        Guarded::start_with(|config| config.text("dovecot_auth", "listen", &address.to_string()));
    let site = &guarded.daemon;
    site.wait_for_log(&[
        "WARN",
        "every local user can reach the auth socket",
        "trusted",
    ]);
    let credential = site.create();
    let mut socket = AuthClient::over_tcp(address);
    for rip in ["rip=127.0.1.9", "rip=unknown", "nologin"] {
        guess_at(&mut socket, rip, &credential, 15);
    }
    assert!(guarded.against("127.0.1.9/32").is_none());
    let unknown = guarded.against("0.0.0.0/32").unwrap();
    assert_eq!(unknown["state"], "slowed", "{unknown}");
    assert!(
        log_in(site, "127.0.1.9", &credential)
            .unwrap()
            .starts_with("235")
    );
    // A right password is neither refused nor a reason to trust the socket from now on.
    let right = format!(
        "AUTH\t99\tPLAIN\tservice=smtp\trip=127.0.1.9\tresp={}",
        credential.plain()
    );
    assert!(socket.ask(&right).starts_with("OK\t99"));
    guess_at(&mut socket, "rip=127.0.1.9", &guess(&credential, 0), 1);
    let checked = site.run(&["check"]);
    let checked = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.contains("warn  auth socket"), "{checked}");
}

#[test]
fn a_unix_socket_is_for_its_group_and_believed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("auth");
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let guarded = Guarded::start_with(|config| {
        config
            .text(
                "dovecot_auth",
                "listen",
                &format!("unix:{}", path.display()),
            )
            .text("dovecot_auth", "group", "daemon")
    });
    let site = &guarded.daemon;
    let socket = std::fs::metadata(&path).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
    assert_eq!(socket.gid(), 1, "the group daemon");
    // Another user of this machine.
    let stranger = Command::new("python3")
        .args([
            "-c",
            "import socket,sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])",
        ])
        .arg(&path)
        .uid(65_534)
        .gid(65_534)
        .output()
        .expect("run python3");
    let words = String::from_utf8_lossy(&stranger.stderr);
    assert!(words.contains("PermissionError"), "{words}");
    let credential = site.create();
    guess_at(
        &mut AuthClient::over_unix(&path),
        "rip=127.0.1.9",
        &credential,
        10,
    );
    assert_eq!(guarded.against("127.0.1.9/32").unwrap()["state"], "banned");
    let checked = site.run(&["check"]);
    assert!(!String::from_utf8_lossy(&checked.stdout).contains("warn  auth socket"));
    for mode in [0o666, 0o662] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let checked = site.run(&["check"]);
        let checked = String::from_utf8_lossy(&checked.stdout);
        let warning = "every local user can connect to the auth socket";
        assert!(checked.contains(warning), "{checked}");
    }
}
