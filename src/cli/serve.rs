//! `gatepost serve`: the daemon.

use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};

use crate::config::Config;
use crate::daemon::{Daemon, Sockets};
use crate::log::flush;

use super::{CliError, log};

/// Threads for all that is no session: who administers, who scrapes, what waits for the clock.
const THREADS: usize = 2;

/// Threads that may wait for SQLite at a time; the store has fewer connections than this.
const BLOCKING_THREADS: usize = 16;

/// How long a call that blocks, of a task that was given up, may keep the process at its end.
const LAST_CALLS: Duration = Duration::from_millis(250);

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
        daemon.run(std::future::pending()).await?;
        Ok(())
    })
}

/// Runs `task`, and ends with it: neither a call that hangs nor a log that takes nothing keeps the
/// process.
pub fn run_to_the_end(task: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(task);
    runtime.shutdown_timeout(LAST_CALLS);
    flush(LAST_LINES);
    outcome
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
