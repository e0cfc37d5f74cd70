//! Octets of message body a second, as they come off the wire and go to the upstream.

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use gatepost::smtp::data::{BareNewline, Progress, Scanner};

/// A message with an attachment.
const BODY: usize = 1024 * 1024;

/// What base64 and most programs wrap at, CRLF not counted (RFC 5322, 2.1.1).
const COLUMNS: usize = 78;

/// What one read from a client brings at most: a TLS record.
const PIECE: usize = 16 * 1024;

pub fn bench(criterion: &mut Criterion) {
    let good = body("\r\n");
    let bad = body("\n");
    let mut group = criterion.benchmark_group("data");
    scan(&mut group, "reject", BareNewline::Reject, &good);
    scan(&mut group, "normalize", BareNewline::Normalize, &good);
    scan(
        &mut group,
        "normalize_bare_lf",
        BareNewline::Normalize,
        &bad,
    );
    group.finish();
}

/// [`BODY`] octets in lines of [`COLUMNS`], then the end of data. One line in a hundred starts with a stuffed dot.
fn body(newline: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(BODY + 2 * COLUMNS);
    for number in 0.. {
        let dots = if number % 100 == 99 { ".." } else { "" };
        let text = dots.bytes().chain((b'0'..=b'z').cycle().skip(number % 75));
        body.extend(text.take(COLUMNS));
        body.extend_from_slice(newline.as_bytes());
        if body.len() >= BODY {
            break;
        }
    }
    body.truncate(BODY);
    body.extend_from_slice(b"\r\n.\r\n");
    body
}

fn scan(group: &mut BenchmarkGroup<WallTime>, name: &str, bare_newline: BareNewline, body: &[u8]) {
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function(name, |bencher| {
        let mut out = Vec::with_capacity(2 * PIECE);
        bencher.iter(|| {
            let mut scanner = Scanner::new(bare_newline, u64::MAX);
            let mut progress = Progress::More;
            for piece in black_box(body).chunks(PIECE) {
                out.clear(); // as the upstream has taken it
                progress = scanner.scan(piece, &mut out);
                black_box(&out);
            }
            assert!(matches!(progress, Progress::End(_)));
            assert_eq!(scanner.refusal(), None);
        });
    });
}
