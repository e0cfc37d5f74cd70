//! What takes access away counts before it is written, and is written once it can be.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::{Blocked, one};
use crate::support::{eventually, within};

/// Longer than a change waits before it is tried again.
const TRIED_AGAIN: Duration = Duration::from_secs(3);

#[test]
fn of_64_revocations_at_once_each_bites_and_is_answered_within_a_second() {
    let blocked = Blocked::start();
    let credentials: Vec<_> = (0..64).map(|_| blocked.create()).collect();
    let mut live: Vec<_> = credentials[..8]
        .iter()
        .map(|credential| blocked.live(credential))
        .collect();
    let lock = blocked.lock();
    std::thread::scope(|scope| {
        for credential in &credentials {
            scope.spawn(|| {
                let revoke = json!({ "status": "revoked", "disconnect": true });
                let request = format!("PATCH {}", one(credential));
                blocked.narrows(&request, Some(revoke.clone()));
                // Again and again it is the same change.
                blocked.narrows(&request, Some(revoke));
            });
        }
    });
    for client in &mut live {
        client.reply().expect("421 4.7.0");
    }
    for credential in &credentials {
        blocked.refuses(credential);
    }
    let status = || {
        blocked
            .served
            .admin("GET /api/v1/status", None)
            .expect(200)
            .body
    };
    assert_eq!(status()["revocations_not_durable"], 64);
    lock.commit();
    eventually("all are written", || {
        (status()["revocations_not_durable"] == 0).then_some(())
    });
    for credential in &credentials {
        let shown = blocked
            .served
            .admin(&format!("GET {}", one(credential)), None);
        assert_eq!(shown.expect(200).body["status"], "revoked");
    }
    let ended = "GET /api/v1/audit?action=session.";
    let ended = blocked.served.admin(ended, None).expect(200).body;
    assert_eq!(ended["items"].as_array().unwrap().len(), 8);
}

#[test]
fn every_change_that_takes_access_away_bites_while_the_store_is_locked() {
    let blocked = Blocked::start();
    let daemon = &blocked.served.daemon;
    for slug in ["suspended", "gone"] {
        daemon.succeed(&["organization", "create", slug]);
    }
    let suspended = blocked.create_in("suspended");
    let gone = blocked.create_in("gone");
    let [deleted, expired, fenced, rotated, renewed, untouched] =
        [(); 6].map(|()| blocked.create());
    let overlap = Some(json!({ "overlap": 3_600 }));
    let rotate = format!("POST {}/rotate", one(&renewed));
    let current = crate::api::issued(&blocked.served.admin(&rotate, overlap).expect(200));
    let (id, secret) = blocked.served.token_and_id("doomed", "instance:read");
    for credential in [
        &suspended, &gone, &deleted, &expired, &fenced, &rotated, &renewed, &current, &untouched,
    ] {
        blocked.accepts(credential);
    }
    let mut live = blocked.live(&untouched);

    let lock = blocked.lock();
    let suspend = json!({ "status": "suspended" });
    blocked.narrows("PATCH /api/v1/organizations/suspended", Some(suspend));
    blocked.narrows("DELETE /api/v1/organizations/gone?force=true", None);
    blocked.narrows(&format!("DELETE {}", one(&deleted)), None);
    let expire = json!({ "expires_at": "2020-01-01T00:00:00Z" });
    blocked.narrows(&format!("PATCH {}", one(&expired)), Some(expire));
    let fence = json!({ "rules": { "networks": ["192.0.2.0/24"] } });
    blocked.narrows(&format!("PATCH {}", one(&fenced)), Some(fence));
    blocked.narrows(&format!("POST {}/rotate", one(&rotated)), None);
    let end = json!({ "end_overlap": true });
    blocked.narrows(&format!("PATCH {}", one(&renewed)), Some(end));
    blocked.narrows(&format!("POST /api/v1/tokens/{id}/revoke"), None);
    let end = format!("DELETE /api/v1/sessions?credential={}", untouched.username);
    assert_eq!(blocked.ask(&end, None).expect(200).body["disconnected"], 1);

    let refused = [
        &suspended, &gone, &deleted, &expired, &fenced, &rotated, &renewed,
    ];
    for credential in refused {
        blocked.refuses(credential);
    }
    blocked.accepts(&current);
    blocked.accepts(&untouched);
    live.reply().expect("421 4.7.0");
    let status = |token: &str| blocked.served.by(token, "GET /api/v1/status", None);
    status(&secret).problem(401, "unauthorized");

    lock.commit();
    eventually("all are written", || {
        let status = status(&blocked.served.token).expect(200).body;
        (status["revocations_not_durable"] == 0).then_some(())
    });
    for credential in refused {
        blocked.refuses(credential);
    }
    blocked.accepts(&current);
    status(&secret).problem(401, "unauthorized");
    let organizations = daemon.json(&["organization", "list"]);
    let of = |slug: &str| {
        let mut all = organizations.as_array().unwrap().iter();
        all.find(|one| one["slug"] == slug).cloned()
    };
    assert_eq!(of("suspended").unwrap()["status"], "suspended");
    assert_eq!(of("gone"), None);
    // The password that took the place of the old one was never shown.
    let again = format!("POST {}/rotate", one(&rotated));
    let again = crate::api::issued(&blocked.served.admin(&again, None).expect(200));
    blocked.accepts(&again);
    daemon.succeed(&["audit", "verify"]);
}

