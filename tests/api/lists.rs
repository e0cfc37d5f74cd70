//! What is told: lists page by page, the state of things, and what was done when.

use std::net::Ipv4Addr;

use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};

use super::{DEFAULT, Served};
use crate::support::client::Client;
use crate::support::upstream::Upstream;
use crate::support::{eventually, ports};

/// One field of each item.
fn each<'a>(page: &'a Value, field: &str) -> Vec<&'a str> {
    let items = page["items"].as_array().expect("items").iter();
    let field = items.map(|item| item[field].as_str().expect("a text"));
    field.collect()
}

#[test]
fn a_list_comes_page_by_page_in_order_without_a_gap() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let made: Vec<_> = (0..5).map(|_| served.daemon.create().username).collect();
    let page = |query: &str| {
        let answer = served.admin(&format!("GET {DEFAULT}?{query}"), None);
        answer.expect(200).body
    };
    let mut seen: Vec<String> = Vec::new();
    let mut query = "limit=2".to_owned();
    for size in [2, 2, 1] {
        let page = page(&query);
        let names = each(&page, "username");
        assert_eq!(names.len(), size, "{page}");
        seen.extend(names.into_iter().map(str::to_owned));
        match page["next"].as_str() {
            Some(next) => query = format!("limit=2&after={next}"),
            None => assert_eq!(seen.len(), 5, "{page}"),
        }
    }
    assert_eq!(seen, made);
    assert_eq!(page("limit=5")["next"], Value::Null, "the end is seen");
    assert_eq!(
        page(&format!("text={}", made[3]))["items"][0]["username"],
        json!(made[3])
    );
    for wrong in ["limit=0", "limit=201", "limit=x", "after=x", "colour=red"] {
        let answer = served.admin(&format!("GET {DEFAULT}?{wrong}"), None);
        answer.problem(400, "invalid-query");
    }

    let audit = served
        .admin("GET /api/v1/audit?limit=4", None)
        .expect(200)
        .body;
    let newest: Vec<_> = made.iter().rev().take(4).map(String::as_str).collect();
    assert_eq!(each(&audit, "object"), newest);
    let next = audit["next"].as_str().expect("more");
    let rest = served.admin(&format!("GET /api/v1/audit?after={next}"), None);
    let rest = rest.expect(200).body;
    let actions = ["credential.create", "token.create"];
    assert_eq!(each(&rest, "action"), actions);
    assert_eq!(rest["next"], Value::Null);
}

#[test]
fn names_in_any_script_are_stored_composed_and_found_in_any_case() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let new = json!({ "name": "E\u{301}TAGE" });
    let made = served.admin(&format!("POST {DEFAULT}"), Some(new));
    assert_eq!(made.expect(201).body["name"], "ÉTAGE");
    // étage, composed and not, and without the accent.
    for wanted in ["%C3%A9tage", "e%CC%81tage", "etage"] {
        let found = served.admin(&format!("GET {DEFAULT}?text={wanted}"), None);
        assert_eq!(each(&found.expect(200).body, "name"), ["ÉTAGE"], "{wanted}");
    }
}

