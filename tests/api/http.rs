//! The administration as an HTTP server: what it refuses to read, how long it waits, how many it serves, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::StreamOwned;
use serde_json::Value;

use super::{Answer, DEFAULT, Served};
use crate::support::gatepost::Gatepost;
use crate::support::holder::Holder;
use crate::support::prometheus::get;
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, ports, tls};

/// One connection, on which several requests may be sent.
struct Connection<S: Read + Write> {
    stream: BufReader<S>,
    head: String,
}

impl Connection<TcpStream> {
    fn to(served: &Served) -> Connection<TcpStream> {
        let stream = TcpStream::connect(served.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection::over(stream, served)
    }
}

impl<S: Read + Write> Connection<S> {
    fn over(stream: S, served: &Served) -> Connection<S> {
        let (host, token) = (served.host(), &served.token);
        Connection {
            stream: BufReader::new(stream),
            head: format!("{host}\r\nAuthorization: Bearer {token}\r\n"),
        }
    }

    /// Sends a request with these further headers and this body, whole or not.
    fn send(&mut self, request: &str, headers: &str, body: &str) {
        let text = format!("{request} HTTP/1.1\r\n{}{headers}\r\n{body}", self.head);
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
        self.stream.get_mut().flush().unwrap();
    }

    /// Sends the head of a request and waits until its body is asked for: by then the token was found to be right.
    fn begin(&mut self, request: &str, length: usize) {
        let headers = format!("{JSON}Content-Length: {length}\r\nExpect: 100-continue\r\n");
        self.send(request, &headers, "");
        let mut interim = [0; 25];
        self.stream.read_exact(&mut interim).unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    fn receive(&mut self) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.stream.read_line(&mut head).unwrap(), 0, "{head:?}");
        }
        let mut answer = Answer {
            status: head[9..12].parse().unwrap(),
            head,
            body: Value::Null,
        };
        let mut body = vec![0; answer.header("content-length").parse().unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        answer.body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        answer
    }

    fn ask(&mut self, request: &str, headers: &str, body: &str) -> Answer {
        self.send(request, headers, body);
        self.receive()
    }

    /// Whether the other side has closed.
    fn is_closed(&mut self) -> bool {
        matches!(self.stream.get_mut().read(&mut [0]), Ok(0) | Err(_))
    }
}

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let make = format!("POST {DEFAULT}");
    let refused = |request: &str, headers: &str, body: &str| {
        let answer = Connection::to(&served).ask(request, headers, body);
        let kind = answer.header("content-type").to_owned();
        assert_eq!(kind, "application/problem+json");
        answer
    };
    let code = |answer: &Answer| {
        (
            answer.status,
            answer.body["code"].as_str().unwrap().to_owned(),
        )
    };

    let text = refused(
        &make,
        "Content-Type: text/plain\r\nContent-Length: 2\r\n",
        "{}",
    );
    assert_eq!(code(&text), (415, "unsupported-media-type".to_owned()));
    let malformed = refused(&make, &format!("{JSON}Content-Length: 1\r\n"), "{");
    assert_eq!(code(&malformed), (400, "malformed-body".to_owned()));
    let large = format!("{JSON}Content-Length: 65537\r\n");
    let body = format!("{{\"name\":\"{}\"}}", "x".repeat(65_537 - 11));
    assert_eq!(
        code(&refused(&make, &large, &body)),
        (413, "too-large".to_owned())
    );
    let begun = Instant::now();
    let slow = refused(&make, &format!("{JSON}Content-Length: 2\r\n"), "{");
    assert_eq!(code(&slow), (408, "too-slow".to_owned()));
    assert!(begun.elapsed().as_secs() >= 9, "{:?}", begun.elapsed());

    let mut connection = Connection::to(&served);
    // As much as is read of a head and no more: what was not read could take the answer with it.
    let mut head = "GET /api/v1/status HTTP/1.1\r\nX-Long: ".to_owned();
    head.push_str(&"x".repeat(16 * 1024 - head.len()));
    let sent = connection.stream.get_mut().write_all(head.as_bytes());
    sent.unwrap();
    let mut line = String::new();
    connection.stream.read_line(&mut line).unwrap();
    assert!(line.contains(" 431 "), "{line}");
}

#[test]
fn requests_are_counted_by_the_form_of_their_path() {
    let upstream = Upstream::start();
    let metrics = ports::free_address();
    let (address, config) = Served::config(&upstream);
    let config = config.text("metrics", "listen", &metrics.to_string());
    let mut served = Served {
        daemon: Gatepost::start(config),
        address,
        token: String::new(),
    };
    served.token = served.token_for("instance:read");
    for username in ["smtp_0000000000000000", "smtp_1111111111111111"] {
        let show = format!("GET {DEFAULT}/{username}");
        served.admin(&show, None).expect(404);
    }
    served
        .admin("GET /api/smtp_of_a_stranger", None)
        .expect(404);
    served.by("", "GET /api/v1/status", None).expect(401);
    let text = get(metrics, "/metrics");
    for (method, route, status, count) in [
        (
            "GET",
            "/api/v1/organizations/{slug}/credentials/{username}",
            404,
            2,
        ),
        ("GET", "/api/{*path}", 404, 1),
        ("GET", "/api/v1/status", 401, 1),
    ] {
        let series = format!(
            "gatepost_admin_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}} {count}"
        );
        assert!(text.lines().any(|line| line == series), "{series}\n{text}");
    }
    assert!(!text.contains("smtp_"), "{text}");
}

