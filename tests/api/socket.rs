//! The administration on its unix socket: whoever may open it is known by their user id and needs no token.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use super::{Answer, DEFAULT, issued};
use crate::support::PATIENCE;
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::site::Config;
use crate::support::upstream::Upstream;

/// Asks with these headers and no others.
fn ask(socket: &Path, request: &str, headers: &[&str]) -> Answer {
    let mut stream = UnixStream::connect(socket).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut text = format!("{request} HTTP/1.1\r\nConnection: close\r\n");
    for header in headers {
        text.push_str(&format!("{header}\r\n"));
    }
    let sent = stream.write_all(format!("{text}\r\n").as_bytes());
    sent.expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    Answer {
        status: head[9..12].parse().expect("a status"),
        head: head.to_owned(),
        body: serde_json::from_str(body).unwrap_or(Value::Null),
    }
}

#[test]
fn who_may_open_the_socket_needs_no_token() {
    let upstream = Upstream::start();
    let directory = tempfile::tempdir().expect("tempdir");
    let socket = directory.path().join("admin.sock");
    let config = Config::for_upstream(upstream.address);
    let daemon = Gatepost::start(config.text("admin", "socket", socket.to_str().unwrap()));
    let mode = std::fs::metadata(&socket).expect("a socket").permissions();
    assert_eq!(mode.mode() & 0o777, 0o660);

    let (host, status) = ("Host: whatever.test", "GET /api/v1/status");
    let found = ask(&socket, status, &[host]).expect(200).body;
    let places = found["listeners"].to_string();
    assert!(places.contains(&format!("unix:{}", socket.display())));
    let made = ask(&socket, &format!("POST {DEFAULT}"), &[host]);
    let credential = issued(&made.expect(201));
    daemon.remember(&credential);
    Client::logged_in(&daemon, &credential).expect("QUIT", "221");
    let audit = ask(&socket, "GET /api/v1/audit", &[host]).expect(200).body;
    let uid = rustix::process::getuid().as_raw();
    let actor = json!({ "kind": "socket", "name": format!("uid {uid}"), "address": null });
    assert_eq!(audit["items"][0]["actor"], actor);

    // Somebody's browser is not somebody, and a token that is brought has to be right.
    let origin = "Origin: http://evil.test";
    ask(&socket, status, &[host, origin]).problem(403, "foreign-origin");
    let wrong = "Authorization: Bearer gp_wrong";
    ask(&socket, status, &[host, wrong]).problem(401, "unauthorized");
}
