//! Handshakes that fail: the log says why and what to do, by the reason that the metric counts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::prometheus::{served, wait_for_series};
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::site::{Config, Site};
use crate::support::upstream::Upstream;

/// A ClientHello of this version with these cipher suites, and with nothing else but signature
/// schemes and groups.
fn hello(version: u16, suites: &[u16]) -> Vec<u8> {
    let octets = |numbers: &[u16]| -> Vec<u8> {
        let octets = numbers.iter().flat_map(|number| number.to_be_bytes());
        octets.collect()
    };
    let long = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let extension =
        |kind: u16, list: &[u16]| [&kind.to_be_bytes()[..], &long(&long(&octets(list)))].concat();
    let extensions = [
        extension(10, &[0x001d, 0x0017]),
        extension(13, &[0x0403, 0x0804, 0x0401]),
    ];
    let message = [
        &version.to_be_bytes()[..],
        &[7; 32],
        &[0],
        &long(&octets(suites)),
        &[1, 0],
        &long(&extensions.concat()),
    ]
    .concat();
    let length = (message.len() as u32).to_be_bytes();
    let handshake = [&[1], &length[1..], &message].concat();
    [&[0x16, 3, 1], &long(&handshake)[..]].concat()
}

struct Served {
    gatepost: Gatepost,
    metrics: SocketAddr,
    _upstream: Upstream,
}

impl Served {
    fn start() -> Served {
        let upstream = Upstream::start();
        let metrics = ports::free_address();
        let config = Config::for_upstream(upstream.address)
            .text("metrics", "listen", &metrics.to_string())
            .text("timeouts", "handshake", "1s");
        Served {
            gatepost: Gatepost::start(config),
            metrics,
            _upstream: upstream,
        }
    }

    /// The one line on a failed handshake from this address has all of these, and its reason is the
    /// one that was counted.
    #[track_caller]
    fn assert_told(&self, from: &str, listener: &str, reason: &str, parts: &[&str]) {
        let site: &Site = &self.gatepost;
        let address = match listener {
            "submission" => site.submission,
            _ => site.submissions,
        };
        let line = self.gatepost.wait_for_log(&[
            " INFO gatepost::tls: TLS handshake failed",
            &format!("address={from} port="),
        ]);
        let listener = format!("listener=\"{listener} {address}\"");
        let reason_field = format!("reason=\"{reason}\"");
        for part in [&[listener.as_str(), &reason_field], parts].concat() {
            assert!(line.contains(part), "no {part} in {line}");
        }
        let series = format!("gatepost_tls_handshake_failures_total{{reason=\"{reason}\"}}");
        assert!(served(self.metrics, &series) >= Some(1.0), "{series}");
        self.gatepost.wait_for_log(&[
            &format!("address={from} "),
            "ending=\"TLS handshake failed\"",
        ]);
    }
}

fn dial(from: &str, server: SocketAddr) -> Client {
    Client::dial_from(from.parse().unwrap(), server).expect("connect")
}

#[test]
fn what_a_client_sends_to_the_tls_port_is_told_from_what_it_should() {
    let served = Served::start();
    let old = "at most TLS 1.0, and Gatepost takes TLS 1.2 and 1.3";
    let suites = "the client offers TLS_RSA_WITH_AES_128_CBC_SHA, TLS_RSA_WITH_AES_256_CBC_SHA";
    let cases: [(&[u8], &str, &[&str]); 8] = [
        (
            &hello(0x0301, &[0x002f, 0x0035]),
            "no_version",
            &[old, "hint=\"update"],
        ),
        (
            &hello(0x0302, &[0x002f]),
            "no_version",
            &["at most TLS 1.1,"],
        ),
        (
            &[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10, 1, 0, 0x80],
            "no_version",
            &["SSL 2.0"],
        ),
        (
            &hello(0x0303, &[0x002f, 0x0035]),
            "no_cipher",
            &[suites, "hint="],
        ),
        (
            b"EHLO client.example\r\n",
            "plain_text",
            &["plain text", "port 587 with STARTTLS"],
        ),
        (b"GET / HTTP/1.1\r\n\r\n", "plain_text", &["plain text"]),
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "proxy_header",
            &["proxy_from"],
        ),
        (b"\0\0\0\0\0\0\0\0", "not_tls", &["neither TLS nor SMTP"]),
    ];
    for (number, (sent, reason, parts)) in cases.into_iter().enumerate() {
        let from = format!("127.0.8.{}", number + 1);
        let mut client = dial(&from, served.gatepost.submissions);
        client.write(sent);
        served.assert_told(&from, "submissions", reason, parts);
    }
    // Half a handshake: the client goes away, or says nothing more.
    let half = &hello(0x0303, &[0x1301])[..20];
    let mut client = dial("127.0.8.100", served.gatepost.submissions);
    client.write(half);
    drop(client);
    served.assert_told("127.0.8.100", "submissions", "gone", &["in the middle"]);
    let mut client = dial("127.0.8.101", served.gatepost.submissions);
    client.write(half);
    served.assert_told(
        "127.0.8.101",
        "submissions",
        "timeout",
        &["timeouts.handshake", "STARTTLS"],
    );
}

