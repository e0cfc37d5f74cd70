//! The log as others read it: the two lines of a documented form, fail2ban, and the journal.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gatepost::Gatepost;
use crate::support::journal::Journal;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::Upstream;

/// What the session line says, in this order.
const SESSION_FIELDS: [&str; 11] = [
    "address",
    "port",
    "tls",
    "helo",
    "username",
    "organization",
    "messages",
    "recipients",
    "bytes",
    "seconds",
    "ending",
];

/// What the line of a refused login says, in this order.
const REFUSAL_FIELDS: [&str; 5] = ["address", "username", "mechanism", "result", "reason"];

/// Usernames that would like to be another line, another address, or a terminal's master.
fn hostile_usernames() -> Vec<String> {
    let line = "login refused address=192.0.2.66 username=\"x\" mechanism=\"PLAIN\" \
                result=\"reject\" reason=\"unknown\"";
    let json = "{\"timestamp\":\"2026-01-01T00:00:00.000000Z\",\"level\":\"INFO\",\
                \"message\":\"login refused\",\"address\":\"192.0.2.66\"}";
    vec![
        format!("\n{line}"),
        format!("\r\n2026-01-01T00:00:00.000000Z  INFO gatepost::auth: {line}"),
        format!("\" mechanism=\"PLAIN\" result=\"reject\" reason=\"unknown\"\n{line}"),
        format!("\\\" {line}"),
        format!("x\n{json}"),
        "\\".to_owned(),
        "address=192.0.2.66".to_owned(),
        "\u{1b}]0;owned\u{7}\u{1b}[2J\u{1b}[31m".to_owned(),
        "\u{202e}\u{2028}\u{85}é <HOST> %s %(x)s".to_owned(),
        "x".repeat(255),
        "\u{1b}".repeat(255),
    ]
}

/// Of the usernames, what turns text around, or ends a line for some programs.
const HIDDEN: [char; 3] = ['\u{202e}', '\u{2028}', '\u{85}'];

/// EHLO takes no space, so these are poorer.
const HOSTILE_NAMES: [&str; 4] = [
    "\"address=192.0.2.66\"",
    "\\",
    "gatepost::auth:login",
    "[192.0.2.66]",
];

/// A daemon with refused logins in its log, and the addresses they came from; beside them an
/// accepted one, one that met an outage, and sessions without a login.
fn refusals(format: &'static str) -> (Gatepost, Option<Journal>, Vec<String>) {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address).text("log", "format", format);
    let site = Arc::new(Site::new(config));
    let journal = (format == "journald").then(|| Journal::start(&site));
    let gatepost = match &journal {
        Some(journal) => Gatepost::serve_behind(&site, &journal.prefix()),
        None => Gatepost::serve(&site),
    };
    let mut from = Vec::new();
    for (index, username) in hostile_usernames().into_iter().enumerate() {
        let address = format!("127.0.7.{}", index + 1);
        let name = HOSTILE_NAMES[index % HOSTILE_NAMES.len()];
        let password = "sk_00000000000000000000000000000000".to_owned();
        let claim = Credential { username, password };
        log_in(&gatepost, &address, name, &claim, "535");
        from.push(address);
    }
    let good = gatepost.create();
    log_in(&gatepost, "127.0.7.101", HOSTILE_NAMES[0], &good, "235");
    let broken = gatepost.create();
    gatepost.sql(
        "UPDATE credentials SET password_hash = 'none' WHERE username = ?1",
        &broken.username,
    );
    log_in(&gatepost, "127.0.7.102", HOSTILE_NAMES[0], &broken, "454");
    (gatepost, journal, from)
}

fn log_in(site: &Site, from: &str, name: &str, credential: &Credential, answer: &str) {
    let client = Client::dial_from(from.parse().unwrap(), site.submissions).expect("connect");
    let mut client = client.over_tls();
    client.reply().expect("220");
    client.expect(&format!("EHLO {name}"), "250");
    client.auth_plain(credential).expect(answer);
    client.expect("QUIT", "221");
    client.expect_close();
}

