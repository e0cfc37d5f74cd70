//! Notifications to systemd (sd_notify(3)). Every call ignores errors: without NOTIFY_SOCKET there
//! is no receiver, and a lost service manager is no reason to stop.

use std::time::Duration;

use sd_notify::NotifyState;

/// The listeners are open, or a reload has finished.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// A reload begins; [`ready`] reports its end. The timestamp lets a unit of `Type=notify-reload`
/// match the answer to the reload.
pub fn reloading() {
    let begun = NotifyState::monotonic_usec_now().ok();
    send(
        &[NotifyState::Reloading]
            .into_iter()
            .chain(begun)
            .collect::<Vec<_>>(),
    );
}

/// Sets the status line of `systemctl status`.
pub fn status(status: &str) {
    // A line break would begin another assignment.
    let line = status.replace(['\n', '\r'], " ");
    send(&[NotifyState::Status(&line)]);
}

pub fn stopping() {
    let status = "draining: transactions in flight may finish";
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Every loop has answered its heartbeat.
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// Returns systemd's watchdog timeout, or `None` without a watchdog.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())
}

fn send(states: &[NotifyState]) {
    let _ = sd_notify::notify(states);
}
