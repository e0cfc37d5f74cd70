//! The command line as an administrator uses it beside a running daemon: overlaps, expiry, suspension, the audit log, and
//! copies of the store.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gatepost::Gatepost;
use crate::support::refused_soon;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::Upstream;

fn log_in(site: &Site, credential: &Credential) -> crate::support::client::Reply {
    let mut client = Client::submissions(site);
    client.expect("EHLO admin.example.test", "250");
    client.auth_plain(credential)
}

fn accepted(site: &Site, credential: &Credential) -> bool {
    log_in(site, credential).starts_with("235")
}

#[test]
fn during_an_overlap_both_passwords_log_in_and_afterwards_only_the_new_one() {
    let upstream = Upstream::start();
    let daemon = Gatepost::start(Config::for_upstream(upstream.address));
    let old = daemon.create();
    assert!(accepted(&daemon, &old));
    let document = daemon.succeed(&[
        "credential",
        "rotate",
        &old.username,
        "--overlap",
        "1h",
        "--json",
    ]);
    let new = Credential::from_json(document.as_bytes());
    daemon.remember(&new);
    eventually("the new password is right", || {
        accepted(&daemon, &new).then_some(())
    });
    assert!(accepted(&daemon, &old) && accepted(&daemon, &new) && accepted(&daemon, &old));
    assert!(!daemon.json(&["credential", "show", &old.username])["previous_until"].is_null());

    let ended = daemon.json(&["credential", "end-overlap", &old.username]);
    assert!(ended["previous_until"].is_null());
    refused_soon(|| log_in(&daemon, &old));
    assert!(accepted(&daemon, &new));
}

#[test]
fn commands_know_of_uses_of_a_new_password_that_wait_to_be_written() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("admin.sock").display().to_string();
    let config = Config::for_upstream(upstream.address)
        .text("admin", "socket", &socket)
        .text("last_used", "flush_interval", "1h");
    let daemon = Gatepost::start(config);
    let old = daemon.create();
    let rotate = ["credential", "rotate", &old.username, "--overlap", "7d"];
    let document = daemon.json(&rotate);
    let new = Credential::from_json(document.to_string().as_bytes());
    assert!(accepted(&daemon, &new));
    let shown = daemon.succeed(&["credential", "show", &old.username]);
    assert!(shown.contains("used once, last "), "{shown}");
    let said = daemon.succeed(&rotate);
    assert!(said.contains("it was used once, last "), "{said}");
    assert!(!said.contains("no client had used it"), "{said}");
    let said = daemon.succeed(&rotate);
    assert!(said.contains("no client had used it"), "{said}");
}

#[test]
fn expiry_and_suspension_bite_at_once_and_can_be_taken_back() {
    let upstream = Upstream::start();
    let daemon = Gatepost::start(Config::for_upstream(upstream.address));
    let credential = daemon.create();
    assert!(accepted(&daemon, &credential));
    daemon.succeed(&["organization", "suspend", "default"]);
    refused_soon(|| log_in(&daemon, &credential));
    daemon.succeed(&["organization", "activate", "default"]);
    eventually("it is accepted again", || {
        accepted(&daemon, &credential).then_some(())
    });

    let shown = daemon.json(&["credential", "expire", &credential.username, "2999-12-31"]);
    assert_eq!(shown["expires_at"], "2999-12-31T00:00:00.000Z");
    let over = daemon.run(&["credential", "expire", &credential.username, "2001-01-01"]);
    assert_eq!(over.status.code(), Some(2), "{over:?}");
    daemon.sql(
        "UPDATE credentials SET expires_at = 1 WHERE username = ?1",
        &credential.username,
    );
    refused_soon(|| log_in(&daemon, &credential));
    daemon.succeed(&["credential", "expire", &credential.username, "never"]);
    eventually("it is accepted again", || {
        accepted(&daemon, &credential).then_some(())
    });
}

