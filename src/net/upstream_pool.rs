//! The upstream pool: configured addresses, addresses resolved from names, their health, and the
//! order of attempts.

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
use crate::smtp::upstream::XclientSupport;

/// How long resolved addresses count as current. The system's resolver reports no time to live.
pub const NAMES_AGE: Duration = Duration::from_secs(30);

/// How long addresses outlive failed lookups. Older addresses may belong to another machine.
const KEPT: Duration = Duration::from_secs(3600);

/// The time limit of a name lookup.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(5);

/// The limit of addresses per name; a longer answer is cut.
const MAX_ADDRESSES: usize = 16;

/// Limits concurrent lookups, because a dead resolver blocks each for half a minute. Lookups use
/// their own threads: logins wait for the blocking pool.
static LOOKUPS: Semaphore = Semaphore::const_new(2);

/// All addresses of an upstream.
pub struct UpstreamPool {
    targets: Vec<Target>,
    /// The owner's slug; empty for the shared upstream.
    organization: String,
    order: Order,
    turn: AtomicUsize,
    metrics: Arc<Metrics>,
    /// The resolved addresses of each target.
    found: ArcSwap<Vec<Resolved>>,
}

/// The latest resolution of a target.
#[derive(Clone, Default)]
struct Resolved {
    hosts: Vec<Arc<UpstreamHost>>,
    /// When the addresses were last confirmed.
    at: Option<Instant>,
    /// Why the latest lookup failed, or why there is no address.
    fault: Option<String>,
}

/// A single address of the upstream.
#[derive(Debug)]
pub struct UpstreamHost {
    pub endpoint: Endpoint,
    /// The index of the configured target that led here.
    pub target: usize,
    /// Unset until the first attempt.
    up: OnceLock<IntGauge>,
    /// The discovered XCLIENT support, with the time of discovery.
    asked: ArcSwapOption<(XclientSupport, Instant)>,
}

/// How long discovered XCLIENT attributes stay valid.
const SUPPORT_AGE: Duration = Duration::from_secs(30);

/// The state of an address, for status pages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostState {
    /// The address, or the unresolved name.
    pub address: String,
    /// The configured name that led to the address.
    pub name: Option<String>,
    /// Whether the last attempt succeeded; `None` before the first.
    pub up: Option<bool>,
    /// Why the latest lookup of the name failed.
    pub fault: Option<String>,
}

impl UpstreamHost {
    /// Whether the last attempt succeeded; `None` before the first.
    pub fn up(&self) -> Option<bool> {
        self.up.get().map(|up| up.get() == 1)
    }

    /// Returns the known XCLIENT support.
    pub fn xclient_support(&self) -> XclientSupport {
        self.xclient_support_at(Instant::now())
    }

    fn xclient_support_at(&self, now: Instant) -> XclientSupport {
        let asked = self.asked.load();
        let known = asked.as_ref().map(|asked| **asked);
        known.map_or_else(XclientSupport::default, |(xclient_support, at)| {
            XclientSupport {
                xclient: xclient_support.xclient.filter(|_| now < at + SUPPORT_AGE),
                ..xclient_support
            }
        })
    }

    /// Records discovered XCLIENT support.
    pub fn learn(&self, xclient_support: XclientSupport) {
        self.asked
            .store(Some(Arc::new((xclient_support, Instant::now()))));
    }
}

impl UpstreamPool {
    /// Creates the pool of the shared upstream or of an organization's upstream, with unknown
    /// health. Names have no addresses before [`UpstreamPool::resolve`].
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

    /// Whether any target is a name, with addresses that may change.
    pub fn has_names(&self) -> bool {
        let is_name = |target: &Target| matches!(target, Target::Name { .. });
        self.targets.iter().any(is_name)
    }

    /// Resolves all names at once. A name that fails to resolve keeps its addresses for an hour.
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

