//! Credentials from elsewhere, by the API.

use serde_json::json;

use super::{DEFAULT, Served};
use crate::support::client::Reply;
use crate::support::site::Credential;
use crate::support::upstream::Upstream;

const IMPORT: &str = "POST /api/v1/organizations/default/import";

fn log_in(served: &Served, username: &str, password: &str) -> Reply {
    served.log_in(&Credential {
        username: username.to_owned(),
        password: password.to_owned(),
    })
}

#[test]
fn an_import_by_the_api_reports_as_the_command_does_and_counts_at_once() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let text = "ann:{PLAIN}hunter2\nbob:{SSHA}lhdKKw2V93yeauI6QYSjBrzk2jaq4uO0\nann:{PLAIN}x1\neve:{MD5}abc\nmallory:secret-in-the-clear";
    let file = |dry_run| json!({ "format": "dovecot", "text": text, "dry_run": dry_run });
    let tried = served.admin(IMPORT, Some(file(true))).expect(200).body;
    assert_eq!(tried["dry_run"], true);
    assert!(log_in(&served, "ann", "hunter2").starts_with("535"));

    let report = served.admin(IMPORT, Some(file(false))).expect(200).body;
    let taken = json!([
        { "line": 1, "username": "ann", "scheme": "plain" },
        { "line": 2, "username": "bob", "scheme": "salted SHA-1" },
    ]);
    assert_eq!((&report["taken"], &tried["taken"]), (&taken, &taken));
    assert_eq!(report["left"], tried["left"]);
    assert_eq!(
        report["repeated"],
        json!([{ "username": "ann", "lines": [1, 3] }])
    );
    let left = report["left"].as_array().unwrap();
    let lines: Vec<_> = left.iter().map(|left| left["line"].as_u64()).collect();
    assert_eq!(lines, [Some(3), Some(4), Some(5)]);
    assert!(!report.to_string().contains("secret-in-the-clear"));
    for username in ["ann", "bob"] {
        assert!(
            log_in(&served, username, "hunter2").starts_with("235"),
            "{username}"
        );
        served
            .admin(&format!("GET {DEFAULT}/{username}"), None)
            .expect(200);
    }
    let audit = served.admin("GET /api/v1/audit?action=credential.import", None);
    let audit = audit.expect(200).body;
    let records = audit["items"].as_array().unwrap();
    assert_eq!(records.len(), 2, "{audit}");
    assert!(
        records
            .iter()
            .all(|record| record["actor"] == records[0]["actor"])
    );
    let again = served.admin(IMPORT, Some(file(false))).expect(200).body;
    assert_eq!(again["taken"], json!([]));
}

#[test]
fn an_import_that_is_no_such_file_or_too_large_changes_nothing() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let csv = |text: String| json!({ "format": "csv", "text": text });
    let many = |count: usize, password: &str| {
        let line = |n| format!("user{n},{password}\n");
        let lines: String = (0..count).map(line).collect();
        csv(format!("username,password\n{lines}"))
    };
    for (file, part) in [
        (
            csv("username;password\n".to_owned()),
            "separated by semicolons",
        ),
        (csv(String::new()), "it is empty"),
        (
            many(1_001, "{PLAIN}hunter2"),
            "more than 1000 passwords in the clear",
        ),
        (
            many(10_001, "{SSHA}lhdKKw2V93yeauI6QYSjBrzk2jaq4uO0"),
            "more than 10000 credentials",
        ),
    ] {
        let problem = served.admin(IMPORT, Some(file)).expect(422).body;
        assert_eq!(problem["errors"][0]["pointer"], "#/text");
        assert!(
            problem["detail"].as_str().unwrap().contains(part),
            "{problem}"
        );
    }
    let wrong = json!({ "format": "ldif", "text": "" });
    served.admin(IMPORT, Some(wrong)).expect(422);
    let large = csv("x".repeat(2 * 1024 * 1024));
    served.admin(IMPORT, Some(large)).expect(413);
    let nowhere = "POST /api/v1/organizations/nowhere/import";
    let one = csv("username,password\nann,{PLAIN}hunter2\n".to_owned());
    served.admin(nowhere, Some(one.clone())).expect(404);
    served.daemon.succeed(&["organization", "create", "acme"]);
    for scope in ["instance:read", "org:default:read", "org:acme:admin"] {
        let (_, token) = served.token_and_id(scope, scope);
        let status = served.by(&token, IMPORT, Some(one.clone())).status;
        assert!([403, 404].contains(&status), "{scope}: {status}");
    }
    let list = served
        .admin(&format!("GET {DEFAULT}"), None)
        .expect(200)
        .body;
    assert_eq!(list["items"], json!([]));
    let (_, own) = served.token_and_id("own", "org:default:admin");
    served.by(&own, IMPORT, Some(one)).expect(200);
}
