//! Refusals in one form: what is wrong has its status and its code, and each field that is wrong its pointer.

use serde_json::json;

use super::{DEFAULT, Served};
use crate::support::eventually;
use crate::support::upstream::Upstream;

#[test]
fn what_is_not_there_is_404_and_what_is_not_done_to_it_405() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    for path in ["/", "/api/v1", "/api/v1/nothing", "/api/v2/status"] {
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
