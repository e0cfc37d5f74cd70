//! The administration over HTTP: who may ask, what a change does to logins, and what is never told.

mod answers;
mod bulk;
mod conditions;
mod disconnects;
mod expiring;
mod fairness;
mod full_disk;
mod generated;
mod http;
mod import;
mod last_message;
mod limits;
mod lists;
mod names;
mod neighbours;
mod operations;
mod overlap;
mod races;
mod refusals;
mod snapshot;
mod socket;
mod strangers;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::PATIENCE;
use crate::support::client::{Client, Reply};
use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::Upstream;

/// An answer: its status, its head and its document.
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{} {}", self.head, self.body);
        self
    }

    /// It must be this problem.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Answer {
        let answer = self.expect(status);
        assert_eq!(answer.body["code"], code, "{}", answer.body);
        assert_eq!(answer.body["status"], status, "{}", answer.body);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        answer
    }

    fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.unwrap_or_else(|| panic!("no {name}")).1
    }
}

/// A daemon with its administration on TCP, and a token for everything.
pub struct Served {
    pub daemon: Gatepost,
    address: SocketAddr,
    pub token: String,
}

impl Served {
    fn start(upstream: &Upstream) -> Served {
        Served::start_with(upstream, |config| config)
    }

    pub fn start_with(upstream: &Upstream, change: impl FnOnce(Config) -> Config) -> Served {
        Served::launch(upstream, change, |command| command)
    }

    /// The same, with the daemon started as `arrange` makes of the usual command.
    pub fn launch(
        upstream: &Upstream,
        change: impl FnOnce(Config) -> Config,
        arrange: impl FnOnce(Command) -> Command,
    ) -> Served {
        let (address, config) = Served::config(upstream);
        let mut served = Served {
            daemon: Gatepost::launch(&Arc::new(Site::new(change(config))), arrange),
            address,
            token: String::new(),
        };
        let advice = "gatepost token create --name NAME --scope instance:admin";
        served
            .daemon
            .wait_for_log(&["there is no admin token yet", advice]);
        served.token = served.token_for("instance:admin");
        served
    }

    fn config(upstream: &Upstream) -> (SocketAddr, Config) {
        let address = ports::free_address();
        let config = Config::for_upstream(upstream.address);
        (
            address,
            config.text("admin", "listen", &address.to_string()),
        )
    }

    fn token_for(&self, scope: &str) -> String {
        self.token_named("t", scope)
    }

    pub fn token_named(&self, name: &str, scope: &str) -> String {
        let create = ["token", "create", "--name", name, "--scope", scope];
        self.daemon.json(&create)["secret"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn host(&self) -> String {
        format!("Host: {}", self.address)
    }

    /// Asks with these headers and no others.
    fn ask(&self, request: &str, headers: &[&str], body: Option<Value>) -> Answer {
        self.ask_from(Ipv4Addr::LOCALHOST, request, headers, body)
    }

    /// Sends a request with the token for everything, and waits for nothing.
    pub fn begin(&self, request: &str, body: &Value) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).expect("connect");
        let (host, body) = (self.host(), body.to_string());
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\n{host}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n",
            self.token
        );
        socket
            .write_all(format!("{head}\r\n{body}").as_bytes())
            .expect("send a request");
        socket
    }

    /// Asks with the token for everything, on condition of an ETag.
    pub fn if_match(&self, tag: &str, request: &str, body: Option<Value>) -> Answer {
        let bearer = format!("Authorization: Bearer {}", self.token);
        let condition = format!("If-Match: {tag}");
        self.ask(request, &[&self.host(), &bearer, &condition], body)
    }

    /// The same from an address of one's own: wrong tokens are counted by it.
    fn ask_from(
        &self,
        client: Ipv4Addr,
        request: &str,
        headers: &[&str],
        body: Option<Value>,
    ) -> Answer {
        let body = body.map_or_else(String::new, |body| body.to_string());
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        let client = SocketAddr::new(IpAddr::V4(client), 0);
        socket.bind(&client.into()).expect("bind");
        socket.connect(&self.address.into()).expect("connect");
        let mut socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = format!("{request} HTTP/1.1\r\nConnection: close\r\n");
        for header in headers {
            text.push_str(&format!("{header}\r\n"));
        }
        if !body.is_empty() {
            let length = body.len();
            text.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {length}\r\n"
            ));
        }
        socket
            .write_all(format!("{text}\r\n{body}").as_bytes())
            .unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let shows = request.ends_with("/credentials") || request.ends_with("/rotate");
        if request.starts_with("POST") && (shows || request.ends_with("/tokens")) {
            self.daemon.secrets.remember_shown(&answer);
        } else {
            self.daemon.secrets.note(request, &answer);
        }
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        Answer {
            status: head[9..12].parse().unwrap(),
            head: head.to_owned(),
            body: serde_json::from_str(body).unwrap_or(Value::Null),
        }
    }

    /// Asks with a token.
    pub fn by(&self, token: &str, request: &str, body: Option<Value>) -> Answer {
        let token = format!("Authorization: Bearer {token}");
        self.ask(request, &[&self.host(), &token], body)
    }

    pub fn log_in(&self, credential: &Credential) -> Reply {
        let mut client = Client::submissions(&self.daemon);
        client.expect("EHLO api.example.test", "250");
        client.auth_plain(credential)
    }
}

