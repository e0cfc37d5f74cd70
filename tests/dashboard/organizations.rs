//! Organizations, by hand.

use super::{Dashboard, with_and_without_scripts};
use crate::support::browser::Scripts;
use crate::support::client::Client;

with_and_without_scripts!(an_organization_from_its_creation_to_its_end);

fn an_organization_from_its_creation_to_its_end(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    visit.open("/organizations");
    visit.fill("#new-organization [name=slug]", "Not A Slug");
    visit.run(
        "document.querySelectorAll('form').forEach(form => form.noValidate = true)",
        serde_json::json!([]),
    );
    visit.submit("#new-organization button");
    visit.wrong("slug");
    assert_eq!(visit.value("#new-organization [name=slug]"), "Not A Slug");
    visit.fill("#new-organization [name=slug]", "acme");
    visit.fill("#new-organization [name=name]", "Acme Ltd");
    visit.submit("#new-organization button");
    visit.told();
    visit.open("/organizations");
    let table = visit.text("#organizations");
    assert!(
        table.contains("acme") && table.contains("Acme Ltd"),
        "{table}"
    );
    visit.fill("#new-organization [name=slug]", "acme");
    visit.submit("#new-organization button");
    visit.wrong("slug");

    let page = "/organizations/acme";
    visit.open(page);
    assert_eq!(visit.value("#rename [name=name]"), "Acme Ltd");
    visit.fill("#rename [name=name]", "Acme GmbH");
    visit.submit("#rename button");
    visit.told();
    assert_eq!(visit.value("#rename [name=name]"), "Acme GmbH");

    visit.open("/organizations/acme/credentials/new");
    let made = visit.submit_for_credential("#create");
    let mut live = Client::logged_in(&dashboard.daemon, &made);
    visit.open(page);
    assert!(!visit.has("#activate"));
    visit.submit("#suspend button");
    visit.told();
    dashboard.refuses(&made);
    live.expect("NOOP", "250");
    assert!(!visit.has("#suspend"));
    visit.submit("#activate button");
    visit.told();
    dashboard.accepts(&made);
    visit.click("#suspend [name=disconnect]");
    visit.submit("#suspend button");
    visit.told();
    live.reply().expect("421 4.7.0");

    visit.fill("#delete [name=confirm]", "acm");
    visit.submit("#delete button");
    visit.wrong("confirm");
    visit.fill("#delete [name=confirm]", "acme");
    visit.submit("#delete button");
    visit.told();
    assert_eq!(visit.path(), "/organizations");
    assert!(!visit.text("#organizations").contains("acme"));
    dashboard.refuses(&made);
    let left = dashboard.number("SELECT count(*) FROM organizations");
    assert_eq!(left, Some(1));
}
