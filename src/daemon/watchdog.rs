//! Feeds systemd's watchdog while every loop of the daemon answers.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::lifecycle::{Lifecycle, notify};

/// Pings the loops three times within `limit`, systemd's timeout, and reports success. The check
/// covers only the process itself: a failed Postfix or a full disk would be no better after a
/// restart.
pub(super) async fn feed(limit: Duration, lifecycle: Lifecycle) {
    let every = limit / 3;
    let mut rounds = interval(every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = lifecycle.ended() => return,
            _ = rounds.tick() => {}
        }
        let silent = lifecycle.unresponsive(every).await;
        if silent.is_empty() {
            notify::alive();
        } else {
            let silent = silent.join(", ");
            tracing::error!(
                silent,
                seconds = limit.as_secs(),
                "not everything turns, systemd is not told otherwise"
            );
        }
    }
}
