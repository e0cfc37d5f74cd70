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
    start_with(upstream, |config| config)
}

fn start_with(
    upstream: &Upstream,
    arrange: impl FnOnce(Config) -> Config,
) -> (Gatepost, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let config = Config::for_upstream(upstream.address).guarded().text(
        "admin",
        "socket",
        socket.to_str().unwrap(),
    );
    (Gatepost::start(arrange(config)), directory)
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

/// Wrong passwords for names that nobody has, each once, until the client is shut out or told 421.
fn guess_until_barred(site: &Site, from: Ipv4Addr) {
    for number in 0..30 {
        let guess = Credential {
            username: format!("smtp_{:016}", u64::from(u32::from(from)) * 100 + number),
            password: "sk_guess".to_owned(),
        };
        match log_in(site, from, &guess) {
            Some(reply) if !reply.starts_with("421") => reply.expect("535"),
            _ => return,
        };
    }
    panic!("{from} is not barred");
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
fn every_obstacle_is_listed_and_the_first_is_the_reason() {
    let upstream = Upstream::start();
    let (gatepost, _socket) = start(&upstream);
    let credential = gatepost.create();
    let username = credential.username.as_str();
    let expire = "UPDATE credentials SET expires_at = 1000 WHERE username = ?1";
    gatepost.sql(expire, username);
    let run = |arguments: &[&str]| gatepost.succeed(arguments);
    let fence = [
        "credential",
        "rules",
        username,
        "--networks",
        "192.0.2.0/24",
    ];
    run(&fence);
    run(&["credential", "revoke", username]);
    run(&["organization", "suspend", "default"]);
    agrees(&gatepost, &credential, "535 5.7.8", Some("revoked"));
    let explained = explain(&gatepost, username, LAPTOP, &[]);
    let checks = explained["checks"].as_array().expect("checks").iter();
    let failed = checks.filter(|check| check["finding"] == "refuses");
    let failed: Vec<_> = failed
        .map(|check| check["check"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["status", "organization", "expiry", "networks"]);
}

#[test]
fn who_is_banned_is_told_from_whom_and_without_a_daemon_from_the_store() {
    let upstream = Upstream::start();
    let (gatepost, _socket) = start(&upstream);
    let credential = gatepost.create();
    let clean = explain(&gatepost, &credential.username, GUESSER, &[]);
    assert_eq!(check(&clean, "guard").0, "passes");
    guess_until_barred(&gatepost, GUESSER);
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
    assert!(
        words.contains("closed before anything is said") && words.contains("that was open before"),
        "{words}"
    );
    assert_eq!(log_in(&gatepost, GUESSER, &credential), None);
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
        people.contains("is turned away (421 4.7.0, reason guard), unless its password is right and remembered by the running Gatepost"),
        "{people}"
    );
    assert!(people.contains("This goes by the store"), "{people}");
    let wrong = site.run(&["explain", "--username", "x", "--from", "nowhere"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_barred_network_is_told_with_whom_it_still_lets_in() {
    let upstream = Upstream::start();
    let (gatepost, _socket) = start_with(&upstream, |config| {
        config.text("auth", "refusal_delay", "10ms")
    });
    let remembered = gatepost.create();
    let forgotten = gatepost.create();
    log_in(&gatepost, LAPTOP, &remembered)
        .unwrap()
        .expect("235");
    // Three clients that are shut out are too many for the network around them.
    for host in 1..=4 {
        guess_until_barred(&gatepost, Ipv4Addr::new(127, 0, 9, host));
    }
    for credential in [&remembered, &forgotten] {
        let told = explain(&gatepost, &credential.username, GUESSER, &[]);
        assert_eq!(
            (&told["reply"], &told["reason"]),
            (&"421 4.7.0".into(), &"guard".into())
        );
        let (finding, words) = check(&told, "guard");
        assert_eq!(finding, "bars");
        assert!(
            words.contains("127.0.9.0/24")
                && words.contains(
                    "Let in is also a right password that the running Gatepost remembers"
                ),
            "{words}"
        );
    }
    log_in(&gatepost, GUESSER, &forgotten)
        .expect("a reply")
        .expect("421 4.7.0");
    // What is remembered is looked up again after any change, and nobody does that for who is barred.
    eventually("the remembered password is let in", || {
        log_in(&gatepost, LAPTOP, &remembered)
            .unwrap()
            .expect("235");
        let reply = log_in(&gatepost, GUESSER, &remembered).expect("a reply");
        reply.starts_with("235").then_some(())
    });
    // It is at home there from now on.
    let told = explain(&gatepost, &remembered.username, GUESSER, &[]);
    assert_eq!(told["accepted"], true, "{told}");
}

#[test]
fn guesses_close_a_password_that_people_chose_to_strangers_and_no_generated_one() {
    let upstream = Upstream::start();
    let (gatepost, _socket) = start_with(&upstream, |config| {
        config.text("auth", "refusal_delay", "10ms")
    });
    let chosen = Credential {
        username: "ann@example.test".to_owned(),
        password: "correct horse".to_owned(),
    };
    let file = gatepost.path("store").join("passwd");
    std::fs::write(&file, "ann@example.test:{PLAIN}correct horse\n").expect("write");
    let file = file.to_str().unwrap();
    gatepost.succeed(&["import", file, "--format", "dovecot"]);
    std::fs::remove_file(file).expect("remove");
    let generated = gatepost.create();
    let is_closed = || {
        let told = explain(&gatepost, &chosen.username, LAPTOP, &[]);
        let checks = told["checks"].as_array().expect("checks");
        checks.iter().any(|check| check["check"] == "guesses")
    };
    for place in 1.. {
        // More than nine from one address would have it banned; on a busy machine some are put off.
        for number in 0..9 {
            let guess = Credential {
                username: chosen.username.clone(),
                password: format!("guess {place} {number}"),
            };
            let from = Ipv4Addr::new(127, 0, 100 + place, 1);
            let reply = log_in(&gatepost, from, &guess).expect("a reply");
            assert!(!reply.starts_with("235"));
        }
        let wrong = generated.with_wrong_password();
        log_in(&gatepost, Ipv4Addr::new(127, 0, 100 + place, 2), &wrong);
        if is_closed() {
            assert!(place > 11, "after fewer than a hundred guesses");
            break;
        }
        assert!(place < 60, "not closed");
    }
    let told = explain(&gatepost, &chosen.username, LAPTOP, &[]);
    assert_eq!(check(&told, "guesses").0, "refuses", "{told}");
    assert_eq!(
        (&told["reply"], &told["reason"]),
        (&"535 5.7.8".into(), &"wrong_password".into())
    );
    log_in(&gatepost, LAPTOP, &chosen)
        .expect("a reply")
        .expect("535 5.7.8");
    let told = explain(&gatepost, &generated.username, LAPTOP, &[]);
    let checks = told["checks"].as_array().unwrap();
    assert!(
        checks.iter().all(|check| check["check"] != "guesses"),
        "{told}"
    );
    assert_eq!(told["accepted"], true, "{told}");
    log_in(&gatepost, LAPTOP, &generated)
        .expect("a reply")
        .expect("235");
    // Once it is generated it is no stranger's to guess.
    let rotated = gatepost.rotate(&chosen);
    let told = explain(&gatepost, &rotated.username, LAPTOP, &[]);
    assert_eq!(told["accepted"], true, "{told}");
    log_in(&gatepost, LAPTOP, &rotated)
        .expect("a reply")
        .expect("235");
}
