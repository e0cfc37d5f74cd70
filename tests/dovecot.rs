//! The authentication socket: the protocol itself, and Postfix asking there without the proxy.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;

use crate::support::PATIENCE;
use crate::support::auth_client::AuthClient;
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::holder::Holder;
use crate::support::ports;
use crate::support::postfix::{Postfix, Sockets};
use crate::support::refused_soon;
use crate::support::site::{Config, Credential};
use crate::support::upstream::Upstream;

/// What Postfix sends along with a mechanism.
const PARAMETERS: &str = "service=smtp\tnologin\tlip=127.0.0.1\trip=127.0.0.7\tsecured";

fn answering_at(upstream: &Upstream, listen: &str) -> Gatepost {
    let config = Config::for_upstream(upstream.address);
    Gatepost::start(config.text("dovecot_auth", "listen", listen))
}

fn ask_plain(client: &mut AuthClient, id: u32, credential: &Credential) -> String {
    client.ask(&format!(
        "AUTH\t{id}\tPLAIN\t{PARAMETERS}\tresp={}",
        credential.plain()
    ))
}

fn assert_verdicts(client: &mut AuthClient, gatepost: &Gatepost) {
    let credential = gatepost.create();
    for part in [
        "VERSION\t1\t",
        "SPID\t",
        "CUID\t",
        "COOKIE\t",
        "MECH\tPLAIN",
        "MECH\tLOGIN",
    ] {
        let found = client.handshake.iter().any(|line| line.starts_with(part));
        assert!(found, "no {part:?} in {:?}", client.handshake);
    }
    let accepted = ask_plain(client, 1, &credential);
    assert!(accepted.starts_with("OK\t1"), "{accepted:?}");
    assert!(
        accepted.contains(&format!("\tuser={}", credential.username)),
        "{accepted:?}"
    );
    let refused = ask_plain(client, 2, &credential.with_wrong_password());
    assert!(refused.starts_with("FAIL\t2"), "{refused:?}");
}

#[test]
fn plain_is_answered_over_tcp() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let gatepost = answering_at(&upstream, &address.to_string());
    assert_verdicts(&mut AuthClient::over_tcp(address), &gatepost);
}

#[test]
fn plain_is_answered_over_a_unix_socket() {
    let upstream = Upstream::start();
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("auth");
    let gatepost = answering_at(&upstream, &format!("unix:{}", path.display()));
    assert_verdicts(&mut AuthClient::over_unix(&path), &gatepost);
}

#[test]
fn login_is_answered_challenge_by_challenge() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let gatepost = answering_at(&upstream, &address.to_string());
    let credential = gatepost.create();
    let mut client = AuthClient::over_tcp(address);
    let challenge = client.ask(&format!("AUTH\t1\tLOGIN\t{PARAMETERS}"));
    assert_eq!(challenge, "CONT\t1\tVXNlcm5hbWU6");
    let challenge = client.ask(&format!(
        "CONT\t1\t{}",
        STANDARD.encode(&credential.username)
    ));
    assert_eq!(challenge, "CONT\t1\tUGFzc3dvcmQ6");
    let verdict = client.ask(&format!(
        "CONT\t1\t{}",
        STANDARD.encode(&credential.password)
    ));
    assert!(verdict.starts_with("OK\t1"), "{verdict:?}");
}

#[test]
fn revoked_is_refused_and_malformed_is_refused_without_harm() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let gatepost = answering_at(&upstream, &address.to_string());
    let (revoked, valid) = (gatepost.create(), gatepost.create());
    gatepost.succeed(&["credential", "revoke", &revoked.username]);
    let mut client = AuthClient::over_tcp(address);
    assert!(ask_plain(&mut client, 1, &revoked).starts_with("FAIL\t1"));
    let malformed = client.ask(&format!("AUTH\t2\tPLAIN\t{PARAMETERS}\tresp=~~~~"));
    assert!(malformed.starts_with("FAIL\t2"), "{malformed:?}");
    let unknown = client.ask(&format!("AUTH\t3\tCRAM-MD5\t{PARAMETERS}"));
    assert!(unknown.starts_with("FAIL\t3"), "{unknown:?}");
    assert!(ask_plain(&mut client, 4, &valid).starts_with("OK\t4"));
    // As long as a line of AUTH may be, and no less wrong than any other.
    let long = Credential {
        password: "x".repeat(9000),
        ..valid.clone()
    };
    assert_eq!(ask_plain(&mut client, 5, &long), "FAIL\t5");
}

