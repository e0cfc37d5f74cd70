//! A hundred thousand credentials: pages of fifty, in order, searched and filtered.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use super::plain::Plain;
use super::{Dashboard, LIST};

const CREDENTIALS: usize = 100_000;
const PAGE: usize = 50;
const DAY: i64 = 86_400_000;

/// The i-th of them: every tenth is revoked, every third was used, half of those within the last 90 days.
fn username(number: usize) -> String {
    format!("smtp_{number:016}")
}

fn name(number: usize) -> String {
    // In an order of its own, so that sorting by it is not sorting by username.
    format!("Box {:06}", (number * 77_777) % CREDENTIALS)
}

fn is_revoked(number: usize) -> bool {
    number % 10 == 9
}

fn days_unused(number: usize) -> Option<i64> {
    number
        .is_multiple_of(3)
        .then_some(if number.is_multiple_of(2) { 10 } else { 100 })
}

fn fill(dashboard: &Dashboard) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    let mut store = dashboard.store();
    let change = store.transaction().unwrap();
    let mut add = change
        .prepare(
            "INSERT INTO credentials (id, username, organization, name, password_hash, status, created_at, revoked_at)
             SELECT ?1, ?2, key, ?3, '$argon2id$none', ?4, ?5, iif(?4 = 'revoked', ?5, NULL) FROM organizations",
        )
        .unwrap();
    let mut used = change
        .prepare("INSERT INTO last_used (credential, at, address, tls, mechanism, helo, count) SELECT key, ?2, '192.0.2.1', 'TLSv1.3', 'PLAIN', 'x', 1 FROM credentials WHERE username = ?1")
        .unwrap();
    for number in 0..CREDENTIALS {
        let created = now - 200 * DAY + i64::try_from(number).unwrap();
        let status = if is_revoked(number) {
            "revoked"
        } else {
            "active"
        };
        let id = uuid::Uuid::now_v7().to_string();
        add.execute((id, username(number), name(number), status, created))
            .unwrap();
        if let Some(days) = days_unused(number) {
            used.execute((username(number), now - days * DAY)).unwrap();
        }
    }
    drop((add, used));
    change.commit().unwrap();
}

/// All usernames of a list that fits on a few pages, by the links that lead on; the same again by those that lead back.
#[track_caller]
fn walk(plain: &mut Plain, path: &str) -> Vec<String> {
    let mut pages = Vec::new();
    let mut next = Some(path.to_owned());
    let mut last = String::new();
    while let Some(path) = next {
        let page = plain.get(&path).expect(200);
        pages.push(page.usernames());
        assert!(pages.len() <= 20, "{path} does not end");
        next = page.link("next");
        last = path;
    }
    let mut back = Vec::new();
    let mut previous = Some(last);
    while let Some(path) = previous {
        let page = plain.get(&path).expect(200);
        back.insert(0, page.usernames());
        previous = page.link("prev");
    }
    assert_eq!(back, pages);
    pages[..pages.len() - 1]
        .iter()
        .for_each(|page| assert_eq!(page.len(), PAGE));
    pages.concat()
}

