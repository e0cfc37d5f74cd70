//! Timeouts, limits, drains, certificates and metrics.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Credential};
use crate::support::upstream::{Act, Upstream};
use crate::support::{PATIENCE, eventually, ports, tls, within};

fn config(upstream: &Upstream) -> Config {
    Config::for_upstream(upstream.address)
}

#[test]
fn a_client_that_never_shakes_hands_is_cut() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream).text("timeouts", "handshake", "300ms"));
    let mut silent = TcpStream::connect(gatepost.submissions).expect("connect");
    silent
        .set_read_timeout(Some(PATIENCE))
        .expect("set a timeout");
    assert_eq!(
        silent.read(&mut [0; 16]).unwrap_or(0),
        0,
        "no SMTP in the clear on this port"
    );
}

#[test]
fn the_greeting_comes_with_the_servers_side_of_a_handshake() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream));
    let mut socket = TcpStream::connect(gatepost.submissions).expect("connect");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("set a timeout");
    let mut session = tls::session();
    session.write_tls(&mut socket).expect("the ClientHello");
    let mut greeting = [0; 64];
    loop {
        session.read_tls(&mut socket).expect("more of its side");
        session.process_new_packets().expect("TLS");
        if session.reader().read(&mut greeting).is_ok() {
            break;
        }
    }
    assert!(greeting.starts_with(b"220 mail.example.test "));
    assert!(session.wants_write(), "ours was not sent");
}

#[test]
fn a_client_that_never_logs_in_is_told_and_cut() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream).text("timeouts", "login", "300ms"));
    for mut client in [
        Client::submission(&gatepost),
        Client::submissions(&gatepost),
    ] {
        client.reply().expect("421 4.4.2");
        client.expect_close();
    }
}

#[test]
fn busywork_does_not_put_off_the_login() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream).text("timeouts", "login", "500ms"));
    let mut client = Client::submissions(&gatepost);
    loop {
        client.write(b"NOOP\r\n");
        let reply = client.reply();
        if reply.starts_with("421") {
            break;
        }
        reply.expect("250");
        std::thread::sleep(Duration::from_millis(100));
    }
    client.expect_close();
}

#[test]
fn an_idle_session_is_told_and_cut() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream).text("timeouts", "idle", "300ms"));
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    client.reply().expect("421 4.4.2");
    client.expect_close();
}

#[test]
fn a_body_that_stalls_ends_without_a_message() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream).text("timeouts", "body", "300ms"));
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    client.begin_message();
    client.write(b"Subject: stalled\r\n");
    if let Some(reply) = client.try_reply() {
        reply.expect("421 4.4.2");
        client.expect_close();
    }
    let session = upstream.wait_for("that ended", |session| {
        session.heard("DATA") && session.ended
    });
    assert!(session.bodies.is_empty(), "{session:?}");
}

#[test]
fn one_connection_too_many_is_told_and_a_freed_place_is_taken() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream).number("limits", "connections", 2));
    let mut first = Client::submission(&gatepost);
    let _second = Client::submission(&gatepost);
    let mut third = Client::dial(gatepost.submission).expect("connect");
    third.reply().expect("421 4.7.0");
    third.expect_close();
    first.expect("QUIT", "221");
    first.expect_close();
    eventually("a freed place", || {
        let mut next = Client::dial(gatepost.submission).expect("connect");
        next.try_reply()
            .is_some_and(|reply| reply.starts_with("220"))
            .then_some(())
    });
}

#[test]
fn sigterm_tells_the_idle_and_lets_a_transaction_finish() {
    let upstream = Upstream::start();
    let mut gatepost = Gatepost::start(config(&upstream));
    let credential = gatepost.create();
    let mut greeted = Client::submission(&gatepost);
    let mut idle = Client::logged_in(&gatepost, &credential);
    let mut busy = Client::logged_in(&gatepost, &credential);
    busy.begin_message();

    gatepost.signal(Signal::TERM);
    gatepost.wait_for_state("STOPPING=1");
    for client in [&mut greeted, &mut idle] {
        client.reply().expect("421 4.3.2");
        client.expect_close();
    }
    eventually("no new connections", || {
        Client::dial(gatepost.submission).err()
    });

    busy.write(b"Subject: finished\r\n\r\nhello\r\n.\r\n");
    busy.reply().expect("250 2.0.0 Ok: queued as 4242");
    busy.reply().expect("421 4.3.2");
    busy.expect_close();
    assert!(gatepost.wait().success());
}

#[test]
fn a_drain_ends_in_time() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream).drain_timeout("300ms"));
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    client.begin_message();
    gatepost.signal(Signal::TERM);
    assert!(gatepost.wait().success());
    let session = upstream.wait_for("that ended", |session| {
        session.heard("DATA") && session.ended
    });
    assert!(session.bodies.is_empty(), "{session:?}");
}

