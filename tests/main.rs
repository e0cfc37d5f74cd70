//! The end-to-end suite: one binary, every test speaks the wire to the built `gatepost`.
//!
//! Each test has its own directory, its own ports and its own processes, so that they run in any
//! order and side by side. Start with `support` for the tools and `dialogs/README` for the format.
#![allow(
    clippy::disallowed_methods,
    reason = "bans on the clock and the environment protect the daemon, not its tests"
)]

mod support;

mod administration;
mod api;
mod bad_input;
mod beside_postfix;
mod blocked_store;
mod capabilities;
mod certificates;
mod crash;
mod dashboard;
mod demo;
mod descriptors;
mod dialogs;
mod dialogs_core;
mod doctor;
mod documents;
mod dovecot;
mod endurance;
mod explain;
mod export;
mod faults;
mod guard;
mod guard_unasked;
mod handshakes;
mod hang_ups;
mod harness;
mod healthcheck;
mod idle_release;
mod import;
mod layering;
mod lifecycle;
mod limits;
mod line_ends;
mod live;
mod log_output;
mod logs;
mod manners;
mod misbehaviour;
mod organization_limits;
mod peers;
mod postfix;
mod prometheus;
mod proxied;
mod quit;
mod relay;
mod replies;
mod rules;
mod schema;
mod sessions;
mod several_upstreams;
mod slow_body;
mod smuggling;
mod store_file;
mod systemd;
mod units;
mod upstream_identity;
mod upstream_lost;
mod upstream_tls;
mod version;
mod volume;
mod wall_clock;
mod words;