#[test]
fn a_page_of_fifty_among_a_hundred_thousand_is_the_right_one() {
    let dashboard = Dashboard::start();
    fill(&dashboard);
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let all = || 0..CREDENTIALS;
    let by_name = |revert: bool| {
        let mut numbers: Vec<_> = all().collect();
        numbers.sort_by_key(|&number| name(number));
        if revert {
            numbers.reverse();
        }
        numbers.into_iter().map(username).collect::<Vec<_>>()
    };
    let page = |number: usize| (number - 1) * PAGE..number * PAGE;

    let first = plain.get(LIST).expect(200);
    assert_eq!(first.usernames().len(), PAGE);
    assert_eq!(first.link("prev"), None);
    let second = plain
        .get(&first.link("next").expect("a next page"))
        .expect(200);
    let both: BTreeSet<_> = first
        .usernames()
        .into_iter()
        .chain(second.usernames())
        .collect();
    assert_eq!(both.len(), 2 * PAGE, "a credential is on two pages");
    let back = plain
        .get(&second.link("prev").expect("a page before"))
        .expect(200);
    assert_eq!(back.usernames(), first.usernames());

    for (dir, revert) in [("asc", false), ("desc", true)] {
        let sorted = by_name(revert);
        for number in [1, 2, 1_000, 2_000] {
            let path = format!("{LIST}?sort=name&dir={dir}&page={number}");
            assert_eq!(
                plain.get(&path).expect(200).usernames(),
                sorted[page(number)],
                "{path}"
            );
        }
        for sort in ["username", "created"] {
            let path = format!("{LIST}?sort={sort}&dir={dir}&page=3");
            let mut numbers: Vec<_> = all().collect();
            if revert {
                numbers.reverse();
            }
            let wanted: Vec<_> = numbers[page(3)].iter().copied().map(username).collect();
            assert_eq!(plain.get(&path).expect(200).usernames(), wanted, "{path}");
        }
    }
    let last = plain
        .get(&format!("{LIST}?sort=name&page=2000"))
        .expect(200);
    assert_eq!(last.link("next"), None);

    let wanted = |fits: &dyn Fn(usize) -> bool| {
        all()
            .filter(|&number| fits(number))
            .map(username)
            .collect::<Vec<_>>()
    };
    let sorted = "sort=username&dir=asc";
    // A part of a username that 100 of them have, and of those 10 that are revoked.
    let found = walk(
        &mut plain,
        &format!("{LIST}?q=smtp_00000000000123&{sorted}"),
    );
    assert_eq!(found, wanted(&|number| number / 100 == 123));
    let found = walk(
        &mut plain,
        &format!("{LIST}?q=smtp_00000000000123&status=revoked&{sorted}"),
    );
    assert_eq!(
        found,
        wanted(&|number| number / 100 == 123 && is_revoked(number))
    );
    let found = walk(
        &mut plain,
        &format!("{LIST}?q=smtp_00000000000123&unused=90&{sorted}"),
    );
    assert_eq!(
        found,
        wanted(&|number| number / 100 == 123 && days_unused(number) != Some(10))
    );
    let found = walk(&mut plain, &format!("{LIST}?q=box+0123&{sorted}"));
    assert_eq!(
        found,
        wanted(&|number| name(number).starts_with("Box 0123")),
        "names, whatever their case"
    );
    for literal in ["%25", "_____", "%27", "smtp%25"] {
        let found = plain
            .get(&format!("{LIST}?q={literal}"))
            .expect(200)
            .usernames();
        assert_eq!(found, [""; 0], "{literal} is looked for as it is");
    }
    let nothing = plain.get(&format!("{LIST}?q=nothing-like-it")).expect(200);
    assert_eq!(nothing.usernames(), [""; 0]);

    let revoked = plain
        .get(&format!("{LIST}?status=revoked&{sorted}"))
        .expect(200);
    assert_eq!(revoked.usernames(), wanted(&is_revoked)[page(1)]);
    let next = revoked.link("next").expect("a next page");
    assert_eq!(
        plain.get(&next).expect(200).usernames(),
        wanted(&is_revoked)[page(2)],
        "{next} keeps the filter"
    );
    let active = plain
        .get(&format!("{LIST}?status=active&{sorted}&page=1800"))
        .expect(200);
    assert_eq!(
        active.usernames(),
        wanted(&|number| !is_revoked(number))[page(1_800)]
    );
    let unused = plain
        .get(&format!("{LIST}?unused=90&{sorted}&page=5"))
        .expect(200);
    assert_eq!(
        unused.usernames(),
        wanted(&|number| days_unused(number) != Some(10))[page(5)]
    );
    let used = plain
        .get(&format!("{LIST}?sort=last-used&dir=desc"))
        .expect(200);
    assert!(
        used.usernames()
            .iter()
            .all(|one| days_unused(one[5..].parse().unwrap()) == Some(10)),
        "the last used first"
    );
}
