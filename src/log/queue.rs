//! The bounded queue between the logging threads and the writer. Logging threads never wait for the
//! writer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::output::Output;

/// The capacity in octets. A session logs some 300 octets, so thousands of sessions may end while
/// the output stalls.
const CAPACITY: usize = 2 * 1024 * 1024;

/// A buffer larger than this after a burst is freed, in octets.
const KEPT: usize = 64 * 1024;

/// How long the writer lets lines gather: under load a single system call then writes several
/// lines, and logging threads rarely have to wake the writer.
const GATHER: Duration = Duration::from_millis(2);

/// The pause between two reports of dropped lines; a slow output drops lines repeatedly.
const REPORT_PAUSE: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// The end of each line.
    ends: Vec<usize>,
}

impl Lines {
    pub(super) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns how many lines the first `count` octets contain completely.
    pub(super) fn whole(&self, count: usize) -> usize {
        self.ends.partition_point(|end| *end <= count)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.bytes[start..*end])
    }

    fn clear(&mut self) {
        if self.bytes.capacity() > KEPT {
            *self = Self::new();
        }
        self.bytes.clear();
        self.ends.clear();
    }
}

/// The queued lines and the writer's state.
struct State {
    lines: Lines,
    /// Whether the writer sleeps; all earlier lines are then written.
    is_idle: bool,
    /// Lines dropped since the last report.
    unreported: u64,
}

pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    idle: Condvar,
    /// Lines dropped since the start.
    pub(super) dropped: AtomicU64,
    /// Whether the last queued or written line was dropped.
    pub(super) is_dropping: AtomicBool,
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                lines: Lines::new(),
                is_idle: false,
                unreported: 0,
            }),
            filled: Condvar::new(),
            idle: Condvar::new(),
            dropped: AtomicU64::new(0),
            is_dropping: AtomicBool::new(false),
        }
    }

    /// Queues or drops a line. The lock is held only for the copy.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.lines.bytes.len() + line.len() > CAPACITY {
            state.unreported += 1;
            drop(state);
            self.count_dropped(1);
            return;
        }
        state.lines.push(line);
        let wakes = std::mem::take(&mut state.is_idle);
        drop(state);
        if wakes {
            self.filled.notify_one();
        }
    }

    /// Writes lines to `output` until the process ends.
    pub(super) fn write_to(&self, mut output: Output) {
        let mut lines = Lines::new();
        let mut is_writable = true;
        let mut reported: Option<Instant> = None;
        loop {
            let unreported = self.take(&mut lines, is_writable);
            // The queue has room for the report at this moment.
            let is_due = reported.is_none_or(|at| at.elapsed() >= REPORT_PAUSE);
            if unreported && is_writable && is_due {
                reported = Some(Instant::now());
                self.report();
            }
            if lines.len() > 0 {
                let written = output.write(&lines);
                is_writable = written == lines.len();
                self.note(lines.len() - written);
                lines.clear();
            }
        }
    }

    fn report(&self) {
        let dropped = std::mem::take(&mut self.lock().unreported);
        tracing::warn!(
            target: "gatepost::log",
            dropped,
            total = self.dropped.load(Ordering::Relaxed),
            "log lines were dropped, as the log could not be written; it can be written again"
        );
    }

    /// Waits for lines and swaps them with the empty `lines`. Returns whether dropped lines are
    /// unreported; if `reports` is set, such lines also end the wait after a pause.
    fn take(&self, lines: &mut Lines, reports: bool) -> bool {
        let mut state = self.lock();
        while state.lines.len() == 0 {
            state.is_idle = true;
            self.idle.notify_all();
            if reports && state.unreported > 0 {
                let waited = self.filled.wait_timeout(state, REPORT_PAUSE);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                break;
            }
            let waited = self.filled.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.is_idle = false;
        drop(state);
        thread::sleep(GATHER);
        let mut state = self.lock();
        std::mem::swap(&mut state.lines, lines);
        state.unreported > 0
    }

    /// Records the outcome of a write that dropped `dropped` lines.
    fn note(&self, dropped: usize) {
        if dropped == 0 {
            self.is_dropping.store(false, Ordering::Relaxed);
            return;
        }
        let dropped = dropped as u64;
        self.lock().unreported += dropped;
        self.count_dropped(dropped);
    }

    fn count_dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
        self.is_dropping.store(true, Ordering::Relaxed);
    }

    /// Waits until every line is written, at most for `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let is_busy = |state: &mut State| state.lines.len() > 0 || !state.is_idle;
        // The process ends now in either case.
        let _ = self.idle.wait_timeout_while(self.lock(), limit, is_busy);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{PipeReader, Read as _, pipe};
    use std::os::fd::OwnedFd;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Starts a queue whose writer writes into a pipe.
    fn piped() -> (&'static Queue, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        let queue: &'static Queue = Box::leak(Box::new(Queue::new()));
        let output = Output::Stream(File::from(OwnedFd::from(writer)));
        thread::spawn(move || queue.write_to(output));
        (queue, reader)
    }

    fn line(number: usize) -> String {
        format!("line {number} {}\n", "x".repeat(1_000))
    }

    #[test]
    fn lines_are_written_in_order_and_whole() {
        let (queue, mut reader) = piped();
        let lines: String = (0..20).map(line).collect();
        (0..20).for_each(|number| queue.push(line(number).as_bytes()));
        queue.flush(LIMIT);
        let mut read = vec![0; lines.len()];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(read, lines.as_bytes());
    }

    #[test]
    fn stalled_output_delays_no_caller_and_bounds_the_queue() {
        let (queue, mut reader) = piped();
        let begun = Instant::now();
        (0..10_000).for_each(|number| queue.push(line(number).as_bytes()));
        assert!(begun.elapsed() < LIMIT);
        assert!(queue.lock().lines.bytes.len() <= CAPACITY);
        assert!(queue.dropped.load(Ordering::Relaxed) > 5_000);
        let begun = Instant::now();
        queue.flush(Duration::from_millis(100));
        assert!(begun.elapsed() < LIMIT);

        // Waiting lines are written, each once, when the output resumes.
        let first = line(0);
        let mut read = vec![0; first.len()];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(read, first.as_bytes());
        thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        queue.flush(LIMIT);
        assert_eq!(queue.lock().lines.len(), 0);
    }

    #[test]
    fn lost_output_only_drops_lines() {
        let (queue, reader) = piped();
        drop(reader);
        for number in 0..3 {
            queue.push(line(number).as_bytes());
            queue.flush(LIMIT);
        }
        assert_eq!(queue.lock().unreported, 3);
        assert!(queue.is_dropping.load(Ordering::Relaxed));
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 3);
    }
}