/// The addresses that fail2ban takes from a log, one for each match, with its options first.
fn banned(log: &[&str]) -> Vec<String> {
    matched("gatepost", log)
}

/// The same by this filter.
fn matched(filter: &str, log: &[&str]) -> Vec<String> {
    let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/fail2ban");
    let mut command = Command::new("fail2ban-regex");
    command.args(["--out", "ip"]).args(log);
    let filter = contrib.join(format!("filter.d/{filter}.conf"));
    let output = command.arg(filter).output();
    let output = output.expect("run fail2ban-regex");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

/// Waits until the log has the end of the last session, behind which nothing comes.
fn settled(gatepost: &Gatepost) -> String {
    gatepost.wait_for_log(&["session ended", "127.0.7.102"]);
    gatepost.log()
}

#[test]
fn fail2ban_sees_each_refusal_once_and_nothing_else_in_text_and_json() {
    for format in ["text", "json"] {
        let (gatepost, _, from) = refusals(format);
        let log = settled(&gatepost);
        assert!(!log.contains('\u{1b}') && !log.contains('\r'), "{log}");
        assert!(!log.contains(HIDDEN), "{log}");
        // In JSON it is a backslash that stands in the value.
        let backslash = if format == "json" { "\\\\" } else { "\\" };
        let spelled = ["u{202e}", "u{2028}", "u{85}"].map(|part| format!("{backslash}{part}"));
        assert!(log.contains(&spelled.concat()), "{log}");
        // A line of a client's making would begin with something else.
        let begins = |line: &str| line.starts_with("20") || line.starts_with("{\"timestamp\":\"20");
        assert!(log.lines().all(begins), "{log}");
        assert_eq!(banned(&[gatepost.path("log").to_str().unwrap()]), from);

        // The same lines as the journal and syslog hold what a unit writes to standard error.
        let prefixed = |prefix: &str| {
            let lines = log.lines().map(|line| format!("{prefix}{line}\n"));
            lines.collect::<String>()
        };
        for prefix in [
            "mail gatepost[4711]: ",
            "Nov 24 00:00:00 mail gatepost[4711]: ",
        ] {
            let file = gatepost.path("prefixed");
            std::fs::write(&file, prefixed(prefix)).expect("write");
            assert_eq!(banned(&[file.to_str().unwrap()]), from, "behind {prefix:?}");
        }
    }
}

#[test]
fn fail2ban_sees_each_refusal_once_in_a_real_journal() {
    let (_gatepost, journal, from) = refusals("journald");
    let journal = journal.expect("a journal");
    eventually("the last session is in the journal", || {
        let last = |entry: &Value| entry["GATEPOST_ADDRESS"] == "127.0.7.102";
        let ended = |entry: &Value| last(entry) && entry["TARGET"] == "gatepost::session";
        journal.entries().iter().any(ended).then_some(())
    });
    let source = format!(
        "systemd-journal[journalpath={}]",
        journal.directory().display()
    );
    // No unit of systemd's here, so the filter's own match cannot fit.
    assert_eq!(banned(&["-m", "_COMM=gatepost", &source]), from);

    // Each field by its name, with control characters as they were sent; the message is for people.
    let entries = journal.entries();
    let refused: Vec<_> = entries
        .iter()
        .filter(|entry| entry["TARGET"] == "gatepost::auth")
        .filter(|entry| entry["GATEPOST_RESULT"] == "reject")
        .collect();
    assert_eq!(refused.len(), from.len());
    for (entry, username) in refused.iter().zip(hostile_usernames()) {
        let mut shown = username;
        for hidden in HIDDEN {
            shown = shown.replace(hidden, &hidden.escape_unicode().to_string());
        }
        assert_eq!(text_of(&entry["GATEPOST_USERNAME"]), shown, "{entry}");
        assert!(!text_of(&entry["MESSAGE"]).contains(HIDDEN), "{entry}");
        assert_eq!(entry["PRIORITY"], "6");
        let message = entry["MESSAGE"].as_str().expect("a printable message");
        assert!(message.starts_with("login refused address=127.0.7."));
    }
    for (target, fields) in [
        ("gatepost::session", &SESSION_FIELDS[..]),
        ("gatepost::auth", &REFUSAL_FIELDS),
    ] {
        let entry = entries.iter().find(|entry| entry["TARGET"] == target);
        let entry = entry.expect(target);
        for field in fields {
            let key = format!("GATEPOST_{}", field.to_uppercase());
            assert!(!entry[&key].is_null(), "no {key} in {entry}");
        }
    }
}

#[test]
fn fail2ban_bans_nobody_for_a_login_that_came_from_nowhere() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("log");
    let line = |address: &str| {
        format!(
            "2026-01-01T00:00:00.000000Z  INFO gatepost::auth: login refused address={address} \
             username=\"x\" mechanism=\"LOGIN\" result=\"reject\" reason=\"unknown\"\n"
        )
    };
    let log = line("0.0.0.0") + &line("2001:db8::7") + &line("192.0.2.7");
    std::fs::write(&file, log).expect("write");
    let banned = banned(&[file.to_str().unwrap()]);
    assert_eq!(banned, ["2001:db8::7", "192.0.2.7"]);
}

