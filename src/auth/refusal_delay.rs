//! When a refusal is answered: a fixed while after the claim was made, whatever the reason, so
//! that time tells an attacker nothing about which names exist.

use std::time::Duration;

use rand::RngExt as _;

/// How much of the delay may vary, in percent, to either side.
const JITTER: u32 = 20;

/// The least that a stranger's hash is waited for. Where refusals come sooner than that, those that may have been hashed
/// come when they can.
const LEAST: Duration = Duration::from_millis(500);

/// How long a stranger's hash is waited for: a refusal is due no sooner.
pub(crate) fn permit_timeout(base: Duration) -> Duration {
    LEAST.max(base * (100 - JITTER) / 100)
}

/// Whether every refusal comes later than `time` after its claim.
pub(crate) fn is_later_than(time: Duration, base: Duration) -> bool {
    base * (100 - JITTER) / 100 > time
}

/// The whole time from claim to refusal, with jitter.
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
