//! Why logins were refused, as it is told afterwards.

use std::net::Ipv4Addr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{DEFAULT, Served};
use crate::support::client::{Client, Reply};
use crate::support::gatepost::Gatepost;
use crate::support::site::Credential;
use crate::support::upstream::Upstream;

fn try_from(address: Ipv4Addr, served: &Served, credential: &Credential) -> Reply {
    let client = Client::dial_from(address.into(), served.daemon.submissions).expect("connect");
    let mut client = client.over_tls();
    client.reply().expect("220");
    client.expect("EHLO api.example.test", "250");
    client.auth_plain(credential)
}

fn refusals_of(served: &Served, credential: &Credential) -> Vec<Value> {
    let get = format!("GET {DEFAULT}/{}/refusals", credential.username);
    let answer = served.admin(&get, None).expect(200);
    assert_eq!(answer.body["next"], Value::Null);
    answer.body["items"].as_array().expect("items").clone()
}

fn told(refusals: &[Value]) -> Vec<(&str, &str, u64)> {
    let mut all: Vec<_> = refusals
        .iter()
        .map(|refusal| {
            (
                refusal["reason"].as_str().unwrap(),
                refusal["address"].as_str().unwrap(),
                refusal["count"].as_u64().unwrap(),
            )
        })
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn each_reason_is_told_at_once_with_address_times_and_count() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let old = served.daemon.create();
    let (laptop, printer) = (Ipv4Addr::new(127, 0, 9, 1), Ipv4Addr::new(127, 0, 9, 2));
    try_from(laptop, &served, &old).expect("235");
    let rotated = served.admin(&format!("POST {DEFAULT}/{}/rotate", old.username), None);
    let rotated = rotated.expect(200).body;
    let new = Credential::from_json(rotated.to_string().as_bytes());

    for _ in 0..2 {
        try_from(printer, &served, &old).expect("535 5.7.8"); // the store says so
    }
    try_from(laptop, &served, &new).expect("235");
    try_from(printer, &served, &old).expect("535 5.7.8"); // and the cache
    try_from(laptop, &served, &new.with_wrong_password()).expect("535 5.7.8");
    let boss = STANDARD.encode(format!("boss\0{}\0{}", new.username, new.password));
    let mut client = Client::submissions(&served.daemon);
    client.expect("EHLO api.example.test", "250");
    client.expect(&format!("AUTH PLAIN {boss}"), "535 5.7.8");
    let one = format!("PATCH {DEFAULT}/{}", new.username);
    let change = |change: Value| served.admin(&one, Some(change)).expect(200);
    change(json!({ "expires_at": "2001-01-01T00:00:00Z" }));
    try_from(laptop, &served, &new).expect("535 5.7.8");
    change(json!({ "expires_at": null, "status": "revoked" }));
    try_from(laptop, &served, &new).expect("535 5.7.8");
    change(json!({ "status": "active" }));
    let organization = "PATCH /api/v1/organizations/default";
    let suspend = |status: &str| {
        let status = json!({ "status": status });
        served.admin(organization, Some(status)).expect(200)
    };
    suspend("suspended");
    try_from(laptop, &served, &new).expect("535 5.7.8");
    suspend("active");
    try_from(laptop, &served, &new).expect("235");

    let refusals = refusals_of(&served, &new);
    assert_eq!(
        told(&refusals),
        [
            ("acts_for_another", "127.0.0.1", 1),
            ("expired", "127.0.9.1", 1),
            ("previous_password", "127.0.9.2", 3),
            ("revoked", "127.0.9.1", 1),
            ("suspended", "127.0.9.1", 1),
            ("wrong_password", "127.0.9.1", 1),
        ]
    );
    let times = |refusal: &Value| {
        let time = |field: &str| refusal[field].as_str().unwrap().to_owned();
        (time("first_at"), time("at"))
    };
    let previous = |refusal: &&Value| refusal["reason"] == "previous_password";
    let found = refusals.iter().find(previous).unwrap();
    assert_eq!(found["rotated_at"], rotated["rotated_at"]);
    assert_eq!(found["words"], "the previous password");
    assert!(times(found).0 < times(found).1, "{found}");
    let order: Vec<_> = refusals.iter().map(|refusal| times(refusal).1).collect();
    assert!(order.is_sorted_by(|one, next| one >= next), "{order:?}");
    let elsewhere = refusals.iter().filter(|refusal| !previous(refusal));
    assert!(
        elsewhere
            .clone()
            .all(|refusal| refusal["rotated_at"].is_null())
    );

    // And the same once it is written, by the command line, without the daemon.
    let Served { daemon, .. } = served;
    let site = daemon.site();
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    let list = ["refusals", "list", "--username", &new.username];
    let written = site.json(&list);
    assert_eq!(told(written.as_array().unwrap()), told(&refusals));
    let people = site.succeed(&list);
    let line = people.lines().find(|line| line.contains("127.0.9.2"));
    let line = line.expect("the printer's line");
    assert!(line.contains("the previous password, rotated "), "{people}");
}