#[test]
fn what_gives_access_waits_for_its_commit() {
    let blocked = Blocked::start();
    let [revoked, rotated] = [(); 2].map(|()| blocked.create());
    let revoke = ["credential", "revoke", &revoked.username];
    blocked.served.daemon.succeed(&revoke);
    blocked.accepts(&rotated);
    let _lock = blocked.lock();
    let enable = Some(json!({ "status": "active" }));
    let enable = blocked
        .served
        .admin(&format!("PATCH {}", one(&revoked)), enable);
    enable.problem(503, "store-busy");
    blocked.refuses(&revoked);
    let rotate = format!("POST {}/rotate", one(&rotated));
    let overlap = Some(json!({ "overlap": 60 }));
    let rotate = blocked.served.admin(&rotate, overlap);
    rotate.problem(503, "store-busy");
    blocked.accepts(&rotated);
}

#[test]
fn what_another_process_gives_later_is_not_taken_away() {
    let blocked = Blocked::start();
    let [enabled, replaced, rotated] = [(); 3].map(|()| blocked.create());
    let mut lock = blocked.lock();
    let revoke = || Some(json!({ "status": "revoked" }));
    blocked.narrows(&format!("PATCH {}", one(&enabled)), revoke());
    blocked.narrows(&format!("DELETE {}", one(&replaced)), None);
    blocked.narrows(&format!("POST {}/rotate", one(&rotated)), None);
    for credential in [&enabled, &replaced, &rotated] {
        blocked.refuses(credential);
    }
    lock.run(&format!(
        "UPDATE credentials SET status = 'active' WHERE username = '{}';",
        enabled.username
    ));
    // The same name, the same password, and another row.
    lock.run(&format!(
        "CREATE TEMP TABLE kept AS SELECT * FROM credentials WHERE username = '{name}';
         DELETE FROM credentials WHERE username = '{name}';
         INSERT INTO credentials (id, username, organization, password_hash, tag, created_at, limits, rules)
         SELECT 'a' || substr(id, 2), username, organization, password_hash, tag, created_at, '{{}}', '{{}}'
         FROM kept;",
        name = replaced.username
    ));
    lock.run(&format!(
        "UPDATE credentials SET password_hash = (SELECT password_hash FROM kept),
             tag = (SELECT tag FROM kept) WHERE username = '{}';",
        rotated.username
    ));
    lock.commit();
    let given = crate::support::site::Credential {
        username: rotated.username.clone(),
        password: replaced.password.clone(),
    };
    let obeyed = Duration::from_secs(2);
    for credential in [&enabled, &replaced, &given] {
        within(obeyed, "the later change counts", || {
            blocked
                .served
                .log_in(credential)
                .starts_with("235")
                .then_some(())
        });
    }
    let status = || {
        blocked
            .served
            .admin("GET /api/v1/status", None)
            .expect(200)
            .body
    };
    within(TRIED_AGAIN + obeyed, "nothing waits any more", || {
        (status()["revocations_not_durable"] == 0).then_some(())
    });
    for credential in [&enabled, &replaced, &given] {
        blocked.accepts(credential);
    }
    blocked.refuses(&rotated);
}

#[test]
fn a_credential_that_is_enabled_while_its_revocation_waits_stays_enabled() {
    let blocked = Blocked::start();
    let credential = blocked.create();
    let lock = blocked.lock();
    let set = |status: &str| {
        let change = Some(json!({ "status": status }));
        blocked
            .served
            .admin(&format!("PATCH {}", one(&credential)), change)
    };
    set("revoked").problem(507, "effective-not-durable");
    std::thread::scope(|scope| {
        let enabling = scope.spawn(|| set("active").status);
        lock.commit();
        // Written before the revocation, or after it.
        assert_eq!(enabling.join().unwrap(), 200);
    });
    blocked.accepts(&credential);
    std::thread::sleep(TRIED_AGAIN);
    blocked.accepts(&credential);
    assert_eq!(blocked.shown(&credential)["status"], "active");
}

