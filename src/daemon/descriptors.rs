//! The file descriptor budget. Clients share the descriptors left over by the admin server, the
//! metrics, the store and the log, so that a crowd of clients cannot lock out the administrator.

use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::config::Config;

/// Descriptors for everything but clients: listeners, event loops, the store with its readers, and
/// admin and metrics connections.
const RESERVE: u64 = 256;

/// Returns the descriptors per client: its own connection, the upstream's and, with an auth socket,
/// the connection of its smtpd.
fn of_each(config: &Config) -> u64 {
    match config.dovecot_auth {
        None => 2,
        Some(_) => 3,
    }
}

/// Returns the soft and hard limits of the process; [`u64::MAX`] means no limit.
pub fn limits() -> (u64, u64) {
    let limits = getrlimit(Resource::Nofile);
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    (number(limits.current), number(limits.maximum))
}

/// Returns the error and the next step if `limit` is too low for the configuration.
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

/// Returns the limit of client connections, at most the configured limit. `soon` descriptors will
/// be opened besides the open descriptors.
pub(super) fn connections(config: &Config, soon: usize) -> usize {
    let (limit, _) = limits();
    let most = room(limit, open() + soon as u64, of_each(config));
    usize::try_from(most).map_or(config.limits.connections, |most| {
        most.min(config.limits.connections)
    })
}

/// Counts the open descriptors, or assumes the usual number.
fn open() -> u64 {
    fs::read_dir("/proc/self/fd").map_or(RESERVE, |open| open.count() as u64)
}

/// Returns how many connections fit. With few descriptors, half of the rest stays in reserve.
fn room(limit: u64, open: u64, of_each: u64) -> u64 {
    let left = limit.saturating_sub(open);
    let reserve = RESERVE.min(left / 2);
    ((left - reserve) / of_each).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_share_the_descriptors_beyond_the_reserve() {
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
