//! Limits over usage from before the start, against a real store.

use super::counter::{Enforcement, note};
use super::*;
use crate::clock::driven::Driven;
use crate::policy::{Party, Setting};
use crate::store::{Actor, NewCredential};

struct Site {
    quotas: Quotas,
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            quotas: Self::open(directory.path()),
            directory,
        }
    }

    fn open(directory: &std::path::Path) -> Quotas {
        let store = Arc::new(Store::open(&directory.join("gatepost.db")).unwrap());
        let metrics = Arc::new(Metrics::new().unwrap());
        let noted = Arc::new(ActivityBatch::new(100, metrics.clone()));
        Quotas::new(store, noted, metrics, Defaults::default())
    }

    fn stop(&self) {
        self.quotas.activity.flush(&self.quotas.store);
    }

    fn start(&mut self) {
        self.quotas = Self::open(self.directory.path());
    }

    /// Sends a message, unless the limit of `party` is reached.
    fn send(&self, key: i64, party: Party, limits: &Limits) -> bool {
        let own = |of| match of == party {
            true => limits.over(&Limits::default()),
            false => Ceilings::default(),
        };
        let quotas = &self.quotas;
        let sides = [
            (Owner::Credential(key), own(Party::Credential)),
            (
                Owner::Organization("default".into()),
                own(Party::Organization),
            ),
        ];
        let sides = sides.map(|(owner, ceilings)| {
            let counter = quotas.counter(&owner);
            if ceilings.look_back() {
                quotas.read(&owner, &counter).unwrap();
            }
            (counter, ceilings)
        });
        let (now, one) = (
            Moment::now(),
            MailCount {
                messages: 1,
                recipients: 1,
            },
        );
        let mut overs = sides.iter().map(|(counter, ceilings)| {
            let over = counter.take_message(ceilings, now, Enforcement::Reject);
            over.is_none()
        });
        if !overs.all(|is_free| is_free) {
            // Only the rejecting party has a limit; the other party releases its reservation.
            if party == Party::Organization {
                sides[0].0.release(one);
            }
            return false;
        }
        let usage = Usage {
            messages: 1,
            recipients: 1,
            ..Usage::default()
        };
        let [(credential, _), (organization, _)] = &sides;
        note([credential, organization], now, one, one, || {
            quotas.activity.sent(key, now.wall, &usage);
        });
        true
    }

    fn organization(&self, slug: &str) {
        let actor = Actor::system("tests");
        let editor = self.quotas.store.by(&actor);
        editor.create_organization(slug, None).unwrap();
    }

    fn credential(&self, username: &str, organization: &str) -> i64 {
        let new = NewCredential {
            username,
            password_hash: "$hash",
            tag: None,
            organization,
            name: None,
            expires_at: None,
            limits: None,
            rules: None,
        };
        let actor = Actor::system("tests");
        let editor = self.quotas.store.by(&actor);
        editor.create_credential(new).unwrap().key
    }

    fn sent(&self, key: i64, messages: u64) {
        let usage = Usage {
            messages,
            ..Usage::default()
        };
        self.quotas.activity.sent(key, clock::now_ms(), &usage);
    }

    fn in_a_day(&self, organization: &str) -> Option<u64> {
        let mut limits = Limits::default();
        limits.set(Limit::MessagesPerDay, Some(Setting::Number(100)));
        let uses = self.quotas.uses_of_organization(organization, &limits);
        uses.unwrap()[0].used
    }
}

#[test]
fn an_organization_counts_what_waits_and_cannot_be_written() {
    let site = Site::new();
    site.organization("acme");
    site.organization("other");
    let (one, two) = (
        site.credential("smtp_a", "acme"),
        site.credential("smtp_b", "acme"),
    );
    let others = site.credential("smtp_c", "other");
    site.sent(one, 1);
    site.quotas.activity.flush(&site.quotas.store);
    site.quotas
        .store
        .shell("CREATE TRIGGER full BEFORE INSERT ON usage BEGIN SELECT RAISE(ABORT, 'full'); END");
    site.sent(one, 2);
    site.sent(two, 4);
    site.sent(others, 8);
    assert_eq!(site.in_a_day("acme"), Some(7));
    // Once the store can be written, no usage is lost or counted twice.
    site.quotas.store.shell("DROP TRIGGER full");
    assert_eq!(site.in_a_day("other"), Some(8));
    site.quotas.activity.flush(&site.quotas.store);
    let since = |slug| {
        let of = UsageOf::Organization(slug);
        let rows = site.quotas.store.usage(of, Span::Day, 0, i64::MAX).unwrap();
        rows.iter().map(|(_, usage)| usage.messages).sum::<u64>()
    };
    assert_eq!((since("acme"), since("other")), (7, 8));
    assert_eq!(site.in_a_day("acme"), Some(7));
}

