//! Gatepost between programs that others wrote: every message arrives byte for byte.

mod clients;
mod upstreams;

use crate::support::client::stuffed;
use crate::support::upstream::{Session, Upstream};

/// Waits for the body whose subject is `marker`.
fn arrived(upstream: &Upstream, marker: &str) -> Vec<u8> {
    let subject = format!("Subject: {marker}\r\n");
    let find = |session: &Session| {
        let mut bodies = session.bodies.iter();
        bodies
            .find(|body| memchr::memmem::find(body, subject.as_bytes()).is_some())
            .cloned()
    };
    let session = upstream.wait_for(marker, |session| find(session).is_some());
    find(&session).expect("just seen")
}

/// The body must be `message` as it travels, behind the headers that a relay puts before it.
#[track_caller]
fn assert_behind_headers(body: &[u8], message: &[u8]) {
    let wire = stuffed(message);
    let wire = &wire[..wire.len() - 3];
    let text = String::from_utf8_lossy(body);
    assert!(body.ends_with(wire), "changed on the way:\n{text}");
    assert!(text.starts_with("Received: "), "{text}");
}
