//! What a client sent to prove who it is.

use super::{Mechanism, Secret};

/// A claim, not yet believed.
#[derive(Debug)]
pub struct Credentials {
    /// How the claim was made.
    pub mechanism: Mechanism,
    /// The authentication identity (authcid): not empty, at most 255 octets, UTF-8.
    pub username: String,
    /// The password: not empty, at most 255 octets.
    pub password: Secret,
    /// An authorization identity (authzid) that differs from `username`. Nobody may act for
    /// somebody else here, so verification refuses it (RFC 4422, 3.4.1).
    pub acts_for: Option<String>,
}
