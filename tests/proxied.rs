//! Gatepost behind a load balancer: whose word is taken for who the client is, and whose not.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::relay::delivered;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::site::Config;
use crate::support::upstream::Upstream;

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 587\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\x9c\x40\x02\x4b";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// The one load balancer there is. Everybody else in the tests is at 127.0.0.1.
const BALANCER: &str = "127.0.0.2";

fn behind(upstream: &Upstream) -> Config {
    Config::for_upstream(upstream.address).proxy_from(&[BALANCER])
}

fn dial(from: &str, server: SocketAddr) -> Client {
    Client::dial_from(from.parse().unwrap(), server).expect("connect")
}

#[test]
fn the_header_says_who_the_client_is_and_where_it_went() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(behind(&upstream));
    let credential = gatepost.create();
    for header in [V1, V2] {
        let mut client = dial(BALANCER, gatepost.submission);
        client.write(header);
        client.reply().expect("220");
        let mut client = client.starttls();
        client.log_in(&credential);
        client.expect("QUIT", "221");
        gatepost.wait_for_log(&["session ended address=203.0.113.7 port=40000"]);

        let mut client = dial(BALANCER, gatepost.submissions);
        client.write(header);
        let mut client = client.over_tls();
        client.reply().expect("220");
        client.log_in(&credential);
        client
            .send_message(b"Subject: x\r\n\r\nhello\r\n")
            .expect("250");
    }
    let session = upstream.wait_for("with the message", delivered);
    let xclient = session.xclient().unwrap();
    for part in [
        "ADDR=203.0.113.7 ",
        "PORT=40000 ",
        "DESTADDR=192.0.2.1 ",
        "DESTPORT=587",
    ] {
        assert!(xclient.contains(part), "{xclient}");
    }
}

#[test]
fn a_header_in_pieces_is_a_header() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(behind(&upstream));
    for header in [V1, V2] {
        let mut client = dial(BALANCER, gatepost.submission);
        header.chunks(1).for_each(|byte| client.write(byte));
        client.reply().expect("220");
    }
}

#[test]
fn the_balancer_s_own_connections_are_its_own() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(behind(&upstream));
    for header in [LOCAL, b"PROXY UNKNOWN\r\n"] {
        let mut client = dial(BALANCER, gatepost.submission);
        client.write(header);
        client.reply().expect("220");
        client.expect("QUIT", "221");
    }
    gatepost.wait_for_log(&["session ended address=127.0.0.2", "ending=\"closed\""]);
    let checked = gatepost.succeed(&["check"]);
    assert!(
        checked.contains("(PROXY headers from 127.0.0.2)"),
        "{checked}"
    );
}

#[test]
fn nobody_else_is_believed() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(behind(&upstream));
    let mut client = Client::submission(&gatepost);
    client.expect("QUIT", "221");
    let mut liar = dial("127.0.0.1", gatepost.submission);
    liar.write(V1);
    // Whether it spoke before or after the greeting, its words are a client's.
    let reply = liar.reply();
    if reply.starts_with("220") {
        liar.reply().expect("500 5.5.1");
    } else {
        reply.expect("421 4.7.0");
    }
    drop(liar);
    gatepost.wait_for_log(&["session ended address=127.0.0.1 "]);
    assert!(
        !gatepost.log().contains("203.0.113.7"),
        "{}",
        gatepost.log()
    );
}

