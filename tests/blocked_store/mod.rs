//! The store cannot be written: another process has it locked, or a sync of our own hangs. What
//! takes access away counts at once, logins are decided by what can be read, and the end comes in
//! time.

mod commands;
mod logins;
mod narrowing;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::{Answer, DEFAULT, Served, issued};
use crate::support::client::Client;
use crate::support::lock::Lock;
use crate::support::shim::Shim;
use crate::support::site::{Config, Credential};
use crate::support::upstream::Upstream;

/// A second is promised, and a machine that compiles meanwhile adds to it.
const ANSWERED_WITHIN: Duration = Duration::from_millis(1_800);

/// The promise for a login.
const DECIDED_WITHIN: Duration = Duration::from_secs(2);

/// A daemon with its administration on TCP and on a socket, whose disk can be made to hang.
struct Blocked {
    served: Served,
    shim: Shim,
    _upstream: Upstream,
    _directory: TempDir,
}

impl Blocked {
    fn start() -> Blocked {
        Blocked::start_with(|config| config)
    }

    fn start_with(change: impl FnOnce(Config) -> Config) -> Blocked {
        let (upstream, directory) = (Upstream::start(), tempfile::tempdir().unwrap());
        let (shim, socket) = (Shim::new(), directory.path().join("admin.sock"));
        let arrange = |config: Config| {
            change(config.text("admin", "socket", socket.to_str().expect("UTF-8")))
        };
        Blocked {
            served: Served::launch(&upstream, arrange, |command| shim.preload(command)),
            shim,
            _upstream: upstream,
            _directory: directory,
        }
    }

    fn lock(&self) -> Lock {
        Lock::take(&self.served.daemon.store())
    }

    /// Has the disk hang, with a change of our own that waits for it as long as what this returns
    /// is kept.
    fn stall(&self) -> TcpStream {
        self.shim.stall();
        let name = json!({ "name": "waits for the disk" });
        let rename = "PATCH /api/v1/organizations/default";
        let waiting = self.served.begin(rename, &name);
        self.shim.wait_until_stalled();
        waiting
    }

    fn create(&self) -> Credential {
        self.create_in("default")
    }

    fn create_in(&self, slug: &str) -> Credential {
        let create = format!("POST /api/v1/organizations/{slug}/credentials");
        issued(&self.served.admin(&create, None).expect(201))
    }

    /// Asks, and must be answered in time.
    #[track_caller]
    fn ask(&self, request: &str, body: Option<Value>) -> Answer {
        let begun = Instant::now();
        let answer = self.served.admin(request, body);
        let took = begun.elapsed();
        assert!(took < ANSWERED_WITHIN, "{request} took {took:?}");
        answer
    }

    /// The change counts, and is not written.
    #[track_caller]
    fn narrows(&self, request: &str, body: Option<Value>) {
        self.ask(request, body)
            .problem(507, "effective-not-durable");
    }

    #[track_caller]
    fn refuses(&self, credential: &Credential) {
        self.served.log_in(credential).expect("535 5.7.8");
    }

    #[track_caller]
    fn accepts(&self, credential: &Credential) {
        self.served.log_in(credential).expect("235");
    }

    fn live(&self, credential: &Credential) -> Client {
        Client::logged_in(&self.served.daemon, credential)
    }

    /// What a command that reads has to say.
    fn shown(&self, credential: &Credential) -> Value {
        let show = ["credential", "show", &credential.username];
        self.served.daemon.json(&show)
    }
}

fn one(credential: &Credential) -> String {
    format!("{DEFAULT}/{}", credential.username)
}
