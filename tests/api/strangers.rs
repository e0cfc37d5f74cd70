//! Every operation is carried out for the right token from the right place, and changes nothing for anybody else.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::operations::{Operation, Things};
use super::snapshot::Snapshot;
use super::{Answer, Served};
use crate::support::site::{Config, Site};
use crate::support::upstream::Upstream;

const STATUS: &str = "GET /api/v1/status";

/// Who must not be let in, with what headers, and how that is answered.
struct Stranger {
    who: &'static str,
    headers: Vec<String>,
    answer: (u16, &'static str),
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

fn strangers(served: &Served) -> Vec<Stranger> {
    let for_everything = |name| served.token_and_id(name, "instance:admin");
    let (_, revoked) = for_everything("revoked");
    // Used before: what was right once must not be remembered as such.
    served.by(&revoked, STATUS, None).expect(200);
    served.daemon.succeed(&["token", "revoke", "revoked"]);
    let (id, expired) = for_everything("expired");
    served.by(&expired, STATUS, None).expect(200);
    let expire = "UPDATE admin_tokens SET expires_at = created_at + 1 WHERE id = ?1";
    served.daemon.sql(expire, &id);
    let unknown = token_of_another_site(served);
    let misspelt = served.token.replace("gp_", "gp_x");
    let right = bearer(&served.token);
    let basic = right.replace("Bearer", "Basic");
    let (own, evil) = (served.address, "http://evil.test");
    let unauthorized = [
        ("nobody", vec![]),
        ("a malformed token", vec![bearer(&misspelt)]),
        ("a token of another site", vec![bearer(&unknown)]),
        ("a revoked token", vec![bearer(&revoked)]),
        ("an expired token", vec![bearer(&expired)]),
        ("another scheme", vec![basic]),
        ("two tokens", vec![right.clone(), right.clone()]),
    ];
    let foreign = [
        ("host", vec![right.clone(), "Host: evil.test".to_owned()]),
        ("origin", vec![right.clone(), format!("Origin: {evil}")]),
        ("origin", vec![right.clone(), "Origin: null".to_owned()]),
        (
            "origin",
            vec![
                right,
                format!("Origin: http://{own}"),
                format!("Origin: {evil}"),
            ],
        ),
    ];
    let unauthorized = unauthorized.map(|(who, headers)| (who, headers, (401, "unauthorized")));
    let foreign = foreign.map(|(what, headers)| match what {
        "host" => (what, headers, (403, "foreign-host")),
        _ => (what, headers, (403, "foreign-origin")),
    });
    let all = unauthorized.into_iter().chain(foreign);
    all.map(|(who, headers, answer)| Stranger {
        who,
        headers,
        answer,
    })
    .collect()
}

/// A token with everything that makes one, but issued by somebody else's Gatepost.
fn token_of_another_site(served: &Served) -> String {
    let site = Site::new(Config::for_upstream("127.0.0.1:25"));
    let create = ["token", "create", "--name", "t", "--scope"];
    let made = site.succeed(&[&create[..], &["instance:admin", "--json"]].concat());
    served.daemon.secrets.remember_shown(made.as_bytes());
    let made: Value = serde_json::from_str(&made).expect("one JSON document");
    made["secret"].as_str().expect("a secret").to_owned()
}

/// Asks from an address where nobody has brought a wrong token yet.
fn ask_afresh(
    served: &Served,
    number: usize,
    stranger: &Stranger,
    request: &str,
    body: Option<Value>,
) -> Answer {
    let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
    let from = Ipv4Addr::new(127, 9, high, low);
    let mut headers: Vec<_> = stranger.headers.iter().map(String::as_str).collect();
    let host = served.host();
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        headers.push(&host);
    }
    served.ask_from(from, request, &headers, body)
}

#[test]
fn no_operation_is_carried_out_for_a_stranger_and_each_for_the_right_token() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    served.daemon.succeed(&["organization", "create", "acme"]);
    let (things, mut session) = Things::in_organization(&served, "acme");
    let strangers = strangers(&served);
    let operations = Operation::all(&served);
    let before = Snapshot::of(&served.daemon);
    let mut number = 0;
    for operation in &operations {
        let request = operation.request(&things);
        for stranger in &strangers {
            number += 1;
            let answer = ask_afresh(&served, number, stranger, &request, operation.body(&things));
            let told = (answer.status, answer.body["code"].as_str().unwrap_or(""));
            assert_eq!(told, stranger.answer, "{} for {request}", stranger.who);
            let head = answer.head.to_ascii_lowercase();
            assert_eq!(head.contains("www-authenticate: "), answer.status == 401);
        }
    }
    assert_eq!(Snapshot::of(&served.daemon), before);
    session.expect("NOOP", "250");

    // It is not that nobody could ask for these.
    for operation in &operations {
        let request = operation.request(&things);
        let unchanged = Snapshot::of(&served.daemon);
        let answer = served.admin(&request, operation.body(&things));
        let is_done = (200..300).contains(&answer.status);
        assert!(is_done, "{request}: {}{}", answer.head, answer.body);
        let is_unchanged = Snapshot::of(&served.daemon) == unchanged;
        // To end the sessions of one that has none any more is nothing to be recorded, nor is it to forgive who did nothing.
        if !["clear_guard", "disconnect_sessions"].contains(&operation.id.as_str()) {
            assert_eq!(is_unchanged, operation.only_looks(), "{request}");
        }
    }
}

#[test]
fn what_everybody_is_told_is_nothing_of_anybody() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    served.daemon.succeed(&["organization", "create", "acme"]);
    let (things, _session) = Things::in_organization(&served, "acme");
    let evil = ["Host: evil.test", "Origin: http://evil.test"];
    for path in ["/healthz", "/readyz", "/api/v1/openapi.json"] {
        let answer = served.ask(&format!("GET {path}"), &evil, None).expect(200);
        let told = format!("{}{}", answer.head, answer.body).to_ascii_lowercase();
        assert!(!told.contains("access-control"), "{path}: {told}");
        for name in [&things.username, &things.token, &things.session] {
            assert!(!told.contains(name.as_str()), "{path}: {told}");
        }
    }
    // No other path of the API is open, whether there is such a one or not.
    for path in ["/api", "/api/v1", "/api/v1/status"] {
        let answer = served.ask(&format!("GET {path}"), &evil, None);
        answer.problem(403, "foreign-host");
        let answer = served.ask(&format!("GET {path}"), &[&served.host()], None);
        answer.problem(401, "unauthorized");
    }
}
