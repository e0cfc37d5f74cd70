//! All columns for all peers, round after round. Within a column the peers take turns, and in each round another one begins, so
//! that what the machine does meanwhile meets all of them.

use std::time::Instant;

use crate::arguments::{self, Run};
use crate::column::{Column, Reading};
use crate::machine;
use crate::peer::{Kind, Peer};
use crate::report::Report;
use crate::site::Site;
use crate::trial::{self, Trial};

/// Measures, prints and writes.
pub fn run(run: &Run) {
    let kinds = arguments::peers(&run.peers);
    let columns = arguments::columns(&run.columns);
    let site = Site::new();
    let mut report = Report::new(&kinds, &columns, run);
    let started = Instant::now();
    report.load_before = machine::load();
    report.generator = trial::generator(&site);
    for round in 0..run.rounds {
        let peers: Vec<Peer> = kinds.iter().map(|kind| kind.start(&site)).collect();
        for peer in &peers {
            report.note_version(peer.kind, &peer.version);
            Trial::new(&site, peer, run.way).warm_up();
        }
        for &column in &columns {
            for turn in 0..peers.len() {
                let peer = &peers[(turn + round) % peers.len()];
                if !applies(column, peer.kind) {
                    continue;
                }
                let reading = column.measure(&Trial::new(&site, peer, run.way), run.scale);
                say(round, column, peer.kind, &reading);
                report.note(column, peer.kind, reading);
            }
        }
    }
    report.seconds = started.elapsed().as_secs_f64();
    report.finish(run.output.as_deref());
}

/// Who looks at no passwords has no figure for wrong ones; the floor has, to compare with.
fn applies(column: Column, kind: Kind) -> bool {
    !column.is_of_passwords() || kind.authenticates() || kind == Kind::Floor
}

fn say(round: usize, column: Column, kind: Kind, reading: &Reading) {
    let (column, kind, value) = (column.name(), kind.name(), reading.value);
    eprint!("round {}: {column} {kind}: {value:.3}", round + 1);
    if reading.failures > 0 {
        eprint!("; {} FAILURES: {}", reading.failures, reading.detail);
    }
    eprintln!();
}
