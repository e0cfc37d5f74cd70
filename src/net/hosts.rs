//! Where an upstream can be reached: its addresses, those that its names have now, and which of them
//! to try.
//!
//! One that did not answer is left alone for a while. Then a single session tries it again, and all
//! others go on without it until that one has succeeded.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use prometheus::IntGauge;
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::config::{self, Endpoint, Order, Target};
use crate::metrics::Metrics;

/// How long one that did not answer is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(10);

/// How long the addresses of a name are believed. The system's resolver tells no more precise age.
pub const NAMES_AGE: Duration = Duration::from_secs(30);

/// How long a name may take to be looked up.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(5);

/// Of one name; whoever answers with more than these is not believed to mean them all.
const MAX_ADDRESSES: usize = 16;

/// All places of one upstream.
pub struct Hosts {
    targets: Vec<Target>,
    order: Order,
    turn: AtomicUsize,
    metrics: Arc<Metrics>,
    found: ArcSwap<Found>,
}

/// What the targets came to when they were last looked up.
#[derive(Default)]
struct Found {
    /// In the order of the targets.
    hosts: Vec<Arc<Host>>,
    /// Names that have no address that is known, and why.
    unresolved: Vec<(String, String)>,
}

/// One place, at an address.
#[derive(Debug)]
pub struct Host {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// The position in the configuration of the target it was found by.
    pub target: usize,
    /// Until when it is left alone.
    down: Mutex<Option<Instant>>,
    /// Nothing until it was tried.
    up: OnceLock<IntGauge>,
}

/// How one place is doing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostState {
    /// Its address, or the name that has none.
    pub address: String,
    /// The name that it was found by.
    pub name: Option<String>,
    /// Whether it answered when it was last tried; `None` if it never was.
    pub up: Option<bool>,
    /// Why the name has no address.
    pub fault: Option<String>,
}

