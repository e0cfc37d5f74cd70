//! The threads that sessions run on: one a core, each with an event loop of its own.
//!
//! A session stays on the thread that accepted it. What it waits for wakes that thread alone, where a pool of threads
//! would wake another one for each event, to see whether it has time. All of them await the same sockets, so a client
//! goes to one that has nothing else to do; each arrival wakes all that have nothing to do, and those alone.

use std::io;
use std::net::TcpListener;
use std::thread;

use tokio::runtime::{Builder, Handle};

use crate::lifecycle::Lifecycle;

/// Threads of one of them that may wait for SQLite at a time.
const BLOCKING_THREADS: usize = 4;

/// All of them. They end with the lifecycle.
pub struct Workers {
    runtimes: Vec<Handle>,
    lifecycle: Lifecycle,
}

impl Workers {
    /// One for each core that this process may use.
    pub fn start(lifecycle: &Lifecycle) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, Into::into);
        let runtimes = (0..cores).map(|_| start(lifecycle.clone()));
        Ok(Self {
            runtimes: runtimes.collect::<Result<_, _>>()?,
            lifecycle: lifecycle.clone(),
        })
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.runtimes.len()
    }

    /// Runs a task on each of them, with the socket in its event loop.
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
    async fn each_thread_takes_connections_until_all_must_end() {
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
