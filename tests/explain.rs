//! What is said would become of a login, beside what becomes of it.

use std::net::Ipv4Addr;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::client::{Client, Reply};
use crate::support::eventually;
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::Upstream;

const LAPTOP: Ipv4Addr = Ipv4Addr::new(127, 0, 8, 1);
const GUESSER: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 9);

/// A daemon that can be asked and exempts nobody, and where its socket is.
fn start(upstream: &Upstream) -> (Gatepost, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let config = Config::for_upstream(upstream.address).guarded().text(
        "admin",
        "socket",
        socket.to_str().unwrap(),
    );
    (Gatepost::start(config), directory)
}

/// `None` where the connection is closed before anything is said.
fn log_in(site: &Site, from: Ipv4Addr, credential: &Credential) -> Option<Reply> {
    let client = Client::dial_from(from.into(), site.submission).expect("connect");
    let mut client = client;
    client.try_reply()?.expect("220");
    let mut client = client.starttls();
    client.expect("EHLO explain.example.test", "250");
    Some(client.auth_plain(credential))
}

fn explain(site: &Site, username: &str, from: Ipv4Addr, more: &[&str]) -> Value {
    let from = from.to_string();
    let explain = ["explain", "--username", username, "--from", &from];
    site.json(&[&explain[..], more].concat())
}

/// What one check found, and in which words.
fn check<'a>(explanation: &'a Value, name: &str) -> (&'a str, &'a str) {
    let checks = explanation["checks"].as_array().expect("checks").iter();
    let mut own = checks.filter(|check| check["check"] == name);
    let own = own
        .next()
        .unwrap_or_else(|| panic!("{name} in {explanation}"));
    (
        own["finding"].as_str().unwrap(),
        own["words"].as_str().unwrap(),
    )
}

/// It is said to become of the login what becomes of it.
#[track_caller]
fn agrees(site: &Site, credential: &Credential, reply: &str, reason: Option<&str>) {
    let told = explain(site, &credential.username, LAPTOP, &[]);
    assert_eq!(told["reply"], reply, "{told}");
    assert_eq!(told["reason"].as_str(), reason, "{told}");
    assert_eq!(told["accepted"], reply.starts_with("235"), "{told}");
    // What another process changed counts within a moment.
    eventually(&format!("{reply} is answered"), || {
        let answered = log_in(site, LAPTOP, credential).expect("a reply");
        answered.starts_with(reply).then_some(())
    });
}

