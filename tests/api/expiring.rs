//! Credentials by whether they are accepted now, and by how soon they expire: in lists, in one change
//! of many, and by command.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{DEFAULT, Served, issued};
use crate::support::site::Credential;
use crate::support::upstream::Upstream;

impl Served {
    /// Makes a credential that expires an hour before so many days have passed.
    fn expires_in(&self, days: i64) -> Credential {
        let end = Timestamp::now() + SignedDuration::from_hours(24 * days - 1);
        let new = json!({ "expires_at": end.to_string() });
        issued(
            &self
                .admin(&format!("POST {DEFAULT}"), Some(new))
                .expect(201),
        )
    }

    fn listed(&self, query: &str) -> Vec<String> {
        let list = self.admin(&format!("GET {DEFAULT}?{query}"), None);
        let list = list.expect(200).body;
        let items = list["items"].as_array().expect("items").iter();
        let names = items.map(|item| item["username"].as_str().expect("a username"));
        names.map(str::to_owned).collect()
    }
}

fn usernames(credentials: &[&Credential]) -> Vec<String> {
    let all = credentials.iter();
    all.map(|credential| credential.username.clone()).collect()
}

#[test]
fn credentials_that_expire_soon_are_found_and_changed_together() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let [week, month, later] = [7, 30, 90].map(|days| served.expires_in(days));
    let never = served.daemon.create();
    for (span, expected) in [
        ("6d", vec![]),
        ("7d", vec![&week]),
        ("30d", vec![&week, &month]),
        ("5w", vec![&week, &month]),
        ("2200h", vec![&week, &month, &later]),
    ] {
        let expected = usernames(&expected);
        assert_eq!(served.listed(&format!("expires_within={span}")), expected);
        let list = ["credential", "list", "--expires-within", span];
        let list = served.daemon.json(&list);
        let list = list.as_array().unwrap().iter();
        let list: Vec<_> = list.map(|one| one["username"].as_str().unwrap()).collect();
        assert_eq!(list, expected, "{span}");
    }
    for wrong in ["7", "-7d", "soon", "1y", "2027-01-31"] {
        let list = format!("GET {DEFAULT}?expires_within={wrong}");
        let refused = served.admin(&list, None).problem(400, "invalid-query");
        let detail = refused.body["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("30d"), "{detail}");
        let list = ["credential", "list", &format!("--expires-within={wrong}")];
        let output = served.daemon.run(&list);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }

    let bulk = "POST /api/v1/organizations/default/bulk";
    let revoke = json!({ "action": "revoke", "filter": { "expires_within": "7d" } });
    let done = served.admin(bulk, Some(revoke)).expect(200);
    assert_eq!(done.body["usernames"], json!([week.username]));
    served.log_in(&week).expect("535 5.7.8");
    assert_eq!(
        served.listed("expires_within=30d"),
        [month.username.as_str()],
        "a revoked credential does not expire any more"
    );
    let extend = ["credential", "expire", "--expires-within", "30d", "never"];
    served.daemon.succeed(&extend);
    assert_eq!(served.listed("expires_within=30d"), [""; 0]);
    let active = usernames(&[&month, &later, &never]);
    assert_eq!(served.listed("status=active"), active);
}

#[test]
fn an_expired_credential_is_not_active_and_can_still_be_revoked() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let [active, expired, revoked, both] = [(); 4].map(|()| served.daemon.create());
    let past = "UPDATE credentials SET expires_at = 1 WHERE username = ?1";
    for one in [&expired, &both] {
        served.daemon.sql(past, &one.username);
    }
    for one in [&revoked, &both] {
        served
            .daemon
            .succeed(&["credential", "revoke", &one.username]);
    }
    for (status, expected) in [
        ("active", vec![&active]),
        ("expired", vec![&expired]),
        ("revoked", vec![&revoked, &both]),
    ] {
        let expected = usernames(&expected);
        assert_eq!(served.listed(&format!("status={status}")), expected);
        let list = served
            .daemon
            .json(&["credential", "list", "--status", status]);
        let list = list.as_array().unwrap().iter();
        let list: Vec<_> = list.map(|one| one["username"].as_str().unwrap()).collect();
        assert_eq!(list, expected, "{status}");
        let filter = json!({ "status": status });
        let count = json!({ "action": "delete", "filter": filter, "dry_run": true });
        let bulk = "POST /api/v1/organizations/default/bulk";
        let count = served.admin(bulk, Some(count)).expect(200);
        assert_eq!(count.body["usernames"], json!(expected), "{status}");
    }
    // An expired credential is not revoked yet, so that all of an organization means it, too.
    let revoke = json!({ "action": "revoke", "filter": {} });
    let bulk = "POST /api/v1/organizations/default/bulk";
    let done = served.admin(bulk, Some(revoke)).expect(200);
    let meant = usernames(&[&active, &expired]);
    assert_eq!(done.body["usernames"], json!(meant));
    served
        .daemon
        .succeed(&["credential", "delete", "--status", "revoked", "--yes"]);
    assert_eq!(served.listed(""), [""; 0]);
}
