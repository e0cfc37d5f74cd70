//! Limits on TLS handshakes: the number under way, and the number computed at once for unknown
//! clients.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most handshakes of unknown clients that are computed at once. The others wait here, so that
/// a known client is next at the processor however many unknown clients there are.
const COMPUTED: usize = 4;

pub(crate) struct Handshakes {
    all: Arc<Semaphore>,
    /// The share of unknown clients.
    unknown_clients: Arc<Semaphore>,
    compute_permits: Arc<Semaphore>,
}

/// The permit for one handshake, until dropped.
pub(crate) struct Handshake {
    _permits: [Option<OwnedSemaphorePermit>; 2],
    compute_permits: Option<Arc<Semaphore>>,
}

impl Handshakes {
    /// Three quarters of `count` are for unknown clients.
    pub(crate) fn new(count: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(count)),
            unknown_clients: Arc::new(Semaphore::new(count - count / 4)),
            compute_permits: Arc::new(Semaphore::new(COMPUTED)),
        }
    }

    pub(crate) async fn begin(&self, is_known: bool) -> Handshake {
        // No semaphore is ever closed, so each wait ends with a permit.
        let client = match is_known {
            true => None,
            false => self.unknown_clients.clone().acquire_owned().await.ok(),
        };
        let any = self.all.clone().acquire_owned().await.ok();
        Handshake {
            _permits: [client, any],
            compute_permits: (!is_known).then(|| self.compute_permits.clone()),
        }
    }
}

impl Handshake {
    /// The semaphore for each step that costs processor time; `None` for known clients.
    pub(crate) fn compute_permits(&self) -> Option<&Semaphore> {
        self.compute_permits.as_deref()
    }
}
