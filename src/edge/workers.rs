//! The session threads: one a core, each with its own event loop.
//!
//! A session stays on the thread that accepted it. An event wakes only the session's thread, where
//! a work-stealing pool would wake a second thread to look for work. All threads accept from the
//! same sockets, so an idle thread takes the next client; each arrival wakes every idle thread, and
//! no busy thread.

use std::io;
use std::net::TcpListener;
use std::thread;

use tokio::runtime::{Builder, Handle};

use crate::lifecycle::Lifecycle;

/// How many blocking store calls each thread may have open.
const BLOCKING_THREADS: usize = 4;

/// The session threads; they end with the lifecycle.
pub struct Workers {
    runtimes: Vec<Handle>,
    lifecycle: Lifecycle,
}

impl Workers {
    /// Starts a thread for each core available to the process.
    pub fn start(lifecycle: &Lifecycle) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, Into::into);
        let runtimes = (0..cores).map(|_| start(lifecycle.clone()));
        Ok(Self {
            runtimes: runtimes.collect::<Result<_, _>>()?,
            lifecycle: lifecycle.clone(),
        })
    }

    pub fn count(&self) -> usize {
        self.runtimes.len()
    }

    /// Runs a task on each thread, with the socket in the thread's event loop.
    pub fn share<F>(
        &self,
        socket: &TcpListener,
        task: impl Fn(tokio::net::TcpListener) -> F,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        for runtime in &self.runtimes {
            let _entered = runtime.enter();
            let socket = tokio::net::TcpListener::from_std(socket.try_clone()?)?;
            self.lifecycle.spawn(task(socket));
        }
        Ok(())
    }
}

fn start(lifecycle: Lifecycle) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("sessions".to_owned())
        .spawn(move || runtime.block_on(lifecycle.ended()))?;
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::TcpStream;
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn each_thread_accepts_until_draining() {
        let lifecycle = Lifecycle::new();
        let workers = Workers {
            runtimes: (0..3).map(|_| start(lifecycle.clone()).unwrap()).collect(),
            lifecycle: lifecycle.clone(),
        };
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let (told, mut tell) = mpsc::unbounded_channel();
        let take_one = |socket: tokio::net::TcpListener| {
            let (told, until) = (told.clone(), lifecycle.clone());
            async move {
                socket.accept().await.unwrap();
                told.send(thread::current().id()).unwrap();
                until.draining().await;
            }
        };
        workers.share(&socket, take_one).unwrap();
        let address = socket.local_addr().unwrap();
        let _clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
        let mut threads = HashSet::new();
        for _ in 0..3 {
            threads.insert(tell.recv().await.unwrap());
        }
        assert_eq!(threads.len(), 3);
        assert!(lifecycle.drain(Duration::from_secs(10)).await);
    }
}
