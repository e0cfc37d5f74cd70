//! One timer for a whole session. The deadline moves with every command; the timer underneath is
//! touched only when it fires early, so that a busy session costs the runtime nothing.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// Resolves at a deadline that may be moved while nobody waits.
#[derive(Debug)]
pub struct Timer(Pin<Box<Sleep>>);

impl Timer {
    /// A timer that is first looked at for this deadline.
    pub fn new(deadline: Instant) -> Self {
        Self(Box::pin(sleep_until(deadline)))
    }

    /// Waits for `deadline`. Cancelling is fine.
    pub async fn until(&mut self, deadline: Instant) {
        if deadline < self.0.deadline() {
            self.0.as_mut().reset(deadline);
        }
        loop {
            self.0.as_mut().await;
            if Instant::now() >= deadline {
                return;
            }
            self.0.as_mut().reset(deadline);
        }
    }
}
