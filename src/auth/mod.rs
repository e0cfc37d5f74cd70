//! Verification: is this client who it says it is?
//!
//! Cheapest first: the cache of right passwords, the row's state, the tag, and only then argon2.
//! One rule keeps every step honest: nothing counts that was read before the store's epoch moved.

mod cache;
mod containment;
pub mod explain;
pub mod export;
pub mod guard;
pub mod import;
mod imported;
pub mod issue;
mod noted;
pub mod password;
pub mod quota;
mod refusal;
mod refusals;
pub mod spelling;
pub mod token;
mod verify;
mod watch;

pub use noted::{NotedBatch, flush_regularly};
pub use verify::{Authenticator, Peer};
pub use watch::{Polls, watch};
