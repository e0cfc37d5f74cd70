//! Everything a test needs around the binary under test: an installation and the daemon, clients,
//! upstreams that behave or misbehave, and a Postfix of its own.

pub mod activation;
pub mod auth_client;
pub mod axe;
pub mod browser;
pub mod chromium;
pub mod client;
pub mod dialog;
pub mod faketime;
pub mod gatepost;
pub mod holder;
pub mod journal;
pub mod lock;
pub mod peers;
pub mod ports;
pub mod postfix;
pub mod prometheus;
pub mod secrets;
pub mod shim;
pub mod sink;
pub mod site;
pub mod tls;
pub mod upstream;
pub mod webdriver;

use std::time::{Duration, Instant};

/// How long anything may take before a test calls it hung. Generous, because two cores may be
/// running a Postfix, an argon2 and a compiler at once; no passing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Asks `probe` until it has an answer, for what offers no event to wait for (a log file of
/// Postfix, another process's cache). Panics with `what` after [`PATIENCE`].
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe)
}

/// [`eventually`] with a promise of the product as the limit.
pub fn within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The promise for a change another process made in the store.
const OBEYED_WITHIN: Duration = Duration::from_millis(250);

/// Logs in again and again right after a change: an attempt begun later than promised must be
/// refused, an earlier one may still be accepted.
#[track_caller]
pub fn refused_soon(mut attempt: impl FnMut() -> client::Reply) {
    let changed = Instant::now();
    loop {
        let begun = changed.elapsed();
        let reply = attempt();
        if reply.starts_with("535 5.7.8") {
            return;
        }
        assert!(reply.starts_with("235"), "{reply:?}");
        assert!(
            begun < OBEYED_WITHIN,
            "still accepted {begun:?} after the change"
        );
    }
}
