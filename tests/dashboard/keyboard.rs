//! A hand on the keyboard and none on the mouse.

use serde_json::json;

use super::Dashboard;
use super::visit::Visit;
use crate::support::browser::Scripts;
use crate::support::site::Credential;

const TAB: &str = "\u{e004}";

/// Whether the focus is seen; in a field for a time the browser itself marks the part that has it.
const FOCUS: &str = "const one = document.activeElement;
    const style = getComputedStyle(one);
    const ring = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
    const own = one === document.body || one.type === 'datetime-local';
    return [one.matches(arguments[0]), own || ring || style.boxShadow !== 'none', one.outerHTML]";

/// Goes on with Tab until the element has the focus, which must be seen wherever it is.
#[track_caller]
fn tab_to(visit: &Visit, css: &str) {
    for _ in 0..60 {
        let focused = visit.run(FOCUS, json!([css]));
        assert_eq!(focused[1], true, "no focus is seen on {}", focused[2]);
        if focused[0] == true {
            return;
        }
        visit.press(TAB);
    }
    panic!("Tab does not lead to {css} on {}", visit.path());
}

#[test]
fn signing_in_and_creating_need_no_mouse() {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit(Scripts::Run);
    visit.open("/sign-in");
    tab_to(&visit, "#token");
    visit.press(&dashboard.token);
    visit.enter();
    visit.examine();

    visit.press(TAB);
    tab_to(&visit, "a.skip");
    visit.press("\u{e007}");
    assert!(visit.path().ends_with("#main"));
    visit.press(TAB);
    let inside = visit.run(
        "return document.querySelector('main').contains(document.activeElement)",
        json!([]),
    );
    assert_eq!(inside, true, "the skip link skips nothing");

    visit.open("/");
    tab_to(&visit, "header nav a[href$='/credentials']");
    visit.enter();
    visit.examine();
    tab_to(&visit, "#new");
    visit.enter();
    visit.examine();
    tab_to(&visit, "main [name=name]");
    visit.press("Typed");
    tab_to(&visit, "#create");
    visit.enter();
    let made = Credential {
        username: visit.text("#username"),
        password: visit.text("#password"),
    };
    dashboard.daemon.remember(&made);
    dashboard.accepts(&made);

    visit.open(&dashboard.page_of(&made));
    tab_to(&visit, "#to-revoke");
    visit.enter();
    tab_to(&visit, "#revoke");
    visit.enter();
    visit.told();
    dashboard.refuses(&made);
    tab_to(&visit, "#sign-out button");
    visit.enter();
    assert!(visit.path().starts_with("/sign-in"));
}