#[test]
fn what_is_said_would_become_of_a_login_becomes_of_it() {
    let upstream = Upstream::start();
    let (gatepost, _socket) = start(&upstream);
    let credential = gatepost.create();
    let username = credential.username.as_str();
    let run = |arguments: &[&str]| gatepost.succeed(arguments);
    agrees(&gatepost, &credential, "235 2.7.0", None);
    run(&["credential", "revoke", username]);
    agrees(&gatepost, &credential, "535 5.7.8", Some("revoked"));
    run(&["credential", "enable", username]);
    let expire = "UPDATE credentials SET expires_at = 1000 WHERE username = ?1";
    gatepost.sql(expire, username);
    agrees(&gatepost, &credential, "535 5.7.8", Some("expired"));
    run(&["credential", "expire", username, "never"]);
    run(&["organization", "suspend", "default"]);
    agrees(&gatepost, &credential, "535 5.7.8", Some("suspended"));
    run(&["organization", "activate", "default"]);
    run(&[
        "credential",
        "rules",
        username,
        "--networks",
        "192.0.2.0/24",
    ]);
    agrees(&gatepost, &credential, "535 5.7.8", Some("network"));
    let told = explain(&gatepost, username, Ipv4Addr::new(192, 0, 2, 5), &[]);
    assert_eq!(
        check(&told, "networks"),
        ("passes", "it may be used from 192.0.2.0/24")
    );
    run(&["credential", "rules", username, "--networks", "127.0.0.0/8"]);
    agrees(&gatepost, &credential, "235 2.7.0", None);
    let nobody = Credential {
        username: "smtp_nobody".to_owned(),
        password: credential.password.clone(),
    };
    agrees(&gatepost, &nobody, "535 5.7.8", Some("unknown"));

    run(&["credential", "rules", username, "--senders", "example.org"]);
    let sender = |address: &str| {
        let told = explain(&gatepost, username, LAPTOP, &["--sender", address]);
        let (finding, words) = check(&told, "sender");
        assert!(words.contains("example.org"), "{words}");
        assert_eq!(told["mail_refused"], finding == "refuses_mail", "{told}");
        finding.to_owned()
    };
    let mail = |address: &str, reply: &str| {
        eventually(&format!("{reply} to {address}"), || {
            let mut client = Client::logged_in_from("127.0.8.1", &gatepost, &credential);
            let answered = client.command(&format!("MAIL FROM:<{address}>"));
            answered.starts_with(reply).then_some(client)
        })
    };
    assert_eq!(sender("ann@example.com"), "refuses_mail");
    mail("ann@example.com", "550 5.7.1");
    assert_eq!(sender("ann@example.org"), "passes");
    mail("ann@example.org", "250");

    run(&["credential", "rules", username, "--senders", "any"]);
    run(&["credential", "limit", username, "--messages-per-day", "1"]);
    let mut client = mail("sender@example.test", "250");
    client.expect("RSET", "250");
    client
        .send_message(b"Subject: one\r\n\r\none\r\n")
        .expect("250");
    let told = explain(&gatepost, username, LAPTOP, &[]);
    let limit = ("refuses_mail", "messages per day of the credential: 1 of 1");
    assert_eq!(check(&told, "credential_limits"), limit);
    mail("sender@example.test", "451");

    run(&["credential", "rotate", username, "--overlap", "1h"]);
    let told = explain(&gatepost, username, LAPTOP, &[]);
    assert!(
        check(&told, "password")
            .1
            .contains("or with the one before"),
        "{told}"
    );
}

#[test]
fn who_is_banned_is_told_from_whom_and_without_a_daemon_from_the_store() {
    let upstream = Upstream::start();
    let (gatepost, _socket) = start(&upstream);
    let credential = gatepost.create();
    let clean = explain(&gatepost, &credential.username, GUESSER, &[]);
    assert_eq!(check(&clean, "guard").0, "passes");
    for number in 0.. {
        let guess = Credential {
            username: format!("smtp_guess{number}"),
            password: "sk_guess".to_owned(),
        };
        match log_in(&gatepost, GUESSER, &guess) {
            Some(reply) if reply.starts_with("535") => assert!(number < 20, "no ban"),
            _ => break,
        }
    }
    let banned = explain(&gatepost, &credential.username, GUESSER, &[]);
    assert_eq!(
        (&banned["reply"], &banned["reason"]),
        (&"421 4.7.0".into(), &"guard".into())
    );
    let (finding, words) = check(&banned, "guard");
    assert_eq!(finding, "bars");
    assert!(
        words.contains("127.0.9.9") && words.contains("Too many failed logins"),
        "{words}"
    );
    let elsewhere = explain(&gatepost, &credential.username, LAPTOP, &[]);
    assert_eq!(elsewhere["accepted"], true, "{elsewhere}");

    let site = gatepost.site();
    gatepost.signal(Signal::TERM);
    assert!(gatepost.wait().success());
    let stored = explain(&site, &credential.username, GUESSER, &[]);
    assert_eq!(stored["reason"], "guard", "{stored}");
    let from = GUESSER.to_string();
    let people = site.succeed(&[
        "explain",
        "--username",
        &credential.username,
        "--from",
        &from,
    ]);
    assert!(
        people.contains("is refused, whatever the password (421 4.7.0, reason guard)"),
        "{people}"
    );
    assert!(people.contains("This goes by the store"), "{people}");
    let wrong = site.run(&["explain", "--username", "x", "--from", "nowhere"]);
    assert_eq!(wrong.status.code(), Some(2));
}
