//! Many credentials changed at once, by hand.

use super::credentials::create;
use super::{Dashboard, LIST, with_and_without_scripts};
use crate::support::browser::Scripts;
use crate::support::client::Client;

with_and_without_scripts!(
    ticked_credentials_are_revoked_and_enabled,
    all_of_a_list_is_deleted_after_its_number_is_typed,
    ticked_credentials_expire
);

const BULK: &str = "/organizations/default/bulk";
const CONFIRMED: &str = "/organizations/default/bulk/confirmed";

fn tick(name: &str) -> String {
    format!("tr[data-username={name}] input[type=checkbox]")
}

fn ticked_credentials_are_revoked_and_enabled(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    let [one, two, three] = ["One", "Two", "Three"].map(|name| create(&visit, name));
    let mut live = Client::logged_in(&dashboard.daemon, &one);
    visit.open(LIST);
    visit.submit("#bulk button[value=revoke]");
    assert!(visit.told().contains("Nothing was selected"));

    for credential in [&one, &two] {
        visit.click(&tick(&credential.username));
    }
    visit.submit("#bulk button[value=revoke]");
    assert_eq!(visit.text("h1"), "Revoke 2 credentials");
    let selected = visit.text("#selected");
    assert!(selected.contains(&one.username) && selected.contains(&two.username));
    assert!(!selected.contains(&three.username));
    assert!(visit.text("main").contains("one of them has some now"));
    dashboard.accepts(&two);
    visit.submit("#confirmed");
    assert_eq!(visit.path(), LIST);
    assert_eq!(visit.told(), "Revoked 2 credentials.");
    for credential in [&one, &two] {
        dashboard.refuses(credential);
        assert_eq!(visit.badges(credential), ["Revoked"]);
    }
    dashboard.accepts(&three);
    live.expect("NOOP", "250");
    let records = "SELECT count(*) FROM audit_log WHERE action = 'credential.revoke'";
    assert_eq!(dashboard.number(records), Some(2));

    visit.open(&format!("{LIST}?status=revoked"));
    visit.click("#bulk [name=all]");
    visit.submit("#bulk button[value=enable]");
    assert_eq!(visit.text("#count"), "2");
    visit.submit("#confirmed");
    assert_eq!(visit.path(), format!("{LIST}?status=revoked"));
    visit.told();
    for credential in [&one, &two, &three] {
        dashboard.accepts(credential);
    }
}

fn all_of_a_list_is_deleted_after_its_number_is_typed(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    let kept = create(&visit, "Printer");
    let made: Vec<_> = (0..60)
        .map(|number| {
            let name = format!("Trial {number}");
            let create = ["credential", "create", "--name", &name];
            let document = dashboard.daemon.json(&create);
            crate::support::site::Credential::from_json(document.to_string().as_bytes())
        })
        .collect();
    visit.open(&format!("{LIST}?q=trial"));
    visit.click("#bulk [name=all]");
    visit.submit("#bulk button[value=delete]");
    assert_eq!(visit.text("#count"), "60");
    assert!(visit.text("#selected").contains("and 40 more"));

    // A credential that no longer passes the filter stays, and so does one made later.
    let late = create_elsewhere(&dashboard, "Trial, late");
    let renamed = ["credential", "rename", &made[0].username, "Keeper"];
    dashboard.daemon.succeed(&renamed);
    visit.fill("main [name=confirm]", "6");
    visit.submit("#confirmed");
    visit.wrong("confirm");
    assert_eq!(
        dashboard.number("SELECT count(*) FROM credentials"),
        Some(62)
    );
    visit.fill("main [name=confirm]", "60");
    visit.submit("#confirmed");
    let told = visit.told();
    assert!(told.contains("Deleted 59 credentials."), "{told}");
    assert!(
        told.contains("1 credential is no longer like the list"),
        "{told}"
    );
    for credential in [&kept, &late, &made[0]] {
        dashboard.accepts(credential);
    }
    dashboard.refuses(&made[1]);
}

fn create_elsewhere(dashboard: &Dashboard, name: &str) -> crate::support::site::Credential {
    let document = dashboard
        .daemon
        .json(&["credential", "create", "--name", name]);
    crate::support::site::Credential::from_json(document.to_string().as_bytes())
}

fn ticked_credentials_expire(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    let [one, two] = ["One", "Two"].map(|name| create(&visit, name));
    visit.open(LIST);
    visit.click(&tick(&one.username));
    visit.submit("#bulk button[value=expire]");
    visit.set("main [name=expires_at]", "2001-01-01T12:00");
    visit.submit("#confirmed");
    visit.wrong("expires_at");
    visit.set("main [name=expires_at]", "2099-01-01T12:00");
    visit.submit("#confirmed");
    visit.told();
    let ends = "SELECT group_concat(username) FROM credentials WHERE expires_at IS NOT NULL";
    let found: String = dashboard
        .store()
        .query_row(ends, [], |row| row.get(0))
        .unwrap();
    assert_eq!(found, one.username);
    dashboard.accepts(&two);
}

#[test]
fn the_forms_are_for_visitors_who_may_change_and_for_their_own_selections() {
    let dashboard = Dashboard::start();
    let one = dashboard.daemon.create();
    let mut reader = dashboard.plain_signed_in(&dashboard.token_for("org:default:read"));
    let list = reader.get(LIST).expect(200);
    assert!(!list.body.contains("type=\"checkbox\"") && !list.actions().contains(&BULK.to_owned()));
    dashboard
        .daemon
        .succeed(&["organization", "create", "acme"]);
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let form = plain.get(LIST).expect(200).hidden(BULK);
    let csrf = form.iter().find(|(name, _)| name == "csrf").unwrap();
    let fields = [("action", "revoke"), ("username", &*one.username)];
    plain.post(BULK, &fields).expect(403);
    let signed = [&fields[..], &[("csrf", &csrf.1)]].concat();
    let asked = plain.post(BULK, &signed).expect(200);
    let hidden = asked.hidden(CONFIRMED);
    let own = |name: &str| {
        let found = hidden.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.clone()).unwrap()
    };
    let (csrf, selection) = (own("csrf"), own("selection"));
    let confirm = [("action", "revoke"), ("selection", &*selection)];
    plain.post(CONFIRMED, &confirm).expect(403);

    // A selection is of the visitor who made it, and of its organization.
    let mut other = dashboard.plain_signed_in(&dashboard.token);
    let foreign = other.get(LIST).expect(200).hidden(BULK);
    let foreign = foreign.iter().find(|(name, _)| name == "csrf").unwrap();
    let stolen = [&confirm[..], &[("csrf", &foreign.1)]].concat();
    other.post(CONFIRMED, &stolen).expect(412);
    let elsewhere = CONFIRMED.replace("default", "acme");
    let signed = [&confirm[..], &[("csrf", &*csrf)]].concat();
    plain.post(&elsewhere, &signed).expect(412);
    dashboard.accepts(&one);
    assert_eq!(plain.post(CONFIRMED, &signed).location(), LIST);
    dashboard.refuses(&one);
    plain.post(CONFIRMED, &signed).expect(412);
}
