//! So many a second, and after a pause as many at once: a token bucket that holds what one second
//! fills it with, kept as the one time at which it will be full again.

/// The bucket of one sender. Times are microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    full_at: i64,
}

const SECOND: i64 = 1_000_000;

impl Bucket {
    /// Takes one at `now`; false if there is none.
    pub(crate) fn take(&mut self, now: i64, per_second: u64) -> bool {
        let one = Self::one(per_second);
        // A clock that is put back must not keep it empty for longer than filling takes.
        let full_at = self.full_at.clamp(now, now + SECOND);
        let takes = full_at + one <= now + SECOND;
        self.full_at = if takes { full_at + one } else { full_at };
        takes
    }

    /// Takes one back that was not used after all.
    pub(crate) fn put_back(&mut self, per_second: u64) {
        self.full_at -= Self::one(per_second);
    }

    /// How many are missing in it at `now`.
    pub(crate) fn taken(&self, now: i64, per_second: u64) -> u64 {
        let missing = (self.full_at - now).clamp(0, SECOND).unsigned_abs();
        missing.div_ceil(Self::one(per_second).unsigned_abs().max(1))
    }

    /// How long one takes to come. More than a million a second is without limit.
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
