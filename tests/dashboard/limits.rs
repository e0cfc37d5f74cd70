//! Limits and rules, by hand: what is set, what it does to mail, and that the page says so.

use super::page::unescaped;
use super::{Dashboard, LIST};
use crate::support::client::Client;

#[test]
fn a_credentials_limits_are_set_and_shown_with_their_use() {
    let dashboard = Dashboard::start();
    let credential = dashboard.daemon.create();
    let page = dashboard.page_of(&credential);
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let to = format!("{page}/limits");
    let wrong = [("limit_messages_per_day", "many"), ("limit_sessions", "3")];
    let shown = plain.submit(&page, &to, &wrong).expect(422);
    assert!(shown.body.contains("is no limit; write a whole number"));
    assert!(shown.body.contains("value=\"many\"") && shown.body.contains("value=\"3\""));

    let set = [
        ("limit_messages_per_day", "2"),
        ("limit_sessions", "unlimited"),
    ];
    assert_eq!(plain.submit(&page, &to, &set).location(), page);
    let shown = plain.get(&page).expect(200);
    assert!(shown.body.contains("Now 0 of 2.") && !shown.body.contains("Over limit"));
    let mut client = Client::logged_in(&dashboard.daemon, &credential);
    for _ in 0..2 {
        client
            .send_message(b"Subject: x\r\n\r\nhello\r\n")
            .expect("250");
    }
    client.expect("MAIL FROM:<sender@example.test>", "451 4.7.1");
    for at in [page.as_str(), LIST] {
        let shown = plain.get(at).expect(200);
        assert!(
            shown
                .body
                .contains("<span class=\"badge bad\">Over limit</span>"),
            "{at}"
        );
    }
    let shown = plain.get(&page).expect(200);
    assert!(shown.body.contains("Reached: 2 of 2."));
    assert!(shown.body.contains("value=\"unlimited\""));
    // What is left empty is the instance's default again.
    plain.submit(&page, &to, &[]).location();
    client.expect("MAIL FROM:<sender@example.test>", "250");
    let reader = dashboard.token_for("org:default:read");
    let shown = dashboard.plain_signed_in(&reader).get(&page).expect(200);
    assert!(shown.body.contains("Messages per day") && !shown.body.contains("/limits\""));
}

#[test]
fn a_credentials_rules_are_set_and_shown() {
    let dashboard = Dashboard::start();
    let credential = dashboard.daemon.create();
    let page = dashboard.page_of(&credential);
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let to = format!("{page}/rules");
    for (wrong, why) in [
        (
            [("senders", "a b@c, d@@e"), ("networks", "")],
            "is no sender",
        ),
        (
            [("senders", ""), ("networks", "10.0.0.1/8")],
            "write \"10.0.0.0/8\"",
        ),
        (
            [("senders", ""), ("header_from", "yes")],
            "header_from compares",
        ),
    ] {
        let shown = plain.submit(&page, &to, &wrong).expect(422);
        assert!(unescaped(&shown.body).contains(why), "{why}");
    }
    let set = [
        ("senders", "me@ok.test, ok.example <>"),
        ("header_from", "yes"),
        ("networks", "127.0.0.0/8"),
        ("bare_newline", "normalize"),
        ("report_header_from", "yes"),
    ];
    assert_eq!(plain.submit(&page, &to, &set).location(), page);
    let shown = unescaped(&plain.get(&page).expect(200).body);
    for text in [
        "value=\"me@ok.test, ok.example, <>\"",
        "value=\"127.0.0.0/8\"",
        "value=\"normalize\" selected",
        "name=\"header_from\" value=\"yes\" checked",
        "name=\"report_header_from\" value=\"yes\" checked",
    ] {
        assert!(shown.contains(text), "{text} in {shown}");
    }
    let told = dashboard
        .daemon
        .json(&["credential", "show", &credential.username]);
    assert_eq!(told["rules"]["report"], serde_json::json!(["header_from"]));
    let mut client = Client::logged_in(&dashboard.daemon, &credential);
    client.expect("MAIL FROM:<you@ok.test>", "550 5.7.1");
    client.expect("MAIL FROM:<>", "250");
}

#[test]
fn an_organizations_limits_are_the_instances_to_set() {
    let dashboard = Dashboard::start();
    let page = "/organizations/default";
    let to = "/organizations/default/limits";
    let own = dashboard.token_for("org:default:admin");
    let mut plain = dashboard.plain_signed_in(&own);
    let shown = plain.get(page).expect(200);
    assert!(shown.body.contains("Messages per month") && !shown.actions().contains(&to.to_owned()));
    let form = shown.hidden(&format!("{page}/rename"));
    let form: Vec<_> = form
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    plain.post(to, &form).expect(403);

    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let set = [("limit_messages_per_month", "1")];
    plain.submit(page, to, &set).location();
    let credential = dashboard.daemon.create();
    let mut client = Client::logged_in(&dashboard.daemon, &credential);
    client
        .send_message(b"Subject: x\r\n\r\nhello\r\n")
        .expect("250");
    client.expect("MAIL FROM:<sender@example.test>", "452 4.5.3");
    let shown = plain.get(page).expect(200);
    assert!(shown.body.contains("Reached: 1 of 1.") && shown.body.contains("Over limit"));
}
