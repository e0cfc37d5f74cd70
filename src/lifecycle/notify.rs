//! What systemd is told (sd_notify(3)). Without NOTIFY_SOCKET nobody listens, and a service manager
//! that is gone is no reason to end; so nothing here fails.

use std::time::Duration;

use sd_notify::NotifyState;

/// The listeners are open, or a reload is over.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// SIGHUP was seen; [`ready`] tells the end of it. With the time of it a unit of
/// `Type=notify-reload` can tell which of several reloads is answered.
pub fn reloading() {
    let begun = NotifyState::monotonic_usec_now().ok();
    send(
        &[NotifyState::Reloading]
            .into_iter()
            .chain(begun)
            .collect::<Vec<_>>(),
    );
}

/// What `systemctl status` shows from now on.
pub fn status(status: &str) {
    // A line break would begin another assignment.
    let line = status.replace(['\n', '\r'], " ");
    send(&[NotifyState::Status(&line)]);
}

/// Draining has begun.
pub fn stopping() {
    let status = "draining: transactions in flight may finish";
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Everything still turns.
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// How long systemd waits for the next [`alive`] before it ends this process; `None` when it does
/// not look.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())
}

fn send(states: &[NotifyState]) {
    let _ = sd_notify::notify(states);
}
