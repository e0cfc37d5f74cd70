//! File descriptors: whether they are enough for as many clients as are configured.

use axum::http::Method;
use serde::Deserialize;

use super::finding::Finding;
use crate::admin::client::Client;
use crate::config::Config;
use crate::daemon::descriptors::{limits, shortage};

const CHECK: &str = "descriptors";

/// The part of the status that describes connections.
#[derive(Deserialize)]
struct Status {
    connections: Connections,
}

#[derive(Deserialize)]
struct Connections {
    limit: u64,
}

/// Looks at the running Gatepost if it answers at its socket, otherwise at the limit that a daemon
/// started from here would get.
pub fn examine(config: &Config) -> Finding {
    let socket = config
        .admin
        .as_ref()
        .and_then(|admin| admin.socket.as_ref());
    let status = socket.and_then(|socket| {
        let answer = Client::new(socket).ask::<Status>(Method::GET, "/api/v1/status", None);
        answer.ok()
    });
    let configured = config.limits.connections as u64;
    match status {
        Some(Status { connections }) => judge(configured, connections.limit),
        None => match shortage(config, limits().1) {
            Some(shortage) => Finding::warning(
                CHECK,
                format!("started from here, {shortage}"),
                "under systemd: systemctl show gatepost -p LimitNOFILE",
            ),
            None => Finding::ok(CHECK, enough(configured)),
        },
    }
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
