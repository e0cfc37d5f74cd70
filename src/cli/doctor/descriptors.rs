//! File descriptors: whether they are enough for as many clients as are configured.

use std::io::ErrorKind;
use std::time::Duration;

use axum::http::Method;
use serde::Deserialize;

use super::causes::RESTART;
use super::finding::Finding;
use crate::admin::client::{Client, ClientError};
use crate::config::Config;
use crate::daemon::descriptors::{limits, shortage};

const CHECK: &str = "descriptors";

/// The time that the running Gatepost has to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The part of the status that is looked at.
#[derive(Deserialize)]
struct Status {
    connections: Connections,
    listeners: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    address: String,
}

#[derive(Deserialize)]
struct Connections {
    limit: u64,
}

/// Looks at the running Gatepost if it answers at its socket, otherwise at the limit that a daemon
/// started from here would get. `runs`: whether one should answer.
pub fn examine(config: &Config, runs: bool) -> Vec<Finding> {
    let socket = config
        .admin
        .as_ref()
        .and_then(|admin| admin.socket.as_ref());
    let client = socket.map(|socket| Client::new(socket).within(PATIENCE));
    let status = client.map(|client| client.ask::<Status>(Method::GET, "/api/v1/status", None));
    let configured = config.limits.connections as u64;
    match status {
        Some(Ok(status)) => {
            let mut findings = vec![judge(configured, status.connections.limit)];
            findings.extend(judge_listeners(config, &status.listeners));
            findings
        }
        Some(Err(error)) if runs && !is_denied(&error) => {
            let next = "journalctl -u gatepost -n 50";
            vec![Finding::warning("admin", error.to_string(), next)]
        }
        _ => vec![match shortage(config, limits().1) {
            Some(shortage) => Finding::warning(
                CHECK,
                format!("started from here, {shortage}"),
                "under systemd: systemctl show gatepost -p LimitNOFILE",
            ),
            None => Finding::ok(CHECK, enough(configured)),
        }],
    }
}

fn is_denied(error: &ClientError) -> bool {
    matches!(error, ClientError::Unreachable { source, .. } if source.kind() == ErrorKind::PermissionDenied)
}

/// The listeners that were written after the running Gatepost was started.
fn judge_listeners(config: &Config, served: &[Place]) -> Option<Finding> {
    let is_served = |address: &str| served.iter().any(|place| place.address == address);
    let fixed = config
        .listeners
        .iter()
        .filter(|one| one.address.port() != 0);
    let addresses = fixed.map(|one| one.address.to_string());
    let unserved: Vec<_> = addresses.filter(|address| !is_served(address)).collect();
    (!unserved.is_empty()).then(|| {
        let found = format!(
            "the running Gatepost does not serve {}: config.toml was changed after its start",
            unserved.join(", ")
        );
        Finding::problem("daemon", found, RESTART).explaining(&["listener"])
    })
}

/// A Gatepost that serves `limit` clients at a time, of the `configured` ones.
fn judge(configured: u64, limit: u64) -> Finding {
    if limit >= configured {
        return Finding::ok(CHECK, enough(configured));
    }
    Finding::warning(
        CHECK,
        format!(
            "limits.connections = {configured}, but only {limit} clients are served at a time: the running Gatepost has too few file descriptors for more"
        ),
        "raise LimitNOFILE= in the unit (systemctl edit gatepost), and restart it; its log has the number",
    )
}

fn enough(configured: u64) -> String {
    format!("enough for limits.connections = {configured}")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn fewer_connections_than_configured_are_a_warning() {
        assert_eq!(judge(4096, 4096).level, Level::Ok);
        let finding = judge(4096, 5);
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.found.contains("only 5 clients"), "{finding:?}");
    }
}
