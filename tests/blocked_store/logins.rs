//! Logins are decided by what can be read, whatever the writer waits for.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::{Blocked, DECIDED_WITHIN, one};
use crate::api::{DEFAULT, issued};
use crate::limits::MESSAGE;
use crate::support::client::Client;
use crate::support::ports;
use crate::support::prometheus::get;
use crate::support::site::Credential;

/// Everything that is asked of a daemon whose writer waits.
struct Asked {
    cached: Credential,
    cold: Vec<Credential>,
    live: Client,
    metrics: std::net::SocketAddr,
}

fn prepared() -> (Blocked, Asked) {
    let metrics = ports::free_address();
    let blocked = Blocked::start_with(|config| {
        let config = config.text("metrics", "listen", &metrics.to_string());
        // So that a session that is not limited has something unwritten, and a flush hangs as well.
        config
            .text("last_used", "flush_interval", "1s")
            .drain_timeout("1s")
    });
    blocked
        .served
        .daemon
        .succeed(&["organization", "create", "acme"]);
    let limit = json!({ "limits": { "messages_per_day": 100 } });
    let acme = "PATCH /api/v1/organizations/acme";
    blocked.served.admin(acme, Some(limit)).expect(200);
    let cached = blocked.create();
    let mut cold: Vec<_> = (0..6).map(|_| blocked.create_in("acme")).collect();
    for _ in 0..3 {
        let limits = json!({ "limits": { "messages_per_hour": 5, "recipients_per_day": 9 } });
        let make = blocked
            .served
            .admin(&format!("POST {DEFAULT}"), Some(limits));
        cold.push(issued(&make.expect(201)));
    }
    blocked.accepts(&cached);
    let live = blocked.live(&cached);
    let asked = Asked {
        cached,
        cold,
        live,
        metrics,
    };
    (blocked, asked)
}

/// One login, from its connection to its verdict.
#[track_caller]
fn decides(blocked: &Blocked, credential: &Credential, verdict: &str) {
    let begun = Instant::now();
    blocked.served.log_in(credential).expect(verdict);
    let took = begun.elapsed();
    assert!(took < DECIDED_WITHIN, "{verdict} took {took:?}");
}

fn everything_is_decided(blocked: &Blocked, asked: Asked) {
    let Asked {
        cached,
        cold,
        mut live,
        metrics,
    } = asked;
    let wrong = Credential {
        password: "sk_00000000000000000000000000000000".to_owned(),
        ..cached.clone()
    };
    let unknown = Credential {
        username: "smtp_0000000000000000".to_owned(),
        ..wrong.clone()
    };
    // Creations wait for the writer, and must not take the threads and turns of other requests.
    let creations: Vec<_> = (0..8)
        .map(|_| blocked.served.begin(&format!("POST {DEFAULT}"), &json!({})))
        .collect();
    // Also after the flush has begun to wait.
    for pause in [Duration::ZERO, Duration::from_millis(1_200)] {
        std::thread::sleep(pause);
        std::thread::scope(|scope| {
            for credential in &cold {
                scope.spawn(|| decides(blocked, credential, "235"));
            }
            scope.spawn(|| decides(blocked, &cached, "235"));
            scope.spawn(|| decides(blocked, &wrong, "535 5.7.8"));
            scope.spawn(|| decides(blocked, &unknown, "535 5.7.8"));
        });
        let begun = Instant::now();
        live.send_message(MESSAGE).expect("250");
        assert!(begun.elapsed() < DECIDED_WITHIN, "a message");
        for request in [
            "GET /api/v1/status",
            "GET /api/v1/organizations/acme",
            &format!("GET {}", one(&cached)),
            &format!("GET {DEFAULT}"),
            "GET /api/v1/audit",
            "GET /readyz",
        ] {
            blocked.ask(request, None).expect(200);
        }
        assert!(get(metrics, "/metrics").contains("gatepost_"));
    }
    let seen = blocked.served.admin(&format!("GET {}", one(&cached)), None);
    let used = &seen.expect(200).body["last_used"]["count"];
    assert!(
        used.as_u64().unwrap() >= 4,
        "what is not written is told: {used}"
    );
    drop(creations);
}

#[test]
fn logins_are_decided_while_another_process_has_the_store_locked() {
    let (blocked, asked) = prepared();
    let lock = blocked.lock();
    everything_is_decided(&blocked, asked);
    drop(lock);
}

#[test]
fn logins_are_decided_while_a_sync_hangs_and_the_end_comes_in_time() {
    let (blocked, asked) = prepared();
    let _waiting = blocked.stall();
    everything_is_decided(&blocked, asked);
    let mut daemon = blocked.served.daemon;
    daemon.signal(Signal::TERM);
    daemon.ends_within(Duration::from_secs(6));
    daemon.wait_for_log(&["the store takes too long", "are lost"]);
}

#[test]
fn a_change_of_another_process_counts_while_our_own_writer_waits() {
    let blocked = Blocked::start();
    let credential = blocked.create();
    blocked.accepts(&credential);
    let mut lock = blocked.lock();
    // It has the writer wait for the lock.
    let _waiting = blocked.served.begin(&format!("POST {DEFAULT}"), &json!({}));
    lock.run(&format!(
        "UPDATE credentials SET status = 'revoked' WHERE username = '{}';",
        credential.username
    ));
    blocked.accepts(&credential);
    lock.commit();
    crate::support::refused_soon(|| blocked.served.log_in(&credential));
}

#[test]
fn what_was_sent_and_is_not_written_counts_for_a_limit() {
    let blocked = Blocked::start_with(|config| config.text("last_used", "flush_interval", "1h"));
    let [sender, other] = [(); 2].map(|()| blocked.create());
    let mut client = blocked.live(&sender);
    for _ in 0..2 {
        client.send_message(MESSAGE).expect("250");
    }
    let limit = json!({ "limits": { "messages_per_day": 3 } });
    let default = "PATCH /api/v1/organizations/default";
    blocked.served.admin(default, Some(limit)).expect(200);
    let _lock = blocked.lock();
    // No session knew of the limit: this login reads what was sent.
    let mut client = blocked.live(&other);
    client.send_message(MESSAGE).expect("250");
    client.expect("MAIL FROM:<a@example.test>", "451 4.7.1");
}