#[test]
fn who_is_cut_off_by_the_end_of_a_drain_is_told() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream).drain_timeout("300ms"));
    let site = gatepost.site();
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    client.expect("MAIL FROM:<sender@example.test>", "250");
    gatepost.signal(Signal::TERM);
    client.reply().expect("421 4.3.2");
    client.expect_close();
    assert!(gatepost.wait().success());
    let log = std::fs::read_to_string(site.path("log")).expect("the log");
    assert!(log.contains("ending=\"cut off\""), "{log}");
}

#[test]
fn silent_clients_do_not_keep_a_restart_waiting() {
    let upstream = Upstream::start();
    let config = config(&upstream).drain_timeout("1h");
    let gatepost = Gatepost::start(config.text("timeouts", "handshake", "1h"));
    let _in_handshake = TcpStream::connect(gatepost.submissions).expect("connect");
    let credential = gatepost.create();
    let mut in_transaction = Client::logged_in(&gatepost, &credential);
    in_transaction.expect("MAIL FROM:<sender@example.test>", "250");
    let mut in_body = Client::logged_in(&gatepost, &credential);
    in_body.begin_message();
    in_body.write(b"Subject: stalled\r\n");
    gatepost.signal(Signal::TERM);
    in_transaction.reply().expect("421 4.3.2");
    if let Some(reply) = in_body.try_reply() {
        reply.expect("421 4.3.2");
    }
    assert!(gatepost.wait().success());
}

#[test]
fn a_second_sigterm_ends_a_drain() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream).drain_timeout("1h"));
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    client.expect("MAIL FROM:<sender@example.test>", "250");
    gatepost.signal(Signal::TERM);
    gatepost.wait_for_log(&["draining"]);
    gatepost.signal(Signal::TERM);
    client.reply().expect("421 4.3.2");
    assert!(gatepost.wait().success());
}

#[test]
fn last_used_is_written_while_a_drain_goes_on() {
    let upstream = Upstream::start();
    let config = config(&upstream)
        .drain_timeout("1h")
        .text("last_used", "flush_interval", "500ms");
    let gatepost = Gatepost::start(config);
    let credential = gatepost.create();
    let mut client = Client::logged_in(&gatepost, &credential);
    client.begin_message();
    gatepost.signal(Signal::TERM);
    within(Duration::from_secs(10), "last used is written", || {
        let shown = gatepost.json(&["credential", "show", &credential.username]);
        (!shown["last_used"].is_null()).then_some(())
    });
    gatepost.kill();
}

#[test]
fn sigterm_flushes_last_used() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream).text("last_used", "flush_interval", "1h"));
    let credential = gatepost.create();
    let site = gatepost.site();
    Client::logged_in(&gatepost, &credential).expect("QUIT", "221");
    gatepost.signal(Signal::TERM);
    assert!(gatepost.wait().success());
    let shown = site.json(&["credential", "show", &credential.username]);
    assert!(!shown["last_used"].is_null(), "{shown}");
}

#[test]
fn sighup_brings_a_new_certificate_and_drops_nobody() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream).text("tls", "reload_interval", "1h"));
    let mut live = Client::logged_in(&gatepost, &gatepost.create());
    let old = live.certificate();
    let new = gatepost.renew_certificate();
    assert_eq!(Client::submissions(&gatepost).certificate(), old);
    gatepost.signal(Signal::HUP);
    eventually("the new certificate", || {
        (Client::submissions(&gatepost).certificate() == new).then_some(())
    });
    assert_eq!(Client::submission(&gatepost).starttls().certificate(), new);
    live.send_message(b"Subject: still here\r\n\r\nhello\r\n")
        .expect("250");
}

#[test]
fn a_changed_file_brings_a_new_certificate_and_drops_nobody() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream).text("tls", "reload_interval", "100ms"));
    let mut live = Client::logged_in(&gatepost, &gatepost.create());
    let new = gatepost.renew_certificate();
    eventually("the new certificate", || {
        (Client::submissions(&gatepost).certificate() == new).then_some(())
    });
    live.expect("NOOP", "250");
}

#[test]
fn a_bad_certificate_is_not_taken() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream).text("tls", "reload_interval", "1h"));
    let old = Client::submissions(&gatepost).certificate();
    std::fs::write(gatepost.path("certificate.pem"), "not a certificate").expect("write");
    gatepost.signal(Signal::HUP);
    gatepost.wait_for_log(&["certificate.pem"]);
    assert_eq!(Client::submissions(&gatepost).certificate(), old);
}

