//! Where an upstream can be reached: its addresses, those that its names have now, and which of them
//! to try first.

use std::collections::HashSet;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use prometheus::IntGauge;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::config::{self, Endpoint, Order, Target};
use crate::metrics::Metrics;
use crate::smtp::upstream::Manners;

/// How long the addresses of a name are believed. The system's resolver tells no more precise age.
pub const NAMES_AGE: Duration = Duration::from_secs(30);

/// How long they are kept when the name cannot be looked up again. Beyond, they may be somebody else's.
const KEPT: Duration = Duration::from_secs(3600);

/// How long a name may take to be looked up.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(5);

/// Of one name; whoever answers with more than these is not believed to mean them all.
const MAX_ADDRESSES: usize = 16;

/// Held by look-ups under way, which a dead resolver keeps for half a minute. On threads of their own:
/// those for blocking work are what logins wait for.
static LOOKUPS: Semaphore = Semaphore::const_new(2);

/// All places of one upstream.
pub struct Hosts {
    targets: Vec<Target>,
    /// Whose upstream it is; empty for that of all.
    organization: String,
    order: Order,
    turn: AtomicUsize,
    metrics: Arc<Metrics>,
    /// What each target came to.
    found: ArcSwap<Vec<Resolved>>,
}

/// What a target came to when it was last looked up.
#[derive(Clone, Default)]
struct Resolved {
    hosts: Vec<Arc<Host>>,
    /// When the addresses were last confirmed.
    at: Option<Instant>,
    /// Why they were not since, or why there is none.
    fault: Option<String>,
}

/// One place, at an address.
#[derive(Debug)]
pub struct Host {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// The position in the configuration of the target it was found by.
    pub target: usize,
    /// Nothing until it was tried.
    up: OnceLock<IntGauge>,
    /// What it was found to take by XCLIENT, and when.
    asked: ArcSwapOption<(Manners, Instant)>,
}

/// How long it is believed with which attributes a place takes XCLIENT.
const MANNERS_AGE: Duration = Duration::from_secs(30);

/// How one place is doing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostState {
    /// Its address, or the name that has none.
    pub address: String,
    /// The name that it was found by.
    pub name: Option<String>,
    /// Whether it answered when it was last tried; `None` if it never was.
    pub up: Option<bool>,
    /// Why the name could not be looked up when that was last tried.
    pub fault: Option<String>,
}

impl Host {
    /// Whether it answered when it was last tried; `None` if it never was.
    pub fn up(&self) -> Option<bool> {
        self.up.get().map(|up| up.get() == 1)
    }

    /// What is known of how it takes XCLIENT.
    pub fn manners(&self) -> Manners {
        self.manners_at(Instant::now())
    }

    fn manners_at(&self, now: Instant) -> Manners {
        let asked = self.asked.load();
        let known = asked.as_ref().map(|asked| **asked);
        known.map_or_else(Manners::default, |(manners, at)| Manners {
            xclient: manners.xclient.filter(|_| now < at + MANNERS_AGE),
            ..manners
        })
    }

    /// Keeps what was found out.
    pub fn learn(&self, manners: Manners) {
        self.asked.store(Some(Arc::new((manners, Instant::now()))));
    }
}

impl Hosts {
    /// Of which none is known to be down; those of all, or of this organization alone. Names have no
    /// addresses before [`Hosts::resolve`].
    pub fn new(
        upstream: &config::Upstream,
        organization: Option<&str>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let hosts = Self {
            targets: upstream.address.iter().cloned().collect(),
            organization: organization.unwrap_or_default().to_owned(),
            order: upstream.order,
            turn: AtomicUsize::new(0),
            metrics,
            found: ArcSwap::default(),
        };
        let unknown = || Err("it was not looked up yet".to_owned());
        let nothing = hosts.targets.iter().map(|_| unknown()).collect();
        hosts.settle(nothing, Instant::now());
        hosts
    }

    /// Whether there are names, whose addresses may change.
    pub fn has_names(&self) -> bool {
        let is_name = |target: &Target| matches!(target, Target::Name { .. });
        self.targets.iter().any(is_name)
    }

    /// Looks up the names, all at once. One that cannot be looked up keeps the addresses it had for a
    /// while.
    pub async fn resolve(&self) {
        if !self.has_names() {
            return;
        }
        let look_up = |target: &Target| match target {
            Target::Endpoint(_) => None,
            Target::Name { host, port } => Some(tokio::spawn(look_up(host.clone(), *port))),
        };
        let begun: Vec<_> = self.targets.iter().map(look_up).collect();
        let mut found = Vec::with_capacity(begun.len());
        for begun in begun {
            found.push(match begun {
                None => Ok(Vec::new()),
                Some(begun) => begun.await.unwrap_or_else(|error| Err(error.to_string())),
            });
        }
        self.settle(found, Instant::now());
    }

