//! Which limits were logged lately in one session: a client that goes on and on must not fill the
//! log.

use std::time::{Duration, Instant};

use crate::policy::Party;

use super::counter::Over;

/// How long a limit is not logged again.
const PAUSE: Duration = Duration::from_secs(60);

/// What was reached, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Whose limit.
    pub of: Party,
    /// Which one.
    pub over: Over,
    /// Whether that was refused, or only reported.
    pub refused: bool,
}

/// What was logged in one session, and what was not yet.
#[derive(Debug, Default)]
pub struct Told(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    reached: Reached,
    /// When it was logged last.
    at: Instant,
    /// How often it was reached since.
    since: u64,
}

impl Told {
    /// How many times are to be logged now, if it is time.
    pub fn count(&mut self, reached: Reached, now: Instant) -> Option<u64> {
        let same = |entry: &&mut Entry| {
            let other = entry.reached;
            (other.of, other.over.limit, other.refused)
                == (reached.of, reached.over.limit, reached.refused)
        };
        let Some(entry) = self.0.iter_mut().find(same) else {
            self.0.push(Entry {
                reached,
                at: now,
                since: 0,
            });
            return Some(1);
        };
        entry.reached = reached;
        entry.since += 1;
        if now.saturating_duration_since(entry.at) < PAUSE {
            return None;
        }
        entry.at = now;
        Some(std::mem::take(&mut entry.since))
    }

    /// What was not logged, and how often it was reached; then nothing is left of it.
    pub fn rest(&mut self) -> Vec<(Reached, u64)> {
        let entries = std::mem::take(&mut self.0).into_iter();
        let entries = entries.filter(|entry| entry.since > 0);
        entries.map(|entry| (entry.reached, entry.since)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Limit;

    fn reached(limit: Limit, ceiling: u64) -> Reached {
        Reached {
            of: Party::Credential,
            over: Over { limit, ceiling },
            refused: true,
        }
    }

    #[test]
    fn each_is_told_once_a_minute_with_all_that_were_not() {
        let mut told = Told::default();
        let begin = Instant::now();
        let day = reached(Limit::MessagesPerDay, 2);
        let hour = reached(Limit::MessagesPerHour, 1);
        assert_eq!(told.count(day, begin), Some(1));
        for second in 1..60 {
            assert_eq!(told.count(day, begin + Duration::from_secs(second)), None);
        }
        assert_eq!(told.count(hour, begin + PAUSE / 2), Some(1));
        let reported = Reached {
            refused: false,
            ..hour
        };
        assert_eq!(told.count(reported, begin + PAUSE / 2), Some(1));
        assert_eq!(told.count(day, begin + PAUSE), Some(60));
        assert_eq!(told.count(hour, begin + PAUSE), None);
        // A changed limit is the same one, told as it is now.
        let changed = reached(Limit::MessagesPerDay, 5);
        assert_eq!(told.count(changed, begin + PAUSE), None);
        assert_eq!(told.rest(), [(changed, 1), (hour, 1)]);
        assert_eq!(told.rest(), []);
    }
}
