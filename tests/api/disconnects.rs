//! The ways to end live sessions, and that each ends those and no others.

use serde_json::json;

use super::operations::Things;
use super::{Served, issued};
use crate::support::client::Client;
use crate::support::site::Credential;
use crate::support::upstream::Upstream;

const ENDED: &str = "421 4.7.0";

/// Two sessions of one organization and one of another.
struct Connected {
    served: Served,
    things: Things,
    first: Client,
    second: Client,
    other: Client,
    credential: Credential,
    _upstream: Upstream,
}

impl Connected {
    fn start() -> Connected {
        let upstream = Upstream::start();
        let served = Served::start(&upstream);
        served.daemon.succeed(&["organization", "create", "acme"]);
        let (things, first) = Things::in_organization(&served, "acme");
        let rotate = format!(
            "POST /api/v1/organizations/acme/credentials/{}/rotate",
            things.username
        );
        let credential = issued(&served.admin(&rotate, None).expect(200));
        let second = Client::logged_in(&served.daemon, &credential);
        let (_, other) = Things::in_organization(&served, "default");
        Connected {
            served,
            things,
            first,
            second,
            other,
            credential,
            _upstream: upstream,
        }
    }

    /// How often sessions were ended, according to the audit log.
    fn recorded(&self) -> usize {
        let records = "GET /api/v1/audit?action=session.";
        let records = self.served.admin(records, None).expect(200).body;
        records["items"].as_array().unwrap().len()
    }
}

#[test]
fn one_session_is_ended_by_its_id() {
    let mut all = Connected::start();
    let end = format!("DELETE /api/v1/sessions/{}", all.things.session);
    all.served.admin(&end, None).expect(204);
    all.first.reply().expect(ENDED);
    all.first.expect_close();
    all.second.expect("NOOP", "250");
    all.other.expect("NOOP", "250");
    all.served.admin(&end, None).problem(404, "not-found");
    let nonsense = all.served.admin("DELETE /api/v1/sessions/first", None);
    nonsense.problem(400, "invalid-path");
    assert_eq!(all.recorded(), 1);
}

#[test]
fn all_sessions_of_a_credential_are_ended_by_its_name() {
    let mut all = Connected::start();
    let end = |username: &str| format!("DELETE /api/v1/sessions?credential={username}");
    let ended = all.served.admin(&end(&all.things.username), None);
    assert_eq!(ended.expect(200).body["disconnected"], 2);
    for client in [&mut all.first, &mut all.second] {
        client.reply().expect(ENDED);
    }
    all.other.expect("NOOP", "250");
    all.served.log_in(&all.credential).expect("235");
    let nobody = all.served.admin(&end("smtp_0000000000000000"), None);
    nobody.problem(404, "not-found");
    let whose = all.served.admin("DELETE /api/v1/sessions", None);
    whose.problem(400, "invalid-query");
    assert_eq!(all.recorded(), 1);
}

#[test]
fn an_organization_is_suspended_with_its_sessions_or_without() {
    let mut all = Connected::start();
    let edit = |change| {
        let answer = all
            .served
            .admin("PATCH /api/v1/organizations/acme", Some(change));
        answer.expect(200).body
    };
    let suspended = edit(json!({ "status": "suspended" }));
    assert_eq!(suspended["live_sessions"], 2);
    all.served.log_in(&all.credential).expect("535 5.7.8");
    all.first.expect("NOOP", "250");
    let suspended = edit(json!({ "disconnect": true }));
    assert_eq!(suspended["status"], "suspended");
    for client in [&mut all.first, &mut all.second] {
        client.reply().expect(ENDED);
    }
    all.other.expect("NOOP", "250");
    edit(json!({ "status": "active" }));
    all.served.log_in(&all.credential).expect("235");
}

#[test]
fn deleting_and_rotating_end_sessions_only_if_asked() {
    let mut all = Connected::start();
    let path = format!(
        "/api/v1/organizations/acme/credentials/{}",
        all.things.username
    );
    let rotate = format!("POST {path}/rotate");
    all.served.admin(&rotate, None).expect(200);
    all.first.expect("NOOP", "250");
    let rotated = all
        .served
        .admin(&rotate, Some(json!({ "disconnect": true })));
    let credential = issued(&rotated.expect(200));
    for client in [&mut all.first, &mut all.second] {
        client.reply().expect(ENDED);
    }
    let mut kept = Client::logged_in(&all.served.daemon, &credential);
    all.served
        .admin(&format!("DELETE {path}"), None)
        .expect(204);
    kept.expect("NOOP", "250");
    all.served.log_in(&credential).expect("535 5.7.8");
    // Whose credential is gone can still be ended.
    let end = format!("DELETE /api/v1/sessions?credential={}", all.things.username);
    let ended = all.served.admin(&end, None).expect(200);
    assert_eq!(ended.body["disconnected"], 1);
    kept.reply().expect(ENDED);
    all.other.expect("NOOP", "250");
}

#[test]
fn an_organization_is_deleted_with_its_sessions_or_without() {
    let mut all = Connected::start();
    let gone = "DELETE /api/v1/organizations/acme?force=true";
    all.served.admin(gone, None).expect(204);
    all.served.log_in(&all.credential).expect("535 5.7.8");
    for client in [&mut all.first, &mut all.second, &mut all.other] {
        client.expect("NOOP", "250");
    }
    assert_eq!(all.recorded(), 0);
    // What is gone can still have its sessions ended.
    let end = "DELETE /api/v1/sessions?organization=acme";
    let ended = all.served.admin(end, None).expect(200);
    assert_eq!(ended.body["disconnected"], 2);
    for client in [&mut all.first, &mut all.second] {
        client.reply().expect(ENDED);
    }
    all.served.admin(end, None).problem(404, "not-found");

    all.served
        .daemon
        .succeed(&["organization", "create", "beta"]);
    let (_, mut live) = Things::in_organization(&all.served, "beta");
    let gone = "DELETE /api/v1/organizations/beta?force=true&disconnect=true";
    all.served.admin(gone, None).expect(204);
    live.reply().expect(ENDED);
    all.other.expect("NOOP", "250");
    assert_eq!(all.recorded(), 2);
}