#[test]
fn a_client_that_does_not_introduce_itself_is_closed_and_a_quiet_smtpd_is_not() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let gatepost = answering_at(&upstream, &address.to_string());
    let credential = gatepost.create();
    let mut smtpd = AuthClient::over_tcp(address);
    let begun = Instant::now();
    let mut silent: Vec<_> = [&b""[..], b"VERSION\t1\t1\n", b"CPI"]
        .into_iter()
        .map(|said| {
            let mut socket = TcpStream::connect(address).expect("connect");
            socket.write_all(said).expect("write");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket
        })
        .collect();
    for socket in &mut silent {
        let mut said = Vec::new();
        socket
            .read_to_end(&mut said)
            .expect("the end of the connection");
        assert!(said.ends_with(b"DONE\n"));
    }
    assert!(
        begun.elapsed() > Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    assert!(ask_plain(&mut smtpd, 1, &credential).starts_with("OK\t1"));
}

#[test]
fn silent_clients_keep_no_smtpd_out() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let gatepost = answering_at(&upstream, &address.to_string());
    let credential = gatepost.create();
    let _holder = Holder::start(1100, b"", &[address.to_string()]);
    for id in 1..=30 {
        let begun = Instant::now();
        let mut client = AuthClient::over_tcp(address);
        assert!(ask_plain(&mut client, id, &credential).starts_with("OK"));
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    gatepost.wait_for_log(&["WARN", "too many clients"]);
}

#[test]
fn postfix_asks_gatepost_directly_without_the_proxy() {
    let postfix = Postfix::start(Sockets::Tcp);
    // The whole configuration: no listener, no certificate, no upstream.
    let config = postfix.asks(Config::for_verdicts(&postfix.auth()));
    let admin = ports::free_address().to_string();
    let config = config.text("metrics", "listen", &ports::free_address().to_string());
    let mut gatepost = Gatepost::start(config.text("admin", "listen", &admin));
    let checked = gatepost.succeed(&["check"]);
    assert!(
        checked.lines().all(|line| line.starts_with("ok ")),
        "{checked}"
    );
    assert!(!checked.contains("certificate") && !checked.contains("upstream"));
    let credential = gatepost.create();
    assert!(http(&admin, "/readyz").contains("200 OK"));

    // SIGHUP loads a certificate elsewhere.
    gatepost.signal(Signal::HUP);
    gatepost.wait_for_state("READY=1");
    let mut client = client_of(&postfix);
    client
        .auth_plain(&credential.with_wrong_password())
        .expect("535 5.7.8");
    client.auth_login(&credential).expect("235 2.7.0");
    client
        .send_message(b"Subject: directly\r\n\r\nhello\r\n")
        .expect("250 2.0.0");

    postfix.wait_for_message("Subject: directly");
    postfix.wait_for_log(&[
        "postfix/direct",
        &format!("sasl_username={}", credential.username),
    ]);
    gatepost.succeed(&["credential", "revoke", &credential.username]);
    refused_soon(|| client_of(&postfix).auth_plain(&credential));
}

/// The answer to a GET.
fn http(address: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("connect");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("ask");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    answer
}

fn client_of(postfix: &Postfix) -> Client {
    let mut client = Client::dial(postfix.direct).expect("connect");
    client.reply().expect("220");
    let mut client = client.starttls();
    client.expect("EHLO client.example", "250");
    client
}
