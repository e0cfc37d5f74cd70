//! What the guard adds to a login, and what it takes to count a failure and to let a connection in.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::Criterion;
use gatepost::auth::guard::{ConnectionLimits, Guard, Settings};
use gatepost::metrics::Metrics;
use gatepost::sasl::Reason;

/// With `networks` clients that something is held against.
fn guard(networks: u32) -> Guard {
    let settings = Settings {
        enabled: true,
        exempt: vec!["127.0.0.0/8".parse().expect("a network")],
        connections: ConnectionLimits {
            total: 2048,
            per_client: 16,
            per_network: 64,
        },
        handshakes: 512,
        threads: 2,
        queue: 100,
    };
    let guard = Guard::new(settings, Arc::new(Metrics::new().expect("metrics")));
    for number in 0..networks {
        fail(&guard, client(number), number);
    }
    guard
}

fn client(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number * 7))
}

fn fail(guard: &Guard, from: IpAddr, mark: u32) {
    let attempt = guard.attempt(from);
    guard.refused(&attempt, Reason::WrongPassword, None, mark);
}

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("guard");
    for networks in [0, 10_000, 100_000] {
        if networks > 0 && !super::measuring() {
            continue;
        }
        let guard = guard(networks);
        let good = client(3);
        group.bench_function(format!("accepted/{networks}"), |bencher| {
            bencher.iter(|| guard.accepted(&guard.attempt(good), 1));
        });
        let mut number = 0;
        group.bench_function(format!("refused/{networks}"), |bencher| {
            bencher.iter(|| {
                number += 1;
                fail(&guard, client(number % networks.max(1)), number);
            });
        });
        group.bench_function(format!("admitted/{networks}"), |bencher| {
            bencher.iter(|| guard.admit(good));
        });
    }
    group.finish();
}