#[test]
fn tls_is_spoken_where_it_is_asked_for() {
    let upstream = Upstream::start();
    let (address, config) = Served::config(&upstream);
    let mut served = Served {
        daemon: Gatepost::start(config.flag("admin", "tls", true)),
        address,
        token: String::new(),
    };
    served.token = served.token_for("instance:read");
    let stream = TcpStream::connect(address).unwrap();
    let stream = StreamOwned::new(tls::session(), stream);
    let mut connection = Connection::over(stream, &served);
    connection.ask("GET /api/v1/status", "", "").expect(200);
    let mut plain = Connection::to(&served);
    plain.send("GET /api/v1/status", "", "");
    let mut first = [0];
    // An alert of TLS, and nothing of HTTP.
    assert!(!matches!(plain.stream.read(&mut first), Ok(1) if first == *b"H"));

    // Whoever does not shake hands is not waited for.
    let _silent = TcpStream::connect(address).unwrap();
    let stream = StreamOwned::new(tls::session(), TcpStream::connect(address).unwrap());
    let mut connection = Connection::over(stream, &served);
    connection.ask("GET /api/v1/status", "", "").expect(200);
    served.daemon.signal(Signal::TERM);
    let begun = Instant::now();
    assert!(served.daemon.wait().success());
    let waited = begun.elapsed();
    assert!(
        waited.as_secs() < 8,
        "a handshake may take 10 s: {waited:?}"
    );
}

#[test]
fn two_hundred_and_fifty_six_are_served_at_a_time_and_the_one_idle_for_longest_gives_way() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let mut connections: Vec<_> = (0..256).map(|_| Connection::to(&served)).collect();
    for connection in &mut connections {
        connection.ask("GET /api/v1/status", "", "").expect(200);
    }
    connections[0].ask("GET /api/v1/status", "", "").expect(200);
    let mut newest = Connection::to(&served);
    newest.ask("GET /api/v1/status", "", "").expect(200);
    assert!(connections[1].is_closed());
    connections[0].ask("GET /api/v1/status", "", "").expect(200);
    connections[2].ask("GET /api/v1/status", "", "").expect(200);
}

/// Clients that only hold their connections, and the octets that they send.
const IDLERS: [(&str, &[u8]); 4] = [
    ("nothing", b""),
    ("half a head", b"GET /healthz HTTP/1.1\r\nHost: a"),
    (
        "a head without its body",
        b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n",
    ),
    (
        "a request for an answer that it does not read",
        b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ),
];

#[test]
fn clients_that_hold_connections_lock_no_administrator_out() {
    let upstream = Upstream::start();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let metrics = ports::free_address();
    let served = Served::start_with(&upstream, |config| {
        config
            .text("admin", "socket", socket.to_str().unwrap())
            .text("metrics", "listen", &metrics.to_string())
    });
    let places = [
        served.address.to_string(),
        metrics.to_string(),
        socket.display().to_string(),
    ];
    for (what, said) in IDLERS {
        let _holder = Holder::start(500, said, &places);
        for round in 0..30 {
            let begun = Instant::now();
            let status = "GET /api/v1/status";
            served.by(&served.token, status, None).expect(200);
            assert!(get(metrics, "/metrics").contains("gatepost_build_info"));
            served.daemon.succeed(&["sessions", "list"]);
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(8), "{what}, {round}: {took:?}");
        }
    }
    served.daemon.wait_for_log(&["WARN", "too many clients"]);
    let log = served.daemon.log();
    let warnings = log.matches("too many clients").count();
    assert!(
        warnings <= 6,
        "three listeners, one line a minute: {warnings}"
    );
}

#[test]
fn a_token_that_is_revoked_while_a_request_comes_in_changes_nothing() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let mut slow = Connection::to(&served);
    slow.begin("POST /api/v1/organizations", 15);
    served.daemon.succeed(&["token", "revoke", "t"]);
    let body = b"{\"slug\":\"last\"}";
    slow.stream.get_mut().write_all(body).unwrap();
    let refused = slow.receive().expect(401);
    assert_eq!(refused.body["code"], "unauthorized");
    let organizations = served.daemon.json(&["organization", "list"]);
    assert_eq!(organizations.as_array().unwrap().len(), 1);
}

#[test]
fn a_token_that_is_revoked_has_nobody_refused_while_nothing_can_be_written() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let credential = served.daemon.create();
    let body = b"{\"status\":\"revoked\",\"disconnect\":true}";
    let mut slow = Connection::to(&served);
    slow.begin(
        &format!("PATCH {DEFAULT}/{}", credential.username),
        body.len(),
    );
    served.daemon.succeed(&["token", "revoke", "t"]);
    let store = rusqlite::Connection::open(served.daemon.store()).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    slow.stream.get_mut().write_all(body).unwrap();
    slow.receive().problem(401, "unauthorized");
    served.log_in(&credential).expect("235");
}

#[test]
fn a_request_under_way_is_answered_before_the_end() {
    let upstream = Upstream::start();
    let mut served = Served::start(&upstream);
    let mut idle = Connection::to(&served);
    idle.ask("GET /api/v1/status", "", "").expect(200);
    idle.ask("GET /api/v1/status", "", "").expect(200);
    let mut busy = Connection::to(&served);
    let create = "POST /api/v1/organizations";
    busy.begin(create, 15);
    served.daemon.signal(Signal::TERM);
    served.daemon.wait_for_state("STOPPING=1");
    assert!(idle.is_closed());
    busy.stream
        .get_mut()
        .write_all(b"{\"slug\":\"last\"}")
        .unwrap();
    assert_eq!(busy.receive().expect(201).body["slug"], "last");
    assert!(served.daemon.wait().success());
}
