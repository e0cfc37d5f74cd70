//! Credentials that come from elsewhere, with the hashes they have there.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

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
        (
            3,
            "lines 2 and 3 have the same username; only line 2 counts",
        ),
        (4, "bcrypt's cost may be 13 at most"),
        (5, "no control characters"),
        (6, "write {PLAIN} before it"),
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

/// A line of output of a program that hashes a password.
fn hashed_by(program: &str, options: &[&str]) -> String {
    let output = Command::new(program).args(options).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {options:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn doveadm(scheme: &str) -> String {
    let user = "ann@example.test";
    hashed_by(
        "doveadm",
        &["pw", "-s", scheme, "-p", "hunter2", "-u", user],
    )
}

fn mkpasswd(method: &str) -> String {
    hashed_by("mkpasswd", &["-m", method, "hunter2"])
}

#[test]
fn each_scheme_of_dovecot_and_crypt_logs_in_or_is_refused_by_name() {
    let mut taken = Vec::new();
    for scheme in [
        "ARGON2I",
        "ARGON2ID",
        "BLF-CRYPT",
        "BLF-CRYPT.HEX",
        "CLEAR",
        "CLEARTEXT",
        "CRYPT",
        "CRYPT.HEX",
        "PBKDF2",
        "PBKDF2.B64",
        "PBKDF2.HEX",
        "PLAIN",
        "PLAIN.B64",
        "PLAIN.HEX",
        "SHA256-CRYPT",
        "SHA512-CRYPT",
        "SHA512-CRYPT.B64",
        "SSHA",
        "SSHA.HEX",
        "SSHA256",
        "SSHA256.BASE64",
        "SSHA256.HEX",
        "SSHA512",
        "SSHA512.B64",
        "SSHA512.HEX",
    ] {
        taken.push((scheme.to_lowercase(), doveadm(scheme)));
    }
    for method in [
        "yescrypt",
        "bcrypt",
        "bcrypt-a",
        "sha512crypt",
        "sha256crypt",
    ] {
        taken.push((format!("bare-{method}"), mkpasswd(method)));
        let hash = format!("{{CRYPT}}{}", mkpasswd(method));
        taken.push((format!("crypt-{method}"), hash));
    }
    let mut refused = Vec::new();
    for scheme in [
        "CRAM-MD5",
        "DES-CRYPT",
        "DIGEST-MD5",
        "HMAC-MD5",
        "LDAP-MD5",
        "MD5",
        "MD5-CRYPT",
        "OTP",
        "PLAIN-MD4",
        "PLAIN-MD5",
        "PLAIN-TRUNC",
        "SCRAM-SHA-1",
        "SCRAM-SHA-256",
        "SHA",
        "SHA1",
        "SHA256",
        "SHA512",
        "SMD5",
    ] {
        refused.push((format!("{{{scheme}}}"), doveadm(scheme)));
    }
    for (method, name) in [
        ("bsdicrypt", "DES"),
        ("descrypt", "DES"),
        ("gost-yescrypt", "gost-yescrypt"),
        ("md5crypt", "MD5-crypt"),
        ("nt", "NT hash"),
        ("scrypt", "scrypt"),
        ("sunmd5", "SunMD5"),
    ] {
        let hash = format!("{{CRYPT}}{}", mkpasswd(method));
        refused.push((name.to_owned(), hash));
    }
    for scheme in ["{LANMAN}", "{NTLM}"] {
        let hash = format!("{scheme}6608e4bc7b2b7a5f77ce3573570775af");
        refused.push((scheme.to_owned(), hash));
    }

    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let mut text = String::new();
    for (username, hash) in &taken {
        text += &format!("{username}:{hash}:1000:1000::/home/x:/bin/sh\n");
    }
    for (n, (_, hash)) in refused.iter().enumerate() {
        text += &format!("refused{n}:{hash}\n");
    }
    let path = file(&gatepost, "passwd", &text);
    let report = gatepost.json(&["import", "--format", "dovecot", &path]);
    let names: Vec<_> = (1..)
        .zip(taken.iter().map(|(name, _)| name.as_str()))
        .collect();
    assert_eq!(lines(&report, "taken", "username"), names);
    let left = lines(&report, "left", "reason");
    assert_eq!(left.len(), refused.len(), "{report}");
    for ((_, reason), (name, _)) in left.iter().zip(&refused) {
        assert!(reason.contains(name.as_str()), "{name}: {reason}");
        assert!(reason.contains("new credential"), "{name}: {reason}");
    }
    assert!(!report.to_string().contains("hunter2"));
    for (username, _) in &taken {
        log_in(&gatepost, username, "hunter3").expect("535 5.7.8");
        log_in(&gatepost, username, "hunter2").expect("235");
        eventually("the hash is argon2id", || {
            stored(&gatepost, username)
                .starts_with("$argon2id$")
                .then_some(())
        });
        log_in(&gatepost, username, "hunter2").expect("235");
    }
}

#[test]
fn a_hash_that_costs_too_much_is_left_and_computed_by_no_login() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let dear = [
        hashed_by("mkpasswd", &["-m", "yescrypt", "-R", "11", "hunter2"]),
        hashed_by(
            "mkpasswd",
            &["-m", "sha256crypt", "-R", "600000", "hunter2"],
        ),
        "{PBKDF2}$1$Tscil0.RSxQ9e4pE$4000000000$b0f54eb0789d06ba6a3a8a646f34a5d5c6489b8e"
            .to_owned(),
    ];
    let text: String = (0..)
        .zip(&dear)
        .map(|(n, hash)| format!("dear{n}:{hash}\n"))
        .collect();
    let path = file(&gatepost, "passwd", &text);
    let report = gatepost.json(&["import", "--format", "dovecot", &path]);
    let left = lines(&report, "left", "reason");
    assert_eq!(left.len(), dear.len(), "{report}");
    assert!(
        left.iter()
            .all(|(_, reason)| reason.contains("costs too much")),
        "{left:?}"
    );
    // A hash that another program wrote into the store is not computed either.
    let cheap = file(&gatepost, "cheap", "ann:{PLAIN}hunter2\n");
    gatepost.succeed(&["import", "--format", "dovecot", &cheap]);
    for hash in &dear {
        let store = Connection::open(gatepost.store()).expect("open the store");
        let update = "UPDATE credentials SET password_hash = ? WHERE username = 'ann'";
        store.execute(update, [hash]).expect("write the hash");
        eventually("the login is put off", || {
            let begun = std::time::Instant::now();
            let reply = log_in(&gatepost, "ann", "hunter2");
            assert!(begun.elapsed().as_secs() < 5, "{hash}");
            reply.starts_with("454").then_some(())
        });
    }
}

#[test]
fn files_of_spreadsheets_are_taken_or_said_what_they_are() {
    let upstream = Upstream::start();
    let site = Site::new(Config::for_upstream(upstream.address));
    let import = |octets: &[u8], options: &[&str]| {
        let path = site.path("store").join("users.csv");
        fs::write(&path, octets).expect("write a file");
        let base = ["import", "--format", "csv", path.to_str().unwrap()];
        site.run(&[&base[..], options].concat())
    };
    let utf_16 = |text: &str, mark: bool, big: bool| {
        let units = mark
            .then_some(0xfeff)
            .into_iter()
            .chain(text.encode_utf16());
        let octets = units.flat_map(|unit| match big {
            true => unit.to_be_bytes(),
            false => unit.to_le_bytes(),
        });
        octets.collect::<Vec<_>>()
    };
    let text = "username,password\r\nann,{PLAIN}hunter2\r\n";
    for (octets, part) in [
        (
            text.replace(',', ";").into_bytes(),
            "separated by semicolons: separate them by commas",
        ),
        (text.replace(',', "\t").into_bytes(), "separated by tabs"),
        (text.replace("\r\n", "\r").into_bytes(), "end with CR alone"),
        (utf_16(text, true, false), "it is UTF-16: save it as UTF-8"),
        (utf_16(text, true, true), "it is UTF-16"),
        (utf_16(text, false, false), "it is UTF-16"),
        (b"username,password,\xfc\r\n".to_vec(), "it is not UTF-8"),
    ] {
        let output = import(&octets, &[]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains(part) && !error.contains("hunter2"),
            "{error}"
        );
    }
    let output = import(
        b"\xef\xbb\xbfusername,password\r\nann,hunter2\r\nbob,{PLAIN}x\r\nbob,{PLAIN}y\r\nbob,\r\neve\xe9,{PLAIN}x\r\n",
        &["--json"],
    );
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(lines(&report, "taken", "username"), [(3, "bob")]);
    let left = lines(&report, "left", "reason");
    for (line, part) in [
        (2, "if it is the password itself, write {PLAIN} before it"),
        (
            4,
            "lines 3, 4 and 5 have the same username; only line 3 counts",
        ),
        (5, "no password"),
        (6, "it is not UTF-8: save the file as UTF-8"),
    ] {
        let (_, reason) = left.iter().find(|(number, _)| *number == line).unwrap();
        assert!(reason.contains(part), "line {line}: {reason}");
    }
    let repeated = json!([{ "username": "bob", "lines": [3, 4, 5] }]);
    assert_eq!(report["repeated"], repeated);
}

#[test]
fn folded_usernames_log_in_in_any_case_and_generated_ones_only_in_their_own() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address).text("auth", "username_case", "fold");
    let gatepost = Gatepost::start(config);
    let made = gatepost.json(&["credential", "create"]);
    let generated = made["username"].as_str().unwrap();
    let password = made["password"].as_str().unwrap();
    let text = "v_plain:{PLAIN}hunter2\nUpper@Example.TEST:{PLAIN}hunter2\nupper@example.test:{PLAIN}other\n";
    let path = file(&gatepost, "passwd", text);
    let report = gatepost.json(&["import", "--format", "dovecot", &path]);
    assert_eq!(
        lines(&report, "taken", "username"),
        [(1, "v_plain"), (2, "upper@example.test")]
    );
    let reason = "lines 2 and 3 have the same username apart from case; only line 2 counts";
    assert_eq!(lines(&report, "left", "reason"), [(3, reason)]);
    for username in [
        "v_plain",
        "V_Plain",
        "V_PLAIN",
        "UPPER@example.test",
        "upper@example.test",
    ] {
        log_in(&gatepost, username, "hunter2").expect("235");
        log_in(&gatepost, username, "hunter3").expect("535 5.7.8");
    }
    log_in(&gatepost, generated, password).expect("235");
    log_in(&gatepost, &generated.to_lowercase(), password).expect("535 5.7.8");
    eventually("the uses are written", || {
        let shown = gatepost.json(&["credential", "show", "v_plain"]);
        (shown["last_used"]["count"] == 3).then_some(())
    });
    // Commands take the spelling of a client, too.
    let shown = gatepost.json(&["credential", "show", "UPPER@example.test"]);
    assert_eq!(shown["username"], "upper@example.test");
    let refusals = ["refusals", "list", "--username", "V_PLAIN"];
    eventually("the refusals are written", || {
        let found = gatepost.json(&refusals);
        (found[0]["username"] == "v_plain").then_some(())
    });
    let explain = ["explain", "--username", "V_Plain", "--from", "192.0.2.7"];
    assert_eq!(gatepost.json(&explain)["accepted"], true);
    // A revocation holds for every spelling, also for those that the cache knows.
    gatepost.succeed(&["credential", "revoke", "V_Plain"]);
    for username in ["v_plain", "V_PLAIN"] {
        eventually("the revocation counts", || {
            let reply = log_in(&gatepost, username, "hunter2");
            reply.starts_with("535 5.7.8").then_some(())
        });
    }
    let check = || String::from_utf8(gatepost.run(&["check"]).stdout).unwrap();
    assert!(!check().contains("usernames"), "{}", check());
    let store = Connection::open(gatepost.store()).expect("open the store");
    let rename = "UPDATE credentials SET username = 'Upper' WHERE username = 'upper@example.test'";
    store.execute(rename, []).expect("rename a credential");
    let words = "FAIL  usernames    1 username(s), such as Upper, have upper-case letters";
    assert!(check().contains(words), "{}", check());
}

