//! One login, as the guard sees it on its way to a verdict.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crate::store::Login;

use super::Guard;
use super::chosen::Target;
use super::lanes::Turn;
use super::prefix::Prefix;
use crate::auth::cache::Digest;
use crate::clock::steady_ms;

/// A login from one address, and what is learnt about it.
pub struct Attempt<'a> {
    guard: &'a Guard,
    /// The client and its network, unless nothing is held against them.
    prefixes: Option<[Prefix; 2]>,
    /// Which of them is banned.
    bar: Option<Prefix>,
    now: i64,
    /// Whether a refusal says nothing against the client.
    harmless: AtomicBool,
    /// The key of the credential, if people chose its password; keys begin at 1.
    chosen: AtomicI64,
    /// And its version.
    version: AtomicI64,
    /// Whether a stranger's turn was asked for, or need not be.
    had_turn: AtomicBool,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Consequence {
    /// How many times later than usual the refusal comes.
    pub slowness: u32,
    /// Whether the client is told to go away.
    pub barred: bool,
}

impl Default for Consequence {
    fn default() -> Self {
        Self {
            slowness: 1,
            barred: false,
        }
    }
}

/// Why a password is not hashed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Held {
    /// Strangers have no turn now.
    Busy,
    /// It was found wrong before, or it is not looked at.
    Refused,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        guard: &'a Guard,
        prefixes: [Prefix; 2],
        bar: Option<Prefix>,
        now: i64,
    ) -> Self {
        Self {
            prefixes: Some(prefixes),
            bar,
            ..Self::exempt(guard, now)
        }
    }

    pub(super) fn exempt(guard: &'a Guard, now: i64) -> Self {
        Self {
            guard,
            prefixes: None,
            bar: None,
            now,
            harmless: AtomicBool::new(false),
            chosen: AtomicI64::new(0),
            version: AtomicI64::new(0),
            had_turn: AtomicBool::new(false),
        }
    }

    pub(super) fn prefixes(&self) -> Option<[Prefix; 2]> {
        self.prefixes
    }

    /// The client, unless nothing is held against it.
    pub fn client(&self) -> Option<Prefix> {
        self.prefixes.map(|[client, _]| client)
    }

    pub(super) fn now(&self) -> i64 {
        self.now
    }

    /// Whether it comes from where too many failed.
    pub fn is_barred(&self) -> bool {
        self.bar.is_some()
    }

    /// Whether it can be turned away without a look at what it claims: there is nobody whom it might be.
    pub fn is_barred_for_all(&self) -> bool {
        let Some((bar, [client, _])) = self.bar.zip(self.prefixes) else {
            return false;
        };
        !bar.is_network() || !self.guard.trust.knows_client(client, self.now)
    }

    /// Whether it is turned away, claiming to be the credential with this key or nobody there is.
    pub fn is_barred_for(&self, credential: Option<i64>) -> bool {
        let trusts = || credential.is_some_and(|credential| self.trusts(credential));
        self.bar.is_some_and(|bar| !bar.is_network() || !trusts())
    }

    /// Whether the credential with this key was used from there before.
    pub fn trusts(&self, credential: i64) -> bool {
        self.prefixes
            .is_none_or(|[client, _]| self.guard.trust.knows(credential, client, self.now))
    }

    /// Whether the password that people chose for this credential is not for strangers now: too many of them guessed at it.
    pub fn is_closed_for(&self, target: Target) -> bool {
        self.guard.chosen.is_closed(target, self.now) && !self.trusts(target.key)
    }

    /// Where the password is or was the right one, a refusal means a forgotten device, and says nothing against the client.
    pub fn excuse_if(&self, is_right: bool) {
        self.harmless.fetch_or(is_right, Ordering::Relaxed);
    }

    pub(super) fn is_harmless(&self) -> bool {
        self.harmless.load(Ordering::Relaxed)
    }

    /// A password that people may have chosen for this credential was guessed, in vain. The same one again is no further
    /// guess, and one that nobody looks at is none.
    pub fn guessed_wrong(&self, target: Target, digest: Digest) {
        let wrong = &self.guard.wrong;
        if !self.is_closed_for(target) && !wrong.knows(mark_of(target, digest), self.now) {
            wrong.note(mark_of(target, digest), steady_ms());
            self.may_guess(target);
        }
    }

    fn may_guess(&self, target: Target) {
        self.chosen.store(target.key, Ordering::Relaxed);
        self.version.store(target.version, Ordering::Relaxed);
    }

    pub(super) fn chosen(&self) -> Option<Target> {
        let target = Target {
            key: self.chosen.load(Ordering::Relaxed),
            version: self.version.load(Ordering::Relaxed),
        };
        Some(target).filter(|target| target.key != 0)
    }

    /// Waits until the password may be hashed. `tag` is the offered one's: with that of the stored one it is as good as right,
    /// and never kept waiting.
    ///
    /// # Errors
    /// It is not hashed.
    pub async fn turn(
        &self,
        login: &Login,
        tag: u32,
        digest: Digest,
    ) -> Result<Option<Turn>, Held> {
        if !takes_guesses(login, tag, self.now) {
            return Ok(None);
        }
        let target = Target::of(login);
        if self.is_closed_for(target) {
            return Err(Held::Refused);
        }
        let is_known = || self.guard.wrong.knows(mark_of(target, digest), steady_ms());
        if is_known() {
            self.had_turn.store(true, Ordering::Relaxed);
            return Err(Held::Refused);
        }
        let turn = match self.stranger_to(Some(login.key)) {
            None => None,
            Some(client) => Some(self.wait(client).await?),
        };
        // The same may have been found wrong meanwhile.
        if is_known() {
            return Err(Held::Refused);
        }
        self.may_guess(target);
        Ok(turn)
    }

    /// Waits as long as for a turn to have a password hashed, although there is nothing to hash. `None` if that is not called
    /// for: there was a turn already, or the same was refused a while ago, or it is no stranger.
    ///
    /// # Errors
    /// Strangers have no turn now.
    pub async fn idle_turn(
        &self,
        credential: Option<i64>,
        digest: Digest,
    ) -> Result<Option<Turn>, Held> {
        let mark = mark_of(Target::NOBODY, digest);
        let is_known = || self.guard.wrong.knows(mark, steady_ms());
        let is_settled = self.had_turn.load(Ordering::Relaxed) || is_known();
        let Some(client) = self.stranger_to(credential).filter(|_| !is_settled) else {
            return Ok(None);
        };
        let turn = self.wait(client).await?;
        Ok(Some(turn).filter(|_| !is_known()))
    }

    /// The client, unless the credential with this key was used from there before.
    fn stranger_to(&self, credential: Option<i64>) -> Option<Prefix> {
        let [client, _] = self.prefixes?;
        let is_trusted = credential.is_some_and(|credential| self.trusts(credential));
        (!is_trusted).then_some(client)
    }

    async fn wait(&self, client: Prefix) -> Result<Turn, Held> {
        self.had_turn.store(true, Ordering::Relaxed);
        let turn = self.guard.lanes.turn(client, self.now).await;
        turn.map_err(|_| Held::Busy)
    }
}

/// Whether a guess at this credential's password can reach argon2: it has no tag that would tell.
fn takes_guesses(login: &Login, tag: u32, now: i64) -> bool {
    let previous = login.previous.as_ref();
    let previous = previous.filter(|previous| previous.until > now);
    let is_generated =
        login.tag == Some(tag) || previous.is_some_and(|previous| previous.tag == Some(tag));
    let has_chosen = login.tag.is_none() || previous.is_some_and(|previous| previous.tag.is_none());
    has_chosen && !is_generated
}

/// What tells a name and password apart, for as long as the credential stays as it is.
pub(super) fn mark_of(target: Target, digest: Digest) -> u64 {
    // Any odd factor spreads the version over all bits.
    digest.word()
        ^ (target.version as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (target.key as u64)
}
