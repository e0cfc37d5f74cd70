//! One peer under one order: what it took, and whether everything arrived.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::arguments::Way;
use crate::load::{self, Logins, Order, Outcome, Pace, Tls};
use crate::message::Message;
use crate::peer::Peer;
use crate::site::Site;

/// How long an order may take before the rest is called unfinished.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long the last connections and messages may take to reach the sink.
const SETTLING: Duration = Duration::from_secs(60);

/// Attempts made so far, over all orders: no wrong password is offered twice.
static ATTEMPTS: AtomicU64 = AtomicU64::new(0);

/// A peer, and what is offered to it.
pub struct Trial<'a> {
    pub site: &'a Site,
    pub peer: &'a Peer,
    way: Way,
    tls: Arc<rustls::ClientConfig>,
}

/// What came of it.
pub struct Result {
    pub outcome: Outcome,
    /// Processor time of the peer.
    pub cpu: Duration,
    /// What went wrong, by the generator's account and by the sink's. Nothing may.
    pub failures: u64,
}

impl<'a> Trial<'a> {
    pub fn new(site: &'a Site, peer: &'a Peer, way: Way) -> Trial<'a> {
        Trial {
            site,
            peer,
            way,
            tls: load::configuration(way.resumption),
        }
    }

    /// Sessions of good clients without messages.
    pub fn order(&self, concurrent: usize, sessions: u64) -> Order {
        let (target, tls) = match self.peer.starttls.filter(|_| self.way.starttls) {
            Some(address) => (address, Tls::Upgraded(Arc::clone(&self.tls))),
            None => (self.peer.implicit, Tls::Implicit(Arc::clone(&self.tls))),
        };
        order(self.site, target, tls, concurrent, sessions)
    }

    /// As [`Trial::order`], by attackers who leave once they are refused.
    pub fn hostile(&self, mut logins: Logins, concurrent: usize, sessions: u64) -> Order {
        logins.first = ATTEMPTS.fetch_add(10_000_000, Ordering::Relaxed);
        Order {
            logins,
            ..self.order(concurrent, sessions)
        }
    }

    /// Has every credential verified once, and what is made at first use made.
    pub fn warm_up(&self) {
        let order = self.order(4, 10 * self.site.warm.len() as u64);
        let result = self.work(&order);
        let (name, errors) = (self.peer.kind.name(), &result.outcome.errors);
        assert!(
            result.failures == 0 && result.outcome.accepted > 0,
            "{name} does not serve: {} accepted, {} refused, {} shed, {errors:?}",
            result.outcome.accepted,
            result.outcome.refused,
            result.outcome.shed,
        );
    }

    /// Carries the order out and waits until its last message has arrived.
    pub fn work(&self, order: &Order) -> Result {
        let before = self.peer.usage(false);
        let arrived = Arrived::now(self.site);
        let (outcome, held) = load::run(order).expect("the generator runs");
        drop(held);
        self.site
            .sink
            .settle(arrived.messages + outcome.messages, SETTLING);
        let after = self.peer.usage(false);
        let failures = arrived.failures(self.site, &outcome);
        Result {
            outcome,
            cpu: after.cpu.saturating_sub(before.cpu),
            failures,
        }
    }
}

fn order(site: &Site, target: SocketAddr, tls: Tls, concurrent: usize, sessions: u64) -> Order {
    Order {
        target,
        tls,
        logins: Logins::right(&site.warm),
        messages: 0,
        message: Arc::new(Message::new(4096)),
        pipelined: false,
        hold: false,
        pace: Pace::Closed {
            concurrent,
            sessions,
        },
        rest: Duration::ZERO,
        patience: PATIENCE,
        stop: Arc::new(AtomicBool::new(false)),
    }
}

/// What the generator does with the sink alone, without TLS: sessions of one message.
pub fn generator(site: &Site) -> Value {
    const SESSIONS: u64 = 4000;
    let order = Order {
        messages: 1,
        ..order(site, site.sink.address, Tls::None, 16, SESSIONS)
    };
    let arrived = Arrived::now(site);
    let (outcome, _) = load::run(&order).expect("the generator runs");
    site.sink
        .settle(arrived.messages + outcome.messages, SETTLING);
    json!({
        "sessions_per_second": SESSIONS as f64 / outcome.wall.as_secs_f64(),
        "cpu_ms_per_session": outcome.cpu.as_secs_f64() * 1e3 / SESSIONS as f64,
        "failures": arrived.failures(site, &outcome),
    })
}

/// The sink's account at one time.
pub struct Arrived {
    messages: u64,
    numbers: u64,
    spoilt: u64,
}

impl Arrived {
    pub fn now(site: &Site) -> Arrived {
        let counters = &site.sink.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Arrived {
            messages: read(&counters.messages),
            numbers: read(&counters.numbers),
            spoilt: read(&counters.damaged) + read(&counters.refused),
        }
    }

    /// How many things have gone wrong since, given what the generator saw.
    pub fn failures(&self, site: &Site, outcome: &Outcome) -> u64 {
        let now = Arrived::now(site);
        let lost = (now.messages - self.messages).abs_diff(outcome.messages);
        let others = now.numbers.wrapping_sub(self.numbers) != outcome.numbers;
        let spoilt = now.spoilt - self.spoilt;
        outcome.failures() + lost + u64::from(others) + spoilt
    }
}
