//! Asynchronous log output. A dedicated thread writes the lines, so a stalled log costs lines but
//! delays no session.

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

/// The process's queue; the `tracing` subscriber is global as well.
static QUEUE: Queue = Queue::new();

/// Starts the thread that writes lines to `output`.
///
/// # Errors
/// The system cannot start another thread.
pub fn start(output: Output) -> io::Result<()> {
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || QUEUE.write_to(output))?;
    Ok(())
}

/// Queues a line with its line feed; a full queue drops and counts the line.
pub fn write(line: &[u8]) {
    QUEUE.push(line);
}

/// Waits until the queued lines are written, at most for `limit`.
pub fn flush(limit: Duration) {
    QUEUE.flush(limit);
}

/// Returns how many lines have been dropped since the start.
pub fn dropped() -> u64 {
    QUEUE.dropped.load(Ordering::Relaxed)
}

/// Whether lines are being dropped now.
pub fn is_dropping() -> bool {
    QUEUE.is_dropping.load(Ordering::Relaxed)
}
