//! Addresses that could not be opened at the start and that mail can do without: they are tried
//! again until they are free.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::Endpoint;
use crate::lifecycle::Lifecycle;

use super::listener::{Access, LocalListener};

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// A listener that is to be opened.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its kind, for example `metrics`.
    pub kind: &'static str,
    /// Its address.
    pub endpoint: Endpoint,
    /// The permissions of a socket in the file system.
    pub access: Access,
}

/// Why each listener that is not open is not. Bounded by the configuration.
#[derive(Clone, Default)]
pub struct Unopened(Arc<Mutex<Errors>>);

/// The error of each kind and address.
type Errors = BTreeMap<(&'static str, String), String>;

impl Unopened {
    /// Notes why a listener is not open, and logs that.
    pub fn note(&self, wanted: &Wanted, error: String) {
        let (kind, place) = (wanted.kind, wanted.endpoint.to_string());
        tracing::warn!(
            kind,
            "{error}; Gatepost serves mail without it and takes the address once it is free"
        );
        self.errors().insert((kind, place), error);
    }

    /// The kind, the address and the error of each.
    pub fn all(&self) -> Vec<(&'static str, String, String)> {
        let all = self.errors();
        let all = all.iter();
        all.map(|((kind, place), error)| (*kind, place.clone(), error.clone()))
            .collect()
    }

    fn errors(&self) -> MutexGuard<'_, Errors> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries until the listener is open. `None` once the daemon ends.
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
