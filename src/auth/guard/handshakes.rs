//! Who may shake hands: as many at a time as may be under way, and of strangers few where it costs the processor.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many strangers may have their handshake computed at a time. The others wait here instead of before the
/// processor, so that whoever is known comes next there however many of them there are.
const TURNS: usize = 4;

/// The right to shake hands, in two shares.
pub(crate) struct Handshakes {
    all: Arc<Semaphore>,
    /// What strangers may have of it.
    strangers: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// Leave to shake hands, until it is dropped.
pub(crate) struct Handshake {
    _permits: [Option<OwnedSemaphorePermit>; 2],
    turns: Option<Arc<Semaphore>>,
}

impl Handshakes {
    /// So many at a time, three quarters of them for strangers.
    pub(crate) fn new(count: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(count)),
            strangers: Arc::new(Semaphore::new(count - count / 4)),
            turns: Arc::new(Semaphore::new(TURNS)),
        }
    }

    /// Waits for leave.
    pub(crate) async fn begin(&self, is_known: bool) -> Handshake {
        // Neither is ever closed, so there is always a permit in the end.
        let stranger = match is_known {
            true => None,
            false => self.strangers.clone().acquire_owned().await.ok(),
        };
        let any = self.all.clone().acquire_owned().await.ok();
        Handshake {
            _permits: [stranger, any],
            turns: (!is_known).then(|| self.turns.clone()),
        }
    }
}

impl Handshake {
    /// What each step that costs the processor needs a permit of, if it needs any.
    pub(crate) fn turns(&self) -> Option<&Semaphore> {
        self.turns.as_deref()
    }
}
