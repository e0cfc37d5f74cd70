//! The credentials sent by a client.

use super::{Mechanism, Secret};

/// An unverified login attempt.
#[derive(Debug)]
pub struct Credentials {
    pub mechanism: Mechanism,
    /// The authentication identity (authcid): UTF-8, not empty, and cut just beyond the longest
    /// possible username.
    pub username: String,
    /// The password: not empty, and cut in the same way.
    pub password: Secret,
    /// An authorization identity (authzid) that differs from `username`. No credential may act for
    /// another, so the verification rejects such a login (RFC 4422, 3.4.1).
    pub authzid: Option<String>,
}
