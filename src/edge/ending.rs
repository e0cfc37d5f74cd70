//! How a connection ended, and what is left of it: one line in the log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::sasl::Identity;

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The last reply was ours or the upstream's, and it was sent.
    Closed,
    /// The client went away.
    ClientGone,
    /// The drain timeout was over.
    CutOff,
    /// TLS was not agreed on.
    HandshakeFailed,
    /// The upstream went away inside a body.
    UpstreamGone,
}

impl Ending {
    fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClientGone => "client gone",
            Self::CutOff => "cut off",
            Self::HandshakeFailed => "TLS handshake failed",
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
    /// Who it was.
    pub identity: Option<Arc<Identity>>,
    /// Messages the upstream took.
    pub messages: u64,
    /// Recipients the upstream took.
    pub recipients: u64,
    /// Octets of bodies sent upstream.
    pub bytes: u64,
}

impl Summary {
    /// Of a session that begins now.
    pub fn new(peer: SocketAddr) -> Self {
        Self {
            since: Instant::now(),
            peer,
            tls: None,
            helo: None,
            identity: None,
            messages: 0,
            recipients: 0,
            bytes: 0,
        }
    }

    /// Writes the line; its form is documented.
    pub fn log(&self, ending: Ending) {
        tracing::info!(
            target: "gatepost::session",
            address = %self.peer.ip().to_canonical(),
            port = self.peer.port(),
            tls = self.tls.unwrap_or("none"),
            helo = ?self.helo.as_deref().unwrap_or_default(),
            username = self.identity.as_ref().map_or("", |identity| &identity.username),
            organization = self.identity.as_ref().map_or("", |identity| &identity.organization),
            messages = self.messages,
            recipients = self.recipients,
            bytes = self.bytes,
            seconds = self.since.elapsed().as_secs_f64(),
            ending = ending.as_str(),
            "session ended"
        );
    }
}