#[tokio::test]
async fn a_message_too_large_is_reported_for_each_limit() {
    let site = Site::new();
    let key = site.credential("smtp_a", "default");
    let of = |octets| {
        let mut limits = Limits::default();
        limits.set(Limit::MessageSize, Some(Setting::Number(octets)));
        limits
    };
    let told = |quotas: &Quotas| {
        let text = String::from_utf8(quotas.metrics.render().unwrap()).unwrap();
        let limits = text.lines().filter(|line| {
            line.starts_with("gatepost_limit_refusals_total{") && line.contains("message_size")
        });
        let told = limits.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        told.collect::<Vec<_>>()
    };
    let quotas = Arc::new(site.quotas);
    let mut counts = Vec::new();
    for (own, organization, report) in [(10, 5, true), (10, 5, false), (5, 10, true)] {
        let rules = match report {
            true => r#"{"report":["limits"]}"#,
            false => "{}",
        };
        let policy = Policy {
            limits: of(own),
            organization_limits: of(organization),
            rules: serde_json::from_str(rules).unwrap(),
            ..Policy::default()
        };
        let identity = Arc::new(Identity {
            key,
            username: "smtp_a".into(),
            organization: "default".into(),
            policy: Arc::new(policy),
        });
        let session = quotas.enter(&identity, quotas.store.epoch()).await;
        session.unwrap_or_else(|_| panic!("no session")).sized(11);
        counts.push(told(&quotas));
    }
    // Refused by the credential's and by the organization's, then reported.
    assert_eq!(counts, [[0, 1, 1], [0, 2, 1], [0, 3, 2]]);
}

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * HOUR;

/// An event of the clocks or the process.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Time passes, by both clocks.
    Pass(i64),
    /// The wall clock is stepped.
    Step(i64),
    /// The process stops, the wall clock is stepped meanwhile, and the next process starts.
    Restart(i64),
}

use Event::{Pass, Restart, Step};

/// Each begins in the middle of a day. Whatever the wall clock does, the limit holds for the
/// elapsed time.
const SEQUENCES: &[&[Event]] = &[
    &[],
    &[Restart(0)],
    // Ahead and back, in the same process.
    &[Step(2 * HOUR), Step(-2 * HOUR)],
    &[Step(2 * DAY), Pass(MINUTE), Step(-2 * DAY)],
    &[Step(40 * DAY), Pass(MINUTE), Step(-40 * DAY)],
    &[
        Step(5 * DAY + 13 * HOUR + 50 * MINUTE),
        Pass(MINUTE),
        Step(-3 * DAY),
    ],
    // Behind, and set right.
    &[Step(-2 * DAY), Pass(MINUTE), Step(2 * DAY)],
    &[Restart(-2 * DAY), Pass(MINUTE), Step(2 * DAY)],
    &[
        Restart(-2 * DAY),
        Pass(MINUTE),
        Step(2 * DAY),
        Pass(MINUTE),
        Restart(0),
    ],
    &[Restart(-40 * DAY), Pass(MINUTE), Restart(40 * DAY)],
    // Ahead over a restart, and back before, between or after.
    &[Step(2 * HOUR), Restart(-2 * HOUR)],
    &[Step(30 * DAY), Step(-30 * DAY), Restart(0)],
    &[
        Step(30 * DAY),
        Restart(-30 * DAY),
        Restart(0),
        Pass(MINUTE),
        Restart(0),
    ],
    &[Restart(2 * DAY), Pass(MINUTE), Restart(-2 * DAY)],
    &[Restart(2 * DAY), Restart(2 * DAY), Restart(2 * DAY)],
    &[Restart(40 * DAY)],
    // LimitReached the begin of a month, by a step alone.
    &[
        Step(5 * DAY + 13 * HOUR + 31 * MINUTE),
        Restart(0),
        Step(-5 * DAY),
    ],
    &[
        Pass(MINUTE),
        Restart(5 * DAY + 13 * HOUR + 31 * MINUTE),
        Restart(-5 * DAY),
    ],
    // To both ends of time.
    &[
        Step(-100_000 * DAY),
        Pass(MINUTE),
        Restart(0),
        Step(100_000 * DAY),
    ],
    &[
        Step(3_000_000 * DAY),
        Pass(MINUTE),
        Restart(0),
        Step(-3_000_000 * DAY),
    ],
    // Many small steps.
    &[
        Step(MINUTE),
        Step(-3 * MINUTE),
        Restart(HOUR),
        Step(-HOUR),
        Restart(MINUTE),
        Step(MINUTE),
    ],
];

