//! Log lines on their way out. A log that cannot be written costs its lines and nothing else: a
//! thread of its own writes them, and no session waits for that thread.

mod output;
mod queue;
mod throttle;

use std::io;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

pub use output::{Output, SOCKET as JOURNAL_SOCKET};
pub use throttle::Throttle;

use queue::Queue;

/// The lines of this process. The subscriber of `tracing` is one for the whole process as well.
static QUEUE: Queue = Queue::new();

/// Starts the thread that writes the lines to `output`.
///
/// # Errors
/// The system has no thread left.
pub fn start(output: Output) -> io::Result<()> {
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || QUEUE.write_to(output))?;
    Ok(())
}

/// Queues a line with its line feed. Where the queue is full the line is dropped, and is counted.
pub fn write(line: &[u8]) {
    QUEUE.push(line);
}

/// Waits until the queued lines are written, but no longer than `limit`.
pub fn flush(limit: Duration) {
    QUEUE.flush(limit);
}

/// How many lines have been dropped since the start.
pub fn dropped() -> u64 {
    QUEUE.dropped.load(Ordering::Relaxed)
}

/// Whether lines are dropped now.
pub fn is_dropping() -> bool {
    QUEUE.is_dropping.load(Ordering::Relaxed)
}