#[test]
fn who_may_not_revoke_or_knows_an_older_state_changes_nothing() {
    let blocked = Blocked::start();
    blocked
        .served
        .daemon
        .succeed(&["organization", "create", "acme"]);
    let credential = blocked.create();
    let reader = blocked.served.token_named("reader", "instance:read");
    let other = blocked.served.token_named("other", "org:acme:admin");
    let _lock = blocked.lock();
    let patch = format!("PATCH {}", one(&credential));
    let revoke = || Some(json!({ "status": "revoked" }));
    blocked.served.by(&reader, &patch, revoke()).expect(403);
    blocked.served.by(&other, &patch, revoke()).expect(403);
    let elsewhere = format!(
        "PATCH /api/v1/organizations/acme/credentials/{}",
        credential.username
    );
    blocked.served.by(&other, &elsewhere, revoke()).expect(404);
    let stale = blocked
        .served
        .if_match("\"0000000000000000\"", &patch, revoke());
    stale.problem(412, "changed");
    blocked.accepts(&credential);
}

#[test]
fn a_revocation_bites_while_a_sync_hangs_and_the_end_says_that_it_is_lost() {
    let blocked = Blocked::start_with(|config| config.drain_timeout("1s"));
    let credential = blocked.create();
    let mut live = blocked.live(&credential);
    let _waiting = blocked.stall();
    let revoke = json!({ "status": "revoked", "disconnect": true });
    blocked.narrows(&format!("PATCH {}", one(&credential)), Some(revoke));
    live.reply().expect("421 4.7.0");
    blocked.refuses(&credential);
    let mut daemon = blocked.served.daemon;
    daemon.signal(Signal::TERM);
    daemon.ends_within(Duration::from_secs(6));
    let lost = format!("the revocation of credential {}", credential.username);
    daemon.wait_for_log(&["this change is not durable", &lost]);
    // Nothing of it was written.
    let show = ["credential", "show", &credential.username];
    assert_eq!(daemon.json(&show)["status"], "active");
}

#[test]
fn a_revocation_that_waits_is_written_at_the_end() {
    let blocked = Blocked::start();
    let credential = blocked.create();
    let lock = blocked.lock();
    let revoke = Some(json!({ "status": "revoked" }));
    blocked.narrows(&format!("PATCH {}", one(&credential)), revoke);
    let daemon = blocked.served.daemon;
    daemon.signal(Signal::TERM);
    lock.commit();
    let site = daemon.site();
    assert!(daemon.wait().success());
    let show = ["credential", "show", &credential.username];
    assert_eq!(site.json(&show)["status"], "revoked");
}

#[test]
fn a_rotation_in_an_overlap_refuses_the_newest_password_at_once() {
    let blocked = Blocked::start();
    let old = blocked.create();
    let rotate = format!("POST {}/rotate", one(&old));
    let overlap = || Some(json!({ "overlap": 3_600 }));
    let newest = crate::api::issued(&blocked.served.admin(&rotate, overlap()).expect(200));
    let until = || blocked.shown(&old)["previous_until"].clone();
    let promised = until();
    blocked.accepts(&newest);
    let lock = blocked.lock();
    blocked.narrows(&rotate, overlap());
    blocked.refuses(&newest);
    blocked.accepts(&old);
    lock.commit();
    let status = || blocked.served.admin("GET /api/v1/status", None);
    eventually("it is written", || {
        let status = status().expect(200).body;
        (status["revocations_not_durable"] == 0).then_some(())
    });
    blocked.refuses(&newest);
    blocked.accepts(&old);
    assert_eq!(until(), promised);
    let again = blocked.served.admin(&rotate, overlap()).expect(200);
    assert_eq!(again.body["overlap"], "kept");
    blocked.accepts(&crate::api::issued(&again));
    blocked.accepts(&old);
}

#[test]
fn a_rotation_with_an_overlap_brings_no_refused_password_back() {
    let blocked = Blocked::start();
    let [replaced, ended] = [(); 2].map(|()| blocked.create());
    let rotate = |credential| format!("POST {}/rotate", one(credential));
    let overlap = || Some(json!({ "overlap": 3_600 }));
    let newest = blocked.served.admin(&rotate(&ended), overlap()).expect(200);
    let newest = crate::api::issued(&newest);
    let lock = blocked.lock();
    blocked.narrows(&rotate(&replaced), None);
    let end = Some(json!({ "end_overlap": true }));
    blocked.narrows(&format!("PATCH {}", one(&ended)), end);
    std::thread::scope(|scope| {
        let rotating = [&replaced, &ended]
            .map(|credential| scope.spawn(|| blocked.served.admin(&rotate(credential), overlap())));
        lock.commit();
        for rotating in rotating {
            let status = rotating.join().unwrap().status;
            assert!([200, 507].contains(&status), "{status}");
        }
    });
    blocked.refuses(&replaced);
    blocked.refuses(&ended);
    blocked.accepts(&newest);
}
