//! Why a connection ended, and its log line.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::metrics::ProxyFailure;
use crate::sessions::{Entry, Traffic};
use crate::store::Usage;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Gatepost or the upstream sent the last reply.
    Closed,
    /// The client closed or lost the connection.
    ClientGone,
    /// The drain timeout expired.
    CutOff,
    /// An administrator ended the session.
    Disconnected,
    HandshakeFailed,
    /// A listed load balancer sent no usable PROXY header.
    NotProxied(ProxyFailure),
    /// The guard rejected the client after failed logins or too many connections without a login.
    Shed,
    /// The client sent nothing, as health checks do.
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

/// The facts for the log line at the end of a session.
#[derive(Debug)]
pub struct Summary {
    since: Instant,
    peer: SocketAddr,
    pub tls: Option<&'static str>,
    /// The client's name from EHLO.
    pub helo: Option<String>,
    /// The entry in the list of live sessions, from the start of the verification; removed when the
    /// login fails.
    pub entry: Option<Entry>,
    /// Messages with bare newlines replaced by CRLF.
    pub normalized: u64,
    /// The traffic already added to the credential's usage.
    noted: Usage,
}

impl Summary {
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

    /// Returns the username after a successful login.
    pub fn username(&self) -> Option<&str> {
        let identity = self.entry.as_ref()?.identity()?;
        Some(&identity.username)
    }

    /// Adds to one of the session's traffic counters.
    pub fn add(&self, counter: fn(&Traffic) -> &AtomicU64, count: u64) {
        if let Some(entry) = &self.entry {
            counter(entry.traffic()).fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Returns the traffic since the last call, if any.
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

    /// Writes the log line; docs/src/reference/log.md documents its fields. Silent connections are
    /// too many for the log and say too little.
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
            // The session cuts the name to 255 characters.
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

/// Rounds to milliseconds; a finer figure could print with an exponent.
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
