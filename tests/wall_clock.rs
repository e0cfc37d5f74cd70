//! The wall clock is wrong, is set right, and is wrong again: before a start, while Gatepost runs,
//! and between a stop and a start.

use std::process::Output;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use serde_json::Value;

use crate::limits::send;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::faketime::WallClock;
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::Upstream;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// What happens between two bursts of mail.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The clock is set so many seconds ahead of the right time.
    Set(i64),
    /// Gatepost stops, and starts when the clock is so many seconds ahead.
    Restart(i64),
    /// The same, after kill -9.
    Kill(i64),
}

use Event::{Kill, Restart, Set};

/// An installation whose daemon reads a clock of its own.
struct Clocked {
    clock: WallClock,
    site: Arc<Site>,
    daemon: Option<Gatepost>,
    _upstream: Upstream,
}

impl Clocked {
    fn start(ahead: i64) -> Clocked {
        let upstream = Upstream::start();
        let config = Config::for_upstream(upstream.address);
        let site = Arc::new(Site::new(config.text(
            "last_used",
            "flush_interval",
            "50ms",
        )));
        let mut clocked = Clocked {
            clock: WallClock::new(site.path("clock")),
            site,
            daemon: None,
            _upstream: upstream,
        };
        clocked.serve(ahead);
        clocked
    }

    fn serve(&mut self, ahead: i64) {
        self.clock.ahead_by(ahead);
        let clock = &self.clock;
        let daemon = Gatepost::launch(&self.site, |command| clock.give(command));
        self.daemon = Some(daemon);
    }

    fn daemon(&self) -> &Gatepost {
        self.daemon.as_ref().expect("a running daemon")
    }

    fn stop(&mut self) {
        let daemon = self.daemon.take().expect("a running daemon");
        daemon.signal(Signal::TERM);
        assert!(daemon.wait().success());
    }

    fn happen(&mut self, event: Event) {
        match event {
            Set(ahead) => self.clock.ahead_by(ahead),
            Restart(ahead) => {
                self.stop();
                self.serve(ahead);
            }
            Kill(ahead) => {
                self.wait_until_written();
                self.daemon.take().expect("a running daemon").kill();
                self.serve(ahead);
            }
        }
    }

