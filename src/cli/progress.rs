//! How far a long command is, on a terminal: a bar where there is a measure, otherwise the seconds.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a command may take before it shows anything.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the line is drawn again.
const PACE: Duration = Duration::from_millis(200);

/// Characters of a whole bar.
const WIDTH: usize = 30;

/// A line on standard error that shows how far a command is. It shows nothing unless standard error
/// is a terminal, and nothing within the first second.
pub(super) struct Progress {
    shared: Arc<Shared>,
    drawing: Option<(SyncSender<()>, JoinHandle<()>)>,
}

struct Shared {
    label: String,
    done: AtomicUsize,
    all: AtomicUsize,
    /// Whether the line stands on the terminal. Held while anything is written there.
    is_drawn: Mutex<bool>,
}

impl Progress {
    /// Begins to count the time of `label`.
    pub(super) fn begin(label: &str) -> Progress {
        let shared = Arc::new(Shared {
            label: label.to_owned(),
            done: AtomicUsize::new(0),
            all: AtomicUsize::new(0),
            is_drawn: Mutex::new(false),
        });
        let drawing = io::stderr().is_terminal().then(|| {
            let (stop, stopped) = sync_channel(0);
            let shared = shared.clone();
            let drawing = thread::spawn(move || {
                let begun = Instant::now();
                let mut pause = PATIENCE;
                while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                    pause = PACE;
                    let mut is_drawn = shared.lock();
                    draw(&shared.line(begun.elapsed()));
                    *is_drawn = true;
                }
                Shared::clear(&mut shared.lock());
            });
            (stop, drawing)
        });
        Progress { shared, drawing }
    }

    /// Says how much is done of all.
    pub(super) fn at(&self, done: usize, all: usize) {
        self.shared.all.store(all, Ordering::Relaxed);
        self.shared.done.fetch_max(done, Ordering::Relaxed);
    }

    /// Writes something else to the terminal, above the line.
    pub(super) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        let mut is_drawn = self.shared.lock();
        Shared::clear(&mut is_drawn);
        write()
    }

    /// Takes the line away.
    pub(super) fn stop(&mut self) {
        if let Some((stop, drawing)) = self.drawing.take() {
            drop(stop);
            let _ = drawing.join(); // a panic there has only spoiled the line
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clear(is_drawn: &mut bool) {
        if std::mem::take(is_drawn) {
            draw("");
        }
    }

    fn line(&self, elapsed: Duration) -> String {
        let done = self.done.load(Ordering::Relaxed);
        line(&self.label, done, self.all.load(Ordering::Relaxed), elapsed)
    }
}

fn line(label: &str, done: usize, all: usize, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    if all == 0 {
        return format!("{label}: {seconds} s");
    }
    let done = done.min(all);
    let full = "#".repeat(done * WIDTH / all);
    let percent = done * 100 / all;
    format!("{label}: [{full:.<WIDTH$}] {percent} %, {seconds} s")
}

/// Draws one line over the one before.
fn draw(line: &str) {
    let mut output = io::stderr().lock();
    // Who closed standard error wants to see nothing.
    let _ = write!(output, "\r\x1b[2K{line}").and_then(|()| output.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_needs_a_measure() {
        let elapsed = Duration::from_millis(2_500);
        assert_eq!(line("Checking", 0, 0, elapsed), "Checking: 2 s");
        let half = line("Hashing", 5, 10, elapsed);
        assert_eq!(half, "Hashing: [###############...............] 50 %, 2 s");
        let more = line("Hashing", 12, 10, elapsed);
        assert!(more.ends_with("] 100 %, 2 s") && !more.contains('.'));
    }
}