#[test]
fn anything_else_from_the_balancer_is_closed_before_the_greeting() {
    let upstream = Upstream::start();
    let config = behind(&upstream).text("timeouts", "proxy", "300ms");
    let gatepost = Gatepost::start(config);
    let long = [b"PROXY TCP4 ", &[b'1'; 120][..], b"\r\n"].concat();
    for garbage in [
        &b"EHLO client.example\r\n"[..],
        b"PROXY TCP4 nonsense\r\n",
        b"PROXY X\r\n",
        &long,
        b"",
        &V1[..20],
        &V2[..20],
    ] {
        for server in [gatepost.submission, gatepost.submissions] {
            let mut client = dial(BALANCER, server);
            client.write(garbage);
            client.expect_close();
        }
    }
    drop({
        let mut gone = dial(BALANCER, gatepost.submission);
        gone.write(&V1[..20]);
        gone
    });
    // Each by its name, and each once a minute and listener, whatever else comes.
    for (reason, words, ending) in [
        ("missing", "something else", "no PROXY header"),
        ("malformed", "is malformed", "malformed PROXY header"),
        (
            "oversized",
            "longer than 107 octets",
            "oversized PROXY header",
        ),
        ("timeout", "in time", "no PROXY header"),
        ("incomplete", "ended inside", "incomplete PROXY header"),
    ] {
        let warning = gatepost.wait_for_log(&[
            "closed a connection from a network in proxy_from",
            &format!("reason=\"{reason}\""),
        ]);
        for part in [
            "WARN",
            "address=127.0.0.2 ",
            "listener=\"subm",
            words,
            "count=1",
        ] {
            assert!(warning.contains(part), "no {part} in {warning}");
        }
        gatepost.wait_for_log(&[&format!("ending=\"{ending}\""), "address=127.0.0.2"]);
    }
    let log = gatepost.log();
    assert_eq!(log.matches("reason=\"malformed\"").count(), 2, "{log}");
    assert_eq!(log.matches("reason=\"timeout\"").count(), 2, "{log}");
}

/// A HAProxy that passes both listeners on, with headers of one version.
struct Haproxy {
    submission: SocketAddr,
    submissions: SocketAddr,
    child: Child,
    _directory: TempDir,
}

impl Haproxy {
    fn start(gatepost: &Gatepost, send: &str) -> Self {
        let directory = TempDir::new().expect("tempdir");
        let (submission, submissions) = (ports::free_address(), ports::free_address());
        let mut config = String::from("defaults\n mode tcp\n timeout connect 5s\n");
        config.push_str(" timeout client 60s\n timeout server 60s\n");
        for (name, bind, server) in [
            ("submission", submission, gatepost.submission),
            ("submissions", submissions, gatepost.submissions),
        ] {
            writeln!(
                config,
                "listen {name}\n bind {bind}\n source {BALANCER}\n server gatepost {server} {send}"
            )
            .unwrap();
        }
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, config).expect("write the configuration");
        let child = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .expect("start HAProxy");
        eventually("HAProxy listens", || {
            std::net::TcpStream::connect(submissions).ok()
        });
        Self {
            submission,
            submissions,
            child,
            _directory: directory,
        }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // Fails where it has ended, and then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_haproxy_says_who_the_client_is() {
    let upstream = Upstream::start();
    for send in ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl"] {
        let gatepost = Gatepost::start(behind(&upstream));
        let credential = gatepost.create();
        let haproxy = Haproxy::start(&gatepost, send);
        let from = Ipv4Addr::new(127, 0, 0, 9);
        let mut client = Client::dial_from(from.into(), haproxy.submission).expect("connect");
        client.reply().expect("220");
        let mut client = client.starttls();
        client.log_in(&credential);
        client
            .send_message(b"Subject: x\r\n\r\nhello\r\n")
            .expect("250");
        client.expect("QUIT", "221");
        let mut client = Client::dial_from(from.into(), haproxy.submissions)
            .expect("connect")
            .over_tls();
        client.reply().expect("220");
        client.log_in(&credential);
        client.expect("QUIT", "221");
        gatepost.wait_for_log(&["session ended address=127.0.0.9 ", "messages=1"]);
        gatepost.wait_for_log(&["session ended address=127.0.0.9 ", "messages=0"]);
    }
    for session in upstream.handed_over() {
        assert!(
            session.xclient().unwrap().contains("ADDR=127.0.0.9 "),
            "{session:?}"
        );
    }
}
