//! Sessions of strangers who are refused, and how long that takes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::kinds::Kind;
use crate::support::client::Client;

/// From the fifth failure on refusals to a client come later, and its session ends.
const ON_ONE: usize = 4;

/// Where strangers connect to, each from a network of its own.
pub struct Visits {
    server: SocketAddr,
    visitors: AtomicUsize,
    claims: AtomicUsize,
}

/// One refusal.
pub struct Sample {
    /// Which kind it is of.
    pub kind: usize,
    pub reply: Vec<String>,
    pub took: Duration,
}

impl Visits {
    pub fn new(server: SocketAddr) -> Visits {
        Visits {
            server,
            visitors: AtomicUsize::new(0),
            claims: AtomicUsize::new(0),
        }
    }

    /// Has `samples` claims of each kind refused, the kinds in turns, `parallel` at once.
    pub fn run(&self, kinds: &[Kind], samples: usize, parallel: usize) -> Vec<Sample> {
        let next = AtomicUsize::new(0);
        let all = samples * kinds.len();
        let visit = || {
            let (mut heard, mut session) = (Vec::new(), None);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= all {
                    return heard;
                }
                // Each round begins with another kind.
                let kind = (number + number / kinds.len()) % kinds.len();
                let (client, left) = session.take().unwrap_or_else(|| (self.connect(), ON_ONE));
                let (sample, client) = self.ask(client, kinds, kind);
                heard.push(sample);
                session = (left > 1).then_some((client, left - 1));
            }
        };
        thread::scope(|scope| {
            let visitors: Vec<_> = (0..parallel).map(|_| scope.spawn(visit)).collect();
            let heard = visitors.into_iter();
            heard
                .flat_map(|visitor| visitor.join().expect("a visitor"))
                .collect()
        })
    }

    fn ask(&self, mut client: Client, kinds: &[Kind], kind: usize) -> (Sample, Client) {
        let claim = kinds[kind].claim(self.claims.fetch_add(1, Ordering::Relaxed));
        let asked = Instant::now();
        let reply = client.auth_plain(&claim);
        let took = asked.elapsed();
        let reply = reply.lines;
        (Sample { kind, reply, took }, client)
    }

    fn connect(&self) -> Client {
        let number = self.visitors.fetch_add(1, Ordering::Relaxed);
        let [.., high, low] = number.to_be_bytes();
        assert!(number < 250 << 8, "there are no more networks");
        let from = Ipv4Addr::new(127, 1 + high, low, 7);
        let client = Client::dial_from(from.into(), self.server).expect("connect");
        let mut client = client.over_tls();
        client.reply().expect("220");
        client.expect("EHLO client.example", "250");
        client
    }
}
