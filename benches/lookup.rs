//! A lookup by username with a thousand and with a million credentials in the store.

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::{Bencher, BenchmarkId, Criterion};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::filled_store::{FilledStore, usernames};

const FEW: usize = 1_000;
const MANY: usize = 1_000_000;

pub fn bench(criterion: &mut Criterion) {
    let many = if crate::measuring() {
        MANY
    } else {
        eprintln!("lookup: not measuring, so 10,000 credentials stand in for {MANY}");
        10_000
    };
    let names = usernames(many);
    let small = lazy(&names[..FEW]);
    let large = lazy(&names);

    let mut group = criterion.benchmark_group("lookup");
    let mut turn = 0;
    // A hundred names' pages stay in the processor's caches, a thousand's in a large store do not.
    for set in [100, 1_000] {
        for (count, filled) in [(FEW, &small), (many, &large)] {
            let name = BenchmarkId::new(format!("same_{set}_names"), count);
            group.bench_function(name, |bencher| {
                in_turn(bencher, filled, &names[..set], &mut turn);
            });
        }
    }
    group.bench_function(BenchmarkId::new("every_name", many), |bencher| {
        in_turn(bencher, &large, &names, &mut turn);
    });
    group.finish();
}

/// Not made when a filter on the command line leaves it out.
fn lazy(names: &[String]) -> LazyCell<FilledStore, Box<dyn FnOnce() -> FilledStore + '_>> {
    LazyCell::new(Box::new(|| store(names)))
}

/// A store with these names, made in another order than they are given: names next to each other in `names` are then
/// neighbours neither in the table nor in its index by username, and the first thousand lie all over a large store.
fn store(names: &[String]) -> FilledStore {
    let mut order: Vec<&String> = names.iter().collect();
    order.shuffle(&mut StdRng::seed_from_u64(25));
    FilledStore::new(order)
}

/// Looks up the next of `names`, from the first to the last and over again. `turn` outlives the call, because there is one
/// for each sample.
fn in_turn(bencher: &mut Bencher, filled: &FilledStore, names: &[String], turn: &mut usize) {
    bencher.iter(|| {
        *turn = (*turn + 1) % names.len();
        let username = black_box(&names[*turn]);
        let login = filled.store.lookup(username).expect("a readable store");
        assert!(login.is_some());
        login
    });
}