#[test]
fn a_list_is_narrowed_also_by_what_is_not_written_yet() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    served.daemon.succeed(&["organization", "create", "acme"]);
    let [used, unused, revoked] = [(); 3].map(|()| served.daemon.create());
    let revoke = format!("PATCH {DEFAULT}/{}", revoked.username);
    let revoke = served.admin(&revoke, Some(json!({ "status": "revoked" })));
    revoke.expect(200);
    let since = Timestamp::now();
    served.log_in(&used).expect("235");
    let listed = |list: &str, field: &str| -> Vec<String> {
        let list = served.admin(&format!("GET {list}"), None).expect(200);
        let fields = each(&list.body, field).into_iter();
        fields.map(str::to_owned).collect()
    };
    for (query, expected) in [
        (format!("unused_since={since}"), vec![&unused, &revoked]),
        ("unused_since=2001-01-01T00:00:00Z".to_owned(), vec![]),
        ("unused_since=90d".to_owned(), vec![]),
        ("unused_since=0s&status=revoked".to_owned(), vec![&revoked]),
        ("status=revoked".to_owned(), vec![&revoked]),
        ("status=active".to_owned(), vec![&used, &unused]),
        (format!("unused_since={since}&status=active"), vec![&unused]),
    ] {
        let found = listed(&format!("{DEFAULT}?{query}"), "username");
        let expected: Vec<_> = expected.iter().map(|one| one.username.as_str()).collect();
        assert_eq!(found, expected, "{query}");
    }

    let create = "credential.create";
    for (query, expected) in [
        ("organization=acme".to_owned(), vec!["organization.create"]),
        (
            format!("object={}", revoked.username),
            vec!["credential.revoke", create],
        ),
        (
            "action=credential.revoke".to_owned(),
            vec!["credential.revoke"],
        ),
        (
            "action=credential.&limit=2".to_owned(),
            vec!["credential.revoke", create],
        ),
        ("actor=nobody".to_owned(), vec![]),
        (format!("since={since}"), vec![]),
    ] {
        let found = listed(&format!("/api/v1/audit?{query}"), "action");
        assert_eq!(found, expected, "{query}");
    }
}

#[test]
fn the_status_says_how_things_are() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let credential = served.daemon.create();
    let _session = Client::logged_in(&served.daemon, &credential);
    let status = served.admin("GET /api/v1/status", None).expect(200).body;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["build"], env!("PROGRAM_BUILD"));
    assert!(status["uptime_seconds"].as_i64().unwrap() < 60);
    let site = &served.daemon;
    for (kind, address) in [
        ("submission", site.submission),
        ("submissions", site.submissions),
        ("admin", served.address),
    ] {
        let listener = json!({ "kind": kind, "address": address.to_string() });
        let listeners = status["listeners"].as_array().unwrap();
        assert!(
            listeners.contains(&listener),
            "no {listener} in {listeners:?}"
        );
    }
    let host = json!({ "address": upstream.address.to_string(), "state": "up" });
    assert_eq!(status["upstream"], json!({ "up": true, "hosts": [host] }));
    assert_eq!(status["organization_upstreams"], json!([]));
    let expires_at = status["certificate"]["expires_at"].as_str().unwrap();
    assert!(expires_at.ends_with('Z'), "{expires_at}");
    let store = &status["store"];
    assert_eq!(
        (&store["organizations"], &store["credentials"]),
        (&json!(1), &json!(1))
    );
    assert!(store["bytes"].as_u64().unwrap() > 4096);
    // moka counts when it has time.
    assert!(status["cache"]["entries"].is_u64(), "{status}");
    assert_eq!(status["sessions"], 1);
    assert_eq!(status["revocations_not_durable"], 0);
}

#[test]
fn the_status_tells_every_host_of_every_upstream() {
    let upstream = Upstream::start();
    let (down, own) = (ports::free_address(), ports::free_address());
    let place = upstream.address;
    let served = Served::start_with(&upstream, |config| {
        let places = format!("[\"{down}\", \"{place}\", \"nowhere.invalid:25\"]");
        let acme = "upstream.organizations.acme";
        config
            .address(places)
            .flag("upstream", "trusted", true)
            .text("upstream", "order", "failover")
            .text(acme, "address", &own.to_string())
    });
    eventually("acme's was tried", || {
        let status = served.admin("GET /api/v1/status", None).expect(200).body;
        let acme = &status["organization_upstreams"][0];
        assert_eq!(acme["organization"], "acme");
        let is_down = json!([{ "address": own.to_string(), "state": "down" }]);
        (acme["hosts"] == is_down).then_some(())
    });
    let status = served.admin("GET /api/v1/status", None).expect(200).body;
    assert_eq!(status["upstream"]["up"], true);
    let hosts = status["upstream"]["hosts"].as_array().unwrap();
    let known = json!([
        { "address": down.to_string(), "state": "down" },
        { "address": place.to_string(), "state": "up" },
    ]);
    assert_eq!(hosts[..2], known.as_array().unwrap()[..]);
    let name = "nowhere.invalid:25";
    assert_eq!(
        (&hosts[2]["address"], &hosts[2]["name"], &hosts[2]["state"]),
        (&json!(name), &json!(name), &json!("down"))
    );
    assert!(hosts[2]["fault"].is_string());
}

