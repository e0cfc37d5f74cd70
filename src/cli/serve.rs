//! `gatepost serve`: the daemon.

use std::sync::mpsc;
use std::time::Duration;
use std::{io, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};

use crate::config::Config;
use crate::daemon::{Daemon, Sockets};
use crate::log::flush;

use super::{CliError, log};

/// Threads for all that is no session: who administers, who scrapes, what waits for the clock.
const THREADS: usize = 2;

/// Threads that may wait for SQLite at a time. More than can wait for its writer: two
/// administrators' changes, the changes that are tried again, a flush, a renewed hash. The others
/// are for reads.
const BLOCKING_THREADS: usize = 24;

/// How long calls that block may keep the process at its end. A thread that waits for a disk that
/// hangs is left behind.
const LAST_CALLS: Duration = Duration::from_millis(250);

/// How long the store may take to close.
const CLOSING: Duration = Duration::from_millis(500);

/// How long the last log lines may keep the process.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Serves until SIGTERM.
pub fn run(config: &Config) -> Result<(), CliError> {
    // First, while there is one thread.
    let sockets = Sockets::from_service_manager()?;
    log::start(&config.log)?;
    limits();
    run_to_the_end(async {
        let daemon = Daemon::new(config, sockets)?;
        let store = daemon.store();
        daemon.run(std::future::pending()).await?;
        Ok(store)
    })
}

/// Runs `task`, drops its value, and ends: neither a call that hangs, nor a store that cannot be
/// closed, nor a log that takes nothing keeps the process.
pub fn run_to_the_end<T: Send + 'static>(
    task: impl Future<Output = Result<T, CliError>>,
) -> Result<(), CliError> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(task);
    runtime.shutdown_timeout(LAST_CALLS);
    let outcome = outcome.map(close);
    flush(LAST_LINES);
    outcome
}

/// Drops what waits for the disk: SQLite moves the write-ahead log into the file of a store that is
/// closed.
fn close<T: Send + 'static>(value: T) {
    let (closed, waiting) = mpsc::channel::<()>();
    let close = move || {
        drop(value);
        drop(closed);
    };
    if thread::Builder::new().spawn(close).is_ok() {
        // Ends when the value is dropped, or when that takes too long.
        let _ = waiting.recv_timeout(CLOSING);
    }
}

/// No core dump, since passwords are in memory for a moment; and as many connections as the
/// system allows. Under systemd the unit has said so already, and may forbid asking.
fn limits() {
    let core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, core);
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: files.maximum,
            ..files
        },
    );
}

/// The runtime that everything but sessions runs on.
pub fn runtime() -> Result<Runtime, io::Error> {
    Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
}
