//! How long reading may take, where the caller has not all the time there is.

use std::cell::Cell;
use std::ops::Deref;
use std::time::{Duration, Instant};

use r2d2::PooledConnection;
use rusqlite::Connection;

use super::connection::Manager;

/// How many instructions of SQLite's virtual machine pass between two looks at the clock: some tens
/// of microseconds.
const INSTRUCTIONS: i32 = 10_000;

thread_local! {
    /// How long this thread may still read; `None` is as long as it takes.
    static LEFT: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Does `work`, in which this thread reads for no longer than `limit` in all; beyond, reading fails
/// with [`super::StoreError::TooMuch`]. Changes are not limited: they end as they must.
pub fn limit_reading<T>(limit: Duration, work: impl FnOnce() -> T) -> T {
    let _restored = Restored(LEFT.replace(Some(limit)));
    work()
}

/// Puts back what the thread was allowed before, also when the work panics.
struct Restored(Option<Duration>);

impl Drop for Restored {
    fn drop(&mut self) {
        LEFT.set(self.0);
    }
}

/// A reader that is interrupted when the thread's time is over.
pub(super) struct LimitedReader {
    reader: PooledConnection<Manager>,
    begun: Option<Instant>,
}

impl LimitedReader {
    pub(super) fn new(mut reader: PooledConnection<Manager>) -> rusqlite::Result<Self> {
        let begun = match LEFT.get() {
            None => None,
            Some(left) => {
                let begun = Instant::now();
                let is_over = move || begun.elapsed() >= left;
                reader.progress_handler(INSTRUCTIONS, Some(is_over))?;
                Some(begun)
            }
        };
        Ok(Self { reader, begun })
    }
}

impl Deref for LimitedReader {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.reader
    }
}

impl Drop for LimitedReader {
    fn drop(&mut self) {
        let Some(begun) = self.begun else {
            return;
        };
        // The next to read with it has a time of its own. It only fails for a closed connection.
        let _ = self.reader.progress_handler(0, None::<fn() -> bool>);
        LEFT.set(LEFT.get().map(|left| left.saturating_sub(begun.elapsed())));
    }
}

#[cfg(test)]
mod tests {
    use super::super::StoreError;
    use super::super::tests::Fixture;
    use super::*;

    #[test]
    fn reading_that_takes_too_long_is_interrupted_and_the_next_is_not() {
        let store = Fixture::new();
        let count = |to: i64| {
            store.read(|connection| {
                let sql =
                    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                           SELECT count(*) FROM n";
                Ok(connection.query_row(sql, [to], |row| row.get::<_, i64>(0))?)
            })
        };
        let begun = Instant::now();
        let limit = Duration::from_millis(50);
        limit_reading(limit, || {
            assert_eq!(count(10).unwrap(), 10);
            let error = count(i64::MAX).unwrap_err();
            assert!(matches!(error, StoreError::TooMuch), "{error}");
            assert!(count(1_000_000).is_err(), "the time is for all of it");
        });
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(count(1_000_000).unwrap(), 1_000_000);
    }
}