#[test]
fn no_sequence_of_clock_steps_and_restarts_passes_a_limit_or_outlasts_its_window() {
    for events in SEQUENCES {
        for party in [Party::Credential, Party::Organization] {
            // The ceiling, the window, and the excess by which the window may hold: periods are
            // whole minutes or hours.
            for (limit, ceiling, window, more) in [
                (Limit::MessagesPerHour, 3, HOUR, MINUTE),
                (Limit::MessagesPerDay, 5, DAY, HOUR),
                (Limit::MessagesPerMonth, 7, 31 * DAY, HOUR),
            ] {
                let told = format!("{limit:?} of {party:?} with {events:?}");
                let start = "2026-11-25T10:30:00Z".parse::<jiff::Timestamp>().unwrap();
                let clocks = Driven::at(start.as_millisecond());
                let mut site = Site::new();
                let key = site.credential("smtp_a", "default");
                let mut limits = Limits::default();
                limits.set(limit, Some(Setting::Number(ceiling)));
                let mut sent = 0;
                let mut burst = |site: &Site| {
                    for _ in 0..10 {
                        sent += u64::from(site.send(key, party, &limits));
                    }
                    site.stop();
                };
                burst(&site);
                for event in *events {
                    match event {
                        Pass(time) => clocks.pass(*time),
                        Step(time) => clocks.step(*time),
                        Restart(time) => {
                            clocks.step(*time);
                            clocks.restart();
                            site.start();
                        }
                    }
                    burst(&site);
                }
                assert_eq!(sent, ceiling, "{told}");
                clocks.pass(window + more);
                assert!(site.send(key, party, &limits), "locked out: {told}");
            }
        }
    }
}

#[test]
fn hours_of_the_future_that_nothing_explains_count_as_just_sent_and_for_one_window() {
    for (limit, window) in [
        (Limit::MessagesPerHour, HOUR + MINUTE),
        (Limit::MessagesPerDay, 25 * HOUR),
        (Limit::MessagesPerMonth, 31 * DAY),
    ] {
        let start = "2026-11-25T10:30:00Z".parse::<jiff::Timestamp>().unwrap();
        let clocks = Driven::at(start.as_millisecond());
        let mut site = Site::new();
        let key = site.credential("smtp_a", "default");
        let mut limits = Limits::default();
        limits.set(limit, Some(Setting::Number(2)));
        let send = |site: &Site| site.send(key, Party::Credential, &limits);
        assert!(send(&site) && send(&site) && !send(&site));
        site.stop();
        // As if written by another machine.
        site.quotas
            .store
            .shell("UPDATE usage SET hour = hour + 720");
        clocks.reboot();
        site.start();
        assert!(!send(&site), "{limit:?}");
        clocks.pass(window);
        assert!(send(&site), "{limit:?}");
    }
}

/// A machine without a battery for the clock starts in 1970 and learns the time later.
#[test]
fn what_was_sent_before_a_start_in_the_past_is_dated_once_the_clock_is_right() {
    let start = "2026-11-25T10:30:00Z".parse::<jiff::Timestamp>().unwrap();
    let clocks = Driven::at(start.as_millisecond());
    let mut site = Site::new();
    let key = site.credential("smtp_a", "default");
    let mut limits = Limits::default();
    limits.set(Limit::MessagesPerHour, Some(Setting::Number(3)));
    limits.set(Limit::MessagesPerMonth, Some(Setting::Number(3)));
    let send = |site: &Site| site.send(key, Party::Credential, &limits);
    assert!(send(&site) && send(&site));
    site.stop();
    clocks.step(10 * DAY - clocks.wall());
    clocks.reboot();
    site.start();
    assert!(send(&site), "two were sent before");
    assert!(
        !send(&site),
        "three were sent in the hour, for all that is known"
    );
    // The machine was off until the next month.
    clocks.step(start.as_millisecond() + 12 * DAY - clocks.wall());
    assert!(
        send(&site) && send(&site),
        "only the one since the start counts"
    );
    assert!(!send(&site));
}