    /// Waits until the store has what was sent: another message of the same kind is behind it.
    fn wait_until_written(&self) {
        let count = || {
            let store = rusqlite::Connection::open(self.site.store()).expect("the store");
            let sum = "SELECT coalesce(sum(accepted), 0) FROM usage";
            store
                .query_row(sum, [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        let before = count();
        let other = self.site.create();
        drop(Client::logged_in(self.daemon(), &other));
        eventually("the usage is written", || (count() > before).then_some(()));
    }

    /// Sends until a message is refused, or far too many are not. How many were taken.
    fn burst(&self, credential: &Credential) -> usize {
        let mut client = Client::logged_in(self.daemon(), credential);
        let taken = (0..10).take_while(|_| send(&mut client).starts_with("250"));
        taken.count()
    }

    /// Runs a subcommand by the same clock, which must not panic.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.clock.give(self.site.command(arguments));
        let output = command.output().expect("run gatepost");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        output
    }

    fn create_in(&self, organization: &str) -> Credential {
        let create = ["credential", "create", "--org", organization, "--json"];
        Credential::from_json(self.site.succeed(&create).as_bytes())
    }
}

/// The limit holds for the time that really passed, which is next to nothing here.
#[test]
fn no_step_of_the_clock_lets_more_through_than_a_limit_allows() {
    let sequences: &[(i64, &[Event])] = &[
        // Ahead, and back.
        (0, &[Set(2 * HOUR), Set(0), Restart(0)]),
        (0, &[Set(2 * DAY), Set(0), Kill(0)]),
        (0, &[Set(40 * DAY), Set(0)]),
        (0, &[Set(30 * DAY), Set(0), Restart(0)]),
        // Behind at the start, and set right.
        (-2 * DAY, &[Set(0), Restart(0)]),
        (-2 * DAY, &[Restart(0)]),
        // Set while Gatepost is down.
        (0, &[Restart(2 * DAY), Restart(0)]),
        (0, &[Restart(-2 * DAY), Set(0), Kill(40 * DAY)]),
        (
            0,
            &[Kill(40 * DAY), Set(0), Set(-40 * DAY), Restart(2 * HOUR)],
        ),
    ];
    for (ahead, events) in sequences {
        let mut clocked = Clocked::start(*ahead);
        for organization in ["hour", "day", "month"] {
            clocked
                .site
                .succeed(&["organization", "create", organization]);
        }
        let limit = |of: &str, which: &str, limit: &str, number: &str| {
            clocked.site.succeed(&[of, "limit", which, limit, number]);
        };
        // Each limit as the organization's and as the credential's.
        let mut limited = Vec::new();
        for (organization, name, number) in [
            ("hour", "--messages-per-hour", 3),
            ("day", "--messages-per-day", 4),
            ("month", "--messages-per-month", 5),
        ] {
            let number_text = number.to_string();
            limit("organization", organization, name, &number_text);
            limited.push((clocked.create_in(organization), number, 0, name));
            if organization == "month" {
                continue; // Credentials have no limit of the month.
            }
            let own = clocked.create_in("default");
            limit("credential", &own.username, name, &number_text);
            limited.push((own, number, 0, name));
        }
        let burst = |clocked: &Clocked, limited: &mut Vec<(Credential, usize, usize, &str)>| {
            for (credential, _, taken, _) in limited {
                *taken += clocked.burst(credential);
            }
        };
        burst(&clocked, &mut limited);
        for event in *events {
            clocked.happen(*event);
            burst(&clocked, &mut limited);
        }
        for (_, number, taken, name) in &limited {
            assert_eq!(taken, number, "{name}: {ahead} {events:?}");
        }
    }
}

#[test]
fn a_last_use_is_never_of_the_future() {
    let mut clocked = Clocked::start(0);
    let credential = clocked.site.create();
    let log_in = |clocked: &Clocked| drop(Client::logged_in(clocked.daemon(), &credential));
    let shown = |clocked: &Clocked| {
        let shown = clocked
            .site
            .json(&["credential", "show", &credential.username]);
        let at = match &shown["last_used"]["at"] {
            Value::String(at) => at.parse::<Timestamp>().expect("a time"),
            other => panic!("no time: {other}"),
        };
        (at, shown["last_used"]["count"].as_u64().unwrap())
    };
    let begun = Timestamp::now();
    clocked.clock.ahead_by(2 * DAY);
    log_in(&clocked);
    clocked.wait_until_written();
    clocked.clock.ahead_by(0);
    let (at, count) = shown(&clocked);
    assert!(begun <= at && at <= Timestamp::now(), "{at}");
    assert_eq!(count, 1);
    // A restart changes nothing, and the next use is the latest.
    clocked.happen(Restart(0));
    let (at, _) = shown(&clocked);
    assert!(at <= Timestamp::now(), "{at}");
    log_in(&clocked);
    clocked.wait_until_written();
    let after = Timestamp::now();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let (at, count) = shown(&clocked);
    assert!(
        at <= after && at > after - SignedDuration::from_secs(60),
        "{at}"
    );
    assert_eq!(count, 2);
}

/// Nothing panics at either end of the calendar, and mail flows.
#[test]
fn it_works_at_both_ends_of_time() {
    for time in [
        "1970-01-01 00:00:05",
        "9998-12-31 23:59:50",
        "9999-12-30 12:00:00",
    ] {
        let mut clocked = Clocked::start(0);
        let credential = clocked.site.create();
        let limit = ["credential", "limit", &credential.username];
        let limits = ["--messages-per-hour", "3", "--messages-per-day", "3"];
        clocked.site.succeed(&[&limit[..], &limits].concat());
        clocked.stop();
        clocked.clock.start_at(time);
        let clock = &clocked.clock;
        clocked.daemon = Some(Gatepost::launch(&clocked.site, |command| {
            clock.give(command)
        }));
        assert_eq!(clocked.burst(&credential), 3, "{time}");
        let rotate = ["credential", "rotate", &credential.username];
        let output = clocked.run(&[&rotate[..], &["--overlap", "1h", "--json"]].concat());
        assert!(output.status.success(), "{time}: {output:?}");
        let rotated = Credential::from_json(&output.stdout);
        clocked.site.remember(&rotated);
        eventually("the rotation counts", || {
            let mut client = Client::submissions(clocked.daemon());
            client.expect("EHLO client.example", "250");
            client.auth_plain(&rotated).starts_with("235").then_some(())
        });
        for own in [&credential, &rotated] {
            assert_eq!(clocked.burst(own), 0, "{time}");
        }
        for arguments in [
            &["credential", "list"][..],
            &["credential", "show", &credential.username],
            &["audit", "list"],
            &["guard", "list"],
            &["refusals", "list"],
            &["token", "list"],
            &[
                "explain",
                "--username",
                &credential.username,
                "--from",
                "192.0.2.1",
            ],
        ] {
            clocked.run(arguments);
        }
        clocked.happen(Restart(0));
        assert_eq!(clocked.burst(&rotated), 0, "{time}");
    }
}