    /// Takes over what was found of each target; of those that are addresses nothing has to be.
    fn settle(&self, found: Vec<Result<Vec<SocketAddr>, String>>, now: Instant) {
        let before = self.found.load_full();
        // What two targets lead to is one place.
        let mut seen = HashSet::new();
        let mut all = Vec::with_capacity(self.targets.len());
        for (number, (target, found)) in self.targets.iter().zip(found).enumerate() {
            let had = before.get(number).cloned().unwrap_or_default();
            let mut resolved = match (target, found) {
                (Target::Endpoint(endpoint), _) => had.with(number, vec![endpoint.clone()], now),
                (Target::Name { .. }, Ok(addresses)) if !addresses.is_empty() => {
                    had.with(number, distinct(addresses), now)
                }
                (Target::Name { .. }, Ok(_)) => had.faulty("it has no address".to_owned(), now),
                (Target::Name { .. }, Err(why)) => had.faulty(why, now),
            };
            if let (None, Some(why), true) = (&had.fault, &resolved.fault, had.at.is_some()) {
                tracing::warn!(name = %target, why, "the upstream's name cannot be looked up any more; its addresses are kept for an hour");
            }
            resolved
                .hosts
                .retain(|host| seen.insert(host.endpoint.to_string()));
            all.push(resolved);
        }
        for resolved in before.iter() {
            for host in &resolved.hosts {
                if !seen.contains(&host.endpoint.to_string()) {
                    self.forget(&host.endpoint.to_string());
                }
            }
        }
        for (target, resolved) in self.targets.iter().zip(&all) {
            match resolved.hosts.is_empty() && resolved.fault.is_some() {
                true => self.gauge(&target.to_string()).set(0),
                false if matches!(target, Target::Name { .. }) => self.forget(&target.to_string()),
                false => {}
            }
        }
        self.found.store(Arc::new(all));
    }

    fn gauge(&self, address: &str) -> IntGauge {
        self.metrics.upstream_host_up(&self.organization, address)
    }

    fn forget(&self, address: &str) {
        let Self { organization, .. } = self;
        self.metrics.forget_upstream_host(organization, address);
    }

    /// All of them, in the order in which they are configured.
    pub fn all(&self) -> Vec<Arc<Host>> {
        let found = self.found.load();
        found
            .iter()
            .flat_map(|resolved| resolved.hosts.clone())
            .collect()
    }

    /// The names that have no address that is known, each with the reason.
    pub fn unresolved(&self) -> Vec<(String, String)> {
        let found = self.found.load();
        let targets = self.targets.iter().zip(found.iter());
        targets
            .filter(|(_, resolved)| resolved.hosts.is_empty())
            .filter_map(|(target, resolved)| Some((target.to_string(), resolved.fault.clone()?)))
            .collect()
    }

    /// How each of them is doing, in the order in which they are configured.
    pub fn states(&self) -> Vec<HostState> {
        let found = self.found.load();
        let mut states = Vec::new();
        for (target, resolved) in self.targets.iter().zip(found.iter()) {
            let name = matches!(target, Target::Name { .. }).then(|| target.to_string());
            let state = |address: String, up| HostState {
                address,
                name: name.clone(),
                up,
                fault: resolved.fault.clone(),
            };
            let hosts = resolved.hosts.iter();
            states.extend(hosts.map(|host| state(host.endpoint.to_string(), host.up())));
            if resolved.hosts.is_empty() && resolved.fault.is_some() {
                states.push(state(target.to_string(), Some(false)));
            }
        }
        states
    }

    /// All of them in the order in which they should be tried now; those that are down last, for when
    /// there is nothing else to hope for.
    pub fn candidates(&self) -> Vec<Arc<Host>> {
        let mut hosts = self.all();
        let count = hosts.len();
        if self.order == Order::RoundRobin && count > 0 {
            hosts.rotate_left(self.turn.fetch_add(1, Ordering::Relaxed) % count);
        }
        hosts.sort_by_key(|host| host.up() == Some(false));
        hosts
    }

    /// Those that somebody should try who has no client waiting: the ones that are down, and the ones
    /// that nobody has needed yet.
    pub fn doubtful(&self) -> Vec<Arc<Host>> {
        let mut hosts = self.all();
        hosts.retain(|host| host.up() != Some(true));
        hosts
    }

    /// Whether any of them answered when it was last tried.
    pub fn any_up(&self) -> bool {
        self.all().iter().any(|host| host.up() == Some(true))
    }

