//! Many at once, and many times over: no edit is lost silently, and no revocation comes late.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{DEFAULT, Served, issued};
use crate::support::client::Client;
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

#[test]
fn a_thousand_revocations_each_bite_at_the_very_next_login() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| revoke_a_hundred_times(&served));
        }
    });
}

fn revoke_a_hundred_times(served: &Served) {
    let credential = served.daemon.create();
    let patch = format!("PATCH {DEFAULT}/{}", credential.username);
    let set = |status: &str| {
        let change = Some(json!({ "status": status }));
        served.by(&served.token, &patch, change).expect(200);
    };
    for _ in 0..100 {
        // Accepted, so that the verdict is remembered when the revocation comes; in the same session nobody logs in twice.
        Client::logged_in(&served.daemon, &credential).expect("QUIT", "221");
        set("revoked");
        let reply = served.log_in(&credential);
        assert!(reply.starts_with("535 5.7.8"), "{reply:?}");
        set("active");
    }
}
