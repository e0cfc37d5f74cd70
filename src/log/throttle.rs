//! Limits repeated warnings: a client or a broken part that causes a warning again and again must
//! not fill the log.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The pause before an equal warning may repeat.
const PAUSE: Duration = Duration::from_secs(60);

/// How many warnings are distinguished within a pause. Further warnings count together.
const MOST: usize = 64;

/// Stands for the warnings beyond [`MOST`].
const FURTHER: u64 = 0;

/// Passes each warning once a minute, with the number of occurrences.
pub struct Throttle(Mutex<Vec<Entry>>);

struct Entry {
    warning: u64,
    /// When the warning last passed.
    at: Instant,
    /// Occurrences since the warning last passed.
    since: u64,
}

impl Throttle {
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Returns the number of occurrences since the warning last passed, including the current
    /// occurrence; `None` within a minute of the last.
    pub fn due(&self) -> Option<u64> {
        self.due_for(&())
    }

    /// Like [`Throttle::due`], counted separately for each `subject`.
    pub fn due_for(&self, subject: &impl Hash) -> Option<u64> {
        let warning = BuildHasherDefault::<DefaultHasher>::new().hash_one(subject);
        self.at(warning, Instant::now())
    }

    fn at(&self, warning: u64, now: Instant) -> Option<u64> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |entry: &Entry| now.saturating_duration_since(entry.at) < PAUSE;
        let is_known = entries.iter().any(|entry| entry.warning == warning);
        if !is_known && entries.len() >= MOST {
            entries.retain(is_recent);
        }
        let warning = match is_known || entries.len() < MOST {
            true => warning,
            false => FURTHER,
        };
        let Some(entry) = entries.iter_mut().find(|entry| entry.warning == warning) else {
            entries.push(Entry {
                warning,
                at: now,
                since: 0,
            });
            return Some(1);
        };
        entry.since += 1;
        if is_recent(entry) {
            return None;
        }
        entry.at = now;
        Some(std::mem::take(&mut entry.since))
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warning_passes_once_a_minute_with_its_count() {
        let throttle = Throttle::new();
        let begin = Instant::now();
        assert_eq!(throttle.at(1, begin), Some(1));
        for second in 1..60 {
            assert_eq!(throttle.at(1, begin + Duration::from_secs(second)), None);
        }
        assert_eq!(throttle.at(2, begin), Some(1), "another warning");
        assert_eq!(throttle.at(1, begin + PAUSE), Some(60));
        assert_eq!(throttle.at(1, begin + PAUSE), None);
    }

    #[test]
    fn further_warnings_count_as_one() {
        let throttle = Throttle::new();
        let begin = Instant::now();
        let most = MOST as u64;
        for warning in 1..=most {
            assert_eq!(throttle.at(warning, begin), Some(1));
        }
        assert_eq!(
            throttle.at(most + 1, begin),
            Some(1),
            "the first further one"
        );
        for warning in 1..1_000 {
            assert_eq!(throttle.at(most + warning, begin), None);
        }
        assert_eq!(throttle.0.lock().unwrap().len(), MOST + 1);
        assert_eq!(throttle.at(2, begin + PAUSE), Some(1));
        assert_eq!(throttle.at(most + 1, begin + PAUSE), Some(1), "known again");
        assert!(throttle.0.lock().unwrap().len() <= MOST + 1);
    }
}
