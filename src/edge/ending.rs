//! How a connection ended, and what is left of it: one line in the log.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::metrics::ProxyFailure;
use crate::sessions::{Entry, Traffic};
use crate::store::Usage;

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The last reply was ours or the upstream's, and it was sent.
    Closed,
    /// The client went away.
    ClientGone,
    /// The drain timeout was over.
    CutOff,
    /// Whoever administers wanted it so.
    Disconnected,
    /// TLS was not agreed on.
    HandshakeFailed,
    /// No PROXY header came that can be used, where one has to come.
    NotProxied(ProxyFailure),
    /// Too many failed logins came from there, or too many connections that have not logged in.
    Shed,
    /// The client sent nothing at all, as health checks do.
    Silent,
}

impl Ending {
    fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClientGone => "client gone",
            Self::CutOff => "cut off",
            Self::Disconnected => "disconnected",
            Self::HandshakeFailed => "TLS handshake failed",
            Self::NotProxied(ProxyFailure::Incomplete) => "incomplete PROXY header",
            Self::NotProxied(ProxyFailure::Malformed) => "malformed PROXY header",
            Self::NotProxied(ProxyFailure::Oversized) => "oversized PROXY header",
            Self::NotProxied(_) => "no PROXY header",
            Self::Shed => "shed",
            Self::Silent => "nothing sent",
        }
    }
}

/// What a session did.
#[derive(Debug)]
pub struct Summary {
    since: Instant,
    peer: SocketAddr,
    /// The version of TLS.
    pub tls: Option<&'static str>,
    /// The name the client gave.
    pub helo: Option<String>,
    /// Its place among the live sessions, from the claim to be somebody on; taken back where the
    /// claim fails.
    pub entry: Option<Entry>,
    /// Messages that were encoded anew.
    pub normalized: u64,
    /// What of its traffic is noted as the credential's usage.
    noted: Usage,
}

impl Summary {
    /// Of a session that begins now.
    pub fn new(peer: SocketAddr) -> Self {
        Self {
            since: Instant::now(),
            peer,
            tls: None,
            helo: None,
            entry: None,
            normalized: 0,
            noted: Usage::default(),
        }
    }

    /// The username, once it is proved.
    pub fn username(&self) -> Option<&str> {
        let identity = self.entry.as_ref()?.identity()?;
        Some(&identity.username)
    }

    /// Adds to one of the counts of what the session has sent.
    pub fn add(&self, counter: fn(&Traffic) -> &AtomicU64, count: u64) {
        if let Some(entry) = &self.entry {
            counter(entry.traffic()).fetch_add(count, Ordering::Relaxed);
        }
    }

    /// What was sent since this was last asked, if there is anything.
    pub fn take_usage(&mut self) -> Option<Usage> {
        let entry = self.entry.as_ref()?;
        entry.identity()?;
        let traffic = entry.traffic();
        let now = Usage {
            messages: traffic.messages.load(Ordering::Relaxed),
            recipients: traffic.recipients.load(Ordering::Relaxed),
            bytes: traffic.bytes.load(Ordering::Relaxed),
            ..Usage::default()
        };
        let before = std::mem::replace(&mut self.noted, now);
        let fresh = Usage {
            messages: now.messages.saturating_sub(before.messages),
            recipients: now.recipients.saturating_sub(before.recipients),
            bytes: now.bytes.saturating_sub(before.bytes),
            ..Usage::default()
        };
        (fresh != Usage::default()).then_some(fresh)
    }

    /// Writes the line; its form is documented. Connections on which nothing came are too many, and
    /// say too little, for the log.
    pub fn log(&self, ending: Ending) {
        if ending == Ending::Silent {
            tracing::debug!(
                target: "gatepost::session",
                address = %self.peer.ip().to_canonical(),
                port = self.peer.port(),
                ending = ending.as_str(),
                "session ended"
            );
            return;
        }
        let identity = self.entry.as_ref().and_then(Entry::identity);
        let traffic = self.entry.as_ref().map(Entry::traffic);
        let sum = |counter: fn(&Traffic) -> &AtomicU64| {
            traffic.map_or(0, |traffic| counter(traffic).load(Ordering::Relaxed))
        };
        tracing::info!(
            target: "gatepost::session",
            address = %self.peer.ip().to_canonical(),
            port = self.peer.port(),
            tls = self.tls.unwrap_or("none"),
            // Cut to 255 characters.
            helo = self.helo.as_deref().unwrap_or_default(),
            username = self.username().unwrap_or_default(),
            organization = identity.map_or("", |identity| &identity.organization),
            messages = sum(|traffic| &traffic.messages),
            recipients = sum(|traffic| &traffic.recipients),
            bytes = sum(|traffic| &traffic.bytes),
            normalized = self.normalized,
            seconds = rounded(self.since.elapsed()),
            ending = ending.as_str(),
            "session ended"
        );
    }
}

/// Seconds to the millisecond: the finest that is never written with an exponent.
fn rounded(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_no_exponent() {
        for (nanos, text) in [
            (1, "0.0"),
            (999_999, "0.0"),
            (1_000_000, "0.001"),
            (12_345_678, "0.012"),
            (86_400_000_000_000, "86400.0"),
        ] {
            let seconds = rounded(Duration::from_nanos(nanos));
            assert_eq!(format!("{seconds:?}"), text);
        }
    }
}
