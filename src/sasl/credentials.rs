//! What a client sent to prove who it is.

use super::{Mechanism, Secret};

/// A claim, not yet believed.
#[derive(Debug)]
pub struct Credentials {
    /// How the claim was made.
    pub mechanism: Mechanism,
    /// The authentication identity (authcid): not empty, UTF-8, and cut beyond the longest that a
    /// credential can have.
    pub username: String,
    /// The password: not empty, and cut in the same way.
    pub password: Secret,
    /// An authorization identity (authzid) that differs from `username`. Nobody may act for
    /// somebody else here, so verification refuses it (RFC 4422, 3.4.1).
    pub acts_for: Option<String>,
}
