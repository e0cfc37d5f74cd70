//! The SMTP core, without I/O: bytes, replies and verdicts go in, actions come out. The `edge` room
//! reads sockets, waits, and executes the actions.

pub mod client_name;
pub mod command;
pub mod data;
pub mod envelope;
pub mod extensions;
pub mod header;
pub mod line;
pub mod mailbox;
pub mod proxy;
pub mod relay;
pub mod reply;
pub mod session;
pub mod upstream;
pub mod xclient;
pub mod xtext;
