//! Refusals in one form: what is wrong has its status and its code, and each field that is wrong its pointer. And names that
//! are not what they seem.

use serde_json::json;

use super::{DEFAULT, Served, issued};
use crate::support::eventually;
use crate::support::upstream::Upstream;

#[test]
fn what_is_not_there_is_404_and_what_is_not_done_to_it_405() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    for path in ["/api", "/api/v1", "/api/v1/nothing", "/api/v2/status"] {
        let answer = served.admin(&format!("GET {path}"), None);
        answer.problem(404, "not-found");
    }
    let unknown = format!("GET {DEFAULT}/smtp_0000000000000000");
    served.admin(&unknown, None).problem(404, "not-found");
    for (request, allowed) in [
        ("PUT /api/v1/organizations", ["GET", "POST"]),
        ("DELETE /api/v1/audit", ["GET", "HEAD"]),
        ("PATCH /api/v1/sessions", ["GET", "DELETE"]),
    ] {
        let answer = served.admin(request, None);
        let answer = answer.problem(405, "method-not-allowed");
        let found: Vec<_> = answer.header("allow").split(',').collect();
        let all = allowed.iter().all(|method| found.contains(method));
        assert!(all, "{request}: {found:?}");
    }
}

#[test]
fn each_field_that_is_wrong_is_named_and_nothing_is_made() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let wrong = json!({ "name": "", "expires_at": "soon", "colour": "red" });
    let wrong = served.admin(&format!("POST {DEFAULT}"), Some(wrong));
    let wrong = wrong.problem(422, "invalid");
    let errors = wrong.body["errors"].as_array().unwrap().iter();
    let pointers: Vec<_> = errors.map(|error| error["pointer"].as_str()).collect();
    for pointer in ["#/name", "#/expires_at", "#/colour"] {
        assert!(pointers.contains(&Some(pointer)), "{pointers:?}");
    }
    let listed = served.admin(&format!("GET {DEFAULT}"), None).expect(200);
    assert_eq!(listed.body["items"], json!([]));
}

#[test]
fn without_an_upstream_it_lives_but_is_not_ready() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let credential = served.daemon.create();
    let foreign = ["Host: balancer.test"];
    let status = |path: &str| served.ask(&format!("GET {path}"), &foreign, None).status;
    eventually("the first look at the upstream", || {
        (status("/readyz") == 200).then_some(())
    });
    drop(upstream);
    served.log_in(&credential).expect("454");
    assert_eq!((status("/healthz"), status("/readyz")), (200, 503));
}

#[test]
fn a_slug_that_the_audit_log_still_tells_of_is_taken() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let make = || {
        served.admin(
            "POST /api/v1/organizations",
            Some(json!({ "slug": "acme" })),
        )
    };
    make().expect(201);
    make().problem(409, "already-exists");
    let delete = served.admin("DELETE /api/v1/organizations/acme", None);
    delete.expect(204);
    make().problem(409, "already-exists");
    let gone = served.admin("GET /api/v1/organizations/acme", None);
    gone.problem(404, "not-found");
}

#[test]
fn a_token_is_revoked_by_its_id_whatever_others_are_named() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let (id, secret) = served.token_and_id("leaked", "instance:admin");
    let shadow = json!({ "name": id, "scope": "org:default:read" });
    let shadow = served.admin("POST /api/v1/tokens", Some(shadow));
    let shadow = shadow.expect(201).body["secret"].clone();
    let revoked = served.admin(&format!("POST /api/v1/tokens/{id}/revoke"), None);
    assert_eq!(revoked.expect(200).body["name"], "leaked");
    let list = "GET /api/v1/tokens";
    served.by(&secret, list, None).problem(401, "unauthorized");
    let shadow = shadow.as_str().expect("a secret");
    served.by(shadow, list, None).expect(200);
}

#[test]
fn an_organization_is_deleted_when_it_is_empty_or_by_force() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let acme = json!({ "slug": "acme" });
    let acme = served.admin("POST /api/v1/organizations", Some(acme));
    acme.expect(201);
    let make = "POST /api/v1/organizations/acme/credentials";
    let made = issued(&served.admin(make, None).expect(201));
    let delete = "DELETE /api/v1/organizations/acme";
    served.admin(delete, None).problem(409, "not-empty");
    let default = "DELETE /api/v1/organizations/default?force=true";
    served.admin(default, None).problem(409, "protected");
    served.log_in(&made).expect("235");
    let forced = format!("{delete}?force=true");
    served.admin(&forced, None).expect(204);
    served.log_in(&made).expect("535 5.7.8");
    served.admin(delete, None).problem(404, "not-found");
}

#[test]
fn a_token_makes_none_that_lasts_longer() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let create = ["token", "create", "--name", "short", "--scope"];
    let until = ["instance:admin", "--expires", "2999-01-01"];
    let short = served.daemon.json(&[&create[..], &until[..]].concat());
    let short = short["secret"].as_str().expect("a secret");
    let make = |until: Option<&str>| {
        let token = json!({ "name": "t", "scope": "instance:read", "expires_at": until });
        served.by(short, "POST /api/v1/tokens", Some(token))
    };
    let longer = make(Some("2999-01-01T00:00:00.001Z"));
    longer.problem(403, "forbidden");
    for (wanted, end) in [
        (None, "2999-01-01T00:00:00.000Z"),
        (Some("2998-01-01T00:00:00Z"), "2998-01-01T00:00:00.000Z"),
    ] {
        assert_eq!(make(wanted).expect(201).body["expires_at"], end);
    }
}

#[test]
fn a_locked_store_is_waited_for_and_a_revocation_counts_all_the_same() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let credential = served.daemon.create();
    served.log_in(&credential).expect("235");
    let store = rusqlite::Connection::open(served.daemon.store()).expect("open the store");
    store.execute_batch("BEGIN IMMEDIATE").expect("lock it");
    let patch = format!("PATCH {DEFAULT}/{}", credential.username);
    let revoked = served.admin(&patch, Some(json!({ "status": "revoked" })));
    revoked.problem(507, "effective-not-durable");
    served.log_in(&credential).expect("535 5.7.8");
    let status = || served.admin("GET /api/v1/status", None).expect(200).body;
    assert_eq!(status()["revocations_not_durable"], 1);
    let made = served.admin(&format!("POST {DEFAULT}"), None);
    let busy = made.problem(503, "store-busy");
    assert_eq!(busy.header("retry-after"), "1");

    store.execute_batch("ROLLBACK").expect("let it go");
    eventually("the revocation is written", || {
        (status()["revocations_not_durable"] == 0).then_some(())
    });
    let shown = served.admin(&patch.replace("PATCH", "GET"), None);
    assert_eq!(shown.expect(200).body["status"], "revoked");
    served.log_in(&credential).expect("535 5.7.8");
}
