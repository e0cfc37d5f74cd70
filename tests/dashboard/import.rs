//! Credentials from elsewhere, pasted into a form.

use serde_json::json;

use super::{Dashboard, LIST};
use crate::support::browser::Scripts;
use crate::support::site::Credential;

const IMPORT: &str = "/organizations/default/import";
/// The tab belongs to the password.
const TEXT: &str = "ann:{PLAIN}hunter\t2\nbob:{MD5}abc";

#[test]
fn a_text_is_checked_then_imported_by_hand() {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(Scripts::Run);
    visit.open(LIST);
    visit.submit("#import");
    visit.run(
        "document.querySelector('#text').value = arguments[0]",
        json!([TEXT]),
    );
    visit.submit("#check");
    let report = visit.text("#report");
    assert!(report.contains("Would take 1 credential(s)"), "{report}");
    assert!(report.contains("{MD5} is too weak"), "{report}");
    assert_eq!(
        dashboard.number("SELECT count(*) FROM credentials"),
        Some(0)
    );
    visit.examine();
    visit.submit("#import");
    let report = visit.text("#report");
    assert!(report.contains("Took 1 credential(s)"), "{report}");
    dashboard.accepts(&Credential {
        username: "ann".to_owned(),
        password: "hunter\t2".to_owned(),
    });
}

#[test]
fn a_text_that_is_no_such_file_is_said_at_its_field() {
    let dashboard = Dashboard::start();
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let fields = [
        ("format", "csv"),
        ("action", "import"),
        ("text", "username;password"),
    ];
    let page = plain.submit(IMPORT, IMPORT, &fields).expect(422);
    assert!(
        page.body.contains("separated by semicolons"),
        "{}",
        page.body
    );
    let mut reader = dashboard.plain_signed_in(&dashboard.token_for("org:default:read"));
    reader.get(IMPORT).expect(403);
    assert!(!reader.get(LIST).expect(200).body.contains("id=\"import\""));
}
