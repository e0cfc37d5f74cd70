//! Login: the verdict on the credentials, then the handover to an upstream.

use std::sync::Arc;

use crate::auth::Peer;
use crate::auth::quota::SessionQuota;
use crate::sasl::{Credentials, Identity, Verdict};
use crate::sessions;
use crate::smtp::client_name;
use crate::smtp::extensions::Extensions;
use crate::smtp::relay::Relay;
use crate::smtp::xclient;

use super::Connection;

impl Connection<'_> {
    pub(super) async fn verify(&mut self, credentials: Credentials) -> Verdict {
        let helo = self.session.helo().unwrap_or_default();
        self.summary.helo = Some(helo.to_owned());
        let address = self.peer.ip().to_canonical();
        let peer = Peer {
            address,
            tls: self.summary.tls,
            helo: helo.into(),
        };
        let client = sessions::Client {
            address: self.peer,
            tls: peer.tls,
            helo: helo.to_owned(),
            mechanism: credentials.mechanism.as_str(),
            signal: self.signal.clone(),
        };
        let entry = self.edge.sessions.enter(&credentials.username, client);
        let entry = self.summary.entry.insert(entry);
        let (verdict, allowance) = self.edge.authenticator.admit(credentials, &peer).await;
        self.allowance = allowance;
        match &verdict {
            Verdict::Accept(identity) => entry.authenticated(identity),
            _ => self.summary.entry = None,
        }
        let limit = self.allowance.as_ref().and_then(SessionQuota::message_size);
        self.session.limit_message_size(limit);
        verdict
    }

    /// Opens an upstream session with the client's identity.
    pub(super) async fn hand_over(&mut self, identity: Arc<Identity>) -> Option<Extensions> {
        let client = xclient::Client {
            address: self.peer,
            destination: self.destination,
            helo: client_name::clean(self.session.helo().unwrap_or_default()),
            login: identity.username.to_string(),
        };
        let edge = self.edge;
        self.dialer
            .clone_from(edge.upstreams.of(&identity.organization));
        let (mut upstream, extensions) = self
            .dialer
            .hand_over(&client, &identity.organization)
            .await?;
        upstream.relay = Relay::new(extensions.pipelining);
        self.upstream = Some(upstream);
        self.engaged.renew();
        self.place = None;
        // Counted once a session: a later MAIL may reconnect the upstream.
        self.counted.get_or_insert_with(|| {
            let metrics = &self.edge.metrics;
            metrics.session(&identity.organization, &identity.username)
        });
        Some(extensions)
    }
}