#[test]
fn a_refusal_of_a_nearly_right_username_says_which_was_meant() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let made = gatepost.json(&["credential", "create"]);
    let generated = made["username"].as_str().unwrap();
    let path = file(&gatepost, "passwd", "v_plain:{PLAIN}hunter2\n");
    gatepost.succeed(&["import", "--format", "dovecot", &path]);
    let lower = generated.to_lowercase();
    let cases = [
        (
            "V_Plain",
            "the credential v_plain differs only in case: write it so in the client, or set auth.username_case",
        ),
        (
            " v_plain",
            "the credential \"v_plain\" has no blanks at its ends",
        ),
        (
            "V_plain ",
            "the credential \"v_plain\" differs only in case and in the blanks",
        ),
        (
            lower.as_str(),
            "differs only in case: the client must send it exactly so",
        ),
    ];
    for (username, _) in cases {
        log_in(&gatepost, username, "hunter2").expect("535 5.7.8");
    }
    log_in(&gatepost, "v_plain2", "hunter2").expect("535 5.7.8");
    let refusals = eventually("all are written", || {
        let refusals = gatepost.json(&["refusals", "list"]);
        (refusals.as_array().unwrap().len() == 5).then_some(refusals)
    });
    let hint_of = |username: &str| {
        let mut refusals = refusals.as_array().unwrap().iter();
        let found = refusals.find(|refusal| refusal["username"] == username);
        found.expect(username)["hint"].clone()
    };
    for (username, part) in cases {
        let hint = hint_of(username);
        assert!(
            hint.as_str().unwrap().contains(part),
            "{username:?}: {hint}"
        );
        let explain = ["explain", "--username", username, "--from", "192.0.2.7"];
        let explained = gatepost.json(&explain);
        assert_eq!(explained["accepted"], false);
        assert!(
            explained.to_string().contains(&part.replace('"', "\\\"")),
            "{explained}"
        );
    }
    assert_eq!(hint_of("v_plain2"), Value::Null);
    let people = gatepost.succeed(&["refusals", "list", "--username", "V_Plain"]);
    assert!(
        people.contains("the credential v_plain differs only in case"),
        "{people}"
    );
}

