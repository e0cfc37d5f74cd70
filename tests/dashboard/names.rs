//! Names that a page or an address could mistake for something else.

use super::page::unescaped;
use super::{Dashboard, LIST, with_and_without_scripts};
use crate::support::browser::Scripts;

with_and_without_scripts!(every_username_has_its_page);

/// Puts a credential with this username into the store, as another program would.
fn put(dashboard: &Dashboard, username: &str) {
    let made = dashboard.daemon.create();
    let store = dashboard.store();
    let rename = "UPDATE credentials SET username = ?1, name = NULL WHERE username = ?2";
    store.execute(rename, (username, &made.username)).unwrap();
}

fn every_username_has_its_page(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let names = ["new", ".", "..", "a/b", "a?b#c", "%2e%2e", "~new"];
    for name in names {
        put(&dashboard, name);
    }
    let visit = dashboard.visit_signed_in(scripts);
    for name in names {
        visit.open(LIST);
        visit.submit(&format!("tr[data-username=\"{name}\"] td a"));
        assert_eq!(visit.text("h1"), name);
        let page = visit.path();
        visit.submit("#to-revoke");
        visit.submit("#revoke");
        assert_eq!(visit.path(), page, "{name}");
        visit.told();
        let revoked = format!(
            "SELECT count(*) FROM credentials WHERE username = '{name}' AND status = 'revoked'"
        );
        assert_eq!(dashboard.number(&revoked), Some(1), "{name}");
    }
    visit.open(LIST);
    visit.submit("#new");
    assert!(visit.has("#create"), "the form is where it was");
}

#[test]
fn blanks_around_a_name_are_seen() {
    let dashboard = Dashboard::start();
    for name in [" ahead", "behind ", "\u{a0}hard", "in side"] {
        put(&dashboard, name);
    }
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let list = unescaped(&plain.get(LIST).expect(200).body);
    let page = format!("{LIST}/%20ahead");
    let own = unescaped(&plain.get(&page).expect(200).body);
    for (text, page) in [
        ("<code>\" ahead\"</code>", &list),
        ("<code>\"behind \"</code>", &list),
        ("<code>\"\u{a0}hard\"</code>", &list),
        ("<code>in side</code>", &list),
        ("<code>\" ahead\"</code>", &own),
        ("<h1>\" ahead\"</h1>", &own),
    ] {
        assert!(page.contains(text), "no {text} in {page}");
    }
    let renamed = [("name", " ")];
    plain
        .submit(&page, &format!("{page}/rename"), &renamed)
        .location();
    // The page that shows a password has the name as it is, for the button that copies it.
    let issued = plain.submit(
        &format!("{page}/rotate"),
        &format!("{page}/rotate"),
        &[("overlap", "0")],
    );
    let issued = unescaped(&issued.expect(200).body);
    assert!(
        issued.contains("\"<code id=\"username\"> ahead</code>\""),
        "{issued}"
    );
}
