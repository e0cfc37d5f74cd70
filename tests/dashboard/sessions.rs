//! Who is connected, what happened, and how things are.

use super::credentials::create;
use super::{Dashboard, with_and_without_scripts};
use crate::support::browser::Scripts;
use crate::support::client::Client;
use crate::support::ports;
use crate::support::upstream::Upstream;

with_and_without_scripts!(
    one_session_is_ended_and_the_other_is_not,
    the_audit_log_tells_who_did_what,
    the_overview_tells_how_things_are
);

fn one_session_is_ended_and_the_other_is_not(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    let (one, other) = (create(&visit, "One"), create(&visit, "Other"));
    let mut live =
        [&one, &other].map(|credential| Client::logged_in(&dashboard.daemon, credential));
    visit.open("/sessions");
    assert_eq!(visit.count("#sessions tbody tr"), 2);
    visit.open(&format!("/sessions?credential={}", one.username));
    assert_eq!(visit.count("#sessions tbody tr"), 1);
    visit.submit("#sessions form[action$='/disconnect'] button");
    visit.told();
    live[0].reply().expect("421 4.7.0");
    live[1].expect("NOOP", "250");

    visit.open(&dashboard.page_of(&other));
    assert!(
        visit.text("#last-used").contains("127.0.0.1"),
        "{}",
        visit.text("#last-used")
    );
    assert!(visit.text("#last-used").contains("client.example"));
    visit.submit("#live-sessions form[action$='/disconnect'] button");
    visit.told();
    live[1].reply().expect("421 4.7.0");
    visit.open(&dashboard.page_of(&other));
    assert!(
        visit.text("#trail").contains("session."),
        "{}",
        visit.text("#trail")
    );
    visit.open("/sessions");
    assert!(!visit.has("#sessions form[action$='/disconnect']"));
}

fn the_audit_log_tells_who_did_what(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit_signed_in(scripts);
    let (one, other) = (create(&visit, "One"), create(&visit, "Other"));
    visit.open("/audit");
    let log = visit.text("#audit");
    for word in [
        &one.username,
        &other.username,
        "instance:admin",
        "127.0.0.1",
    ] {
        assert!(log.contains(word), "no {word} in {log}");
    }
    visit.open(&format!("/audit?object={}", one.username));
    let log = visit.text("#audit");
    assert!(
        log.contains(&one.username) && !log.contains(&other.username),
        "{log}"
    );
    visit.open("/audit?action=token.");
    assert!(!visit.text("#audit").contains("credential."));

    for number in 0..120 {
        let name = format!("Name {number}");
        dashboard
            .daemon
            .succeed(&["credential", "rename", &one.username, &name]);
    }
    visit.open("/audit");
    let mut pages = Vec::new();
    loop {
        pages.extend(visit.texts("#audit tbody tr"));
        if !visit.has("a[rel=next]") {
            break;
        }
        visit.submit("a[rel=next]");
        assert!(pages.len() < 1_000, "the log does not end");
    }
    let all = dashboard.changes();
    assert_eq!(i64::try_from(pages.len()).unwrap(), all);
}

fn the_overview_tells_how_things_are(scripts: Scripts) {
    let upstream = Upstream::start();
    let (address, down) = (upstream.address, ports::free_address());
    let dashboard =
        Dashboard::start_with(|config| config.address(format!("[\"{down}\", \"{address}\"]")));
    let visit = dashboard.visit_signed_in(scripts);
    let made = create(&visit, "One");
    let _live = Client::logged_in(&dashboard.daemon, &made);
    visit.open("/");
    assert!(
        visit.text("#sessions-now").contains('1'),
        "{}",
        visit.text("#sessions-now")
    );
    for chart in ["#chart-messages svg", "#chart-refused svg"] {
        assert!(visit.has(chart), "no {chart}");
    }
    for part in ["#health-upstream", "#health-store", "#health-certificate"] {
        assert!(visit.is_shown(&format!("#health {part}")));
    }
    let health = visit.text("#health-upstream");
    for part in [
        format!("{down}: did not answer"),
        format!("{address}: answers"),
    ] {
        assert!(health.contains(&part), "{health}");
    }
    assert!(visit.text("#recent").contains(&made.username));
}