/// The reasons of refused logins that the manual lists for one result.
fn reasons(result: &str) -> Vec<String> {
    let manual = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/reference/log.md"),
    );
    let manual = manual.expect("read the manual");
    let row = format!("| `reason` of `{result}` | ");
    let row = manual.lines().find_map(|line| line.strip_prefix(&row));
    let words = row.expect("a row").split('`').skip(1).step_by(2);
    words.map(str::to_owned).collect()
}

#[test]
fn fail2ban_counts_each_reason_that_the_manual_promises() {
    let rejected = reasons("reject");
    assert!(rejected.len() >= 8, "{rejected:?}");
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("log");
    let others = ["barred", "unavailable"].map(|result| (result, reasons(result)));
    for json in [false, true] {
        let (mut log, mut expected) = (String::new(), Vec::new());
        let all = others.iter().map(|(result, reasons)| (*result, reasons));
        let all = all.chain([("reject", &rejected)]);
        for (result, reason) in
            all.flat_map(|(result, all)| all.iter().map(move |one| (result, one)))
        {
            let address = format!("192.0.2.{}", log.lines().count() + 1);
            log += &match json {
                false => format!(
                    "2026-01-01T00:00:00.000000Z  INFO gatepost::auth: login refused address={address} \
                     username=\"x\" mechanism=\"LOGIN\" result=\"{result}\" reason=\"{reason}\"\n"
                ),
                true => format!(
                    "{{\"timestamp\":\"2026-01-01T00:00:00.000000Z\",\"level\":\"INFO\",\
                     \"message\":\"login refused\",\"address\":\"{address}\",\"username\":\"x\",\
                     \"mechanism\":\"LOGIN\",\"result\":\"{result}\",\"reason\":\"{reason}\",\
                     \"target\":\"gatepost::auth\"}}\n"
                ),
            };
            // A device that was forgotten is no attack.
            if result == "reject" && reason != "previous_password" {
                expected.push(address);
            }
        }
        std::fs::write(&file, log).expect("write");
        assert_eq!(banned(&[file.to_str().unwrap()]), expected);
    }
}

#[test]
fn fail2ban_sees_the_bans_of_the_guard() {
    for format in ["text", "json"] {
        let upstream = Upstream::start();
        let config = Config::for_upstream(upstream.address)
            .guarded()
            .text("auth", "refusal_delay", "10ms")
            .text("log", "format", format);
        let gatepost = Gatepost::start(config);
        let stranger = gatepost.create();
        for number in 0..10 {
            let guess = Credential {
                username: stranger.username.clone(),
                password: format!("sk_{number:032}"),
            };
            let client = Client::dial_from("127.0.9.1".parse().unwrap(), gatepost.submissions);
            let mut client = client.expect("connect").over_tls();
            client.reply().expect("220");
            client.expect("EHLO client.example", "250");
            client.auth_plain(&guess);
        }
        gatepost.wait_for_log(&["network banned", "127.0.9.1/32"]);
        let log = gatepost.path("log");
        let log = log.to_str().unwrap();
        assert_eq!(
            matched("gatepost-banned", &[log]),
            ["127.0.9.1"],
            "{format}"
        );
    }
}

