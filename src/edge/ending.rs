//! How a connection ended, and what is left of it: one line in the log.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

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
    /// No PROXY header came where one has to.
    NotProxied,
    /// Too many failed logins came from there, or too many connections that have not logged in.
    Shed,
    /// The upstream went away inside a body.
    UpstreamGone,
}

impl Ending {
    fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClientGone => "client gone",
            Self::CutOff => "cut off",
            Self::Disconnected => "disconnected",
            Self::HandshakeFailed => "TLS handshake failed",
            Self::NotProxied => "no PROXY header",
            Self::Shed => "shed",
            Self::UpstreamGone => "upstream gone",
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

    /// Writes the line; its form is documented.
    pub fn log(&self, ending: Ending) {
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
            // Bounded by the command's grammar: at most 255 octets.
            helo = self.helo.as_deref().unwrap_or_default(),
            username = self.username().unwrap_or_default(),
            organization = identity.map_or("", |identity| &identity.organization),
            messages = sum(|traffic| &traffic.messages),
            recipients = sum(|traffic| &traffic.recipients),
            bytes = sum(|traffic| &traffic.bytes),
            seconds = self.since.elapsed().as_secs_f64(),
            ending = ending.as_str(),
            "session ended"
        );
    }
}