#[test]
fn an_organization_is_deleted_with_its_credentials_only_by_force() {
    let upstream = Upstream::start();
    let daemon = Gatepost::start(Config::for_upstream(upstream.address));
    daemon.succeed(&["organization", "create", "acme"]);
    let document = daemon.succeed(&["credential", "create", "--org", "acme", "--json"]);
    let credential = Credential::from_json(document.as_bytes());
    daemon.remember(&credential);
    eventually("it is accepted", || {
        accepted(&daemon, &credential).then_some(())
    });
    let refused = daemon.run(&["organization", "delete", "acme", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    daemon.succeed(&["organization", "delete", "acme", "--yes", "--force"]);
    refused_soon(|| log_in(&daemon, &credential));
}

#[test]
fn the_list_is_narrowed() {
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    let printer = site.json(&["credential", "create", "--name", "Printer"]);
    site.json(&["credential", "create", "--name", "Scanner"]);
    let username = printer["username"].as_str().unwrap();
    site.succeed(&["credential", "revoke", username]);
    for filter in [["--search", "PRINT"], ["--status", "revoked"]] {
        let list = site.json(&[&["credential", "list"], &filter[..]].concat());
        assert_eq!(list.as_array().unwrap().len(), 1, "{filter:?}");
        assert_eq!(list[0]["username"], username);
    }
    let unused = site.json(&["credential", "list", "--unused-since", "2999-01-01"]);
    assert_eq!(unused.as_array().unwrap().len(), 2);
    let unused = site.json(&["credential", "list", "--unused-since", "2001-01-01"]);
    assert_eq!(unused, json!([]));
}

#[test]
fn names_in_any_script_are_stored_composed_and_found_in_any_case() {
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    for name in ["Принтер Офис", "e\u{301}tage", "Hauptstraße"] {
        site.json(&["credential", "create", "--name", name]);
    }
    for (wanted, name) in [
        ("принтер", "Принтер Офис"),
        ("ÉTAGE", "étage"),
        ("E\u{301}TAGE", "étage"),
        ("etage", "étage"),
        ("STRASSE", "Hauptstraße"),
    ] {
        let list = site.json(&["credential", "list", "--search", wanted]);
        assert_eq!(list.as_array().unwrap().len(), 1, "{wanted}: {list}");
        assert_eq!(list[0]["name"], name, "{wanted}");
    }
}

#[test]
fn every_change_is_in_the_audit_log_and_tampering_shows() {
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    let credential = site.create();
    site.rotate(&credential);
    site.succeed(&["credential", "revoke", &credential.username]);
    let log = site.json(&["audit", "list"]);
    let told: Vec<_> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|record| &record["action"])
        .collect();
    assert_eq!(
        told,
        [
            "credential.revoke",
            "credential.rotate",
            "credential.create"
        ]
    );
    assert_eq!(log[0]["after"], json!({ "status": "revoked" }));
    assert_eq!(log[0]["actor"]["kind"], "cli");
    assert_eq!(site.json(&["audit", "verify"])["records"], 3);

    assert_eq!(
        site.json(&["audit", "prune", "--before", "2999-01-01", "--yes"])["removed"],
        3
    );
    assert_eq!(site.json(&["audit", "verify"])["pruned_through"], 3);
    assert_eq!(site.json(&["audit", "list"])[0]["action"], "audit.prune");

    let connection = rusqlite::Connection::open(site.store()).unwrap();
    let tamper = "UPDATE audit_log SET actor = 'nobody'";
    assert!(connection.execute(tamper, []).is_err());
    connection
        .execute_batch(&format!("DROP TRIGGER audit_log_is_not_changed; {tamper}"))
        .unwrap();
    let broken = site.run(&["audit", "verify"]);
    assert_eq!(broken.status.code(), Some(74), "{broken:?}");
    let words = String::from_utf8_lossy(&broken.stderr);
    assert!(words.contains("broken at record 4"), "{words}");
}

#[test]
fn a_kept_head_names_the_record_that_is_gone() {
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    for _ in 0..8 {
        site.create();
    }
    let verified = site.json(&["audit", "verify"]);
    let kept = verified["expect"].as_str().expect("a head").to_owned();
    let newest = &site.json(&["audit", "list"])[0];
    let shown = format!("{}:{}", newest["seq"], newest["hash"].as_str().unwrap());
    assert_eq!(kept, shown);
    assert!(site.succeed(&["audit", "verify"]).contains(&kept));
    site.succeed(&["audit", "verify", "--expect", &kept]);

    // A program that knows all about it leaves no trace within the store.
    let connection = rusqlite::Connection::open(site.store()).unwrap();
    let sql = "SELECT sql FROM sqlite_schema WHERE name = 'audit_log_is_not_shortened'";
    let trigger: String = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    connection
        .execute_batch(&format!(
            "DROP TRIGGER audit_log_is_not_shortened; DELETE FROM audit_log WHERE seq > 3;
             UPDATE sqlite_sequence SET seq = 3 WHERE name = 'audit_log'; {trigger}"
        ))
        .unwrap();
    site.succeed(&["audit", "verify"]);
    let compared = site.run(&["audit", "verify", "--expect", &kept]);
    assert_eq!(compared.status.code(), Some(74), "{compared:?}");
    let words = String::from_utf8_lossy(&compared.stderr);
    assert!(
        words.contains("at record 8") && words.contains("ends at record 3"),
        "{words}"
    );

    // One that does not leaves a gap, or a log without its guard.
    connection
        .execute_batch(
            "DROP TRIGGER audit_log_is_not_shortened; DELETE FROM audit_log WHERE seq > 2",
        )
        .unwrap();
    site.create();
    let broken = site.run(&["audit", "verify"]);
    let words = String::from_utf8_lossy(&broken.stderr);
    assert!(words.contains("broken at record 3"), "{words}");
    let intact = Site::new(Config::for_upstream("127.0.0.1:1"));
    intact.create();
    let connection = rusqlite::Connection::open(intact.store()).unwrap();
    connection
        .execute_batch("DROP TRIGGER audit_log_is_not_changed")
        .unwrap();
    for command in [["audit", "verify"], ["store", "check"]] {
        let unguarded = intact.run(&command);
        assert_eq!(unguarded.status.code(), Some(74), "{unguarded:?}");
        let words = String::from_utf8_lossy(&unguarded.stderr);
        assert!(
            words.contains("audit_log_is_not_changed is missing"),
            "{words}"
        );
    }
    let wrong = intact.run(&["audit", "verify", "--expect", "newest"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

#[test]
fn a_backup_touches_no_file_but_its_own() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    site.create();
    let (precious, file) = (site.path("precious"), site.path("backup.db"));
    std::fs::write(&precious, "mine").unwrap();
    std::fs::write(site.path("backup.db.new"), "mine too").unwrap();
    let argument = file.to_str().unwrap();
    let entries = || {
        let entries = std::fs::read_dir(site.path("")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    symlink(site.path("nowhere"), &file).unwrap();
    let before = entries();
    let refused = site.run(&["backup", argument]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(entries(), before, "nothing is left behind");
    std::fs::remove_file(&file).unwrap();
    std::fs::remove_file(site.path("backup.db.new")).unwrap();
    symlink(&precious, site.path("backup.db.new")).unwrap();
    site.succeed(&["backup", argument]);
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!std::fs::symlink_metadata(&file).unwrap().is_symlink());
}

#[test]
fn a_backup_is_made_beside_the_daemon_and_restored_without_it() {
    let upstream = Upstream::start();
    let site = Arc::new(Site::new(Config::for_upstream(upstream.address)));
    let daemon = Gatepost::serve(&site);
    let before = site.create();
    let file = site.path("backup.db");
    let file = file.to_str().unwrap();
    let said = site.succeed(&["backup", file]);
    assert!(
        said.contains("sound") && said.contains("1 credential"),
        "{said}"
    );
    assert_eq!(
        site.run(&["backup", file]).status.code(),
        Some(1),
        "never written over"
    );
    let after = site.create();
    assert!(accepted(&site, &before) && accepted(&site, &after));

    let in_use = site.run(&["restore", file, "--yes"]);
    assert_eq!(in_use.status.code(), Some(1), "{in_use:?}");
    assert!(
        String::from_utf8_lossy(&in_use.stderr).contains("stop Gatepost"),
        "{in_use:?}"
    );
    daemon.kill();
    site.succeed(&["restore", file, "--yes"]);
    let checked = site.succeed(&["store", "check"]);
    assert!(
        checked.contains("sound") && checked.contains("unbroken"),
        "{checked}"
    );
    let _daemon = Gatepost::serve(&site);
    assert!(accepted(&site, &before));
    assert!(log_in(&site, &after).starts_with("535"));
}

#[test]
fn what_a_session_sends_is_the_usage_of_its_credential() {
    let upstream = Upstream::start();
    let config =
        Config::for_upstream(upstream.address).text("last_used", "flush_interval", "100ms");
    let daemon = Gatepost::start(config);
    let credential = daemon.create();
    log_in(&daemon, &credential.with_wrong_password());
    let mut client = Client::logged_in(&daemon, &credential);
    for _ in 0..2 {
        client.send_message(b"Subject: usage\r\n\r\nHello\r\n");
    }
    drop(client);
    let sums = || -> Option<(i64, i64, i64, i64)> {
        let connection = rusqlite::Connection::open(daemon.store()).unwrap();
        let sql = "SELECT sum(messages), sum(recipients), sum(accepted), sum(refused) FROM usage";
        let read = |row: &rusqlite::Row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        connection.query_row(sql, [], read).ok()
    };
    eventually("the usage is written", || {
        sums().filter(|sums| *sums == (2, 2, 1, 1))
    });
}

/// A user of this machine who may read the configuration, but may not enter the store's directory.
struct Member {
    directory: tempfile::TempDir,
}

impl Member {
    /// Serves with an admin socket in the user's reach.
    fn beside(upstream: &Upstream) -> (Gatepost, Member) {
        let directory = tempfile::tempdir().expect("tempdir");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("chmod");
        let member = Member { directory };
        let socket = member.path("admin.sock").display().to_string();
        let config = Config::for_upstream(upstream.address).text("admin", "socket", &socket);
        let daemon = Gatepost::start(config);
        fs::copy(daemon.config(), member.path("config.toml")).expect("copy");
        member.allow("config.toml", 0o644);
        // The target directory may be one that only its owner enters.
        let program = member.path("gatepost");
        if fs::hard_link(env!("CARGO_BIN_EXE_gatepost"), &program).is_err() {
            fs::copy(env!("CARGO_BIN_EXE_gatepost"), &program).expect("copy");
        }
        member.allow("admin.sock", 0o666);
        (daemon, member)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn allow(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).expect("chmod");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(self.path("gatepost"))
            .arg("--config")
            .arg(self.path("config.toml"))
            .args(arguments)
            .uid(65_534)
            .gid(65_534)
            .output()
            .expect("run gatepost")
    }

    fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.says(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).expect("JSON")
    }

    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(74), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    }
}

#[test]
fn a_user_who_may_not_open_the_store_manages_credentials_over_the_admin_socket() {
    let upstream = Upstream::start();
    let (daemon, member) = Member::beside(&upstream);
    let made = member.says(&["credential", "create", "--name", "printer", "--json"]);
    let credential = Credential::from_json(made.as_bytes());
    let username = &*credential.username;
    assert!(accepted(&daemon, &credential));
    let listed = member.says(&["credential", "list", "--search", "printer"]);
    assert!(
        listed.contains(username) && listed.contains("never"),
        "{listed}"
    );
    let id = |document: Value| document["id"].clone();
    let show = ["credential", "show", username];
    assert_eq!(id(member.json(&show)), id(daemon.json(&show)));
    assert!(member.says(&show).contains("organization"));

    let rotate = [
        "credential",
        "rotate",
        username,
        "--overlap",
        "1h",
        "--json",
    ];
    let new = Credential::from_json(member.says(&rotate).as_bytes());
    assert!(accepted(&daemon, &new) && accepted(&daemon, &credential));
    member.says(&["credential", "end-overlap", username]);
    assert!(!accepted(&daemon, &credential));
    member.says(&["credential", "revoke", username, "--disconnect"]);
    assert!(!accepted(&daemon, &new));
    member.says(&["credential", "enable", username]);
    assert!(accepted(&daemon, &new));
    let expiry = member.json(&["credential", "expire", username, "2999-12-31"]);
    assert_eq!(expiry["expires_at"], "2999-12-31T00:00:00.000Z");
    let active = [
        "credential",
        "list",
        "--status",
        "active",
        "--unused-since",
        "2999-01-01",
    ];
    assert_eq!(member.json(&active).as_array().map(Vec::len), Some(1));
    assert_eq!(
        member.json(&["credential", "rename", username, "fax"])["name"],
        "fax"
    );
    assert!(member.says(&["sessions", "list"]).contains("logged in"));
    let deleted = member.json(&["credential", "delete", username, "--yes"]);
    assert_eq!(deleted["deleted"], true);
    assert_eq!(daemon.json(&["credential", "list"]), json!([]));
    let audit = daemon.json(&["audit", "list"]);
    assert!(audit.to_string().contains("65534"), "{audit}");
}

#[test]
fn a_user_who_may_not_open_the_store_manages_organizations_and_tokens() {
    let upstream = Upstream::start();
    let (daemon, member) = Member::beside(&upstream);
    member.says(&["organization", "create", "acme", "--name", "Acme"]);
    let credential = ["credential", "create", "--org", "acme", "--json"];
    let credential = Credential::from_json(member.says(&credential).as_bytes());
    assert!(
        member
            .says(&["credential", "list"])
            .contains(&credential.username)
    );
    member.says(&["organization", "suspend", "acme"]);
    assert!(!accepted(&daemon, &credential));
    member.says(&["organization", "activate", "acme"]);
    assert!(accepted(&daemon, &credential));
    member.says(&["organization", "rename", "acme", "Acme Ltd."]);
    assert!(member.says(&["organization", "list"]).contains("Acme Ltd."));
    let unforced = member.run(&["organization", "delete", "acme", "--yes"]);
    assert_eq!(
        unforced.status.code(),
        daemon
            .run(&["organization", "delete", "acme", "--yes"])
            .status
            .code()
    );
    member.says(&["organization", "delete", "acme", "--yes", "--force"]);

    let create = [
        "token",
        "create",
        "--name",
        "ci",
        "--scope",
        "instance:read",
    ];
    assert!(member.says(&create).contains("gp_"));
    assert!(member.says(&["token", "list"]).contains("instance:read"));
    member.says(&["token", "revoke", "ci"]);
    assert!(!daemon.json(&["token", "list"])[0]["revoked_at"].is_null());
}

#[test]
fn a_user_who_may_open_neither_store_nor_socket_is_told_the_ways_to_either() {
    let upstream = Upstream::start();
    let (_daemon, member) = Member::beside(&upstream);
    for needs_store in [
        &["credential", "limit", "smtp_x", "--messages-per-day", "1"][..],
        &["organization", "limit", "default"],
        &["credential", "revoke", "--unused-since", "90d"],
    ] {
        let said = member.fails(needs_store);
        assert!(said.contains("run it with sudo"), "{said}");
    }
    member.allow("admin.sock", 0o600);
    for command in [
        &["credential", "list"][..],
        &["organization", "list"],
        &["token", "list"],
    ] {
        let said = member.fails(command);
        for part in ["permission denied", "admin.sock", "sudo", "gatepost-admin"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
