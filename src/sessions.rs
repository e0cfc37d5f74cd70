//! Who is connected now: the list for whoever administers, and the way to end a session at once.
//!
//! A session enters before its password is verified. Somebody who revokes a credential and then
//! disconnects it would otherwise miss the session whose verdict was fetched just before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::lifecycle::{Order, Orders};
use crate::sasl::Identity;

/// Where a claim comes from, and how its session can be reached.
#[derive(Clone, Debug)]
pub struct Client {
    /// The client's address.
    pub address: SocketAddr,
    /// The version of TLS, if there is TLS.
    pub tls: Option<&'static str>,
    /// What the client calls itself.
    pub helo: String,
    /// The SASL mechanism of the claim.
    pub mechanism: &'static str,
    /// Where the session is told that it must end. The connection heeds that from its first moment on, whatever it is
    /// busy with.
    pub orders: Orders,
}

/// An authenticated session, as it was when it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSession {
    /// Its name here; later sessions have greater ones.
    pub id: Uuid,
    /// Of the credential it logged in with.
    pub username: String,
    /// The slug of that credential's organization.
    pub organization: String,
    /// The client's address; an IPv4 one is never written as IPv6.
    pub address: IpAddr,
    /// The client's port.
    pub port: u16,
    /// The version of TLS, if there is TLS.
    pub tls: Option<&'static str>,
    /// What the client calls itself.
    pub helo: String,
    /// The SASL mechanism it logged in with.
    pub mechanism: &'static str,
    /// When it logged in, in Unix milliseconds.
    pub since: i64,
    /// Messages the upstream took.
    pub messages: u64,
    /// Recipients the upstream took.
    pub recipients: u64,
    /// Octets of bodies sent upstream.
    pub bytes: u64,
}

/// What a session has sent so far. Its connection adds, others only look.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Messages the upstream took, or has whole and never answered.
    pub messages: AtomicU64,
    /// Recipients the upstream took.
    pub recipients: AtomicU64,
    /// Octets of bodies sent upstream.
    pub bytes: AtomicU64,
}

/// Every session that has logged in or is being verified; the limit of connections bounds them.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Ids grow with time, so this is the order of the list.
    present: Mutex<BTreeMap<Uuid, Present>>,
}

#[derive(Debug)]
struct Present {
    client: Client,
    /// In steady milliseconds.
    since: i64,
    traffic: Arc<Traffic>,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    Authenticated(Arc<Identity>),
    /// Which organization the credential belongs to is not known yet, so those that were
    /// disconnected meanwhile are noted.
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
    /// Nobody is connected.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a session whose claim to be `claimed_username` is about to be verified.
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

    /// The authenticated sessions, oldest first.
    pub fn list(&self) -> Vec<LiveSession> {
        let present = self.lock();
        let described = present.iter().map(|(id, present)| present.describe(*id));
        described.flatten().collect()
    }

    /// The authenticated session with this id.
    pub fn get(&self, id: Uuid) -> Option<LiveSession> {
        self.lock().get(&id)?.describe(id)
    }

    /// How many sessions are authenticated.
    pub fn count(&self) -> usize {
        let present = self.lock();
        let authenticated = present.values().filter_map(Present::identity);
        authenticated.count()
    }

    /// How many sessions are authenticated with this credential.
    pub fn count_of(&self, username: &str) -> usize {
        let present = self.lock();
        let authenticated = present.values().filter_map(Present::identity);
        let own = authenticated.filter(|identity| &*identity.username == username);
        own.count()
    }

    /// How many sessions are authenticated with this organization's credentials.
    pub fn count_in(&self, organization: &str) -> usize {
        let present = self.lock();
        let authenticated = present.values().filter_map(Present::identity);
        let own = authenticated.filter(|identity| &*identity.organization == organization);
        own.count()
    }

    /// How many sessions are authenticated, by the organization of their credentials.
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

    /// Ends one session; false if there is no such session.
    pub fn disconnect(&self, id: Uuid) -> bool {
        let found = self.lock().remove(&id);
        if let Some(present) = &found {
            present.client.orders.give(Order::Disconnect);
        }
        found.is_some()
    }

    /// Ends every session of a credential, also those that are being verified right now. Returns
    /// how many. Call it after the change that keeps them from coming back.
    pub fn disconnect_credential(&self, username: &str) -> usize {
        self.disconnect_where(|present| present.username() == username)
    }

    /// The usernames of all sessions, also of those that are being verified right now.
    pub fn usernames(&self) -> HashSet<String> {
        let present = self.lock();
        let usernames = present.values().map(Present::username);
        usernames.map(str::to_owned).collect()
    }

