//! Attackers of each kind beside good clients, with the guard on, as fast as the machine allows: whether good clients are let
//! in, how soon, and what the attack costs in memory.

mod names;
mod stand;

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use self::names::{Names, Offence};
use self::stand::{HEAD, Stand};
use crate::arguments::{Siege, Way};
use crate::load::{self, Logins, Order, Outcome, Pace, hostile_address};
use crate::peer::Peer;
use crate::peer::gatepost::{self, Setup};
use crate::site::Site;
use crate::trial::Trial;
use crate::{affinity, machine, readme, report, usage};

/// Good clients whose passwords are remembered, in each second.
const GOOD_RATE: f64 = 50.0;

/// Those whose passwords are not.
const RETURNING_RATE: f64 = 5.0;

/// How often to look at the memory.
const LOOK: Duration = Duration::from_millis(500);

/// Nobody is exempt. All else is as the defaults have it.
const GUARD: &str = "[guard]\nexempt = []\n";

/// Which offences at a time.
const ATTACKS: [(&str, &[Offence]); 8] = [
    one(&[Offence::Unknown]),
    one(&[Offence::Malformed]),
    one(&[Offence::Cached]),
    one(&[Offence::Cold]),
    one(&[Offence::Revoked]),
    one(&[Offence::Expired]),
    one(&[Offence::Network]),
    ("all of them", &Offence::ALL),
];

const fn one(offence: &'static [Offence; 1]) -> (&'static str, &'static [Offence]) {
    (offence[0].title(), offence)
}

/// Besieges, prints and writes. Whether it was held.
pub fn run(siege: &Siege) -> bool {
    let site = Site::new();
    let each = (RETURNING_RATE * siege.seconds as f64) as usize;
    let names = Names::make(&site, each * (ATTACKS.len() + 1));
    let setup = Setup {
        connections: 4096,
        sections: GUARD.to_owned(),
        cores: siege.cores,
        ..Setup::default()
    };
    let peer = gatepost::start(&site, &setup);
    let _confined = siege.cores.map(affinity::off_first);
    eprintln!("{} is process {}", peer.kind.name(), peer.id());
    let way = Way {
        starttls: false,
        resumption: false,
    };
    let trial = Trial::new(&site, &peer, way);
    trial.warm_up();
    let field = Field {
        siege,
        names: &names,
        trial: &trial,
        quiet_kib: peer.usage(true).memory_kib,
    };
    let stands = field.stands();
    let quiet = &stands[0];
    let complaints: Vec<String> = stands
        .iter()
        .flat_map(|stand| stand.complaints(quiet))
        .collect();
    for complaint in &complaints {
        println!("MISSED: {complaint}");
    }
    let path = siege.output.clone();
    let path = path.unwrap_or_else(|| report::default_path("-siege"));
    report::write(
        &path,
        &json!({
            "machine": machine::describe(),
            "version": peer.version,
            "seconds": siege.seconds,
            "attackers": siege.attackers,
            "addresses": siege.addresses,
            "rest_ms": siege.rest,
            "cores": siege.cores.unwrap_or_else(affinity::cores),
            "quiet_mib": field.quiet_kib as f64 / 1024.0,
            "rows": stands.iter().map(Stand::to_json).collect::<Vec<_>>(),
            "missed": complaints,
        }),
    );
    complaints.is_empty()
}

/// Where they meet.
struct Field<'a> {
    siege: &'a Siege,
    names: &'a Names,
    trial: &'a Trial<'a>,
    quiet_kib: u64,
}

