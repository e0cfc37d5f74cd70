//! Sockets and TLS: listeners, streams, the upstream pool, and buffers that hold memory only while
//! they hold bytes.

pub mod buffer;
pub mod buffer_pool;
pub mod certificates;
pub mod connector;
pub mod handshake;
pub mod listener;
pub mod opening;
pub mod proxy;
pub mod slots;
pub mod stream;
pub mod tls;
pub mod tls_server;
pub mod unopened;
pub mod upstream_pool;
