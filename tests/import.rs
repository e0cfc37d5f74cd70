//! Credentials that come from elsewhere, with the hashes they have there.

use std::fs;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::client::{Client, Reply};
use crate::support::eventually;
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::Upstream;

/// Usernames and the hashes that Dovecot's doveadm made of "hunter2".
const HASHES: [(&str, &str); 6] = [
    (
        "Ann@Example.TEST",
        "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$pzphxoOkRFGs3OngC3GaSA$49M4vdZmePaTxWBnbvcx/ocVuE92/2xbg6muiE5Z72k",
    ),
    (
        "bob",
        "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$iu+NCJoj8DFS0PRudrk32Q$dBumRBEeh2IpjG37EQ4anyhE4ZRPoYwM7k3xNlSajXY",
    ),
    (
        "carol.c",
        "{BLF-CRYPT}$2y$05$PAHbmiuUBk6Bi247bvnooedqyuyHcamcI9OqrapSHfVqmt9dJvS5C",
    ),
    (
        "dave",
        "{SHA512-CRYPT}$6$0A6zJtqXs0qlbA7d$Om4xm.f/8w8V4SjA2ToiZ6tK8Hh06Id9yUw65akC0HmZJr51ZjC6xG7sq47ZCJ6sk7q4l5wOEpebxY.Ys8fcW.",
    ),
    ("Eve/2%40?", "{PLAIN}hunter2"),
    (
        "frank",
        "$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm",
    ),
];

fn credential(username: &str, password: &str) -> Credential {
    Credential {
        username: username.to_owned(),
        password: password.to_owned(),
    }
}

fn log_in(site: &Site, username: &str, password: &str) -> Reply {
    let mut client = Client::submissions(site);
    client.expect("EHLO import.example.test", "250");
    client.auth_plain(&credential(username, password))
}

fn stored(site: &Site, username: &str) -> String {
    let store = Connection::open(site.store()).expect("open the store");
    let select = "SELECT password_hash FROM credentials WHERE username = ?";
    let hash = store.query_row(select, [username], |row| row.get(0));
    hash.expect(username)
}

fn file(site: &Site, name: &str, text: &str) -> String {
    let path = site.path("store").join(name);
    fs::write(&path, text).expect("write a file");
    path.to_str().unwrap().to_owned()
}

/// What of each line is told: its number, and the username or why it was left.
fn lines<'a>(report: &'a Value, list: &str, field: &str) -> Vec<(u64, &'a str)> {
    let items = report[list].as_array().expect(list).iter();
    let told = items.map(|item| {
        let line = item["line"].as_u64().unwrap();
        (line, item[field].as_str().unwrap_or_default())
    });
    told.collect()
}

#[test]
fn a_passwd_file_is_taken_and_each_hash_becomes_argon2id_at_its_first_login() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let mut text = "# from the old server\n\n".to_owned();
    for (username, hash) in HASHES {
        text += &format!("{username}:{hash}::::::\n");
    }
    let path = file(&gatepost, "passwd", &text);
    let import = ["import", "--format", "dovecot", &path];

    let tried = gatepost.json(&[&import[..], &["--dry-run"]].concat());
    assert_eq!(tried["dry_run"], true);
    assert_eq!(lines(&tried, "taken", "username").len(), HASHES.len());
    log_in(&gatepost, "bob", "hunter2").expect("535 5.7.8");

    let report = gatepost.json(&import);
    let names: Vec<_> = (3..).zip(HASHES.map(|(username, _)| username)).collect();
    assert_eq!(lines(&report, "taken", "username"), names);
    assert_eq!(report["left"], json!([]));
    for (username, hash) in HASHES {
        let hash = hash.rsplit_once('}').map_or(hash, |(_, hash)| hash);
        if hash != "hunter2" {
            assert_eq!(stored(&gatepost, username), hash, "kept as it is");
        }
        log_in(&gatepost, username, "hunter3").expect("535 5.7.8");
        log_in(&gatepost, username, "hunter2").expect("235");
        eventually("the hash is argon2id", || {
            let hash = stored(&gatepost, username);
            hash.starts_with("$argon2id$").then_some(())
        });
        // By the new hash, and by the cache.
        for _ in 0..2 {
            log_in(&gatepost, username, "hunter2").expect("235");
        }
        log_in(&gatepost, username, "hunter3").expect("535 5.7.8");
    }
    log_in(&gatepost, "ann@example.test", "hunter2").expect("535 5.7.8");
    let mut client = Client::logged_in(&gatepost, &credential("Ann@Example.TEST", "hunter2"));
    client
        .send_message(b"Subject: imported\r\n\r\nhello\r\n")
        .expect("250");
    let audit = gatepost.json(&["audit", "list", "--action", "credential.import"]);
    assert_eq!(audit.as_array().unwrap().len(), HASHES.len());
    let again = gatepost.json(&import);
    assert_eq!(again["taken"], json!([]));
    let reasons = lines(&again, "left", "reason");
    assert!(
        reasons
            .iter()
            .all(|(_, reason)| *reason == "there is a credential with this username")
    );
    // One that holds what paths and queries are made of is administered like any other.
    gatepost.succeed(&["credential", "revoke", "Eve/2%40?"]);
    eventually("the revocation counts", || {
        let reply = log_in(&gatepost, "Eve/2%40?", "hunter2");
        reply.starts_with("535 5.7.8").then_some(())
    });
}