#[test]
fn metrics_count_logins() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let gatepost =
        Gatepost::start(config(&upstream).text("metrics", "listen", &address.to_string()));
    let credential = gatepost.create();
    let before = samples(address);
    for _ in 0..3 {
        Client::logged_in(&gatepost, &credential).expect("QUIT", "221");
    }
    let mut guesser = Client::submissions(&gatepost);
    guesser.expect("EHLO client.example", "250");
    for _ in 0..2 {
        guesser
            .auth_plain(&credential.with_wrong_password())
            .expect("535");
    }
    let after = samples(address);
    for (series, amount) in [
        ("gatepost_auth_total{reason=\"\",result=\"accept\"}", 3.0),
        (
            "gatepost_auth_total{reason=\"wrong_password\",result=\"reject\"}",
            2.0,
        ),
        ("gatepost_auth_seconds_count", 5.0),
        ("gatepost_auth_path_total{path=\"argon2\"}", 1.0),
        ("gatepost_auth_path_total{path=\"cache\"}", 4.0),
        ("gatepost_handovers_total", 3.0),
    ] {
        let rose = value(&after, series) - value(&before, series);
        assert_eq!(rose, amount, "{series} in {after:#?}");
    }
    assert!(
        after
            .iter()
            .all(|(name, _)| !name.contains(&credential.username)),
        "{after:#?}"
    );
}

#[test]
fn a_session_leaves_one_line_in_the_log() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream));
    let credential = gatepost.create();
    let mut client = Client::logged_in(&gatepost, &credential);
    client
        .send_message(b"Subject: logged\r\n\r\nhello\r\n")
        .expect("250");
    client.expect("QUIT", "221");
    client.expect_close();
    gatepost.wait_for_log(&[
        "gatepost::session: session ended address=127.0.0.1 ",
        &format!("username=\"{}\"", credential.username),
        "tls=\"TLSv1.3\" helo=\"client.example\"",
        "messages=1 recipients=1 bytes=29 ",
        "ending=\"closed\"",
    ]);
    assert_eq!(gatepost.log().matches("session ended").count(), 1);
}

#[test]
fn a_locked_store_neither_delays_nor_fails_a_login() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let config = config(&upstream)
        .text("metrics", "listen", &address.to_string())
        .text("last_used", "flush_interval", "50ms");
    let gatepost = Gatepost::start(config);
    let credential = gatepost.create();
    let store = rusqlite::Connection::open(gatepost.store()).expect("open the store");
    store
        .execute_batch("BEGIN IMMEDIATE")
        .expect("lock the store");
    // A flush may wait for the lock as long as it likes; logins must not.
    let began = Instant::now();
    for _ in 0..20 {
        Client::logged_in(&gatepost, &credential);
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let failures = "gatepost_last_used_flush_failures_total";
    within(Duration::from_secs(20), "a flush gives up", || {
        (value(&samples(address), failures) >= 1.0).then_some(())
    });
    let show = || gatepost.json(&["credential", "show", &credential.username]);
    assert!(show()["last_used"].is_null(), "{}", show());
    store.execute_batch("ROLLBACK").expect("unlock the store");
    within(Duration::from_secs(10), "what waited is written", || {
        (show()["last_used"]["count"] == 20).then_some(())
    });
}

#[test]
fn renewing_hashes_in_a_locked_store_delays_no_login() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream));
    // More than there are threads for the store, each with a hash that is cheaper than configured.
    let credentials: Vec<_> = (0..24)
        .map(|_| {
            let mut command = gatepost.command(&["credential", "create", "--json"]);
            let output = command.env("GATEPOST_AUTH__MEMORY_KIB", "32").output();
            Credential::from_json(&output.expect("create").stdout)
        })
        .collect();
    let store = rusqlite::Connection::open(gatepost.store()).expect("open the store");
    store
        .execute_batch("BEGIN IMMEDIATE")
        .expect("lock the store");
    let began = Instant::now();
    for credential in &credentials {
        Client::logged_in(&gatepost, credential);
    }
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    store.execute_batch("ROLLBACK").expect("unlock the store");
}

#[test]
fn a_held_up_session_holds_up_nobody_else() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream));
    let credential = gatepost.create();
    upstream.on("NOOP", Act::Silence);
    let mut stuck = Client::logged_in(&gatepost, &credential);
    stuck.write(b"NOOP\r\n");
    let mut free = Client::logged_in(&gatepost, &credential);
    free.send_message(b"Subject: free\r\n\r\nhello\r\n")
        .expect("250");
}

/// What a series says; each is there from the start.
fn value(samples: &[(String, f64)], series: &str) -> f64 {
    let sample = samples.iter().find(|(name, _)| name == series);
    sample.unwrap_or_else(|| panic!("no {series}")).1
}

/// The `gatepost_*` samples with their labels.
fn samples(address: SocketAddr) -> Vec<(String, f64)> {
    let mut socket = TcpStream::connect(address).expect("connect");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("set a timeout");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("write");
    let mut response = String::new();
    socket.read_to_string(&mut response).expect("read");
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    let lines = response
        .lines()
        .filter(|line| line.starts_with("gatepost_"));
    let samples: Vec<_> = lines
        .map(|line| line.rsplit_once(' ').expect("a sample"))
        .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
        .collect();
    assert!(!samples.is_empty(), "{response}");
    samples
}
