//! The rows of the reply table that depend on more than one dialog can arrange.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::{Client, Reply};
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Credential, HOSTNAME};
use crate::support::upstream::Upstream;

fn refusal(gatepost: &Gatepost, credential: &Credential) -> Reply {
    let mut client = Client::submissions(gatepost);
    client.expect("EHLO client.example", "250");
    client.auth_plain(credential)
}

#[test]
fn the_greeting_names_the_host() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let mut client = Client::dial(gatepost.submission).expect("connect");
    client.reply().expect(&format!("220 {HOSTNAME} ESMTP"));
}

#[test]
fn ehlo_offers_what_can_be_kept_here_and_upstream() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address).number("relay", "message_size", 1_000_000);
    let gatepost = Gatepost::start(config);
    let mut client = Client::submission(&gatepost);
    let clear = client.expect("EHLO client.example", "250");
    assert!(
        clear.offers("STARTTLS") && !clear.offers("AUTH"),
        "{clear:?}"
    );
    client.expect("STARTTLS", "220");
    let mut client = client.over_tls();
    let inside = client.expect("EHLO client.example", "250");
    assert!(
        inside.offers("AUTH PLAIN LOGIN") && !inside.offers("STARTTLS"),
        "{inside:?}"
    );
    client.auth_plain(&gatepost.create()).expect("235");
    let after = client.expect("EHLO client.example", "250");
    for ehlo in [clear, inside, after] {
        assert!(
            ehlo.lines[0].starts_with(&format!("250-{HOSTNAME}")),
            "{ehlo:?}"
        );
        for offered in [
            "PIPELINING",
            "8BITMIME",
            "SMTPUTF8",
            "DSN",
            "ENHANCEDSTATUSCODES",
        ] {
            assert!(ehlo.offers(offered), "no {offered} in {ehlo:?}");
        }
        assert!(ehlo.offers("SIZE 1000000"), "{ehlo:?}");
        for kept_back in [
            "XCLIENT",
            "XFORWARD",
            "ETRN",
            "CHUNKING",
            "BINARYMIME",
            "X-NOVELTY",
        ] {
            assert!(!ehlo.offers(kept_back), "{kept_back} in {ehlo:?}");
        }
        assert!(!ehlo.lines.concat().contains("CRAM-MD5"), "{ehlo:?}");
    }
}

#[test]
fn every_refusal_is_the_same_line() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let valid = gatepost.create();
    refusal(&gatepost, &valid).expect("235");
    let revoked = gatepost.create();
    gatepost.succeed(&["credential", "revoke", &revoked.username]);
    let unknown = Credential {
        username: "smtp_0000000000000000".to_owned(),
        ..valid.with_wrong_password()
    };
    let malformed = Credential {
        password: "hunter2".to_owned(),
        ..valid.clone()
    };
    let expected = refusal(&gatepost, &valid.with_wrong_password()).expect("535 5.7.8");
    let long = Credential {
        password: "x".repeat(1500),
        ..valid.clone()
    };
    let longer = Credential {
        username: "x".repeat(4000),
        password: "x".repeat(5000),
    };
    for credential in [unknown, malformed, revoked, long, longer] {
        assert_eq!(
            refusal(&gatepost, &credential),
            expected,
            "{}",
            credential.username
        );
    }
}

#[test]
fn every_refusal_takes_the_configured_time() {
    let upstream = Upstream::start();
    let delay = Duration::from_millis(500);
    let config = Config::for_upstream(upstream.address).text("auth", "refusal_delay", "500ms");
    let gatepost = Gatepost::start(config);
    let known = gatepost.create();
    let unknown = Credential {
        username: "smtp_0000000000000000".to_owned(),
        ..known.with_wrong_password()
    };
    let long = Credential {
        password: "x".repeat(9000),
        ..known.clone()
    };
    for credential in [known.with_wrong_password(), unknown, long] {
        let mut client = Client::submissions(&gatepost);
        client.expect("EHLO client.example", "250");
        let asked = Instant::now();
        client.auth_plain(&credential).expect("535 5.7.8");
        let took = asked.elapsed();
        // A little less than asked for is jitter; much more would be work that shows.
        assert!(
            took > delay * 8 / 10 && took < delay * 3,
            "refused after {took:?}"
        );
    }
}

#[test]
fn a_refusal_names_its_reason_in_the_log_only() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let credential = gatepost.create();
    gatepost.remember(&credential.with_wrong_password());
    refusal(&gatepost, &credential.with_wrong_password()).expect("535 5.7.8");
    gatepost.wait_for_log(&[
        "gatepost::auth: login refused address=127.0.0.1 ",
        &format!("username=\"{}\" mechanism=\"PLAIN\"", credential.username),
        "result=\"reject\" reason=\"wrong_password\"",
    ]);
}

#[test]
fn a_message_announced_too_large_is_refused_at_mail() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address).number("relay", "message_size", 100_000);
    let gatepost = Gatepost::start(config);
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    client.expect("MAIL FROM:<sender@example.test> SIZE=100001", "552 5.3.4");
    client
        .send_message(b"Subject: small\r\n\r\nhello\r\n")
        .expect("250");
}

#[test]
fn a_message_that_grows_too_large_is_refused_at_its_end() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address).number("relay", "message_size", 100_000);
    let gatepost = Gatepost::start(config);
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    client
        .send_message(&b"0123456789abcde\r\n".repeat(10_000))
        .expect("552 5.3.4");
    client
        .send_message(b"Subject: small\r\n\r\nhello\r\n")
        .expect("250");
    let session = upstream.wait_for("with a message", |session| !session.bodies.is_empty());
    assert_eq!(session.bodies, [b"Subject: small\r\n\r\nhello\r\n"]);
}

#[test]
fn what_came_in_the_clear_behind_starttls_is_forgotten() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let mut client = Client::submission(&gatepost);
    client.expect("EHLO client.example", "250");
    client.write(b"STARTTLS\r\nNOPE injected in the clear\r\n");
    client.reply().expect("220");
    let mut client = client.over_tls();
    // The first reply inside must be to the first command inside.
    client.expect("EHLO client.example", "250");
    client.expect("NOOP", "250");
}

#[test]
fn who_speaks_before_the_greeting_is_sent_away() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    // While the daemon is stopped, the kernel takes connection and bytes: they are there first.
    gatepost.freeze();
    let mut client = Client::dial(gatepost.submission).expect("connect");
    client.write(b"EHLO client.example\r\n");
    gatepost.signal(Signal::CONT);
    client.reply().expect("421 4.7.0");
    client.expect_close();
}
