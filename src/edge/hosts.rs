//! The addresses at which the upstream can be reached, and which of them to try.
//!
//! One that did not answer is left alone for a while. Then a single session tries it again, and all
//! others go on without it until that one has succeeded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntGauge;

use crate::config::{self, Endpoint, Order};
use crate::metrics::Metrics;

/// How long one that did not answer is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(10);

/// All addresses of the upstream.
pub struct Hosts {
    hosts: Vec<Host>,
    order: Order,
    turn: AtomicUsize,
    metrics: Arc<Metrics>,
}

struct Host {
    endpoint: Endpoint,
    /// Until when it is left alone.
    down: Mutex<Option<Instant>>,
    /// Nothing until it was tried.
    up: OnceLock<IntGauge>,
}

impl Host {
    fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            down: Mutex::default(),
            up: OnceLock::new(),
        }
    }

    /// Whether it should be tried. Whoever hears yes of one that was down is the one who tries.
    fn is_due(&self, now: Instant) -> bool {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        match *down {
            None => true,
            Some(until) if until <= now => {
                *down = Some(now + LEFT_ALONE);
                true
            }
            Some(_) => false,
        }
    }
}

impl Hosts {
    /// Of which none is known to be down.
    pub fn new(upstream: &config::Upstream, metrics: Arc<Metrics>) -> Self {
        let endpoints = upstream.address.iter().cloned();
        Self {
            hosts: endpoints.map(Host::new).collect(),
            order: upstream.order,
            turn: AtomicUsize::new(0),
            metrics,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.hosts.len()
    }

    /// Where one of them listens.
    pub fn endpoint(&self, at: usize) -> &Endpoint {
        &self.hosts[at].endpoint
    }

    /// All of them in the order in which they should be tried now; those that are down last, for when
    /// there is nothing else to hope for.
    pub fn candidates(&self, now: Instant) -> Vec<usize> {
        let count = self.hosts.len();
        let first = match self.order {
            Order::Failover => 0,
            Order::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed) % count,
        };
        let all = (first..count).chain(0..first);
        let (mut due, down): (Vec<_>, Vec<_>) = all.partition(|&at| self.hosts[at].is_due(now));
        due.extend(down);
        due
    }

    /// Notes whether one of them answered.
    pub fn note(&self, at: usize, answered: bool, now: Instant) {
        let host = &self.hosts[at];
        let made = || self.metrics.upstream_host_up(&host.endpoint.to_string());
        host.up.get_or_init(made).set(answered.into());
        let down = (!answered).then(|| now + LEFT_ALONE);
        *host.down.lock().unwrap_or_else(PoisonError::into_inner) = down;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(order: Order) -> Hosts {
        let host = |port: u16| Host::new(Endpoint::Tcp(([127, 0, 0, 1], port).into()));
        Hosts {
            hosts: [1, 2, 3].map(host).into(),
            order,
            turn: AtomicUsize::new(0),
            metrics: Arc::new(Metrics::new().unwrap()),
        }
    }

    #[test]
    fn in_order_or_in_turn() {
        let now = Instant::now();
        let (failover, round_robin) = (hosts(Order::Failover), hosts(Order::RoundRobin));
        for expected in [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]] {
            assert_eq!(failover.candidates(now), [0, 1, 2]);
            assert_eq!(round_robin.candidates(now), expected);
        }
    }

    #[test]
    fn one_that_is_down_comes_last_until_a_single_session_tries_it_again() {
        let hosts = hosts(Order::Failover);
        let then = Instant::now();
        hosts.note(0, false, then);
        assert_eq!(hosts.candidates(then), [1, 2, 0]);
        let later = then + LEFT_ALONE;
        assert_eq!(hosts.candidates(later), [0, 1, 2], "this one tries");
        assert_eq!(hosts.candidates(later), [1, 2, 0], "the others do not");
        hosts.note(0, true, later);
        assert_eq!(hosts.candidates(later), [0, 1, 2]);
    }

    #[test]
    fn where_all_are_down_all_are_tried() {
        let hosts = hosts(Order::Failover);
        let now = Instant::now();
        (0..3).for_each(|at| hosts.note(at, false, now));
        assert_eq!(hosts.candidates(now), [0, 1, 2]);
    }
}
