//! Requests that are carried out only once, or only to what the caller has seen.

use serde_json::{Value, json};

use super::operations::{Operation, Things};
use super::snapshot::Snapshot;
use super::{Answer, DEFAULT, Served};
use crate::support::upstream::Upstream;

impl Served {
    /// Asks with the token for everything and one header more.
    fn ask_if(&self, request: &str, header: &str, body: Option<Value>) -> Answer {
        let bearer = format!("Authorization: Bearer {}", self.token);
        self.ask(request, &[&self.host(), &bearer, header], body)
    }
}

#[test]
fn what_is_made_once_is_where_it_is_said_to_be() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let token = json!({ "name": "t", "scope": "org:default:read" });
    for (path, body) in [
        ("/api/v1/organizations", json!({ "slug": "acme" })),
        (DEFAULT, json!({ "name": "Printer" })),
        ("/api/v1/tokens", token),
    ] {
        let request = format!("POST {path}");
        let key = format!("Idempotency-Key: {}", path.len());
        let make = || served.ask_if(&request, &key, Some(body.clone()));
        let made = make().expect(201);
        let place = made.header("location");
        let found = served.admin(&format!("GET {place}"), None).expect(200);
        assert_eq!(found.body["id"], made.body["id"], "{place}");
        assert!(found.body["password"].is_null() && found.body["secret"].is_null());
        if !path.ends_with("/tokens") {
            assert_eq!(found.header("etag"), made.header("etag"), "{place}");
        }

        let unchanged = Snapshot::of(&served.daemon);
        let repeated = make().problem(409, "repeated");
        assert_eq!(repeated.body["made"], made.body["id"]);
        assert_eq!(repeated.header("location"), place);
        for shown in ["password", "secret"] {
            assert!(repeated.body[shown].is_null(), "{}", repeated.body);
        }
        assert_eq!(Snapshot::of(&served.daemon), unchanged, "{request}");
    }
}

#[test]
fn a_rotation_is_carried_out_once_a_key() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let old = served.daemon.create();
    let place = format!("{DEFAULT}/{}", old.username);
    let request = format!("POST {place}/rotate");
    let mut right = old;
    for (key, body) in [
        ("a", json!({ "overlap": 60 })), // begins an overlap
        ("b", json!({ "overlap": 60 })), // keeps it
        ("c", json!({})),                // ends it
    ] {
        let header = format!("Idempotency-Key: {key}");
        let made = served.ask_if(&request, &header, Some(body.clone()));
        let made = made.expect(200);
        right = super::issued(&made);
        served.log_in(&right).expect("235");
        let unchanged = Snapshot::of(&served.daemon);
        let repeated = served.ask_if(&request, &header, Some(body));
        let repeated = repeated.problem(409, "repeated");
        assert_eq!(repeated.body["made"], made.body["id"]);
        assert_eq!(repeated.header("location"), place);
        assert!(repeated.body["password"].is_null(), "{}", repeated.body);
        served.log_in(&right).expect("235");
        assert_eq!(Snapshot::of(&served.daemon), unchanged, "{key}");
    }
    served.log_in(&right).expect("235");
}

#[test]
fn a_key_that_comes_with_another_request_is_refused() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let [one, other] = [(); 2].map(|()| served.daemon.create());
    let rotate = |name: &str| format!("POST {DEFAULT}/{name}/rotate");
    let token = |name: &str| json!({ "name": name, "scope": "org:default:read" });
    let requests = [
        (
            "POST /api/v1/organizations".to_owned(),
            json!({ "slug": "acme" }),
        ),
        (
            "POST /api/v1/organizations".to_owned(),
            json!({ "slug": "other" }),
        ),
        (format!("POST {DEFAULT}"), json!({ "name": "Printer" })),
        (format!("POST {DEFAULT}"), json!({})),
        ("POST /api/v1/tokens".to_owned(), token("t")),
        ("POST /api/v1/tokens".to_owned(), token("u")),
        (rotate(&one.username), json!({ "overlap": 60 })),
        (rotate(&one.username), json!({ "overlap": 61 })),
        (rotate(&one.username), json!({})),
        (rotate(&other.username), json!({ "overlap": 60 })),
    ];
    for (number, (first, body)) in requests.iter().enumerate() {
        let header = format!("Idempotency-Key: {number}");
        let made = served.ask_if(first, &header, Some(body.clone()));
        assert!(
            [200, 201].contains(&made.status),
            "{first} {body}: {}",
            made.body
        );
        let unchanged = Snapshot::of(&served.daemon);
        for (again, (request, body)) in requests.iter().enumerate() {
            let answer = served.ask_if(request, &header, Some(body.clone()));
            match again == number {
                true => answer.problem(409, "repeated"),
                false => answer.problem(422, "key-reused"),
            };
        }
        assert_eq!(Snapshot::of(&served.daemon), unchanged, "{first} {body}");
    }
}

#[test]
fn nothing_is_done_to_a_state_that_has_passed() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    served.daemon.succeed(&["organization", "create", "acme"]);
    let (things, mut session) = Things::in_organization(&served, "acme");
    let mut tried = Vec::new();
    let conditional = Operation::all(&served).into_iter();
    for operation in conditional.filter(|operation| operation.is_conditional) {
        let slug = &things.slug;
        let place = match operation.names("username") {
            true => format!("{slug}/credentials/{}", things.username),
            false => slug.clone(),
        };
        let place = format!("/api/v1/organizations/{place}");
        let tag = || {
            let shown = served.admin(&format!("GET {place}"), None).expect(200);
            shown.header("etag").to_owned()
        };
        let (old, name) = (tag(), json!({ "name": operation.id }));
        let rename = served.admin(&format!("PATCH {place}"), Some(name));
        rename.expect(200);
        let new = tag();
        assert_ne!(old, new);

        let request = operation.request(&things);
        let ask = |condition: &str| {
            let header = format!("If-Match: {condition}");
            served.ask_if(&request, &header, operation.body(&things))
        };
        let unchanged = Snapshot::of(&served.daemon);
        for passed in [&old, &format!("W/{new}"), "\"\""] {
            ask(passed).problem(412, "changed");
        }
        ask(new.trim_matches('"')).problem(400, "invalid-header");
        assert_eq!(Snapshot::of(&served.daemon), unchanged, "{request}");
        if tried.is_empty() {
            session.expect("NOOP", "250");
        }
        let status = ask(&format!("{old}, {new}")).status;
        assert!((200..300).contains(&status), "{status} to {request}");
        assert_ne!(Snapshot::of(&served.daemon), unchanged, "{request}");
        tried.push(operation.id);
    }
    tried.sort();
    let expected = [
        "delete_credential",
        "delete_organization",
        "edit_credential",
        "edit_organization",
        "rotate_credential",
    ];
    assert_eq!(tried, expected);
}