impl Host {
    fn new(endpoint: Endpoint, target: usize) -> Self {
        Self {
            endpoint,
            target,
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
    /// Of which none is known to be down. Names have no addresses before [`Hosts::resolve`].
    pub fn new(upstream: &config::Upstream, metrics: Arc<Metrics>) -> Self {
        let hosts = Self {
            targets: upstream.address.iter().cloned().collect(),
            order: upstream.order,
            turn: AtomicUsize::new(0),
            metrics,
            found: ArcSwap::default(),
        };
        let unknown = || Err("it was not looked up yet".to_owned());
        hosts.settle(hosts.targets.iter().map(|_| unknown()).collect());
        hosts
    }

    /// Whether there are names, whose addresses may change.
    pub fn has_names(&self) -> bool {
        let is_name = |target: &Target| matches!(target, Target::Name { .. });
        self.targets.iter().any(is_name)
    }

    /// Looks up the names. One that cannot be looked up keeps the addresses it had.
    pub async fn resolve(&self) {
        if !self.has_names() {
            return;
        }
        let mut found = Vec::with_capacity(self.targets.len());
        for target in &self.targets {
            found.push(match target {
                Target::Endpoint(_) => Ok(Vec::new()),
                Target::Name { host, port } => look_up(host, *port).await,
            });
        }
        self.settle(found);
    }

    /// Takes over what was found of each target; of those that are addresses nothing has to be.
    fn settle(&self, found: Vec<Result<Vec<SocketAddr>, String>>) {
        let before = self.found.load_full();
        let mut now = Found::default();
        for (number, (target, found)) in self.targets.iter().zip(found).enumerate() {
            let had = before.hosts.iter().filter(|host| host.target == number);
            let endpoints = match (target, found) {
                (Target::Endpoint(endpoint), _) => vec![endpoint.clone()],
                (Target::Name { .. }, Ok(addresses)) => distinct(addresses),
                (Target::Name { .. }, Err(why)) => {
                    let kept: Vec<_> = had.clone().map(|host| host.endpoint.clone()).collect();
                    if kept.is_empty() {
                        now.unresolved.push((target.to_string(), why));
                    } else {
                        tracing::warn!(name = %target, why, "the upstream's name cannot be looked up, its addresses stay what they were");
                    }
                    kept
                }
            };
            // What is known of a host outlives that its name was looked up again.
            let known = |endpoint: Endpoint| {
                let same = had.clone().find(|host| host.endpoint == endpoint);
                same.cloned()
                    .unwrap_or_else(|| Arc::new(Host::new(endpoint, number)))
            };
            now.hosts.extend(endpoints.into_iter().map(known));
        }
        let is_gone = |host: &&Arc<Host>| {
            let mut left = now.hosts.iter();
            !left.any(|left| left.endpoint == host.endpoint)
        };
        for gone in before.hosts.iter().filter(is_gone) {
            self.metrics
                .forget_upstream_host(&gone.endpoint.to_string());
        }
        self.found.store(Arc::new(now));
    }

    /// All of them, in the order in which they are configured.
    pub fn all(&self) -> Vec<Arc<Host>> {
        self.found.load().hosts.clone()
    }

    /// The names that have no address that is known, each with the reason.
    pub fn unresolved(&self) -> Vec<(String, String)> {
        self.found.load().unresolved.clone()
    }

    /// How each of them is doing.
    pub fn states(&self) -> Vec<HostState> {
        let found = self.found.load();
        let host = |host: &Arc<Host>| HostState {
            address: host.endpoint.to_string(),
            name: match &self.targets[host.target] {
                Target::Endpoint(_) => None,
                name @ Target::Name { .. } => Some(name.to_string()),
            },
            up: host.up.get().map(|up| up.get() == 1),
            fault: None,
        };
        let unresolved = |(name, why): &(String, String)| HostState {
            address: name.clone(),
            name: Some(name.clone()),
            up: Some(false),
            fault: Some(why.clone()),
        };
        let hosts = found.hosts.iter().map(host);
        hosts
            .chain(found.unresolved.iter().map(unresolved))
            .collect()
    }

    /// All of them in the order in which they should be tried now; those that are down last, for when
    /// there is nothing else to hope for.
    pub fn candidates(&self, now: Instant) -> Vec<Arc<Host>> {
        let hosts = self.all();
        let first = match self.order {
            Order::RoundRobin if !hosts.is_empty() => {
                self.turn.fetch_add(1, Ordering::Relaxed) % hosts.len()
            }
            Order::Failover | Order::RoundRobin => 0,
        };
        let (later, sooner) = hosts.split_at(first);
        let all = sooner.iter().chain(later).cloned();
        let (mut due, down): (Vec<_>, Vec<_>) = all.partition(|host| host.is_due(now));
        due.extend(down);
        due
    }

    /// Notes whether one of them answered.
    pub fn note(&self, host: &Host, answered: bool, now: Instant) {
        let made = || self.metrics.upstream_host_up(&host.endpoint.to_string());
        host.up.get_or_init(made).set(answered.into());
        let down = (!answered).then(|| now + LEFT_ALONE);
        *host.down.lock().unwrap_or_else(PoisonError::into_inner) = down;
    }
}

async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    match timeout(LOOKUP_PATIENCE, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the resolver did not answer in time".to_owned()),
    }
}

/// The resolver may tell one address once for each kind of socket.
fn distinct(addresses: Vec<SocketAddr>) -> Vec<Endpoint> {
    let mut all: Vec<Endpoint> = Vec::new();
    for address in addresses {
        let endpoint = Endpoint::Tcp(address);
        if all.len() < MAX_ADDRESSES && !all.contains(&endpoint) {
            all.push(endpoint);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};

    use super::*;

    fn hosts(order: &str, addresses: &str) -> Hosts {
        let text = format!("order = {order:?}\naddress = {addresses}");
        let upstream = Figment::from(Toml::string(&text)).extract().unwrap();
        Hosts::new(&upstream, Arc::new(Metrics::new().unwrap()))
    }

    fn three(order: &str) -> Hosts {
        hosts(order, "['127.0.0.1:1', '127.0.0.1:2', '127.0.0.1:3']")
    }

    fn ports(hosts: &[Arc<Host>]) -> Vec<u16> {
        let port = |host: &Arc<Host>| match host.endpoint {
            Endpoint::Tcp(address) => address.port(),
            Endpoint::Unix(_) => 0,
        };
        hosts.iter().map(port).collect()
    }

    fn addresses(texts: &[&str]) -> Result<Vec<SocketAddr>, String> {
        Ok(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn in_order_or_in_turn() {
        let now = Instant::now();
        let (failover, round_robin) = (three("failover"), three("round-robin"));
        for expected in [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]] {
            assert_eq!(ports(&failover.candidates(now)), [1, 2, 3]);
            assert_eq!(ports(&round_robin.candidates(now)), expected);
        }
    }

    #[test]
    fn one_that_is_down_comes_last_until_a_single_session_tries_it_again() {
        let hosts = three("failover");
        let then = Instant::now();
        let first = hosts.all()[0].clone();
        hosts.note(&first, false, then);
        assert_eq!(ports(&hosts.candidates(then)), [2, 3, 1]);
        let later = then + LEFT_ALONE;
        assert_eq!(ports(&hosts.candidates(later)), [1, 2, 3], "this one tries");
        assert_eq!(
            ports(&hosts.candidates(later)),
            [2, 3, 1],
            "the others do not"
        );
        hosts.note(&first, true, later);
        assert_eq!(ports(&hosts.candidates(later)), [1, 2, 3]);
    }

    #[test]
    fn where_all_are_down_all_are_tried() {
        let hosts = three("failover");
        let now = Instant::now();
        hosts
            .all()
            .iter()
            .for_each(|host| hosts.note(host, false, now));
        assert_eq!(ports(&hosts.candidates(now)), [1, 2, 3]);
    }

    #[test]
    fn a_name_has_the_addresses_that_were_found_last() {
        let hosts = hosts("failover", "['mx.test:9', '127.0.0.1:1']");
        assert_eq!(ports(&hosts.all()), [1]);
        assert_eq!(hosts.unresolved()[0].0, "mx.test:9");
        let nothing = || Ok(Vec::new());
        hosts.settle(vec![
            addresses(&["192.0.2.1:9", "192.0.2.2:9", "192.0.2.1:9"]),
            nothing(),
        ]);
        assert_eq!(ports(&hosts.all()), [9, 9, 1]);
        assert!(hosts.unresolved().is_empty());
        let now = Instant::now();
        hosts.note(&hosts.all()[1], false, now);
        // One goes, one comes, and of the one that stays it is still known that it is down.
        hosts.settle(vec![addresses(&["192.0.2.2:9", "192.0.2.3:9"]), nothing()]);
        let order: Vec<_> = hosts.candidates(now);
        let order: Vec<_> = order.iter().map(|host| host.endpoint.to_string()).collect();
        assert_eq!(order, ["192.0.2.3:9", "127.0.0.1:1", "192.0.2.2:9"]);
        hosts.settle(vec![Err("no answer".into()), nothing()]);
        assert_eq!(hosts.all().len(), 3, "the name keeps what it had");
    }

    #[test]
    fn a_host_that_is_gone_is_gone_from_the_metrics() {
        let hosts = hosts("failover", "'mx.test:9'");
        hosts.settle(vec![addresses(&["192.0.2.1:9"])]);
        hosts.note(&hosts.all()[0], true, Instant::now());
        let shown = || {
            let text = hosts.metrics.render().unwrap();
            String::from_utf8(text).unwrap().contains("192.0.2.1:9")
        };
        assert!(shown());
        hosts.settle(vec![addresses(&["192.0.2.2:9"])]);
        assert!(!shown());
    }

    #[test]
    fn more_addresses_than_anybody_means_are_cut() {
        let many = (1..100).map(|n| SocketAddr::from(([192, 0, 2, n], 9)));
        assert_eq!(distinct(many.collect()).len(), MAX_ADDRESSES);
    }

    #[tokio::test]
    async fn names_are_looked_up() {
        let hosts = hosts("failover", "['localhost:9', 'nowhere.invalid:9']");
        hosts.resolve().await;
        let states = hosts.states();
        assert!(
            states.iter().any(|state| state.address == "127.0.0.1:9"
                && state.name.as_deref() == Some("localhost:9")
                && state.up.is_none()),
            "{states:?}"
        );
        let last = states.last().unwrap();
        assert_eq!(
            (last.address.as_str(), last.up),
            ("nowhere.invalid:9", Some(false))
        );
        assert!(last.fault.is_some());
    }
}