    /// Notes whether one of them answered.
    pub fn note(&self, host: &Arc<Host>, answered: bool) {
        let is_known = self.all().iter().any(|known| Arc::ptr_eq(known, host));
        if !is_known {
            return; // its name has lost this address
        }
        let before = host.up();
        let made = || self.gauge(&host.endpoint.to_string());
        host.up.get_or_init(made).set(answered.into());
        match (before, answered) {
            (Some(true) | None, false) => {
                tracing::warn!(address = %host.endpoint, "this address of the upstream takes no sessions; it is tried again every few seconds");
            }
            (Some(false), true) => {
                tracing::info!(address = %host.endpoint, "this address of the upstream takes sessions again");
            }
            _ => {}
        }
    }
}

impl Resolved {
    /// The same target, found at these. What is known of a host outlives that it was found again.
    fn with(&self, target: usize, endpoints: Vec<Endpoint>, now: Instant) -> Self {
        let known = |endpoint: Endpoint| {
            let same = self.hosts.iter().find(|host| host.endpoint == endpoint);
            let new = || {
                Arc::new(Host {
                    endpoint,
                    target,
                    up: OnceLock::new(),
                    asked: ArcSwapOption::empty(),
                })
            };
            same.cloned().unwrap_or_else(new)
        };
        Self {
            hosts: endpoints.into_iter().map(known).collect(),
            at: Some(now),
            fault: None,
        }
    }

    /// The same target, which could not be found again.
    fn faulty(&self, why: String, now: Instant) -> Self {
        let is_old = self.at.is_none_or(|at| now.duration_since(at) > KEPT);
        Self {
            hosts: if is_old {
                Vec::new()
            } else {
                self.hosts.clone()
            },
            at: self.at.filter(|_| !is_old),
            fault: Some(why),
        }
    }
}

async fn look_up(host: String, port: u16) -> Result<Vec<SocketAddr>, String> {
    let looked_up = async {
        let permit = LOOKUPS.acquire().await.map_err(|error| error.to_string())?;
        let (answer, answered) = oneshot::channel();
        let ask = move || {
            let found = (host.as_str(), port).to_socket_addrs();
            let found = found.map(|addresses| trusted(&host, addresses.collect()));
            drop(permit);
            // Whoever asked may have lost patience.
            let _ = answer.send(found.map_err(|error| error.to_string()));
        };
        let thread = thread::Builder::new().name("name look-up".to_owned());
        thread.spawn(ask).map_err(|error| error.to_string())?;
        answered.await.map_err(|error| error.to_string())?
    };
    let in_time = timeout(LOOKUP_PATIENCE, looked_up).await;
    in_time.unwrap_or_else(|_| Err("the resolver did not answer in time".to_owned()))
}

