//! The commands as a person and as a program meet them.

use clap::Parser;
use serde_json::Value;

use super::*;
use crate::store::Noted;

const CHEAP: Cost = Cost {
    memory_kib: 8,
    iterations: 1,
    lanes: 1,
};

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: CredentialCommand,
}

struct Desk {
    store: Store,
    _directory: tempfile::TempDir,
}

impl Desk {
    fn new() -> Desk {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("gatepost.db")).unwrap();
        Desk {
            store,
            _directory: directory,
        }
    }

    fn says(&self, line: &[&str]) -> Result<String, CliError> {
        let line = Line::try_parse_from([&["credential"], line].concat()).unwrap();
        let running = Running::default();
        let actor = Actor::cli("tester");
        answer(line.command, &self.store, CHEAP, &actor, &running).map(|answer| answer.text)
    }

    fn json(&self, line: &[&str]) -> Value {
        serde_json::from_str(&self.says(&[line, &["--json"]].concat()).unwrap()).unwrap()
    }

    fn create(&self) -> String {
        self.json(&["create", "--name", "Printer"])["username"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

#[test]
fn create_and_rotate_tell_programs_all_they_need() {
    let desk = Desk::new();
    let made = desk.json(&["create", "--name", "Printer"]);
    let keys: Vec<_> = made
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "id",
        "username",
        "password",
        "organization",
        "name",
        "status",
        "created_at",
        "rotated_at",
        "revoked_at",
        "expires_at",
        "expired",
        "previous_until",
        "previous_used",
        "current_used",
        "limits",
        "rules",
        "last_used",
        "last_message",
    ];
    assert_eq!(keys.len(), expected.len());
    assert!(expected.iter().all(|key| keys.contains(key)), "{keys:?}");
    assert_eq!(
        (&made["organization"], &made["status"]),
        (&json!("default"), &json!("active"))
    );

    let username = made["username"].as_str().unwrap();
    let rotated = desk.json(&["rotate", username]);
    assert_eq!(rotated["id"], made["id"]);
    assert_ne!(rotated["password"], made["password"]);
    assert!(rotated["rotated_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(rotated["overlap"], "none");
}

#[test]
fn a_password_is_told_only_by_create_and_rotate() {
    let desk = Desk::new();
    let made = desk.says(&["create"]).unwrap();
    assert!(
        made.contains("sk_") && made.contains("shown only now"),
        "{made}"
    );
    let username = desk.create();
    assert!(desk.says(&["rotate", &username]).unwrap().contains("sk_"));
    for line in [&["list"][..], &["show", &username], &["revoke", &username]] {
        let json = desk.json(line).to_string();
        let text = desk.says(line).unwrap();
        for said in [json, text] {
            assert!(!said.contains("sk_") && !said.contains("argon2"), "{said}");
        }
    }
}

#[test]
fn a_credential_can_be_revoked_enabled_renamed_and_deleted() {
    let desk = Desk::new();
    let username = &desk.create();
    let revoked = desk.json(&["revoke", username]);
    assert_eq!(revoked["status"], "revoked");
    assert!(revoked["revoked_at"].is_string());
    assert!(
        desk.says(&["rotate", username])
            .unwrap()
            .contains("still revoked")
    );
    assert_eq!(desk.json(&["enable", username])["status"], "active");
    assert_eq!(
        desk.json(&["rename", username, "Scanner"])["name"],
        "Scanner"
    );
    assert_eq!(desk.json(&["rename", username, ""])["name"], Value::Null);
    assert_eq!(desk.json(&["delete", username, "--yes"])["deleted"], true);
    assert!(matches!(
        desk.says(&["show", username]),
        Err(CliError::Refused(_))
    ));
}

#[test]
fn revoking_says_what_it_means_for_sessions() {
    let desk = Desk::new();
    let said = desk.says(&["revoke", &desk.create()]).unwrap();
    assert!(
        said.contains("already authenticated go on; the next authentication"),
        "{said}"
    );
}

#[test]
fn the_list_tells_when_a_credential_was_last_used() {
    let desk = Desk::new();
    assert!(
        desk.says(&["list"])
            .unwrap()
            .starts_with("No credentials yet")
    );
    assert_eq!(desk.json(&["list"]), json!([]));
    let username = desk.create();
    assert!(desk.says(&["list"]).unwrap().contains("never"));

    let key = desk.store.lookup(&username).unwrap().unwrap().key;
    let used = LastUsed {
        at: crate::clock::now_ms() - 185_000,
        address: "192.0.2.7".into(),
        tls: Some("TLSv1.3".into()),
        mechanism: "PLAIN".into(),
        helo: "\u{1b}[31mprinter".into(),
        count: 5,
    };
    let noted = Noted {
        uses: vec![(key, used)],
        ..Noted::default()
    };
    desk.store.flush(&noted).unwrap();
    let list = desk.says(&["list"]).unwrap();
    assert!(
        list.contains("3 minutes ago") && list.contains("Printer"),
        "{list}"
    );
    let show = desk.says(&["show", &username]).unwrap();
    assert!(
        show.contains("192.0.2.7") && !show.contains('\u{1b}'),
        "{show}"
    );
    assert_eq!(desk.json(&["show", &username])["last_used"]["count"], 5);
}

#[test]
fn what_is_not_there_is_refused_with_the_next_step() {
    let desk = Desk::new();
    for verb in ["show", "rotate", "revoke", "enable", "delete"] {
        let error = desk.says(&[verb, "smtp_nobody"]).unwrap_err();
        assert!(matches!(error, CliError::Refused(_)));
        assert!(
            error.to_string().contains("gatepost credential list"),
            "{error}"
        );
    }
    assert!(matches!(
        desk.says(&["create", "--org", "acme"]),
        Err(CliError::Refused(_))
    ));
    assert!(matches!(
        desk.says(&["create", "--name", "a\nb"]),
        Err(CliError::Refused(_))
    ));
}

#[test]
fn a_deletion_is_confirmed_by_the_end_of_the_username() {
    assert_eq!(last_four("smtp_0123456789abcdef"), "cdef");
    assert_eq!(last_four("ü"), "ü");
}

#[test]
fn limits_and_rules_are_set_one_by_one_and_shown() {
    let desk = Desk::new();
    let username = desk.create();
    let set = [
        "limit",
        &username,
        "--messages-per-day",
        "500",
        "--message-size",
        "10MiB",
        "--sessions",
        "unlimited",
    ];
    let told = desk.says(&set).unwrap();
    assert!(
        told.contains("10485760") && told.contains("default"),
        "{told}"
    );
    let told = desk.json(&["limit", &username, "--message-size", "default"]);
    let limits = json!({ "messages_per_day": 500, "sessions": "unlimited" });
    assert_eq!(told["limits"], limits);
    let set = [
        "rules",
        &username,
        "--senders",
        "me@ok.test, ok.test",
        "--header-from",
        "yes",
        "--networks",
        "10.0.0.0/8,192.0.2.7",
        "--report",
        "senders,limits",
    ];
    let told = desk.json(&set);
    assert_eq!(told["rules"]["senders"], json!(["me@ok.test", "ok.test"]));
    assert_eq!(told["rules"]["report"], json!(["limits", "senders"]));
    let shown = desk.says(&["show", &username]).unwrap();
    assert!(
        shown.contains("messages_per_day 500, sessions unlimited"),
        "{shown}"
    );
    assert!(shown.contains("10.0.0.0/8, 192.0.2.7"), "{shown}");
    let error = desk.says(&["rules", &username, "--senders", "any"]);
    assert!(error.unwrap_err().to_string().contains("header_from"));
    for wrong in [
        ["limit", &username, "--sessions", "0"],
        ["limit", &username, "--message-size", "big"],
        ["rules", &username, "--senders", "a b"],
        ["rules", &username, "--report", "everything"],
        ["rules", &username, "--bare-newline", "keep"],
    ] {
        assert!(Line::try_parse_from([&["credential"], &wrong[..]].concat()).is_err());
    }
}

#[test]
fn a_name_with_blanks_around_is_shown_in_quotes() {
    let desk = Desk::new();
    let username = desk.create();
    desk.says(&["rename", &username, " Printer "]).unwrap();
    for command in [&["list"][..], &["show", &username]] {
        let text = desk.says(command).unwrap();
        assert!(text.contains("\" Printer \""), "{text}");
        assert!(!text.contains(&format!("\"{username}")), "{text}");
    }
    assert_eq!(desk.json(&["show", &username])["name"], " Printer ");
}

#[test]
fn an_expired_credential_is_never_called_active() {
    let desk = Desk::new();
    let username = desk.create();
    let shown = desk.json(&["show", &username]);
    assert_eq!(
        (&shown["status"], &shown["expired"]),
        (&"active".into(), &false.into())
    );
    let past = CredentialEdit {
        expires_at: Some(Some(1_000)),
        ..CredentialEdit::default()
    };
    let actor = Actor::cli("tester");
    let editor = desk.store.by(&actor);
    editor
        .edit_credential(username.as_str().into(), past)
        .unwrap();
    for command in [&["list"][..], &["show", &username]] {
        let text = desk.says(command).unwrap();
        assert!(
            text.contains("expired") && !text.contains("active"),
            "{text}"
        );
    }
    let text = desk.says(&["show", &username]).unwrap();
    assert!(
        text.contains("Expired        1970-01-01 00:00 UTC"),
        "{text}"
    );
    assert_eq!(desk.json(&["show", &username])["expired"], true);
}

#[test]
fn a_rotation_in_an_overlap_says_which_password_keeps_its_end() {
    let desk = Desk::new();
    let made = desk.json(&["create"]);
    let username = made["username"].as_str().unwrap();
    let began = desk.json(&["rotate", username, "--overlap", "2h"]);
    assert_eq!(began["overlap"], "began");
    let shown = desk.says(&["show", username]).unwrap();
    assert!(
        shown.contains("not used yet; a rotation with --overlap replaces it"),
        "{shown}"
    );
    let kept = desk.json(&["rotate", username, "--overlap", "7d"]);
    assert_eq!(
        (&kept["overlap"], &kept["replaced_used"]),
        (&json!("kept"), &json!(null))
    );
    assert_eq!(kept["previous_until"], began["previous_until"]);
    let told = desk
        .says(&["rotate", username, "--overlap", "30d"])
        .unwrap();
    assert!(
        told.contains("An overlap ran already, and its end stays"),
        "{told}"
    );
    assert!(told.contains("no client had used it"), "{told}");
    let ended = desk.json(&["rotate", username, "--overlap", "none"]);
    assert_eq!(ended["overlap"], "none");
    assert!(ended["previous_until"].is_null());
}

#[test]
fn all_of_a_filter_is_revoked_after_a_look_at_it() {
    let desk = Desk::new();
    let [one, two] = [desk.create(), desk.create()];
    desk.says(&["rename", &two, "Scanner"]).unwrap();
    let text = desk
        .says(&["revoke", "--search", "print", "--dry-run"])
        .unwrap();
    assert!(text.contains(&one) && !text.contains(&two), "{text}");
    assert!(
        text.ends_with("Would revoke 1 credential. Nothing is changed."),
        "{text}"
    );
    let status = |username: &str| desk.json(&["show", username])["status"].clone();
    assert_eq!(status(&one), "active");

    let text = desk.says(&["revoke", "--search", "print"]).unwrap();
    assert!(
        text.contains(&one) && text.ends_with("Revoked 1 credential."),
        "{text}"
    );
    assert_eq!(
        (status(&one), status(&two)),
        ("revoked".into(), "active".into())
    );
    let done = desk.json(&["revoke", "--unused-since", "0s"]);
    assert_eq!((&done["selected"], &done["done"]), (&1.into(), &1.into()));
    assert_eq!(done["usernames"], serde_json::json!([two]));
    let none = desk.json(&["revoke", "--unused-since", "90d"]);
    assert_eq!((&none["selected"], &none["done"]), (&0.into(), &0.into()));

    let done = desk.json(&["enable", "--status", "revoked"]);
    assert_eq!(done["done"], 2);
    let text = desk
        .says(&["expire", "2099-01-01", "--org", "default"])
        .unwrap();
    assert!(text.ends_with("Set the expiry of 2 credentials."), "{text}");
    assert!(desk.json(&["show", &one])["expires_at"].is_string());
    assert_eq!(
        desk.json(&["expire", "never", "--search", "scan"])["done"],
        1
    );
    assert!(desk.json(&["show", &two])["expires_at"].is_null());
    // The expiry of one is asked for as before.
    desk.says(&["expire", &two, "2099-01-01"]).unwrap();

    let refused = desk.says(&["delete", "--org", "default"]).unwrap_err();
    assert!(
        refused.to_string().contains("deletes 2 credentials"),
        "{refused}"
    );
    assert_eq!(
        desk.json(&["delete", "--org", "default", "--dry-run"])["selected"],
        2
    );
    assert_eq!(
        desk.json(&["delete", "--org", "default", "--yes"])["done"],
        2
    );
    let log = desk
        .store
        .audit(crate::store::AuditFilter::default(), Page::ALL);
    let deleted = |record: &&crate::store::AuditRecord| record.action == "credential.delete";
    assert_eq!(log.unwrap().rows.iter().filter(deleted).count(), 2);
}

#[test]
fn a_username_and_a_filter_are_not_mixed() {
    for line in [
        &["revoke"][..],
        &["delete", "--yes"],
        &["revoke", "smtp_a", "--unused-since", "90d"],
        &["revoke", "smtp_a", "--dry-run"],
        &["enable", "--dry-run"],
        &["expire", "2099-01-01"],
        &["revoke", "--unused-since", "soon"],
    ] {
        assert!(
            Line::try_parse_from([&["credential"], line].concat()).is_err(),
            "{line:?}"
        );
    }
}
