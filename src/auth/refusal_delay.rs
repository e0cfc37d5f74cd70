//! The time of rejections: a fixed delay after the request, whatever the reason, so that the time
//! reveals nothing about which usernames exist.

use std::time::Duration;

use rand::RngExt as _;

/// In percent, to either side.
const JITTER: u32 = 20;

/// The least wait for a hash. With a shorter refusal delay, hashed rejections may come later than
/// the others.
const LEAST: Duration = Duration::from_millis(500);

/// How long an unknown client waits for a permit and a hash; no longer than any rejection takes.
pub(crate) fn permit_timeout(base: Duration) -> Duration {
    LEAST.max(base * (100 - JITTER) / 100)
}

/// Whether every rejection comes later than `time` after its request.
pub(crate) fn is_later_than(time: Duration, base: Duration) -> bool {
    base * (100 - JITTER) / 100 > time
}

/// The time from request to rejection.
pub(crate) fn jittered(base: Duration) -> Duration {
    let percent = rand::rng().random_range(100 - JITTER..=100 + JITTER);
    base * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_varies_around_its_base() {
        let base = Duration::from_secs(1);
        let delays: Vec<_> = (0..200).map(|_| jittered(base)).collect();
        assert!(
            delays
                .iter()
                .all(|delay| (800..=1200).contains(&delay.as_millis()))
        );
        assert!(delays.iter().any(|delay| *delay != delays[0]));
        assert!(delays.iter().all(|delay| *delay >= permit_timeout(base)));
    }
}