#[test]
fn a_live_session_is_told_with_what_it_sent() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let credential = served.daemon.create();
    let begun = Timestamp::now();
    let mut client = Client::logged_in(&served.daemon, &credential);
    let body = b"Subject: live\r\n\r\nHello\r\n";
    for _ in 0..2 {
        client.send_message(body).expect("250");
    }
    let list = format!("GET /api/v1/sessions?credential={}", credential.username);
    let mut list = served.admin(&list, None).expect(200).body;
    let session = list["items"][0].as_object_mut().expect("a session");
    let since = session.remove("since").expect("since");
    let since: Timestamp = since.as_str().unwrap().parse().expect("a time");
    assert!(since.as_second() >= begun.as_second() && since <= Timestamp::now());
    let port = session.remove("port").expect("a port");
    assert!(port.as_u64().is_some_and(|port| port > 0), "{port}");
    let helo = session.remove("helo").expect("an EHLO name");
    assert!(helo.as_str().is_some_and(|helo| !helo.is_empty()));
    session.remove("id").expect("an id");
    let told = json!({
        "credential": credential.username, "organization": "default", "address": "127.0.0.1", "tls": "TLSv1.3",
        "mechanism": "PLAIN", "messages": 2, "recipients": 2, "bytes": 2 * (body.len() + 3),
    });
    assert_eq!(list["items"], json!([told]));
}

#[test]
fn a_delivered_message_is_in_the_usage_by_hour_and_by_day() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let credential = served.daemon.create();
    let begun = Timestamp::now();
    served
        .log_in(&credential.with_wrong_password())
        .expect("535");
    let mut client = Client::logged_in(&served.daemon, &credential);
    let body = b"Subject: usage\r\n\r\nHello\r\n";
    client.send_message(body).expect("250");
    drop(client);
    let done = json!({
        "messages": 1, "recipients": 1, "bytes": body.len() + 3, "auth_accepted": 1, "auth_refused": 1,
    });
    let of_credential = format!("{DEFAULT}/{}/usage", credential.username);
    for path in [
        of_credential.as_str(),
        "/api/v1/organizations/default/usage",
    ] {
        for (by, begins, hours) in [("hour", ":00:00.000Z", 1), ("day", "T00:00:00.000Z", 24)] {
            let request = format!("GET {path}?by={by}");
            let report = eventually("the usage is written", || {
                let report = served.admin(&request, None).expect(200).body;
                (report["total"] == done).then_some(report)
            });
            assert_eq!(report["by"], by);
            let since = each(&report, "since");
            // Two where an hour or a day ended meanwhile.
            assert!((1..=2).contains(&since.len()), "{report}");
            for since in since {
                assert!(since.ends_with(begins), "{report}");
                let since: Timestamp = since.parse().expect("a time");
                assert!(since + hours.hours() > begun, "{report}");
            }
        }
    }
    let long_ago = format!("GET {of_credential}?by=hour&since=2001-01-01T00:00:00Z");
    served.admin(&long_ago, None).problem(400, "invalid-query");
}

#[test]
fn a_tokens_last_use_is_told_at_once_and_written_soon() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let (id, secret) = served.token_and_id("elsewhere", "instance:read");
    let shown = || {
        let token = served.admin(&format!("GET /api/v1/tokens/{id}"), None);
        token.expect(200).body
    };
    assert_eq!(shown()["last_used_at"], Value::Null);
    let bearer = format!("Authorization: Bearer {secret}");
    let (host, from) = (served.host(), Ipv4Addr::new(127, 0, 0, 44));
    let used = served.ask_from(from, "GET /api/v1/tokens", &[&host, &bearer], None);
    used.expect(200);
    assert_eq!(shown()["last_used_address"], "127.0.0.44");
    eventually("it is written", || {
        let tokens = served.daemon.json(&["token", "list"]);
        let tokens = tokens.as_array().unwrap();
        let used = |token: &&Value| token["last_used_address"] == "127.0.0.44";
        tokens
            .iter()
            .find(used)
            .map(|token| assert_eq!(token["id"], json!(id)))
    });
}
