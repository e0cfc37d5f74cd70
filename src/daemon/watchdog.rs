//! Tells systemd regularly that the daemon still does its work, as long as it does.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::lifecycle::{Lifecycle, notify};

/// Asks the loops three times in every `limit`, which is systemd's patience, and passes their
/// answer on. Only what this process has in its own hands is asked: a Postfix that is down or a
/// disk that is full would be no better after a restart.
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