pub const DEFAULT: &str = "/api/v1/organizations/default/credentials";

pub fn issued(answer: &Answer) -> Credential {
    Credential::from_json(answer.body.to_string().as_bytes())
}

#[test]
fn a_change_counts_before_it_is_answered() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let token = served.token.clone();
    let made = served.by(
        &token,
        &format!("POST {DEFAULT}"),
        Some(json!({ "name": "Printer" })),
    );
    let old = issued(&made.expect(201));
    let one = format!("{DEFAULT}/{}", old.username);
    for _ in 0..20 {
        assert!(served.log_in(&old).starts_with("235"));
        let revoked = served.by(
            &token,
            &format!("PATCH {one}"),
            Some(json!({ "status": "revoked" })),
        );
        assert_eq!(revoked.expect(200).body["status"], "revoked");
        assert!(served.log_in(&old).starts_with("535 5.7.8"));
        served
            .by(
                &token,
                &format!("PATCH {one}"),
                Some(json!({ "status": "active" })),
            )
            .expect(200);
    }
    let shown = served.by(&token, &format!("GET {one}"), None).expect(200);
    assert_eq!(
        shown.body["last_used"]["count"], 20,
        "what waits to be written is told, too"
    );

    let new = issued(
        &served
            .by(&token, &format!("POST {one}/rotate"), None)
            .expect(200),
    );
    assert!(served.log_in(&old).starts_with("535"));
    assert!(served.log_in(&new).starts_with("235"));
    served
        .by(&token, &format!("DELETE {one}"), None)
        .expect(204);
    assert!(served.log_in(&new).starts_with("535"));
    served.by(&token, &format!("GET {one}"), None).expect(404);
}

#[test]
fn a_live_session_ends_only_if_asked() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let token = served.token.clone();
    let credential = issued(
        &served
            .by(&token, &format!("POST {DEFAULT}"), None)
            .expect(201),
    );
    let mut client = Client::logged_in(&served.daemon, &credential);
    let one = format!("PATCH {DEFAULT}/{}", credential.username);
    let revoked = served
        .by(&token, &one, Some(json!({ "status": "revoked" })))
        .expect(200);
    assert_eq!(revoked.body["live_sessions"], 1);
    client.expect("NOOP", "250");
    let listed = served.by(&token, "GET /api/v1/sessions", None).expect(200);
    assert_eq!(
        listed.body["items"][0]["credential"],
        json!(credential.username)
    );
    let again = json!({ "status": "revoked", "disconnect": true });
    served.by(&token, &one, Some(again)).expect(200);
    client.reply().expect("421 4.7.0");
    let audit = served
        .by(&token, "GET /api/v1/audit?action=session.", None)
        .expect(200);
    assert_eq!(audit.body["items"][0]["object"], json!(credential.username));
    let actor = &audit.body["items"][0]["actor"];
    assert_eq!(
        (&actor["kind"], &actor["address"]),
        (&json!("token"), &json!("127.0.0.1"))
    );
    assert!(
        actor["name"].as_str().unwrap().starts_with("t ("),
        "{actor}"
    );
}

#[test]
fn wrong_tokens_are_held_off_and_a_right_one_is_not() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let wrong = served.token.replace("gp_", "gp_x");
    let status = "GET /api/v1/status";
    for _ in 0..10 {
        served.by(&wrong, status, None).expect(401);
    }
    let held_off = served.by(&wrong, status, None).expect(429);
    assert_eq!(held_off.header("retry-after"), "60");
    assert_eq!(held_off.body["code"], "too-many-failures");
    served.by(&served.token, status, None).expect(200);
    let bearer = format!("Authorization: Bearer {wrong}");
    let elsewhere = Ipv4Addr::new(127, 0, 0, 9);
    served
        .ask_from(elsewhere, status, &[&served.host(), &bearer], None)
        .expect(401);
}

#[test]
fn a_lost_race_and_a_repeated_request_are_told() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let bearer = format!("Authorization: Bearer {}", served.token);
    let host = served.host();
    let make = format!("POST {DEFAULT}");
    let once = [host.as_str(), &bearer, "Idempotency-Key: order-7"];
    let made = served.ask(&make, &once, None).expect(201);
    let repeated = served.ask(&make, &once, None).expect(409);
    assert_eq!(repeated.body["made"], made.body["id"]);
    assert!(repeated.body["password"].is_null());

    let edit = format!(
        "PATCH {DEFAULT}/{}",
        made.body["username"].as_str().unwrap()
    );
    let condition = format!("If-Match: {}", made.header("etag"));
    let headers = [host.as_str(), &bearer, &condition];
    served
        .ask(&edit, &headers, Some(json!({ "name": "first" })))
        .expect(200);
    let lost = served
        .ask(&edit, &headers, Some(json!({ "name": "second" })))
        .expect(412);
    assert_eq!(lost.body["code"], "changed");
    let wrong = json!({ "name": "\u{1}", "status": "gone" });
    let wrong = served.by(&served.token, &edit, Some(wrong)).expect(422);
    let pointers: Vec<_> = wrong.body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| &error["pointer"])
        .collect();
    assert_eq!(pointers, ["#/name", "#/status"]);
}