#[test]
fn unknown_names_are_told_to_the_instance_and_shown_safely() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let deleted = served.daemon.create();
    served
        .daemon
        .succeed(&["credential", "delete", "--yes", &deleted.username]);
    try_from(Ipv4Addr::new(127, 0, 9, 3), &served, &deleted).expect("535 5.7.8");
    let hostile = Credential {
        username: "\u{1b}]0;owned\u{7}\u{202e}".to_owned(),
        password: "sk_guess".to_owned(),
    };
    for _ in 0..2 {
        try_from(Ipv4Addr::new(127, 0, 9, 4), &served, &hostile).expect("535 5.7.8");
    }
    let list = |query: &str| {
        let answer = served.admin(&format!("GET /api/v1/refusals{query}"), None);
        answer.expect(200).body
    };
    let all = list("");
    let items = all["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{all}");
    assert_eq!(items[0]["username"], "\\u{1b}]0;owned\\u{7}\\u{202e}");
    assert_eq!(
        (&items[0]["count"], &items[0]["reason"]),
        (&json!(2), &json!("unknown"))
    );
    assert_eq!(items[1]["username"], json!(deleted.username));
    let first = list("?limit=1");
    assert_eq!(first["items"][0], items[0]);
    let second = list(&format!(
        "?limit=1&after={}",
        first["next"].as_str().unwrap()
    ));
    assert_eq!(
        (&second["items"][0], &second["next"]),
        (&items[1], &Value::Null)
    );
    let own = served.token_for("org:default:admin");
    served
        .by(&own, "GET /api/v1/refusals", None)
        .problem(403, "forbidden");
    let printed = served.daemon.succeed(&["refusals", "list"]);
    assert!(
        !printed.contains('\u{1b}') && !printed.contains('\u{202e}'),
        "{printed}"
    );
    served
        .admin(&format!("GET {DEFAULT}/nobody/refusals"), None)
        .problem(404, "not-found");
}

#[test]
fn the_command_line_asks_the_daemon_that_runs() {
    let upstream = Upstream::start();
    let (_, config) = Served::config(&upstream);
    let socket = tempfile::tempdir().unwrap();
    let path = socket.path().join("admin.sock");
    let never = config.text("last_used", "flush_interval", "1h");
    let daemon = Gatepost::start(never.text("admin", "socket", path.to_str().unwrap()));
    let credential = daemon.create();
    let refuse = |credential: &Credential| {
        let mut client = Client::submissions(&daemon);
        client.expect("EHLO api.example.test", "250");
        client.auth_plain(credential).expect("535 5.7.8");
    };
    refuse(&credential.with_wrong_password());
    let stranger = Credential {
        username: "info@example.test".to_owned(),
        password: "guess".to_owned(),
    };
    refuse(&stranger);
    let count = |username: &str| {
        let found = daemon.json(&["refusals", "list", "--username", username]);
        found.as_array().unwrap().len()
    };
    assert_eq!(count(&credential.username), 1);
    assert_eq!(count(&stranger.username), 1);
    assert_eq!(count("somebody-else"), 0);
    let unknown = daemon.json(&["refusals", "list"]);
    assert_eq!(unknown[0]["username"], json!(stranger.username));
}

#[test]
fn an_organization_has_only_its_own_logins_explained() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    served.daemon.succeed(&["organization", "create", "acme"]);
    let other = served.daemon.create();
    let own = served.token_for("org:acme:read");
    let ask = |username: &str| format!("GET /api/v1/explain?username={username}&from=192.0.2.7");
    served
        .by(&own, &ask(&other.username), None)
        .problem(404, "not-found");
    served
        .by(&own, &ask("smtp_nobody"), None)
        .problem(404, "not-found");
    let told = served.admin(&ask(&other.username), None).expect(200).body;
    assert_eq!(
        (&told["accepted"], &told["reply"]),
        (&json!(true), &json!("235 2.7.0"))
    );
    let unknown = served.admin(&ask("smtp_nobody"), None).expect(200).body;
    assert_eq!(unknown["reason"], "unknown");
    let nowhere = "GET /api/v1/explain?username=a&from=nowhere";
    served.admin(nowhere, None).problem(400, "invalid-query");
}
