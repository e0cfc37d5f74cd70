//! The pause between warnings that repeat: a client or a broken part that causes the same warning
//! again and again must not fill the log.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the same warning does not come again.
const PAUSE: Duration = Duration::from_secs(60);

/// How many warnings are told apart within a pause. All further ones count as one.
const MOST: usize = 64;

/// Stands for the warnings beyond [`MOST`].
const FURTHER: u64 = 0;

/// Lets each warning through once a minute, with the number of times that it was due.
pub struct Throttle(Mutex<Vec<Entry>>);

struct Entry {
    warning: u64,
    /// When it last came.
    at: Instant,
    /// How often it was due since.
    since: u64,
}

impl Throttle {
    /// Nothing has come yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// How often the warning was due since it last came, this time included; `None` where it came
    /// less than a minute ago.
    pub fn due(&self) -> Option<u64> {
        self.due_for(&())
    }

    /// The same for the warning that is about `subject`. Those about different subjects do not hold
    /// each other back.
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
    fn a_warning_comes_once_a_minute_with_its_count() {
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
