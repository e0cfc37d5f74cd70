//! Attackers of each kind beside good clients, as fast as the machine allows: whether good clients are let in, how soon, and
//! what the attack costs in memory.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::arguments::{Siege, Way};
use crate::column::{beside, not_let_in};
use crate::load::{Attempt, Logins, Order, Outcome, Pace, hostile_address, percentile};
use crate::machine;
use crate::peer::Peer;
use crate::report;
use crate::site::{Credential, Site};
use crate::trial::Trial;

/// Good clients that log in each second.
const GOOD_RATE: f64 = 50.0;

const HEAD: &str = "| attack | attempts/s | refused | p50 of that, ms | shed \
    | good logins | not let in | p50, ms | p99, ms | memory, MiB more |";

/// Which attempts on whose names.
const ATTACKS: [(&str, &[Attempt], Names); 7] = [
    ("unknown names", &[Attempt::Unknown], Names::Warm),
    ("malformed passwords", &[Attempt::Malformed], Names::Warm),
    ("wrong, on a cached name", &[Attempt::Wrong], Names::Warm),
    ("wrong, on a cold name", &[Attempt::Wrong], Names::Cold),
    ("right, but revoked", &[Attempt::Right], Names::Revoked),
    ("right, but expired", &[Attempt::Right], Names::Expired),
    (
        "all of them",
        &[Attempt::Unknown, Attempt::Malformed, Attempt::Wrong],
        Names::Both,
    ),
];

#[derive(Clone, Copy)]
enum Names {
    Warm,
    Cold,
    Both,
    Revoked,
    Expired,
}

impl Names {
    fn of(self, site: &Site) -> Arc<Vec<Credential>> {
        match self {
            Names::Warm => Arc::clone(&site.warm),
            Names::Cold => Arc::clone(&site.cold),
            Names::Revoked => Arc::clone(&site.revoked),
            Names::Expired => Arc::clone(&site.expired),
            Names::Both => {
                let both = site.warm.iter().chain(site.cold.iter());
                Arc::new(both.cloned().collect())
            }
        }
    }
}

/// Besieges, prints and writes.
pub fn run(siege: &Siege) {
    let site = Site::new();
    let peer = siege.peer.start(&site);
    eprintln!("{} is process {}", peer.kind.name(), peer.id());
    let way = Way {
        starttls: false,
        resumption: false,
    };
    let trial = Trial::new(&site, &peer, way);
    trial.warm_up();
    println!("{HEAD}\n|{}", "---|".repeat(HEAD.matches('|').count() - 1));
    let good = good(&trial, siege.seconds);
    let mut quiet = crate::load::run(&good).expect("the generator runs").0;
    let mut rows = vec![row("none", &mut quiet, &mut Outcome::default(), 0.0)];
    for (number, (name, attempts, names)) in (0..).zip(ATTACKS) {
        let logins = Logins {
            attempts: attempts.to_vec(),
            addresses: siege.addresses,
            address: NETWORKS[number],
            ..Logins::right(&names.of(&site))
        };
        let attackers = trial.hostile(logins, siege.attackers, u64::MAX);
        let before = memory(&peer);
        let (mut outcome, mut hostile) = beside(&good, &attackers);
        let grown = memory(&peer) - before;
        rows.push(row(name, &mut outcome, &mut hostile, grown));
        site.sink.settle(0, Duration::from_secs(10));
    }
    let path = siege.output.clone();
    let path = path.unwrap_or_else(|| report::default_path("-siege"));
    report::write(
        &path,
        &json!({
            "machine": machine::describe(),
            "version": peer.version,
            "attackers": siege.attackers,
            "addresses": siege.addresses,
            "rows": rows,
        }),
    );
}

/// Each attack comes from addresses of its own, because those of the last may be banned.
const NETWORKS: [fn(u64) -> std::net::Ipv4Addr; ATTACKS.len()] = [
    hostile_address,
    |number| hostile_address(8_000 + number),
    |number| hostile_address(16_000 + number),
    |number| hostile_address(24_000 + number),
    |number| hostile_address(32_000 + number),
    |number| hostile_address(40_000 + number),
    |number| hostile_address(48_000 + number),
];

fn good(trial: &Trial<'_>, seconds: u64) -> Order {
    Order {
        pace: Pace::Open {
            per_second: GOOD_RATE,
            sessions: (GOOD_RATE * seconds as f64) as u64,
        },
        ..trial.order(0, 0)
    }
}

fn memory(peer: &Peer) -> f64 {
    peer.usage(true).memory_kib as f64 / 1024.0
}

fn row(name: &str, good: &mut Outcome, hostile: &mut Outcome, grown: f64) -> Value {
    let attempts = hostile.refused + hostile.shed;
    let rate = attempts as f64 / good.wall.as_secs_f64();
    let detail = json!({ "attack": name, "good": good.to_json(), "attackers": hostile.to_json(), "memory_mib": grown });
    println!(
        "| {name} | {rate:.0} | {} | {} | {} | {} | {} | {} | {} | {grown:.1} |",
        hostile.refused,
        milliseconds(&mut hostile.refusals, 50.0),
        hostile.shed,
        good.accepted,
        not_let_in(good) + good.failures(),
        milliseconds(&mut good.logins, 50.0),
        milliseconds(&mut good.logins, 99.0),
    );
    detail
}

fn milliseconds(times: &mut [Duration], percent: f64) -> String {
    if times.is_empty() {
        return "–".to_owned();
    }
    format!("{:.1}", percentile(times, percent))
}
