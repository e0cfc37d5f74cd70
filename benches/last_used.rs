//! A flush of the uses of 10,000 credentials, each of which was used before.

use std::cell::LazyCell;

use criterion::{Criterion, Throughput};
use gatepost::store::{LastUsed, Noted};

use crate::filled_store::{FilledStore, usernames};

const CREDENTIALS: i64 = 10_000;

pub fn bench(criterion: &mut Criterion) {
    let filled = LazyCell::new(|| {
        let filled = FilledStore::new(&usernames(CREDENTIALS as usize));
        filled.store.flush(&noted()).expect("a writable store");
        filled
    });
    let mut noted = noted();

    let mut group = criterion.benchmark_group("last_used");
    group.throughput(Throughput::Elements(CREDENTIALS as u64));
    group.sample_size(20);
    group.bench_function("flush_10000", |bencher| {
        bencher.iter(|| {
            for (_, used) in &mut noted.uses {
                used.at += 5_000; // the default interval between two flushes
            }
            filled.store.flush(&noted).expect("a writable store");
        });
    });
    group.finish();
}

/// A use of each credential, by the keys of a new store: 1, 2, 3 and so on. In no order, as they come out of a hash map.
fn noted() -> Noted {
    let used = |key| LastUsed {
        at: 1_767_225_600_000 + key,
        address: format!("198.51.100.{}", key % 256),
        tls: Some("TLSv1.3".to_owned()),
        mechanism: "PLAIN".to_owned(),
        helo: format!("client-{key}.example.net"),
        count: 3,
    };
    // 7,919 is a prime and no factor of 10,000, so every key comes once.
    let keys = (0..CREDENTIALS).map(|number| number * 7_919 % CREDENTIALS + 1);
    Noted {
        uses: keys.map(|key| (key, used(key))).collect(),
        ..Noted::default()
    }
}