#[test]
fn a_client_that_does_not_believe_the_certificate_is_pointed_to_the_chain() {
    let served = Served::start();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("mail.example.test").expect("a name");
    let mut session = ClientConnection::new(Arc::new(config), name).expect("a session");
    let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 8, 1)), 0);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.bind(&local.into()).expect("bind");
    socket
        .connect(&served.gatepost.submissions.into())
        .expect("connect");
    let mut socket = TcpStream::from(socket);
    assert!(session.complete_io(&mut socket).is_err());
    served.assert_told(
        "127.0.8.1",
        "submissions",
        "certificate",
        &["unknown_ca", "whole chain"],
    );
}

#[test]
fn tls_and_proxy_headers_on_the_starttls_port_are_called_that() {
    let served = Served::start();
    let submission = served.gatepost.submission;
    // Before the greeting was read and after it: a client that begins with TLS waits for nothing.
    for (number, waits) in [false, true].into_iter().enumerate() {
        let from = format!("127.0.8.{}", number + 1);
        let mut client = dial(&from, submission);
        if waits {
            client.reply().expect("220");
        }
        client.write(&hello(0x0303, &[0x1301]));
        let parts = ["begins in plain text", "hint=\"set the client to STARTTLS"];
        served.assert_told(&from, "submission", "tls_first", &parts);
    }
    let mut client = dial("127.0.8.11", submission);
    client.reply().expect("220");
    client.expect("EHLO client.example", "250");
    client.expect("STARTTLS", "220");
    client.write(b"EHLO client.example\r\n");
    served.assert_told(
        "127.0.8.11",
        "submission",
        "plain_text",
        &["after STARTTLS"],
    );

    let mut liar = dial("127.0.8.12", submission);
    liar.write(b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 587\r\n");
    served.gatepost.wait_for_log(&[
        "WARN",
        "a PROXY header came from an address that is not in the listener's proxy_from",
        "address=127.0.8.12 ",
    ]);
    let series = "gatepost_proxy_header_failures_total{reason=\"untrusted\"}";
    wait_for_series(served.metrics, series, 1.0);
}

#[test]
fn connections_on_which_nothing_came_are_counted_and_not_logged() {
    let upstream = Upstream::start();
    let metrics = ports::free_address();
    let config = Config::for_upstream(upstream.address)
        .proxy_from(&["127.0.0.2"])
        .text("metrics", "listen", &metrics.to_string());
    let gatepost = Gatepost::start(config);
    for server in [gatepost.submission, gatepost.submissions] {
        // A probe of anybody's, one of the load balancer's, and one with a header before it.
        drop(dial("127.0.0.1", server));
        drop(dial("127.0.0.2", server));
        let mut probe = dial("127.0.0.2", server);
        probe.write(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
        drop(probe);
    }
    wait_for_series(metrics, "gatepost_connections_silent_total", 6.0);
    let mut client = dial("127.0.8.1", gatepost.submission);
    client.reply().expect("220");
    client.expect("QUIT", "221");
    let line = gatepost.wait_for_log(&["session ended", "address=127.0.8.1 "]);
    let log = gatepost.log();
    assert_eq!(log.matches("session ended").count(), 1, "{log}");
    assert!(!log.contains("TLS handshake failed"), "{log}");
    // To the millisecond, which never needs an exponent.
    let seconds = line
        .split("seconds=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let seconds = seconds.expect("seconds");
    assert!(
        seconds
            .bytes()
            .all(|octet| octet.is_ascii_digit() || octet == b'.'),
        "{line}"
    );
    assert!(seconds.parse::<f64>().expect("a number") < Duration::from_secs(60).as_secs_f64());
}