/// Log lines have no text that Rust's `{:?}` makes of a type.
#[test]
fn a_refused_message_is_logged_in_words() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address).text("relay", "bare_newline", "reject");
    let gatepost = Gatepost::start(config);
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    client.begin_message();
    client.write(b"Subject: x\r\n\r\none\ntwo\r\n.\r\n");
    client.reply().expect("550");
    let line = gatepost.wait_for_log(&["message refused"]);
    assert!(line.contains("refusal=\"bare_newline\" line=3"), "{line}");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![source];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("read the source") {
            let path = entry.expect("read the source").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("read the source");
            for call in text.split("tracing::").skip(1) {
                let call = call.split(");").next().unwrap_or_default();
                let debug = call.contains("= ?") || call.contains(" ?") || call.contains("(?");
                assert!(!debug, "{}: tracing::{call}", path.display());
            }
        }
    }
}

/// What journalctl's JSON makes of a value: text, or its octets where they are not printable.
fn text_of(value: &Value) -> String {
    let octet = |value: &Value| value.as_u64().expect("an octet") as u8;
    match value {
        Value::Array(octets) => String::from_utf8(octets.iter().map(octet).collect()).unwrap(),
        value => value.as_str().expect("text").to_owned(),
    }
}

#[test]
fn without_a_journal_the_lines_go_to_standard_error_and_say_so() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address).text("log", "format", "journald");
    let site = Arc::new(Site::new(config));
    let nowhere = ["unshare", "--mount", "sh", "-c"];
    let script = "mount -t tmpfs none /run && exec \"$0\" \"$@\"";
    let prefix = nowhere.map(str::to_owned);
    let gatepost = Gatepost::serve_behind(&site, &[&prefix[..], &[script.to_owned()]].concat());
    gatepost.wait_for_log(&["WARN", "no journal listens", "start systemd-journald"]);
    let stranger = gatepost.create().with_wrong_password();
    log_in(&gatepost, "127.0.7.1", "laptop", &stranger, "535");
    gatepost.wait_for_log(&["INFO gatepost::auth: login refused address=127.0.7.1 "]);
}

#[test]
fn the_documented_lines_have_their_documented_fields_in_order() {
    for format in ["text", "json"] {
        let (gatepost, ..) = refusals(format);
        settled(&gatepost);
        for (target, fields) in [
            ("gatepost::session", &SESSION_FIELDS[..]),
            ("gatepost::auth", &REFUSAL_FIELDS),
        ] {
            let line = gatepost.wait_for_log(&[target, "127.0.7.6"]);
            let mut rest = &line[..];
            for field in fields {
                let name = match format {
                    "json" => format!("\"{field}\":"),
                    _ => format!(" {field}="),
                };
                let found = rest.split_once(&name);
                rest = found.unwrap_or_else(|| panic!("no {name} in {line}")).1;
            }
        }
    }
}

#[test]
fn a_password_in_the_place_of_the_username_is_kept_nowhere() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address);
    let gatepost = Gatepost::start(config.text("last_used", "flush_interval", "50ms"));
    let credential = gatepost.create();
    let swapped = Credential {
        username: credential.password.clone(),
        password: credential.username.clone(),
    };
    let mut client = Client::submissions(&gatepost);
    client.expect("EHLO client.example", "250");
    client.auth_plain(&swapped).expect("535 5.7.8");
    gatepost.wait_for_log(&["login refused", "sk_…", "unknown"]);
    let refusals = eventually("the refusal in the store", || {
        let listed = gatepost.succeed(&["refusals", "list"]);
        listed.contains("sk_…").then_some(listed)
    });
    for kept in [gatepost.log(), refusals] {
        assert!(!kept.contains(&credential.password), "{kept}");
    }
}
