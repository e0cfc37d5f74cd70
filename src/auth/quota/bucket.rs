//! A token bucket of one second, kept as the single time at which the bucket is full again.

/// The bucket of one party. Times are microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    full_at: i64,
}

const SECOND: i64 = 1_000_000;

impl Bucket {
    /// Takes one token; false if the bucket is empty.
    pub(crate) fn take(&mut self, now: i64, per_second: u64) -> bool {
        let one = Self::one(per_second);
        // A clock that goes back must not keep the bucket empty for longer than a second.
        let full_at = self.full_at.clamp(now, now + SECOND);
        let takes = full_at + one <= now + SECOND;
        self.full_at = if takes { full_at + one } else { full_at };
        takes
    }

    /// Puts back one token.
    pub(crate) fn put_back(&mut self, per_second: u64) {
        self.full_at -= Self::one(per_second);
    }

    /// The number of missing tokens.
    pub(crate) fn taken(&self, now: i64, per_second: u64) -> u64 {
        let missing = (self.full_at - now).clamp(0, SECOND).unsigned_abs();
        missing.div_ceil(Self::one(per_second).unsigned_abs().max(1))
    }

    /// The time of one token. More than a million per second is unlimited.
    fn one(per_second: u64) -> i64 {
        SECOND / i64::try_from(per_second).unwrap_or(i64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_a_second_and_fills_evenly() {
        let mut bucket = Bucket::default();
        let now = 1_800_000_000 * SECOND;
        let burst = |bucket: &mut Bucket, now| (0..10).filter(|_| bucket.take(now, 4)).count();
        assert_eq!(burst(&mut bucket, now), 4);
        assert_eq!(bucket.taken(now, 4), 4);
        assert_eq!(burst(&mut bucket, now + SECOND / 4), 1);
        assert_eq!(burst(&mut bucket, now + SECOND / 2 - 1), 0);
        assert_eq!(burst(&mut bucket, now + 10 * SECOND), 4);
        bucket.put_back(4);
        assert_eq!(burst(&mut bucket, now + 10 * SECOND), 1);
    }

    #[test]
    fn over_a_long_time_the_rate_is_kept() {
        let mut bucket = Bucket::default();
        let taken = (0..10_000).filter(|ms| bucket.take(ms * 1000, 7)).count();
        assert!((70..=77).contains(&taken), "{taken}");
    }

    #[test]
    fn a_clock_that_is_put_back_costs_a_second_at_most() {
        let mut bucket = Bucket::default();
        assert!(bucket.take(1_000 * SECOND, 1));
        assert!(!bucket.take(0, 1));
        assert!(bucket.take(SECOND, 1));
    }
}