impl Field<'_> {
    /// All rows, the quiet one first, each printed as soon as it is there.
    fn stands(&self) -> Vec<Stand> {
        let mut table = format!(
            "{HEAD}\n|{}\n",
            "---|".repeat(HEAD.matches('|').count() - 1)
        );
        print!("{table}");
        let attacks = ATTACKS.iter().map(|&(name, offences)| (name, offences));
        let mut stands = Vec::new();
        for (number, (name, offences)) in [("none", &[][..])].into_iter().chain(attacks).enumerate()
        {
            let stand = self.meet(name, offences, number as u64);
            println!("{}", stand.row());
            let _ = writeln!(table, "{}", stand.row());
            for (what, errors) in [("good", &stand.good), ("attackers", &stand.hostile)] {
                if errors.failures() > 0 {
                    eprintln!("{name}: {what}: {:?}", errors.errors);
                }
            }
            stands.push(stand);
        }
        if self.siege.readme {
            readme::put("siege", &format!("{}\n\n{table}", machine::in_words()));
        }
        stands
    }

    fn meet(&self, attack: &'static str, offences: &[Offence], number: u64) -> Stand {
        let seconds = self.siege.seconds as f64;
        let good = self.good(Logins::right(&self.trial.site.warm), GOOD_RATE);
        let first = number * (RETURNING_RATE * seconds) as u64;
        let returning = Logins::returning(&self.names.returning, first);
        let returning = self.good(returning, RETURNING_RATE);
        let hostile = (!offences.is_empty()).then(|| self.hostile(offences, number));
        let peer = self.trial.peer;
        let over = AtomicBool::new(false);
        let times = || (peer.usage(false).cpu, usage::waited(peer.id()));
        let before = times();
        let stand = thread::scope(|scope| {
            let most = scope.spawn(|| most_memory(peer, &over));
            let hostile = hostile.as_ref().map(|order| {
                let attack = || {
                    affinity::stand_back();
                    work(order)
                };
                (order, scope.spawn(attack))
            });
            let returning = scope.spawn(|| work(&returning));
            let good = work(&good);
            let returning = returning.join().expect("the good clients end");
            let after = times();
            let hostile = hostile.map(|(order, attackers)| {
                order.stop.store(true, Ordering::Relaxed);
                attackers.join().expect("the attackers end")
            });
            over.store(true, Ordering::Relaxed);
            let most = most.join().expect("the look at memory ends");
            Stand {
                attack,
                good,
                returning,
                hostile: hostile.unwrap_or_default(),
                grown_mib: most.saturating_sub(self.quiet_kib) as f64 / 1024.0,
                cpu: after.0.saturating_sub(before.0),
                waited: after.1.saturating_sub(before.1),
            }
        });
        self.trial.site.sink.settle(0, Duration::from_secs(10));
        stand
    }

    fn good(&self, logins: Logins, per_second: f64) -> Order {
        Order {
            logins,
            pace: Pace::Open {
                per_second,
                sessions: (per_second * self.siege.seconds as f64) as u64,
            },
            ..self.trial.order(0, 0)
        }
    }

    fn hostile(&self, offences: &[Offence], number: u64) -> Order {
        let (attempts, credentials) = self.names.offers(offences);
        let logins = Logins {
            attempts,
            addresses: self.siege.addresses,
            address: NETWORKS[number as usize - 1],
            ..Logins::right(&Arc::new(credentials))
        };
        Order {
            rest: Duration::from_millis(self.siege.rest),
            ..self.trial.hostile(logins, self.siege.attackers, u64::MAX)
        }
    }
}

/// Each attack comes from addresses of its own, because those of the last may be banned.
const NETWORKS: [fn(u64) -> Ipv4Addr; ATTACKS.len()] = [
    hostile_address,
    |number| hostile_address(6_000 + number),
    |number| hostile_address(12_000 + number),
    |number| hostile_address(18_000 + number),
    |number| hostile_address(24_000 + number),
    |number| hostile_address(30_000 + number),
    |number| hostile_address(36_000 + number),
    |number| hostile_address(42_000 + number),
];

fn work(order: &Order) -> Outcome {
    load::run(order).expect("the generator runs").0
}

/// The most memory that it has until it is over, in KiB.
fn most_memory(peer: &Peer, over: &AtomicBool) -> u64 {
    let mut most = 0;
    loop {
        most = most.max(peer.usage(true).memory_kib);
        if over.load(Ordering::Relaxed) {
            return most;
        }
        thread::sleep(LOOK);
    }
}
