//! Gatepost: the gate in front of Postfix. It terminates TLS, verifies SMTP AUTH against its own
//! store of credentials, and hands the session to the upstream with the client's identity.
//!
//! The house, lowest floor first; a floor uses only floors below it, and rooms on one floor never
//! use each other (`tests/layering.rs`):
//!
//! | floor | rooms |
//! |---|---|
//! | 0 | [`clock`] the wall clock and the steady clock |
//! | 1 | [`policy`] what a credential may do: limits and rules; [`log`] the way of log lines |
//! | 2 | [`sasl`] what a client claims; [`metrics`]; [`lifecycle`] |
//! | 3 | [`smtp`] the protocol, without I/O; [`config`]; [`sessions`] who is connected now |
//! | 4 | [`store`] credentials in SQLite; [`net`] sockets and TLS |
//! | 5 | [`auth`] from a claim to a verdict |
//! | 6 | [`edge`] one client's session; [`dovecot`] verdicts for Postfix itself; [`admin`] HTTP |
//! | 7 | [`daemon`] the wiring |
//! | 8 | [`cli`] one file a subcommand |
#![deny(clippy::print_stderr, clippy::print_stdout)]

pub mod admin;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod dovecot;
pub mod edge;
pub mod lifecycle;
pub mod log;
pub mod metrics;
pub mod net;
pub mod policy;
pub mod sasl;
pub mod sessions;
pub mod smtp;
pub mod store;
