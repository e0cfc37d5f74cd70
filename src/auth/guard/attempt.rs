//! One login as the guard sees it.

use crate::store::Login;

use super::Guard;
use super::imported_guesses::Target;
use super::prefix::Prefix;
use crate::auth::cache::Digest;
use crate::clock::steady_ms;

/// A login from one address, and the facts that decide how its failure counts.
pub struct Attempt<'a> {
    guard: &'a Guard,
    /// The client and its network; `None` if the client is exempt.
    prefixes: Option<[Prefix; 2]>,
    ban: Option<Prefix>,
    now: i64,
    /// Whether a rejection says nothing against the client.
    is_benign: bool,
    /// The credential at whose human-chosen password the client guesses.
    guessed: Option<Target>,
    /// Whether the client has waited for a hash permit, or need not.
    is_permit_settled: bool,
}

/// The consequence of a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// How many refusal delays the rejection takes.
    pub(crate) slowness: u32,
    pub(crate) barred: bool,
}

impl Default for Outcome {
    fn default() -> Self {
        Self {
            slowness: 1,
            barred: false,
        }
    }
}

/// Whether the offered password may be hashed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum MayHash {
    /// The password was wrong before, or the credential is closed to unknown clients.
    No,
    WithPermit(Prefix),
    Yes,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        guard: &'a Guard,
        prefixes: [Prefix; 2],
        ban: Option<Prefix>,
        now: i64,
    ) -> Self {
        Self {
            prefixes: Some(prefixes),
            ban,
            ..Self::exempt(guard, now)
        }
    }

    pub(super) fn exempt(guard: &'a Guard, now: i64) -> Self {
        Self {
            guard,
            prefixes: None,
            ban: None,
            now,
            is_benign: false,
            guessed: None,
            is_permit_settled: false,
        }
    }

    /// The same attempt if no ban held against the client.
    pub(crate) fn unbanned(self) -> Self {
        Self { ban: None, ..self }
    }

    /// The same attempt if the client were exempt.
    pub(crate) fn exempted(self) -> Self {
        Self::exempt(self.guard, self.now)
    }

    pub(super) fn prefixes(&self) -> Option<[Prefix; 2]> {
        self.prefixes
    }

    /// `None` if the client is exempt.
    pub(crate) fn client(&self) -> Option<Prefix> {
        self.prefixes.map(|[client, _]| client)
    }

    pub(super) fn now(&self) -> i64 {
        self.now
    }

    pub(super) fn is_barred(&self) -> bool {
        self.ban.is_some()
    }

    /// Whether the ban holds for every credential, so that the username need not be looked up.
    pub(crate) fn is_barred_for_all(&self) -> bool {
        let Some((ban, [client, _])) = self.ban.zip(self.prefixes) else {
            return false;
        };
        !ban.is_network() || !self.guard.trust.knows_client(client, self.now)
    }

    /// Whether the ban holds for the credential with this key, or for an unknown username.
    pub(crate) fn is_barred_for(&self, credential: Option<i64>) -> bool {
        let trusts = || credential.is_some_and(|credential| self.trusts(credential));
        self.ban.is_some_and(|ban| !ban.is_network() || !trusts())
    }

    /// Whether the credential was used from this client before.
    pub(crate) fn trusts(&self, credential: i64) -> bool {
        self.prefixes
            .is_none_or(|[client, _]| self.guard.trust.knows(credential, client, self.now))
    }

    /// Whether too many wrong guesses closed this credential to unknown clients.
    pub(crate) fn is_closed_for(&self, target: Target) -> bool {
        self.guard.imported_guesses.is_closed(target, self.now) && !self.trusts(target.key)
    }

    /// A password that is or was right means a forgotten device: its rejection does not count
    /// against the client.
    pub(crate) fn mark_benign(&mut self, is_benign: bool) {
        self.is_benign |= is_benign;
    }

    pub(super) fn is_benign(&self) -> bool {
        self.is_benign
    }

    /// The cache rejected a password that people may have chosen. Repeating the password is no
    /// further guess, and neither is a guess at a closed credential.
    pub(crate) fn guessed_wrong(&mut self, target: Target, digest: Digest) {
        if !self.is_closed_for(target) && !self.guard.wrong.knows(mark_of(target, digest), self.now)
        {
            self.guard.wrong.note(mark_of(target, digest), steady_ms());
            self.guesses_at(target);
        }
    }

    pub(crate) fn guesses_at(&mut self, target: Target) {
        self.guessed = Some(target);
    }

    pub(super) fn guessed(&self) -> Option<Target> {
        self.guessed
    }

    /// Whether this password of the credential was found wrong lately.
    pub(crate) fn knows_wrong(&self, target: Target, digest: Digest) -> bool {
        self.guard.wrong.knows(mark_of(target, digest), steady_ms())
    }

    /// Whether the offered password may be hashed. `tag` is the offered password's; a password with
    /// a stored tag is as good as right and never waits.
    pub(crate) fn may_hash(&mut self, login: &Login, tag: u32, digest: Digest) -> MayHash {
        if !takes_guesses(login, tag, self.now) {
            return MayHash::Yes;
        }
        let target = Target::of(login);
        if self.is_closed_for(target) {
            return MayHash::No;
        }
        if self.knows_wrong(target, digest) {
            self.is_permit_settled = true;
            return MayHash::No;
        }
        match self.unknown_client(Some(login.key)) {
            None => {
                self.guesses_at(target);
                MayHash::Yes
            }
            Some(client) => {
                self.is_permit_settled = true;
                MayHash::WithPermit(client)
            }
        }
    }

    /// The unknown client that must wait for a permit although no password is hashed. `None`
    /// if the client has waited already, or the same rejection was delayed lately.
    pub(crate) fn dummy_permit(&self, credential: Option<i64>, digest: Digest) -> Option<Prefix> {
        let is_settled = self.is_permit_settled || self.knows_wrong(Target::UNKNOWN, digest);
        self.unknown_client(credential).filter(|_| !is_settled)
    }

    /// The client, unless the credential was used from there before.
    fn unknown_client(&self, credential: Option<i64>) -> Option<Prefix> {
        let [client, _] = self.prefixes?;
        let is_trusted = credential.is_some_and(|credential| self.trusts(credential));
        (!is_trusted).then_some(client)
    }
}

/// Whether a guess at this credential's password can reach a hash: no tag rejects the guess.
fn takes_guesses(login: &Login, tag: u32, now: i64) -> bool {
    let previous = login.previous.as_ref();
    let previous = previous.filter(|previous| previous.until > now);
    let is_generated =
        login.tag == Some(tag) || previous.is_some_and(|previous| previous.tag == Some(tag));
    let has_chosen = login.tag.is_none() || previous.is_some_and(|previous| previous.tag.is_none());
    has_chosen && !is_generated
}

/// Stands for a username and password for as long as the credential's row stays the same.
pub(super) fn mark_of(target: Target, digest: Digest) -> u64 {
    // Any odd factor spreads the version over all bits.
    digest.word()
        ^ (target.version as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (target.key as u64)
}
