//! One token that asks for much keeps no other one waiting, and no request reads a whole long list.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{DEFAULT, Served};
use crate::support::upstream::Upstream;

const RECORDS: i64 = 60_000;

/// Adds so many records of the organization acme's, as if a program had rotated all day.
fn fill(served: &Served) {
    let store = rusqlite::Connection::open(served.daemon.store()).expect("open the store");
    let insert = format!(
        "PRAGMA synchronous = OFF;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {RECORDS})
         INSERT INTO audit_log (seq, at, actor_kind, actor, action, object, organization, hash)
         SELECT (SELECT max(seq) FROM audit_log) + i, 1000 * i, 'token', 'robot (' || i || ')',
                'credential.rotate', 'smtp_' || (i % 50), 'acme', zeroblob(32) FROM n"
    );
    store.execute_batch(&insert).expect("fill the log");
}

#[test]
fn a_token_that_asks_for_much_keeps_no_other_one_waiting() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    served.daemon.succeed(&["organization", "create", "acme"]);
    fill(&served);
    let greedy = served.token_named("greedy", "org:acme:read");
    let other = served.token_named("other", "org:default:read");
    let is_over = AtomicBool::new(false);
    let costly = "GET /api/v1/audit?actor=no-such-actor&limit=200";
    std::thread::scope(|scope| {
        let ask = || {
            while !is_over.load(Ordering::Relaxed) {
                let answer = served.by(&greedy, costly, None);
                if answer.status != 200 {
                    assert_eq!(answer.header("retry-after"), "1");
                    answer.problem(503, "store-busy");
                }
            }
        };
        let many: Vec<_> = (0..50).map(|_| scope.spawn(ask)).collect();
        let mut slowest = Duration::ZERO;
        for _ in 0..30 {
            for (token, request) in [
                (&served.token, "GET /api/v1/status".to_owned()),
                (&other, format!("GET {DEFAULT}")),
            ] {
                let begun = Instant::now();
                served.by(token, &request, None).expect(200);
                slowest = slowest.max(begun.elapsed());
            }
        }
        is_over.store(true, Ordering::Relaxed);
        for asking in many {
            asking.join().expect("the greedy one is answered");
        }
        assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    });
}

#[test]
fn a_rare_change_is_found_by_following_the_pages() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    fill(&served);
    let (mut found, mut pages, mut after) = (0, 0, String::new());
    loop {
        let request = format!("GET /api/v1/audit?action=token.create{after}");
        let page = served.by(&served.token, &request, None).expect(200);
        found += page.body["items"].as_array().expect("items").len();
        pages += 1;
        match &page.body["next"] {
            Value::String(next) => after = format!("&after={next}"),
            _ => break,
        }
    }
    assert_eq!((found, pages), (1, 7));
    let listed = served
        .daemon
        .json(&["audit", "list", "--action", "token.create"]);
    assert_eq!(listed.as_array().expect("a list").len(), 1);
}
