//! Bytes and connections: listening sockets, TLS, and buffers that hold memory only while they
//! hold bytes.

pub mod buffer;
pub mod certificates;
pub mod connector;
pub mod handshake;
pub mod hosts;
pub mod lent;
pub mod listener;
pub mod opening;
pub mod proxy;
pub mod secured;
pub mod slots;
pub mod stream;
pub mod tls;
pub mod unopened;
