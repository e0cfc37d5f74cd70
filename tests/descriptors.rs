//! File descriptors run short: the administrator is served first.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::prometheus::served;
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::prometheus::get;
use crate::support::site::{Config, Site};
use crate::support::upstream::Upstream;

/// The descriptors of the daemon itself on so many cores, and a few more.
fn few() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    60.max(50 + 5 * cores)
}

fn behind_limit(limit: usize) -> [String; 3] {
    let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
    ["sh".to_owned(), "-c".to_owned(), script]
}

#[test]
fn a_crowd_of_clients_leaves_the_administrator_what_he_needs() {
    let upstream = Upstream::start();
    let metrics = ports::free_address();
    let directory = tempfile::tempdir().expect("tempdir");
    let socket = directory.path().join("admin.sock");
    let config = Config::for_upstream(upstream.address)
        .text("metrics", "listen", &metrics.to_string())
        .text("admin", "socket", socket.to_str().unwrap());
    let site = Arc::new(Site::new(config));
    let gatepost = Gatepost::serve_behind(&site, &behind_limit(few()));
    let credential = gatepost.create();
    let mut client = Client::logged_in(&gatepost, &credential);
    client.begin_message();
    let [mut good, mut wrong] = [(); 2].map(|()| {
        let mut waiting = Client::submissions(&gatepost);
        waiting.expect("EHLO client.example", "250");
        waiting
    });
    let crowd: Vec<_> = (0..90)
        .map(|number| match number % 2 {
            0 => TcpStream::connect(gatepost.submission),
            _ => TcpStream::connect(gatepost.submissions),
        })
        .collect();
    let limit = served(metrics, "gatepost_connections_limit").expect("a limit");
    assert!(limit < few() as f64 / 2.0, "{limit}");
    gatepost.wait_for_log(&["WARN", "clients were turned away", "count=1"]);

    // The clients that are there are served, the administrator is answered, and at once.
    let begun = Instant::now();
    good.auth_plain(&credential).expect("235");
    assert!(begun.elapsed() < Duration::from_secs(2));
    let guess = credential.with_wrong_password();
    wrong.auth_plain(&guess).expect("535 5.7.8");
    client.write(b"Subject: x\r\n\r\nhello\r\n.\r\n");
    client.reply().expect("250");
    good.expect("QUIT", "221");
    good.expect_close();
    for _ in 0..20 {
        let begun = Instant::now();
        let sessions = gatepost.json(&["sessions", "list"]);
        assert_eq!(sessions.as_array().expect("a list").len(), 1, "{sessions}");
        assert!(get(metrics, "/metrics").contains("gatepost_connections_open"));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    let log = gatepost.log();
    assert_eq!(served(metrics, "gatepost_accept_errors_total"), Some(0.0));
    assert_eq!(log.matches("clients were turned away").count(), 1, "{log}");
    // It said so at its start, and says what to set.
    let warning = gatepost.wait_for_log(&["WARN", "too few file descriptors"]);
    assert!(warning.contains("LimitNOFILE=8448"), "{warning}");
    gatepost.succeed(&["credential", "revoke", &credential.username]);
    // Once accepted, this connection could not try again.
    std::thread::sleep(Duration::from_secs(1));
    wrong.auth_plain(&credential).expect("535 5.7.8");
    drop(crowd);
    let output = gatepost.run(&["doctor", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let findings = document["findings"].as_array().expect("findings");
    let finding = findings
        .iter()
        .find(|finding| finding["check"] == "descriptors");
    let finding = finding.expect("a finding");
    assert_eq!(finding["level"], "warning", "{finding}");
    let begun = Instant::now();
    gatepost.signal(Signal::TERM);
    assert!(gatepost.wait().success());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn check_and_doctor_warn_where_the_limit_is_too_low() {
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    for (limit, expected) in [("1000", "WARN  descriptors"), ("9000", "ok    descriptors")] {
        let prefix = behind_limit(limit.parse().unwrap());
        let output = site.command_behind(&prefix, &["check"]).output();
        let text = String::from_utf8(output.expect("run check").stdout).expect("UTF-8");
        assert!(text.contains(expected), "{limit}: {text}");
    }
    let prefix = behind_limit(1000);
    let output = site.command_behind(&prefix, &["doctor"]).output();
    let text = String::from_utf8(output.expect("run doctor").stdout).expect("UTF-8");
    assert!(text.contains("warning  descriptors"), "{text}");
    assert!(text.contains("LimitNOFILE=8448"), "{text}");
}
