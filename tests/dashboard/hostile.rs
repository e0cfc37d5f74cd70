//! Names that would be more than names.

use serde_json::json;

use super::credentials::create;
use super::visit::Visit;
use super::{Dashboard, LIST};
use crate::support::browser::Scripts;
use crate::support::client::Client;
use crate::support::site::Credential;

const HOSTILE: &str = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>{{7*7}}";

/// The page shows the name as it was typed, and nothing came to life in it. A box of `alert` would fail whatever is
/// asked of the browser next, and a script that was held off is a complaint.
#[track_caller]
fn shows_as_text(visit: &Visit) {
    let text = visit.property("main", "textContent");
    let values =
        "return [...document.querySelectorAll('main input')].map(field => field.value).join('\\n')";
    let values = visit.run(values, json!([]));
    let shown = text.contains(HOSTILE) || values.as_str().unwrap().contains(HOSTILE);
    assert!(
        shown,
        "{} does not show it: {}",
        visit.path(),
        visit.source()
    );
    assert_eq!(visit.count("main script, main img"), 0, "{}", visit.path());
}

#[test]
fn names_are_text_on_every_page() {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(Scripts::Run);
    let made = create(&visit, HOSTILE);
    let _live = Client::logged_in(&dashboard.daemon, &made);
    let used = dashboard.daemon.create();
    let insert = "INSERT INTO last_used (credential, at, address, tls, mechanism, helo, count) SELECT key, 1, '192.0.2.7', NULL, 'PLAIN', ?, 1 FROM credentials WHERE username = ?";
    let inserted = dashboard.store().execute(insert, [HOSTILE, &used.username]);
    inserted.expect("what a client called itself");
    let guessed = Credential {
        username: HOSTILE.to_owned(),
        password: "sk_guess".to_owned(),
    };
    dashboard.refuses(&guessed);
    visit.open("/organizations");
    visit.fill("#new-organization [name=slug]", "acme");
    visit.fill("#new-organization [name=name]", HOSTILE);
    visit.submit("#new-organization button");
    shows_as_text(&visit);
    visit.open("/tokens");
    visit.fill("#new-token [name=name]", HOSTILE);
    visit.choose("#scope", "instance:read");
    visit.submit_for_token("#new-token button");

    let page = dashboard.page_of(&made);
    let pages = [
        LIST.to_owned(),
        page.clone(),
        dashboard.page_of(&used),
        format!("{page}/rotate"),
        format!("{page}/revoke"),
        format!("{page}/delete"),
        "/refusals".to_owned(),
        "/organizations".to_owned(),
        "/organizations/acme".to_owned(),
        "/organizations/acme/credentials".to_owned(),
        "/tokens".to_owned(),
    ];
    for page in pages {
        visit.open(&page);
        shows_as_text(&visit);
    }
    let encoded: String = form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    for query in [
        format!("{LIST}?q={encoded}"),
        format!("/audit?action={encoded}"),
        format!("/sessions?credential={encoded}"),
    ] {
        visit.open(&query);
        assert_eq!(visit.count("main script, main img"), 0, "{query}");
    }
    visit.open(&format!("{LIST}?q={encoded}"));
    assert_eq!(visit.value("#filter [name=q]"), HOSTILE);
}

/// Looks like another name, or turns the text around it.
const INVISIBLE: &str = "in\u{202e}eciov\u{200b}\u{feff}";
const SPELLED_OUT: &str = "in\\u{202e}eciov\\u{200b}\\u{feff}";

#[test]
fn invisible_characters_in_names_are_spelled_out() {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(Scripts::Run);
    let made = create(&visit, INVISIBLE);
    let rename = "UPDATE organizations SET name = ? WHERE slug = 'default'";
    dashboard
        .store()
        .execute(rename, [INVISIBLE])
        .expect("a name");
    let insert = "INSERT INTO last_used (credential, at, address, tls, mechanism, helo, count) SELECT key, 1, '192.0.2.7', NULL, 'PLAIN', ?, 1 FROM credentials WHERE username = ?";
    let inserted = dashboard
        .store()
        .execute(insert, [INVISIBLE, &made.username]);
    inserted.expect("what a client called itself");
    let daemon = &dashboard.daemon;
    let scope = ["--scope", "instance:read"];
    let token = [&["token", "create", "--name", INVISIBLE][..], &scope].concat();
    daemon
        .secrets
        .remember_shown(daemon.succeed(&token).as_bytes());
    let page = dashboard.page_of(&made);
    for page in [
        LIST.to_owned(),
        page.clone(),
        format!("{page}/rotate"),
        format!("{page}/revoke"),
        format!("{page}/delete"),
        "/organizations".to_owned(),
        "/organizations/default".to_owned(),
        "/tokens".to_owned(),
        "/audit".to_owned(),
    ] {
        visit.open(&page);
        let source = visit.source();
        assert!(source.contains(SPELLED_OUT), "{page}: {source}");
        assert!(
            !source.contains(['\u{202e}', '\u{200b}', '\u{feff}']),
            "{page}"
        );
    }
    for command in [
        &["credential", "list"][..],
        &["credential", "show", &made.username],
        &["organization", "list"],
        &["token", "list"],
        &["audit", "list"],
    ] {
        let said = daemon.succeed(command);
        assert!(said.contains(SPELLED_OUT), "{command:?}: {said}");
        assert!(
            !said.contains(['\u{202e}', '\u{200b}', '\u{feff}']),
            "{command:?}"
        );
    }
}
