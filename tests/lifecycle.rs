//! The life of a credential from the command line, and what the running daemon makes of it.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::client::{Client, Reply};
use crate::support::gatepost::Gatepost;
use crate::support::refused_soon;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::Upstream;

/// A site whose daemon never runs: the command line needs none.
fn idle_site() -> Site {
    Site::new(Config::for_upstream("127.0.0.1:1"))
}

fn attempt(site: &Site, credential: &Credential) -> Reply {
    let mut client = Client::submissions(site);
    client.expect("EHLO client.example", "250");
    client.auth_plain(credential)
}

fn status_of(site: &Site, credential: &Credential) -> Value {
    site.json(&["credential", "show", &credential.username])["status"].clone()
}

#[test]
fn create_prints_one_document_with_a_well_formed_credential() {
    let site = idle_site();
    let created = site.json(&["credential", "create", "--name", "printer in the hall"]);
    let text = |key: &str| {
        created[key]
            .as_str()
            .unwrap_or_else(|| panic!("{key}: {created}"))
    };
    let alphanumeric = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let username = text("username").strip_prefix("smtp_").expect("smtp_");
    let password = text("password").strip_prefix("sk_").expect("sk_");
    assert!(username.len() == 16 && alphanumeric(username), "{username}");
    assert!(password.len() == 32 && alphanumeric(password), "{password}");
    assert_eq!(text("organization"), "default");
    assert_eq!(text("name"), "printer in the hall");
    assert_eq!(text("status"), "active");
    assert!(!text("id").is_empty());
    assert!(!created["created_at"].is_null());
}

#[test]
fn a_password_is_shown_once_and_stored_nowhere() {
    let site = idle_site();
    let credential = site.create();
    for arguments in [
        &["credential", "list"][..],
        &["credential", "list", "--json"],
        &["credential", "show", &credential.username],
        &["credential", "show", &credential.username, "--json"],
    ] {
        let stdout = site.succeed(arguments);
        assert!(
            stdout.contains(&credential.username),
            "{arguments:?}: {stdout}"
        );
        site.secrets
            .assert_none_in(&arguments.join(" "), stdout.as_bytes());
    }
    site.secrets.assert_kept(site.path("").as_path());
}

#[test]
fn show_follows_revoke_enable_and_rename() {
    let site = idle_site();
    let credential = site.create();
    assert_eq!(status_of(&site, &credential), "active");
    site.succeed(&["credential", "revoke", &credential.username]);
    assert_eq!(status_of(&site, &credential), "revoked");
    site.succeed(&["credential", "enable", &credential.username]);
    assert_eq!(status_of(&site, &credential), "active");
    site.succeed(&["credential", "rename", &credential.username, "scanner"]);
    assert_eq!(
        site.json(&["credential", "show", &credential.username])["name"],
        "scanner"
    );
}

#[test]
fn delete_wants_a_yes_and_is_for_ever() {
    let site = idle_site();
    let credential = site.create();
    // Nobody is there to ask: stdin is empty.
    let unasked = site.run(&["credential", "delete", &credential.username]);
    assert_eq!(unasked.status.code(), Some(1), "{unasked:?}");
    assert_eq!(status_of(&site, &credential), "active");
    site.succeed(&["credential", "delete", &credential.username, "--yes"]);
    let gone = site.run(&["credential", "show", &credential.username]);
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
}

#[test]
fn exit_codes_tell_not_found_from_wrong_usage() {
    let site = idle_site();
    let nobody = "smtp_0000000000000000";
    for arguments in [
        &["credential", "show", nobody][..],
        &["credential", "rotate", nobody],
        &["credential", "revoke", nobody],
        &["credential", "enable", nobody],
        &["credential", "rename", nobody, "name"],
        &["credential", "delete", nobody, "--yes"],
        &["credential", "create", "--org", "unheard-of"],
        &["organization", "delete", "unheard-of"],
    ] {
        let output = site.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?} says nothing");
    }
    for arguments in [
        &["credential", "explode"][..],
        &["credential", "show"],
        &["serve", "--x"],
    ] {
        let output = site.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
}

