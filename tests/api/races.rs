//! Many at once, and many times over: no edit is lost silently, and no revocation comes late.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{DEFAULT, Served, issued};
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::prometheus::get;
use crate::support::site::Credential;
use crate::support::upstream::Upstream;

const EDITS: usize = 200;
const AT_ONCE: usize = 20;

/// Renames one credential [`EDITS`] times from [`AT_ONCE`] threads. Returns how many were carried out, and how many were
/// refused because the credential had changed. Each name is new: one that it has already changes nothing, and is not
/// recorded.
fn rename_at_once(served: &Served, one: &str, round: &str, headers: &[&str]) -> (usize, usize) {
    let (made, lost) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..AT_ONCE {
            let (made, lost) = (&made, &lost);
            scope.spawn(move || {
                for edit in 0..EDITS / AT_ONCE {
                    let name = json!({ "name": format!("{round} {thread}.{edit}") });
                    match served
                        .ask(&format!("PATCH {one}"), headers, Some(name))
                        .status
                    {
                        200 => made.fetch_add(1, Ordering::Relaxed),
                        412 => lost.fetch_add(1, Ordering::Relaxed),
                        status => panic!("{status}"),
                    };
                }
            });
        }
    });
    (made.into_inner(), lost.into_inner())
}

fn edits(served: &Served) -> Vec<Value> {
    let list = [
        "audit",
        "list",
        "--action",
        "credential.update",
        "--limit",
        "1000",
    ];
    served.daemon.json(&list).as_array().unwrap().clone()
}

#[test]
fn of_200_edits_at_once_none_is_lost_silently() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let make = served.by(&served.token, &format!("POST {DEFAULT}"), None);
    let made = make.expect(201);
    let credential = issued(&made);
    let one = format!("{DEFAULT}/{}", credential.username);
    let (host, bearer) = (
        served.host(),
        format!("Authorization: Bearer {}", served.token),
    );
    let condition = format!("If-Match: {}", made.header("etag"));
    let conditional = rename_at_once(&served, &one, "first", &[&host, &bearer, &condition]);
    assert_eq!(conditional, (1, EDITS - 1));
    let free = rename_at_once(&served, &one, "second", &[&host, &bearer]);
    assert_eq!(free, (EDITS, 0));
    // Newest first: what each found is what the one before it left.
    let edits = edits(&served);
    assert_eq!(edits.len(), EDITS + 1);
    for pair in edits.windows(2) {
        assert_eq!(pair[0]["before"]["name"], pair[1]["after"]["name"]);
    }
    let shown = served
        .by(&served.token, &format!("GET {one}"), None)
        .expect(200);
    assert_eq!(shown.body["name"], edits[0]["after"]["name"]);
}

/// Side by side, because each refusal takes its time.
const CREDENTIALS: usize = 10;
const REVOCATIONS: usize = 100;

#[test]
fn a_thousand_revocations_each_bite_at_the_very_next_login() {
    let upstream = Upstream::start();
    let metrics = ports::free_address();
    let (address, config) = Served::config(&upstream);
    let config = config.text("metrics", "listen", &metrics.to_string());
    let mut served = Served {
        daemon: Gatepost::start(config),
        address,
        token: String::new(),
    };
    served.token = served.token_for("instance:admin");
    let credentials: Vec<_> = (0..CREDENTIALS).map(|_| served.daemon.create()).collect();
    for credential in &credentials {
        served.log_in(credential).expect("235");
    }
    let before = found_in_cache(metrics);
    std::thread::scope(|scope| {
        for credential in &credentials {
            scope.spawn(|| revoke_again_and_again(&served, credential));
        }
    });
    // Each login before a revocation, and none behind one, found the verdict remembered.
    let found = found_in_cache(metrics) - before;
    assert_eq!(found, CREDENTIALS * REVOCATIONS);
}

/// With a login that finds the verdict remembered, one that is refused, and one that has it remembered again.
fn revoke_again_and_again(served: &Served, credential: &Credential) {
    let patch = format!("PATCH {DEFAULT}/{}", credential.username);
    let set = |status: &str| {
        let change = Some(json!({ "status": status }));
        served.by(&served.token, &patch, change).expect(200);
    };
    for _ in 0..REVOCATIONS {
        served.log_in(credential).expect("235");
        // Connected already, so that its login is all there is behind the revocation.
        let mut client = Client::submissions(&served.daemon);
        client.expect("EHLO api.example.test", "250");
        set("revoked");
        client.auth_plain(credential).expect("535 5.7.8");
        set("active");
        client.auth_plain(credential).expect("235");
    }
}

/// Logins so far that the cache decided.
fn found_in_cache(metrics: SocketAddr) -> usize {
    let text = get(metrics, "/metrics");
    let series = "gatepost_auth_path_total{path=\"cache\"} ";
    let count = text.lines().find_map(|line| line.strip_prefix(series));
    count.expect(series).parse().expect("a count")
}