    /// Ends every session of an organization, and those being verified right now that turn out to
    /// be its own. Returns how many are known to be. Call it after the change that keeps them from
    /// coming back.
    pub fn disconnect_organization(&self, slug: &str) -> usize {
        self.disconnect_where(|present| match &mut present.standing {
            Standing::Authenticated(identity) => &*identity.organization == slug,
            Standing::Verifying { disconnected, .. } => {
                disconnected.push(slug.to_owned());
                false
            }
        })
    }

    /// Whoever is disconnected is gone from the list at once, however long its farewell takes.
    fn disconnect_where(&self, mut condition: impl FnMut(&mut Present) -> bool) -> usize {
        let ended: Vec<_> = self
            .lock()
            .extract_if(.., |_, present| condition(present))
            .collect();
        for (_, present) in &ended {
            present.client.orders.give(Order::Disconnect);
        }
        ended.len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Present>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place among the present; left when dropped.
#[derive(Debug)]
pub struct Entry {
    sessions: Arc<Sessions>,
    id: Uuid,
    traffic: Arc<Traffic>,
    identity: Option<Arc<Identity>>,
}

impl Entry {
    /// The claim was true. If the session was disconnected meanwhile, or its organization was, it
    /// is told to end and does not become one of those listed.
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
                present.client.orders.give(Order::Disconnect);
                all.remove(&self.id);
            }
            _ => present.standing = Standing::Authenticated(identity.clone()),
        }
    }

    /// Who it is, once that is proved.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// What it has sent so far.
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

    /// A session being verified, and what tells it to end.
    fn verifying(sessions: &Arc<Sessions>, username: &str) -> (Entry, Orders) {
        let orders = Orders::default();
        let client = Client {
            address: "[::ffff:192.0.2.7]:4711".parse().unwrap(),
            tls: Some("TLSv1.3"),
            helo: "laptop".to_owned(),
            mechanism: "PLAIN",
            orders: orders.clone(),
        };
        (sessions.enter(username, client), orders)
    }

    fn live(sessions: &Arc<Sessions>, username: &str, organization: &str) -> (Entry, Orders) {
        let (mut entry, orders) = verifying(sessions, username);
        entry.authenticated(&identity(username, organization));
        (entry, orders)
    }

    #[test]
    fn the_list_has_the_authenticated_oldest_first_until_they_leave() {
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
    fn one_session_is_disconnected_once() {
        let sessions = Arc::new(Sessions::new());
        let (_kept, kept) = live(&sessions, "smtp_a", "acme");
        let (_ended, ended) = live(&sessions, "smtp_a", "acme");
        let id = sessions.list()[1].id;
        assert!(sessions.disconnect(id));
        assert!(ended.given().is_some() && kept.given().is_none());
        assert_eq!(sessions.count_of("smtp_a"), 1);
        assert!(!sessions.disconnect(id));
    }

    #[test]
    fn disconnecting_a_credential_reaches_those_being_verified() {
        let sessions = Arc::new(Sessions::new());
        let (_entry, in_session) = live(&sessions, "smtp_a", "acme");
        let (mut late, being_verified) = verifying(&sessions, "smtp_a");
        let (_other, unconcerned) = live(&sessions, "smtp_b", "acme");
        assert_eq!(sessions.disconnect_credential("smtp_a"), 2);
        assert!(in_session.given().is_some() && being_verified.given().is_some());
        assert!(unconcerned.given().is_none());
        // The verdict was on its way.
        late.authenticated(&identity("smtp_a", "acme"));
        assert_eq!(sessions.count_of("smtp_a"), 0);
        assert_eq!(sessions.disconnect_credential("smtp_a"), 0);
    }

    #[test]
    fn disconnecting_an_organization_reaches_those_being_verified_once_they_are_its_own() {
        let sessions = Arc::new(Sessions::new());
        let (_entry, in_session) = live(&sessions, "smtp_a", "acme");
        let (mut own, being_verified) = verifying(&sessions, "smtp_b");
        let (mut foreign, unconcerned) = verifying(&sessions, "smtp_c");
        assert_eq!(sessions.disconnect_organization("acme"), 1);
        assert!(in_session.given().is_some() && being_verified.given().is_none());
        own.authenticated(&identity("smtp_b", "acme"));
        foreign.authenticated(&identity("smtp_c", "default"));
        assert!(being_verified.given().is_some() && unconcerned.given().is_none());
        assert_eq!((sessions.count(), sessions.count_of("smtp_c")), (1, 1));
        // Whoever logs in afterwards was judged by the store as it is now.
        let (_late, late) = live(&sessions, "smtp_a", "acme");
        assert!(late.given().is_none());
    }
}
