//! The dashboard, in a real browser where a person would use one and over plain HTTP where somebody else might.

mod bulk;
mod charts;
mod cookie;
mod credentials;
mod csv;
mod forged;
mod gallery;
mod headers;
mod hostile;
mod http;
mod import;
mod keyboard;
mod limits;
mod many;
mod names;
mod networks;
mod organizations;
mod page;
mod plain;
mod proxied;
mod refusals;
mod rotation;
mod scopes;
mod sessions;
mod sign_in;
mod socket;
mod strangers;
mod times;
mod tokens;
mod visit;
mod wall_clock;

use std::net::SocketAddr;

use rusqlite::Connection;

use crate::support::browser::Scripts;
use crate::support::client::{Client, Reply};
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Credential};
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, ports};
use plain::Plain;
use visit::Visit;

/// Settings > SMTP Credentials of the organization that is always there.
const LIST: &str = "/organizations/default/credentials";

/// Makes of each flow two tests: it must work where scripts run, and where they do not.
macro_rules! with_and_without_scripts {
    ($($flow:ident),*) => {
        mod with_scripts {
            $(#[test] fn $flow() { super::$flow(crate::support::browser::Scripts::Run) })*
        }
        mod without_scripts {
            $(#[test] fn $flow() { super::$flow(crate::support::browser::Scripts::Blocked) })*
        }
    };
}
use with_and_without_scripts;

/// A daemon with its dashboard on TCP, and a token for everything.
struct Dashboard {
    daemon: Gatepost,
    address: SocketAddr,
    token: String,
    _upstream: Upstream,
}

impl Dashboard {
    fn start() -> Dashboard {
        Dashboard::start_with(|config| config)
    }

    fn start_with(arrange: impl FnOnce(Config) -> Config) -> Dashboard {
        let upstream = Upstream::start();
        let address = ports::free_address();
        let config = Config::for_upstream(upstream.address);
        let config = config.text("admin", "listen", &address.to_string());
        let mut dashboard = Dashboard {
            daemon: Gatepost::start(arrange(config)),
            address,
            token: String::new(),
            _upstream: upstream,
        };
        dashboard.token = dashboard.token_for("instance:admin");
        dashboard
    }

    /// A token that is named for its scope.
    fn token_for(&self, scope: &str) -> String {
        let create = ["token", "create", "--name", scope, "--scope", scope];
        let made = self.daemon.json(&create);
        made["secret"].as_str().expect("a secret").to_owned()
    }

    /// Somebody with a browser, not signed in.
    fn visit(&self, scripts: Scripts) -> Visit<'_> {
        Visit::new(self, scripts)
    }

    /// Somebody with a browser who may do everything, on no page yet. Coming in by hand is tried in [`sign_in`].
    fn visit_signed_in(&self, scripts: Scripts) -> Visit<'_> {
        let visit = self.visit(scripts);
        visit.enter_as(&self.plain_signed_in(&self.token));
        visit
    }

    /// Something that speaks HTTP and is no browser.
    fn plain(&self) -> Plain<'_> {
        Plain::new(self)
    }

    /// The same with a session.
    fn plain_signed_in(&self, token: &str) -> Plain<'_> {
        let mut plain = self.plain();
        plain.sign_in(token);
        plain
    }

    /// The page of a credential in [`LIST`].
    fn page_of(&self, credential: &Credential) -> String {
        format!("{LIST}/{}", credential.username)
    }

    fn log_in(&self, credential: &Credential) -> Reply {
        let mut client = Client::submissions(&self.daemon);
        client.expect("EHLO dashboard.example.test", "250");
        client.auth_plain(credential)
    }

    #[track_caller]
    fn accepts(&self, credential: &Credential) {
        self.log_in(credential).expect("235");
    }

    #[track_caller]
    fn refuses(&self, credential: &Credential) {
        self.log_in(credential).expect("535 5.7.8");
    }

    /// The store, as another process has it.
    fn store(&self) -> Connection {
        let connection = Connection::open(self.daemon.store()).expect("open the store");
        connection.busy_timeout(PATIENCE).expect("set a timeout");
        connection
    }

    /// A number in the store.
    #[track_caller]
    fn number(&self, select: &str) -> Option<i64> {
        let row = self.store().query_row(select, [], |row| row.get(0));
        row.expect(select)
    }

    /// How often something was changed so far.
    fn changes(&self) -> i64 {
        self.number("SELECT count(*) FROM audit_log").unwrap()
    }
}
