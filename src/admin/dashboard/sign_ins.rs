//! Who is signed in. That is kept here, and the browser has only a random name for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::future::Cache;
use moka::policy::EvictionPolicy;

use crate::auth::issue::random;
use crate::auth::token::TokenHash;

/// How long somebody may do nothing before they have to sign in again.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// How long somebody stays signed in at most.
pub(super) const LONGEST: Duration = Duration::from_secs(8 * 3600);

/// How many may be signed in at a time.
const MOST: u64 = 10_000;

/// How many may be signed in with one token; who comes after them takes the place of the first. So nobody's token, whatever
/// it is for, can be used to crowd others out.
const MOST_WITH_ONE: usize = 50;

/// Characters of a name and of a form's token: 256 bits.
const LENGTH: usize = 43;

/// Everybody who is signed in.
pub(super) struct SignIns {
    /// By a hash of the name that their browser has.
    all: Cache<Key, Arc<SignIn>>,
    /// Those of one token, first come first.
    by_token: Cache<TokenHash, Arc<Mutex<VecDeque<Key>>>>,
    /// Persons whom a reverse proxy has signed in, by their names.
    persons: Cache<String, Arc<SignIn>>,
}

type Key = [u8; 32];

/// One browser that is signed in.
pub(super) struct SignIn {
    /// What it was done with; it must be valid at each request. A person whom a reverse proxy has
    /// signed in has none.
    pub(super) token: Option<TokenHash>,
    /// What every form must bring back.
    pub(super) csrf: String,
    notice: Mutex<Option<String>>,
}

impl SignIns {
    pub(super) fn new() -> SignIns {
        SignIns::lasting(IDLE, LONGEST)
    }

    fn lasting(idle: Duration, longest: Duration) -> SignIns {
        // Whoever was not seen for longest goes first. By its own rule the cache would rather not take somebody new in.
        let lru = EvictionPolicy::lru;
        SignIns {
            all: Cache::builder()
                .max_capacity(MOST)
                .eviction_policy(lru())
                .time_to_idle(idle)
                .time_to_live(longest)
                .build(),
            by_token: Cache::builder()
                .max_capacity(MOST)
                .eviction_policy(lru())
                .time_to_idle(longest)
                .build(),
            persons: Cache::builder()
                .max_capacity(MOST)
                .eviction_policy(lru())
                .time_to_idle(idle)
                .time_to_live(longest)
                .build(),
        }
    }

    /// Takes somebody in. Returns the name for their browser.
    pub(super) async fn enter(&self, token: TokenHash) -> String {
        let name = unguessable();
        let sign_in = SignIn::new(Some(token));
        self.all.insert(key(&name), Arc::new(sign_in)).await;
        let own = self
            .by_token
            .get_with(token, async { Arc::default() })
            .await;
        let first = {
            let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
            own.push_back(key(&name));
            (own.len() > MOST_WITH_ONE)
                .then(|| own.pop_front())
                .flatten()
        };
        if let Some(first) = first {
            self.all.invalidate(&first).await;
        }
        name
    }

    /// What is kept of a person whom the proxy says to be signed in. All browsers of the person
    /// share it.
    pub(super) async fn of_person(&self, name: &str) -> Arc<SignIn> {
        let fresh = async { Arc::new(SignIn::new(None)) };
        self.persons.get_with_by_ref(name, fresh).await
    }

    pub(super) async fn find(&self, name: &str) -> Option<Arc<SignIn>> {
        self.all.get(&key(name)).await
    }

    pub(super) async fn leave(&self, name: &str) {
        self.all.invalidate(&key(name)).await;
    }
}

impl SignIn {
    fn new(token: Option<TokenHash>) -> SignIn {
        SignIn {
            token,
            csrf: unguessable(),
            notice: Mutex::default(),
        }
    }

    /// Leaves word for the next page.
    pub(super) fn tell(&self, notice: String) {
        *self.notice.lock().unwrap_or_else(PoisonError::into_inner) = Some(notice);
    }

    /// What was left for this page; it is told once.
    pub(super) fn take_notice(&self) -> Option<String> {
        let mut notice = self.notice.lock().unwrap_or_else(PoisonError::into_inner);
        notice.take()
    }
}

/// A text that nobody guesses.
pub(super) fn unguessable() -> String {
    random("", LENGTH)
}

fn key(name: &str) -> Key {
    *blake3::hash(name.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::auth::token;

    #[tokio::test]
    async fn somebody_is_known_by_the_name_they_got_until_they_leave() {
        let sign_ins = SignIns::new();
        let name = sign_ins.enter(token::hash("gp_x")).await;
        let other = sign_ins.enter(token::hash("gp_x")).await;
        assert_ne!(name, other);
        let found = sign_ins.find(&name).await.unwrap();
        assert_ne!(found.csrf, sign_ins.find(&other).await.unwrap().csrf);
        assert!(sign_ins.find("").await.is_none());
        sign_ins.leave(&name).await;
        assert!(sign_ins.find(&name).await.is_none());
        assert!(sign_ins.find(&other).await.is_some());
    }

    #[tokio::test]
    async fn whoever_does_nothing_or_stays_too_long_is_forgotten() {
        let (short, long) = (Duration::from_millis(50), Duration::from_secs(60));
        let idle = SignIns::lasting(short, long);
        let name = idle.enter(token::hash("gp_x")).await;
        tokio::time::sleep(short * 2).await;
        assert!(idle.find(&name).await.is_none());
        // Who is never idle stays as long as anybody may, and not longer.
        let busy = SignIns::lasting(long, short);
        let started = Instant::now();
        let name = busy.enter(token::hash("gp_x")).await;
        while busy.find(&name).await.is_some() {
            assert!(
                started.elapsed() < Duration::from_secs(15),
                "still signed in"
            );
            tokio::task::yield_now().await;
        }
        assert!(started.elapsed() >= short);
    }

    #[tokio::test]
    async fn one_token_crowds_nobody_out() {
        let sign_ins = SignIns::new();
        let other = sign_ins.enter(token::hash("gp_y")).await;
        let first = sign_ins.enter(token::hash("gp_x")).await;
        let mut last = String::new();
        for _ in 0..MOST_WITH_ONE {
            last = sign_ins.enter(token::hash("gp_x")).await;
        }
        assert!(sign_ins.find(&first).await.is_none());
        assert!(sign_ins.find(&last).await.is_some() && sign_ins.find(&other).await.is_some());
    }

    #[tokio::test]
    async fn a_notice_is_told_once() {
        let sign_ins = SignIns::new();
        let name = sign_ins.enter(token::hash("gp_x")).await;
        let sign_in = sign_ins.find(&name).await.unwrap();
        sign_in.tell("Revoked.".to_owned());
        assert_eq!(sign_in.take_notice().as_deref(), Some("Revoked."));
        assert_eq!(sign_in.take_notice(), None);
    }
}
