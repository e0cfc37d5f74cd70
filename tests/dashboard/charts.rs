//! Charts for eyes, pointers, keyboards and screen readers; and the parts of a page that come first.

use serde_json::json;

use super::credentials::create;
use super::{Dashboard, LIST, with_and_without_scripts};
use crate::support::axe;
use crate::support::browser::Scripts;

with_and_without_scripts!(
    a_chart_says_its_values,
    limits_and_rules_wait_behind_their_headings
);

/// 7 messages an hour ago.
const USAGE: &str = "INSERT INTO usage SELECT organization, key, unixepoch() / 3600 - 1, 7, 0, 0, 0, 0 FROM credentials";

/// The text of the values that can be seen.
const SEEN: &str = "return [...document.querySelectorAll(arguments[0] + ' text.value')]
    .filter(one => getComputedStyle(one).visibility === 'visible').map(one => one.textContent)";

fn a_chart_says_its_values(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    let made = create(&visit, "Web shop");
    dashboard.store().execute(USAGE, []).expect(USAGE);
    for page in ["/", &dashboard.page_of(&made)] {
        visit.open(page);
        let chart = "#chart-messages";
        let axes = visit.count(&format!("{chart} text.axis"));
        assert_eq!(axes, 4, "the most, and the begin, middle and end: {page}");
        assert_eq!(visit.text(&format!("{chart} text.axis")), "7");
        let bars = format!("{chart} g[tabindex='0'][role=img]");
        assert_eq!(visit.count(&bars), 1, "{page}");
        assert!(visit.attribute(&bars, "aria-label").ends_with(": 7"));
        assert!(visit.has(&format!("{bars} title")));
        assert!(!visit.has("#chart-refused g[tabindex]"), "nothing to focus");

        let rows = format!("{chart} details table tbody tr");
        let expected = if page == "/" { 24 } else { 30 };
        assert_eq!(visit.count(&rows), expected, "{page}");
        assert!(!visit.is_shown(&rows));
        visit.click(&format!("{chart} details summary"));
        assert!(visit.is_shown(&rows));
        let table = visit.texts(&rows);
        assert!(table.iter().any(|row| row.ends_with(" 7")), "{table:?}");
        assert!(
            visit
                .text(&format!("{chart} caption"))
                .contains("7 messages in")
        );

        if scripts == Scripts::Run {
            let seen = || visit.run(SEEN, json!([chart]));
            assert_eq!(seen(), json!([]));
            visit.run(
                "document.querySelector(arguments[0]).focus()",
                json!([bars]),
            );
            let told = seen();
            let told = told[0].as_str().unwrap_or_default();
            assert!(told.ends_with(": 7"), "{told:?}");
            assert_eq!(axe::bars(&visit), Vec::<serde_json::Value>::new(), "{page}");
        }
    }
}

fn limits_and_rules_wait_behind_their_headings(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    let made = create(&visit, "Web shop");
    let page = dashboard.page_of(&made);
    visit.open(&page);
    for (form, field) in [
        ("#limits", "limit_messages_per_day"),
        ("#rules", "networks"),
    ] {
        let css = format!("{form} [name={field}]");
        assert!(!visit.is_shown(&css), "{form} is in the way");
        visit.click(&format!("details:has({form}) summary"));
        visit.fill(&css, "nonsense");
        visit.submit(&format!("{form} button"));
        visit.wrong(field);
        assert!(visit.is_shown(&css), "the error is seen");
        let right = if form == "#limits" {
            "100"
        } else {
            "192.0.2.0/24"
        };
        visit.fill(&css, right);
        visit.submit(&format!("{form} button"));
        visit.told();
        let heading = visit.text(&format!("details:has({form}) summary"));
        let set = if form == "#limits" {
            "1 of its own"
        } else {
            "Some"
        };
        assert!(heading.contains(set), "{heading}");
    }
}

#[test]
fn an_expired_credential_is_not_called_active() {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(Scripts::Blocked);
    let made = create(&visit, "Trial");
    let expire = "UPDATE credentials SET expires_at = 1000 WHERE username = ?";
    dashboard.daemon.sql(expire, &made.username);
    visit.open(LIST);
    assert_eq!(visit.badges(&made), ["Expired"]);
    visit.open(&dashboard.page_of(&made));
    assert_eq!(visit.texts(".head .badge"), ["Expired"]);
    let details = visit.text("#details");
    assert!(
        details.contains("Expired") && details.contains("1970"),
        "{details}"
    );
    let revoke = "UPDATE credentials SET status = 'revoked' WHERE username = ?";
    dashboard.daemon.sql(revoke, &made.username);
    visit.open(LIST);
    assert_eq!(visit.badges(&made), ["Revoked", "Expired"]);
}
