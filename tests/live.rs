//! Live sessions at the command line: seen, ended by themselves, and ended along with a change.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::{Client, Reply};
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::Upstream;

/// A daemon that the command line can ask.
struct Desk {
    daemon: Gatepost,
    _upstream: Upstream,
    _directory: TempDir,
}

impl Desk {
    fn start() -> Desk {
        let (upstream, directory) = (Upstream::start(), tempfile::tempdir().unwrap());
        let socket = directory.path().join("admin.sock");
        let config = Config::for_upstream(upstream.address);
        let config = config.text("admin", "socket", socket.to_str().unwrap());
        Desk {
            daemon: Gatepost::start(config),
            _upstream: upstream,
            _directory: directory,
        }
    }

    fn logged_in(&self) -> (Credential, Client) {
        let credential = self.daemon.create();
        let client = Client::logged_in(&self.daemon, &credential);
        (credential, client)
    }

    fn log_in(&self, credential: &Credential) -> Reply {
        let mut client = Client::submissions(&self.daemon);
        client.expect("EHLO live.example.test", "250");
        client.auth_plain(credential)
    }

    fn listed(&self, more: &[&str]) -> Vec<Value> {
        let listed = self.daemon.json(&[&["sessions", "list"], more].concat());
        listed.as_array().unwrap().clone()
    }
}

#[test]
fn live_sessions_are_listed_and_ended() {
    let desk = Desk::start();
    let none = desk.daemon.succeed(&["sessions", "list"]);
    assert_eq!(none, "Nobody is logged in.\n");
    let (first, mut one) = desk.logged_in();
    let (second, mut two) = desk.logged_in();
    let mut three = Client::logged_in(&desk.daemon, &second);
    let text = desk.daemon.succeed(&["sessions", "list"]);
    assert!(text.contains(&first.username) && text.contains("TLSv1.3"));
    assert_eq!(desk.listed(&[]).len(), 3);
    assert_eq!(desk.listed(&["--credential", &second.username]).len(), 2);
    assert_eq!(desk.listed(&["--org", "default"]).len(), 3);
    assert_eq!(desk.listed(&["--org", "acme"]).len(), 0);

    let of_first = desk.listed(&["--credential", &first.username]);
    let id = of_first[0]["id"].as_str().unwrap();
    desk.daemon.succeed(&["sessions", "disconnect", id]);
    one.reply().expect("421 4.7.0");
    two.expect("NOOP", "250");
    let again = desk.daemon.run(&["sessions", "disconnect", id]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains(id));

    let mistyped = ["sessions", "disconnect", "--credential", "smtp_nobody"];
    assert_eq!(desk.daemon.run(&mistyped).status.code(), Some(1));
    let mistyped = ["sessions", "disconnect", "--org", "nobody"];
    assert_eq!(desk.daemon.run(&mistyped).status.code(), Some(1));

    let by_username = ["sessions", "disconnect", "--credential", &second.username];
    assert_eq!(desk.daemon.json(&by_username), json!({ "disconnected": 2 }));
    two.reply().expect("421 4.7.0");
    three.reply().expect("421 4.7.0");
    let (_, mut four) = desk.logged_in();
    let by_organization = ["sessions", "disconnect", "--org", "default"];
    let said = desk.daemon.succeed(&by_organization);
    assert_eq!(said, "Ended 1 live session.\n");
    four.reply().expect("421 4.7.0");
    let actions = ["audit", "list", "--action", "session.disconnect"];
    assert_eq!(desk.daemon.json(&actions).as_array().unwrap().len(), 3);
}

#[test]
fn a_change_ends_sessions_if_asked_and_nobody_comes_back() {
    let desk = Desk::start();
    for change in ["revoke", "rotate", "delete"] {
        let (credential, mut client) = desk.logged_in();
        // The verdict is remembered now, and must not let anybody back in.
        let mut words = vec!["credential", change, &credential.username, "--disconnect"];
        if change == "delete" {
            words.push("--yes");
        }
        let said = desk.daemon.json(&words);
        assert_eq!(said["disconnected"], 1, "{change}");
        assert!(desk.log_in(&credential).starts_with("535"), "{change}");
        client.reply().expect("421 4.7.0");
    }
    let unused = desk.daemon.create();
    let delete = [
        "credential",
        "delete",
        &unused.username,
        "--yes",
        "--disconnect",
    ];
    assert_eq!(desk.daemon.json(&delete)["disconnected"], 0);
    let (credential, mut client) = desk.logged_in();
    let suspend = ["organization", "suspend", "default", "--disconnect"];
    let said = desk.daemon.succeed(&suspend);
    assert!(said.contains("Ended 1 live session."), "{said}");
    assert!(desk.log_in(&credential).starts_with("535"));
    client.reply().expect("421 4.7.0");
}

#[test]
fn a_change_is_told_although_nobody_ends_the_sessions() {
    let desk = Desk::start();
    let (credential, _client) = desk.logged_in();
    let site = desk.daemon.site();
    desk.daemon.kill();
    let rotate = ["credential", "rotate", &credential.username, "--disconnect"];
    let done = site.run(&rotate);
    assert_eq!(done.status.code(), Some(74));
    assert!(String::from_utf8_lossy(&done.stdout).contains("Password  sk_"));
    let error = String::from_utf8_lossy(&done.stderr);
    let next = format!(
        "gatepost sessions disconnect --credential {}",
        credential.username
    );
    for part in ["cannot reach Gatepost at", "admin.sock", &next] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn without_a_socket_nothing_is_changed_before_that_is_said() {
    let upstream = Upstream::start();
    let site = Arc::new(Site::new(Config::for_upstream(upstream.address)));
    let credential = site.create();
    let revoke = ["credential", "revoke", &credential.username];
    let refused = site.run(&[&revoke[..], &["--disconnect"]].concat());
    assert_eq!(refused.status.code(), Some(78));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("set socket in [admin]"), "{error}");
    let show = ["credential", "show", &credential.username];
    assert_eq!(site.json(&show)["status"], "active");
}

#[test]
fn a_revocation_counts_although_the_command_cannot_write_it() {
    let desk = Desk::start();
    let (credential, _client) = desk.logged_in();
    let store = rusqlite::Connection::open(desk.daemon.store()).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    let revoke = ["credential", "revoke", &credential.username];
    let done = desk.daemon.run(&revoke);
    let error = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(74), "{error}");
    assert!(error.contains("refused from now on"), "{error}");
    assert!(desk.log_in(&credential).starts_with("535"));
    store.execute_batch("ROLLBACK").unwrap();
    let show = ["credential", "show", &credential.username];
    crate::support::eventually("the revocation is written", || {
        (desk.daemon.json(&show)["status"] == "revoked").then_some(())
    });
}
