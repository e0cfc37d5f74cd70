//! The list of credentials as a file for spreadsheets.

use std::fs;

use super::{Dashboard, LIST};

#[test]
fn the_list_finds_and_sorts_names_in_any_script() {
    let dashboard = Dashboard::start();
    let daemon = &dashboard.daemon;
    for name in ["zebra", "e\u{301}tage 2", "Etage 1", "Принтер Офис"] {
        daemon.succeed(&["credential", "create", "--name", name]);
    }
    let mut plain = dashboard.plain_signed_in(&dashboard.token_for("org:default:read"));
    let printer = "%D0%BF%D1%80%D0%B8%D0%BD%D1%82%D0%B5%D1%80"; // принтер
    for address in [
        format!("{LIST}?q={printer}"),
        format!("{LIST}.csv?q={printer}"),
    ] {
        let body = plain.get(&address).body;
        assert!(body.contains("Принтер Офис"), "{address}: {body}");
        assert!(!body.contains("zebra"), "{address}: {body}");
    }
    let page = plain.get(&format!("{LIST}?sort=name&dir=asc")).expect(200);
    let places = ["Etage 1", "étage 2", "zebra", "Принтер Офис"].map(|name| page.body.find(name));
    assert!(places.iter().all(Option::is_some), "{}", page.body);
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn the_list_can_be_downloaded_as_it_is_filtered_by_who_may_see_it() {
    let dashboard = Dashboard::start();
    let daemon = &dashboard.daemon;
    daemon.succeed(&["credential", "create", "--name", "=1+1"]);
    daemon.succeed(&["credential", "create", "--name", "Printer"]);
    let mut plain = dashboard.plain_signed_in(&dashboard.token_for("org:default:read"));
    let page = plain
        .get(&format!("{LIST}?q=1%2B1&status=active"))
        .expect(200);
    let link = format!("{LIST}.csv?q=1%2B1&status=active");
    let shown = format!("href=\"{}\"", link.replace('&', "&#38;"));
    assert!(page.body.contains(&shown), "{}", page.body);
    let file = plain.get(&link).expect(200);
    assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(
        file.header("content-disposition"),
        Some("attachment; filename=\"credentials-default.csv\"")
    );
    assert_eq!(file.header("cache-control"), Some("no-store"));
    assert!(
        file.body.contains("username,name,expires,"),
        "{}",
        file.body
    );
    assert!(
        file.body.contains(",'=1+1,,default,active,"),
        "{}",
        file.body
    );
    assert!(!file.body.contains("Printer") && !file.body.contains("argon2"));
    assert!(
        plain
            .get(&format!("{LIST}.csv"))
            .expect(200)
            .body
            .contains("Printer")
    );
    daemon.succeed(&["organization", "create", "acme"]);
    plain.get("/organizations/acme/credentials.csv").expect(403);
    let mut all = dashboard.plain_signed_in(&dashboard.token);
    all.get("/organizations/nowhere/credentials.csv")
        .expect(404);
    let mut stranger = dashboard.plain();
    let refused = stranger.get(&format!("{LIST}.csv"));
    assert!(refused.status != 200, "{}", refused.body);
}

#[test]
fn the_list_and_its_file_know_expired_credentials_and_those_that_expire_soon() {
    let dashboard = Dashboard::start();
    let daemon = &dashboard.daemon;
    let end = |days: i64| jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days - 1);
    for (name, days) in [("Week", 7), ("Month", 30), ("Later", 31 * 2)] {
        let end = end(days).to_string();
        daemon.succeed(&["credential", "create", "--name", name, "--expires", &end]);
    }
    let past = daemon.create();
    let expire = "UPDATE credentials SET name = 'Past', expires_at = 1 WHERE username = ?1";
    daemon.sql(expire, &past.username);
    daemon.succeed(&["credential", "create", "--name", "Ever"]);
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let all = ["Week", "Month", "Later", "Past", "Ever"];
    for (query, expected) in [
        ("status=active", vec!["Week", "Month", "Later", "Ever"]),
        ("status=expired", vec!["Past"]),
        ("status=revoked", vec![]),
        ("expires=7", vec!["Week"]),
        ("expires=30", vec!["Week", "Month"]),
        ("expires=30&status=expired", vec![]),
        ("expires=30&unused=90", vec![]),
        ("expires=never", all.to_vec()),
    ] {
        for address in [format!("{LIST}?{query}"), format!("{LIST}.csv?{query}")] {
            let body = plain.get(&address).expect(200).body;
            let shown = |name: &&&str| {
                body.contains(&format!(">{name}</a>")) || body.contains(&format!(",{name},"))
            };
            let found: Vec<_> = all.iter().filter(shown).copied().collect();
            assert_eq!(found, expected, "{address}");
        }
    }
    let overview = plain.get("/").expect(200).body;
    let link = format!("<a href=\"{LIST}?expires=30\">2 of default</a>");
    assert!(overview.contains(&link), "{overview}");
    let page = plain.get(&format!("{LIST}?expires=30")).expect(200).body;
    assert!(page.contains("<option value=\"30\" selected>Within 30 days"));
    // What is changed is what is shown, on every page of it.
    assert!(
        page.contains("name=\"list\" value=\"expires=30\""),
        "{page}"
    );
}

#[test]
fn a_long_list_comes_whole() {
    let dashboard = Dashboard::start();
    let path = dashboard.daemon.path("store").join("passwd");
    let hash = "{SSHA}lhdKKw2V93yeauI6QYSjBrzk2jaq4uO0";
    let lines: String = (0..2_500).map(|n| format!("user{n}:{hash}\n")).collect();
    fs::write(&path, lines).unwrap();
    let import = ["import", "--format", "dovecot", path.to_str().unwrap()];
    dashboard.daemon.succeed(&import);
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let file = plain.get(&format!("{LIST}.csv")).expect(200);
    for n in [0, 999, 1_000, 1_001, 2_499] {
        let line = format!("user{n},,,default,active,");
        assert_eq!(file.body.matches(&line).count(), 1, "{line}");
    }
    assert_eq!(file.body.matches(",default,active,").count(), 2_500);
}
