//! The cost of planning: `cargo bench --bench plan`.
//!
//! 1e9 rows in 100 stores, batches of 256, blocks of 16 rows, k = 1024, unless a name says otherwise. Random batches are of a new epoch
//! each time, so only the plan is cached. Memory is printed once, before the measurements.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use shufflefs::plan::rank::Rank;
use shufflefs::plan::resume::{Stopped, remaining};
use shufflefs::plan::strategy::{Inputs, by_name};
use shufflefs::plan::{Plan, Rows, Sampling};

const STORES: u64 = 100;
const SAMPLING: Sampling = Sampling { batch_size: 256, block_size: 16, fetch_factor: 64, seed: 0, drop_last: false };

/// Whether a row is selected.
type Selected = Box<dyn Fn(u64) -> bool>;

fn stores(rows: u64) -> Vec<u64> {
    // Not multiples of the block size, so that every store has a short block.
    (0..STORES).map(|store| rows / STORES + store % 7).collect()
}

fn made(rows: Rows, strategy: &str, inputs: Inputs) -> Plan {
    Plan::of(by_name(strategy).expect("registered").strategy(rows, SAMPLING, inputs).expect("valid"))
}

/// The next of a Weyl sequence: positions spread over the whole range, at almost no cost.
fn next(place: &mut u64) -> u64 {
    *place = place.wrapping_add(0x9e37_79b9_7f4a_7c15);
    *place >> 20
}

fn random_fetch(c: &mut Criterion, name: &str, plan: &Plan) {
    let mut place = 0;
    c.bench_function(name, |b| {
        b.iter(|| {
            let at = next(&mut place);
            black_box(plan.epoch(at % 10_000).fetch(at % plan.fetches()))
        })
    });
}

fn everything(c: &mut Criterion) {
    let stores = stores(1_000_000_000);
    c.bench_function("1e9 rows: make a plan", |b| b.iter(|| black_box(Plan::new(black_box(&stores), SAMPLING))));
    c.bench_function("1e9 rows: make a plan and its first fetch", |b| {
        b.iter(|| black_box(Plan::new(black_box(&stores), SAMPLING).epoch(0).fetch(0)))
    });
    let plan = Plan::new(&stores, SAMPLING);
    random_fetch(c, "1e9 rows: random fetch, k=1024", &plan);
    for name in ["random", "buffered", "sequential"] {
        let plan = made(Rows::all(&stores), name, Inputs::default());
        random_fetch(c, &format!("1e9 rows: random fetch, order {name}"), &plan);
    }
    let mut place = 0;
    c.bench_function("1e9 rows: batch of a rank of 64", |b| {
        b.iter(|| Rank { index: 17, of: 64 }.batch(&plan, next(&mut place) % 61_000))
    });
    c.bench_function("1e9 rows: what remains after 1,200 steps of 8, dealt to 4", |b| {
        b.iter(|| {
            let rest = remaining(&plan, Stopped { step: 1200, world: 8 });
            black_box(rest.partition(4, plan.uneven()).batch(3, 100_000))
        })
    });
}

fn selections(c: &mut Criterion) {
    let rows = 100_000_000;
    let stores = stores(rows);
    let n: u64 = stores.iter().sum();
    let mixed = |row: u64, share: u64| row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 1023 < share;
    let kinds: [(&str, Selected); 4] = [
        ("80 % at random", Box::new(move |row| mixed(row, 819))),
        ("1 % at random", Box::new(move |row| mixed(row, 10))),
        ("80 % in runs of 5,000", Box::new(move |row| mixed(row / 5000, 819))),
        ("50 % in runs of 100", Box::new(move |row| mixed(row / 100, 512))),
    ];
    for (name, selected) in kinds {
        let mut words = vec![0u64; n.div_ceil(64) as usize];
        (0..n).filter(|&row| selected(row)).for_each(|row| words[(row / 64) as usize] |= 1 << (row % 64));
        let view = Rows::from_words(&stores, words.iter().copied()).expect("valid");
        eprintln!(
            "selection of {name} of 1e8: {} rows, {:.3} bits a row of the collection, {:.3} a row of the view",
            view.len(),
            view.bytes() as f64 * 8.0 / n as f64,
            view.bytes() as f64 * 8.0 / view.len() as f64
        );
        let mut group = c.benchmark_group("selection of 1e8");
        group.sample_size(10);
        group.bench_function(format!("{name}: make, from words"), |b| {
            b.iter(|| black_box(Rows::from_words(&stores, words.iter().copied())))
        });
        group.bench_function(format!("{name}: make, from row numbers"), |b| {
            b.iter(|| black_box(Rows::from_ascending(&stores, view.iter())))
        });
        group.finish();
        let mut place = 0;
        c.bench_function(&format!("selection of 1e8, {name}: select"), |b| {
            b.iter(|| black_box(view.select(next(&mut place) % view.len())))
        });
        c.bench_function(&format!("selection of 1e8, {name}: rank"), |b| {
            b.iter(|| black_box(view.rank(next(&mut place) % n)))
        });
        let plan = made(view, "block", Inputs::default());
        random_fetch(c, &format!("selection of 1e8, {name}: random fetch, k=1024"), &plan);
    }
}

fn draws(c: &mut Criterion) {
    let stores = stores(100_000_000);
    let n: u64 = stores.iter().sum();
    let weights: Vec<f32> = (0..n).map(|row| (row % 97) as f32).collect();
    let mut group = c.benchmark_group("1e8 rows");
    group.sample_size(10);
    group.bench_function("weighted: make a plan (with a copy of the weights)", |b| {
        b.iter(|| {
            let inputs = Inputs { weights: Some(weights.clone()), ..Inputs::default() };
            black_box(made(Rows::all(&stores), "weights", inputs))
        })
    });
    group.finish();
    let weighted = made(Rows::all(&stores), "weights", Inputs { weights: Some(weights), ..Inputs::default() });
    random_fetch(c, "1e8 rows, weighted: random fetch, k=1024", &weighted);
    drop(weighted);
    for count in [20, 1000] {
        let codes: Vec<u32> = (0..n).map(|row| (row / 50 % count) as u32).collect();
        let classes = |weights: Option<Vec<f32>>| {
            made(
                Rows::all(&stores),
                "class-batches",
                Inputs { codes: Some(codes.clone()), weights, ..Inputs::default() },
            )
        };
        let mut group = c.benchmark_group("1e8 rows");
        group.sample_size(10);
        group.bench_function(format!("{count} classes: make a plan (with a copy of the codes)"), |b| {
            b.iter(|| black_box(classes(None)))
        });
        group.finish();
        let once = classes(None);
        random_fetch(c, &format!("1e8 rows, {count} classes, each row once: random fetch"), &once);
        let drawn = classes(Some(vec![1.0; codes.len()]));
        random_fetch(c, &format!("1e8 rows, {count} classes by weight: random fetch"), &drawn);
    }
}

criterion_group! {
    name = planning;
    config = Criterion::default().without_plots().measurement_time(std::time::Duration::from_secs(2)).warm_up_time(std::time::Duration::from_millis(500));
    targets = everything, selections, draws
}
criterion_main!(planning);
