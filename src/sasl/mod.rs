//! SASL as SMTP and Postfix use it: what a client says to prove who it is, and what may be
//! answered. Pure: bytes in, a step out; nothing here waits, stores or logs.

mod credentials;
mod exchange;
mod secret;
mod verdict;

pub use credentials::Credentials;
pub use exchange::{Exchange, ExchangeError, MAX_RESPONSE, Mechanism, Step};
pub use secret::Secret;
pub use verdict::{Bar, Identity, Outage, Reason, Verdict};
