//! A credential from its creation to its end, by hand.

use super::{Dashboard, LIST, with_and_without_scripts};
use crate::support::browser::Scripts;
use crate::support::client::Client;
use crate::support::site::Credential;

use super::visit::Visit;

with_and_without_scripts!(
    a_password_is_shown_once,
    what_was_created_is_ready_to_paste,
    revoking_and_enabling_say_what_happens,
    names_and_expiries_change,
    deleting_asks_which
);

/// Creates one by the form.
#[track_caller]
pub fn create(visit: &Visit, name: &str) -> Credential {
    visit.open(&format!("{LIST}/new"));
    visit.fill("main [name=name]", name);
    visit.submit_for_credential("#create")
}

fn a_password_is_shown_once(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    visit.open(LIST);
    assert!(!visit.text("#empty").is_empty());
    visit.submit("#new");
    visit.fill("main [name=name]", "Printer");
    let made = visit.submit_for_credential("#create");
    dashboard.accepts(&made);

    let shows_none = |way: &str| {
        // Chromium's own page, where it does not ask again for what was posted, is none of ours to examine.
        let source = visit.source();
        assert!(!source.contains(&made.password), "{way} shows the password");
        let made = dashboard.number("SELECT count(*) FROM credentials");
        assert_eq!(made, Some(1), "{way} makes another");
    };
    visit.reload();
    shows_none("reloading");
    visit.examine();
    visit.back();
    shows_none("going back");
    visit.forward();
    shows_none("going forward");
    visit.open(&format!("{LIST}/new"));
    shows_none("a bookmark");
    visit.open(&dashboard.page_of(&made));
    visit.open(LIST);
    assert_eq!(visit.badges(&made), ["Active"]);
    assert!(visit.text("#credentials").contains("Printer"));
    dashboard.accepts(&made);
}

fn what_was_created_is_ready_to_paste(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    let made = create(&visit, "");
    let settings = visit.text("#settings");
    for address in [dashboard.daemon.submission, dashboard.daemon.submissions] {
        let port = address.port().to_string();
        assert!(settings.contains(&port), "no {port} in {settings}");
    }
    for program in ["swaks", "curl", "python", "node", "php", "postfix", "env"] {
        let snippet = visit.property(&format!("pre[data-snippet={program}]"), "textContent");
        for word in [&made.username, &made.password] {
            assert!(snippet.contains(word), "{program} lacks {word}: {snippet}");
        }
    }
    let buttons = visit.count("button[data-copy]");
    if scripts == Scripts::Blocked {
        let shown = (buttons > 0).then(|| visit.is_shown("button[data-copy]"));
        assert_ne!(shown, Some(true), "a button that does nothing");
        return;
    }
    let copied = visit.copied("dl button[data-copy], details[open] button[data-copy]");
    for word in [&made.username, &made.password] {
        assert!(copied.contains(word), "no button copies {word}: {copied:?}");
    }
}

fn revoking_and_enabling_say_what_happens(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    let made = create(&visit, "Scanner");
    let page = dashboard.page_of(&made);
    let mut live = Client::logged_in(&dashboard.daemon, &made);

    visit.open(&page);
    visit.submit("#to-revoke");
    let count = visit.text("#live-count");
    assert!(count.starts_with("One session"), "{count}");
    visit.submit("#revoke");
    visit.told();
    assert_eq!(visit.path(), page);
    dashboard.refuses(&made);
    live.expect("NOOP", "250");
    visit.open(LIST);
    assert_eq!(visit.badges(&made), ["Revoked"]);

    visit.open(&page);
    visit.submit("#enable button");
    visit.told();
    assert_eq!(visit.path(), page);
    dashboard.accepts(&made);
    live.expect("NOOP", "250");

    visit.submit("#to-revoke");
    visit.click("[name=disconnect]");
    visit.submit("#revoke");
    visit.told();
    live.reply().expect("421 4.7.0");
    dashboard.refuses(&made);
}

fn names_and_expiries_change(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    let made = create(&visit, "Old name");
    let page = dashboard.page_of(&made);
    visit.open(&page);
    assert_eq!(visit.value("#rename [name=name]"), "Old name");
    visit.fill("#rename [name=name]", "New name");
    visit.submit("#rename button");
    visit.told();
    assert_eq!(visit.path(), page);
    visit.open(LIST);
    let list = visit.text("#credentials");
    assert!(
        list.contains("New name") && !list.contains("Old name"),
        "{list}"
    );

    visit.open(&page);
    let too_long = "x".repeat(1_000);
    visit.set("#rename [name=name]", &too_long);
    visit.submit("#rename button");
    visit.wrong("name");
    assert_eq!(
        visit.value("#rename [name=name]"),
        too_long,
        "what was typed is kept"
    );

    let expires = "SELECT expires_at FROM credentials";
    visit.open(&page);
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(48);
    let soon = soon.strftime("%Y-%m-%dT%H:%M").to_string();
    visit.set("#expiry [name=expires_at]", &soon);
    visit.submit("#expiry button");
    visit.told();
    assert!(dashboard.number(expires).is_some());
    visit.open(LIST);
    assert_eq!(visit.badges(&made), ["Active", "Expires soon"]);
    dashboard.accepts(&made);

    visit.open(&page);
    assert_ne!(visit.value("#expiry [name=expires_at]"), "");
    visit.set("#expiry [name=expires_at]", "");
    visit.submit("#expiry button");
    visit.told();
    assert_eq!(dashboard.number(expires), None);

    dashboard.daemon.sql(
        "UPDATE credentials SET expires_at = 1 WHERE username = ?",
        &made.username,
    );
    visit.open(LIST);
    assert!(
        visit.badges(&made).contains(&"Expired".to_owned()),
        "{:?}",
        visit.badges(&made)
    );
    visit.open(&page);
    assert!(visit.texts("span.badge").contains(&"Expired".to_owned()));
}

fn deleting_asks_which(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    let made = create(&visit, "Gone tomorrow");
    let mut live = Client::logged_in(&dashboard.daemon, &made);
    visit.open(&dashboard.page_of(&made));
    visit.submit("#to-delete");
    for wrong in ["", "0000"] {
        // A browser would not even send what is required and empty.
        visit.run(
            "document.querySelectorAll('form').forEach(form => form.noValidate = true)",
            serde_json::json!([]),
        );
        visit.fill("[name=confirm]", wrong);
        visit.submit("#delete");
        visit.wrong("confirm");
        dashboard.accepts(&made);
    }
    let last = &made.username[made.username.len() - 4..];
    visit.fill("[name=confirm]", last);
    visit.click("[name=disconnect]");
    visit.submit("#delete");
    visit.told();
    assert_eq!(visit.path(), LIST);
    assert!(!visit.source().contains(&made.username) || visit.has("#empty"));
    dashboard.refuses(&made);
    live.reply().expect("421 4.7.0");
    assert_eq!(
        dashboard.number("SELECT count(*) FROM credentials"),
        Some(0)
    );
}
