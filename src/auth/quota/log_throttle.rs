//! Throttles the log lines of one session: a client that goes on must not fill the log.

use std::time::{Duration, Instant};

use crate::policy::Breach;

/// The least time between two equal lines.
const PAUSE: Duration = Duration::from_secs(60);

/// One entry for each kind of breach: the last line, and the breaches since.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle<V>(Vec<Entry<V>>);

#[derive(Debug)]
struct Entry<V> {
    breach: Breach,
    at: Instant,
    /// Breaches since the last line.
    since: u64,
    /// The ceiling, or the offending value, of the last breach.
    value: V,
}

impl<V: Default> LogThrottle<V> {
    /// Returns how many breaches to log now. Within the pause keeps `value` for later.
    pub(crate) fn count(
        &mut self,
        breach: Breach,
        value: impl FnOnce() -> V,
        now: Instant,
    ) -> Option<u64> {
        let Some(entry) = self.0.iter_mut().find(|entry| entry.breach == breach) else {
            self.0.push(Entry {
                breach,
                at: now,
                since: 0,
                value: V::default(),
            });
            return Some(1);
        };
        entry.since += 1;
        if now.saturating_duration_since(entry.at) < PAUSE {
            entry.value = value();
            return None;
        }
        entry.at = now;
        Some(std::mem::take(&mut entry.since))
    }

    /// Takes the breaches without a line, with the latest value and the count.
    pub(crate) fn rest(&mut self) -> Vec<(Breach, V, u64)> {
        let entries = std::mem::take(&mut self.0).into_iter();
        let entries = entries.filter(|entry| entry.since > 0);
        entries
            .map(|entry| (entry.breach, entry.value, entry.since))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Limit, Party};

    fn reached(limit: Limit, refused: bool) -> Breach {
        Breach::Limit {
            of: Party::Credential,
            limit,
            refused,
        }
    }

    #[test]
    fn each_kind_is_logged_once_a_minute_with_the_count_since() {
        let mut throttle = LogThrottle::default();
        let begin = Instant::now();
        let day = reached(Limit::MessagesPerDay, true);
        let hour = reached(Limit::MessagesPerHour, true);
        assert_eq!(throttle.count(day, || 2, begin), Some(1));
        for second in 1..60 {
            let now = begin + Duration::from_secs(second);
            assert_eq!(throttle.count(day, || 2, now), None);
        }
        assert_eq!(throttle.count(hour, || 1, begin + PAUSE / 2), Some(1));
        let reported = reached(Limit::MessagesPerHour, false);
        assert_eq!(throttle.count(reported, || 1, begin + PAUSE / 2), Some(1));
        assert_eq!(throttle.count(day, || 2, begin + PAUSE), Some(60));
        assert_eq!(throttle.count(hour, || 1, begin + PAUSE), None);
        // A changed limit is the same kind; the line has the new ceiling.
        assert_eq!(throttle.count(day, || 5, begin + PAUSE), None);
        assert_eq!(throttle.rest(), [(day, 5, 1), (hour, 1, 1)]);
        assert_eq!(throttle.rest(), []);
    }
}
