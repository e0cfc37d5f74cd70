//! The live sessions: the list for administrators, and the means to disconnect a session.
//!
//! A session enters the list before its password is verified. Otherwise an administrator who
//! revokes a credential and disconnects its sessions would miss a session whose verdict was already
//! on the way.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::lifecycle::{SessionSignal, Signal};
use crate::sasl::Identity;

/// The client of a login attempt.
#[derive(Clone, Debug)]
pub struct Client {
    pub address: SocketAddr,
    pub tls: Option<&'static str>,
    /// The client's name from EHLO.
    pub helo: String,
    pub mechanism: &'static str,
    /// Ends the session. The connection obeys from accept on, whatever it is doing.
    pub signal: SessionSignal,
}

/// A snapshot of an authenticated session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSession {
    /// Ids grow with time.
    pub id: Uuid,
    pub username: String,
    /// The slug of the credential's organization.
    pub organization: String,
    /// The client address; IPv4 addresses are never mapped to IPv6.
    pub address: IpAddr,
    pub port: u16,
    pub tls: Option<&'static str>,
    /// The client's name from EHLO.
    pub helo: String,
    pub mechanism: &'static str,
    /// The start of the login in Unix milliseconds.
    pub since: i64,
    /// Messages accepted by the upstream.
    pub messages: u64,
    /// Recipients accepted by the upstream.
    pub recipients: u64,
    /// Octets of bodies sent upstream.
    pub bytes: u64,
}

/// A session's traffic counters. Only the session's connection adds.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Messages accepted by the upstream, or sent whole and never answered.
    pub messages: AtomicU64,
    /// Recipients accepted by the upstream.
    pub recipients: AtomicU64,
    /// Octets of bodies sent upstream.
    pub bytes: AtomicU64,
}

/// Every session that has logged in or is being verified, bounded by the connection limit.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Ids grow with time, so the list is ordered by age.
    present: Mutex<BTreeMap<Uuid, Present>>,
}

#[derive(Debug)]
struct Present {
    client: Client,
    /// In milliseconds of the steady clock.
    since: i64,
    traffic: Arc<Traffic>,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    Authenticated(Arc<Identity>),
    /// The credential's organization is still unknown, so organizations disconnected during the
    /// verification are recorded here.
    Verifying {
        username: String,
        disconnected: Vec<String>,
    },
}

impl Present {
    fn identity(&self) -> Option<&Arc<Identity>> {
        match &self.standing {
            Standing::Authenticated(identity) => Some(identity),
            Standing::Verifying { .. } => None,
        }
    }

    fn username(&self) -> &str {
        match &self.standing {
            Standing::Authenticated(identity) => &identity.username,
            Standing::Verifying { username, .. } => username,
        }
    }

    fn describe(&self, id: Uuid) -> Option<LiveSession> {
        let identity = self.identity()?;
        Some(LiveSession {
            id,
            username: identity.username.to_string(),
            organization: identity.organization.to_string(),
            address: self.client.address.ip().to_canonical(),
            port: self.client.address.port(),
            tls: self.client.tls,
            helo: self.client.helo.clone(),
            mechanism: self.client.mechanism,
            since: crate::clock::wall_of(self.since),
            messages: self.traffic.messages.load(Ordering::Relaxed),
            recipients: self.traffic.recipients.load(Ordering::Relaxed),
            bytes: self.traffic.bytes.load(Ordering::Relaxed),
        })
    }
}

impl Sessions {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a session whose claimed username is about to be verified.
    pub fn enter(self: &Arc<Self>, claimed_username: &str, client: Client) -> Entry {
        let id = Uuid::now_v7();
        let traffic = Arc::new(Traffic::default());
        let present = Present {
            client,
            since: crate::clock::steady_ms(),
            traffic: traffic.clone(),
            standing: Standing::Verifying {
                username: claimed_username.to_owned(),
                disconnected: Vec::new(),
            },
        };
        self.lock().insert(id, present);
        Entry {
            sessions: self.clone(),
            id,
            traffic,
            identity: None,
        }
    }

    /// Returns the authenticated sessions, oldest first.
    pub fn list(&self) -> Vec<LiveSession> {
        let present = self.lock();
        let described = present.iter().map(|(id, present)| present.describe(*id));
        described.flatten().collect()
    }

