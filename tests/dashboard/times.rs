//! Times, where the browser is and where it does not say.

use super::credentials::create;
use super::{Dashboard, LIST};
use crate::support::browser::Scripts;
use crate::support::site::Credential;

/// 2026-01-01 20:00 UTC, which is the next day in Tokyo, nine hours ahead the whole year.
const CREATED: &str = "UPDATE credentials SET created_at = 1767297600000 WHERE username = ?";

fn expires(dashboard: &Dashboard, credential: &Credential) -> Option<i64> {
    let username = &credential.username;
    dashboard.number(&format!(
        "SELECT expires_at FROM credentials WHERE username = '{username}'"
    ))
}

#[test]
fn times_are_those_of_the_browsers_zone() {
    let dashboard = Dashboard::start();
    for (scripts, offset) in [(Scripts::Run, 9), (Scripts::Blocked, 0)] {
        let visit = dashboard.visit_signed_in(scripts);
        visit.set_zone("Asia/Tokyo");
        let made = create(&visit, "Clock");
        dashboard.daemon.sql(CREATED, &made.username);
        visit.open(&dashboard.page_of(&made));
        let time = "#details time[datetime='2026-01-01T20:00:00.000Z']";
        let shown = visit.text(time);
        let words: &[&str] = match scripts {
            Scripts::Run => &["Jan 2, 2026", "5:00:00"],
            Scripts::Blocked => &["2026-01-01 20:00:00 UTC"],
        };
        for word in words {
            assert!(shown.contains(word), "no {word} in {shown}");
        }

        visit.set("#expiry [name=expires_at]", "2030-06-01T12:00");
        visit.submit("#expiry button");
        visit.told();
        let noon = Some(1_906_545_600_000 - offset * 3_600_000);
        assert_eq!(expires(&dashboard, &made), noon, "{scripts:?}");
        assert_eq!(visit.value("#expiry [name=expires_at]"), "2030-06-01T12:00");

        // What was typed is still that when something else in the form is wrong.
        visit.open(&format!("{LIST}/new"));
        visit.set("main [name=name]", &"x".repeat(1_000));
        visit.set("main [name=expires_at]", "2030-06-01T12:00");
        visit.submit("#create");
        visit.wrong("name");
        assert_eq!(visit.value("main [name=expires_at]"), "2030-06-01T12:00");
        visit.fill("main [name=name]", "Second");
        let second = visit.submit_for_credential("#create");
        assert_eq!(expires(&dashboard, &second), noon, "{scripts:?}");
    }
}

#[test]
fn last_used_is_told_in_words_and_exactly() {
    let dashboard = Dashboard::start();
    let made = dashboard.daemon.create();
    let insert = "INSERT INTO last_used (credential, at, address, tls, mechanism, helo, count) SELECT key, (unixepoch() - 3 * 86400 - 60) * 1000, '192.0.2.7', 'TLSv1.3', 'PLAIN',
        'shop.example', 7 FROM credentials WHERE username = ?";
    dashboard.daemon.sql(insert, &made.username);
    let visit = dashboard.visit_signed_in(Scripts::Blocked);
    visit.open(LIST);
    let row = format!("tr[data-username={}]", made.username);
    let time = format!("{row} time[title]");
    assert!(
        visit
            .texts(&time)
            .iter()
            .any(|text| text.contains("3 days")),
        "{:?}",
        visit.texts(&time)
    );
    assert!(visit.text(&row).contains("192.0.2.7"));
    visit.open(&dashboard.page_of(&made));
    let used = visit.text("#last-used");
    for word in ["192.0.2.7", "TLSv1.3", "PLAIN", "shop.example"] {
        assert!(used.contains(word), "no {word} in {used}");
    }
    assert_eq!(visit.text("#last-message"), "None yet");
    let sent = "UPDATE last_used SET message_at = (unixepoch() - 86400 - 60) * 1000, messages = 4
        WHERE credential = (SELECT key FROM credentials WHERE username = ?)";
    dashboard.daemon.sql(sent, &made.username);
    visit.reload();
    assert_eq!(visit.text("#messages"), "4");
    assert_ne!(visit.text("#last-message"), "None yet");
    visit.open(LIST);
    let times = visit.texts(&time);
    assert!(
        !times.iter().any(|text| text.contains("3 days")),
        "{times:?}"
    );
}

#[test]
fn an_expiry_is_read_in_the_season_it_is_in() {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(Scripts::Run);
    visit.set_zone("Europe/Berlin");
    let made = create(&visit, "Clock");
    // Noon is 11:00 UTC in January and 10:00 UTC in July, whatever season it is now.
    for (noon, utc) in [
        ("2031-01-15T12:00", 1_926_241_200_000),
        ("2031-07-15T12:00", 1_941_876_000_000),
    ] {
        visit.open(&dashboard.page_of(&made));
        visit.set("#expiry [name=expires_at]", noon);
        visit.submit("#expiry button");
        assert_eq!(expires(&dashboard, &made), Some(utc), "{noon}");
        assert_eq!(visit.value("#expiry [name=expires_at]"), noon);
    }
}
