//! Gatepost is an SMTP submission proxy in front of Postfix: it terminates TLS, verifies SMTP AUTH
//! against its own store of credentials, and hands each session to the upstream with the client's
//! identity.
//!
//! The rooms, lowest layer first. A layer uses only layers below, and rooms of a layer never use
//! each other (`tests/layering.rs`):
//!
//! | layer | rooms |
//! |---|---|
//! | 0 | [`clock`] the wall clock and the steady clock |
//! | 1 | [`policy`] limits and rules of a credential; [`log`] the output of log lines |
//! | 2 | [`sasl`] mechanisms, credentials and verdicts; [`metrics`]; [`lifecycle`] |
//! | 3 | [`smtp`] the protocol, without I/O; [`config`]; [`sessions`] the live sessions |
//! | 4 | [`store`] credentials in SQLite; [`net`] sockets and TLS |
//! | 5 | [`auth`] from credentials to a verdict |
//! | 6 | [`edge`] a client's session; [`dovecot`] verdicts for Postfix; [`admin`] HTTP |
//! | 7 | [`daemon`] the wiring |
//! | 8 | [`cli`] a file per subcommand |
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
