//! `gatepost guard` where it cannot ask the daemon: it goes by the store, and says what that means.

use std::net::Ipv4Addr;

use serde_json::json;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::Upstream;

const GUESSER: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 9);

/// Whether a login could be tried from there.
fn guess(site: &Site, number: usize) -> bool {
    let mut client = Client::dial_from(GUESSER.into(), site.submission).expect("connect");
    if client.try_reply().is_none() {
        return false;
    }
    let mut client = client.starttls();
    client.expect("EHLO guard.example.test", "250");
    client.auth_plain(&Credential {
        username: format!("smtp_{number:016}"),
        password: "sk_guess".to_owned(),
    });
    true
}

/// What a command printed, and what it remarked.
fn told(site: &Site, arguments: &[&str]) -> (String, String) {
    let output = site.run(arguments);
    assert!(output.status.success(), "{output:?}");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_daemon_without_a_socket_keeps_its_ban_and_the_command_says_so() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address)
        .guarded()
        .text("auth", "refusal_delay", "10ms")
        .text("last_used", "flush_interval", "50ms");
    let gatepost = Gatepost::start(config);
    assert!((0..20).any(|number| !guess(&gatepost, number)), "no ban");
    let remark = eventually("the ban is written", || {
        let (listed, remark) = told(&gatepost, &["guard", "list"]);
        listed.contains("banned").then_some(remark)
    });
    assert!(
        remark.contains("This is what the store has") && remark.contains("names no socket"),
        "{remark}"
    );
    let (cleared, remark) = told(&gatepost, &["guard", "clear", "127.0.9.9", "--json"]);
    let cleared: serde_json::Value = serde_json::from_str(&cleared).expect("one document");
    assert_eq!(cleared, json!({ "cleared": 2 }));
    assert!(
        remark.contains("Only the store was changed")
            && remark.contains("a Gatepost that runs goes by what it remembers"),
        "{remark}"
    );
    assert!(!guess(&gatepost, 99), "the ban is still there");
}

#[test]
fn where_nobody_answers_at_the_socket_the_command_says_so() {
    let upstream = Upstream::start();
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("admin.sock");
    let config = Config::for_upstream(upstream.address);
    let site = Site::new(config.text("admin", "socket", socket.to_str().unwrap()));
    for (command, begin) in [
        (&["guard", "list"][..], "This is what the store has"),
        (
            &["guard", "clear", "127.0.9.9"],
            "Only the store was changed",
        ),
    ] {
        let (printed, remark) = told(&site, command);
        assert!(printed.starts_with("Nothing is held"), "{printed}");
        assert!(
            remark.starts_with(begin) && remark.contains("no Gatepost answers at admin.socket"),
            "{remark}"
        );
    }
}
