//! A connection's unreported traffic. Shared counters are expensive when every thread adds at every
//! command, so a connection adds its octets in batches.

use super::{Flow, Label as _, Metrics};

/// From this many octets on, a flush is due: longer delays would distort rates.
const MUCH: u64 = 64 * 1024;

/// Octets of SMTP inside TLS not yet added to the metrics, by direction.
#[derive(Debug, Default)]
pub struct TrafficDelta([u64; Flow::ALL.len()]);

impl TrafficDelta {
    pub fn add(&mut self, flow: Flow, count: usize) {
        self.0[flow as usize] += count as u64;
    }

    /// Whether a flush is due.
    pub fn is_much(&self) -> bool {
        self.0.iter().sum::<u64>() >= MUCH
    }

    /// Adds the octets to the metrics.
    pub fn flush(&mut self, metrics: &Metrics) {
        for &flow in Flow::ALL {
            let count = std::mem::take(&mut self.0[flow as usize]);
            if count > 0 {
                metrics.bytes.of(flow).inc_by(count);
            }
        }
    }
}