    /// Returns the authenticated session with the given id.
    pub fn get(&self, id: Uuid) -> Option<LiveSession> {
        self.lock().get(&id)?.describe(id)
    }

    /// Counts the authenticated sessions.
    pub fn count(&self) -> usize {
        let present = self.lock();
        let authenticated = present.values().filter_map(Present::identity);
        authenticated.count()
    }

    /// Counts the authenticated sessions of a credential.
    pub fn count_of(&self, username: &str) -> usize {
        let present = self.lock();
        let authenticated = present.values().filter_map(Present::identity);
        let own = authenticated.filter(|identity| &*identity.username == username);
        own.count()
    }

    /// Counts the authenticated sessions of an organization.
    pub fn count_in(&self, organization: &str) -> usize {
        let present = self.lock();
        let authenticated = present.values().filter_map(Present::identity);
        let own = authenticated.filter(|identity| &*identity.organization == organization);
        own.count()
    }

    /// Counts the authenticated sessions by organization.
    pub fn counts(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for identity in self.lock().values().filter_map(Present::identity) {
            match counts.get_mut(&*identity.organization) {
                Some(count) => *count += 1,
                None => drop(counts.insert(identity.organization.to_string(), 1)),
            }
        }
        counts
    }

    /// Ends a session; returns false for an unknown id.
    pub fn disconnect(&self, id: Uuid) -> bool {
        let found = self.lock().remove(&id);
        if let Some(present) = &found {
            present.client.signal.send(Signal::Disconnect);
        }
        found.is_some()
    }

    /// Ends every session of a credential, including sessions being verified, and returns their
    /// number. Call this after the change that blocks new logins.
    pub fn disconnect_credential(&self, username: &str) -> usize {
        self.disconnect_where(|present| present.username() == username)
    }

    /// Returns the usernames of all sessions, including sessions being verified.
    pub fn usernames(&self) -> HashSet<String> {
        let present = self.lock();
        let usernames = present.values().map(Present::username);
        usernames.map(str::to_owned).collect()
    }

    /// Ends every session of an organization and marks sessions being verified, so that they end if
    /// they turn out to belong to it. Returns the number of ended sessions. Call this after the
    /// change that blocks new logins.
    pub fn disconnect_organization(&self, slug: &str) -> usize {
        self.disconnect_where(|present| match &mut present.standing {
            Standing::Authenticated(identity) => &*identity.organization == slug,
            Standing::Verifying { disconnected, .. } => {
                disconnected.push(slug.to_owned());
                false
            }
        })
    }

