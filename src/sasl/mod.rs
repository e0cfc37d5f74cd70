//! SASL for SMTP and for Postfix's auth socket: mechanisms, credentials and verdicts. Pure: bytes
//! in, a step out; no waits, storage or logs.

mod credentials;
mod exchange;
mod secret;
mod verdict;

pub use credentials::Credentials;
pub use exchange::{Exchange, ExchangeError, MAX_RESPONSE, Mechanism, Step};
pub use secret::Secret;
pub use verdict::{Identity, Outage, Reason, Throttled, Verdict};