/// `localhost` counts as this machine, so it must not be anything else (RFC 6761 section 6.3).
fn trusted(host: &str, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        addresses.retain(|address| address.ip().to_canonical().is_loopback());
    }
    addresses
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
    use crate::smtp::xclient::Attributes;

    fn hosts(order: &str, addresses: &str) -> Hosts {
        let text = format!("order = {order:?}\naddress = {addresses}");
        let upstream = Figment::from(Toml::string(&text)).extract().unwrap();
        Hosts::new(&upstream, None, Arc::new(Metrics::new().unwrap()))
    }

    fn three(order: &str) -> Hosts {
        hosts(order, "['127.0.0.1:1', '127.0.0.1:2', '127.0.0.1:3']")
    }

    fn texts(hosts: &[Arc<Host>]) -> Vec<String> {
        hosts.iter().map(|host| host.endpoint.to_string()).collect()
    }

    fn ports(hosts: &[Arc<Host>]) -> String {
        let texts = texts(hosts);
        texts.iter().map(|text| &text[text.len() - 1..]).collect()
    }

    fn addresses(texts: &[&str]) -> Result<Vec<SocketAddr>, String> {
        Ok(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn nothing() -> Result<Vec<SocketAddr>, String> {
        Ok(Vec::new())
    }

    #[test]
    fn what_a_place_takes_is_asked_again_and_in_which_order_is_not() {
        let hosts = three("failover");
        let host = &hosts.candidates()[0];
        assert_eq!(host.manners(), Manners::default());
        let found = Manners {
            xclient: Some(Attributes::parse("ADDR LOGIN")),
            after_ehlo: true,
        };
        host.learn(found);
        assert_eq!(host.manners(), found);
        let later = host.manners_at(Instant::now() + MANNERS_AGE);
        assert_eq!((later.xclient, later.after_ehlo), (None, true));
    }

    #[test]
    fn in_order_or_in_turn() {
        let (failover, round_robin) = (three("failover"), three("round-robin"));
        for expected in ["123", "231", "312", "123"] {
            assert_eq!(ports(&failover.candidates()), "123");
            assert_eq!(ports(&round_robin.candidates()), expected);
        }
    }

    #[test]
    fn one_that_is_down_comes_last_until_it_answered_again() {
        let hosts = three("failover");
        let first = hosts.all()[0].clone();
        assert_eq!(ports(&hosts.doubtful()), "123");
        hosts.all().iter().for_each(|host| hosts.note(host, true));
        assert!(hosts.doubtful().is_empty());
        hosts.note(&first, false);
        assert_eq!(ports(&hosts.candidates()), "231");
        assert_eq!(ports(&hosts.doubtful()), "1");
        hosts.note(&first, true);
        assert_eq!(ports(&hosts.candidates()), "123");
    }

    #[test]
    fn where_all_are_down_all_are_tried() {
        let hosts = three("failover");
        hosts.all().iter().for_each(|host| hosts.note(host, false));
        assert_eq!(ports(&hosts.candidates()), "123");
        assert!(!hosts.any_up());
    }

    #[test]
    fn a_name_has_the_addresses_that_were_found_last() {
        let hosts = hosts("failover", "['mx.test:9', '127.0.0.1:1', '192.0.2.3:9']");
        assert_eq!(ports(&hosts.all()), "19");
        assert_eq!(hosts.unresolved()[0].0, "mx.test:9");
        let settle = |found| hosts.settle(vec![found, nothing(), nothing()], Instant::now());
        settle(addresses(&["192.0.2.1:9", "192.0.2.2:9", "192.0.2.1:9"]));
        assert_eq!(ports(&hosts.all()), "9919");
        assert!(hosts.unresolved().is_empty());
        hosts.note(&hosts.all()[1], false);
        // One goes, one comes that is there already, and of the one that stays it is still known that it
        // is down.
        settle(addresses(&["192.0.2.2:9", "192.0.2.3:9"]));
        let expected = ["192.0.2.3:9", "127.0.0.1:1", "192.0.2.2:9"];
        assert_eq!(texts(&hosts.candidates()), expected);
    }

    #[test]
    fn a_name_that_cannot_be_looked_up_keeps_what_it_had_for_an_hour() {
        let hosts = hosts("failover", "'mx.test:9'");
        let then = Instant::now();
        hosts.settle(vec![addresses(&["192.0.2.1:9"])], then);
        for (found, after, left) in [
            (Err("no answer".to_owned()), KEPT, 1),
            (nothing(), KEPT, 1),
            (nothing(), KEPT + Duration::from_secs(1), 0),
        ] {
            hosts.settle(vec![found], then + after);
            assert_eq!(hosts.all().len(), left);
            assert!(
                hosts.states()[0].fault.is_some(),
                "it is shown all the time"
            );
        }
        assert_eq!(hosts.states()[0].address, "mx.test:9");
    }

    #[test]
    fn the_metrics_have_the_hosts_that_there_are() {
        let hosts = hosts("failover", "'mx.test:9'");
        let shown = || {
            let text = String::from_utf8(hosts.metrics.render().unwrap()).unwrap();
            let series = text.lines().filter(|line| line.contains("_host_up{"));
            series.map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert!(shown().contains("mx.test:9") && shown().ends_with(" 0"));
        let now = Instant::now();
        hosts.settle(vec![addresses(&["192.0.2.1:9"])], now);
        let gone = hosts.all()[0].clone();
        hosts.note(&gone, true);
        assert!(shown().contains("192.0.2.1:9") && !shown().contains("mx.test"));
        hosts.settle(vec![addresses(&["192.0.2.2:9"])], now);
        hosts.note(&gone, true);
        assert_eq!(shown(), "");
    }

    #[test]
    fn more_addresses_than_anybody_means_are_cut() {
        let many = (1..100).map(|n| SocketAddr::from(([192, 0, 2, n], 9)));
        assert_eq!(distinct(many.collect()).len(), MAX_ADDRESSES);
    }

    #[test]
    fn localhost_is_this_machine_or_nothing() {
        let both = addresses(&["192.0.2.1:9", "127.0.0.1:9"]).unwrap();
        assert_eq!(trusted("LocalHost", both.clone()), both[1..]);
        assert_eq!(trusted("mx.test", both.clone()), both);
    }

    #[tokio::test]
    async fn names_are_looked_up() {
        let hosts = hosts("failover", "['nowhere.invalid:9', 'localhost:9']");
        hosts.resolve().await;
        let states = hosts.states();
        assert_eq!(
            (states[0].address.as_str(), states[0].up),
            ("nowhere.invalid:9", Some(false))
        );
        assert!(states[0].fault.is_some());
        let is_local = |state: &HostState| {
            state.address == "127.0.0.1:9" && state.name.as_deref() == Some("localhost:9")
        };
        assert!(states.iter().any(is_local), "{states:?}");
    }
}