#[test]
fn organizations_hold_credentials() {
    let site = idle_site();
    site.succeed(&["organization", "create", "acme"]);
    let again = site.run(&["organization", "create", "acme"]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    let created = site.json(&["credential", "create", "--org", "acme"]);
    assert_eq!(created["organization"], "acme");
    let list = site.json(&["organization", "list"]).to_string();
    assert!(
        list.contains("\"acme\"") && list.contains("\"default\""),
        "{list}"
    );
}

#[test]
fn a_credential_made_while_the_daemon_runs_logs_in_at_once() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let credential = gatepost.create();
    attempt(&gatepost, &credential).expect("235 2.7.0");
}

#[test]
fn rotate_ends_the_old_password_and_begins_the_new() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let old = gatepost.create();
    attempt(&gatepost, &old).expect("235");
    let new = gatepost.rotate(&old);
    assert_eq!(new.username, old.username);
    assert_ne!(new.password, old.password);
    refused_soon(|| attempt(&gatepost, &old));
    attempt(&gatepost, &new).expect("235 2.7.0");
}

#[test]
fn revoke_and_delete_by_command_bite_at_once() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let credential = gatepost.create();
    // Cached by now: the cache must not outlive the change.
    attempt(&gatepost, &credential).expect("235");
    gatepost.succeed(&["credential", "revoke", &credential.username]);
    refused_soon(|| attempt(&gatepost, &credential));
    gatepost.succeed(&["credential", "enable", &credential.username]);
    // Nothing is promised about how soon, but the daemon must not stay at its refusal.
    crate::support::within(Duration::from_secs(1), "enabled again", || {
        attempt(&gatepost, &credential)
            .starts_with("235")
            .then_some(())
    });
    gatepost.succeed(&["credential", "delete", &credential.username, "--yes"]);
    refused_soon(|| attempt(&gatepost, &credential));
}

#[test]
fn a_change_by_another_process_bites_at_once() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    for statement in [
        "UPDATE credentials SET status = 'revoked' WHERE username = ?1",
        "DELETE FROM credentials WHERE username = ?1",
    ] {
        let credential = gatepost.create();
        attempt(&gatepost, &credential).expect("235");
        gatepost.sql(statement, &credential.username);
        refused_soon(|| attempt(&gatepost, &credential));
    }
}

#[test]
fn a_change_by_the_sqlite3_program_bites_at_once() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let credential = gatepost.create();
    attempt(&gatepost, &credential).expect("235");
    let username = &credential.username;
    let statement =
        format!("UPDATE credentials SET status = 'revoked' WHERE username = '{username}'");
    let mut sqlite = Command::new("sqlite3");
    let output = sqlite
        .args(["-cmd", ".timeout 5000"])
        .arg(gatepost.store())
        .arg(statement);
    let output = output.output().expect("run sqlite3");
    assert!(output.status.success(), "{output:?}");
    refused_soon(|| attempt(&gatepost, &credential));
}

#[test]
fn a_revoked_credential_keeps_the_session_it_has() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let credential = gatepost.create();
    let mut client = Client::logged_in(&gatepost, &credential);
    gatepost.succeed(&["credential", "revoke", &credential.username]);
    refused_soon(|| attempt(&gatepost, &credential));
    client
        .send_message(b"Subject: still here\r\n\r\nhello\r\n")
        .expect("250");
}

#[test]
fn a_login_shows_as_last_used() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address);
    let gatepost = Gatepost::start(config.text("last_used", "flush_interval", "100ms"));
    let credential = gatepost.create();
    let show = || gatepost.json(&["credential", "show", &credential.username]);
    assert!(show()["last_used"].is_null(), "{}", show());
    attempt(&gatepost, &credential).expect("235");
    crate::support::within(Duration::from_secs(2), "last used is flushed", || {
        (!show()["last_used"].is_null()).then_some(())
    });
}