/// Runs a program on a terminal of its own.
const ON_A_TERMINAL: &str =
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

#[test]
fn a_long_import_shows_its_progress_on_a_terminal_and_nowhere_else() {
    let upstream = Upstream::start();
    let site = Site::new(Config::for_upstream(upstream.address));
    let fifo = site.path("store").join("passwd");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let import = ["import", "--format", "dovecot", fifo.to_str().unwrap()];
    // The import waits for its file for as long as the test keeps it from its end.
    let finish = |mut file: fs::File, line: &str| file.write_all(line.as_bytes()).unwrap();
    let open = || fs::OpenOptions::new().write(true).open(&fifo).unwrap();

    let terminal = ["python3", "-c", ON_A_TERMINAL].map(str::to_owned);
    let mut command = site.command_behind(&terminal, &import);
    let mut running = command.stdout(Stdio::piped()).spawn().unwrap();
    let file = open();
    let mut output = running.stdout.take().unwrap();
    let mut text = Vec::new();
    while !text.windows(11).any(|part| part == b"Importing: ") {
        let mut part = [0; 256];
        let count = output.read(&mut part).unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&part[..count]);
    }
    finish(file, "ann:{PLAIN}hunter2\n");
    output.read_to_end(&mut text).unwrap();
    assert!(running.wait().unwrap().success());
    let text = String::from_utf8(text).unwrap();
    let end = text
        .rsplit_once("\r\u{1b}[2K")
        .expect("the line is taken away")
        .1;
    assert!(end.starts_with("Took 1 credential(s)"), "{text:?}");

    let mut command = site.command(&import);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = command.spawn().unwrap();
    let file = open();
    std::thread::sleep(Duration::from_millis(1_500)); // the terminal would show it by now
    finish(file, "bob:{PLAIN}hunter2\n");
    let output = running.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!text.contains("Importing: "), "{text:?}");
}
