//! The pages while the wall clock is at an end of the calendar.

use std::sync::Arc;

use super::Dashboard;
use super::plain::Plain;
use crate::support::client::Client;
use crate::support::faketime::WallClock;
use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::site::{Config, Site};
use crate::support::upstream::Upstream;

#[test]
fn every_page_is_shown_at_both_ends_of_time() {
    for time in [
        "1970-01-01 00:00:05",
        "9998-12-31 23:59:50",
        "9999-12-30 12:00:00",
    ] {
        let upstream = Upstream::start();
        let address = ports::free_address();
        let config = Config::for_upstream(upstream.address);
        let site = Site::new(config.text("admin", "listen", &address.to_string()));
        let site = Arc::new(site);
        let clock = WallClock::new(site.path("clock"));
        clock.start_at(time);
        let mut dashboard = Dashboard {
            daemon: Gatepost::launch(&site, |command| clock.give(command)),
            address,
            token: String::new(),
            _upstream: upstream,
        };
        dashboard.token = dashboard.token_for("instance:admin");
        let credential = site.create();
        drop(Client::logged_in(&dashboard.daemon, &credential));
        let mut visitor = Plain::new(&dashboard);
        visitor.sign_in(&dashboard.token);
        let own = format!("{}/{}", super::LIST, credential.username);
        for path in [
            "/",
            super::LIST,
            &own,
            "/audit",
            "/sessions",
            "/guard",
            "/tokens",
        ] {
            visitor.get(path).expect(200);
        }
    }
}
