//! File descriptors: for how many clients they are enough. Clients share what is left once the
//! administration, the metrics, the store and the log have theirs, so that a crowd of clients
//! takes nothing from the administrator.

use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::config::Config;

/// Descriptors for everything but clients: listeners and event loops, the store and its readers,
/// and the connections of administration and metrics.
const RESERVE: u64 = 256;

/// How many descriptors a client's connection takes: its own, the upstream's, and, where smtpd asks
/// Gatepost, that of the smtpd which serves it.
fn of_each(config: &Config) -> u64 {
    match config.dovecot_auth {
        None => 2,
        Some(_) => 3,
    }
}

/// The limits of this process, the soft one and the hard one. [`u64::MAX`] is none.
pub fn limits() -> (u64, u64) {
    let limits = getrlimit(Resource::Nofile);
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    (number(limits.current), number(limits.maximum))
}

/// The error and the next step where `limit` is too low for the configuration; `None` where it is
/// enough.
pub fn shortage(config: &Config, limit: u64) -> Option<String> {
    let configured = config.limits.connections as u64;
    let needed = configured.saturating_mul(of_each(config)) + RESERVE;
    (limit < needed).then(|| {
        format!(
            "{limit} file descriptors are too few for limits.connections = {configured}, which needs {needed}: \
             set LimitNOFILE={needed} in the unit, or ulimit -n {needed} before the start, or lower limits.connections"
        )
    })
}

/// How many connections of clients there may be, at most as many as configured. `soon` descriptors
/// are opened besides those that are open now.
pub(super) fn connections(config: &Config, soon: usize) -> usize {
    let (limit, _) = limits();
    let most = room(limit, open() + soon as u64, of_each(config));
    usize::try_from(most).map_or(config.limits.connections, |most| {
        most.min(config.limits.connections)
    })
}

/// How many descriptors are open; where that cannot be seen, as many as usually are.
fn open() -> u64 {
    fs::read_dir("/proc/self/fd").map_or(RESERVE, |open| open.count() as u64)
}

/// For how many connections there is room. Where descriptors are few, half of what is left stays in
/// reserve.
fn room(limit: u64, open: u64, of_each: u64) -> u64 {
    let left = limit.saturating_sub(open);
    let reserve = RESERVE.min(left / 2);
    ((left - reserve) / of_each).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_share_what_is_left_beside_the_reserve() {
        for (limit, open, of_each, expected) in [
            (65_536, 50, 2, 32_615),
            (65_536, 50, 3, 21_743),
            (1_024, 50, 2, 359),
            (60, 40, 2, 5),
            (60, 58, 2, 1),
            (60, 80, 2, 1),
        ] {
            assert_eq!(room(limit, open, of_each), expected, "{limit} {open}");
        }
    }
}
