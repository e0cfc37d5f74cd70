//! What one connection has moved, until all are told of it: counters that all threads share cost most where each of
//! them adds to them at every command.

use super::{Flow, Label as _, Metrics};

/// From so many octets on they should not wait, for the rates that are made of them.
const MUCH: u64 = 64 * 1024;

/// Octets of SMTP inside TLS that one connection has moved and not told of, by whose they are and which way they went.
#[derive(Debug, Default)]
pub struct TrafficDelta([u64; Flow::ALL.len()]);

impl TrafficDelta {
    /// Notes so many octets.
    pub fn add(&mut self, flow: Flow, count: usize) {
        self.0[flow as usize] += count as u64;
    }

    /// Whether it is time to tell, whatever goes on.
    pub fn is_much(&self) -> bool {
        self.0.iter().sum::<u64>() >= MUCH
    }

    /// Adds them to what is counted of all.
    pub fn flush(&mut self, metrics: &Metrics) {
        for &flow in Flow::ALL {
            let count = std::mem::take(&mut self.0[flow as usize]);
            if count > 0 {
                metrics.bytes.of(flow).inc_by(count);
            }
        }
    }
}
