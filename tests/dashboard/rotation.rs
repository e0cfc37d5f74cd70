//! New passwords for old ones.

use super::credentials::create;
use super::{Dashboard, LIST, with_and_without_scripts};
use crate::support::browser::Scripts;
use crate::support::client::Client;
use crate::support::site::Credential;

with_and_without_scripts!(
    a_rotation_ends_the_old_password_at_once,
    an_overlap_keeps_both_until_it_is_ended,
    a_rotation_that_another_overtook_is_not_made,
    a_rotation_in_an_overlap_says_which_password_stays
);

fn a_rotation_ends_the_old_password_at_once(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    let old = create(&visit, "Shop");
    let mut live = Client::logged_in(&dashboard.daemon, &old);
    visit.open(&dashboard.page_of(&old));
    visit.submit("#to-rotate");
    assert_eq!(visit.value("[name=overlap]"), "0");
    visit.click("[name=disconnect]");
    let new = visit.submit_for_credential("#rotate");
    assert_eq!(new.username, old.username);
    assert_ne!(new.password, old.password);
    dashboard.refuses(&old);
    dashboard.accepts(&new);
    live.reply().expect("421 4.7.0");

    visit.reload();
    visit.examine();
    dashboard.accepts(&new);
    visit.open(LIST);
    assert_eq!(visit.badges(&new), ["Active"]);
}

fn an_overlap_keeps_both_until_it_is_ended(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    let old = create(&visit, "Shop");
    let page = dashboard.page_of(&old);
    visit.open(&page);
    assert!(!visit.has("#end-overlap"));
    visit.submit("#to-rotate");
    visit.click("[name=overlap] option[value='3600']");
    let new = visit.submit_for_credential("#rotate");
    dashboard.accepts(&new);
    visit.open(&page);
    assert_eq!(visit.text("#previous-used"), "Not used since the rotation");
    dashboard.accepts(&old);
    dashboard.accepts(&old);
    visit.open(&page);
    let used = visit.text("#previous-used");
    assert!(used.starts_with("Still used by 127.0.0.1, "), "{used}");
    assert!(used.ends_with("(2 times since the rotation)"), "{used}");
    visit.open(LIST);
    assert_eq!(visit.badges(&new), ["Active", "Overlap"]);

    visit.open(&page);
    visit.submit("#end-overlap button");
    visit.told();
    assert_eq!(visit.path(), page);
    dashboard.refuses(&old);
    dashboard.accepts(&new);
    assert!(!visit.has("#end-overlap"));

    visit.open(&page);
    let why = visit.text("#refusals tbody");
    assert!(why.contains("the previous password, rotated"), "{why}");
    assert!(why.contains("from 127.0.0.1"), "{why}");
}

fn a_rotation_that_another_overtook_is_not_made(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    let first = create(&visit, "Shop");
    visit.open(&format!("{}/rotate", dashboard.page_of(&first)));
    let document = dashboard
        .daemon
        .json(&["credential", "rotate", &first.username]);
    let second = Credential::from_json(document.to_string().as_bytes());
    visit.submit("#rotate");
    assert!(!visit.has("#password"), "{}", visit.source());
    dashboard.accepts(&second);
}

fn a_rotation_in_an_overlap_says_which_password_stays(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    let old = create(&visit, "Shop");
    let page = dashboard.page_of(&old);
    let rotate = || {
        visit.open(&page);
        visit.submit("#to-rotate");
        visit.click("[name=overlap] option[value='3600']");
    };
    rotate();
    assert!(!visit.has("#runs"));
    let second = visit.submit_for_credential("#rotate");
    visit.open(&page);
    assert_eq!(
        visit.text("#current-used"),
        "The new password: not used yet"
    );
    dashboard.accepts(&second);
    rotate();
    let runs = visit.text("#runs");
    assert!(runs.contains("(used once, last "), "{runs}");
    assert!(runs.contains("end the overlap first"), "{runs}");
    visit.examine();
    let third = visit.submit_for_credential("#rotate");
    let before = visit.text("#before");
    assert!(before.contains("An overlap ran already"), "{before}");
    assert!(
        before.contains("is wrong from now on (used once, last "),
        "{before}"
    );
    dashboard.refuses(&second);
    dashboard.accepts(&old);
    dashboard.accepts(&third);
}
