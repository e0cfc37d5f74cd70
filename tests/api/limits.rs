//! Limits and rules by the API: how they are changed, told and recorded, and by whom.

use serde_json::json;

use super::{DEFAULT, Served, issued};
use crate::support::upstream::Upstream;

#[test]
fn limits_and_rules_are_merged_told_and_recorded() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let new = json!({
        "name": "Printer",
        "limits": { "messages_per_day": 500, "sessions": "unlimited" },
        "rules": { "senders": ["ok.test"], "header_from": true },
    });
    let made = served
        .by(&served.token, &format!("POST {DEFAULT}"), Some(new))
        .expect(201);
    let limits = json!({ "messages_per_day": 500, "sessions": "unlimited" });
    assert_eq!(made.body["limits"], limits);
    let one = format!("{DEFAULT}/{}", issued(&made).username);
    let change = |change| served.by(&served.token, &format!("PATCH {one}"), Some(change));
    let changed = change(json!({
        "limits": { "messages_per_day": null, "message_size": 1000 },
        "rules": { "networks": ["10.0.0.0/8", "::1"], "report": ["networks"] },
    }));
    let changed = changed.expect(200);
    assert_ne!(changed.header("etag"), made.header("etag"));
    assert_eq!(
        changed.body["limits"],
        json!({ "message_size": 1000, "sessions": "unlimited" })
    );
    let rules = json!({
        "senders": ["ok.test"],
        "header_from": true,
        "networks": ["10.0.0.0/8", "::1"],
        "bare_newline": null,
        "report": ["networks"],
    });
    assert_eq!(changed.body["rules"], rules);
    let holds = json!([{ "limit": "message_size", "ceiling": 1000, "used": null, "over": false }]);
    assert_eq!(changed.body["limit_use"], holds);
    let audit = served.by(
        &served.token,
        "GET /api/v1/audit?action=credential.update",
        None,
    );
    let record = &audit.expect(200).body["items"][0];
    assert_eq!(record["before"]["limits"], limits);
    assert_eq!(
        record["after"]["rules"]["networks"],
        json!(["10.0.0.0/8", "::1"])
    );

    for (wrong, pointer) in [
        (json!({ "limits": { "messages_per_month": 1 } }), "#/limits"),
        (json!({ "limits": { "sessions": 0 } }), "#/limits"),
        (json!({ "limits": { "sessions": "many" } }), "#/limits"),
        (json!({ "rules": { "senders": ["a b"] } }), "#/rules"),
        (
            json!({ "rules": { "networks": ["10.0.0.1/8"] } }),
            "#/rules",
        ),
        (json!({ "rules": { "report": ["everything"] } }), "#/rules"),
    ] {
        let answer = change(wrong).problem(422, "invalid");
        assert_eq!(
            answer.body["errors"][0]["pointer"], pointer,
            "{}",
            answer.body
        );
    }
    // Alone it is right, with what is there it is not.
    let answer = change(json!({ "rules": { "senders": null } })).problem(422, "invalid");
    assert!(
        answer.body["detail"].to_string().contains("header_from"),
        "{}",
        answer.body
    );
    assert_eq!(
        change(json!({})).expect(200).header("etag"),
        changed.header("etag")
    );
}

#[test]
fn an_organization_does_not_lift_its_own_limits() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let request = "PATCH /api/v1/organizations/default";
    let limits = json!({ "limits": { "messages_per_month": 100 } });
    let changed = served
        .by(&served.token, request, Some(limits.clone()))
        .expect(200);
    assert_eq!(changed.body["limits"], limits["limits"]);
    assert_eq!(changed.body["limit_use"][0]["used"], 0);
    let own = served.token_for("org:default:admin");
    let lifted = json!({ "limits": { "messages_per_month": "unlimited" } });
    served
        .by(&own, request, Some(lifted))
        .problem(403, "forbidden");
    served
        .by(&own, request, Some(json!({ "name": "Own" })))
        .expect(200);
    let shown = served
        .by(&own, "GET /api/v1/organizations/default", None)
        .expect(200);
    assert_eq!(shown.body["limits"], limits["limits"]);
    let new = json!({ "slug": "acme", "limits": { "sessions": 5 } });
    let made = served
        .by(&served.token, "POST /api/v1/organizations", Some(new))
        .expect(201);
    assert_eq!(made.body["limits"], json!({ "sessions": 5 }));
}