    /// Stores the lookup results; targets that are addresses need none.
    fn settle(&self, found: Vec<Result<Vec<SocketAddr>, String>>, now: Instant) {
        let before = self.found.load_full();
        // Two targets may lead to the same address, which counts once.
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

    /// Returns all addresses in the order of the configuration.
    pub fn all(&self) -> Vec<Arc<UpstreamHost>> {
        let found = self.found.load();
        found
            .iter()
            .flat_map(|resolved| resolved.hosts.clone())
            .collect()
    }

    /// Returns the names without a known address, each with the reason.
    pub fn unresolved(&self) -> Vec<(String, String)> {
        let found = self.found.load();
        let targets = self.targets.iter().zip(found.iter());
        targets
            .filter(|(_, resolved)| resolved.hosts.is_empty())
            .filter_map(|(target, resolved)| Some((target.to_string(), resolved.fault.clone()?)))
            .collect()
    }

    /// Returns the state of each address, in the order of the configuration.
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

    /// Returns the addresses in the order of attempts; unhealthy addresses come last, as a last
    /// resort.
    pub fn candidates(&self) -> Vec<Arc<UpstreamHost>> {
        let mut hosts = self.all();
        let count = hosts.len();
        if self.order == Order::RoundRobin && count > 0 {
            hosts.rotate_left(self.turn.fetch_add(1, Ordering::Relaxed) % count);
        }
        hosts.sort_by_key(|host| host.up() == Some(false));
        hosts
    }

    /// Returns the addresses for the health check: unhealthy or never tried.
    pub fn unverified(&self) -> Vec<Arc<UpstreamHost>> {
        let mut hosts = self.all();
        hosts.retain(|host| host.up() != Some(true));
        hosts
    }

    /// Whether any address answered the last attempt.
    pub fn any_up(&self) -> bool {
        self.all().iter().any(|host| host.up() == Some(true))
    }

    /// Records the result of an attempt.
    pub fn record_health(&self, host: &Arc<UpstreamHost>, answered: bool) {
        let is_known = self.all().iter().any(|known| Arc::ptr_eq(known, host));
        if !is_known {
            return; // the name no longer has this address
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
    /// Updates the target's addresses. A known host keeps its health.
    fn with(&self, target: usize, endpoints: Vec<Endpoint>, now: Instant) -> Self {
        let known = |endpoint: Endpoint| {
            let same = self.hosts.iter().find(|host| host.endpoint == endpoint);
            let new = || {
                Arc::new(UpstreamHost {
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

    /// Records a failed lookup; addresses older than [`KEPT`] are dropped.
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
            // The caller may have timed out.
            let _ = answer.send(found.map_err(|error| error.to_string()));
        };
        let thread = thread::Builder::new().name("name look-up".to_owned());
        thread.spawn(ask).map_err(|error| error.to_string())?;
        answered.await.map_err(|error| error.to_string())?
    };
    let in_time = timeout(LOOKUP_PATIENCE, looked_up).await;
    in_time.unwrap_or_else(|_| Err("the resolver did not answer in time".to_owned()))
}

/// `localhost` must resolve to the loopback interface (RFC 6761, section 6.3).
fn trusted(host: &str, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        addresses.retain(|address| address.ip().to_canonical().is_loopback());
    }
    addresses
}

/// Removes duplicates: the resolver may return an address once for each socket type.
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

    fn hosts(order: &str, addresses: &str) -> UpstreamPool {
        let text = format!("order = {order:?}\naddress = {addresses}");
        let upstream = Figment::from(Toml::string(&text)).extract().unwrap();
        UpstreamPool::new(&upstream, None, Arc::new(Metrics::new().unwrap()))
    }

    fn three(order: &str) -> UpstreamPool {
        hosts(order, "['127.0.0.1:1', '127.0.0.1:2', '127.0.0.1:3']")
    }

    fn texts(hosts: &[Arc<UpstreamHost>]) -> Vec<String> {
        hosts.iter().map(|host| host.endpoint.to_string()).collect()
    }

    fn ports(hosts: &[Arc<UpstreamHost>]) -> String {
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
    fn xclient_attributes_expire_and_the_ehlo_order_does_not() {
        let hosts = three("failover");
        let host = &hosts.candidates()[0];
        assert_eq!(host.xclient_support(), XclientSupport::default());
        let found = XclientSupport {
            xclient: Some(Attributes::parse("ADDR LOGIN")),
            after_ehlo: true,
        };
        host.learn(found);
        assert_eq!(host.xclient_support(), found);
        let later = host.xclient_support_at(Instant::now() + SUPPORT_AGE);
        assert_eq!((later.xclient, later.after_ehlo), (None, true));
    }

    #[test]
    fn candidates_follow_the_configured_order() {
        let (failover, round_robin) = (three("failover"), three("round-robin"));
        for expected in ["123", "231", "312", "123"] {
            assert_eq!(ports(&failover.candidates()), "123");
            assert_eq!(ports(&round_robin.candidates()), expected);
        }
    }

    #[test]
    fn unhealthy_address_comes_last_until_it_answers() {
        let hosts = three("failover");
        let first = hosts.all()[0].clone();
        assert_eq!(ports(&hosts.unverified()), "123");
        hosts
            .all()
            .iter()
            .for_each(|host| hosts.record_health(host, true));
        assert!(hosts.unverified().is_empty());
        hosts.record_health(&first, false);
        assert_eq!(ports(&hosts.candidates()), "231");
        assert_eq!(ports(&hosts.unverified()), "1");
        hosts.record_health(&first, true);
        assert_eq!(ports(&hosts.candidates()), "123");
    }

    #[test]
    fn all_addresses_are_candidates_when_all_are_down() {
        let hosts = three("failover");
        hosts
            .all()
            .iter()
            .for_each(|host| hosts.record_health(host, false));
        assert_eq!(ports(&hosts.candidates()), "123");
        assert!(!hosts.any_up());
    }

    #[test]
    fn name_has_its_latest_addresses() {
        let hosts = hosts("failover", "['mx.test:9', '127.0.0.1:1', '192.0.2.3:9']");
        assert_eq!(ports(&hosts.all()), "19");
        assert_eq!(hosts.unresolved()[0].0, "mx.test:9");
        let settle = |found| hosts.settle(vec![found, nothing(), nothing()], Instant::now());
        settle(addresses(&["192.0.2.1:9", "192.0.2.2:9", "192.0.2.1:9"]));
        assert_eq!(ports(&hosts.all()), "9919");
        assert!(hosts.unresolved().is_empty());
        hosts.record_health(&hosts.all()[1], false);
        // The first address goes, a duplicate of a configured address comes, and the remaining
        // address keeps its health.
        settle(addresses(&["192.0.2.2:9", "192.0.2.3:9"]));
        let expected = ["192.0.2.3:9", "127.0.0.1:1", "192.0.2.2:9"];
        assert_eq!(texts(&hosts.candidates()), expected);
    }

    #[test]
    fn unresolvable_name_keeps_its_addresses_for_an_hour() {
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
    fn metrics_follow_the_current_addresses() {
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
        hosts.record_health(&gone, true);
        assert!(shown().contains("192.0.2.1:9") && !shown().contains("mx.test"));
        hosts.settle(vec![addresses(&["192.0.2.2:9"])], now);
        hosts.record_health(&gone, true);
        assert_eq!(shown(), "");
    }

    #[test]
    fn long_address_lists_are_cut() {
        let many = (1..100).map(|n| SocketAddr::from(([192, 0, 2, n], 9)));
        assert_eq!(distinct(many.collect()).len(), MAX_ADDRESSES);
    }

    #[test]
    fn localhost_resolves_to_loopback_only() {
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
