//! What was logged lately in one session: a client that goes on and on must not fill the log.

use std::time::{Duration, Instant};

use crate::policy::Breach;

/// How long the same is not logged again.
const PAUSE: Duration = Duration::from_secs(60);

/// What was logged in one session, and what was not yet. There is one entry at most for each way of not being allowed.
#[derive(Debug, Default)]
pub(crate) struct Told<V>(Vec<Entry<V>>);

#[derive(Debug)]
struct Entry<V> {
    breach: Breach,
    /// When it was logged last.
    at: Instant,
    /// How often it happened since.
    since: u64,
    /// The limit, or what broke the rule, when it happened last.
    value: V,
}

impl<V: Default> Told<V> {
    /// How many times are to be logged now, if it is time. Else `value` is kept for later.
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

    /// What was not logged, with the latest value and how often it happened; then nothing is left of it.
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
    fn each_is_told_once_a_minute_with_all_that_were_not() {
        let mut told = Told::default();
        let begin = Instant::now();
        let day = reached(Limit::MessagesPerDay, true);
        let hour = reached(Limit::MessagesPerHour, true);
        assert_eq!(told.count(day, || 2, begin), Some(1));
        for second in 1..60 {
            let now = begin + Duration::from_secs(second);
            assert_eq!(told.count(day, || 2, now), None);
        }
        assert_eq!(told.count(hour, || 1, begin + PAUSE / 2), Some(1));
        let reported = reached(Limit::MessagesPerHour, false);
        assert_eq!(told.count(reported, || 1, begin + PAUSE / 2), Some(1));
        assert_eq!(told.count(day, || 2, begin + PAUSE), Some(60));
        assert_eq!(told.count(hour, || 1, begin + PAUSE), None);
        // A changed limit is the same one, told as it is now.
        assert_eq!(told.count(day, || 5, begin + PAUSE), None);
        assert_eq!(told.rest(), [(day, 5, 1), (hour, 1, 1)]);
        assert_eq!(told.rest(), []);
    }
}