#[test]
fn what_cannot_be_taken_is_left_with_its_reason_and_never_its_password() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    gatepost.succeed(&["organization", "create", "acme"]);
    let dear = HASHES[2].1.replace("$05$", "$20$");
    let long = "x".repeat(5_000);
    let text = format!(
        "\u{feff}username,password,name,expires\r\n\
         good,{{PLAIN}}hunter2-secret,\"Printer, 2nd floor\",2999-01-01\r\n\
         good,{{PLAIN}}hunter2-secret,,\r\n\
         dear,{dear},,\r\n\
         bad\u{1b}name,{{PLAIN}}hunter2-secret,,\r\n\
         odd,hunter2-secret,,\r\n\
         late,{{PLAIN}}hunter2-secret,,2001-01-01\r\n\
         short,{{PLAIN}}hunter2-secret\r\n\
         {long},{{PLAIN}}hunter2-secret,,\r\n\
         none,,,\r\n"
    );
    let path = file(&gatepost, "users.csv", &text);
    let import = ["import", "--format", "csv", "--org", "acme", &path];
    let people = gatepost.succeed(&[&import[..], &["--dry-run"]].concat());
    assert!(people.starts_with("Would take 1 credential(s)"), "{people}");
    let report = gatepost.json(&import);
    assert!(!report.to_string().contains("hunter2") && !people.contains("hunter2"));
    assert_eq!(lines(&report, "taken", "username"), [(2, "good")]);
    let left = lines(&report, "left", "reason");
    let numbers: Vec<_> = left.iter().map(|(line, _)| *line).collect();
    assert_eq!(numbers, [3, 4, 5, 6, 7, 8, 9, 10]);
    for (line, part) in [
        (3, "line 2 has the same username"),
        (4, "bcrypt's cost may be 13 at most"),
        (5, "no control characters"),
        (6, "of a kind that is not known"),
        (7, "is over"),
        (8, "it has 2 columns and not 4"),
        (9, "longer than"),
        (10, "no password"),
    ] {
        let (_, reason) = left.iter().find(|(number, _)| *number == line).unwrap();
        assert!(reason.contains(part), "line {line}: {reason}");
    }
    let made = gatepost.json(&["credential", "show", "good"]);
    assert_eq!(made["name"], "Printer, 2nd floor");
    assert_eq!(made["organization"], "acme");
    assert_eq!(made["expires_at"], "2999-01-01T00:00:00.000Z");
    log_in(&gatepost, "good", "hunter2-secret").expect("235");
}

#[test]
fn a_file_that_is_not_what_it_should_be_changes_nothing() {
    let upstream = Upstream::start();
    let site = Site::new(Config::for_upstream(upstream.address));
    let refused = |text: &str, part: &str| {
        let path = file(&site, "users.csv", text);
        let output = site.run(&["import", "--format", "csv", &path]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains(part) && !error.contains("hunter2"),
            "{error}"
        );
    };
    refused("", "it is empty");
    refused("ann,{PLAIN}hunter2\n", "line 1: column 1 is not known");
    refused("username,password,disabled\n", "column 3 is not known");
    let unclosed =
        "username,password\nann,{PLAIN}hunter2\nbob,\"{PLAIN}hunter2\neve,{PLAIN}hunter2\n";
    refused(unclosed, "line 3: a quote is not closed");
    assert_eq!(site.json(&["credential", "list"]), json!([]));
    let nowhere = site.run(&["import", "--format", "csv", "--org", "nowhere", "/dev/null"]);
    assert_eq!(nowhere.status.code(), Some(1));
    let missing = site.run(&["import", "--format", "dovecot", "/nonexistent/passwd"]);
    assert_eq!(missing.status.code(), Some(74));
}
