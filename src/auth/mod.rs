//! Verification: whether a client is the credential that it claims to be.
//!
//! `verify/machine.rs` holds the decision. Not here: a session's protocol, and what a credential
//! may do after its login.

mod activity;
mod cache;
pub(crate) mod explain;
pub(crate) mod export;
pub mod guard;
pub(crate) mod import;
mod imported;
pub mod issue;
mod login_rules;
pub mod password;
mod peer;
pub mod quota;
mod refusal_delay;
mod refusals;
pub(crate) mod spelling;
mod store_poller;
pub(crate) mod token;
mod verify;

pub use activity::ActivityBatch;
pub(crate) use activity::flush_regularly;
pub use peer::Peer;
pub(crate) use store_poller::poll_regularly;
pub use verify::Authenticator;
