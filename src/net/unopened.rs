//! Optional listeners whose address was taken at the start; they are retried until free.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::Endpoint;
use crate::lifecycle::Lifecycle;

use super::listener::{Access, LocalListener};

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// A listener still to be opened.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub kind: &'static str,
    pub endpoint: Endpoint,
    /// The permissions of a socket in the file system.
    pub access: Access,
}

/// The errors of the closed listeners, bounded by the configuration.
#[derive(Clone, Default)]
pub struct Unopened(Arc<Mutex<Errors>>);

/// Keyed by kind and address.
type Errors = BTreeMap<(&'static str, String), String>;

impl Unopened {
    /// Records and logs the error of a listener.
    pub fn note(&self, wanted: &Wanted, error: String) {
        let (kind, place) = (wanted.kind, wanted.endpoint.to_string());
        tracing::warn!(
            kind,
            "{error}; Gatepost serves mail without it and takes the address once it is free"
        );
        self.errors().insert((kind, place), error);
    }

    /// Returns the kind, address and error of each closed listener.
    pub fn all(&self) -> Vec<(&'static str, String, String)> {
        let all = self.errors();
        let all = all.iter();
        all.map(|((kind, place), error)| (*kind, place.clone(), error.clone()))
            .collect()
    }

    fn errors(&self) -> MutexGuard<'_, Errors> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Retries until the listener is open; returns `None` when the daemon stops.
    pub async fn open(self, wanted: Wanted, lifecycle: Lifecycle) -> Option<LocalListener> {
        let Wanted {
            kind,
            endpoint,
            access,
        } = wanted;
        loop {
            tokio::select! {
                () = lifecycle.draining() => return None,
                () = tokio::time::sleep(PAUSE) => {}
            }
            if let Ok(listener) = LocalListener::bind(&endpoint, access) {
                let place = endpoint.to_string();
                tracing::info!(kind, place, "the address is free now; Gatepost serves it");
                self.errors().remove(&(kind, place));
                return Some(listener);
            }
        }
    }
}
