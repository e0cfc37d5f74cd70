//! Every operation that the OpenAPI document describes, and everybody who must not carry it out.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::Served;
use crate::support::client::Client;
use crate::support::site::Credential;
use crate::support::upstream::Upstream;

/// A daemon with something in its organization `default` that others must not reach.
struct Guarded {
    served: Served,
    credential: Credential,
    token: String,
    session: String,
    _client: Client,
}

impl Guarded {
    fn start(upstream: &Upstream) -> Guarded {
        let served = Served::start(upstream);
        let credential = served.daemon.create();
        let rename = ["credential", "rename", &credential.username, "Treasure"];
        served.daemon.succeed(&rename);
        let client = Client::logged_in(&served.daemon, &credential);
        let tokens = served.daemon.json(&["token", "list"]);
        let sessions = served.by(&served.token, "GET /api/v1/sessions", None);
        Guarded {
            credential,
            token: tokens[0]["id"].as_str().unwrap().to_owned(),
            session: sessions.body["items"][0]["id"].as_str().unwrap().to_owned(),
            served,
            _client: client,
        }
    }

    /// Every operation on what is there, with a body that would be taken.
    fn operations(&self) -> Vec<(String, Option<Value>)> {
        let document = self.served.by("", "GET /api/v1/openapi.json", None);
        let mut operations = Vec::new();
        for (path, methods) in document.expect(200).body["paths"].as_object().unwrap() {
            let id = match path.contains("/sessions/") {
                true => &self.session,
                false => &self.token,
            };
            let filled = path
                .replace("{slug}", "default")
                .replace("{username}", &self.credential.username)
                .replace("{id}", id);
            assert!(!filled.contains('{'), "say here what {path} is to name");
            for (method, operation) in methods.as_object().unwrap() {
                let body = operation.get("requestBody").map(|_| body(method, path));
                let request = format!("{} {filled}", method.to_uppercase());
                operations.push((request, body));
            }
        }
        let by_credential = &self.credential.username;
        operations.extend(
            [
                format!("DELETE /api/v1/sessions?credential={by_credential}"),
                "DELETE /api/v1/sessions?organization=default".to_owned(),
                "GET /api/v1/sessions?organization=default".to_owned(),
                format!("GET /api/v1/sessions?credential={by_credential}"),
                "GET /api/v1/audit?organization=default".to_owned(),
                format!("GET /api/v1/audit?object={by_credential}"),
                "GET /api/v1/tokens?organization=default".to_owned(),
                "DELETE /api/v1/organizations/default?force=true&disconnect=true".to_owned(),
            ]
            .map(|request| (request, None)),
        );
        assert!(operations.len() > 25);
        operations
    }

    /// All that is stored, but for when tokens were used; and who is logged in.
    fn state(&self) -> Value {
        let daemon = &self.served.daemon;
        let mut tokens = daemon.json(&["token", "list"]);
        for token in tokens.as_array_mut().unwrap() {
            for used in ["last_used_at", "last_used_address"] {
                assert!(token.as_object_mut().unwrap().remove(used).is_some());
            }
        }
        let sessions = self
            .served
            .by(&self.served.token, "GET /api/v1/sessions", None);
        json!([
            tokens,
            daemon.json(&["organization", "list"]),
            daemon.json(&["credential", "list"]),
            daemon.json(&["audit", "list"]),
            sessions.expect(200).body["items"][0]["id"],
        ])
    }
}

fn body(method: &str, path: &str) -> Value {
    match (method, path.rsplit('/').next().unwrap()) {
        ("post", "organizations") => json!({ "slug": "intruder" }),
        ("post", "tokens") => json!({ "name": "intruder", "scope": "org:default:read" }),
        ("post", "credentials") => json!({ "name": "intruder" }),
        ("patch", _) => json!({ "name": "intruder" }),
        ("post", "rotate") => json!({ "disconnect": true }),
        _ => panic!("say here what the body of {method} {path} is to be"),
    }
}

