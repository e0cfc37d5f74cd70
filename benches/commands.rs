//! Commands a second: lines found in a pipelined batch and taken apart.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use gatepost::smtp::command::Command;
use gatepost::smtp::line::{Line, LineReader};

const TRANSACTIONS: u32 = 32;

pub fn bench(criterion: &mut Criterion) {
    let batch = batch();
    let mut group = criterion.benchmark_group("commands");
    group.throughput(Throughput::Elements(parse(batch.as_bytes())));
    group.bench_function("pipelined_batch", |bencher| {
        bencher.iter(|| parse(black_box(batch.as_bytes())));
    });
    group.finish();
}

/// What a client that pipelines (RFC 2920) sends for its transactions: an address apiece, the parameters of a common client.
fn batch() -> String {
    let mut batch = String::new();
    for number in 0..TRANSACTIONS {
        let size = 3_000 + 271 * number;
        let transaction = format!(
            "MAIL FROM:<invoices+{number}@billing.example.org> SIZE={size} BODY=8BITMIME\r\n\
             RCPT TO:<anna.lindgren{number}@example.net> NOTIFY=FAILURE\r\n\
             RCPT TO:<b.{number}@mail.example.com>\r\n\
             rcpt to:<\"front desk {number}\"@[192.0.2.25]>\r\n\
             DATA\r\n\
             RSET\r\n"
        );
        batch.push_str(&transaction);
    }
    batch + "NOOP\r\nQUIT\r\n"
}

/// Takes the batch apart as a session does, and counts its commands.
fn parse(mut input: &[u8]) -> u64 {
    let mut reader = LineReader::default();
    let mut commands = 0;
    while let Some((line, taken)) = reader.next(input) {
        let Some(Line::Good(text)) = line else {
            panic!("the batch has good lines only: {line:?}");
        };
        black_box(Command::parse(text)).expect("the batch has good commands only");
        input = &input[taken..];
        commands += 1;
    }
    assert!(input.is_empty());
    commands
}
