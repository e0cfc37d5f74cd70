//! The threads that sessions run on: one a core, each with an event loop of its own.
//!
//! A session stays on the thread it began on. What it waits for wakes that thread alone, where a pool of threads would
//! wake another one for each event, to see whether it has time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};

use crate::lifecycle::Lifecycle;

/// Threads of one of them that may wait for SQLite at a time.
const BLOCKING_THREADS: usize = 4;

/// All of them. They end with the lifecycle.
pub struct Workers(Vec<Worker>);

struct Worker {
    runtime: Handle,
    sessions: Arc<AtomicUsize>,
}

impl Workers {
    /// One for each core that this process may use.
    pub fn start(lifecycle: &Lifecycle) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, Into::into);
        let workers = (0..cores).map(|_| Worker::start(lifecycle.clone()));
        workers.collect::<Result<_, _>>().map(Self)
    }

    /// Where there are the fewest sessions, and the place of one more there.
    pub fn place(&self) -> Option<(&Handle, Counted)> {
        let sessions = |worker: &&Worker| worker.sessions.load(Ordering::Relaxed);
        let worker = self.0.iter().min_by_key(sessions)?;
        Some((&worker.runtime, Counted::one_more(&worker.sessions)))
    }
}

impl Worker {
    fn start(lifecycle: Lifecycle) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("sessions".to_owned())
            .spawn(move || runtime.block_on(lifecycle.ended()))?;
        Ok(Self {
            runtime: handle,
            sessions: Arc::default(),
        })
    }
}

/// A session among those of its thread, until it is dropped.
pub struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn one_more(sessions: &Arc<AtomicUsize>) -> Self {
        sessions.fetch_add(1, Ordering::Relaxed);
        Self(sessions.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn sessions_are_shared_out_and_draining_waits_for_them() {
        let lifecycle = Lifecycle::new();
        let workers = Workers(
            (0..3)
                .map(|_| Worker::start(lifecycle.clone()).unwrap())
                .collect(),
        );
        let (told, mut tell) = mpsc::unbounded_channel();
        for _ in 0..6 {
            let (told, until) = (told.clone(), lifecycle.clone());
            let (runtime, counted) = workers.place().unwrap();
            lifecycle.spawn_on(runtime, async move {
                let _counted = counted;
                told.send(thread::current().id()).unwrap();
                until.draining().await;
            });
        }
        let mut threads = Vec::new();
        for _ in 0..6 {
            threads.push(tell.recv().await.unwrap());
        }
        for thread in &threads {
            assert_eq!(threads.iter().filter(|other| *other == thread).count(), 2);
        }
        assert!(lifecycle.drain(Duration::from_secs(10)).await);
        let left = workers
            .0
            .iter()
            .map(|worker| worker.sessions.load(Ordering::Relaxed));
        assert_eq!(left.sum::<usize>(), 0);
    }
}