#[test]
fn whoever_does_not_pass_the_gate_changes_nothing() {
    let upstream = Upstream::start();
    let guarded = Guarded::start(&upstream);
    let served = &guarded.served;
    let revoked = served.token_named("gone", "instance:admin");
    served.daemon.succeed(&["token", "revoke", "gone"]);
    let expired = served.token_named("over", "instance:admin");
    let store = rusqlite::Connection::open(served.daemon.store()).unwrap();
    let changed = store.execute(
        "UPDATE admin_tokens SET expires_at = 1 WHERE name = 'over'",
        [],
    );
    assert_eq!(changed, Ok(1));
    let host = served.host();
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let right = bearer(&served.token);
    let wrong = bearer("gp_0123456789012345678901234567890123456789");
    let (revoked, expired) = (bearer(&revoked), bearer(&expired));
    let basic = "Authorization: Basic Z3A6Z3A=".to_owned();
    let attempts: [(u16, Vec<&str>); 8] = [
        (401, vec![&host]),
        (401, vec![&host, &wrong]),
        (401, vec![&host, &revoked]),
        (401, vec![&host, &expired]),
        (401, vec![&host, &basic]),
        (403, vec!["Host: gate.evil.test", &right]),
        (403, vec![&host, &right, "Origin: http://evil.test"]),
        (403, vec![&host, &right, "Origin: null"]),
    ];
    let before = guarded.state();
    let operations = guarded.operations();
    for (index, (request, body)) in operations.iter().enumerate() {
        let client = Ipv4Addr::new(127, 1, 0, u8::try_from(index + 1).unwrap());
        for (status, headers) in &attempts {
            let answer = served.ask_from(client, request, headers, body.clone());
            assert_eq!(
                answer.status, *status,
                "{request} {headers:?} {}",
                answer.body
            );
            let said = answer.body.to_string();
            assert!(!said.contains("Treasure"), "{request}: {said}");
        }
    }
    assert_eq!(guarded.state(), before);
}

#[test]
fn an_organizations_token_reaches_nothing_of_another_by_any_route() {
    let upstream = Upstream::start();
    let guarded = Guarded::start(&upstream);
    let served = &guarded.served;
    served.daemon.succeed(&["organization", "create", "acme"]);
    let scopes = ["org:acme:admin", "org:acme:read"];
    let tokens = scopes.map(|scope| served.token_for(scope));
    let before = guarded.state();
    let own = ["audit", "organizations", "sessions", "tokens"];
    for (request, body) in guarded.operations() {
        for token in &tokens {
            let answer = served.by(token, &request, body.clone());
            let said = answer.body.to_string();
            for secret in ["Treasure", &guarded.session, &guarded.token] {
                let asked = request.contains(secret);
                assert!(asked || !said.contains(secret), "{request}: {said}");
            }
            // A list has what is one's own, which is nothing of the other's.
            let is_own_list = own
                .iter()
                .any(|list| request == format!("GET /api/v1/{list}"))
                || request.starts_with("GET /api/v1/audit?object=")
                || request.starts_with("GET /api/v1/sessions?credential=");
            if is_own_list {
                assert_eq!(answer.status, 200, "{request}");
                assert!(!said.contains("\"default\""), "{request}: {said}");
                assert!(
                    !said.contains(&guarded.credential.username),
                    "{request}: {said}"
                );
            } else {
                let status = answer.status;
                assert!(
                    [400, 403, 404].contains(&status),
                    "{request} {status} {said}"
                );
            }
        }
    }
    // The same things are not reached by way of one's own organization either.
    let username = &guarded.credential.username;
    let within = format!("/api/v1/organizations/acme/credentials/{username}");
    for (request, body) in [
        (format!("GET {within}"), None),
        (format!("GET {within}/usage"), None),
        (
            format!("PATCH {within}"),
            Some(json!({ "name": "intruder" })),
        ),
        (format!("POST {within}/rotate"), None),
        (format!("DELETE {within}"), None),
    ] {
        served.by(&tokens[0], &request, body).expect(404);
    }
    let stronger = json!({ "name": "more", "scope": "instance:read" });
    let stronger = served.by(&tokens[0], "POST /api/v1/tokens", Some(stronger));
    stronger.expect(403);
    assert_eq!(guarded.state(), before);
    assert!(served.log_in(&guarded.credential).starts_with("235"));
    let made = format!("POST {}", within.rsplit_once('/').unwrap().0);
    served.by(&tokens[0], &made, None).expect(201);
    served.by(&tokens[1], &made, None).expect(403);
}

#[test]
fn who_may_only_read_changes_nothing() {
    let upstream = Upstream::start();
    let guarded = Guarded::start(&upstream);
    let served = &guarded.served;
    let reader = served.token_for("instance:read");
    let before = guarded.state();
    for (request, body) in guarded.operations() {
        let status = served.by(&reader, &request, body).status;
        let expected = if request.starts_with("GET ") {
            200
        } else {
            403
        };
        assert_eq!(status, expected, "{request}");
    }
    assert_eq!(guarded.state(), before);
}