    /// Removes matching sessions from the list at once, however long each connection takes to
    /// close.
    fn disconnect_where(&self, mut condition: impl FnMut(&mut Present) -> bool) -> usize {
        let ended: Vec<_> = self
            .lock()
            .extract_if(.., |_, present| condition(present))
            .collect();
        for (_, present) in &ended {
            present.client.signal.send(Signal::Disconnect);
        }
        ended.len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Present>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's entry in the list, removed on drop.
#[derive(Debug)]
pub struct Entry {
    sessions: Arc<Sessions>,
    id: Uuid,
    traffic: Arc<Traffic>,
    identity: Option<Arc<Identity>>,
}

impl Entry {
    /// Records a successful login. A session disconnected meanwhile, by credential or by
    /// organization, ends and stays out of the list.
    pub fn authenticated(&mut self, identity: &Arc<Identity>) {
        self.identity = Some(identity.clone());
        let mut all = self.sessions.lock();
        let Some(present) = all.get_mut(&self.id) else {
            return;
        };
        match &present.standing {
            Standing::Verifying { disconnected, .. }
                if disconnected
                    .iter()
                    .any(|slug| **slug == *identity.organization) =>
            {
                present.client.signal.send(Signal::Disconnect);
                all.remove(&self.id);
            }
            _ => present.standing = Standing::Authenticated(identity.clone()),
        }
    }

    /// Returns the identity after a successful login.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(username: &str, organization: &str) -> Arc<Identity> {
        Arc::new(Identity {
            key: 1,
            username: username.into(),
            organization: organization.into(),
            policy: Arc::default(),
        })
    }

    /// Returns a session being verified, with its signal.
    fn verifying(sessions: &Arc<Sessions>, username: &str) -> (Entry, SessionSignal) {
        let signal = SessionSignal::default();
        let client = Client {
            address: "[::ffff:192.0.2.7]:4711".parse().unwrap(),
            tls: Some("TLSv1.3"),
            helo: "laptop".to_owned(),
            mechanism: "PLAIN",
            signal: signal.clone(),
        };
        (sessions.enter(username, client), signal)
    }

    fn live(
        sessions: &Arc<Sessions>,
        username: &str,
        organization: &str,
    ) -> (Entry, SessionSignal) {
        let (mut entry, signal) = verifying(sessions, username);
        entry.authenticated(&identity(username, organization));
        (entry, signal)
    }

    #[test]
    fn list_holds_authenticated_sessions_oldest_first() {
        let sessions = Arc::new(Sessions::new());
        let (first, _) = live(&sessions, "smtp_a", "acme");
        let (claiming, _) = verifying(&sessions, "smtp_a");
        let (second, _) = live(&sessions, "smtp_b", "default");
        second.traffic().messages.fetch_add(2, Ordering::Relaxed);
        second.traffic().recipients.fetch_add(3, Ordering::Relaxed);
        second.traffic().bytes.fetch_add(4, Ordering::Relaxed);

        let list = sessions.list();
        let names: Vec<_> = list.iter().map(|session| &*session.username).collect();
        assert_eq!(names, ["smtp_a", "smtp_b"]);
        let LiveSession { id, since, .. } = list[1];
        assert_eq!(
            list[1],
            LiveSession {
                id,
                username: "smtp_b".to_owned(),
                organization: "default".to_owned(),
                address: "192.0.2.7".parse().unwrap(),
                port: 4711,
                tls: Some("TLSv1.3"),
                helo: "laptop".to_owned(),
                mechanism: "PLAIN",
                since,
                messages: 2,
                recipients: 3,
                bytes: 4,
            }
        );
        assert_eq!((sessions.count(), sessions.count_of("smtp_a")), (2, 1));
        let counts = sessions.counts();
        assert_eq!((counts.len(), counts["acme"], counts["default"]), (2, 1, 1));
        drop((first, claiming, second));
        assert_eq!((sessions.count(), sessions.list()), (0, Vec::new()));
        assert!(sessions.lock().is_empty());
    }

    #[test]
    fn session_is_disconnected_once() {
        let sessions = Arc::new(Sessions::new());
        let (_kept, kept) = live(&sessions, "smtp_a", "acme");
        let (_ended, ended) = live(&sessions, "smtp_a", "acme");
        let id = sessions.list()[1].id;
        assert!(sessions.disconnect(id));
        assert!(ended.current().is_some() && kept.current().is_none());
        assert_eq!(sessions.count_of("smtp_a"), 1);
        assert!(!sessions.disconnect(id));
    }

    #[test]
    fn disconnecting_a_credential_ends_its_logins_in_progress() {
        let sessions = Arc::new(Sessions::new());
        let (_entry, in_session) = live(&sessions, "smtp_a", "acme");
        let (mut late, being_verified) = verifying(&sessions, "smtp_a");
        let (_other, unconcerned) = live(&sessions, "smtp_b", "acme");
        assert_eq!(sessions.disconnect_credential("smtp_a"), 2);
        assert!(in_session.current().is_some() && being_verified.current().is_some());
        assert!(unconcerned.current().is_none());
        // The verdict was already on the way.
        late.authenticated(&identity("smtp_a", "acme"));
        assert_eq!(sessions.count_of("smtp_a"), 0);
        assert_eq!(sessions.disconnect_credential("smtp_a"), 0);
    }

    #[test]
    fn disconnecting_an_organization_ends_its_logins_in_progress() {
        let sessions = Arc::new(Sessions::new());
        let (_entry, in_session) = live(&sessions, "smtp_a", "acme");
        let (mut own, being_verified) = verifying(&sessions, "smtp_b");
        let (mut foreign, unconcerned) = verifying(&sessions, "smtp_c");
        assert_eq!(sessions.disconnect_organization("acme"), 1);
        assert!(in_session.current().is_some() && being_verified.current().is_none());
        own.authenticated(&identity("smtp_b", "acme"));
        foreign.authenticated(&identity("smtp_c", "default"));
        assert!(being_verified.current().is_some() && unconcerned.current().is_none());
        assert_eq!((sessions.count(), sessions.count_of("smtp_c")), (1, 1));
        // A later login was checked against the changed store.
        let (_late, late) = live(&sessions, "smtp_a", "acme");
        assert!(late.current().is_none());
    }
}
