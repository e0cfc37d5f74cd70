//! Credentials that leave, and come back elsewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::support::client::{Client, Reply};
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::Upstream;

fn log_in(site: &Site, credential: &Credential) -> Reply {
    let mut client = Client::submissions(site);
    client.expect("EHLO export.example.test", "250");
    client.auth_plain(credential)
}

/// A credential with a generated password and one with a chosen one, both with odd text.
fn filled(site: &Site) -> Vec<Credential> {
    let create = ["credential", "create", "--name", "=HYPERLINK(\"x\"),1"];
    let made = site.json(&[&create[..], &["--expires", "2999-01-01"]].concat());
    let path = site.path("store").join("passwd");
    let lines = "+49 30,1;2:{PLAIN}hunter2:::'quoted,,,\nrevoked:{PLAIN}hunter2\n";
    fs::write(&path, lines).unwrap();
    site.succeed(&["import", "--format", "dovecot", path.to_str().unwrap()]);
    site.succeed(&["credential", "revoke", "revoked"]);
    let chosen = Credential {
        username: "+49 30,1;2".to_owned(),
        password: "hunter2".to_owned(),
    };
    let generated = Credential::from_json(made.to_string().as_bytes());
    vec![generated, chosen]
}

fn reasons(report: &Value) -> Vec<&str> {
    let left = report["left"].as_array().unwrap().iter();
    left.map(|left| left["reason"].as_str().unwrap()).collect()
}

#[test]
fn an_export_has_no_hashes_unless_asked_and_no_formula() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let credentials = filled(&gatepost);
    gatepost.succeed(&["organization", "create", "acme"]);
    gatepost.succeed(&[
        "credential",
        "create",
        "--org",
        "acme",
        "--name",
        "Elsewhere",
    ]);
    let csv = gatepost.succeed(&["export", "--format", "csv"]);
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(
        lines[0],
        "username,name,expires,organization,status,created,last_used,last_used_from,uses"
    );
    assert_eq!(lines.len(), 5, "{csv}");
    let begin = format!(
        "{},\"'=HYPERLINK(\"\"x\"\"),1\",2999-01-01T00:00:00.000Z,default,active,",
        credentials[0].username
    );
    assert!(lines[1].starts_with(&begin), "{csv}");
    assert!(
        lines[2].starts_with("\"'+49 30,1;2\",''quoted,,default,active,"),
        "{csv}"
    );
    assert!(lines[3].starts_with("revoked,,,default,revoked,"), "{csv}");
    let own = gatepost.succeed(&["export", "--format", "csv", "--org", "acme"]);
    assert!(
        own.lines().count() == 2 && own.contains("Elsewhere"),
        "{own}"
    );
    let output = gatepost.succeed(&["export", "--format", "json"]);
    let document: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(document.as_array().unwrap().len(), 4);
    assert_eq!(document[1]["username"], "+49 30,1;2");
    assert_eq!(document[1]["name"], "'quoted");
    assert_eq!(document[1]["uses"], 0);
    for text in [&csv, &own, &output] {
        assert!(
            !text.contains("password") && !text.contains("argon2"),
            "{text}"
        );
    }
    for wrong in [
        &["export", "--format", "csv", "--with-hashes"][..],
        &["export", "--format", "csv", "--org", "nowhere"],
    ] {
        assert!(!gatepost.run(wrong).status.success(), "{wrong:?}");
    }
}

#[test]
fn an_export_with_hashes_is_private_and_its_passwords_log_in_elsewhere() {
    let upstream = Upstream::start();
    let from = Gatepost::start(Config::for_upstream(upstream.address));
    let credentials = filled(&from);
    for format in ["csv", "json"] {
        let path = from.path("store").join(format!("export.{format}"));
        let path = path.to_str().unwrap();
        let export = [
            "export",
            "--format",
            format,
            "--with-hashes",
            "--output",
            path,
        ];
        let said = from.succeed(&export);
        assert!(said.starts_with("Wrote 3 credential(s) to "), "{said}");
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = from.run(&export);
        let error = String::from_utf8(again.stderr).unwrap();
        assert_eq!(again.status.code(), Some(1), "{error}");
        assert!(error.contains("already exists"), "{error}");

        let to = Gatepost::start(Config::for_upstream(upstream.address));
        let report = to.json(&["import", "--format", format, path]);
        assert_eq!(report["taken"].as_array().unwrap().len(), 2, "{report}");
        assert_eq!(
            reasons(&report),
            ["it is revoked, and would be active here"]
        );
        for credential in &credentials {
            log_in(&to, credential).expect("235");
        }
        let made = to.json(&["credential", "show", &credentials[0].username]);
        assert_eq!(made["name"], "=HYPERLINK(\"x\"),1");
        assert_eq!(made["expires_at"], "2999-01-01T00:00:00.000Z");
        let made = to.json(&["credential", "show", "+49 30,1;2"]);
        assert_eq!(made["name"], "'quoted");

        to.succeed(&["organization", "create", "acme"]);
        let import = ["import", "--format", format, "--org", "acme", path];
        let report = to.json(&import);
        assert_eq!(report["taken"], json!([]));
        let expected = "it belongs to the organization default: import it with --org default";
        assert_eq!(reasons(&report), [expected; 3]);
    }
    let audit = from.json(&["audit", "list", "--action", "store.export"]);
    let records = audit.as_array().unwrap();
    assert_eq!(records.len(), 2, "{audit}");
    assert_eq!(records[0]["after"], json!({ "credentials": 3 }));
}

#[test]
fn an_export_without_hashes_is_no_import_and_says_why() {
    let upstream = Upstream::start();
    let site = Site::new(Config::for_upstream(upstream.address));
    filled(&site);
    let path = site.path("store").join("export.csv");
    let path = path.to_str().unwrap();
    site.succeed(&["export", "--format", "csv", "--output", path]);
    let output = site.run(&["import", "--format", "csv", path]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("an export has passwords only with --with-hashes"),
        "{error}"
    );
}
